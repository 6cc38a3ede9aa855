//! Waiting for something, but not for ever.

use std::{
    fmt,
    future::{Future as StdFuture, IntoFuture, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context as Cx, Poll},
    time::{Duration, Instant},
};

use pin_project_lite::pin_project;

use crate::{
    error::{Error, Result},
    event_loop::{
        EventLoop,
        child_scope::{Closed, OwnedScope, Polled, ScopeKey},
        exceptions::other_thread,
        running,
    },
};

/// Awaits `future`, for at most `delay`, counted from the first poll; `None` is without limit.
///
/// `future` is polled in place, so it may borrow. When the time is over, what it awaits gives [`Error::Cancelled`]: it
/// can clean up, and the timeout waits until it has. What ends in no cancellation passes unchanged: a value, or an error
/// of its own. Where only foreign futures are pending, nobody can take the cancellation, and `future` is dropped, not the
/// task. The task is not cancelled; its [`cancelling`](crate::Task::cancelling) counts one more until the timeout ends.
/// A delay of zero lets `future` be polled once.
///
/// # Cancel safety
///
/// That of `future`. Cancelling the task while it waits gives `future` the cancellation.
///
/// # Errors
///
/// [`Error::Timeout`] when the time was over; what `future` gives otherwise; [`Error::Runtime`] outside of a task.
///
/// # Examples
///
/// ```
/// use asyncio::{ErrorKind, sleep, timeout};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let outcome = timeout(Duration::from_millis(1), sleep(Duration::from_secs(3600))).await;
///     assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
///     assert_eq!(timeout(Duration::from_secs(3600), async { Ok(5) }).await?, 5);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.timeout`. Differs: takes what it is around; [`Timeout`] has `reschedule`, `when` and `expired`.
pub fn timeout<T, F>(delay: impl Into<Option<Duration>>, future: F) -> TimeoutFuture<F::IntoFuture>
where
    F: IntoFuture<Output = Result<T>>,
{
    TimeoutFuture::new(delay.into().map_or(Limit::Never, Limit::In), future.into_future())
}

/// As [`timeout`], until `deadline`, a time of the loop's clock; if that is past, `future` is polled once.
///
/// # Cancel safety
///
/// That of `future`.
///
/// # Errors
///
/// As [`timeout`].
///
/// asyncio: `asyncio.timeout_at`.
pub fn timeout_at<T, F>(deadline: impl Into<Option<Instant>>, future: F) -> TimeoutFuture<F::IntoFuture>
where
    F: IntoFuture<Output = Result<T>>,
{
    TimeoutFuture::new(deadline.into().map_or(Limit::Never, Limit::At), future.into_future())
}

/// Awaits `future`, for at most `delay`: [`timeout`] with its arguments in asyncio's order.
///
/// When the time is over, an awaited task or future is cancelled, and its end is waited for; use `&mut task` to keep the
/// task, and [`shield`](crate::shield) to let it go on.
///
/// # Cancel safety
///
/// That of `future`.
///
/// # Errors
///
/// As [`timeout`].
///
/// # Examples
///
/// ```
/// use asyncio::{ErrorKind, create_task, sleep, wait_for};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let mut task = create_task(async { sleep(Duration::from_secs(3600)).await });
///     let outcome = wait_for(&mut task, Duration::from_millis(1)).await;
///     assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
///     assert!(task.cancelled());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.wait_for`. Differs: a coroutine is polled in place, also with a delay of zero, and not made a task.
pub fn wait_for<T, F>(future: F, delay: impl Into<Option<Duration>>) -> TimeoutFuture<F::IntoFuture>
where
    F: IntoFuture<Output = Result<T>>,
{
    timeout(delay, future)
}

/// How long something may take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Limit {
    #[default]
    Never,
    In(Duration),
    At(Instant),
}

impl Limit {
    pub(crate) fn deadline(self, event_loop: &EventLoop) -> Option<Instant> {
        match self {
            Limit::Never => None,
            Limit::In(delay) => Some(event_loop.deadline_in(delay)),
            Limit::At(deadline) => Some(deadline),
        }
    }
}

pin_project! {
    /// What [`timeout`], [`timeout_at`] and [`wait_for`] give.
    ///
    /// `Threads:` may cross them if the future inside may.
    ///
    /// # Cancel safety
    ///
    /// That of the future inside.
    ///
    /// asyncio: the block of `asyncio.timeout`, and `asyncio.wait_for`.
    #[must_use = "nothing happens until it is awaited"]
    pub struct TimeoutFuture<F> {
        #[pin]
        body: Option<F>,
        limit: Limit,
        // Open from the first poll to the end.
        scope: Option<OwnedScope>,
    }
}

impl<F> TimeoutFuture<F> {
    fn new(limit: Limit, body: F) -> Self {
        TimeoutFuture { body: Some(body), limit, scope: None }
    }
}

impl<T, F: StdFuture<Output = Result<T>>> StdFuture for TimeoutFuture<F> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let mut this = self.project();
        let event_loop = running::require()?;
        let scope = match this.scope {
            Some(scope) => scope,
            None if this.body.is_none() => return Poll::Ready(Err(over())),
            None => {
                let scope = open(&event_loop)?;
                if let Some(deadline) = this.limit.deadline(&event_loop) {
                    event_loop.set_scope_deadline(scope.key(), Some(deadline));
                }
                this.scope.insert(scope)
            }
        };
        let outcome = match scope.poll(&event_loop, cx, |cx| poll_body(this.body.as_mut(), cx))? {
            Polled::Pending => return Poll::Pending,
            Polled::Ready(outcome) => outcome,
            Polled::GivenUp(reason) => Err(Error::Cancelled(reason)),
        };
        this.body.set(None);
        let closed = this.scope.take().map(|scope| scope.close(&event_loop));
        Poll::Ready(settle(outcome, closed))
    }
}

impl<F> fmt::Debug for TimeoutFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<timeout {:?}>", self.limit)
    }
}

pub(crate) fn poll_body<T, F: StdFuture<Output = Result<T>>>(
    body: Pin<&mut Option<F>>,
    cx: &mut Cx<'_>,
) -> Poll<Result<T>> {
    match body.as_pin_mut() {
        Some(body) => body.poll(cx),
        None => Poll::Ready(Err(over())),
    }
}

fn over() -> Error {
    Error::InvalidState("it was polled after its end".into())
}

fn open(event_loop: &EventLoop) -> Result<OwnedScope> {
    let scope = OwnedScope::open(event_loop);
    scope.ok_or_else(|| Error::Runtime("Timeout should be used inside a task".into()))
}

/// What a body gave whose scope is closed.
fn settle<T>(outcome: Result<T>, closed: Option<Closed>) -> Result<T> {
    match (outcome, closed) {
        // Who else asked the task to cancel wants that, not a timeout.
        (Err(Error::Cancelled(_)), Some(closed)) if closed.expired && !closed.outside => {
            Err(Error::Timeout("timed out".into()))
        }
        (outcome, _) => outcome,
    }
}

/// A time limit for a block of code, which can be moved while the block runs. Clones are handles of one timeout.
///
/// ```text
/// Created --scope--> Active --the block ends--> Finished
///                      `------the time is over--> Expiring --the block ends--> Expired
/// ```
///
/// `Threads:` may cross them; it is used under one loop.
///
/// # Examples
///
/// ```
/// use asyncio::{ErrorKind, Timeout, get_running_loop, sleep};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let limit = Timeout::new(None);
///     let outcome = limit
///         .scope(async |limit| {
///             // Here we know how long it may take:
///             limit.reschedule(get_running_loop()?.time() + Duration::from_millis(1))?;
///             sleep(Duration::from_secs(3600)).await
///         })
///         .await;
///     assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
///     assert!(limit.expired());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Timeout`.
#[derive(Clone)]
pub struct Timeout {
    state: Arc<Mutex<State>>,
}

struct State {
    limit: Limit,
    phase: Phase,
}

#[derive(Clone, Copy)]
enum Phase {
    Created,
    /// In this scope of this loop.
    Active(u64, ScopeKey),
    Finished,
    Expired,
}

impl Timeout {
    /// A limit of `delay`, counted from now if a loop runs here, else from the beginning of the block; or none.
    ///
    /// asyncio: `asyncio.timeout`.
    pub fn new(delay: impl Into<Option<Duration>>) -> Self {
        Self::with_limit(match (delay.into(), running::current()) {
            (None, _) => Limit::Never,
            (Some(delay), Some(event_loop)) => Limit::At(event_loop.deadline_in(delay)),
            (Some(delay), None) => Limit::In(delay),
        })
    }

    /// A limit at `deadline`, a time of the loop's clock; or none.
    ///
    /// asyncio: `asyncio.timeout_at`.
    pub fn at(deadline: impl Into<Option<Instant>>) -> Self {
        Self::with_limit(deadline.into().map_or(Limit::Never, Limit::At))
    }

    fn with_limit(limit: Limit) -> Self {
        Timeout { state: Arc::new(Mutex::new(State { limit, phase: Phase::Created })) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Runs `body` under the limit; see [`timeout`]. It may borrow from where it stands.
    ///
    /// # Cancel safety
    ///
    /// That of `body`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when the time was over; what `body` gives otherwise; [`Error::Runtime`] if this timeout has
    /// been entered before, and outside of a task.
    ///
    /// asyncio: `async with timeout`.
    pub async fn scope<T>(&self, body: impl AsyncFnOnce(&Timeout) -> Result<T>) -> Result<T> {
        let mut entered = self.enter()?;
        let mut body = pin!(Some(body(self)));
        let outcome = poll_fn(|cx| entered.poll(cx, |cx| poll_body(body.as_mut(), cx))).await;
        body.set(None);
        settle(outcome, entered.leave())
    }

    fn enter(&self) -> Result<Entered<'_>> {
        let event_loop = running::require()?;
        let limit = match &mut *self.lock() {
            // By one of those who try at the same time.
            State { phase: phase @ Phase::Created, limit } => {
                *phase = Phase::Finished;
                *limit
            }
            _ => return Err(Error::Runtime("Timeout has already been entered".into())),
        };
        let scope = open(&event_loop).inspect_err(|_| self.lock().phase = Phase::Created)?;
        event_loop.set_scope_deadline(scope.key(), limit.deadline(&event_loop));
        self.lock().phase = Phase::Active(scope.loop_id(), scope.key());
        Ok(Entered { timeout: self, scope: Some(scope) })
    }

    /// Moves the limit to `deadline`, a time of the loop's clock, or takes it away.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] unless the block is running and the time is not over, and on another thread than the loop's.
    ///
    /// asyncio: `Timeout.reschedule`.
    pub fn reschedule(&self, deadline: impl Into<Option<Instant>>) -> Result<()> {
        let state = match self.lock().phase {
            Phase::Created => return Err(Error::Runtime("Timeout has not been entered".into())),
            Phase::Active(id, key) => {
                let event_loop = running::by_id(id).ok_or_else(|| other_thread("rescheduling a timeout"))?;
                if !event_loop.is_scope_expired(key) {
                    event_loop.set_scope_deadline(key, deadline.into());
                    return Ok(());
                }
                "expiring"
            }
            Phase::Finished => "finished",
            Phase::Expired => "expired",
        };
        Err(Error::Runtime(format!("Cannot change state of {state} Timeout").into()))
    }

    /// The limit, if there is one; with a delay that is not counted yet, none.
    ///
    /// asyncio: `Timeout.when`.
    pub fn when(&self) -> Option<Instant> {
        let State { phase, limit } = *self.lock();
        match (phase, limit) {
            (Phase::Active(id, key), _) => running::by_id(id)?.scope_deadline(key),
            (_, Limit::At(deadline)) => Some(deadline),
            _ => None,
        }
    }

    /// Whether the time was over before the block ended.
    ///
    /// asyncio: `Timeout.expired`.
    pub fn expired(&self) -> bool {
        match self.lock().phase {
            Phase::Active(id, key) => running::by_id(id).is_some_and(|event_loop| event_loop.is_scope_expired(key)),
            Phase::Expired => true,
            Phase::Created | Phase::Finished => false,
        }
    }

    /// The block has ended.
    fn end(&self, expired: bool, deadline: Option<Instant>) {
        let mut state = self.lock();
        state.limit = deadline.map_or(Limit::Never, Limit::At);
        state.phase = if expired { Phase::Expired } else { Phase::Finished };
    }
}

/// A timeout whose block runs; ends it when it is dropped.
struct Entered<'a> {
    timeout: &'a Timeout,
    scope: Option<OwnedScope>,
}

impl Entered<'_> {
    fn poll<T>(&mut self, cx: &mut Cx<'_>, body: impl FnOnce(&mut Cx<'_>) -> Poll<Result<T>>) -> Poll<Result<T>> {
        let event_loop = running::require()?;
        let Some(scope) = &mut self.scope else { return Poll::Ready(Err(over())) };
        Poll::Ready(match scope.poll(&event_loop, cx, body)? {
            Polled::Pending => return Poll::Pending,
            Polled::Ready(outcome) => outcome,
            Polled::GivenUp(reason) => Err(Error::Cancelled(reason)),
        })
    }

    fn leave(&mut self) -> Option<Closed> {
        let scope = self.scope.take()?;
        let Some(event_loop) = running::by_id(scope.loop_id()) else {
            self.timeout.end(false, None);
            return None;
        };
        let deadline = event_loop.scope_deadline(scope.key());
        let closed = scope.close(&event_loop);
        self.timeout.end(closed.expired, deadline);
        Some(closed)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = self.lock().phase;
        match phase {
            Phase::Created => f.write_str("<Timeout [created]>"),
            Phase::Active(..) if self.expired() => f.write_str("<Timeout [expiring]>"),
            Phase::Active(..) => write!(f, "<Timeout [active] when={:?}>", self.when()),
            Phase::Finished => f.write_str("<Timeout [finished]>"),
            Phase::Expired => f.write_str("<Timeout [expired]>"),
        }
    }
}
