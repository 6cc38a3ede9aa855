//! What other threads may touch of a loop: the inbox, the flags, the switch that wakes the selector.

use std::{
    fmt, mem,
    panic::Location,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_task::Runnable;

use crate::{
    context::{self, ContextRef},
    error::{Error, Result},
    event_loop::{
        EventLoop, handle,
        handshake::Handshake,
        meta::TaskMeta,
        running::thread_mark,
        threadsafe_future::{ThreadsafeFuture, ThreadsafeSetter},
    },
    sys::{fork, selector::SelectorWaker},
};

/// What another thread put into the inbox.
pub(crate) enum Job {
    /// A task was woken.
    Step(Runnable<TaskMeta>),
    /// Something is to be done on the loop's thread.
    Call(Call),
}

pub(crate) type Call = Box<dyn RemoteCall>;

/// A closure, or one that reports can name.
pub(crate) trait RemoteCall: Send {
    fn run(self: Box<Self>, event_loop: &EventLoop);

    /// The line that made it, if a user's line did.
    fn created(&self) -> Option<&'static Location<'static>> {
        None
    }
}

impl<F: FnOnce(&EventLoop) + Send> RemoteCall for F {
    fn run(self: Box<Self>, event_loop: &EventLoop) {
        self(event_loop);
    }
}

/// A user's callback.
struct RemoteCallback<F> {
    callback: F,
    context: ContextRef,
    created: &'static Location<'static>,
}

impl<F: FnOnce() + Send + 'static> RemoteCall for RemoteCallback<F> {
    fn run(self: Box<Self>, event_loop: &EventLoop) {
        handle::run_now(event_loop, self.context, self.created, self.callback);
    }

    fn created(&self) -> Option<&'static Location<'static>> {
        Some(self.created)
    }
}

/// The `Send + Sync` part of a loop; it outlives the loop as long as somebody holds it, and is harmless then.
pub(crate) struct Shared {
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    thread: usize,
    fork_generation: u32,
    inbox: Mutex<Inbox>,
    handshake: Handshake,
    /// Set by a signal handler before it fills; cleared by the loop before it looks which signals came.
    signalled: AtomicBool,
    waker: Arc<dyn SelectorWaker>,
}

struct Inbox {
    jobs: Vec<Job>,
    /// Set by close(); never cleared. Nothing is put in any more.
    closed: bool,
}

impl Shared {
    pub(crate) fn new(name: Option<String>, waker: Arc<dyn SelectorWaker>) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Shared {
            id: LAST.fetch_add(1, Ordering::Relaxed) + 1,
            name,
            thread: thread_mark(),
            fork_generation: fork::generation(),
            inbox: Mutex::new(Inbox { jobs: Vec::new(), closed: false }),
            handshake: Handshake::new(),
            signalled: AtomicBool::new(false),
            waker,
        }
    }

    /// Whether the caller is on the thread that the loop belongs to.
    pub(crate) fn on_its_thread(&self) -> bool {
        self.thread == thread_mark()
    }

    /// Whether this is the process that made the loop, and not a forked child of it.
    pub(crate) fn in_its_process(&self) -> bool {
        self.fork_generation == fork::generation()
    }

    /// Hands a job to the loop's thread and wakes the loop if it sleeps. Gives the job back if the loop is closed.
    pub(crate) fn push(&self, job: Job) -> std::result::Result<(), Job> {
        let mut inbox = self.inbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if inbox.closed {
            return Err(job);
        }
        inbox.jobs.push(job);
        drop(inbox);
        self.fill();
        Ok(())
    }

    /// As [`push`](Self::push), for a call; what a closed loop refuses is dropped here.
    pub(crate) fn push_call(&self, call: impl FnOnce(&EventLoop) + Send + 'static) -> bool {
        self.push(Job::Call(Box::new(call))).is_ok()
    }

    /// Tells the loop that a signal has arrived. Safe inside a signal handler: atomics and one write.
    pub(crate) fn signal(&self) {
        self.signalled.store(true, Ordering::SeqCst);
        self.fill();
    }

    pub(crate) fn is_signalled(&self) -> bool {
        self.signalled.load(Ordering::Relaxed)
    }

    pub(crate) fn take_signalled(&self) -> bool {
        self.is_signalled() && self.signalled.swap(false, Ordering::SeqCst)
    }

    fn fill(&self) {
        // A forked child shares the switch with its parent, whom it must not wake.
        if self.handshake.fill() && self.in_its_process() {
            self.waker.wake();
        }
    }

    /// Between its runs a loop counts as asleep: whoever wakes it makes the descriptor readable that a host waits for.
    pub(crate) fn rest(&self) {
        if !self.fall_asleep() && self.in_its_process() {
            self.waker.wake();
        }
    }

    /// Whether the inbox may hold something.
    pub(crate) fn is_filled(&self) -> bool {
        self.handshake.is_filled()
    }

    /// Swaps the waiting jobs against `empty`; false if there were none.
    pub(crate) fn take_jobs(&self, empty: &mut Vec<Job>) -> bool {
        if !self.handshake.take() {
            return false;
        }
        let mut inbox = self.inbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        mem::swap(&mut inbox.jobs, empty);
        !empty.is_empty()
    }

    pub(crate) fn fall_asleep(&self) -> bool {
        self.handshake.fall_asleep()
    }

    pub(crate) fn wake_up(&self) {
        self.handshake.wake_up();
    }

    /// Lets nothing in any more and gives what is left.
    pub(crate) fn close(&self) -> Vec<Job> {
        let mut inbox = self.inbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        inbox.closed = true;
        mem::take(&mut inbox.jobs)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).closed
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name:?}"),
            None => write!(f, "{}", self.id),
        }
    }
}

/// A handle of a loop for other threads.
///
/// Everything given to it goes through one queue, in order, and wakes the loop if it sleeps: one system call for a
/// burst, none while the loop is busy.
///
/// `Threads:` may cross them and be shared by them.
///
/// # Examples
///
/// ```
/// asyncio::run(async {
///     let remote = asyncio::get_running_loop()?.threadsafe();
///     let thread = std::thread::spawn(move || {
///         remote.run_coroutine_threadsafe(async || asyncio::ok(40 + 2)).result(None)
///     });
///     let answer = asyncio::to_thread(move || thread.join().expect("the thread does not panic")).await?;
///     assert_eq!(answer, 42);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: the thread-safe methods of `loop`.
#[derive(Clone)]
pub struct ThreadsafeLoop {
    pub(crate) shared: Arc<Shared>,
}

impl ThreadsafeLoop {
    /// Runs `callback` on the loop's thread, after everything that was scheduled before it.
    ///
    /// The returned future gives what the callback returned; dropping it changes nothing. The callback runs in a copy
    /// of the caller's context. On a closed loop the callback is dropped and the future gives [`Error::Runtime`].
    ///
    /// # Examples
    ///
    /// ```
    /// let event_loop = asyncio::new_event_loop()?;
    /// let remote = event_loop.threadsafe();
    /// std::thread::spawn(move || {
    ///     remote.call_soon_threadsafe(|| println!("on the loop's thread"));
    ///     remote.stop();
    /// });
    /// event_loop.run_forever()?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: `loop.call_soon_threadsafe`. Differs: gives a future of the result instead of a handle.
    #[track_caller]
    pub fn call_soon_threadsafe<R: Send + 'static>(
        &self,
        callback: impl FnOnce() -> R + Send + 'static,
    ) -> ThreadsafeFuture<R> {
        self.call_in(context::capture(), Location::caller(), callback)
    }

    pub(crate) fn call_in<R: Send + 'static>(
        &self,
        context: ContextRef,
        created: &'static Location<'static>,
        callback: impl FnOnce() -> R + Send + 'static,
    ) -> ThreadsafeFuture<R> {
        let (future, setter) = ThreadsafeFuture::of_loop(&self.shared, created);
        let callback = move || run_for(&setter, callback);
        let call = Job::Call(Box::new(RemoteCallback { callback, context, created }));
        if self.shared.push(call).is_err() {
            future.fail_silently(closed());
        }
        future
    }

    /// Stops the loop's `run_forever`, as [`EventLoop::stop`] does; on a closed loop nothing happens.
    ///
    /// asyncio: `loop.call_soon_threadsafe(loop.stop)`.
    pub fn stop(&self) {
        self.shared.push_call(EventLoop::stop);
    }

    /// Whether the loop has been closed or dropped.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }
}

impl PartialEq for ThreadsafeLoop {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for ThreadsafeLoop {}

impl fmt::Debug for ThreadsafeLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<ThreadsafeLoop {:?}>", self.shared)
    }
}

/// Runs the callback for whoever waits in another thread. A panic is theirs if somebody waits, else the loop reports it.
fn run_for<R: Send + 'static>(setter: &ThreadsafeSetter<R>, callback: impl FnOnce() -> R) {
    if !setter.begin() {
        return;
    }
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(callback)) {
        Ok(value) => setter.set(Ok(value)),
        Err(payload) => {
            let awaited = setter.is_awaited();
            if !awaited {
                setter.mark_seen(); // or a future that was dropped would report it as well
            }
            setter.set(Err(Error::panicked(&*payload)));
            if awaited {
                drop(Error::from_panic(payload));
            } else {
                std::panic::resume_unwind(payload);
            }
        }
    }
}

pub(crate) fn closed() -> Error {
    Error::Runtime("Event loop is closed".into())
}

pub(crate) fn check_process(shared: &Shared) -> Result<()> {
    if shared.in_its_process() {
        return Ok(());
    }
    Err(Error::Runtime("the event loop belongs to the parent process; make a new one after fork".into()))
}
