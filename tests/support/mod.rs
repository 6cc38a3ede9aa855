//! What the tests of all areas share.
#![allow(dead_code, reason = "each area uses a part of it")]

#[macro_use]
pub(crate) mod loops;
pub(crate) mod transports;

use std::{
    cell::{Cell, RefCell},
    future::Future as StdFuture,
    io,
    os::fd::{BorrowedFd, RawFd},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use asyncio::{
    EventLoop, ExceptionContext, VirtualClock,
    selector::{Event, Interest, Mode, ParkSelector, Selector, SelectorWaker},
};
use tracing::{
    Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Order is the result: what happened, in order. Clones are one record.
pub(crate) struct Record<T = &'static str>(Rc<RefCell<Vec<T>>>);

impl<T> Record<T> {
    pub(crate) fn push(&self, item: T) {
        self.0.borrow_mut().push(item);
    }

    pub(crate) fn take(&self) -> Vec<T> {
        self.0.take()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    pub(crate) fn items(&self) -> Vec<T>
    where
        T: Clone,
    {
        self.0.borrow().clone()
    }
}

impl<T> Clone for Record<T> {
    fn clone(&self) -> Self {
        Record(self.0.clone())
    }
}

impl<T> Default for Record<T> {
    fn default() -> Self {
        Record(Rc::default())
    }
}

/// Exactly one iteration.
pub(crate) fn tick(event_loop: &EventLoop) {
    let stopper = event_loop.clone();
    event_loop.call_soon(move || stopper.stop());
    event_loop.run_forever().unwrap();
}

/// A loop on the system's selector and clock.
pub(crate) fn new_loop() -> EventLoop {
    asyncio::new_event_loop().unwrap()
}

/// A loop whose time is virtual.
pub(crate) fn virtual_loop() -> (EventLoop, VirtualClock) {
    let clock = VirtualClock::new();
    (EventLoop::builder().clock(clock.clone()).build().unwrap(), clock)
}

/// Collects what goes to the exception handler: the H of the behaviours.
pub(crate) fn handler(event_loop: &EventLoop) -> Record<ExceptionContext> {
    let reports = Record::default();
    let record = reports.clone();
    event_loop.set_exception_handler(Some(Rc::new(move |_, context| record.push(context.clone()))));
    reports
}

/// Runs a coroutine in a loop of its own, which must end clean: no task, no timer, no report is left.
#[track_caller]
pub(crate) fn run<T>(main: impl StdFuture<Output = asyncio::Result<T>>) -> T {
    let _deadline = deadline();
    let event_loop = new_loop();
    let reports = handler(&event_loop);
    let result = event_loop.run_until_complete(main);
    assert_eq!(event_loop.all_tasks(), [], "tasks are left");
    assert_eq!(event_loop.next_deadline(), None, "timers or callbacks are left");
    event_loop.close().unwrap();
    assert!(reports.len() == 0, "unexpected reports: {:?}", reports.take());
    result.unwrap()
}

/// Ends the process if the test takes longer than a minute: nothing may hang.
pub(crate) fn deadline() -> Watchdog {
    let ended = Arc::new(AtomicBool::new(false));
    let watched = ended.clone();
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(60) {
            if watched.load(Ordering::Relaxed) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(200));
        }
        eprintln!("{name} hangs");
        std::process::abort();
    });
    Watchdog(ended)
}

pub(crate) struct Watchdog(Arc<AtomicBool>);

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A value whose drop can be seen.
pub(crate) fn drop_guard() -> (DropGuard, Dropped) {
    let flag = Arc::new(AtomicBool::new(false));
    (DropGuard(flag.clone()), Dropped(flag))
}

pub(crate) struct DropGuard(Arc<AtomicBool>);

#[derive(Clone)]
pub(crate) struct Dropped(Arc<AtomicBool>);

impl Drop for DropGuard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Dropped {
    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Counts iterations: call it, do something, and ask how many passed.
pub(crate) fn count_iterations(event_loop: &EventLoop) -> Rc<Cell<usize>> {
    fn again(event_loop: EventLoop, count: Rc<Cell<usize>>) {
        count.set(count.get() + 1);
        let next = event_loop.clone();
        event_loop.call_soon(move || again(next, count));
    }
    let count = Rc::new(Cell::new(0));
    let (event_loop, counter) = (event_loop.clone(), count.clone());
    event_loop.clone().call_soon(move || again(event_loop, counter));
    count
}

/// A future that is not this crate's: pending until it is opened, from any thread. Keeps the last waker.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Mutex<(bool, Option<std::task::Waker>, usize)>>);

impl Gate {
    pub(crate) fn open(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        let waker = state.1.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn waker(&self) -> Option<std::task::Waker> {
        self.0.lock().unwrap().1.clone()
    }

    pub(crate) fn polls(&self) -> usize {
        self.0.lock().unwrap().2
    }
}

impl StdFuture for Gate {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        state.2 += 1;
        if state.0 {
            return Poll::Ready(());
        }
        state.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What was logged while `work` ran on this thread: level and text.
pub(crate) fn logs<R>(work: impl FnOnce() -> R) -> (R, Vec<(Level, String)>) {
    // While there is only one, a place in the code that another thread reaches first is taken to interest nobody.
    let _second = tracing::Dispatch::new(Collector(Arc::default()));
    let records = Arc::new(Mutex::new(Vec::new()));
    let result = tracing::subscriber::with_default(Collector(records.clone()), work);
    let records = std::mem::take(&mut *records.lock().unwrap());
    (result, records)
}

struct Collector(Arc<Mutex<Vec<(Level, String)>>>);

impl Subscriber for Collector {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.lock().unwrap().push((*event.metadata().level(), message.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// A selector that records how long the loop was ready to wait, and waits on another one.
pub(crate) struct RecordingSelector<S> {
    inner: S,
    timeouts: Rc<RefCell<Vec<Option<Duration>>>>,
    waits: bool,
}

impl RecordingSelector<ParkSelector> {
    /// One that never waits.
    pub(crate) fn without_waiting() -> (Self, Rc<RefCell<Vec<Option<Duration>>>>) {
        let timeouts = Rc::default();
        (RecordingSelector { inner: ParkSelector::new(), timeouts: Rc::clone(&timeouts), waits: false }, timeouts)
    }
}

impl<S: Selector> RecordingSelector<S> {
    pub(crate) fn new(inner: S) -> (Self, Rc<RefCell<Vec<Option<Duration>>>>) {
        let timeouts = Rc::default();
        (RecordingSelector { inner, timeouts: Rc::clone(&timeouts), waits: true }, timeouts)
    }
}

impl<S: Selector> Selector for RecordingSelector<S> {
    fn register(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
        self.inner.register(fd, key, interest, mode)
    }

    fn modify(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
        self.inner.modify(fd, key, interest, mode)
    }

    fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        self.inner.deregister(fd)
    }

    fn select(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.timeouts.borrow_mut().push(timeout);
        self.inner.select(events, if self.waits { timeout } else { Some(Duration::ZERO) })
    }

    fn waker(&self) -> Arc<dyn SelectorWaker> {
        self.inner.waker()
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.as_fd()
    }
}

/// The kind and the text of an error.
#[track_caller]
pub(crate) fn failure<T: std::fmt::Debug>(result: asyncio::Result<T>) -> (asyncio::ErrorKind, String) {
    let error = result.expect_err("an error was expected");
    (error.kind(), error.to_string())
}

/// Runs the test with this full name once more, alone in a child process with these environment variables set or taken
/// away, and gives what it wrote; `None` in the child. The child must succeed.
#[track_caller]
pub(crate) fn run_in_child(name: &str, variables: &[(&str, Option<&str>)]) -> Option<std::process::Output> {
    const CHILD: &str = "ASYNCIO_TEST_CHILD";
    let _deadline = deadline();
    if std::env::var_os(CHILD).is_some_and(|child| child == name) {
        return None;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(CHILD, name);
    for (variable, value) in variables {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "there is no test {name}: {output:?}");
    Some(output)
}
