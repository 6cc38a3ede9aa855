//! The scheduler: what runs next, when to sleep, who is cancelled.

pub(crate) mod any_task;
pub(crate) mod builder;
pub(crate) mod callbacks;
pub(crate) mod child_scope;
pub(crate) mod exceptions;
pub(crate) mod handle;
mod handshake;
pub(crate) mod meta;
pub(crate) mod observers;
pub(crate) mod owned;
mod pages;
pub(crate) mod repeated;
pub(crate) mod running;
pub(crate) mod scope;
pub(crate) mod slots;
pub(crate) mod step;
pub(crate) mod threadsafe;
pub(crate) mod threadsafe_future;
pub(crate) mod timers;
pub(crate) mod turn;
pub(crate) mod waiters;
pub(crate) mod watchers;

/// What `handshake` takes its atomics from; the loom test has others.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, Ordering};
}

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use crate::{
    clock::Clock,
    context::{self, Context, ContextRef},
    error::{Cancelled, Error, Result},
    event_loop::{
        builder::EventLoopBuilder,
        callbacks::Callbacks,
        child_scope::{ScopeKey, Scopes},
        exceptions::{ExceptionContext, ExceptionHandler},
        observers::Observers,
        slots::Slots,
        step::{BorrowedTask, Finished, TaskRef, Tasks},
        threadsafe::{Job, Shared, ThreadsafeLoop},
        timers::Timers,
        turn::{Ready, TimerEntry},
        watchers::Watchers,
    },
    sys::{
        park::ParkSelector,
        selector::{Event, Selector},
    },
};

/// The event loop of a thread: a cheap handle, clones are the same loop.
///
/// ```text
/// Open --run_forever, run_until_complete, run_once--> Running --stop, the main future ends--> Open --close--> Closed
/// ```
///
/// Dropping the last handle of an open loop closes it. A task or callback that holds a handle keeps its loop from being
/// dropped: close it, or let [`run`](crate::run) do so.
///
/// `Threads:` bound to the one that made it; [`threadsafe`](Self::threadsafe) gives a handle for others.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let event_loop = asyncio::new_event_loop()?;
/// event_loop.call_soon(|| println!("soon"));
/// let answer = event_loop.run_until_complete(async {
///     asyncio::sleep(Duration::from_millis(1)).await?;
///     Ok(42)
/// })?;
/// assert_eq!(answer, 42);
/// event_loop.close()?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.EventLoop`.
#[derive(Clone)]
pub struct EventLoop {
    pub(crate) inner: Rc<Inner>,
    /// What `in_context` was given.
    context: Option<Context>,
}

/// The loop itself. Each field has its own cell, so that no borrow lasts over foreign code.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    /// What runs in the next iteration.
    pub(crate) ready: RefCell<VecDeque<Ready>>,
    pub(crate) tasks: RefCell<Tasks>,
    /// The task that is being polled; lies on the stack of its driver.
    pub(crate) current: Cell<Option<NonNull<BorrowedTask>>>,
    /// The innermost scope inside of it that is being polled.
    scope: Cell<Option<ScopeKey>>,
    scopes: RefCell<Scopes>,
    /// Set while cancellations are passed along; what is to be cancelled meanwhile waits below.
    cancelling: Cell<bool>,
    /// How often that was begun.
    cancellations: Cell<u64>,
    uncancelled: RefCell<VecDeque<(TaskRef, Cancelled)>>,
    observers: RefCell<Observers>,
    /// Tasks that ended in the present step and have somebody to tell.
    finished: RefCell<Vec<Finished>>,
    has_finished: Cell<bool>,
    pub(crate) callbacks: RefCell<Callbacks>,
    pub(crate) timers: RefCell<Timers<TimerEntry>>,
    watchers: RefCell<Watchers>,
    selector: RefCell<Box<dyn Selector>>,
    /// What as_fd() lends.
    fd: OnceCell<OwnedFd>,
    clock: Box<dyn Clock>,
    /// How much is under way outside that will come back through the inbox.
    outside: Cell<usize>,
    /// Set by stop(); cleared when a run ends.
    stopping: Cell<bool>,
    running: Cell<bool>,
    /// Set by close(); never cleared.
    closed: Cell<bool>,
    debug: Cell<bool>,
    slow_callback_duration: Cell<Duration>,
    exception_handler: RefCell<Option<ExceptionHandler>>,
    pub(crate) task_factory: RefCell<Option<Rc<dyn std::any::Any>>>,
    /// Called when a signal has arrived, on the loop's thread.
    signal_hook: RefCell<Option<SignalHook>>,
    slots: Slots,
    /// Emptied vectors, kept for their capacity.
    jobs: Cell<Vec<Job>>,
    events: Cell<Vec<Event>>,
    due: Cell<Vec<TimerEntry>>,
}

/// What a loop does when a signal has arrived.
pub(crate) type SignalHook = Rc<dyn Fn(&EventLoop)>;

impl EventLoop {
    /// A new loop, as [`new_event_loop`](crate::new_event_loop).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the system refuses a selector.
    pub fn new() -> Result<EventLoop> {
        running::new_event_loop()
    }

    /// A new loop with a choice of selector, clock, debug mode and name.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::selector::PollingSelector;
    ///
    /// let event_loop = asyncio::EventLoop::builder()
    ///     .selector(PollingSelector::new()?)
    ///     .debug(true)
    ///     .name("main")
    ///     .build()?;
    /// assert!(event_loop.get_debug());
    /// # asyncio::ok(())
    /// ```
    pub fn builder() -> EventLoopBuilder {
        EventLoopBuilder::default()
    }

    /// A closed loop: what is born failed for want of a loop belongs to it.
    pub(crate) fn closed_one() -> EventLoop {
        let builder = EventLoop::builder().selector(ParkSelector::new()).debug(false);
        let event_loop = builder.build().expect("this selector needs nothing of the system");
        // It is not running, so that it can be closed.
        let _ = event_loop.close();
        event_loop
    }

    pub(crate) fn from_inner(inner: Rc<Inner>) -> Self {
        EventLoop { inner, context: None }
    }

    /// The same loop, without the context of `in_context`.
    pub(crate) fn bare(&self) -> EventLoop {
        EventLoop { inner: self.inner.clone(), context: None }
    }

    /// The same loop, scheduling under `context`: the `context=` argument of asyncio's methods.
    ///
    /// Callbacks, readers, signal handlers and tasks made through it run in `context` itself, not in a copy.
    ///
    /// # Examples
    ///
    /// ```
    /// static USER: asyncio::ContextVar<&str> = asyncio::ContextVar::new("user");
    ///
    /// let event_loop = asyncio::new_event_loop()?;
    /// let context = asyncio::Context::new();
    /// context.run(|| USER.set("guido"))?;
    /// let handle = event_loop.in_context(&context).call_soon(|| USER.get());
    /// assert_eq!(event_loop.run_until_complete(handle)??, "guido");
    /// # asyncio::ok(())
    /// ```
    pub fn in_context(&self, context: &Context) -> EventLoop {
        EventLoop { inner: self.inner.clone(), context: Some(context.clone()) }
    }

    /// A handle of this loop for other threads.
    pub fn threadsafe(&self) -> ThreadsafeLoop {
        ThreadsafeLoop { shared: self.inner.shared.clone() }
    }

    /// Whether the loop's callbacks run now: true inside of them.
    ///
    /// asyncio: `loop.is_running`.
    pub fn is_running(&self) -> bool {
        self.inner.running.get()
    }

    /// Whether this is the loop whose code runs on this thread now: a loop that runs may have another one on top of it,
    /// which is being closed.
    pub(crate) fn is_the_running_one(&self) -> bool {
        running::with(|running| running == Some(self))
    }

    /// Whether [`close`](Self::close) was called.
    ///
    /// asyncio: `loop.is_closed`.
    pub fn is_closed(&self) -> bool {
        self.inner.closed.get()
    }

    /// The name that the builder was given.
    pub fn name(&self) -> Option<&str> {
        self.inner.shared.name.as_deref()
    }

    /// A descriptor that is readable when [`run_once`](Self::run_once) has something to do, if the selector has one.
    ///
    /// It is a duplicate of the selector's, made at the first call and kept as long as the loop.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        if self.inner.fd.get().is_none() {
            let duplicate = self.inner.selector.borrow().as_fd()?.try_clone_to_owned().ok()?;
            self.inner.fd.set(duplicate).ok();
        }
        self.inner.fd.get().map(AsFd::as_fd)
    }

    /// Closes the loop: drops what is scheduled, every pending task, and what the layers keep.
    ///
    /// Coroutines are dropped on this thread; each pending task is reported to the exception handler ("Task was
    /// destroyed but it is pending!") and reads as done and cancelled from then on. The default executor is told to stop
    /// and not waited for. Wakers and handles that outlive the loop are harmless. A second call does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] "Cannot close a running event loop".
    ///
    /// asyncio: `loop.close`.
    pub fn close(&self) -> Result<()> {
        if self.is_running() {
            return Err(Error::Runtime("Cannot close a running event loop".into()));
        }
        if self.inner.closed.replace(true) {
            return Ok(());
        }
        let _running = running::enter(self);
        self.destroy_tasks();
        self.drain();
        let timers = self.inner.timers.borrow_mut().drain();
        for entry in timers {
            self.drop_guarded(move || match entry {
                TimerEntry::Handle(handle) => handle.discard(),
                TimerEntry::Waker(waker) => drop(waker),
                TimerEntry::Io(handler, _) => drop(handler),
                TimerEntry::Expire(_) | TimerEntry::Kill(_) | TimerEntry::Child(_) => {}
            });
        }
        let callbacks = self.inner.callbacks.borrow_mut().drain();
        for callback in callbacks {
            self.drop_guarded(move || callback.discard());
        }
        let observers = self.inner.observers.borrow_mut().drain();
        self.drop_guarded(move || drop(observers));
        self.drop_watchers();
        self.drop_guarded(|| self.inner.slots.clear());
        let hook = (self.inner.signal_hook.take(), self.inner.task_factory.take());
        self.drop_guarded(move || drop(hook));
        let left = self.inner.shared.close();
        for job in left {
            match job {
                Job::Step(runnable) => self.run_step(runnable),
                Job::Call(call) => self.drop_guarded(move || drop(call)),
            }
        }
        // What the drops above have queued is dropped here; nothing can be queued any more.
        self.drain();
        let selector = self.inner.selector.replace(Box::new(ParkSelector::new()));
        if self.inner.shared.in_its_process() {
            drop(selector);
        } else {
            // Not dropped: a forked child shares it with its parent, and some take their descriptors out of it at last.
            std::mem::forget(selector);
        }
        Ok(())
    }

    /// Reports the pending tasks, and lets the next step of each drop its coroutine.
    fn destroy_tasks(&self) {
        let tasks = self.inner.tasks.borrow().all();
        for task in tasks {
            task.kill();
            let created = task.created;
            let context = ExceptionContext::new("Task was destroyed but it is pending!");
            self.call_exception_handler(&context.task(any_task::AnyTask::new(task.clone())).source_location(created));
            task.waker().wake_by_ref();
        }
    }

    pub(crate) fn context(&self) -> Option<&Context> {
        self.context.as_ref()
    }

    /// The context that something scheduled now runs in.
    #[inline]
    pub(crate) fn capture(&self) -> ContextRef {
        match &self.context {
            Some(context) => ContextRef::Shared(context.clone()),
            None => context::capture(),
        }
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.inner.slots
    }

    pub(crate) fn set_signal_hook(&self, hook: Option<SignalHook>) {
        let before = self.inner.signal_hook.replace(hook);
        drop(before);
    }

    /// Counts something that is under way outside: a virtual clock stands until it is back.
    pub(crate) fn begin_outside(&self) {
        self.inner.outside.set(self.inner.outside.get() + 1);
    }

    pub(crate) fn end_outside(&self) {
        self.inner.outside.set(self.inner.outside.get().saturating_sub(1));
    }
}

impl Drop for EventLoop {
    #[inline]
    fn drop(&mut self) {
        if Rc::strong_count(&self.inner) == 1 {
            self.drop_last();
        }
    }
}

impl EventLoop {
    #[cold]
    fn drop_last(&self) {
        if self.is_closed() {
            return;
        }
        if !context::is_available() {
            // The thread's last moments: coroutines can no longer be dropped as they must be, so they are not.
            std::mem::forget(self.inner.clone());
            return;
        }
        // It is not running, for then the thread would hold it.
        let _ = self.close();
    }
}

impl PartialEq for EventLoop {
    /// Whether both are handles of one loop.
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for EventLoop {}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.is_closed(), self.is_running()) {
            (true, _) => "closed",
            (_, true) => "running",
            _ => "open",
        };
        write!(f, "<EventLoop {:?} {state} debug={}>", self.inner.shared, self.get_debug())
    }
}
