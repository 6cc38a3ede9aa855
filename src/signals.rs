//! Signals as callbacks of the loop.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    error::{Error, Result},
    event_loop::{
        EventLoop, SignalHook,
        repeated::{Repeated, RepeatedHandle},
        running, slots,
        threadsafe::Shared,
        turn::Ready,
    },
    sys::{
        fork,
        signal::{self, Registration, ToSignal},
    },
};

/// A loop's handlers. Dropped by close, which gives the signals back.
#[derive(Default)]
struct Handlers {
    callbacks: RefCell<BTreeMap<i32, Handler>>,
    /// What a run does when it is to end: at once, not in its turn.
    taken_over: RefCell<BTreeMap<i32, (Arrivals, SignalHook)>>,
}

struct Handler {
    callback: Rc<dyn Repeated>,
    arrivals: Arrivals,
}

impl Drop for Handlers {
    /// A drop of the user's that panics keeps no other handler from being dropped; the last panic goes on, to be reported.
    fn drop(&mut self) {
        let mut panicked = None;
        for (_, handler) in self.callbacks.take() {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| handler.callback.deactivate())) {
                panicked = Some(payload);
            }
        }
        if let Some(payload) = panicked {
            resume_unwind(payload);
        }
    }
}

/// Counts how often a signal has come. While it lives, the process's handler for the signal is ours.
struct Arrivals {
    count: Arc<AtomicUsize>,
    _registration: Registration,
}

impl Arrivals {
    fn register(number: i32, shared: Arc<Shared>) -> Result<Self> {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let process = fork::generation();
        let action = move || {
            // A forked child shares the descriptor that wakes the loop: the parent's must not be woken from there.
            if fork::generation() == process {
                counter.fetch_add(1, Ordering::SeqCst);
                shared.signal();
            }
        };
        Ok(Arrivals { count, _registration: signal::register(number, action)? })
    }

    fn take(&self) -> usize {
        self.count.swap(0, Ordering::SeqCst)
    }
}

impl EventLoop {
    /// Calls `callback` in the loop whenever `signal` arrives; a number will do, or a [`Signal`](crate::Signal).
    ///
    /// A handler of this loop for the same signal is replaced; other loops of this thread keep theirs and get the signal
    /// too, when they run. The first handler takes the process's disposition over, and
    /// [`remove_signal_handler`](Self::remove_signal_handler) of the last one brings the one before back; closing the
    /// loop removes its handlers. The callback runs in a copy of the present context, once for each arrival.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] if the loop is closed, on another thread than the main one, and for a signal that cannot be
    /// caught; [`Error::Value`] for a number that is no signal; [`Error::Io`] if the system refuses.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// asyncio::run(async {
    ///     let event_loop = asyncio::get_running_loop()?;
    ///     let stopped = event_loop.create_future();
    ///     let stop = stopped.clone();
    ///     event_loop.add_signal_handler(asyncio::Signal::Term, move || drop(stop.set_result(())))?;
    ///     stopped.await
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.add_signal_handler`.
    #[track_caller]
    pub fn add_signal_handler(&self, signal: impl ToSignal, callback: impl FnMut() + 'static) -> Result<()> {
        let created = Location::caller();
        self.check_open()?;
        let number = signal.signal_number();
        signal::check_number(number)?;
        if !signal::on_main_thread() {
            return Err(Error::Runtime("signal handlers can be added on the main thread only".into()));
        }
        signal::check_catchable(number)?;
        let handlers = self.handlers();
        let callback = RepeatedHandle::repeated(self, callback, created, None);
        let mut callbacks = handlers.callbacks.borrow_mut();
        if let Some(handler) = callbacks.get_mut(&number) {
            let before = std::mem::replace(&mut handler.callback, callback);
            drop(callbacks); // what is dropped next is other people's code
            before.deactivate();
            return Ok(());
        }
        drop(callbacks);
        let arrivals = Arrivals::register(number, self.inner.shared.clone())?;
        handlers.callbacks.borrow_mut().insert(number, Handler { callback, arrivals });
        Ok(())
    }

    /// Takes this loop's handler for `signal` away; false if there was none.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] for a number that is no signal.
    ///
    /// asyncio: `loop.remove_signal_handler`.
    pub fn remove_signal_handler(&self, signal: impl ToSignal) -> Result<bool> {
        let number = signal.signal_number();
        signal::check_number(number)?;
        let Some(handlers) = self.slots().get::<Handlers>(slots::SIGNALS) else { return Ok(false) };
        let removed = handlers.callbacks.borrow_mut().remove(&number);
        let Some(handler) = removed else { return Ok(false) };
        handler.callback.deactivate();
        Ok(true)
    }

    /// Calls `act` between callbacks when the signal arrives, until the guard goes. `None` where that is not for us to do:
    /// off the main thread, or where the program has a handler of its own.
    pub(crate) fn take_over(&self, number: i32, act: impl Fn(&EventLoop) + 'static) -> Result<Option<SignalGuard>> {
        if !signal::on_main_thread() || !signal::is_default(number) {
            return Ok(None);
        }
        let arrivals = Arrivals::register(number, self.inner.shared.clone())?;
        let before = self.handlers().taken_over.borrow_mut().insert(number, (arrivals, Rc::new(act)));
        drop(before);
        Ok(Some(SignalGuard { id: self.inner.shared.id, number, active: Cell::new(true) }))
    }

    fn handlers(&self) -> Rc<Handlers> {
        let handlers = self.slots().get_or_init(slots::SIGNALS, Handlers::default);
        let weak = Rc::downgrade(&handlers);
        self.set_signal_hook(Some(Rc::new(move |event_loop| {
            if let Some(handlers) = weak.upgrade() {
                handlers.dispatch(event_loop);
            }
        })));
        handlers
    }
}

impl Handlers {
    /// Queues the callbacks of the signals that have come, and acts on those that end a run.
    fn dispatch(&self, event_loop: &EventLoop) {
        let mut acts = Vec::new();
        for (number, (arrivals, act)) in &*self.taken_over.borrow() {
            let times = arrivals.take();
            // A handler of the program's own takes the signal over from the run, as long as it is there.
            if times > 0 && !self.callbacks.borrow().contains_key(number) {
                acts.push((times, act.clone()));
            }
        }
        for (times, act) in acts {
            (0..times).for_each(|_| act(event_loop));
        }
        let mut due = Vec::new();
        for handler in self.callbacks.borrow().values() {
            due.extend((0..handler.arrivals.take()).map(|_| handler.callback.clone().as_run()));
        }
        for callback in due {
            event_loop.push(Ready::Handle(callback));
        }
    }
}

/// Ends what [`EventLoop::take_over`] began.
pub(crate) struct SignalGuard {
    id: u64,
    number: i32,
    active: Cell<bool>,
}

impl Drop for SignalGuard {
    fn drop(&mut self) {
        if !self.active.replace(false) {
            return;
        }
        let handlers =
            running::by_id(self.id).and_then(|event_loop| event_loop.slots().get::<Handlers>(slots::SIGNALS));
        let act = handlers.and_then(|handlers| handlers.taken_over.borrow_mut().remove(&self.number));
        drop(act);
    }
}
