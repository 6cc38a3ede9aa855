//! Pipe transports: pipes, FIFOs, sockets, terminals and other devices, on every selector.
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

/// Makes a test of each function, on each selector and with each kind of channel.
macro_rules! on_each_channel {
    ($($test:ident)*) => {
        mod pipes { on_each_channel!(@ Pipe $($test)*); }
        mod fifos { on_each_channel!(@ Fifo $($test)*); }
        mod socketpairs { on_each_channel!(@ Socketpair $($test)*); }
    };
    (@ $channel:ident $($test:ident)*) => {
        mod epoll { on_each_channel!(@@ $channel epoll $($test)*); }
        mod polling { on_each_channel!(@@ $channel polling $($test)*); }
    };
    (@@ $channel:ident $selector:ident $($test:ident)*) => {$(
        #[test]
        fn $test() {
            super::super::$test(&crate::TestLoop::new(crate::$selector()), crate::Channel::$channel);
        }
    )*};
}

mod devices;
mod opening;
mod panics;
mod processes;
mod reading;
mod sharing;
mod writing;

use std::{
    cell::RefCell,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    ops::Deref,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    rc::Rc,
    thread::JoinHandle,
};

use asyncio::{
    EventLoop, EventLoopBuilder, ExceptionContext, StreamProtocol, Transport,
    selector::{EpollSelector, PollingSelector},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{CWD, FileType, Mode, OFlags},
    pipe::PipeFlags,
};
use support::{
    Record, Watchdog,
    transports::{Log, Recorder},
};

/// More than any channel here keeps for a reader that does not read.
const LARGE: usize = 1_000_000;

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

    fn ticks(&self, count: usize) {
        (0..count).for_each(|_| support::tick(&self.event_loop));
    }

    /// Runs until `done`, which is looked at after each iteration.
    #[track_caller]
    fn until(&self, done: impl FnMut() -> bool) {
        support::transports::until(&self.event_loop, done);
    }

    /// Connects a recorder to what comes out of `reader`.
    fn read(&self, reader: impl Into<OwnedFd>) -> (Transport, Log) {
        let (transport, _, log) = self.read_with(reader, |recorder| recorder);
        (transport, log)
    }

    /// Connects a protocol made of a recorder.
    fn read_with<P: StreamProtocol<K>, K>(
        &self,
        reader: impl Into<OwnedFd>,
        make: impl FnOnce(Recorder) -> P,
    ) -> (Transport, Rc<RefCell<P>>, Log) {
        let log = Log::default();
        let opening = self.connect_read_pipe(|| make(Recorder::new(&log)), reader);
        let (transport, protocol) = self.run_until_complete(opening).unwrap();
        (transport, protocol, log)
    }

    /// Connects a recorder that writes to `writer`.
    fn write(&self, writer: impl Into<OwnedFd>) -> (Transport, Log) {
        let (transport, _, log) = self.write_with(writer, |recorder| recorder);
        (transport, log)
    }

    /// Connects a protocol made of a recorder.
    fn write_with<P: StreamProtocol<K>, K>(
        &self,
        writer: impl Into<OwnedFd>,
        make: impl FnOnce(Recorder) -> P,
    ) -> (Transport, Rc<RefCell<P>>, Log) {
        let log = Log::default();
        let opening = self.connect_write_pipe(|| make(Recorder::new(&log)), writer);
        let (transport, protocol) = self.run_until_complete(opening).unwrap();
        (transport, protocol, log)
    }

    /// The only report that there was.
    #[track_caller]
    fn report(&self) -> ExceptionContext {
        let mut reports = self.reports.take();
        assert_eq!(reports.len(), 1, "{reports:?}");
        reports.remove(0)
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
        if !self.event_loop.is_closed() {
            assert_eq!(self.event_loop.all_tasks(), [], "tasks are left");
            assert_eq!(self.event_loop.next_deadline(), None, "timers or callbacks are left");
        }
        self.event_loop.close().unwrap();
        assert!(self.reports.len() == 0, "unexpected reports: {:?}", self.reports.take());
    }
}

/// What carries bytes from one end to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    Pipe,
    Fifo,
    Socketpair,
}

impl Channel {
    /// Where to read and where to write, both blocking.
    fn open(self) -> (OwnedFd, OwnedFd) {
        match self {
            Channel::Pipe => pipe(),
            Channel::Socketpair => {
                let (reader, writer) = UnixStream::pair().unwrap();
                (reader.into(), writer.into())
            }
            Channel::Fifo => {
                let fifo = Fifo::new();
                let reader = fifo.open(OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK));
                let writer = fifo.open(OpenOptions::new().write(true));
                set_nonblocking(&reader, false);
                (reader, writer)
            }
        }
    }

    /// A reader for a transport, and the other end for the test.
    fn reader(self) -> (OwnedFd, End) {
        let (reader, writer) = self.open();
        (reader, End::new(writer))
    }

    /// A writer for a transport, and the other end for the test.
    fn writer(self) -> (OwnedFd, End) {
        let (reader, writer) = self.open();
        (writer, End::new(reader))
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap()
}

/// A named pipe, until it is dropped; what is open stays.
struct Fifo(tempfile::TempDir);

impl Fifo {
    fn new() -> Self {
        let fifo = Fifo(tempfile::tempdir().unwrap());
        rustix::fs::mknodat(CWD, fifo.path(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fifo
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("fifo")
    }

    fn open(&self, options: &OpenOptions) -> OwnedFd {
        options.open(self.path()).unwrap().into()
    }
}

/// The other end of a channel, driven by the test itself. Its own calls do not block, unless they say so.
struct End(File);

impl End {
    fn new(fd: impl Into<OwnedFd>) -> Self {
        let fd = fd.into();
        set_nonblocking(&fd, true);
        End(fd.into())
    }

    /// Sends all of `data`, which the system must take at once.
    #[track_caller]
    fn send(&self, data: &[u8]) {
        assert_eq!((&self.0).write(data).unwrap(), data.len());
    }

    /// Receives what is there. The end is no bytes, as nothing is; see [`ended`](Self::ended).
    fn drain(&self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(chunk) = self.recv(1 << 16).filter(|chunk| !chunk.is_empty()) {
            all.extend(chunk);
        }
        all
    }

    /// Receives once, at most `most` bytes; `None` if there is nothing, no bytes at the end.
    fn recv(&self, most: usize) -> Option<Vec<u8>> {
        let mut chunk = vec![0; most];
        match (&self.0).read(&mut chunk) {
            Ok(count) => {
                chunk.truncate(count);
                Some(chunk)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether everything has been received and the other end is closed.
    fn ended(&self) -> bool {
        self.recv(1).is_some_and(|byte| byte.is_empty())
    }

    /// Whether nobody is left to read what would be sent.
    fn is_unread(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        rustix::event::poll(&mut fds, Some(&Timespec::default())).unwrap();
        fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Receives everything to the end in a thread of its own.
    fn collect(mut self) -> JoinHandle<Vec<u8>> {
        std::thread::spawn(move || {
            set_nonblocking(&self.0, false);
            let mut all = Vec::new();
            self.0.read_to_end(&mut all).unwrap();
            all
        })
    }

    /// Sends all of `data` in a thread of its own, `piece` bytes a time, and closes.
    fn pour(mut self, data: Vec<u8>, piece: usize) -> JoinHandle<()> {
        std::thread::spawn(move || {
            set_nonblocking(&self.0, false);
            data.chunks(piece).for_each(|piece| self.0.write_all(piece).unwrap());
        })
    }
}

fn is_nonblocking(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
}

fn set_nonblocking(fd: impl AsFd, nonblocking: bool) {
    let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
    let wanted = if nonblocking { flags | OFlags::NONBLOCK } else { flags - OFlags::NONBLOCK };
    rustix::fs::fcntl_setfl(fd, wanted).unwrap();
}

/// A duplicate, which has its mode together with `fd`.
fn duplicate(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

/// A protocol for those who only need one.
struct Ignore;

impl asyncio::Protocol for Ignore {
    fn data_received(&mut self, _data: &[u8]) {}
}
