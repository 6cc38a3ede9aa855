//! A future that crosses threads: awaited anywhere, or waited for by blocking.

use std::{
    fmt,
    future::Future as StdFuture,
    mem,
    panic::Location,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    task::{Context as Cx, Poll},
    time::{Duration, Instant},
};

use crate::{
    error::{Cancelled, Error, Result, Text},
    event_loop::{
        exceptions::{ExceptionContext, report_from_anywhere},
        running,
        scope::Leaf,
        threadsafe::Shared,
        waiters::{Place, Waiter, Waiters, wake},
    },
    report,
};

/// The outcome of work in a loop, for other threads: what the thread-safe calls give.
///
/// Awaitable under any executor, on any thread; [`result`](Self::result) blocks a thread that has none. The value is
/// moved out once, an error stays. An error that nobody looks at goes to the loop's exception handler when the future is dropped.
///
/// ```text
/// Pending --begin--> Running --set--> Done --await, result--> Taken
///    `--cancel--> Done(Cancelled)
/// ```
///
/// `Threads:` may cross them (`T: Send`).
///
/// # Cancel safety
///
/// Dropping the wait changes nothing. Cancelling a task that waits here cancels the work.
///
/// # Examples
///
/// ```
/// let (future, setter) = asyncio::ThreadsafeFuture::pair();
/// let thread = std::thread::spawn(move || setter.set_result(7));
/// assert_eq!(future.result(None)?, 7);
/// thread.join().expect("the thread does not panic")?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `concurrent.futures.Future`. Differs: one owner, who takes the value.
pub struct ThreadsafeFuture<T> {
    state: Arc<SharedState<T>>,
    place: Option<Place>,
    leaf: Leaf,
}

/// The other end of a [`ThreadsafeFuture`]: gives it its outcome, once. Dropping it unused cancels the future.
///
/// asyncio: `concurrent.futures.Future.set_result` and `set_exception`.
pub struct ThreadsafeSetter<T> {
    state: Arc<SharedState<T>>,
}

struct SharedState<T> {
    state: Mutex<State<T>>,
    settled: Condvar,
    /// The loop that does the work, if one does.
    event_loop: Option<Arc<Shared>>,
    created: &'static Location<'static>,
}

struct State<T> {
    stage: Stage<T>,
    waiters: Waiters,
    /// How many threads block in `result`.
    blocked: usize,
    /// Set when somebody looked at the outcome or it was reported; never cleared.
    seen: bool,
    /// Set when the future is dropped; never cleared.
    abandoned: bool,
    /// Cancels the work; taken when it is called or the work has ended.
    on_cancel: Option<Box<dyn FnOnce(Cancelled) + Send>>,
    /// Told when the work has ended.
    on_done: Option<Box<dyn FnOnce() + Send>>,
}

enum Stage<T> {
    Pending,
    /// Too late to be cancelled without its consent.
    Running,
    Done(Result<T>),
    Taken,
}

impl<T> SharedState<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Settles the future unless it is settled. False if it was.
    fn settle(&self, outcome: Result<T>) -> bool {
        let mut state = self.lock();
        if !matches!(state.stage, Stage::Pending | Stage::Running) {
            drop(state);
            return false;
        }
        let unread = match &outcome {
            Err(error) if state.abandoned && !state.seen && !error.is_cancelled() => Some(error.clone()),
            _ => None,
        };
        state.stage = Stage::Done(outcome);
        let told = (mem::take(&mut state.waiters), state.on_done.take());
        let cancel = state.on_cancel.take();
        drop(state);
        self.settled.notify_all();
        drop(cancel);
        for waiter in told.0.into_iter() {
            if let Waiter::Waker(waker) = waiter {
                wake(waker);
            }
        }
        if let Some(on_done) = told.1 {
            on_done();
        }
        if let Some(error) = unread {
            self.report(error);
        }
        true
    }

    fn take(&self, state: &mut State<T>) -> Option<Result<T>> {
        if matches!(state.stage, Stage::Pending | Stage::Running) {
            return None;
        }
        state.seen = true;
        match mem::replace(&mut state.stage, Stage::Taken) {
            Stage::Done(Ok(value)) => Some(Ok(value)),
            // A failure stays for whoever asks again.
            Stage::Done(Err(error)) => {
                state.stage = Stage::Done(Err(error.clone()));
                Some(Err(error))
            }
            _ => Some(Err(Error::InvalidState("Result was already taken".into()))),
        }
    }

    #[cold]
    fn report(&self, error: Error) {
        let created = self.created;
        let make = move || {
            ExceptionContext::new("Future exception was never retrieved").exception(error).source_location(created)
        };
        match &self.event_loop {
            Some(shared) => report_from_anywhere(shared, make),
            None => report::error(&make().record()),
        }
    }
}

impl<T: Send + 'static> ThreadsafeFuture<T> {
    /// A future and what settles it, for work that no loop does.
    #[track_caller]
    pub fn pair() -> (ThreadsafeFuture<T>, ThreadsafeSetter<T>) {
        Self::make(None, Location::caller())
    }

    /// A future for work that a loop does.
    pub(crate) fn of_loop(
        shared: &Arc<Shared>,
        created: &'static Location<'static>,
    ) -> (ThreadsafeFuture<T>, ThreadsafeSetter<T>) {
        Self::make(Some(shared.clone()), created)
    }

    fn make(
        event_loop: Option<Arc<Shared>>,
        created: &'static Location<'static>,
    ) -> (ThreadsafeFuture<T>, ThreadsafeSetter<T>) {
        let state = State {
            stage: Stage::Pending,
            waiters: Waiters::default(),
            blocked: 0,
            seen: false,
            abandoned: false,
            on_cancel: None,
            on_done: None,
        };
        let state = SharedState { state: Mutex::new(state), settled: Condvar::new(), event_loop, created };
        let state = Arc::new(state);
        let future = ThreadsafeFuture { state: state.clone(), place: None, leaf: Leaf::new() };
        (future, ThreadsafeSetter { state })
    }

    /// Blocks the thread until the outcome is there, at most `timeout` long (`None`: for ever), and takes it.
    ///
    /// # Errors
    ///
    /// The work's own error; [`Error::Timeout`] when the time is over (the work goes on, and this may be called again);
    /// [`Error::Runtime`] on the thread of the loop that has to do the work, while that loop runs or without a
    /// `timeout`, for it would wait for ever; [`Error::InvalidState`] if the value was taken before.
    ///
    /// asyncio: `concurrent.futures.Future.result`.
    pub fn result(&self, timeout: impl Into<Option<Duration>>) -> Result<T> {
        // An end too far away to be a time is no end.
        let deadline = timeout.into().and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.state.lock();
        if matches!(state.stage, Stage::Pending | Stage::Running) && self.would_block_itself(deadline.is_none()) {
            return Err(Error::Runtime("result() would block the event loop that it waits for; await it".into()));
        }
        state.blocked += 1;
        loop {
            if let Some(outcome) = self.state.take(&mut state) {
                state.blocked -= 1;
                return outcome;
            }
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.state.settled.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(Duration::ZERO) => {
                    state.blocked -= 1;
                    return Err(Error::Timeout("the result is not there yet".into()));
                }
                Some(left) => {
                    let waited = self.state.settled.wait_timeout(state, left);
                    waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
                }
            };
        }
    }

    fn would_block_itself(&self, for_ever: bool) -> bool {
        let Some(shared) = &self.state.event_loop else { return false };
        if for_ever {
            return shared.on_its_thread();
        }
        running::with(|running| running.is_some_and(|event_loop| event_loop.inner.shared.id == shared.id))
    }

    /// Cancels the work; false if it has ended, or is a callback that runs already.
    ///
    /// asyncio: `concurrent.futures.Future.cancel`.
    pub fn cancel(&self) -> bool {
        self.cancel_as(self.reason(None))
    }

    /// As [`cancel`](Self::cancel), with a message for the one who is cancelled.
    pub fn cancel_with(&self, message: impl Into<Text>) -> bool {
        self.cancel_as(self.reason(Some(message.into())))
    }

    fn reason(&self, message: Option<Text>) -> Cancelled {
        match &self.state.event_loop {
            Some(shared) => running::reason(shared, message),
            None => Cancelled::new(message),
        }
    }

    fn cancel_as(&self, reason: Cancelled) -> bool {
        let mut state = self.state.lock();
        if !matches!(state.stage, Stage::Pending) {
            return false;
        }
        let on_cancel = state.on_cancel.take();
        drop(state);
        let cancelled = self.state.settle(Err(Error::Cancelled(reason.clone())));
        if let Some(on_cancel) = on_cancel {
            on_cancel(reason);
        }
        cancelled
    }

    /// Whether the work has ended or was cancelled.
    ///
    /// asyncio: `concurrent.futures.Future.done`.
    pub fn done(&self) -> bool {
        !matches!(self.state.lock().stage, Stage::Pending | Stage::Running)
    }

    /// Whether the work was cancelled.
    pub fn cancelled(&self) -> bool {
        matches!(&self.state.lock().stage, Stage::Done(Err(error)) if error.is_cancelled())
    }

    /// Settles the future at its birth.
    pub(crate) fn fail_silently(&self, error: Error) {
        let mut state = self.state.lock();
        if matches!(state.stage, Stage::Pending)
            || matches!(&state.stage, Stage::Done(Err(error)) if error.is_cancelled())
        {
            state.stage = Stage::Done(Err(error));
        }
    }

    /// Calls `on_done` on whichever thread settles the future, or now.
    pub(crate) fn when_done(&self, on_done: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock();
        if matches!(state.stage, Stage::Pending | Stage::Running) {
            state.on_done = Some(Box::new(on_done));
            return;
        }
        drop(state);
        on_done();
    }

    /// Takes the outcome if it is there.
    pub(crate) fn take(&self) -> Option<Result<T>> {
        self.state.take(&mut self.state.lock())
    }
}

impl<T: Send + 'static> StdFuture for ThreadsafeFuture<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            this.cancel_as(cancelled.clone());
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let mut state = this.state.lock();
        if let Some(outcome) = this.state.take(&mut state) {
            drop(state);
            this.place = None;
            this.leaf.resume();
            return Poll::Ready(outcome);
        }
        let old = state.waiters.register(&mut this.place, cx.waker());
        drop(state);
        drop(old);
        this.leaf.suspend(running::current().as_ref(), cx);
        Poll::Pending
    }
}

impl<T> Drop for ThreadsafeFuture<T> {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.abandoned = true;
        let waiter = self.place.and_then(|place| state.waiters.remove(place));
        let unread = match &state.stage {
            Stage::Done(Err(error)) if !state.seen && !error.is_cancelled() => Some(error.clone()),
            _ => None,
        };
        state.seen |= unread.is_some();
        drop(state);
        drop(waiter);
        if let Some(error) = unread {
            self.state.report(error);
        }
    }
}

impl<T> fmt::Debug for ThreadsafeFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state.lock().stage {
            Stage::Pending => "pending",
            Stage::Running => "running",
            Stage::Done(Err(error)) if error.is_cancelled() => "cancelled",
            Stage::Done(_) | Stage::Taken => "finished",
        };
        write!(f, "<ThreadsafeFuture {state} created at {}>", self.state.created)
    }
}

impl<T: Send + 'static> ThreadsafeSetter<T> {
    /// Gives the future its value.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidState`] if the future is done; `value` is dropped.
    pub fn set_result(&self, value: T) -> Result<()> {
        self.settle(Ok(value))
    }

    /// Gives the future an error.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidState`] if the future is done.
    pub fn set_exception(&self, error: impl Into<Error>) -> Result<()> {
        self.settle(Err(error.into()))
    }

    /// Whether the future was cancelled: then there is no need to work for it.
    pub fn cancelled(&self) -> bool {
        matches!(&self.state.lock().stage, Stage::Done(Err(error)) if error.is_cancelled())
    }

    fn settle(&self, outcome: Result<T>) -> Result<()> {
        match self.state.settle(outcome) {
            true => Ok(()),
            false => Err(Error::InvalidState("the future is done already".into())),
        }
    }

    /// Settles the future; a future that was cancelled meanwhile stays so.
    pub(crate) fn set(&self, outcome: Result<T>) {
        self.state.settle(outcome);
    }

    /// Begins work that cannot be cancelled from now on; false if it was cancelled before.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        let begins = matches!(state.stage, Stage::Pending);
        if begins {
            state.stage = Stage::Running;
        }
        begins
    }

    /// Whether somebody waits for the outcome now.
    pub(crate) fn is_awaited(&self) -> bool {
        let state = self.state.lock();
        state.blocked > 0 || state.waiters.has_wakers()
    }

    /// Whether the future has an outcome already.
    pub(crate) fn is_settled(&self) -> bool {
        !matches!(self.state.lock().stage, Stage::Pending | Stage::Running)
    }

    /// Says that the outcome is reported.
    pub(crate) fn mark_seen(&self) {
        self.state.lock().seen = true;
    }

    /// Says how to cancel the work; called at once if the future was cancelled before.
    pub(crate) fn on_cancel(&self, cancel: impl FnOnce(Cancelled) + Send + 'static) {
        let mut state = self.state.lock();
        let reason = match &state.stage {
            Stage::Pending => {
                state.on_cancel = Some(Box::new(cancel));
                return;
            }
            Stage::Done(Err(Error::Cancelled(cancelled))) => cancelled.clone(),
            _ => return,
        };
        drop(state);
        cancel(reason);
    }
}

impl<T> Drop for ThreadsafeSetter<T> {
    fn drop(&mut self) {
        self.state.settle(Err(Error::cancelled()));
    }
}

impl<T> fmt::Debug for ThreadsafeSetter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ThreadsafeSetter created at {}>", self.state.created)
    }
}
