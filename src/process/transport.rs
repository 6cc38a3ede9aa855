//! A subprocess with the pipes to it.
//!
//! ```text
//! Opening --Made--> Running --the process ended, the pipes closed, in any order--> lost queued --Lost--> Ended
//! ```

use std::{
    cell::{Cell, RefCell},
    fmt,
    hash::{Hash, Hasher},
    io,
    os::fd::{OwnedFd, RawFd},
    rc::{Rc, Weak},
    sync::Arc,
};

use crate::{
    endpoints::{
        Attached,
        stream::{Kind, Opening, StreamEndpoint},
    },
    error::{Error, Result},
    event_loop::{
        EventLoop,
        owned::{IoEvent, IoHandler},
        running::WeakLoop,
        turn::Ready,
    },
    future::Future,
    process::{
        protocol::{AnySubprocessProtocol, SubprocessProtocol},
        watcher::{Children, Parent},
    },
    report,
    sys::{
        child::{self, Child, Spawned},
        signal::ToSignal,
    },
    transport::{
        Transport,
        buffers::IoBuffers,
        calls::{Called, Caller, Calls, ChildNotice, Notice},
        protocol::AnyStreamProtocol,
        pull_sink::PullSink,
    },
};

/// A subprocess: a cheap handle, clones are the same one, and `==` says so.
///
/// Dropping the last handle neither closes nor kills: the loop keeps the process until it has ended. A loop that is closed
/// closes its subprocesses: those that still run are killed, and reaped.
///
/// `Threads:` bound to its loop's.
///
/// ```compile_fail
/// fn send<T: Send>() {}
/// send::<asyncio::SubprocessTransport>();
/// ```
///
/// asyncio: `asyncio.SubprocessTransport`.
#[derive(Clone)]
pub struct SubprocessTransport(pub(super) Rc<dyn RawSubprocess>);

impl SubprocessTransport {
    /// The process's number. It is no other process's as long as `get_returncode` gives `None`.
    ///
    /// asyncio: `SubprocessTransport.get_pid`.
    pub fn get_pid(&self) -> u32 {
        self.0.child().pid()
    }

    /// What the process came to, once it has ended: its exit code, or the negative number of the signal that ended it;
    /// 255 if nobody can know, because somebody else has reaped it.
    ///
    /// asyncio: `SubprocessTransport.get_returncode`.
    pub fn get_returncode(&self) -> Option<i32> {
        self.0.child().returncode()
    }

    /// The transport of a pipe to the process: 0 is the one that is written to, 1 and 2 are read from. `None` where there
    /// is no pipe.
    ///
    /// asyncio: `SubprocessTransport.get_pipe_transport`.
    pub fn get_pipe_transport(&self, fd: i32) -> Option<Transport> {
        self.0.pipe(fd)
    }

    /// Sends a signal to the process. One that has ended but that the loop has not come to yet takes it in silence.
    ///
    /// # Errors
    ///
    /// [`Error::ProcessLookup`] if the process has ended; [`Error::Io`] if the system refuses: there is no such signal, or
    /// the process runs under another user.
    ///
    /// asyncio: `SubprocessTransport.send_signal`.
    pub fn send_signal(&self, signal: impl ToSignal) -> Result<()> {
        self.0.child().signal(signal.signal_number())
    }

    /// Asks the process to end, by SIGTERM.
    ///
    /// # Errors
    ///
    /// As [`send_signal`](Self::send_signal).
    ///
    /// asyncio: `SubprocessTransport.terminate`.
    pub fn terminate(&self) -> Result<()> {
        self.0.child().signal(libc::SIGTERM)
    }

    /// Ends the process, by SIGKILL.
    ///
    /// # Errors
    ///
    /// As [`send_signal`](Self::send_signal).
    ///
    /// asyncio: `SubprocessTransport.kill`.
    pub fn kill(&self) -> Result<()> {
        self.0.child().signal(libc::SIGKILL)
    }

    /// Closes the pipes and kills the process, if it has not ended. The protocol is told of all that as it comes.
    ///
    /// asyncio: `SubprocessTransport.close`. Differs: what waits to be written to a process that is killed is dropped.
    pub fn close(&self) {
        self.0.close();
    }

    /// Whether it is closing or closed.
    ///
    /// asyncio: `BaseTransport.is_closing`. Differs: true after the end of the process and its pipes, too.
    pub fn is_closing(&self) -> bool {
        self.0.is_closing()
    }

    /// Lets another protocol be called from now on.
    ///
    /// asyncio: `BaseTransport.set_protocol`.
    pub fn set_protocol<P: SubprocessProtocol>(&self, protocol: Rc<RefCell<P>>) {
        self.0.set_protocol(AnySubprocessProtocol(protocol));
    }

    /// The protocol, if it is a `P`; `None` after `connection_lost` as well.
    ///
    /// asyncio: `BaseTransport.get_protocol`.
    pub fn get_protocol<P: SubprocessProtocol>(&self) -> Option<Rc<RefCell<P>>> {
        self.0.protocol()?.0.into_any().downcast().ok()
    }
}

impl PartialEq for SubprocessTransport {
    /// Whether both are handles of one subprocess.
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SubprocessTransport {}

impl Hash for SubprocessTransport {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Rc::as_ptr(&self.0).cast::<()>().hash(state);
    }
}

impl fmt::Debug for SubprocessTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.describe())
    }
}

/// A subprocess as its handle sees it.
pub(super) trait RawSubprocess {
    fn describe(&self) -> String;
    fn child(&self) -> &Child;
    fn pipe(&self, fd: i32) -> Option<Transport>;
    /// What had to wait is told now.
    fn resume_pipe(&self, fd: i32);
    fn close(&self);
    fn is_closing(&self) -> bool;
    fn set_protocol(&self, protocol: AnySubprocessProtocol);
    fn protocol(&self) -> Option<AnySubprocessProtocol>;
}

pub(super) struct Subprocess {
    this: Weak<Subprocess>,
    event_loop: WeakLoop,
    child: Arc<Child>,
    /// By the number in the child. They stay when they are closed.
    pipes: RefCell<[Option<Transport>; 3]>,
    /// How many of them are open.
    open_pipes: Cell<usize>,
    calls: Calls<AnySubprocessProtocol>,
    buffers: Rc<IoBuffers>,
    /// Set when the protocol is told of its process; never cleared.
    started: Cell<bool>,
    /// Set when the opener has returned; never cleared.
    begun: Cell<bool>,
    /// Set by close() and at the end; never cleared.
    closed: Cell<bool>,
    /// Set when the process has ended; never cleared.
    exited: Cell<bool>,
    /// Set once Lost is queued; never cleared.
    losing: Cell<bool>,
    opener: Cell<Option<Future<()>>>,
}

impl Subprocess {
    /// Makes the transport of a process that has just been started; the protocol hears of it from the ready queue. On an
    /// error the process is killed, and the protocol hears nothing.
    pub(super) fn open(
        event_loop: &EventLoop,
        spawned: Spawned,
        protocol: AnySubprocessProtocol,
        opener: Future<()>,
    ) -> Result<Rc<Self>> {
        let Spawned { child, pipes } = spawned;
        let process = Rc::new_cyclic(|this| Subprocess {
            this: this.clone(),
            event_loop: Rc::downgrade(&event_loop.inner),
            child: child.clone(),
            pipes: RefCell::default(),
            open_pipes: Cell::new(0),
            calls: Calls::new(event_loop, protocol),
            buffers: IoBuffers::of(event_loop),
            started: Cell::new(false),
            begun: Cell::new(false),
            closed: Cell::new(false),
            exited: Cell::new(false),
            losing: Cell::new(false),
            opener: Cell::new(Some(opener)),
        });
        let children = Children::of(event_loop);
        if let Err(error) = children.watch(event_loop, child.clone(), process.clone()) {
            child::give_up(vec![child]);
            return Err(error);
        }
        children.keep(process.clone());
        for (index, fd) in pipes.into_iter().enumerate() {
            let opened = fd.map(|fd| process.open_pipe(event_loop, index, fd)).transpose();
            if let Err(error) = opened {
                process.abandon();
                return Err(error);
            }
        }
        event_loop.push(Ready::Io(process.clone(), IoEvent::Made));
        Ok(process)
    }

    fn open_pipe(self: &Rc<Self>, event_loop: &EventLoop, index: usize, fd: OwnedFd) -> Result<()> {
        let sink = PipeSink { fd: index as i32, process: self.clone() };
        let opening = Opening {
            fd,
            kind: if index == 0 { Kind::WritePipe } else { Kind::ReadPipe },
            peer: None,
            protocol: AnyStreamProtocol::of_sink(Rc::new(sink)),
            opener: None,
            attached: Some((self.clone(), index)),
        };
        let endpoint = StreamEndpoint::open(event_loop, opening)?;
        self.open_pipes.set(self.open_pipes.get() + 1);
        self.pipes.borrow_mut()[index] = Some(Transport(endpoint));
        Ok(())
    }

    fn event_loop(&self) -> Option<EventLoop> {
        self.event_loop.upgrade().map(EventLoop::from_inner)
    }

    fn this(&self) -> Rc<Self> {
        self.this.upgrade().expect("whoever calls it holds it")
    }

    fn made(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.calls.protocol().is_none() {
            return; // abandoned
        }
        // Before the call, which may give up the opening: it is to hear of the end, too, then.
        self.started.set(true);
        Calls::notify(self, event_loop, Notice::Made);
        if let Some(opener) = self.opener.take() {
            // It may be cancelled, and its owner has closed this transport then.
            let _ = opener.set_result(());
        }
        event_loop.push(Ready::Io(self.clone(), IoEvent::Ready { readable: false, writable: false }));
    }

    /// The opener has returned, and the end of the process may be told.
    fn begin(self: &Rc<Self>, event_loop: &EventLoop) {
        self.begun.set(true);
        if self.exited.get() {
            self.tell_exit(event_loop);
        }
    }

    fn tell_exit(self: &Rc<Self>, event_loop: &EventLoop) {
        Calls::notify(self, event_loop, Notice::Child(ChildNotice::Exited));
        self.try_finish();
    }

    /// Ends a process whose opener has gone: a protocol that has not heard of it never will.
    pub(super) fn abandon(&self) {
        if !self.started.get() {
            let opener = self.opener.take();
            self.calls.release();
            drop(opener);
        }
        self.close();
    }

    fn notify(&self, notice: Notice) {
        if let Some(event_loop) = self.event_loop() {
            Calls::notify(&self.this(), &event_loop, notice);
        }
    }

    /// Receives from a pipe and tells the protocol. Where somebody holds that it is told later, and nothing more is
    /// received until then.
    fn receive(&self, fd: i32, receive: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let Some(event_loop) = self.event_loop() else { return Err(io::ErrorKind::WouldBlock.into()) };
        let (this, mut lent) = (self.this(), self.buffers.lend());
        let mut received = None;
        let called = Calls::call(&this, &event_loop, |protocol| {
            // What it was told just before, late, may have made it pause or close.
            if !self.pipe(fd).is_some_and(|pipe| pipe.is_reading()) {
                received = Some(Err(io::ErrorKind::WouldBlock.into()));
                return;
            }
            let count = receive(&mut lent.memory);
            let data = count.as_ref().map_or(0, |count| *count);
            received = Some(count);
            if data > 0 {
                protocol.pipe_data_received(fd, &lent.memory[..data]);
            }
        });
        match called {
            Called::Returned(()) => {}
            Called::Panicked(error) => {
                self.report(&event_loop, "protocol.pipe_data_received() failed".to_owned(), error);
            }
            Called::Borrowed => {
                let count = receive(&mut lent.memory)?;
                if count > 0 {
                    self.pause_pipe(fd);
                    let data = lent.memory[..count].to_vec();
                    Calls::notify(&this, &event_loop, Notice::Child(ChildNotice::Data(fd, data)));
                }
                return Ok(count);
            }
            Called::Gone => return Err(io::ErrorKind::WouldBlock.into()),
        }
        received.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))
    }

    fn pause_pipe(&self, fd: i32) {
        self.pipe(fd).into_iter().for_each(|pipe| pipe.pause_reading());
    }

    /// Queues the last call of the protocol if there is nothing more to come.
    fn try_finish(&self) {
        let told = self.begun.get() || self.calls.protocol().is_none();
        if !told || !self.exited.get() || self.open_pipes.get() > 0 || self.losing.replace(true) {
            return;
        }
        self.closed.set(true);
        if let Some(event_loop) = self.event_loop() {
            event_loop.push(Ready::Io(self.this(), IoEvent::Lost));
        }
    }

    fn describe(&self) -> String {
        let closed = if self.closed.get() { "closed " } else { "" };
        let pipes = self.pipes.borrow();
        let names = ["stdin", "stdout", "stderr"].iter().zip(pipes.iter());
        let pipes = names.filter_map(|(name, pipe)| Some(format!(" {name}={:?}", pipe.as_ref()?)));
        format!("<SubprocessTransport {closed}{:?}{}>", self.child, pipes.collect::<String>())
    }
}

impl RawSubprocess for Subprocess {
    fn describe(&self) -> String {
        self.describe()
    }

    fn child(&self) -> &Child {
        &self.child
    }

    fn pipe(&self, fd: i32) -> Option<Transport> {
        self.pipes.borrow().get(usize::try_from(fd).ok()?)?.clone()
    }

    fn resume_pipe(&self, fd: i32) {
        self.pipe(fd).into_iter().for_each(|pipe| pipe.resume_reading());
    }

    fn close(&self) {
        if self.closed.replace(true) {
            return;
        }
        let runs = !self.exited.get();
        if runs && self.event_loop().is_some_and(|event_loop| event_loop.get_debug()) {
            report::warning(&format!("Close running child process: kill {}", self.describe()));
        }
        let pipes = self.pipes.borrow().clone();
        for pipe in pipes.into_iter().flatten() {
            // A process that has ended may have left its input to another one.
            if runs { pipe.abort() } else { pipe.close() }
        }
        if runs {
            // It may have ended, or run under another user.
            let _ = self.child.signal(libc::SIGKILL);
        }
    }

    fn is_closing(&self) -> bool {
        self.closed.get()
    }

    fn set_protocol(&self, protocol: AnySubprocessProtocol) {
        self.calls.set_protocol(protocol);
    }

    fn protocol(&self) -> Option<AnySubprocessProtocol> {
        self.calls.protocol()
    }
}

impl Parent for Subprocess {
    fn exited(self: Rc<Self>, event_loop: &EventLoop, _: i32) {
        self.exited.set(true);
        // Else it is told as soon as the opener has returned.
        if self.begun.get() || self.calls.protocol().is_none() {
            self.tell_exit(event_loop);
        }
    }

    fn discard(self: Rc<Self>) {
        if !self.closed.get() && self.event_loop().is_some_and(|event_loop| event_loop.get_debug()) {
            report::warning(&format!("ResourceWarning: unclosed transport {}", self.describe()));
        }
        self.closed.set(true);
        self.losing.set(true);
        let opener = self.opener.take();
        self.calls.release();
        drop(opener);
    }
}

impl Attached for Subprocess {
    /// No layer lies over a pipe.
    fn replace(&self, _: usize, _: Transport) {}

    fn detach(&self, _: usize) {
        self.open_pipes.set(self.open_pipes.get() - 1);
        self.try_finish();
    }
}

impl IoHandler for Subprocess {
    fn run(self: Rc<Self>, event_loop: &EventLoop, event: IoEvent) {
        match event {
            IoEvent::Made => self.made(event_loop),
            IoEvent::Lost if self.calls.protocol().is_none() => drop(self.ended(event_loop)), // abandoned
            IoEvent::Lost => Calls::notify(&self, event_loop, Notice::Lost(None)),
            IoEvent::Retry => Calls::retry(&self, event_loop),
            IoEvent::Ready { .. } => self.begin(event_loop),
            IoEvent::TimedOut => {}
        }
    }

    fn discard(self: Rc<Self>) {
        Parent::discard(self);
    }

    fn describe(&self) -> String {
        self.describe()
    }
}

impl Caller<AnySubprocessProtocol> for Subprocess {
    fn calls(&self) -> &Calls<AnySubprocessProtocol> {
        &self.calls
    }

    fn transport(self: Rc<Self>) -> SubprocessTransport {
        SubprocessTransport(self)
    }

    fn number(&self) -> Option<RawFd> {
        None
    }

    fn ended(&self, event_loop: &EventLoop) -> bool {
        let this: Rc<dyn Parent> = self.this();
        Children::of(event_loop).forget(&this);
        true
    }
}

/// What receives from a pipe, or hears that it takes more.
struct PipeSink {
    fd: i32,
    process: Rc<Subprocess>,
}

impl PullSink for PipeSink {
    fn connection_made(&self, _: &Transport) {}

    fn readable(&self, receive: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.process.receive(self.fd, receive)
    }

    fn eof_received(&self) -> bool {
        false
    }

    fn connection_lost(&self, error: Option<&Error>) {
        self.process.notify(Notice::Child(ChildNotice::PipeLost(self.fd, error.cloned())));
    }

    fn has_ended(&self) -> bool {
        true
    }

    fn pause_writing(&self) {
        self.process.notify(Notice::Pause);
    }

    fn resume_writing(&self) {
        self.process.notify(Notice::Resume);
    }

    fn discard(&self) {}

    fn type_name(&self) -> &'static str {
        "the pipe of a subprocess"
    }
}
