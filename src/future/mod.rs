//! A result that is not there yet: set by whoever has it, awaited by whoever needs it.

pub(crate) mod callbacks;
pub(crate) mod shared;
pub(crate) mod wrap;

use std::{
    fmt,
    future::Future as StdFuture,
    mem,
    panic::Location,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context as Cx, Poll},
};

use crate::{
    error::{Cancelled, Error, Result, Text},
    event_loop::{
        EventLoop,
        exceptions::{ExceptionContext, check_loop, other_thread, report_from_anywhere},
        observers::{Member, Observed},
        running,
        scope::{CancelTarget, Leaf, Waiting},
        threadsafe::Shared,
        turn::Ready,
        waiters::{self, Place, Waiter, Waiters},
    },
    future::{
        callbacks::{CallbackToken, add_callback, drop_callbacks},
        shared::SharedFuture,
    },
    report::{AnyFuture, FutureSummary},
};

/// A result that some other part of the program will set. Clones are handles of one future.
///
/// ```text
/// Pending --set_result, set_exception, cancel--> Done --await of the future itself--> Taken
/// ```
///
/// Awaiting the future moves the value out, once; awaiting a reference, `(&future).await`, clones it (`T: Clone`) and may
/// be repeated. Those who wait are woken in the order in which they began, in the same iteration. An error that nobody
/// looked at goes to the exception handler when the last handle is dropped.
///
/// `std::future::Future` is another one: a glob import of this crate would hide it.
///
/// `Threads:` may cross them (`T: Send`), and any may read; setting, awaiting and adding callbacks are for the loop's
/// own thread.
///
/// # Cancel safety
///
/// Cancelling a task that awaits a future cancels the future; dropping the wait does not.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let event_loop = asyncio::get_running_loop()?;
///     let future = event_loop.create_future();
///     let setter = future.clone();
///     event_loop.call_later(Duration::from_millis(1), move || setter.set_result("done"));
///     assert_eq!((&future).await?, "done");
///     assert_eq!(future.await?, "done");
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Future`.
pub struct Future<T: 'static> {
    core: Arc<Core<T>>,
    /// Where this handle waits.
    place: Option<Place>,
    leaf: Leaf,
}

struct Core<T: 'static> {
    shared: Arc<Shared>,
    created: &'static Location<'static>,
    id: u64,
    state: Mutex<State<T>>,
}

struct State<T> {
    outcome: Outcome<T>,
    /// Set when somebody looked at the outcome or it was reported; never cleared.
    seen: bool,
    waiters: Waiters,
}

enum Outcome<T> {
    Pending,
    Done(Result<T>),
    /// The value was moved out.
    Taken,
}

impl<T: 'static> Core<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Completes a pending future and wakes those who wait. Gives the outcome back if it was done.
    fn complete(self: &Arc<Self>, outcome: Result<T>) -> std::result::Result<(), Result<T>> {
        let mut state = self.lock();
        if !matches!(state.outcome, Outcome::Pending) {
            return Err(outcome);
        }
        state.outcome = Outcome::Done(outcome);
        let waiters = mem::take(&mut state.waiters);
        drop(state);
        match waiters.into_one_waker() {
            Ok(waker) => waker.into_iter().for_each(waiters::wake),
            Err(waiters) => self.notify(waiters),
        }
        Ok(())
    }

    #[cold]
    fn notify(self: &Arc<Self>, waiters: Waiters) {
        let keep = waiters.has_callbacks();
        match running::local(&self.shared) {
            Some(event_loop) => {
                event_loop.notify(waiters);
                if keep {
                    // The callbacks know the future weakly; it stays until they have run.
                    event_loop.push(Ready::Keep(Box::new(self.clone())));
                }
            }
            None => wake(waiters),
        }
    }

    fn summary(&self) -> FutureSummary {
        match &self.lock().outcome {
            Outcome::Pending => FutureSummary::Pending,
            Outcome::Done(Err(Error::Cancelled(_))) => FutureSummary::Cancelled,
            Outcome::Done(Err(error)) => FutureSummary::Failed(error.clone()),
            Outcome::Done(Ok(_)) | Outcome::Taken => FutureSummary::Finished,
        }
    }

    fn any(&self) -> AnyFuture {
        AnyFuture { id: self.id, state: self.summary(), created: self.created }
    }
}

/// Wakes the wakers; callbacks of a loop that is gone are gone with it.
fn wake(waiters: Waiters) {
    for waiter in waiters.into_iter() {
        if let Waiter::Waker(waker) = waiter {
            waiters::wake(waker);
        }
    }
}

impl<T> CancelTarget for Core<T> {
    fn cancel_target(self: Arc<Self>, reason: Cancelled) -> bool {
        self.complete(Err(Error::Cancelled(reason))).is_ok()
    }
}

impl<T: 'static> Drop for Core<T> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !state.waiters.is_empty() {
            let keys = mem::take(&mut state.waiters).into_iter().filter_map(|waiter| match waiter {
                Waiter::Callback(key) => Some(key),
                Waiter::Waker(_) | Waiter::Observer(_) => None,
            });
            drop_callbacks(&self.shared, keys.collect());
        }
        let unread = match &state.outcome {
            Outcome::Done(Err(error)) if !state.seen && !error.is_cancelled() => error.clone(),
            _ => return,
        };
        let future = AnyFuture { id: self.id, state: FutureSummary::Failed(unread.clone()), created: self.created };
        report_from_anywhere(&self.shared, move || {
            let created = future.created;
            ExceptionContext::new("Future exception was never retrieved")
                .exception(unread)
                .future(future)
                .source_location(created)
        });
    }
}

impl EventLoop {
    /// A pending future of this loop.
    ///
    /// asyncio: `loop.create_future`.
    #[track_caller]
    pub fn create_future<T: 'static>(&self) -> Future<T> {
        Future::of_loop(self.inner.shared.clone(), Location::caller())
    }
}

impl<T: 'static> Future<T> {
    /// A pending future of the current loop: the running one, else the one that was set.
    ///
    /// Where there is none, the future is born failed with [`Error::Runtime`], as
    /// [`get_event_loop`](crate::get_event_loop) says.
    ///
    /// asyncio: `asyncio.Future()`.
    #[track_caller]
    #[expect(clippy::new_without_default, reason = "it belongs to a loop: nothing that a default could know")]
    pub fn new() -> Future<T> {
        let created = Location::caller();
        match running::get_event_loop() {
            Ok(event_loop) => Future::of_loop(event_loop.inner.shared.clone(), created),
            Err(error) => Future::homeless(error, created),
        }
    }

    /// A future that has failed because there is no loop.
    pub(crate) fn homeless(error: Error, created: &'static Location<'static>) -> Future<T> {
        let future = Future::of_loop(EventLoop::closed_one().inner.shared.clone(), created);
        // Cannot fail: it is new and this is its thread.
        let _ = future.complete(Err(error));
        future
    }

    pub(crate) fn of_loop(shared: Arc<Shared>, created: &'static Location<'static>) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let state = State { outcome: Outcome::Pending, seen: false, waiters: Waiters::default() };
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        Future::with_core(Arc::new(Core { shared, created, id, state: Mutex::new(state) }))
    }

    fn with_core(core: Arc<Core<T>>) -> Self {
        Future { core, place: None, leaf: Leaf::new() }
    }

    /// Gives the future its value and wakes those who wait.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidState`] if it is done, [`Error::Runtime`] on another thread than the loop's; `value` is dropped.
    ///
    /// asyncio: `Future.set_result`.
    pub fn set_result(&self, value: T) -> Result<()> {
        self.complete(Ok(value))
    }

    /// Gives the future an error and wakes those who wait.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidState`] if it is done, [`Error::Runtime`] on another thread than the loop's.
    ///
    /// asyncio: `Future.set_exception`.
    pub fn set_exception(&self, error: impl Into<Error>) -> Result<()> {
        self.complete(Err(error.into()))
    }

    fn complete(&self, outcome: Result<T>) -> Result<()> {
        if !self.core.shared.on_its_thread() {
            return Err(other_thread("completing a future"));
        }
        self.core.complete(outcome).map_err(|_| Error::InvalidState("invalid state: the future is done".into()))
    }

    /// Cancels the future; false if it was done, or on another thread than the loop's.
    ///
    /// asyncio: `Future.cancel`.
    pub fn cancel(&self) -> bool {
        self.cancel_as(running::reason(&self.core.shared, None))
    }

    /// As [`cancel`](Self::cancel), with a message for those who wait.
    ///
    /// asyncio: `Future.cancel(msg)`.
    pub fn cancel_with(&self, message: impl Into<Text>) -> bool {
        self.cancel_as(running::reason(&self.core.shared, Some(message.into())))
    }

    fn cancel_as(&self, reason: Cancelled) -> bool {
        let cancelled = Error::Cancelled(reason);
        let cancels = self.core.shared.on_its_thread() && self.core.complete(Err(cancelled)).is_ok();
        if !cancels {
            let mut state = self.core.lock();
            state.seen |= !matches!(state.outcome, Outcome::Pending);
        }
        cancels
    }

    /// Whether the future has a value or an error, or was cancelled.
    ///
    /// asyncio: `Future.done`.
    pub fn done(&self) -> bool {
        !matches!(self.core.lock().outcome, Outcome::Pending)
    }

    /// Whether the future was cancelled.
    ///
    /// asyncio: `Future.cancelled`.
    pub fn cancelled(&self) -> bool {
        matches!(&self.core.lock().outcome, Outcome::Done(Err(Error::Cancelled(_))))
    }

    /// A copy of the value, or the error. `T`'s own `Clone` must not look at this future, which is locked meanwhile.
    ///
    /// # Errors
    ///
    /// The future's own; [`Error::InvalidState`] "Result is not set." while it is pending, "Result was already taken"
    /// after the value was moved out.
    ///
    /// asyncio: `Future.result`.
    pub fn result(&self) -> Result<T>
    where
        T: Clone,
    {
        self.core.look().unwrap_or_else(|| Err(Error::InvalidState("Result is not set.".into())))
    }

    /// The error that the future was given, `None` if it has a value.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if it was cancelled; [`Error::InvalidState`] "Exception is not set." while it is pending.
    ///
    /// asyncio: `Future.exception`.
    pub fn exception(&self) -> Result<Option<Error>> {
        let mut state = self.core.lock();
        state.seen |= !matches!(state.outcome, Outcome::Pending);
        match &state.outcome {
            Outcome::Pending => Err(Error::InvalidState("Exception is not set.".into())),
            Outcome::Done(Err(Error::Cancelled(cancelled))) => Err(Error::Cancelled(cancelled.clone())),
            Outcome::Done(Err(error)) => Ok(Some(error.clone())),
            Outcome::Done(Ok(_)) | Outcome::Taken => Ok(None),
        }
    }

    /// Runs `callback` in the iteration after the future is done; if it is done, in the next one.
    ///
    /// It is given this future, and runs in a copy of the present context. Callbacks and those who await are one line,
    /// in the order in which they came. On another thread than the loop's, and on a closed loop, the callback is dropped
    /// and the exception handler told.
    ///
    /// asyncio: `Future.add_done_callback`. Differs: gives a token to remove it by.
    #[track_caller]
    pub fn add_done_callback(&self, callback: impl FnOnce(&Future<T>) + 'static) -> CallbackToken {
        let weak = Arc::downgrade(&self.core);
        let callback = move || {
            if let Some(core) = weak.upgrade() {
                callback(&Future::with_core(core));
            }
        };
        let token = add_callback(&self.core.shared, callback, Location::caller(), |key| {
            let mut state = self.core.lock();
            match state.outcome {
                Outcome::Pending => Some(state.waiters.push(Waiter::Callback(key))),
                _ => None,
            }
        });
        let listed = token.entry_in(&self.core.shared).is_some();
        if let (false, Some(event_loop)) = (listed, running::local(&self.core.shared)) {
            event_loop.push(Ready::Keep(Box::new(self.core.clone())));
        }
        token
    }

    /// Removes a done callback; false if it was scheduled or removed before.
    ///
    /// asyncio: `Future.remove_done_callback`. Differs: by token, so one at a time.
    pub fn remove_done_callback(&self, token: &CallbackToken) -> bool {
        if !self.core.shared.on_its_thread() {
            return false;
        }
        let Some((place, key)) = token.entry_in(&self.core.shared) else { return false };
        let removed = self.core.lock().waiters.remove_callback(place, key);
        if removed {
            drop_callbacks(&self.core.shared, vec![key]);
        }
        removed
    }

    /// Lets an observer learn of the end, in the iteration after it. On the loop's thread only.
    pub(crate) fn observe_with(&self, member: Member) -> Observed {
        let mut state = self.core.lock();
        match state.outcome {
            Outcome::Pending => Observed::Listed(state.waiters.push(Waiter::Observer(member))),
            _ => Observed::Not,
        }
    }

    pub(crate) fn unobserve_with(&self, observed: Observed) {
        if let Observed::Listed(place) = observed {
            let waiter = self.core.lock().waiters.remove(place);
            drop(waiter);
        }
    }

    pub(crate) fn cancel_with_reason(&self, reason: Cancelled) -> bool {
        self.cancel_as(reason)
    }

    /// The error that the future was given, without a look at it.
    pub(crate) fn unseen_error(&self) -> Option<Error> {
        match &self.core.lock().outcome {
            Outcome::Done(Err(error)) => Some(error.clone()),
            _ => None,
        }
    }

    pub(crate) fn loop_id(&self) -> u64 {
        self.core.shared.id
    }

    /// What tells this future from all others that exist.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.core).addr()
    }

    /// The loop that the future belongs to.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] on another thread, and if every handle of the loop is gone.
    ///
    /// asyncio: `Future.get_loop`.
    pub fn get_loop(&self) -> Result<EventLoop> {
        running::local(&self.core.shared).ok_or_else(|| other_thread("getting the loop of a future"))
    }

    /// A form that is awaited as often as wanted, by many: each await gives a clone.
    pub fn shared(self) -> SharedFuture<T>
    where
        T: Clone,
    {
        SharedFuture::new(self)
    }

    /// The future as reports carry it, to compare with.
    pub fn any(&self) -> AnyFuture {
        self.core.any()
    }

    /// Polls with `take` to get the outcome once it is there.
    fn poll_with(&mut self, cx: &Cx<'_>, take: impl FnOnce(&mut Outcome<T>) -> Result<T>) -> Poll<Result<T>> {
        if let Some(cancelled) = self.leaf.take_cancel() {
            // Not forwarded by `cancel()` because the task waits for several things: it is now.
            self.core.clone().cancel_target(cancelled.clone());
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let mut state = self.core.lock();
        if !matches!(state.outcome, Outcome::Pending) {
            state.seen = true;
            let outcome = take(&mut state.outcome);
            if matches!(outcome, Err(Error::Cancelled(_))) {
                running::with(|running| running.into_iter().for_each(EventLoop::receive_forwarded));
            }
            let waiter = self.place.take().and_then(|place| state.waiters.remove(place));
            drop(state);
            drop(waiter);
            self.leaf.resume();
            return Poll::Ready(outcome);
        }
        // What follows runs no foreign code, so that the running loop can be borrowed meanwhile.
        let (core, place, leaf) = (&self.core, &mut self.place, &mut self.leaf);
        let waits = running::with(|running| {
            core.check_wait(running)?;
            let old = state.waiters.register(place, cx.waker());
            drop(state);
            leaf.suspend_on(running, cx, || Waiting::Future(core.clone()));
            Ok(old)
        });
        match waits {
            Ok(old) => drop(old),
            Err(error) => return Poll::Ready(Err(error)),
        }
        Poll::Pending
    }
}

impl<T> Core<T> {
    fn check_wait(&self, running: Option<&EventLoop>) -> Result<()> {
        check_loop(self.shared.id, running)?;
        if self.shared.on_its_thread() { Ok(()) } else { Err(other_thread("awaiting a future")) }
    }
}

impl<T: Clone> Core<T> {
    /// A copy of the outcome, if there is one.
    fn look(&self) -> Option<Result<T>> {
        let mut state = self.lock();
        if matches!(state.outcome, Outcome::Pending) {
            return None;
        }
        state.seen = true;
        Some(clone_outcome(&state.outcome))
    }
}

fn clone_outcome<T: Clone>(outcome: &Outcome<T>) -> Result<T> {
    match outcome {
        Outcome::Done(outcome) => outcome.clone(),
        Outcome::Pending | Outcome::Taken => Err(already_taken()),
    }
}

pub(crate) fn already_taken() -> Error {
    Error::InvalidState("Result was already taken".into())
}

impl<T: 'static> StdFuture for Future<T> {
    type Output = Result<T>;

    /// Moves the value out; cancelled and failed futures stay so.
    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        self.get_mut().poll_with(cx, |outcome| match mem::replace(outcome, Outcome::Taken) {
            Outcome::Done(Err(error)) => {
                *outcome = Outcome::Done(Err(error.clone()));
                Err(error)
            }
            Outcome::Done(Ok(value)) => Ok(value),
            Outcome::Pending | Outcome::Taken => Err(already_taken()),
        })
    }
}

impl<T: 'static> Clone for Future<T> {
    fn clone(&self) -> Self {
        Future::with_core(self.core.clone())
    }
}

impl<T: 'static> Drop for Future<T> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let waiter = self.core.lock().waiters.remove(place);
            drop(waiter);
        }
    }
}

impl<T: 'static> PartialEq for Future<T> {
    /// Whether both are handles of one future.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }
}

impl<T: 'static> Eq for Future<T> {}

impl<T: fmt::Debug + 'static> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value that holds its own future, printed inside itself, must not wait for the lock that printing holds.
        match self.core.state.try_lock().as_deref() {
            Ok(State { outcome: Outcome::Done(Ok(value)), .. }) => {
                return write!(f, "<Future finished result={value:?} created at {}>", self.core.created);
            }
            Ok(_) => {}
            Err(_) => return write!(f, "<Future created at {}>", self.core.created),
        }
        self.any().fmt(f)
    }
}
