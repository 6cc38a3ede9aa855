//! Watched descriptors, awaitables on plain sockets, names: on every selector that waits for descriptors.
#[path = "../support/mod.rs"]
mod support;

/// Makes a test of each function, on each selector.
macro_rules! on_each_selector {
    ($($test:ident)*) => {
        on_each_selector!(@ epoll $($test)*);
        on_each_selector!(@ polling $($test)*);
    };
    (@ $selector:ident $($test:ident)*) => {
        mod $selector {$(
            #[test]
            fn $test() {
                let path = concat!(module_path!(), "::", stringify!($test));
                super::$test(crate::On { builder: crate::$selector, path });
            }
        )*}
    };
}

mod connect;
mod datagram;
mod names;
mod stream;
mod watchers;

use std::{
    future::{Future as StdFuture, IntoFuture},
    io::{self, Write},
    net::{TcpListener, TcpStream},
    ops::Deref,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    pin::Pin,
    process::Command,
    sync::{
        Once,
        atomic::{AtomicI32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use asyncio::{
    EventLoop, EventLoopBuilder, ExceptionContext, VirtualClock,
    selector::{EpollSelector, PollingSelector},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Resource, Rlimit},
};
use support::{Record, Watchdog};

/// Where a test runs.
#[derive(Clone, Copy)]
struct On {
    builder: fn() -> EventLoopBuilder,
    path: &'static str,
}

fn epoll() -> EventLoopBuilder {
    EventLoop::builder().selector(EpollSelector::new().unwrap())
}

fn polling() -> EventLoopBuilder {
    EventLoop::builder().selector(PollingSelector::new().unwrap())
}

impl On {
    fn event_loop(self) -> TestLoop {
        TestLoop::new((self.builder)())
    }

    fn virtual_loop(self) -> (TestLoop, VirtualClock) {
        let clock = VirtualClock::new();
        (TestLoop::new((self.builder)().clock(clock.clone())), clock)
    }

    /// Runs the rest of a test in a process of its own: true there.
    fn in_child(self) -> bool {
        const MARK: &str = "ASYNCIO_TEST_CHILD";
        if std::env::var_os(MARK).is_some() {
            return true;
        }
        let (_, name) = self.path.split_once("::").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(MARK, "1").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{:?}: {text}", output.status);
        false
    }
}

/// A loop that must end clean: no task and no timer is left, and nothing was reported that the test did not take.
struct TestLoop {
    event_loop: EventLoop,
    reports: Record<ExceptionContext>,
    _deadline: Watchdog,
}

impl TestLoop {
    fn new(builder: EventLoopBuilder) -> Self {
        let event_loop = builder.debug(false).build().unwrap();
        let reports = support::handler(&event_loop);
        TestLoop { event_loop, reports, _deadline: support::deadline() }
    }

    fn run<T>(&self, main: impl IntoFuture<Output = asyncio::Result<T>>) -> T {
        self.event_loop.run_until_complete(main).unwrap()
    }

    fn ticks(&self, count: usize) {
        (0..count).for_each(|_| support::tick(&self.event_loop));
    }
}

impl Deref for TestLoop {
    type Target = EventLoop;

    fn deref(&self) -> &EventLoop {
        &self.event_loop
    }
}

impl Drop for TestLoop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        assert_eq!(self.event_loop.all_tasks(), [], "tasks are left");
        if !self.event_loop.is_closed() {
            assert_eq!(self.event_loop.next_deadline(), None, "timers or callbacks are left");
        }
        self.event_loop.close().unwrap();
        assert!(self.reports.len() == 0, "unexpected reports: {:?}", self.reports.take());
    }
}

/// A pair of non-blocking unix streams: what one sends the other has at once.
fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

/// A pair of connected non-blocking TCP streams.
fn tcp_pair() -> (TcpStream, TcpStream) {
    tcp_pair_on("127.0.0.1:0")
}

fn tcp_pair_on(address: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(address).unwrap();
    let a = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (b, _) = listener.accept().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Writes until not even five bytes more are taken; gives how many were.
fn fill(mut stream: &UnixStream) -> usize {
    let mut total = 0;
    for chunk in [&[b'.'; 4096][..], &[b'.'; 5]] {
        loop {
            match stream.write(chunk) {
                Ok(count) => total += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    total
}

/// Closes a stream so that its peer gets a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Waits, outside of any loop, until there is something to read or to accept.
fn until_readable(fd: impl AsFd) {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1, "nothing came");
}

fn poll_once<F: StdFuture>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls a future for the first time, in the task that runs: it must have to wait.
async fn begins_to_wait<F: StdFuture>(mut future: Pin<&mut F>)
where
    F::Output: std::fmt::Debug,
{
    std::future::poll_fn(|cx| {
        let polled = future.as_mut().poll(cx);
        assert!(polled.is_pending(), "{polled:?}");
        Poll::Ready(())
    })
    .await;
}

/// Lets the other tasks and callbacks run once.
async fn turn() {
    asyncio::sleep(Duration::ZERO).await.unwrap();
}

/// Lets this process have as many descriptors as the tests need together.
fn with_many_descriptors() {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let wanted = limit.maximum.map_or(4096, |maximum| maximum.min(4096));
        if limit.current.is_some_and(|current| current < wanted) {
            let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
            rustix::process::setrlimit(Resource::Nofile, raised).unwrap();
        }
    });
}

/// A descriptor number that nobody else takes, so that it can be closed and taken again.
fn own_number() -> RawFd {
    static NEXT: AtomicI32 = AtomicI32::new(3500);
    with_many_descriptors();
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Moves a descriptor to the number `number`, which must be free.
fn at_number(fd: impl Into<OwnedFd>, number: RawFd) -> OwnedFd {
    let moved = rustix::io::fcntl_dupfd_cloexec(fd.into(), number).unwrap();
    assert_eq!(moved.as_raw_fd(), number);
    moved
}

/// A descriptor by its number, open or not, for what safe code cannot do: to keep a number longer than its file.
#[expect(unsafe_code, reason = "what becomes of numbers that are not open, or are another file's now, is tested")]
fn by_number(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: it is not -1. Whoever uses it watches it, or receives from what is there: no memory depends on it.
    unsafe { BorrowedFd::borrow_raw(number) }
}
