//! Coroutines handed to a loop by other threads.

use std::{
    future::Future as StdFuture,
    panic::{AssertUnwindSafe, Location, resume_unwind},
    rc::Rc,
};

use futures::{
    FutureExt as _,
    task::{FutureObj, Spawn, SpawnError},
};

use crate::{
    context::{self, ContextRef},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        threadsafe::{ThreadsafeLoop, closed},
        threadsafe_future::{ThreadsafeFuture, ThreadsafeSetter},
    },
    task::request::TaskRequest,
};

/// What [`ThreadsafeLoop::run_coroutine_threadsafe`] takes: a `Send` future, or a `Send` closure that makes a local one.
///
/// `M` tells the two apart; the compiler finds it out.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a `Send` future nor a `Send` closure that makes a future",
    note = "the output must be `asyncio::Result<T>` with `T: Send`; a future that is not `Send` goes into a closure: `async || ..`"
)]
pub trait IntoCoroutine<M>: Send + 'static {
    /// What the coroutine gives.
    type T: Send + 'static;

    /// Makes the coroutine, on the loop's thread.
    fn into_coroutine(self) -> impl StdFuture<Output = Result<Self::T>> + 'static;
}

/// Marks a future, for [`IntoCoroutine`].
#[derive(Debug)]
pub enum IsFuture {}

/// Marks a closure, for [`IntoCoroutine`].
#[derive(Debug)]
pub struct IsClosure<F>(std::marker::PhantomData<F>);

impl<T: Send + 'static, F: StdFuture<Output = Result<T>> + Send + 'static> IntoCoroutine<IsFuture> for F {
    type T = T;

    fn into_coroutine(self) -> impl StdFuture<Output = Result<T>> + 'static {
        self
    }
}

impl<T, F, C> IntoCoroutine<IsClosure<F>> for C
where
    T: Send + 'static,
    F: StdFuture<Output = Result<T>> + 'static,
    C: FnOnce() -> F + Send + 'static,
{
    type T = T;

    fn into_coroutine(self) -> impl StdFuture<Output = Result<T>> + 'static {
        self()
    }
}

impl ThreadsafeLoop {
    /// Lets the loop run a coroutine; the future gives its result to whoever waits, on any thread.
    ///
    /// Takes a `Send` future, or a `Send` closure that makes one that need not be: `async move || { .. }` for what holds
    /// task groups, `gather`, `wait`, `as_completed` or generators, which are bound to their loop. It runs in a copy of
    /// the caller's context. Cancelling the future cancels the task. On a closed loop the coroutine is dropped and the future gives
    /// [`Error::Runtime`](crate::Error::Runtime).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{rc::Rc, time::Duration};
    ///
    /// asyncio::run(async {
    ///     let remote = asyncio::get_running_loop()?.threadsafe();
    ///     let thread = std::thread::spawn(move || {
    ///         let local = remote.run_coroutine_threadsafe(async || {
    ///             let not_send = Rc::new(2);
    ///             asyncio::sleep(Duration::from_millis(1)).await?;
    ///             Ok(*not_send)
    ///         });
    ///         local.result(Duration::from_secs(10))
    ///     });
    ///     assert_eq!(asyncio::to_thread(move || thread.join().expect("no panic")).await?, 2);
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `asyncio.run_coroutine_threadsafe`.
    #[track_caller]
    pub fn run_coroutine_threadsafe<M: 'static, C: IntoCoroutine<M>>(&self, coroutine: C) -> ThreadsafeFuture<C::T> {
        let created = Location::caller();
        let (future, setter) = ThreadsafeFuture::of_loop(&self.shared, created);
        let vars = context::current_vars();
        let call = move |event_loop: &EventLoop| {
            if setter.cancelled() {
                return;
            }
            // The task copies the context that it is made in: the caller's.
            let entered = context::enter(ContextRef::Bare(vars), 0);
            start(event_loop, coroutine, setter, created);
            drop(entered);
        };
        if !self.shared.push_call(call) {
            future.fail_silently(closed());
        }
        future
    }
}

/// Makes the task of a coroutine from another thread, and lets each side know of the other's end.
fn start<M: 'static, C: IntoCoroutine<M>>(
    event_loop: &EventLoop,
    coroutine: C,
    setter: ThreadsafeSetter<C::T>,
    created: &'static Location<'static>,
) {
    let setter = Rc::new(setter);
    let coroutine = panics_for(setter.clone(), async move { coroutine.into_coroutine().await });
    let mut task = event_loop.make_task(coroutine, TaskRequest::default(), created);
    let reference = task.any().task.clone();
    setter.on_cancel(move |reason| _ = reference.cancel(reason));
    let any = task.any();
    let _ = any.add_done_callback(move |_| {
        if setter.is_settled() {
            return; // cancelled meanwhile: an error of the task is its own to report
        }
        // Done, so that it is there.
        let polled = std::pin::Pin::new(&mut task).poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        if let std::task::Poll::Ready(outcome) = polled {
            setter.set(outcome);
        }
    });
}

/// A panic is the error of whoever waits in another thread; where nobody does it goes on, to be reported at once.
async fn panics_for<T: Send + 'static>(
    setter: Rc<ThreadsafeSetter<T>>,
    coroutine: impl StdFuture<Output = Result<T>>,
) -> Result<T> {
    match AssertUnwindSafe(coroutine).catch_unwind().await {
        Ok(outcome) => outcome,
        Err(payload) if setter.is_awaited() => Err(Error::from_panic(payload)),
        Err(payload) => {
            setter.mark_seen();
            resume_unwind(payload)
        }
    }
}

/// Lets `event_loop` run a coroutine; see [`ThreadsafeLoop::run_coroutine_threadsafe`].
///
/// asyncio: `asyncio.run_coroutine_threadsafe`.
#[track_caller]
pub fn run_coroutine_threadsafe<M: 'static, C: IntoCoroutine<M>>(
    coroutine: C,
    event_loop: &ThreadsafeLoop,
) -> ThreadsafeFuture<C::T> {
    event_loop.run_coroutine_threadsafe(coroutine)
}

impl Spawn for ThreadsafeLoop {
    fn spawn_obj(&self, future: FutureObj<'static, ()>) -> std::result::Result<(), SpawnError> {
        self.status()?;
        drop(self.run_coroutine_threadsafe(async move {
            future.await;
            Ok(())
        }));
        Ok(())
    }

    fn status(&self) -> std::result::Result<(), SpawnError> {
        if self.is_closed() { Err(SpawnError::shutdown()) } else { Ok(()) }
    }
}
