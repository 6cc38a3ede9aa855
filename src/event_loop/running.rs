//! Which loop runs on this thread, which is set, and which ones live here.

use std::{
    cell::{Cell, RefCell},
    mem::ManuallyDrop,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{
    context,
    error::{Cancelled, Canceller, Error, Result, Text},
    event_loop::{EventLoop, threadsafe::Shared},
    report,
    sys::{fork, signal},
};

thread_local! {
    /// The loop whose callbacks run on this thread now. Without a destructor, so that a look costs no check for one; it
    /// is `None` whenever no loop runs.
    static RUNNING: RefCell<ManuallyDrop<Option<EventLoop>>> = const { RefCell::new(ManuallyDrop::new(None)) };
    /// What `set_event_loop` was given.
    static SET: RefCell<Option<EventLoop>> = const { RefCell::new(None) };
    /// Whether `set_event_loop` was ever called here.
    static SET_CALLED: Cell<bool> = const { Cell::new(false) };
    /// The loops that were made here and are not gone: where keys of other threads' objects lead back to.
    static LOCAL: RefCell<Vec<WeakLoop>> = const { RefCell::new(Vec::new()) };
    /// Zero until somebody asks.
    static MARK: Cell<usize> = const { Cell::new(0) };
}

pub(crate) type WeakLoop = std::rc::Weak<crate::event_loop::Inner>;

/// A number that no other thread has or had.
pub(crate) fn thread_mark() -> usize {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    MARK.with(|mark| {
        if mark.get() == 0 {
            mark.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        }
        mark.get()
    })
}

/// Lends the running loop. `look` must not run foreign code.
#[inline]
pub(crate) fn with<R>(look: impl FnOnce(Option<&EventLoop>) -> R) -> R {
    RUNNING.with(|running| look(running.borrow().as_ref()))
}

#[inline]
pub(crate) fn current() -> Option<EventLoop> {
    with(|running| running.cloned())
}

/// The running loop that awaitables wait in.
pub(crate) fn require() -> Result<EventLoop> {
    current()
        .filter(|event_loop| event_loop.inner.shared.in_its_process())
        .ok_or_else(|| Error::Runtime("no running event loop".into()))
}

/// What a cancellation of something of `shared`'s loop says that is asked for here: who asks, and this message.
pub(crate) fn reason(shared: &Shared, message: Option<Text>) -> Cancelled {
    let by = with(|running| match running {
        Some(event_loop) if event_loop.inner.shared.id == shared.id => {
            event_loop.current_number().map_or(Canceller::Callback, Canceller::Task)
        }
        _ if shared.on_its_thread() => Canceller::Callback,
        _ => Canceller::Thread,
    });
    Cancelled::by(by, message)
}

/// As [`reason`], of something of the loop with this id, which lives on this thread.
pub(crate) fn reason_in(loop_id: u64, message: Option<Text>) -> Cancelled {
    match by_id(loop_id) {
        Some(event_loop) => reason(&event_loop.inner.shared, message),
        None => Cancelled::by(Canceller::Callback, message),
    }
}

/// The task that runs was told of a cancellation by an await that was given up before its end: tells its next one.
#[cold]
pub(crate) fn tell_again(reason: Cancelled) {
    if let Some(event_loop) = current() {
        event_loop.cancel_again(reason);
    }
}

/// Makes a loop the running one until the guard goes.
pub(crate) fn enter(event_loop: &EventLoop) -> RunningGuard {
    RunningGuard { before: ManuallyDrop::into_inner(RUNNING.replace(ManuallyDrop::new(Some(event_loop.bare())))) }
}

pub(crate) struct RunningGuard {
    before: Option<EventLoop>,
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        // Assigned outside: the drop of the last handle of a loop closes it.
        let ended = RUNNING.replace(ManuallyDrop::new(self.before.take()));
        drop(ManuallyDrop::into_inner(ended));
    }
}

pub(crate) fn register(event_loop: WeakLoop) {
    // In the thread's last moments there is no list any more; such a loop is found while it runs only.
    let _ = LOCAL.try_with(|local| {
        let mut local = local.borrow_mut();
        local.retain(|known| known.strong_count() > 0);
        local.push(event_loop);
    });
}

/// The loop that `shared` is a part of, if it lives on this thread.
pub(crate) fn local(shared: &Shared) -> Option<EventLoop> {
    by_id(shared.id)
}

/// The loop with this id, if it lives on this thread.
pub(crate) fn by_id(id: u64) -> Option<EventLoop> {
    if let Some(running) = with(|running| running.filter(|event_loop| event_loop.inner.shared.id == id).cloned()) {
        return Some(running);
    }
    let found =
        LOCAL.try_with(|local| local.borrow().iter().filter_map(WeakLoop::upgrade).find(|inner| inner.shared.id == id));
    found.ok().flatten().map(EventLoop::from_inner)
}

/// The loop that is running on this thread.
///
/// # Errors
///
/// [`Error::Runtime`] "no running event loop" outside of callbacks and coroutines.
///
/// # Examples
///
/// ```
/// assert!(asyncio::get_running_loop().is_err());
/// asyncio::run(async {
///     let event_loop = asyncio::get_running_loop()?;
///     assert!(event_loop.is_running());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.get_running_loop`.
pub fn get_running_loop() -> Result<EventLoop> {
    require()
}

/// The running loop, else the one that [`set_event_loop`] was given on this thread.
///
/// On the main thread, where nothing was ever set, the first call makes a loop, sets it and warns that this way is
/// deprecated: use [`run`](crate::run) or [`new_event_loop`].
///
/// # Errors
///
/// [`Error::Runtime`] if there is neither, naming the thread; [`Error::Io`] if a loop could not be made.
///
/// asyncio: `asyncio.get_event_loop`.
pub fn get_event_loop() -> Result<EventLoop> {
    if let Ok(running) = require() {
        return Ok(running);
    }
    let set = SET.try_with(|set| set.borrow().clone());
    if let Ok(Some(event_loop)) = set {
        return Ok(event_loop);
    }
    if set.is_err() || SET_CALLED.get() || !signal::on_main_thread() {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        return Err(Error::Runtime(format!("There is no current event loop in thread '{name}'.").into()));
    }
    report::warning("DeprecationWarning: There is no current event loop");
    let event_loop = new_event_loop()?;
    set_event_loop(Some(&event_loop));
    Ok(event_loop)
}

/// Makes `event_loop` the one that [`get_event_loop`] gives on this thread while none runs; `None` takes it away.
///
/// The thread then holds the loop; it is closed when the thread ends, if not before.
///
/// asyncio: `asyncio.set_event_loop`.
pub fn set_event_loop<'a>(event_loop: impl Into<Option<&'a EventLoop>>) {
    // What ends with the thread ends in the reverse order of its first use: closing the loop needs these.
    let kept = context::is_available() && LOCAL.try_with(|_| ()).is_ok();
    if !kept {
        return; // the thread's last moments: it could not close the loop any more
    }
    SET_CALLED.set(true);
    let next = event_loop.into().map(EventLoop::bare);
    let before = SET.try_with(|set| set.replace(next));
    drop(before);
}

/// A new loop with the system's best selector and clock; [`EventLoop::builder`] has the choice.
///
/// # Errors
///
/// [`Error::Io`] if the system refuses a selector, for example because there are too many open descriptors.
///
/// asyncio: `asyncio.new_event_loop`.
pub fn new_event_loop() -> Result<EventLoop> {
    fork::watch();
    EventLoop::builder().build()
}
