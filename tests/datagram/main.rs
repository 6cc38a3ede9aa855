//! Datagram endpoints, over UDP and unix sockets: on every selector that waits for descriptors.
#[path = "../support/counting.rs"]
mod counting;
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

mod borrowed;
mod closing;
mod flow;
mod opening;
mod panics;
mod receiving;
mod sending;
mod storms;
mod unclaimed;
mod unix;

use std::{
    cell::RefCell,
    fmt,
    future::{Future as StdFuture, IntoFuture},
    net::UdpSocket,
    ops::Deref,
    os::unix::net::UnixDatagram,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use asyncio::{
    Address, DatagramProtocol, DatagramTransport, Error, EventLoop, EventLoopBuilder, ExceptionContext, SOCKNAME,
    VirtualClock,
    selector::{EpollSelector, PollingSelector},
};
use support::{Record, Watchdog};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

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
        let (_, name) = self.path.split_once("::").unwrap();
        support::run_in_child(name, &[]).is_none()
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

    #[track_caller]
    fn run<T>(&self, main: impl IntoFuture<Output = asyncio::Result<T>>) -> T {
        self.event_loop.run_until_complete(main).unwrap()
    }

    #[track_caller]
    fn fail<T: fmt::Debug>(&self, main: impl IntoFuture<Output = asyncio::Result<T>>) -> Error {
        self.event_loop.run_until_complete(main).unwrap_err()
    }

    fn ticks(&self, count: usize) {
        (0..count).for_each(|_| support::tick(&self.event_loop));
    }

    /// Runs the loop until `done`.
    fn until(&self, done: impl Fn() -> bool) {
        while !done() {
            self.run_once(Duration::from_millis(100)).unwrap();
        }
    }

    /// Messages and errors of what went to the exception handler.
    fn take_reports(&self) -> Vec<(String, String)> {
        let text = |report: ExceptionContext| {
            let error = report.exception.as_ref().map(Error::to_string).unwrap_or_default();
            (report.message.clone(), error)
        };
        self.reports.take().into_iter().map(text).collect()
    }

    /// An endpoint with this log, at an address of its own.
    fn bound(&self, log: &Log) -> DatagramTransport {
        self.run(self.create_datagram_endpoint(log.protocol()).local_addr(("127.0.0.1", 0))).0
    }

    /// An endpoint with this log, connected to `remote`.
    fn connected(&self, log: &Log, remote: impl asyncio::ToAddress) -> DatagramTransport {
        self.run(self.create_datagram_endpoint(log.protocol()).remote_addr(remote)).0
    }

    /// An endpoint with this log over one side of a unix socket pair, and the other side, which does not block.
    fn paired(&self, log: &Log) -> (DatagramTransport, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (self.run(self.create_datagram_endpoint(log.protocol()).sock(ours)).0, theirs)
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

/// What a protocol was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Made,
    Received(Vec<u8>, Address),
    /// The system's number of the error.
    Error(Option<i32>),
    Pause,
    Resume,
    /// The text of the error.
    Lost(Option<String>),
}

type Hook = Rc<RefCell<dyn FnMut(&Call, &DatagramTransport)>>;

/// The log of the behaviours: what a protocol was told, in order, and what it does besides. Clones are one log.
#[derive(Clone, Default)]
struct Log {
    calls: Record<Call>,
    hook: Rc<RefCell<Option<Hook>>>,
}

impl Log {
    /// Does this in every call, after it is in the log.
    fn hooked(hook: impl FnMut(&Call, &DatagramTransport) + 'static) -> Self {
        let log = Log::default();
        log.set_hook(hook);
        log
    }

    fn set_hook(&self, hook: impl FnMut(&Call, &DatagramTransport) + 'static) {
        *self.hook.borrow_mut() = Some(Rc::new(RefCell::new(hook)));
    }

    /// A factory of protocols with this log.
    fn protocol(&self) -> impl FnOnce() -> Logging + 'static + use<> {
        let log = self.clone();
        move || Logging { log, transport: None }
    }

    fn take(&self) -> Vec<Call> {
        self.calls.take()
    }

    fn len(&self) -> usize {
        self.calls.len()
    }

    /// The data of all that was received, which is taken out with everything else.
    fn take_data(&self) -> Vec<Vec<u8>> {
        let data = |call| if let Call::Received(data, _) = call { Some(data) } else { None };
        self.take().into_iter().filter_map(data).collect()
    }
}

struct Logging {
    log: Log,
    transport: Option<DatagramTransport>,
}

impl fmt::Debug for Logging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.log.calls.items()).finish()
    }
}

impl Logging {
    fn called(&mut self, call: Call) {
        self.log.calls.push(call.clone());
        let hook = self.log.hook.borrow().clone();
        if let (Some(hook), Some(transport)) = (hook, &self.transport) {
            hook.borrow_mut()(&call, transport);
        }
    }
}

impl DatagramProtocol for Logging {
    fn connection_made(&mut self, transport: &DatagramTransport) {
        self.transport = Some(transport.clone());
        self.called(Call::Made);
    }

    fn datagram_received(&mut self, data: &[u8], sender: &Address) {
        self.called(Call::Received(data.to_vec(), sender.clone()));
    }

    fn error_received(&mut self, error: &Error) {
        self.called(Call::Error(error.raw_os_error()));
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.called(Call::Lost(error.map(Error::to_string)));
        self.transport = None;
    }

    fn pause_writing(&mut self) {
        self.called(Call::Pause);
    }

    fn resume_writing(&mut self) {
        self.called(Call::Resume);
    }
}

/// A socket of the test's own on loopback, which does not block.
fn udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn address(socket: &UdpSocket) -> Address {
    socket.local_addr().unwrap().into()
}

/// A socket that keeps its address from others and listens to nobody there: whoever sends to it hears that he was
/// refused. It listens to whom it is connected to.
fn nobody() -> UdpSocket {
    let socket = udp();
    socket.connect(("127.0.0.1", 1)).unwrap();
    socket
}

fn sockname(transport: &DatagramTransport) -> Address {
    transport.get_extra_info(SOCKNAME).unwrap()
}

/// One datagram that is there already.
fn receive(socket: &UdpSocket) -> (Vec<u8>, Address) {
    let mut buffer = [0; 70_000];
    let (count, sender) = socket.recv_from(&mut buffer).unwrap();
    (buffer[..count].to_vec(), sender.into())
}

fn nothing_waits(socket: &UdpSocket) -> bool {
    socket.recv(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

fn poll_once<F: StdFuture + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Whether the other side of a unix pair is open.
fn is_there(theirs: &UnixDatagram) -> bool {
    match theirs.send(b"is anybody there?") {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}

/// Whether the other side of a unix pair is closed. A process that another test has just forked may have it for a moment.
fn is_gone(theirs: &UnixDatagram) -> bool {
    (0..10_000).any(|_| {
        let there = is_there(theirs);
        std::thread::sleep(Duration::from_millis(u64::from(there)));
        !there
    })
}
