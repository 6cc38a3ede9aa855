//! Foreign futures that can see a cancellation.

use std::{
    future::{Future as StdFuture, IntoFuture},
    pin::Pin,
    task::{Context as Cx, Poll},
};

use pin_project_lite::pin_project;

use crate::{
    error::{Error, Result},
    event_loop::{running, scope::Leaf},
};

/// Lets the task see its cancellation where it awaits a future that is not this crate's.
///
/// Without it, a task that is cancelled while only foreign futures are pending is dropped. With it, the await gives
/// [`Error::Cancelled`], and the coroutine can clean up.
///
/// # Cancel safety
///
/// That of the future inside. After a cancellation it can be polled again, to go on.
///
/// # Examples
///
/// ```
/// use asyncio::{Error, cancellable, create_task, sleep};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let task = create_task(async {
///         match cancellable(std::future::pending::<()>()).await {
///             Err(Error::Cancelled(_)) => Ok("cleaned up"),
///             _ => Ok("never"),
///         }
///     });
///     sleep(Duration::ZERO).await?;
///     task.cancel();
///     assert_eq!(task.await?, "cleaned up");
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: every await is so.
pub fn cancellable<F: IntoFuture>(future: F) -> Cancellable<F::IntoFuture> {
    Cancellable { future: future.into_future(), leaf: Leaf::new() }
}

pin_project! {
    /// What [`cancellable`] gives.
    ///
    /// # Cancel safety
    ///
    /// That of the future inside.
    #[derive(Debug)]
    #[must_use = "nothing happens until it is awaited"]
    pub struct Cancellable<F> {
        #[pin]
        future: F,
        leaf: Leaf,
    }
}

impl<F: StdFuture> StdFuture for Cancellable<F> {
    type Output = Result<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(cancelled) = this.leaf.take_cancel() {
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        match this.future.poll(cx) {
            Poll::Ready(output) => {
                this.leaf.resume();
                Poll::Ready(Ok(output))
            }
            Poll::Pending => {
                this.leaf.suspend(running::current().as_ref(), cx);
                Poll::Pending
            }
        }
    }
}
