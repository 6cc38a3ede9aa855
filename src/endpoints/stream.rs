//! A byte stream over a descriptor: socket or pipe.
//!
//! ```text
//! Opening --Made--> Open --close, end--> Closing --buffer written--> lost queued --Lost--> Ended
//!                   Open, Closing --abort, failure--> lost queued
//! ```

use std::{
    cell::{Cell, OnceCell, RefCell},
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    panic::Location,
    rc::{Rc, Weak},
    task::{Poll, Waker},
};

use crate::{
    endpoints::Attached,
    error::{Error, Result},
    event_loop::{
        EventLoop,
        owned::{IoEvent, IoHandler},
        running::WeakLoop,
        turn::Ready,
        waiters::wake,
    },
    future::Future,
    report,
    sys::{addr::Address, pipe, selector::Interest, socket},
    transport::{
        RawTransport, SendfileMode, Transport,
        activity::{Activity, Standing},
        buffers::IoBuffers,
        calls::{Called, Caller, Calls, Notice},
        extra_info::{ExtraName, ExtraValue},
        flow::Flow,
        protocol::{AnyStreamProtocol, BorrowedProtocol},
        write_buffer::WriteBuffer,
    },
};

/// What kind of descriptor it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Socket,
    ReadPipe,
    WritePipe,
}

/// What an endpoint is opened with.
pub(crate) struct Opening {
    /// Non-blocking if it is a socket. A pipe becomes it now, and is as before when the transport has ended: others may
    /// share it.
    pub(crate) fd: OwnedFd,
    pub(crate) kind: Kind,
    pub(crate) peer: Option<Address>,
    pub(crate) protocol: AnyStreamProtocol,
    /// Completed when the protocol knows of its connection.
    pub(crate) opener: Option<Future<()>>,
    pub(crate) attached: Option<(Rc<dyn Attached>, usize)>,
}

pub(crate) struct StreamEndpoint {
    this: Weak<StreamEndpoint>,
    event_loop: WeakLoop,
    kind: Kind,
    number: RawFd,
    /// Taken at the end.
    fd: RefCell<Option<OwnedFd>>,
    /// Set when the descriptor is to be closed, even where it is lent at that moment; never cleared.
    closed: Cell<bool>,
    peer: Option<Address>,
    /// Looked up when somebody asks, at the end at the latest.
    local: OnceCell<Option<Address>>,
    buffer: RefCell<WriteBuffer>,
    flow: Cell<Flow>,
    activity: Cell<Activity>,
    calls: Calls<AnyStreamProtocol>,
    buffers: Rc<IoBuffers>,
    /// Set when the protocol is told of its connection: reading begins then.
    started: Cell<bool>,
    /// Set by pause_reading(), cleared by resume_reading().
    paused: Cell<bool>,
    /// Set at the end of the input where the protocol keeps the transport open; cleared when a layer takes over.
    read_ended: Cell<bool>,
    /// Set by close() and by whatever ends the connection; never cleared.
    closing: Cell<bool>,
    /// Set by write_eof(); never cleared.
    write_ended: Cell<bool>,
    /// Set once Lost is queued; never cleared.
    losing: Cell<bool>,
    /// Set while a file is sent: nobody else writes, and nothing is read.
    sending_file: Cell<bool>,
    /// Whether who sends a file waits for the descriptor to be writable.
    wants_writable: Cell<bool>,
    /// Set when a layer has taken it over: nobody else writes. Never cleared.
    layered: Cell<bool>,
    drained: Cell<Option<Waker>>,
    /// Whether it is a write pipe whose reader can be seen to go: no device.
    channel: bool,
    /// Set when something is there to be read from a write pipe, which says nothing of its reader; never cleared.
    unread: Cell<bool>,
    /// Set where the system cannot watch the descriptor because it is always ready; never cleared.
    always_ready: Cell<bool>,
    /// Whether an always ready one is on its way to be told so.
    ready_queued: Cell<bool>,
    /// How often in a row nothing could be delivered because somebody held the protocol.
    undelivered: Cell<u8>,
    /// What ended the connection.
    failure: RefCell<Option<Error>>,
    /// Boxed, for few connections have one, and not for long.
    opener: Cell<Option<Box<Future<()>>>>,
    attached: Cell<Option<(Rc<dyn Attached>, usize)>>,
}

/// What a read came to.
enum Read {
    Data,
    End,
    Nothing,
    Failed(io::Error),
    NoRoom,
}

impl StreamEndpoint {
    /// Makes the transport of a descriptor; its protocol hears of it from the ready queue.
    pub(crate) fn open(event_loop: &EventLoop, opening: Opening) -> Result<Rc<Self>> {
        let Opening { fd, kind, peer, protocol, opener, attached } = opening;
        let channel = kind == Kind::WritePipe && pipe::kind(fd.as_fd())? == pipe::PipeKind::Channel;
        if kind != Kind::Socket {
            pipe::unblock(fd.as_fd())?;
        }
        let number = fd.as_raw_fd();
        let endpoint = Rc::new_cyclic(|this| StreamEndpoint {
            this: this.clone(),
            event_loop: Rc::downgrade(&event_loop.inner),
            kind,
            number,
            fd: RefCell::new(Some(fd)),
            closed: Cell::new(false),
            peer,
            local: OnceCell::new(),
            buffer: RefCell::default(),
            flow: Cell::default(),
            activity: Cell::default(),
            calls: Calls::new(event_loop, protocol),
            buffers: IoBuffers::of(event_loop),
            started: Cell::new(false),
            paused: Cell::new(false),
            read_ended: Cell::new(false),
            closing: Cell::new(false),
            write_ended: Cell::new(false),
            losing: Cell::new(false),
            sending_file: Cell::new(false),
            wants_writable: Cell::new(false),
            layered: Cell::new(false),
            drained: Cell::new(None),
            channel,
            unread: Cell::new(false),
            always_ready: Cell::new(false),
            ready_queued: Cell::new(false),
            undelivered: Cell::new(0),
            failure: RefCell::new(None),
            opener: Cell::new(opener.map(Box::new)),
            attached: Cell::new(attached),
        });
        if let Err(error) = event_loop.own(number, endpoint.clone()) {
            endpoint.close_fd();
            return Err(error);
        }
        event_loop.push(Ready::Io(endpoint.clone(), IoEvent::Made));
        Ok(endpoint)
    }

    fn this(&self) -> Rc<Self> {
        self.this.upgrade().expect("whoever calls it holds it")
    }

    fn event_loop(&self) -> Option<EventLoop> {
        self.event_loop.upgrade().map(EventLoop::from_inner)
    }

    fn wants_to_read(&self) -> bool {
        let reads = match self.kind {
            Kind::Socket | Kind::ReadPipe => !self.paused.get() && !self.read_ended.get(),
            Kind::WritePipe => self.channel && !self.unread.get(),
        };
        reads && self.started.get() && !self.closing.get() && !self.sending_file.get()
    }

    fn wants_to_write(&self) -> bool {
        !self.losing.get() && (self.wants_writable.get() || !self.buffer.borrow().is_empty())
    }

    /// Tells the selector what the descriptor is watched for now, if that has changed.
    fn update_interest(&self) {
        let Some(event_loop) = self.event_loop() else { return };
        let interest = Interest { readable: self.wants_to_read(), writable: self.wants_to_write() };
        if self.always_ready.get() {
            return self.be_ready(&event_loop, interest);
        }
        let watched = if self.unread.get() && self.started.get() && !self.closing.get() {
            event_loop.watch_owned_to_its_end(self.number, interest)
        } else {
            event_loop.watch_owned(self.number, interest)
        };
        match watched {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && self.kind != Kind::Socket => {
                self.always_ready.set(true);
                self.be_ready(&event_loop, interest);
            }
            Err(error) => self.force_close(Some(error.into())),
        }
    }

    /// What the selector would say of a descriptor that is always ready, such as `/dev/null`.
    fn be_ready(&self, event_loop: &EventLoop, interest: Interest) {
        if !interest.is_empty() && !self.ready_queued.replace(true) {
            event_loop.push(Ready::Io(self.this(), IoEvent::Ready { readable: true, writable: true }));
        }
    }

    fn made(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.losing.get() && self.calls.protocol().is_none() {
            return; // abandoned
        }
        // Before the call, which may give up the opening: it is to hear of the end, too, then.
        self.started.set(true);
        Calls::notify(self, event_loop, Notice::Made);
        if let Some(opener) = self.opener.take() {
            // It may be cancelled, and its owner has closed this transport then.
            let _ = opener.set_result(());
        }
        self.update_interest();
    }

    #[inline]
    fn ready(self: &Rc<Self>, event_loop: &EventLoop, readable: bool, writable: bool) {
        if readable && self.kind == Kind::WritePipe {
            self.look_for_hang_up();
        } else if readable && self.wants_to_read() {
            self.read(event_loop);
        }
        if writable && self.wants_to_write() {
            self.write_more(event_loop);
        }
        if self.always_ready.get() {
            self.ready_queued.set(false);
            self.update_interest();
        }
    }

    #[inline]
    fn read(self: &Rc<Self>, event_loop: &EventLoop) {
        let callback = Cell::new("data_received");
        let called = Calls::call(self, event_loop, |protocol| match protocol {
            // What it was told just before, late, has made it pause or close.
            _ if !self.wants_to_read() => Read::Nothing,
            BorrowedProtocol::Plain(protocol) => {
                let mut lent = self.buffers.lend();
                match self.receive(&mut lent.memory) {
                    Ok(0) => Read::End,
                    Ok(count) => {
                        protocol.data_received(&lent.memory[..count]);
                        Read::Data
                    }
                    Err(error) => Read::of(error),
                }
            }
            BorrowedProtocol::Buffered(protocol) => {
                callback.set("get_buffer");
                let memory = protocol.get_buffer(None);
                if memory.is_empty() {
                    return Read::NoRoom;
                }
                match self.receive(memory) {
                    Ok(0) => Read::End,
                    Ok(count) => {
                        callback.set("buffer_updated");
                        protocol.buffer_updated(count);
                        Read::Data
                    }
                    Err(error) => Read::of(error),
                }
            }
            BorrowedProtocol::Sink(sink) => match sink.readable(&mut |memory| self.receive(memory)) {
                Ok(0) => Read::End,
                Ok(_) => Read::Data,
                Err(error) => Read::of(error),
            },
        });
        if !matches!(called, Called::Borrowed) {
            self.undelivered.set(0);
        }
        match called {
            Called::Returned(Read::Data | Read::Nothing) | Called::Gone => {}
            Called::Returned(Read::End) => self.read_end(event_loop),
            Called::Returned(Read::Failed(error)) => self.read_failed(event_loop, error.into()),
            Called::Returned(Read::NoRoom) => {
                let error = Error::Runtime("get_buffer() returned an empty buffer".into());
                self.fatal(event_loop, "get_buffer", error);
            }
            Called::Panicked(error) => self.callback_failed(event_loop, callback.get(), error),
            Called::Borrowed => self.not_delivered(event_loop, "data_received"),
        }
    }

    fn read_end(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.closing.get() {
            return; // by get_buffer()
        }
        let called = Calls::call(self, event_loop, |protocol| {
            if self.kind == Kind::ReadPipe {
                self.closing.set(true); // nothing can keep it open
            }
            protocol.eof_received()
        });
        match called {
            Called::Returned(true) if self.kind == Kind::Socket => {
                self.read_ended.set(true);
                self.update_interest();
            }
            Called::Returned(_) | Called::Gone => self.end(),
            Called::Panicked(error) => {
                self.callback_failed(event_loop, "eof_received", error);
                self.end();
            }
            Called::Borrowed => self.not_delivered(event_loop, "eof_received"),
        }
    }

    /// Closes after the end of the input.
    fn end(&self) {
        if self.kind == Kind::ReadPipe { self.force_close(None) } else { self.close() }
    }

    /// A call of the protocol panicked. That is the end of a socket, and a pipe goes on.
    #[cold]
    fn callback_failed(&self, event_loop: &EventLoop, callback: &str, error: Error) {
        match self.kind {
            Kind::Socket => self.fatal(event_loop, callback, error),
            Kind::ReadPipe | Kind::WritePipe => {
                self.report(event_loop, format!("protocol.{callback}() failed"), error);
            }
        }
    }

    #[cold]
    fn fatal(&self, event_loop: &EventLoop, callback: &str, error: Error) {
        self.report(event_loop, format!("Fatal error: protocol.{callback}() call failed."), error.clone());
        self.force_close(Some(error));
    }

    /// A connection may break at any time; a pipe has no reason to.
    #[cold]
    fn read_failed(&self, event_loop: &EventLoop, error: Error) {
        if self.kind == Kind::ReadPipe {
            self.report(event_loop, "Fatal read error on pipe transport".to_owned(), error.clone());
        }
        self.force_close(Some(error));
    }

    /// Nothing was read, so nothing is lost by waiting; but not for ever, and the selector would spin.
    #[cold]
    fn not_delivered(&self, event_loop: &EventLoop, callback: &str) {
        self.undelivered.set(self.undelivered.get().saturating_add(1));
        if self.undelivered.get() < 2 {
            return;
        }
        let error = Error::Runtime("protocol is borrowed".into());
        self.report(event_loop, format!("Fatal error: protocol.{callback}() could not be called."), error.clone());
        self.force_close(Some(error));
    }

    fn receive(&self, memory: &mut [u8]) -> io::Result<usize> {
        let fd = self.fd.borrow();
        let Some(fd) = &*fd else { return Err(io::ErrorKind::WouldBlock.into()) };
        let count = match self.kind {
            Kind::Socket => socket::recv_into(fd.as_fd(), memory),
            Kind::ReadPipe | Kind::WritePipe => pipe::read(fd.as_fd(), memory),
        }?;
        if count > 0 {
            self.activity.set(self.activity.get().received());
        }
        Ok(count)
    }

    fn send(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let fd = self.fd.borrow();
        let Some(fd) = &*fd else { return Err(io::ErrorKind::WouldBlock.into()) };
        match (self.kind, pieces) {
            (Kind::Socket, [piece]) => socket::send(fd.as_fd(), piece),
            (Kind::Socket, _) => socket::send_vectored(fd.as_fd(), pieces),
            (Kind::ReadPipe | Kind::WritePipe, _) => pipe::write(fd.as_fd(), pieces),
        }
    }

    /// A write pipe is readable when nobody reads from it any more, or because something was sent to it: a socket, or a
    /// FIFO that is open for both. Then only the other is waited for.
    fn look_for_hang_up(&self) {
        if !self.channel || self.closing.get() {
            return;
        }
        let hung_up = self.fd.borrow().as_ref().is_some_and(|fd| socket::is_hung_up(fd.as_fd()));
        if !hung_up {
            self.unread.set(true);
            return self.update_interest();
        }
        let unwritten = !self.buffer.borrow().is_empty();
        self.force_close(unwritten.then(|| io::Error::from_raw_os_error(libc::EPIPE).into()));
    }

    /// Whether a write is to be done; a mistake is an error.
    #[inline]
    fn check_write(&self, call: &str) -> Result<bool> {
        if self.closing.get() {
            return Ok(false);
        }
        let mistake = if self.kind == Kind::ReadPipe {
            format!("{call}() is not supported: {} only reads", self.describe())
        } else if self.write_ended.get() {
            format!("Cannot call {call}() after write_eof()")
        } else if self.layered.get() {
            format!("Cannot call {call}() on {}: start_tls() has taken it over", self.describe())
        } else if self.sending_file.get() {
            format!("unable to {call}; sendfile is in progress")
        } else {
            return Ok(true);
        };
        Err(Error::Runtime(mistake.into()))
    }

    /// Sends what the system takes of `pieces` and keeps the rest; the protocol pauses for it unless there comes `more`.
    #[inline]
    fn put(&self, pieces: &[IoSlice<'_>], more: bool) {
        self.activity.set(self.activity.get().written());
        let mut sent = 0;
        if self.buffer.borrow().is_empty() {
            match self.send(pieces) {
                Ok(count) => sent = count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return self.force_close(Some(error.into())),
            }
            if sent == pieces.iter().map(|piece| piece.len()).sum::<usize>() {
                return;
            }
        }
        self.keep(pieces, sent, more);
    }

    /// Keeps what comes after the first `sent` bytes of `pieces`.
    fn keep(&self, pieces: &[IoSlice<'_>], mut sent: usize, more: bool) {
        let mut buffer = self.buffer.borrow_mut();
        for piece in pieces {
            let rest = &piece[sent.min(piece.len())..];
            sent -= piece.len() - rest.len();
            buffer.push(rest, &self.buffers.spares);
        }
        let size = buffer.len();
        drop(buffer);
        self.update_interest();
        // A file's bytes are no concern of the protocol's, which cannot write meanwhile anyway.
        if !more && !self.sending_file.get() {
            self.grown(size);
        }
    }

    /// Tells the protocol to pause if the buffer has grown too large.
    fn grown(&self, size: usize) {
        let mut flow = self.flow.get();
        let pauses = flow.grown(size);
        self.flow.set(flow);
        if pauses {
            self.notify(Notice::Pause);
        }
    }

    fn notify(&self, notice: Notice) {
        if let Some(event_loop) = self.event_loop() {
            Calls::notify(&self.this(), &event_loop, notice);
        }
    }

    fn write_more(self: &Rc<Self>, event_loop: &EventLoop) {
        if self.buffer.borrow().is_empty() {
            self.wants_writable.set(false);
            self.wake_drained();
            return self.update_interest();
        }
        let buffer = self.buffer.borrow();
        let pieces = buffer.pieces();
        let sent = self.send(if pieces[1].is_empty() { &pieces[..1] } else { &pieces });
        drop(buffer);
        let count = match sent {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return self.force_close(Some(error.into())),
        };
        let mut buffer = self.buffer.borrow_mut();
        buffer.consume(count, &self.buffers.spares);
        let size = buffer.len();
        drop(buffer);
        let mut flow = self.flow.get();
        let resumes = flow.shrunk(size);
        self.flow.set(flow);
        if resumes {
            Calls::notify(self, event_loop, Notice::Resume);
        }
        if self.buffer.borrow().is_empty() {
            self.all_written();
        }
    }

    /// Does what waited for the buffer to be empty.
    fn all_written(&self) {
        if self.closing.get() {
            self.lose(None);
        } else if self.write_ended.get() {
            self.shutdown_write();
        }
        self.wake_drained();
        if let Some(sink) = self.calls.protocol().and_then(AnyStreamProtocol::into_sink) {
            sink.all_written();
        }
        self.update_interest();
    }

    fn shutdown_write(&self) {
        if let Some(fd) = &*self.fd.borrow() {
            socket::shutdown_write(fd.as_fd());
        }
    }

    fn wake_drained(&self) {
        if let Some(waker) = self.drained.take() {
            wake(waker);
        }
    }

    /// Ends the connection at once, and drops what waits to be written.
    fn force_close(&self, error: Option<Error>) {
        if self.losing.get() {
            return;
        }
        self.buffer.borrow_mut().clear(&self.buffers.spares);
        self.closing.set(true);
        self.lose(error);
        self.update_interest();
    }

    /// Queues the last call of the protocol.
    fn lose(&self, error: Option<Error>) {
        if self.losing.replace(true) {
            return;
        }
        *self.failure.borrow_mut() = error;
        self.wake_drained();
        if let Some(event_loop) = self.event_loop() {
            event_loop.push(Ready::Io(self.this(), IoEvent::Lost));
        }
    }

    fn describe(&self) -> String {
        let state = if self.fd.borrow().is_none() {
            "closed "
        } else if self.closing.get() {
            "closing "
        } else {
            ""
        };
        let read = if self.wants_to_read() { "polling" } else { "idle" };
        let size = self.write_buffer_size();
        let write = if size > 0 { "polling" } else { "idle" };
        let name = match self.kind {
            Kind::Socket => "Transport",
            Kind::ReadPipe => "ReadPipeTransport",
            Kind::WritePipe => "WritePipeTransport",
        };
        format!("<{name} {state}fd={} read={read} write=<{write}, bufsize={size}>>", self.number)
    }

    fn local_address(&self) -> Option<Address> {
        let look = || self.fd.borrow().as_ref().and_then(|fd| socket::local_address(fd.as_fd()));
        self.local.get_or_init(look).clone()
    }

    /// Closes the descriptor.
    fn close_fd(&self) {
        if self.kind == Kind::Socket {
            let _ = self.local_address();
        } else if let Some(fd) = &*self.fd.borrow() {
            pipe::block_again(fd.as_fd());
        }
        // Where it is lent now, with_fd() comes here again.
        let fd = self.fd.try_borrow_mut().ok().and_then(|mut fd| fd.take());
        self.closed.set(true);
        drop(fd);
    }
}

impl Read {
    fn of(error: io::Error) -> Read {
        if error.kind() == io::ErrorKind::WouldBlock { Read::Nothing } else { Read::Failed(error) }
    }
}

impl IoHandler for StreamEndpoint {
    #[inline]
    fn run(self: Rc<Self>, event_loop: &EventLoop, event: IoEvent) {
        match event {
            IoEvent::Ready { readable, writable } => self.ready(event_loop, readable, writable),
            IoEvent::Made => self.made(event_loop),
            IoEvent::Lost => {
                let failure = self.failure.borrow().clone();
                Calls::notify(&self, event_loop, Notice::Lost(failure));
            }
            IoEvent::Retry => Calls::retry(&self, event_loop),
            IoEvent::TimedOut => {}
        }
    }

    #[inline]
    fn take_reader(&self) -> Option<Waker> {
        if self.wants_to_read() { self.calls.peek(AnyStreamProtocol::take_reader) } else { None }
    }

    fn discard(self: Rc<Self>) {
        if !self.closing.get() && self.event_loop().is_some_and(|event_loop| event_loop.get_debug()) {
            report::warning(&format!("ResourceWarning: unclosed transport {}", self.describe()));
        }
        self.closing.set(true);
        self.losing.set(true);
        self.buffer.borrow_mut().clear(&self.buffers.spares);
        self.close_fd();
        let left = (self.opener.take(), self.attached.take());
        self.wake_drained();
        if let Some(sink) = self.calls.protocol().and_then(AnyStreamProtocol::into_sink) {
            sink.discard();
        }
        self.calls.release();
        drop(left);
    }

    fn describe(&self) -> String {
        self.describe()
    }
}

impl Caller<AnyStreamProtocol> for StreamEndpoint {
    fn calls(&self) -> &Calls<AnyStreamProtocol> {
        &self.calls
    }

    fn transport(self: Rc<Self>) -> Transport {
        Transport(self)
    }

    fn number(&self) -> Option<RawFd> {
        Some(self.number)
    }

    fn ended(&self, event_loop: &EventLoop) -> bool {
        if self.calls.waits_for_layer() {
            return false;
        }
        event_loop.disown(self.number);
        self.close_fd();
        self.wake_drained();
        let opener = self.opener.take();
        if let Some((attached, key)) = self.attached.take() {
            attached.detach(key);
        }
        drop(opener);
        true
    }
}

impl RawTransport for StreamEndpoint {
    fn describe(&self) -> String {
        self.describe()
    }

    #[inline]
    fn write(&self, data: &[u8]) -> Result<()> {
        if self.check_write("write")? && !data.is_empty() {
            self.put(&[IoSlice::new(data)], false);
        }
        Ok(())
    }

    fn write_vectored(&self, pieces: &[IoSlice<'_>], more: bool) -> Result<()> {
        if !self.check_write("writelines")? {
            return Ok(());
        }
        if pieces.iter().any(|piece| !piece.is_empty()) {
            self.put(pieces, more);
        } else if !more {
            self.grown(self.write_buffer_size());
        }
        Ok(())
    }

    fn write_eof(&self) -> Result<()> {
        if self.kind == Kind::ReadPipe {
            return Err(Error::Runtime(format!("write_eof() is not supported by {}", self.describe()).into()));
        }
        if self.closing.get() || self.write_ended.get() {
            return Ok(());
        }
        self.check_write("write_eof")?;
        if self.kind == Kind::WritePipe {
            self.close();
            return Ok(());
        }
        self.write_ended.set(true);
        if self.buffer.borrow().is_empty() {
            self.shutdown_write();
        }
        Ok(())
    }

    fn can_write_eof(&self) -> bool {
        self.kind != Kind::ReadPipe
    }

    fn pause_reading(&self) {
        if !self.closing.get() && self.kind != Kind::WritePipe && !self.paused.replace(true) {
            self.update_interest();
        }
    }

    fn resume_reading(&self) {
        if !self.closing.get() && self.paused.replace(false) {
            self.update_interest();
        }
    }

    fn is_reading(&self) -> bool {
        let suspended = self.paused.get() || self.sending_file.get();
        !self.closing.get() && !suspended && self.kind != Kind::WritePipe
    }

    fn close(&self) {
        if self.closing.replace(true) {
            return;
        }
        if self.buffer.borrow().is_empty() {
            self.lose(None);
        }
        self.wake_drained();
        self.update_interest();
    }

    fn abort(&self) {
        self.force_close(None);
    }

    fn is_closing(&self) -> bool {
        self.closing.get()
    }

    fn standing(&self) -> Standing {
        let activity = self.activity.get();
        let writes = self.sending_file.get() || !self.buffer.borrow().is_empty();
        let waits = writes || self.paused.get() || !self.calls.is_at_rest();
        Standing { activity, unanswered: activity.is_unanswered(), waits }
    }

    fn extra_info(&self, name: ExtraName) -> Option<ExtraValue> {
        match (name, self.kind) {
            (ExtraName::PeerName, Kind::Socket) => Some(Box::new(self.peer.clone()?)),
            (ExtraName::SockName, Kind::Socket) => Some(Box::new(self.local_address()?)),
            (ExtraName::Socket, Kind::Socket) => Some(Box::new(self.number)),
            (ExtraName::Pipe, Kind::ReadPipe | Kind::WritePipe) => Some(Box::new(self.number)),
            _ => None,
        }
    }

    fn with_fd(&self, look: &mut dyn FnMut(BorrowedFd<'_>)) {
        if let Some(fd) = &*self.fd.borrow() {
            look(fd.as_fd());
        }
        if self.closed.get() {
            let fd = self.fd.try_borrow_mut().ok().and_then(|mut fd| fd.take());
            drop(fd);
        }
    }

    fn set_protocol(&self, protocol: AnyStreamProtocol) -> Result<()> {
        if self.layered.get() && !protocol.is_sink() && self.calls.protocol().is_some() {
            let text = format!("Cannot call set_protocol() on {}: start_tls() has taken it over", self.describe());
            return Err(Error::Runtime(text.into()));
        }
        self.calls.set_protocol(protocol);
        Ok(())
    }

    fn protocol(&self) -> Option<AnyStreamProtocol> {
        self.calls.protocol()
    }

    fn try_receive(&self, memory: &mut [u8]) -> io::Result<usize> {
        if self.kind == Kind::WritePipe || self.layered.get() || !self.wants_to_read() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        match self.receive(memory) {
            Ok(0) if !memory.is_empty() => {
                if let Some(event_loop) = self.event_loop() {
                    self.this().read_end(&event_loop);
                }
                Ok(0)
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                let error = Error::from(error);
                if let Some(event_loop) = self.event_loop() {
                    self.read_failed(&event_loop, error.clone());
                }
                Err(error.into())
            }
            received => received,
        }
    }

    fn write_buffer_size(&self) -> usize {
        self.buffer.borrow().len()
    }

    fn write_buffer_limits(&self) -> (usize, usize) {
        self.flow.get().limits()
    }

    fn set_write_buffer_limits(&self, high: Option<usize>, low: Option<usize>) -> Result<()> {
        let mut flow = self.flow.get();
        flow.set_limits(high, low)?;
        self.flow.set(flow);
        self.grown(self.write_buffer_size());
        Ok(())
    }

    fn is_write_paused(&self) -> bool {
        self.flow.get().is_paused()
    }

    #[cold]
    fn report_misuse(&self, call: &str, error: Error, location: &'static Location<'static>) {
        if let Some(event_loop) = self.event_loop() {
            self.report_mistake(&event_loop, call, error, location);
        }
    }

    fn sendfile_mode(&self) -> SendfileMode {
        match self.kind {
            Kind::Socket => SendfileMode::TryNative,
            Kind::ReadPipe | Kind::WritePipe => SendfileMode::Unsupported,
        }
    }

    fn begin_sendfile(&self) -> Result<()> {
        if self.closing.get() {
            return Err(Error::Runtime("Transport is closing".into()));
        }
        self.check_write("sendfile")?;
        self.sending_file.set(true);
        self.update_interest();
        Ok(())
    }

    fn end_sendfile(&self) {
        self.activity.set(self.activity.get().written());
        self.sending_file.set(false);
        self.wants_writable.set(false);
        drop(self.drained.take());
        // After the end the number may be another's.
        if !self.closing.get() {
            self.update_interest();
            self.grown(self.write_buffer_size());
        }
    }

    fn poll_drained(&self, writable: bool, waker: &Waker) -> Poll<Result<()>> {
        if self.closing.get() {
            let failure = self.failure.borrow().clone();
            return Poll::Ready(Err(failure.unwrap_or_else(|| {
                let error = io::Error::from(io::ErrorKind::ConnectionAborted);
                Error::io(error, "the transport was closed while a file was sent")
            })));
        }
        if !writable && self.buffer.borrow().is_empty() {
            return Poll::Ready(Ok(()));
        }
        drop(self.drained.replace(Some(waker.clone())));
        if writable && !self.wants_writable.replace(true) {
            self.update_interest();
        }
        Poll::Pending
    }

    fn wake_drained(&self) {
        self.wake_drained();
    }

    fn fail(&self, error: Error) {
        self.force_close(Some(error));
    }

    fn begin_layer(&self) -> Result<bool> {
        if self.kind != Kind::Socket {
            return Err(Error::Value(format!("start_tls() is not supported by {}", self.describe()).into()));
        }
        if self.closing.get() {
            return Err(Error::Runtime("start_tls() on a transport that is closing".into()));
        }
        self.check_write("start_tls")?;
        if self.calls.is_unmade() {
            return Err(Error::Runtime("start_tls() before the protocol knows of its connection".into()));
        }
        self.layered.set(true);
        // The layer has to hear of the end by itself.
        self.read_ended.set(false);
        self.update_interest();
        Ok(self.calls.was_told_to_pause(self.is_write_paused()))
    }

    fn hand_on(&self, layer: Transport) {
        if let Some((attached, key)) = self.attached.take() {
            attached.replace(key, layer);
            self.attached.set(Some((attached, key)));
        }
    }

    fn layer_ended(&self) {
        let Some(event_loop) = self.event_loop() else { return };
        if self.losing.get() && self.ended(&event_loop) {
            self.calls.release();
        }
    }

    fn write_for_layer(&self, pieces: &[IoSlice<'_>], more: bool) -> Result<()> {
        if self.closing.get() {
            return Ok(());
        }
        if !pieces.is_empty() {
            self.put(pieces, more);
        } else if !more {
            self.grown(self.write_buffer_size());
        }
        Ok(())
    }

    fn abandon(&self) {
        if self.started.get() {
            return self.force_close(None);
        }
        let Some(event_loop) = self.event_loop() else { return };
        self.closing.set(true);
        self.losing.set(true);
        if self.ended(&event_loop) {
            // Last, for the drop of a protocol is other people's code.
            self.calls.release();
        }
    }
}
