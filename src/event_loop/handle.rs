//! Scheduled callbacks: one allocation that the queue runs and the user awaits.

use std::{
    cell::Cell,
    cmp, fmt,
    future::Future as StdFuture,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    pin::Pin,
    rc::Rc,
    task::{Context as Cx, Poll, Waker},
    time::Instant,
};

use crate::{
    context::{self, Context, ContextRef},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        exceptions::{ExceptionContext, check_loop},
        running::{self, WeakLoop},
        scope::Leaf,
        timers::TimerKey,
        waiters::wake,
    },
};

/// What the queue sees of a callback.
pub(crate) trait RunHandle {
    fn run(self: Rc<Self>, event_loop: &EventLoop);

    /// Drops the callback, which will never run. Called by close.
    fn discard(&self);

    fn summary(&self) -> HandleSummary;
}

/// What a report says of a callback.
pub(crate) struct HandleSummary {
    pub(super) kind: &'static str,
    pub(super) name: &'static str,
    pub(super) cancelled: bool,
    pub(crate) created: &'static Location<'static>,
}

impl fmt::Display for HandleSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cancelled = if self.cancelled { " cancelled" } else { "" };
        write!(f, "<{}{cancelled} {} created at {}>", self.kind, self.name, self.created)
    }
}

/// A scheduled callback: awaiting it gives what the callback returns.
///
/// Dropping a handle does not cancel the callback. A callback that was cancelled gives [`Error::Cancelled`], one that
/// panicked [`Error::Panicked`].
///
/// `Threads:` bound to the loop's.
///
/// # Cancel safety
///
/// Dropping the wait loses nothing. Cancelling the task that waits does not cancel the callback.
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let event_loop = asyncio::get_running_loop()?;
///     let handle = event_loop.call_soon(|| 40 + 2);
///     assert_eq!(handle.await?, 42);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Handle`. Differs: it can be awaited.
pub struct Handle<R> {
    state: Rc<dyn HandleState<R>>,
    leaf: Leaf,
    /// Set where the callback could not be scheduled, and while somebody waits; cleared by a look at the outcome.
    unread: bool,
}

/// What the user sees of a callback.
trait HandleState<R>: RunHandle {
    fn cancel(&self);
    fn cancelled(&self) -> bool;
    fn poll(&self, cx: &Cx<'_>) -> Poll<Result<R>>;
    fn loop_id(&self) -> u64;
    fn context(&self) -> Context;
    /// Nobody waits any more.
    fn forget_waker(&self);
    /// The error that the callback was born with.
    fn error(&self) -> Option<Error>;
    fn as_run(self: Rc<Self>) -> Rc<dyn RunHandle>;
}

/// A callback, where it stands, and what it gave.
struct HandleCell<F, R> {
    /// Taken out to be looked at: no borrow lasts over foreign code.
    stage: Cell<Stage<F, R>>,
    /// Set by cancel(), also after the callback has run; never cleared.
    cancelled: Cell<bool>,
    waker: Cell<Option<Waker>>,
    /// Taken when the callback runs: a handle that is kept does not keep its context.
    context: Cell<ContextRef>,
    loop_id: u64,
    created: &'static Location<'static>,
    is_timer: bool,
}

/// `Waiting --run--> Running --> Done --poll--> Taken`, `Waiting --cancel--> Done`
enum Stage<F, R> {
    Waiting(F),
    Running,
    Done(Result<R>),
    Taken,
}

impl<R: 'static, F: FnOnce() -> R + 'static> HandleCell<F, R> {
    fn new(
        event_loop: &EventLoop,
        stage: Stage<F, R>,
        context: ContextRef,
        created: &'static Location<'static>,
        is_timer: bool,
    ) -> Rc<Self> {
        Rc::new(HandleCell {
            stage: Cell::new(stage),
            cancelled: Cell::new(false),
            waker: Cell::new(None),
            context: Cell::new(context),
            loop_id: event_loop.inner.shared.id,
            created,
            is_timer,
        })
    }

    /// Takes the callback out and leaves `instead`, if it has not run yet.
    #[inline]
    fn take_waiting(&self, instead: Stage<F, R>) -> Option<F> {
        match self.stage.replace(instead) {
            Stage::Waiting(callback) => Some(callback),
            other => {
                self.stage.set(other);
                None
            }
        }
    }

    fn finish(&self, outcome: Result<R>) {
        self.stage.set(Stage::Done(outcome));
        if let Some(waker) = self.waker.take() {
            wake(waker);
        }
    }

    fn give_up(&self) {
        let Some(callback) = self.take_waiting(Stage::Done(Err(Error::cancelled()))) else { return };
        let context = self.context.take();
        // Before the drop, which is other people's code and may panic: nobody is left waiting then.
        if let Some(waker) = self.waker.take() {
            wake(waker);
        }
        drop((callback, context));
    }
}

impl<R: 'static, F: FnOnce() -> R + 'static> RunHandle for HandleCell<F, R> {
    fn run(self: Rc<Self>, event_loop: &EventLoop) {
        let Some(callback) = self.take_waiting(Stage::Running) else { return };
        // `left` goes last, when those who wait have been told: what a context holds is other people's code.
        let (outcome, left) = match context::enter(self.context.take(), 0) {
            Ok(entered) => {
                let outcome = catch_unwind(AssertUnwindSafe(callback));
                (outcome.map_err(Error::from_panic), entered.leave())
            }
            Err(error) => (Err(error), ContextRef::default()),
        };
        let Err(error) = outcome else { return self.finish(outcome) };
        // Only a handle that is being awaited has a waker: whoever waits receives the error.
        let waker = self.waker.take();
        let awaited = waker.is_some();
        self.waker.set(waker);
        self.finish(Err(error.clone()));
        if !awaited {
            // In the callback's context once more, as asyncio's handlers run; it was left just now, so it can be entered.
            let _entered = context::enter(left, 0);
            report_failure(event_loop, self, error);
        }
    }

    fn discard(&self) {
        self.give_up();
    }

    fn summary(&self) -> HandleSummary {
        HandleSummary {
            kind: if self.is_timer { "TimerHandle" } else { "Handle" },
            name: std::any::type_name::<F>(),
            cancelled: self.cancelled.get(),
            created: self.created,
        }
    }
}

impl<R: 'static, F: FnOnce() -> R + 'static> HandleState<R> for HandleCell<F, R> {
    fn cancel(&self) {
        self.cancelled.set(true);
        self.give_up();
    }

    fn cancelled(&self) -> bool {
        self.cancelled.get()
    }

    fn poll(&self, cx: &Cx<'_>) -> Poll<Result<R>> {
        match self.stage.replace(Stage::Taken) {
            Stage::Done(outcome) => Poll::Ready(outcome),
            Stage::Taken => Poll::Ready(Err(Error::InvalidState("Result was already taken".into()))),
            pending => {
                self.stage.set(pending);
                // Before the waker is kept: who is refused does not wait.
                check_loop(self.loop_id, running::current().as_ref())?;
                let before = self.waker.replace(Some(cx.waker().clone()));
                drop(before);
                Poll::Pending
            }
        }
    }

    fn loop_id(&self) -> u64 {
        self.loop_id
    }

    fn forget_waker(&self) {
        drop(self.waker.take());
    }

    fn context(&self) -> Context {
        // Kept as one that is shared from now on, so that whoever asks sees what the callback sees.
        let context = match self.context.take() {
            ContextRef::Shared(context) => context,
            ContextRef::Bare(vars) => Context::from_vars(vars, 0),
        };
        self.context.set(ContextRef::Shared(context.clone()));
        context
    }

    fn error(&self) -> Option<Error> {
        let stage = self.stage.replace(Stage::Taken);
        let error = match &stage {
            Stage::Done(Err(error)) => Some(error.clone()),
            _ => None,
        };
        self.stage.set(stage);
        error
    }

    fn as_run(self: Rc<Self>) -> Rc<dyn RunHandle> {
        self
    }
}

/// Gives the failure of a callback that nobody awaits to the exception handler.
#[cold]
fn report_failure(event_loop: &EventLoop, handle: Rc<dyn RunHandle>, error: Error) {
    let created = handle.summary().created;
    let handle = AnyHandle { handle };
    let context = ExceptionContext::new(format!("Exception in callback {handle:?}"))
        .exception(error)
        .handle(handle)
        .source_location(created);
    event_loop.call_exception_handler(&context);
}

impl<R: 'static> Handle<R> {
    /// A callback, and the queue's view of it.
    pub(crate) fn new<F: FnOnce() -> R + 'static>(
        event_loop: &EventLoop,
        callback: F,
        created: &'static Location<'static>,
        is_timer: bool,
    ) -> (Self, Rc<dyn RunHandle>) {
        let cell = HandleCell::new(event_loop, Stage::Waiting(callback), event_loop.capture(), created, is_timer);
        (Handle { state: cell.clone(), leaf: Leaf::new(), unread: false }, cell)
    }

    /// A handle of a callback that cannot be scheduled; the caller drops the callback.
    pub(crate) fn failed(event_loop: &EventLoop, error: Error, created: &'static Location<'static>) -> Self {
        let stage: Stage<fn() -> R, R> = Stage::Done(Err(error));
        let cell = HandleCell::new(event_loop, stage, ContextRef::default(), created, false);
        Handle { state: cell, leaf: Leaf::new(), unread: true }
    }

    /// Cancels the callback: it is dropped at once and will not run. A callback that has run is not undone.
    ///
    /// asyncio: `Handle.cancel`.
    pub fn cancel(&self) {
        self.state.cancel();
    }

    /// Whether [`cancel`](Self::cancel) was called.
    ///
    /// asyncio: `Handle.cancelled`.
    pub fn cancelled(&self) -> bool {
        self.state.cancelled()
    }

    /// The context that the callback will run in; an empty one once it has run or was cancelled.
    ///
    /// asyncio: `Handle.get_context`.
    pub fn get_context(&self) -> Context {
        self.state.context()
    }

    /// The handle as reports carry it, to compare with.
    pub fn any(&self) -> AnyHandle {
        AnyHandle { handle: self.state.clone().as_run() }
    }
}

impl<R: 'static> StdFuture for Handle<R> {
    type Output = Result<R>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<R>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let polled = this.state.poll(cx);
        if polled.is_ready() {
            this.unread = false;
            this.leaf.resume();
            return polled;
        }
        this.unread = true;
        this.leaf.suspend(running::current().as_ref(), cx);
        Poll::Pending
    }
}

impl<R> Drop for Handle<R> {
    #[inline]
    fn drop(&mut self) {
        if self.unread {
            self.state.forget_waker();
            report_unread(self.state.error(), self.state.summary().created, self.state.loop_id());
        }
    }
}

/// Reports the error of a callback that could not be scheduled, or that failed while somebody waited who did not look.
#[cold]
fn report_unread(error: Option<Error>, created: &'static Location<'static>, loop_id: u64) {
    let Some(error) = error.filter(|error| !error.is_cancelled()) else { return };
    let context =
        ExceptionContext::new("Handle exception was never retrieved").exception(error).source_location(created);
    match running::by_id(loop_id) {
        Some(event_loop) => event_loop.call_exception_handler(&context),
        None => crate::report::error(&context.record()),
    }
}

impl<R> fmt::Debug for Handle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.state.summary())
    }
}

/// A callback scheduled for a time: awaiting it gives what the callback returns.
///
/// As [`Handle`], and besides it knows [`when`](Self::when). Two compare by that time; cancelled ones equal none.
///
/// `Threads:` bound to the loop's.
///
/// # Cancel safety
///
/// Dropping the wait loses nothing. Cancelling the task that waits does not cancel the callback.
///
/// # Examples
///
/// ```
/// let event_loop = asyncio::new_event_loop()?;
/// let handle = event_loop.call_later(std::time::Duration::from_secs(60), || println!("a minute later"));
/// assert!(handle.when() > event_loop.time());
/// handle.cancel();
/// assert!(handle.cancelled());
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.TimerHandle`. Differs: it can be awaited.
pub struct TimerHandle<R> {
    handle: Handle<R>,
    when: Instant,
    /// Where the timer stands; stale once it fired.
    timer: Option<(WeakLoop, TimerKey)>,
}

impl<R: 'static> TimerHandle<R> {
    pub(crate) fn new(handle: Handle<R>, when: Instant, timer: Option<(WeakLoop, TimerKey)>) -> Self {
        TimerHandle { handle, when, timer }
    }

    /// When the callback is due.
    ///
    /// asyncio: `TimerHandle.when`.
    pub fn when(&self) -> Instant {
        self.when
    }

    /// Cancels the callback: it is dropped at once, its timer is removed, and it will not run.
    ///
    /// asyncio: `Handle.cancel`.
    pub fn cancel(&self) {
        let timer = self.timer.as_ref().and_then(|(inner, key)| Some((inner.upgrade()?, *key)));
        // First, for the drop of the callback is other people's code and may panic.
        let entry = timer.and_then(|(inner, key)| inner.timers.borrow_mut().remove(key));
        self.handle.state.cancel();
        drop(entry);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    ///
    /// asyncio: `Handle.cancelled`.
    pub fn cancelled(&self) -> bool {
        self.handle.cancelled()
    }

    /// The context that the callback will run in; an empty one once it has run or was cancelled.
    ///
    /// asyncio: `Handle.get_context`.
    pub fn get_context(&self) -> Context {
        self.handle.get_context()
    }

    /// The handle as reports carry it, to compare with.
    pub fn any(&self) -> AnyHandle {
        self.handle.any()
    }
}

impl<R: 'static> StdFuture for TimerHandle<R> {
    type Output = Result<R>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<R>> {
        Pin::new(&mut self.handle).poll(cx)
    }
}

impl<R: 'static, S: 'static> PartialEq<TimerHandle<S>> for TimerHandle<R> {
    fn eq(&self, other: &TimerHandle<S>) -> bool {
        self.when == other.when && self.cancelled() == other.cancelled()
    }
}

impl<R: 'static, S: 'static> PartialOrd<TimerHandle<S>> for TimerHandle<R> {
    fn partial_cmp(&self, other: &TimerHandle<S>) -> Option<cmp::Ordering> {
        match self.when.cmp(&other.when) {
            cmp::Ordering::Equal if self.cancelled() != other.cancelled() => None,
            order => Some(order),
        }
    }
}

impl<R> fmt::Debug for TimerHandle<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} when={:?}", self.handle, self.when)
    }
}

/// A callback of any type, as reports carry it. Clones are equal.
///
/// asyncio: the key `handle` of an exception handler's context.
#[derive(Clone)]
pub struct AnyHandle {
    pub(crate) handle: Rc<dyn RunHandle>,
}

impl AnyHandle {
    /// What tells this callback from all others that exist.
    pub fn id(&self) -> usize {
        Rc::as_ptr(&self.handle).cast::<()>() as usize
    }

    /// Where the callback was scheduled.
    pub fn source_location(&self) -> &'static Location<'static> {
        self.handle.summary().created
    }
}

impl PartialEq for AnyHandle {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for AnyHandle {}

impl fmt::Debug for AnyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.handle.summary())
    }
}

/// Runs a callback that came from another thread as if it had been queued here.
pub(crate) fn run_now<F: FnOnce() + 'static>(
    event_loop: &EventLoop,
    context: ContextRef,
    created: &'static Location<'static>,
    callback: F,
) {
    HandleCell::new(event_loop, Stage::Waiting(callback), context, created, false).run(event_loop);
}
