//! Files over sockets and transports: every kind of both, every way, on every selector that waits for descriptors.
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
                super::$test(&crate::TestLoop::new(crate::$selector()));
            }
        )*}
    };
}

mod arguments;
mod cancelling;
mod content;
mod ending;
mod readers;
mod transports;

use std::{
    cell::RefCell,
    fs::File,
    future::IntoFuture,
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    ops::Deref,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    rc::Rc,
    thread::JoinHandle,
    time::Duration,
};

use asyncio::{
    Error, EventLoop, EventLoopBuilder, ExceptionContext, Protocol, Reader, Result, Transport,
    selector::{EpollSelector, PollingSelector},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::OFlags,
};
use socket2::{Domain, SockRef, Socket, Type};
use support::{Record, Watchdog};

/// The size of the behaviours' file.
const SIZE: usize = 2_097_153;

fn epoll() -> EventLoopBuilder {
    EventLoop::builder().selector(EpollSelector::new().unwrap())
}

fn polling() -> EventLoopBuilder {
    EventLoop::builder().selector(PollingSelector::new().unwrap())
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

    fn run<T>(&self, main: impl IntoFuture<Output = Result<T>>) -> T {
        self.event_loop.run_until_complete(main).unwrap()
    }

    fn ticks(&self, count: usize) {
        (0..count).for_each(|_| support::tick(&self.event_loop));
    }

    /// Ticks until it is so.
    fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            self.ticks(1);
            std::thread::yield_now();
        }
    }

    /// Gives other threads, and what they bring, the time for what must not happen.
    fn linger(&self) {
        for _ in 0..20 {
            self.ticks(1);
            std::thread::sleep(Duration::from_millis(1));
        }
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

/// What a transport told its protocol.
#[derive(Clone, Default)]
struct Log(Record<String>);

impl Log {
    fn lost(&self) -> usize {
        self.0.items().iter().filter(|call| call.starts_with("lost")).count()
    }
}

impl Protocol for Log {
    fn connection_made(&mut self, _transport: &Transport) {
        self.0.push("made".into());
    }

    fn data_received(&mut self, data: &[u8]) {
        self.0.push(format!("data({})", data.len()));
    }

    fn eof_received(&mut self) -> bool {
        self.0.push("eof".into());
        true
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.0.push(if error.is_some() { "lost(Some)" } else { "lost(None)" }.into());
    }

    fn pause_writing(&mut self) {
        self.0.push("pause".into());
    }

    fn resume_writing(&mut self) {
        self.0.push("resume".into());
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Link {
    Tcp,
    Unix,
}

/// How a file comes to the socket.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// By the system.
    System,
    /// The system refuses, and the file is read.
    Reading,
    /// It is no file.
    Reader,
}

/// Over what, to whom and in which way a file is sent.
#[derive(Clone, Copy, Debug)]
struct Case {
    link: Link,
    over_transport: bool,
    way: Way,
}

fn cases() -> impl Iterator<Item = Case> {
    [false, true].into_iter().flat_map(|over_transport| {
        [Way::System, Way::Reading, Way::Reader].into_iter().flat_map(move |way| {
            [Link::Tcp, Link::Unix].into_iter().map(move |link| Case { link, over_transport, way })
        })
    })
}

/// The cases of a transport.
fn transports() -> impl Iterator<Item = Case> {
    cases().filter(|case| case.over_transport)
}

impl Case {
    fn open(self, event_loop: &TestLoop) -> Open {
        self.open_with(event_loop, None)
    }

    /// With socket buffers of about this size.
    fn open_with(self, event_loop: &TestLoop, buffers: Option<usize>) -> Open {
        let (ours, peer) = match self.link {
            Link::Tcp => tcp_pair(buffers),
            Link::Unix => unix_pair(buffers),
        };
        if self.way == Way::Reading {
            refuse_files(&ours);
        }
        let log = Log::default();
        let target = if self.over_transport {
            let protocol = log.clone();
            let (transport, _) = event_loop.run(event_loop.create_connection(|| protocol, ()).sock(ours).into_future());
            assert_eq!(log.0.take(), ["made"]);
            Target::Transport(transport)
        } else {
            Target::Socket(Rc::new(ours))
        };
        Open { case: self, target, peer, log }
    }

    fn source(self, data: &[u8]) -> Source {
        if self.way == Way::Reader { Source::Reader(Shared::new(data)) } else { Source::File(Rc::new(file(data))) }
    }
}

struct Open {
    case: Case,
    target: Target,
    peer: Socket,
    log: Log,
}

#[derive(Clone)]
enum Target {
    Socket(Rc<OwnedFd>),
    Transport(Transport),
}

/// What is sent. Clones are the same, with one position.
#[derive(Clone)]
enum Source {
    File(Rc<File>),
    Reader(Shared),
}

#[derive(Clone, Copy, Debug)]
struct Range {
    offset: u64,
    count: Option<u64>,
    fallback: bool,
}

const WHOLE: Range = Range { offset: 0, count: None, fallback: true };

impl Range {
    fn new(offset: usize, count: impl Into<Option<usize>>) -> Self {
        Range { offset: offset as u64, count: count.into().map(|count| count as u64), fallback: true }
    }
}

impl Target {
    async fn send(&self, source: &Source, range: Range) -> Result<u64> {
        let Range { offset, count, fallback } = range;
        let event_loop = asyncio::get_running_loop()?;
        let mut shared = if let Source::Reader(shared) = source { shared.clone() } else { Shared::new(b"") };
        match (self, source) {
            (Target::Socket(fd), Source::File(file)) => {
                event_loop.sock_sendfile(&**fd, &**file).offset(offset).count(count).fallback(fallback).await
            }
            (Target::Socket(fd), Source::Reader(_)) => {
                let reader = Reader(&mut shared);
                event_loop.sock_sendfile(&**fd, reader).offset(offset).count(count).fallback(fallback).await
            }
            (Target::Transport(transport), Source::File(file)) => {
                event_loop.sendfile(transport, &**file).offset(offset).count(count).fallback(fallback).await
            }
            (Target::Transport(transport), Source::Reader(_)) => {
                let reader = Reader(&mut shared);
                event_loop.sendfile(transport, reader).offset(offset).count(count).fallback(fallback).await
            }
        }
    }

    /// The same as a coroutine that is nobody's.
    fn sending(&self, source: &Source, range: Range) -> impl Future<Output = Result<u64>> + 'static {
        let (target, source) = (self.clone(), source.clone());
        async move { target.send(&source, range).await }
    }

    /// Sends something of one's own behind it.
    async fn write(&self, data: &[u8]) -> Result<()> {
        match self {
            Target::Socket(fd) => asyncio::get_running_loop()?.sock_sendall(&**fd, data).await,
            Target::Transport(transport) => transport.try_write(data),
        }
    }

    /// Whether the system would take more.
    fn is_writable(&self) -> bool {
        let look = |fd: rustix::fd::BorrowedFd<'_>| {
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
            rustix::event::poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
        };
        match self {
            Target::Socket(fd) => look(fd.as_fd()),
            Target::Transport(transport) => transport.with_fd(look).unwrap_or(true),
        }
    }

    /// Ends the sending side, once everything is sent.
    fn finish(&self) {
        match self {
            Target::Socket(fd) => SockRef::from(&**fd).shutdown(std::net::Shutdown::Write).unwrap(),
            Target::Transport(transport) => transport.write_eof().unwrap(),
        }
    }
}

impl Open {
    /// Ticks until nothing more can be sent because the peer does not read.
    fn until_blocked(&self, event_loop: &TestLoop) {
        event_loop.until(|| !self.target.is_writable());
        event_loop.ticks(3);
    }

    /// What the peer gets until the end.
    fn received(&self, event_loop: &TestLoop) -> Vec<u8> {
        let received = collect(self.peer.try_clone().unwrap());
        self.target.finish();
        event_loop.until(|| received.is_finished());
        if let Target::Transport(transport) = &self.target {
            transport.abort();
            event_loop.until(|| self.log.lost() == 1);
        }
        received.join().unwrap()
    }
}

impl Source {
    fn position(&self) -> u64 {
        match self {
            Source::File(file) => (&**file).stream_position().unwrap(),
            Source::Reader(shared) => shared.0.borrow().position(),
        }
    }

    fn set_position(&self, position: u64) {
        match self {
            Source::File(file) => drop((&**file).seek(SeekFrom::Start(position)).unwrap()),
            Source::Reader(shared) => shared.0.borrow_mut().set_position(position),
        }
    }
}

/// A file in memory that several hold.
#[derive(Clone)]
struct Shared(Rc<RefCell<Cursor<Vec<u8>>>>);

impl Shared {
    fn new(data: &[u8]) -> Self {
        let mut cursor = Cursor::new(data.to_vec());
        cursor.set_position(data.len() as u64);
        Shared(Rc::new(RefCell::new(cursor)))
    }
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

impl Seek for Shared {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.0.borrow_mut().seek(position)
    }
}

/// A file with this content, its position at the end.
fn file(data: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(data).unwrap();
    file
}

/// Bytes that are nowhere like those nearby, and differ at the same place of each kibibyte, page or larger piece.
fn pattern(size: usize) -> Vec<u8> {
    const PERIOD: usize = 65_521; // a prime
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let period: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
    let mut pattern = period.repeat(size.div_ceil(PERIOD));
    pattern.truncate(size);
    pattern
}

/// Lets the system refuse to send files to a socket by itself: it does so where data would be appended.
fn refuse_files(fd: &impl AsFd) {
    let flags = rustix::fs::fcntl_getfl(fd).unwrap();
    rustix::fs::fcntl_setfl(fd, flags | OFlags::APPEND).unwrap();
}

/// A non-blocking socket and its blocking peer.
fn unix_pair(buffers: Option<usize>) -> (OwnedFd, Socket) {
    let (ours, peer) = UnixStream::pair().unwrap();
    let (ours, peer) = (Socket::from(OwnedFd::from(ours)), Socket::from(OwnedFd::from(peer)));
    prepare(ours, peer, buffers)
}

fn tcp_pair(buffers: Option<usize>) -> (OwnedFd, Socket) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if let Some(size) = buffers {
        // Before the connection, whose window it decides.
        listener.set_recv_buffer_size(size).unwrap();
    }
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(1).unwrap();
    let listener = TcpListener::from(listener);
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    prepare(ours.into(), peer.into(), buffers)
}

fn prepare(ours: Socket, peer: Socket, buffers: Option<usize>) -> (OwnedFd, Socket) {
    ours.set_nonblocking(true).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    if let Some(size) = buffers {
        ours.set_send_buffer_size(size).unwrap();
        peer.set_recv_buffer_size(size).unwrap();
    }
    (ours.into(), peer)
}

/// Reads to the end in another thread; a connection that is reset has ended, too.
fn collect(mut peer: Socket) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut received = Vec::new();
        match peer.read_to_end(&mut received) {
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => panic!("{error}"),
            _ => received,
        }
    })
}

/// Compares without writing megabytes to the log.
#[track_caller]
fn assert_same(received: &[u8], expected: &[u8], case: impl std::fmt::Debug) {
    if received == expected {
        return;
    }
    let differ = received.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!((received.len(), differ), (expected.len(), None), "{case:?}: length, first difference");
}
