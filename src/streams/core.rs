//! A stream itself, as its loop keeps it: what its two halves share.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::{Rc, Weak},
    sync::atomic::{AtomicU64, Ordering},
    task::{Context as Cx, Poll, Waker},
};

use crate::{
    constants::READ_BUFFER,
    error::{Error, Result},
    event_loop::{EventLoop, running::WeakLoop, waiters::wake},
    future::Future,
    streams::buffer::{Attempt, ReadBuffer, Request},
    transport::{Transport, buffers::IoBuffers, pull_sink::PullSink},
};

#[cfg(feature = "tls")]
use crate::transport::protocol::AnyStreamProtocol;

/// The least that is received at once into the buffer, in bytes.
const LEAST: usize = 4 << 10;

/// The halves of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Reader,
    Writer,
    /// In the writer's place, where a reader is fed by hand.
    Feeder,
}

/// What became of a connection.
#[derive(Clone, Debug)]
enum State {
    Open,
    /// `set_protocol` gave the transport to somebody else.
    Detached,
    /// Its transport has told of the end.
    Lost(Option<Error>),
}

pub(super) struct StreamCore {
    this: Weak<StreamCore>,
    /// Which no other stream has.
    pub(super) number: u64,
    event_loop: WeakLoop,
    buffers: Rc<IoBuffers>,
    /// `None` before the connection stands, and for a reader that is fed by hand.
    transport: RefCell<Option<Transport>>,
    buffer: RefCell<ReadBuffer>,
    /// Who waits for something to read.
    reader: Cell<Option<Waker>>,
    /// Whether the transport may have something to receive. Set when it says so, cleared when it had nothing more.
    readable: Cell<bool>,
    /// How many bytes may still be received before the transport says so again: others want their turn, too.
    allowance: Cell<usize>,
    /// Set where the other side ended without saying so, as TLS does; never cleared.
    truncated: Cell<bool>,
    /// Set while a handshake over the transport runs.
    pub(super) upgrading: Cell<bool>,
    /// Set by pause_writing(), cleared by resume_writing() and by the end.
    writing_paused: Cell<bool>,
    state: RefCell<State>,
    /// Those who wait for the transport to take more, as coroutines and as wakers.
    drains: RefCell<Vec<Future<()>>>,
    writers: RefCell<Vec<Waker>>,
    /// Those who wait for the end.
    closes: RefCell<Vec<Future<()>>>,
    /// Which halves are gone.
    reader_gone: Cell<bool>,
    writer_gone: Cell<bool>,
    /// Called once, when the connection stands.
    connected: Cell<Option<Connected>>,
}

/// What is done when a connection stands.
pub(super) type Connected = Box<dyn FnOnce(&EventLoop, Rc<StreamCore>)>;

impl StreamCore {
    pub(super) fn new(event_loop: &EventLoop, limit: usize) -> Rc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Rc::new_cyclic(|this| StreamCore {
            this: this.clone(),
            number: LAST.fetch_add(1, Ordering::Relaxed),
            event_loop: Rc::downgrade(&event_loop.inner),
            buffers: IoBuffers::of(event_loop),
            transport: RefCell::new(None),
            buffer: RefCell::new(ReadBuffer::new(limit)),
            reader: Cell::new(None),
            readable: Cell::new(false),
            allowance: Cell::new(0),
            truncated: Cell::new(false),
            upgrading: Cell::new(false),
            writing_paused: Cell::new(false),
            state: RefCell::new(State::Open),
            drains: RefCell::default(),
            writers: RefCell::default(),
            closes: RefCell::default(),
            reader_gone: Cell::new(true),
            writer_gone: Cell::new(true),
            connected: Cell::new(None),
        })
    }

    /// Has `connected` called when the connection stands.
    pub(super) fn on_connected(&self, connected: Connected) {
        self.connected.set(Some(connected));
    }

    /// Somebody has this half now.
    pub(super) fn hold(&self, half: Half) {
        self.gone(half).set(false);
    }

    /// Whether nobody has a half any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.reader_gone.get() && self.writer_gone.get()
    }

    fn gone(&self, half: Half) -> &Cell<bool> {
        match half {
            Half::Reader => &self.reader_gone,
            Half::Writer | Half::Feeder => &self.writer_gone,
        }
    }

    /// Nobody has this half any more.
    pub(super) fn release(&self, half: Half) {
        self.gone(half).set(true);
        match half {
            Half::Reader => {
                self.unpark();
                if self.is_open() && !self.writer_gone.get() {
                    return self.pause_if_unread();
                }
            }
            Half::Writer => {}
            Half::Feeder => {
                self.feed_eof();
                return self.forget_transport(); // which may be another protocol's now
            }
        }
        // Nobody writes, and nobody closes it any more.
        if let Some(transport) = self.transport().filter(|_| self.is_open()) {
            transport.close();
        }
    }

    pub(super) fn event_loop(&self) -> Option<EventLoop> {
        self.event_loop.upgrade().map(EventLoop::from_inner)
    }

    /// `None` before the connection stands, and for a reader that is fed by hand.
    pub(super) fn transport(&self) -> Option<Transport> {
        self.transport.borrow().clone()
    }

    pub(super) fn set_transport(&self, transport: &Transport) {
        self.readable.set(false);
        let before = self.transport.replace(Some(transport.clone()));
        drop(before);
    }

    /// Has no part in the transport any more.
    fn forget_transport(&self) {
        let before = self.transport.take();
        drop(before);
    }

    /// Whether the transport's protocol is this stream.
    #[cfg(feature = "tls")]
    pub(super) fn is_told_by(&self, transport: &Transport) -> bool {
        let Some(this) = self.this.upgrade() else { return false };
        let ours = AnyStreamProtocol::of_sink(this);
        transport.0.protocol().is_some_and(|protocol| protocol.is_same_sink(&ours))
    }

    fn is_open(&self) -> bool {
        matches!(&*self.state.borrow(), State::Open)
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(&*self.state.borrow(), State::Lost(_))
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&mut ReadBuffer) -> R) -> R {
        look(&mut self.buffer.borrow_mut())
    }

    /// Leaves where it is what nobody will read. During a handshake, which reads itself, that comes later.
    pub(super) fn pause_if_unread(&self) {
        if self.reader_gone.get() && !self.upgrading.get() {
            self.pause_reading();
        }
    }

    fn pause_reading(&self) {
        if let Some(transport) = self.transport() {
            transport.pause_reading();
        }
    }

    fn resume_reading(&self) {
        if let Some(transport) = self.transport().filter(|_| self.is_open()) {
            transport.resume_reading();
        }
    }

    /// Takes away the first `count` bytes, which have been copied.
    pub(super) fn consume(&self, count: usize) {
        self.buffer.borrow_mut().consume(count);
        self.go_on_if_little_is_left();
    }

    #[inline]
    fn go_on_if_little_is_left(&self) {
        let resumes = self.buffer.borrow_mut().resumes();
        if resumes {
            self.resume_reading();
        }
    }

    /// Adds what was received.
    pub(super) fn feed(&self, data: &[u8]) {
        let pauses = self.buffer.borrow_mut().feed(data);
        if pauses {
            self.pause_reading();
        }
        self.wake_reader();
    }

    pub(super) fn feed_eof(&self) {
        self.buffer.borrow_mut().feed_eof();
        self.wake_reader();
    }

    pub(super) fn set_exception(&self, error: Error) {
        self.buffer.borrow_mut().set_exception(error);
        self.wake_reader();
    }

    fn wake_reader(&self) {
        if let Some(reader) = self.reader.take() {
            wake(reader);
        }
    }

    /// Waits for something to read.
    fn park(&self, cx: &Cx<'_>) {
        let mut buffer = self.buffer.borrow_mut();
        let resumes = buffer.resumes_for_more();
        buffer.rest();
        drop(buffer);
        let before = self.reader.replace(Some(cx.waker().clone()));
        drop(before);
        if resumes {
            self.resume_reading();
        }
    }

    /// Whether somebody waits for something to read.
    pub(super) fn has_reader(&self) -> bool {
        let reader = self.reader.take();
        let waits = reader.is_some();
        self.reader.set(reader);
        waits
    }

    /// Nobody waits any more.
    pub(super) fn unpark(&self) {
        let reader = self.reader.take();
        drop(reader);
    }

    /// Whether nothing more can come, and why.
    fn check_source(&self) -> Result<()> {
        if let State::Detached = &*self.state.borrow() {
            let text = "the stream reads no more: set_protocol() gave its transport to another protocol";
            return Err(Error::Runtime(text.into()));
        }
        Ok(())
    }

    /// Tries to fulfil a request, and waits for more where it cannot be.
    #[inline]
    pub(super) fn poll_request<R: Request>(&self, request: &mut R, cx: &Cx<'_>) -> Poll<Result<R::Output>> {
        loop {
            let attempt = request.attempt(&mut self.buffer.borrow_mut());
            if let Attempt::Done(outcome) = attempt {
                self.go_on_if_little_is_left();
                return Poll::Ready(outcome);
            }
            self.check_source()?;
            if !self.receive_more(request) {
                self.park(cx);
                return Poll::Pending;
            }
        }
    }

    /// Receives into the buffer, if the transport has something; whether it is worth another attempt.
    fn receive_more<R: Request>(&self, request: &R) -> bool {
        if !self.readable.get() {
            return false;
        }
        let Some(transport) = self.transport() else { return false };
        let (held, limit) = self.look(|buffer| (buffer.len(), buffer.limit()));
        // Not more than may be held without a pause, unless that much is asked for.
        let room = limit.saturating_mul(2).saturating_sub(held).max(LEAST);
        // And not less than many small reads share: each would be a system call of its own.
        let wanted = request.wants(held).max(LEAST);
        let most = if held > limit { READ_BUFFER } else { room }.min(wanted).min(READ_BUFFER);
        let mut lent = self.buffers.lend();
        let memory = &mut lent.memory[..most];
        match transport.0.try_receive(memory) {
            Ok(count) => {
                self.received(count, most);
                self.feed(&memory[..count]);
                // At the end of the input the transport has said so.
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable.set(false);
                false
            }
            Err(error) => {
                self.readable.set(false);
                self.set_exception(error.into());
                true
            }
        }
    }

    /// The transport has something to receive.
    #[inline]
    fn may_receive(&self) {
        self.readable.set(true);
        self.allowance.set(READ_BUFFER);
    }

    /// It gave `count` bytes where `most` were asked for: less is all it had.
    #[inline]
    fn received(&self, count: usize, most: usize) {
        let left = self.allowance.get().saturating_sub(count);
        self.allowance.set(left);
        self.readable.set(count == most && left > 0);
    }

    /// Reads into the caller's memory: what was received before, else from the transport.
    #[inline]
    pub(super) fn poll_read(&self, memory: &mut [u8], cx: &Cx<'_>) -> Poll<io::Result<usize>> {
        loop {
            if let Some(outcome) = self.read_received(memory) {
                return Poll::Ready(outcome);
            }
            if !self.readable.get() {
                self.check_source()?;
                self.park(cx);
                return Poll::Pending;
            }
            self.readable.set(false);
            let Some(transport) = self.transport() else { continue };
            match transport.0.try_receive(memory) {
                Ok(0) => {} // the transport has said so
                Ok(count) => {
                    self.received(count, memory.len());
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// What was received before, the end, or the failure; `None` if there is nothing.
    fn read_received(&self, memory: &mut [u8]) -> Option<io::Result<usize>> {
        let buffer = self.buffer.borrow_mut();
        if let Some(error) = buffer.exception() {
            return Some(Err(error.clone().into()));
        }
        if memory.is_empty() {
            return Some(Ok(0));
        }
        if buffer.is_empty() {
            return buffer.is_ended().then(|| self.check_end().map(|()| 0));
        }
        let count = memory.len().min(buffer.len());
        memory[..count].copy_from_slice(&buffer.bytes()[..count]);
        drop(buffer);
        self.consume(count);
        Some(Ok(count))
    }

    /// What the end of the input is to those who can tell: bytes may be missing where it was not said.
    fn check_end(&self) -> io::Result<()> {
        if self.truncated.get() {
            let text = "the other side ended the connection without closing TLS";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(())
    }

    /// Waits until there is something in the buffer; at the end there is nothing.
    pub(super) fn poll_fill(&self, cx: &Cx<'_>) -> Poll<io::Result<()>> {
        match self.poll_request(&mut Filled, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(true)) => Poll::Ready(Ok(())),
            Poll::Ready(Ok(false)) => Poll::Ready(self.check_end()),
        }
    }

    /// Lends what there is to `take`, which says how much of it it took: at most `most` bytes, none at the end.
    #[cfg(any(feature = "hyper", feature = "tokio-compat"))]
    pub(super) fn poll_lend(&self, most: usize, cx: &Cx<'_>, take: impl FnOnce(&[u8])) -> Poll<io::Result<()>> {
        let mut lent = self.buffers.lend();
        let memory = &mut lent.memory[..most.min(READ_BUFFER)];
        self.poll_read(memory, cx).map_ok(|count| take(&memory[..count]))
    }

    /// Whether there is no room now, for which the waker waits; an error if there will be none.
    pub(super) fn poll_writable(&self, cx: &Cx<'_>) -> Poll<io::Result<Transport>> {
        let transport = self.check_writable()?;
        if self.writing_paused.get() {
            self.wait_to_write(cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(transport))
    }

    /// Waits until all that was written has gone.
    pub(super) fn poll_flushed(&self, cx: &Cx<'_>) -> Poll<io::Result<()>> {
        if let State::Lost(error) = &*self.state.borrow() {
            return Poll::Ready(error.clone().map_or(Ok(()), |error| Err(error.into())));
        }
        // Of what is another protocol's nothing more is heard.
        let transport = self.transport().filter(|_| self.is_open());
        if transport.is_some_and(|transport| transport.get_write_buffer_size() > 0) {
            self.wait_to_write(cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn wait_to_write(&self, cx: &Cx<'_>) {
        let is_known = self.writers.borrow().iter().any(|known| known.will_wake(cx.waker()));
        if !is_known {
            let waker = cx.waker().clone();
            self.writers.borrow_mut().push(waker);
        }
    }

    fn check_writable(&self) -> io::Result<Transport> {
        if let State::Lost(error) = &*self.state.borrow() {
            return Err(error.clone().map_or_else(connection_lost, io::Error::from));
        }
        let transport = self.transport().ok_or_else(connection_lost)?;
        if transport.is_closing() { Err(connection_lost()) } else { Ok(transport) }
    }

    /// asyncio: what `drain` raises at once; whether it has to wait.
    pub(super) fn check_drain(&self) -> Result<bool> {
        if let State::Lost(_) = &*self.state.borrow() {
            return Err(connection_lost().into());
        }
        Ok(self.writing_paused.get())
    }

    /// Joins those who wait for the transport to take more.
    pub(super) fn wait_to_drain(&self) -> Result<Waiting> {
        self.join(&self.drains)
    }

    /// Joins those who wait for the end; `None` if it has come.
    pub(super) fn wait_closed(&self) -> Result<Option<Waiting>> {
        match &*self.state.borrow() {
            State::Lost(None) | State::Detached => return Ok(None),
            State::Lost(Some(error)) => return Err(error.clone()),
            State::Open => {}
        }
        self.join(&self.closes).map(Some)
    }

    fn join(&self, waiters: &RefCell<Vec<Future<()>>>) -> Result<Waiting> {
        let event_loop = self.event_loop().ok_or_else(|| Error::Runtime("Event loop is closed".into()))?;
        let waiter = event_loop.create_future();
        let mut waiters = waiters.borrow_mut();
        // Those that were given up.
        waiters.retain(|waiter| !waiter.done());
        waiters.push(waiter.clone());
        Ok(Waiting(waiter))
    }

    fn wake_writers(&self) {
        self.writers.take().into_iter().for_each(wake);
    }
}

/// One of those who wait.
pub(super) struct Waiting(Future<()>);

impl Waiting {
    pub(super) async fn wait(self) -> Result<()> {
        (&self.0).await
    }
}

impl Drop for Waiting {
    /// Where it was given up, nobody is to be told, and nobody is to miss an error.
    fn drop(&mut self) {
        self.0.cancel();
    }
}

pub(super) fn connection_lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "Connection lost")
}

/// Completes those who wait; one that was given up is not changed by it.
fn complete(waiters: Vec<Future<()>>, error: Option<&Error>) {
    for waiter in waiters {
        let _ = match error {
            None => waiter.set_result(()),
            Some(error) => waiter.set_exception(error.clone()),
        };
    }
}

/// Something to take: whether there is.
struct Filled;

impl Request for Filled {
    type Output = bool;

    fn attempt(&mut self, buffer: &mut ReadBuffer) -> Attempt<bool> {
        match buffer.exception() {
            Some(error) => Attempt::Done(Err(error.clone())),
            None if buffer.is_empty() && !buffer.is_ended() => Attempt::Starved,
            None => Attempt::Done(Ok(!buffer.is_empty())),
        }
    }

    fn wants(&self, _held: usize) -> usize {
        usize::MAX
    }
}

impl PullSink for StreamCore {
    fn connection_made(&self, transport: &Transport) {
        self.set_transport(transport);
        let (Some(connected), Some(event_loop)) = (self.connected.take(), self.event_loop()) else { return };
        connected(&event_loop, self.this.upgrade().expect("its transport holds it"));
    }

    fn take_reader(&self) -> Option<Waker> {
        let reader = self.reader.take()?;
        self.may_receive();
        Some(reader)
    }

    fn readable(&self, receive: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let mut lent = self.buffers.lend();
        let count = receive(&mut lent.memory)?;
        self.readable.set(false);
        if count > 0 {
            self.feed(&lent.memory[..count]);
        }
        Ok(count)
    }

    fn data_received(&self, data: &[u8]) -> usize {
        self.feed(data);
        data.len()
    }

    fn eof_received(&self) -> bool {
        self.truncated.set(self.transport().is_some_and(|transport| transport.0.is_truncated()));
        self.feed_eof();
        true
    }

    fn connection_lost(&self, error: Option<&Error>) {
        self.readable.set(false);
        self.writing_paused.set(false);
        self.state.replace(State::Lost(error.cloned()));
        match error {
            None => self.feed_eof(),
            Some(error) => self.set_exception(error.clone()),
        }
        complete(self.closes.take(), error);
        complete(self.drains.take(), error);
        self.wake_writers();
        let connected = self.connected.take();
        drop(connected);
    }

    fn has_ended(&self) -> bool {
        true
    }

    fn pause_writing(&self) {
        self.writing_paused.set(true);
    }

    fn resume_writing(&self) {
        self.writing_paused.set(false);
        complete(self.drains.take(), None);
        self.wake_writers();
    }

    fn all_written(&self) {
        self.wake_writers();
    }

    fn detached(&self) {
        if self.is_open() {
            // Whoever comes after us does not know that it was paused by us.
            if self.look(ReadBuffer::resumes_for_more) || self.reader_gone.get() {
                self.resume_reading();
            }
            self.state.replace(State::Detached);
            self.readable.set(false);
            self.resume_writing();
            complete(self.closes.take(), None);
            self.wake_reader();
        }
    }

    fn is_at_rest(&self) -> bool {
        let reader = self.reader.take();
        let waits = reader.is_some();
        self.reader.set(reader);
        waits && self.buffer.borrow().is_empty()
    }

    fn discard(&self) {
        let closed = Error::Runtime("Event loop is closed".into());
        self.state.replace(State::Lost(Some(closed)));
        let left = (self.connected.take(), self.reader.take(), self.writers.take(), self.transport.take());
        drop(left);
        drop((self.drains.take(), self.closes.take()));
    }

    fn type_name(&self) -> &'static str {
        "StreamReaderProtocol"
    }
}
