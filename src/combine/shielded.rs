//! Clean-up that a cancellation must not break off.

use std::{
    fmt,
    future::{Future as StdFuture, IntoFuture},
    pin::Pin,
    task::{Context as Cx, Poll},
};

use pin_project_lite::pin_project;

use crate::{
    combine::timeout::poll_body,
    error::{Error, Result},
    event_loop::{
        child_scope::{OwnedScope, Polled},
        running,
    },
};

/// Awaits `future` to its end, whatever asks the task to cancel meanwhile: a section for clean-up.
///
/// `future` is polled in place, so it may borrow. A cancellation of the task, of a timeout or of a group around waits
/// until the section has ended and arrives at the next await after it. Timeouts inside of the section work. Only
/// [`cancel_with_grace`](crate::Task::cancel_with_grace), whose time is over, and a loop that is closed break it off.
///
/// [`shield`](crate::shield) is another thing: it protects a task, and lets who awaits it go.
///
/// # Cancel safety
///
/// Dropping it drops `future`.
///
/// # Errors
///
/// Those of `future`; [`Error::Runtime`] outside of a task.
///
/// # Examples
///
/// ```
/// use asyncio::{create_task, shielded, sleep};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let task = create_task(async {
///         let work = sleep(Duration::from_secs(3600)).await;
///         let goodbye = shielded(async {
///             sleep(Duration::from_millis(2)).await?; // for example, telling a server
///             Ok("told")
///         });
///         assert_eq!(goodbye.await?, "told");
///         work
///     });
///     sleep(Duration::ZERO).await?;
///     task.cancel();
///     sleep(Duration::from_millis(1)).await?;
///     task.cancel(); // somebody is impatient
///     assert!(task.await.unwrap_err().is_cancelled());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: has no counterpart.
pub fn shielded<T, F: IntoFuture<Output = Result<T>>>(future: F) -> Shielded<F::IntoFuture> {
    Shielded { body: Some(future.into_future()), scope: None }
}

pin_project! {
    /// What [`shielded`] gives.
    ///
    /// `Threads:` may cross them if the future inside may.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the future inside.
    ///
    /// asyncio: has no counterpart.
    #[must_use = "nothing happens until it is awaited"]
    pub struct Shielded<F> {
        #[pin]
        body: Option<F>,
        // Open from the first poll to the end.
        scope: Option<OwnedScope>,
    }
}

impl<T, F: StdFuture<Output = Result<T>>> StdFuture for Shielded<F> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let mut this = self.project();
        let event_loop = running::require()?;
        let scope = match this.scope {
            Some(scope) => scope,
            None => {
                let scope = OwnedScope::open_shield(&event_loop);
                let outside = || Error::Runtime("a shielded section should be used inside a task".into());
                this.scope.insert(scope.ok_or_else(outside)?)
            }
        };
        let outcome = match scope.poll(&event_loop, cx, |cx| poll_body(this.body.as_mut(), cx))? {
            Polled::Pending => return Poll::Pending,
            Polled::Ready(outcome) => outcome,
            Polled::GivenUp(reason) => Err(Error::Cancelled(reason)),
        };
        this.body.set(None);
        if let Some(scope) = this.scope.take() {
            scope.close(&event_loop);
        }
        Poll::Ready(outcome)
    }
}

impl<F> fmt::Debug for Shielded<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<shielded section>")
    }
}
