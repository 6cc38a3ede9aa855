//! How a loop is made.

use std::{
    cell::{Cell, OnceCell, RefCell},
    fmt,
    rc::Rc,
    sync::Arc,
};

use crate::{
    clock::{Clock, MonotonicClock},
    constants::{DEBUG_VARIABLE, SLOW_CALLBACK_DURATION},
    error::Result,
    event_loop::{EventLoop, Inner, running, slots::Slots, threadsafe::Shared, timers::Timers},
    sys::{self, selector::Selector},
};

/// Makes an [`EventLoop`]; see [`EventLoop::builder`].
#[derive(Default)]
#[must_use = "nothing is made before `build`"]
pub struct EventLoopBuilder {
    selector: Option<Box<dyn Selector>>,
    clock: Option<Box<dyn Clock>>,
    debug: Option<bool>,
    name: Option<String>,
}

impl EventLoopBuilder {
    /// What the loop waits with; the system's best one by default.
    pub fn selector(mut self, selector: impl Selector + 'static) -> Self {
        self.selector = Some(Box::new(selector));
        self
    }

    /// Where the loop's time comes from; the system's monotonic clock by default.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Some(Box::new(clock));
        self
    }

    /// Debug mode; by default whether the environment variable `ASYNCIO_DEBUG` is set to anything but nothing.
    pub fn debug(mut self, debug: bool) -> Self {
        self.debug = Some(debug);
        self
    }

    /// A name for `Debug`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Makes the loop.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if the system refuses a selector, for example because there are too many open
    /// descriptors.
    pub fn build(self) -> Result<EventLoop> {
        sys::fork::watch();
        let selector = match self.selector {
            Some(selector) => selector,
            None => sys::system_selector()?,
        };
        let debug =
            self.debug.unwrap_or_else(|| std::env::var_os(DEBUG_VARIABLE).is_some_and(|value| !value.is_empty()));
        let clock = self.clock.unwrap_or_else(|| Box::new(MonotonicClock));
        let now = clock.now();
        let inner = Rc::new(Inner {
            shared: Arc::new(Shared::new(self.name, selector.waker())),
            ready: RefCell::default(),
            tasks: RefCell::default(),
            current: Cell::new(None),
            scope: Cell::new(None),
            cancelling: Cell::new(false),
            cancellations: Cell::new(0),
            uncancelled: RefCell::default(),
            scopes: RefCell::default(),
            observers: RefCell::default(),
            finished: RefCell::default(),
            has_finished: Cell::new(false),
            callbacks: RefCell::default(),
            timers: RefCell::new(Timers::new(now)),
            watchers: RefCell::default(),
            selector: RefCell::new(selector),
            fd: OnceCell::new(),
            clock,
            outside: Cell::new(0),
            stopping: Cell::new(false),
            running: Cell::new(false),
            closed: Cell::new(false),
            debug: Cell::new(debug),
            slow_callback_duration: Cell::new(SLOW_CALLBACK_DURATION),
            exception_handler: RefCell::default(),
            task_factory: RefCell::default(),
            signal_hook: RefCell::default(),
            slots: Slots::default(),
            jobs: Cell::default(),
            events: Cell::default(),
            due: Cell::default(),
        });
        inner.shared.rest();
        running::register(Rc::downgrade(&inner));
        Ok(EventLoop::from_inner(inner))
    }
}

impl fmt::Debug for EventLoopBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoopBuilder").field("debug", &self.debug).field("name", &self.name).finish_non_exhaustive()
    }
}
