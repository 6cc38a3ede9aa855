//! What these tests show: how subprocesses are started, what their protocols are told, and who learns of their end.
#[macro_use]
#[path = "../support/mod.rs"]
mod support;

/// Makes a test of each function, on each selector, and by SIGCHLD as on systems without descriptors for processes.
macro_rules! on_each_watcher {
    ($($test:ident)*) => {
        on_each_watcher!(@ epoll epoll false $($test)*);
        on_each_watcher!(@ polling polling false $($test)*);
        on_each_watcher!(@ by_signal epoll true $($test)*);
    };
    (@ $name:ident $selector:ident $by_signal:literal $($test:ident)*) => {
        mod $name {$(
            #[test]
            fn $test() {
                let path = concat!(module_path!(), "::", stringify!($test));
                let on = crate::support::loops::On { builder: crate::support::loops::$selector, path };
                super::$test(crate::Place { on, by_signal: $by_signal });
            }
        )*}
    };
}

mod children;
mod communicate;
mod ending;
mod environment;
mod events;
mod failures;
mod groups;
mod pipes;
mod signals;
mod stdio;

use std::{cell::RefCell, rc::Rc};

use asyncio::{
    Error, ErrorKind, EventLoop, SubprocessProtocol, SubprocessTransport, Transport,
    subprocess::{CreateSubprocess, WithProtocol},
};

use crate::support::loops::{On, TestLoop};

/// Where a test runs, and how its loop learns of its children's ends.
#[derive(Clone, Copy)]
struct Place {
    on: On,
    by_signal: bool,
}

impl Place {
    fn event_loop(self) -> TestLoop {
        let event_loop = self.on.event_loop();
        self.prepare(&event_loop);
        event_loop
    }

    fn prepare(self, event_loop: &EventLoop) {
        if self.by_signal {
            event_loop.without_process_descriptors();
        }
    }

    fn in_child(self) -> bool {
        self.on.in_child()
    }
}

/// What a protocol is told.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Made,
    /// `pipe_data_received`, with so many bytes.
    Data(i32, usize),
    PipeLost(i32, Option<ErrorKind>),
    /// With the return code that the transport had then.
    Exited(Option<i32>),
    Pause,
    Resume,
    Lost(Option<ErrorKind>),
    Note(&'static str),
}

/// What a protocol was told, in order, with the bytes that it received. Clones are one log.
#[derive(Clone, Default)]
struct Log(Rc<LogState>);

#[derive(Default)]
struct LogState {
    told: RefCell<Vec<Told>>,
    received: RefCell<[Vec<u8>; 3]>,
    pipe_errors: RefCell<Vec<(i32, Error)>>,
}

impl Log {
    fn push(&self, told: Told) {
        self.0.told.borrow_mut().push(told);
    }

    fn items(&self) -> Vec<Told> {
        self.0.told.borrow().clone()
    }

    /// Without the data, which the system splits as it likes.
    fn without_data(&self) -> Vec<Told> {
        self.items().into_iter().filter(|told| !matches!(told, Told::Data(..))).collect()
    }

    fn has(&self, told: &Told) -> bool {
        self.0.told.borrow().contains(told)
    }

    fn position(&self, told: &Told) -> usize {
        let items = self.items();
        items.iter().position(|item| item == told).unwrap_or_else(|| panic!("no {told:?} in {items:?}"))
    }

    fn lost(&self) -> bool {
        self.0.told.borrow().iter().any(|told| matches!(told, Told::Lost(_)))
    }

    fn exited(&self) -> bool {
        self.0.told.borrow().iter().any(|told| matches!(told, Told::Exited(_)))
    }

    /// All that came through a pipe.
    fn received(&self, fd: usize) -> Vec<u8> {
        self.0.received.borrow()[fd].clone()
    }

    fn text(&self, fd: usize) -> String {
        String::from_utf8(self.received(fd)).unwrap()
    }
}

/// A protocol that logs what it is told. Hooks run after that, and get the transport; a panic of theirs is the callback's.
struct Recorder {
    log: Log,
    transport: Option<SubprocessTransport>,
    hook: Hook,
}

type Hook = Box<dyn FnMut(&SubprocessTransport, &Told)>;

impl Recorder {
    fn new(log: &Log) -> Self {
        Recorder { log: log.clone(), transport: None, hook: Box::new(|_, _| {}) }
    }

    fn on(mut self, hook: impl FnMut(&SubprocessTransport, &Told) + 'static) -> Self {
        self.hook = Box::new(hook);
        self
    }

    fn is_told(&mut self, told: Told) {
        self.log.push(told.clone());
        let transport = self.transport.clone().expect("it was made");
        if matches!(told, Told::Lost(_)) {
            self.transport = None;
        }
        (self.hook)(&transport, &told);
    }
}

impl SubprocessProtocol for Recorder {
    fn connection_made(&mut self, transport: &SubprocessTransport) {
        self.transport = Some(transport.clone());
        self.is_told(Told::Made);
    }

    fn pipe_data_received(&mut self, fd: i32, data: &[u8]) {
        assert!(!data.is_empty());
        self.log.0.received.borrow_mut()[fd as usize].extend_from_slice(data);
        self.is_told(Told::Data(fd, data.len()));
    }

    fn pipe_connection_lost(&mut self, fd: i32, error: Option<&Error>) {
        if let Some(error) = error {
            self.log.0.pipe_errors.borrow_mut().push((fd, error.clone()));
        }
        self.is_told(Told::PipeLost(fd, error.map(Error::kind)));
    }

    fn process_exited(&mut self) {
        let returncode = self.transport.as_ref().and_then(SubprocessTransport::get_returncode);
        self.is_told(Told::Exited(returncode));
    }

    fn connection_lost(&mut self, error: Option<&Error>) {
        self.is_told(Told::Lost(error.map(Error::kind)));
    }

    fn pause_writing(&mut self) {
        self.is_told(Told::Pause);
    }

    fn resume_writing(&mut self) {
        self.is_told(Told::Resume);
    }
}

/// What a shell command's builder makes; each test adds what it is about.
type Builder = CreateSubprocess<WithProtocol<'static, Recorder>>;

/// A shell command with a recorder.
fn shell(event_loop: &EventLoop, command: &str) -> (Builder, Log) {
    let log = Log::default();
    let recorder = Recorder::new(&log);
    (event_loop.subprocess_shell(|| recorder, command), log)
}

/// Runs a shell command until its end: the log, and the transport.
fn finish(event_loop: &TestLoop, command: &str, with: impl FnOnce(Builder) -> Builder) -> (SubprocessTransport, Log) {
    let (builder, log) = shell(event_loop, command);
    let (transport, _) = event_loop.run(with(builder));
    event_loop.until(|| log.lost());
    (transport, log)
}

/// What a shell command writes, standard input being empty, and its return code.
fn output(event_loop: &TestLoop, command: &str, with: impl FnOnce(Builder) -> Builder) -> (String, Option<i32>) {
    let with_empty_input = |builder: Builder| builder.stdin(asyncio::subprocess::DEVNULL);
    let (transport, log) = finish(event_loop, command, |builder| with(with_empty_input(builder)));
    (log.text(1), transport.get_returncode())
}

fn stdin(transport: &SubprocessTransport) -> Transport {
    transport.get_pipe_transport(0).expect("it is piped")
}

/// Whether there is a process with this number, be it dead and not reaped.
fn exists(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// How many descriptors this process has open.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How many children this process has, dead ones that are not reaped included.
fn children() -> usize {
    let mut count = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let children = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        count += children.split_whitespace().count();
    }
    count
}
