//! TLS as what a transport calls: it takes what the transport under it has received, and calls the protocol over it.

use std::{
    cell::{Cell, OnceCell, RefCell},
    io::{self, IoSlice},
    os::fd::RawFd,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use crate::{
    constants::{ENCRYPTED_AT_ONCE, HIGH_WATER_SSL},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        owned::{IoEvent, IoHandler},
        running::WeakLoop,
        timers::TimerKey,
        turn::TimerEntry,
    },
    future::Future,
    sys::addr::Address,
    tls::{
        context::TlsOptions,
        session::{Processed, Session},
        state::Phase,
    },
    transport::{
        Transport,
        buffers::IoBuffers,
        calls::{Caller, Calls, Notice},
        extra_info::{PEERNAME, SOCKET},
        protocol::AnyStreamProtocol,
        pull_sink::PullSink,
    },
};

/// TLS over a transport.
pub(crate) struct TlsTransport {
    this: Weak<TlsTransport>,
    event_loop: WeakLoop,
    /// The one under it. It holds this as its protocol until it has ended.
    inner: OnceCell<Transport>,
    /// Never borrowed while a protocol is called. What a configuration of rustls was given by others (verifiers, key logs)
    /// runs inside of it.
    pub(super) session: RefCell<Box<dyn Session>>,
    pub(super) options: TlsOptions,
    pub(super) calls: Calls<AnyStreamProtocol>,
    pub(super) buffers: Rc<IoBuffers>,
    pub(super) phase: Cell<Phase>,
    /// Whether the protocol knows of its connection.
    made: Cell<bool>,
    /// Set by pause_reading(), cleared by resume_reading().
    pub(super) paused: Cell<bool>,
    /// Set while a file is sent: nobody else writes, and nothing is read.
    pub(super) sending_file: Cell<bool>,
    /// Whether the protocol has been told to pause writing.
    pub(super) writing_paused: Cell<bool>,
    /// Set when the other side said that it sends no more; never cleared.
    pub(super) close_notify: Cell<bool>,
    /// Set at the end of the input, said or not; never cleared.
    pub(super) input_ended: Cell<bool>,
    /// Whether the protocol has been told of it.
    end_told: Cell<bool>,
    /// Set when the protocol has been told that the connection is over, or never will be; never cleared.
    over: Cell<bool>,
    /// Set when a layer has taken this over: nobody else writes. Never cleared.
    pub(super) layered: Cell<bool>,
    /// What was decrypted and not delivered yet.
    pub(super) undelivered: RefCell<Vec<u8>>,
    /// Whether something was delivered since the protocol wrote last.
    pub(super) unanswered: Cell<bool>,
    /// Whether a delivery of it is queued.
    pub(super) delivery_queued: Cell<bool>,
    /// How often in a row nothing could be delivered because somebody held the protocol.
    pub(super) attempts: Cell<u8>,
    /// Of the handshake or the shutdown, with its deadline.
    timer: Cell<Option<(TimerKey, Instant)>>,
    /// Set where the close alert, and nothing before it, could not be written; never cleared.
    left_alone: Cell<bool>,
    /// How much waited to be written when the timer of the shutdown was set.
    unwritten: Cell<usize>,
    /// Boxed, for few connections have one, and not for long.
    opener: Cell<Option<Box<Future<()>>>>,
}

impl TlsTransport {
    /// TLS for a `protocol` that hears of its connection when the handshake is over, which also completes the `opener`.
    /// [`lay_over`](Self::lay_over) comes next.
    pub(crate) fn new(
        event_loop: &EventLoop,
        options: TlsOptions,
        protocol: AnyStreamProtocol,
        opener: Option<Future<()>>,
    ) -> Result<Rc<Self>> {
        let session = options.session()?;
        Ok(Rc::new_cyclic(|this| TlsTransport {
            this: this.clone(),
            event_loop: Rc::downgrade(&event_loop.inner),
            inner: OnceCell::new(),
            session: RefCell::new(session),
            options,
            calls: Calls::new(event_loop, protocol),
            buffers: IoBuffers::of(event_loop),
            phase: Cell::new(Phase::Handshake),
            made: Cell::new(false),
            paused: Cell::new(false),
            sending_file: Cell::new(false),
            writing_paused: Cell::new(false),
            close_notify: Cell::new(false),
            input_ended: Cell::new(false),
            end_told: Cell::new(false),
            over: Cell::new(false),
            layered: Cell::new(false),
            undelivered: RefCell::default(),
            unanswered: Cell::new(false),
            delivery_queued: Cell::new(false),
            attempts: Cell::new(0),
            timer: Cell::new(None),
            left_alone: Cell::new(false),
            unwritten: Cell::new(0),
            opener: Cell::new(opener.map(Box::new)),
        }))
    }

    /// Goes over `inner`, which calls it from its [`connection_made`](PullSink::connection_made) on.
    pub(crate) fn lay_over(&self, inner: Transport) -> Result<()> {
        inner.0.begin_layer()?;
        self.inner.set(inner).unwrap_or_else(|_| unreachable!("it is laid over one transport"));
        self.inner().0.set_write_buffer_limits(Some(HIGH_WATER_SSL), None)
    }

    /// As [`lay_over`](Self::lay_over) for a transport that its protocol knows already: it takes its place there.
    /// [`start`](Self::start) comes next.
    pub(crate) fn take_over(self: &Rc<Self>, inner: Transport) -> Result<()> {
        self.writing_paused.set(inner.0.begin_layer()?);
        self.inner.set(inner.clone()).unwrap_or_else(|_| unreachable!("it is laid over one transport"));
        self.made.set(true);
        inner.0.set_protocol(AnyStreamProtocol::of_sink(self.clone()))?;
        inner.0.hand_on(Transport(self.clone()));
        // Now that it is this who is told to pause, and can tell to go on.
        inner.0.set_write_buffer_limits(Some(HIGH_WATER_SSL), None)
    }

    /// Begins the handshake with what was `buffered` over the transport under it.
    pub(crate) fn start(&self, buffered: &[u8]) {
        self.begin();
        let mut left = buffered;
        while !left.is_empty() && self.phase.get() != Phase::Ended && !self.inner().is_closing() {
            let taken = self.readable(&mut |memory| {
                let count = left.len().min(memory.len());
                memory[..count].copy_from_slice(&left[..count]);
                Ok(count)
            });
            left = &left[taken.unwrap_or(left.len())..];
        }
        self.inner().resume_reading();
    }

    /// Begins the handshake.
    fn begin(&self) {
        if self.phase.get() != Phase::Handshake {
            return; // given up
        }
        self.set_timer(self.options.handshake_timeout);
        let mut outgoing = Vec::new();
        let processed = self.session.borrow_mut().process(&mut [], &mut [], &mut outgoing);
        self.send(&outgoing);
        self.go_on(processed);
    }

    pub(super) fn this(&self) -> Rc<Self> {
        self.this.upgrade().expect("whoever calls it holds it")
    }

    pub(super) fn event_loop(&self) -> Option<EventLoop> {
        self.event_loop.upgrade().map(EventLoop::from_inner)
    }

    pub(super) fn inner(&self) -> &Transport {
        self.inner.get().expect("it lies over a transport before anybody calls it")
    }

    /// The session, for what it knows; `None` from inside of it.
    pub(super) fn look<R>(&self, look: impl FnOnce(&dyn Session) -> R) -> Option<R> {
        self.session.try_borrow().ok().map(|session| look(&**session))
    }

    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase.get(), Phase::Closing | Phase::Ended) || self.inner().is_closing()
    }

    /// Whether what was decrypted may be delivered.
    pub(super) fn delivers(&self) -> bool {
        let suspended = self.paused.get() || self.sending_file.get();
        self.phase.get() == Phase::Open && !suspended && !self.inner().is_closing()
    }

    /// Lets the transport under it receive, or not: while it is not known what to do with it, it stays where it is.
    pub(super) fn update_reading(&self) {
        let reads = match self.phase.get() {
            Phase::Handshake | Phase::Closing => true,
            Phase::Open => self.delivers() && !self.input_ended.get() && self.undelivered.borrow().is_empty(),
            Phase::Ended => return,
        };
        if reads { self.inner().resume_reading() } else { self.inner().pause_reading() }
    }

    fn set_timer(&self, delay: Duration) {
        let Some(event_loop) = self.event_loop() else { return };
        self.stop_timer();
        let deadline = event_loop.deadline_in(delay);
        let timer = event_loop.insert_timer(deadline, TimerEntry::Io(self.this(), IoEvent::TimedOut));
        self.timer.set(Some((timer, deadline)));
    }

    fn stop_timer(&self) {
        let (Some((timer, _)), Some(event_loop)) = (self.timer.take(), self.event_loop()) else { return };
        let entry = event_loop.inner.timers.borrow_mut().remove(timer);
        drop(entry);
    }

    fn timed_out(&self, event_loop: &EventLoop) {
        // It may have been stopped, and another one set, when it was on its way already.
        if self.timer.get().is_none_or(|(_, deadline)| event_loop.time() < deadline) {
            return;
        }
        self.timer.set(None);
        match self.phase.get() {
            Phase::Handshake => {
                let limit = self.options.handshake_timeout.as_secs_f64();
                let text = format!("SSL handshake is taking longer than {limit} seconds: aborting the connection");
                self.break_off(Error::io(io::ErrorKind::ConnectionAborted.into(), self.with_peer(&text)));
            }
            Phase::Closing => {
                let before = self.unwritten.replace(self.inner().get_write_buffer_size());
                if self.unwritten.get() < before {
                    // The other side is slow, not gone.
                    return self.set_timer(self.options.shutdown_timeout);
                }
                self.break_off(Error::Timeout("SSL shutdown timed out".into()));
            }
            Phase::Open | Phase::Ended => {}
        }
    }

    /// Ends the connection with what the session found.
    pub(super) fn session_failed(&self, error: Error) {
        let error = match (self.phase.get(), error) {
            (Phase::Handshake, Error::Ssl(text)) => {
                Error::Ssl(self.with_peer(&format!("TLS handshake failed: {text}")).into())
            }
            (_, Error::Ssl(text)) => Error::Ssl(self.with_peer(&text).into()),
            (_, error) => error,
        };
        self.break_off(error);
    }

    /// Ends the connection with an error, which goes to whoever waits for it or to the protocol.
    pub(super) fn break_off(&self, error: Error) {
        self.undelivered.borrow_mut().clear();
        self.inner().0.fail(error);
    }

    /// Adds to a text whom it is about.
    fn with_peer(&self, text: &str) -> String {
        let name = self.look(|session| session.server_hostname()).flatten();
        let address = self.inner().get_extra_info(PEERNAME).filter(|address| *address != Address::Unnamed);
        match (name, address) {
            (Some(name), Some(address)) => format!("{text} [{name}, {address}]"),
            (Some(name), None) => format!("{text} [{name}]"),
            (None, Some(address)) => format!("{text} [{address}]"),
            (None, None) => text.to_owned(),
        }
    }

    /// Hands to the transport under it what the session wants to be sent.
    pub(super) fn send(&self, outgoing: &[u8]) {
        if !outgoing.is_empty() {
            // It is silent once it is closing, and has no other reason.
            let _ = self.inner().0.write_for_layer(&[IoSlice::new(outgoing)], true);
        }
    }

    /// Does what follows from what was received.
    pub(super) fn go_on(&self, processed: Processed) {
        let Some(event_loop) = self.event_loop() else { return };
        if let Err(error) = processed.outcome {
            return self.session_failed(error);
        }
        if processed.closed {
            self.close_notify.set(true);
            self.input_ended.set(true);
        }
        match self.phase.get() {
            Phase::Handshake if self.look(|session| session.is_handshaking()) == Some(false) => {
                self.established(&event_loop);
            }
            Phase::Handshake if self.input_ended.get() => self.end_of_handshake(),
            Phase::Open if self.input_ended.get() => self.this().deliver(&event_loop),
            Phase::Closing if self.input_ended.get() => self.finish(),
            Phase::Handshake | Phase::Open | Phase::Closing | Phase::Ended => {}
        }
    }

    /// The other side has ended what it sends too early.
    fn end_of_handshake(&self) {
        let text = "the other side closed the connection during the TLS handshake";
        self.break_off(Error::io(io::ErrorKind::ConnectionReset.into(), self.with_peer(text)));
    }

    /// An error of the system, with whom it is about; others say so already.
    fn of_handshake(&self, error: &Error) -> Error {
        match error {
            Error::Io(it) if it.context().is_none() => {
                let source = it.io_error();
                let source = source.raw_os_error().map_or_else(|| source.kind().into(), io::Error::from_raw_os_error);
                Error::io(source, self.with_peer("the connection broke during the TLS handshake"))
            }
            error => error.clone(),
        }
    }

    /// The handshake is over, and what it had to send is sent.
    fn established(&self, event_loop: &EventLoop) {
        self.stop_timer();
        self.phase.set(Phase::Open);
        if !self.made.replace(true) {
            Calls::notify(&self.this(), event_loop, Notice::Made);
        }
        if let Some(opener) = self.opener.take() {
            // It may be cancelled, and its owner has closed this transport then.
            let _ = opener.set_result(());
        }
        if self.phase.get() == Phase::Open && (self.input_ended.get() || !self.undelivered.borrow().is_empty()) {
            // After whoever waits for the connection, which has to know it first.
            self.queue_delivery(event_loop);
        }
        self.update_reading();
    }

    /// Closes in order: says that this side sends no more, behind all that it has written.
    pub(super) fn shut(&self) {
        // What the protocol did when it was told of the end may have ended it.
        if self.phase.get() != Phase::Open || self.inner().is_closing() {
            return;
        }
        self.phase.set(Phase::Closing);
        self.undelivered.take();
        let mut outgoing = Vec::new();
        self.session.borrow_mut().close_notify(&mut outgoing);
        let all_written = self.inner().get_write_buffer_size() == 0;
        self.send(&outgoing);
        self.left_alone.set(all_written && self.inner().is_closing());
        self.unwritten.set(self.inner().get_write_buffer_size());
        self.set_timer(self.options.shutdown_timeout);
        if let (true, Some(event_loop)) = (self.input_ended.get(), self.event_loop()) {
            // Not from inside of close().
            self.queue_delivery(&event_loop);
        }
        self.inner().0.wake_drained();
        self.update_reading();
    }

    /// Neither side sends any more.
    pub(super) fn finish(&self) {
        self.tell_end();
        self.inner().close();
    }

    pub(super) fn tell_end(&self) {
        if !self.end_told.replace(true) {
            self.notify(Notice::Eof);
        }
    }

    /// Encrypts `pieces` and hands them to the transport under it.
    pub(super) fn write_pieces(&self, pieces: &[IoSlice<'_>]) -> Result<()> {
        match pieces {
            [] => Ok(()),
            [piece] => self.write_all(piece),
            // Small ones share a record.
            pieces => {
                let mut lent = self.buffers.lend();
                let joined = &mut lent.memory[..ENCRYPTED_AT_ONCE];
                let mut filled = 0;
                for piece in pieces {
                    let mut piece = &piece[..];
                    while !piece.is_empty() {
                        let count = piece.len().min(joined.len() - filled);
                        joined[filled..filled + count].copy_from_slice(&piece[..count]);
                        (filled, piece) = (filled + count, &piece[count..]);
                        if filled == joined.len() {
                            self.write_all(joined)?;
                            filled = 0;
                        }
                    }
                }
                self.write_all(&joined[..filled])
            }
        }
    }

    fn write_all(&self, mut data: &[u8]) -> Result<()> {
        let mut lent = self.buffers.lend();
        while !data.is_empty() {
            let some = &data[..data.len().min(ENCRYPTED_AT_ONCE)];
            let encrypted = self.session.borrow_mut().encrypt(some, &mut lent.memory)?;
            self.send(&lent.memory[..encrypted.made]);
            data = &data[encrypted.taken..];
        }
        Ok(())
    }

    /// Tells the protocol to pause writing if the transport under it holds too much.
    pub(super) fn pause_if_full(&self) {
        if self.sending_file.get() {
            return;
        }
        let _ = self.inner().0.write_for_layer(&[], false);
        if self.inner().is_write_paused() {
            PullSink::pause_writing(self);
        }
    }

    fn notify(&self, notice: Notice) {
        if let (true, Some(event_loop)) = (self.made.get(), self.event_loop()) {
            Calls::notify(&self.this(), &event_loop, notice);
        }
    }

    /// Ends a connection whose opener has gone.
    pub(super) fn give_up(&self) {
        let opener = self.opener.take();
        if !self.made.get() {
            self.phase.set(Phase::Ended);
            self.over.set(true);
        }
        self.stop_timer();
        self.inner().0.abandon();
        if !self.made.get() {
            // Last, for the drop of a protocol is other people's code.
            self.calls.release();
        }
        drop(opener);
    }
}

impl PullSink for TlsTransport {
    fn connection_made(&self, _transport: &Transport) {
        self.begin();
    }

    fn readable(&self, receive: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let Some(event_loop) = self.event_loop() else { return Err(io::ErrorKind::WouldBlock.into()) };
        match self.phase.get() {
            Phase::Open => self.this().receive_and_deliver(&event_loop, receive),
            Phase::Handshake | Phase::Closing => self.receive_apart(receive),
            Phase::Ended => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn eof_received(&self) -> bool {
        let Some(event_loop) = self.event_loop() else { return false };
        self.input_ended.set(true);
        match self.phase.get() {
            Phase::Handshake => self.end_of_handshake(),
            Phase::Open => self.this().deliver(&event_loop),
            Phase::Closing => self.finish(),
            Phase::Ended => {}
        }
        // It closes the transport by itself, when all is delivered.
        true
    }

    fn connection_lost(&self, error: Option<&Error>) {
        self.stop_timer();
        let during = self.phase.replace(Phase::Ended);
        if during == Phase::Ended {
            return;
        }
        let Some(event_loop) = self.event_loop() else { return };
        self.undelivered.take();
        let is_of_leaving = |error: &Error| {
            error.io_error().is_some_and(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => true,
                // By which the system answers for a peer that did not read all, such as tickets.
                io::ErrorKind::ConnectionReset => self.close_notify.get(),
                _ => false,
            })
        };
        let mut error = error;
        if self.left_alone.get() && error.is_some_and(is_of_leaving) {
            // The other side has ended as well, and nothing is lost by that.
            error = None;
            self.tell_end();
        }
        let named = error.filter(|_| during == Phase::Handshake).map(|error| self.of_handshake(error));
        let error = named.as_ref().or(error);
        if let Some(opener) = self.opener.take() {
            let error = error.cloned().unwrap_or_else(|| {
                let text = "the connection was closed during the TLS handshake";
                Error::io(io::ErrorKind::ConnectionAborted.into(), self.with_peer(text))
            });
            // It may be cancelled.
            let _ = opener.set_exception(error);
        } else if let (Phase::Handshake, Some(error)) = (during, error) {
            // Of a server, whose protocol never hears of it: what clients send is no failure of this program.
            tracing::debug!(target: "asyncio", "{}: {error}", self.describe());
        }
        if self.made.get() {
            Calls::notify(&self.this(), &event_loop, Notice::Lost(error.cloned()));
        } else {
            self.over.set(true);
            self.calls.release();
        }
    }

    fn has_ended(&self) -> bool {
        self.over.get()
    }

    fn pause_writing(&self) {
        if !self.writing_paused.replace(true) {
            self.notify(Notice::Pause);
        }
    }

    fn resume_writing(&self) {
        if self.writing_paused.replace(false) {
            self.notify(Notice::Resume);
        }
    }

    fn all_written(&self) {
        if let Some(sink) = self.calls.protocol().and_then(AnyStreamProtocol::into_sink) {
            sink.all_written();
        }
    }

    fn discard(&self) {
        self.phase.set(Phase::Ended);
        self.timer.set(None);
        let opener = self.opener.take();
        if let Some(sink) = self.calls.protocol().and_then(AnyStreamProtocol::into_sink) {
            sink.discard();
        }
        self.calls.release();
        drop(opener);
    }

    fn type_name(&self) -> &'static str {
        "TLS"
    }
}

impl IoHandler for TlsTransport {
    fn run(self: Rc<Self>, event_loop: &EventLoop, event: IoEvent) {
        match event {
            IoEvent::Ready { .. } => {
                self.delivery_queued.set(false);
                self.deliver(event_loop);
            }
            IoEvent::TimedOut => self.timed_out(event_loop),
            IoEvent::Retry => Calls::retry(&self, event_loop),
            IoEvent::Made | IoEvent::Lost => {}
        }
    }

    fn discard(self: Rc<Self>) {
        PullSink::discard(&*self);
    }

    fn describe(&self) -> String {
        let state = match self.phase.get() {
            Phase::Handshake => "handshake ",
            Phase::Open => "",
            Phase::Closing => "closing ",
            Phase::Ended => "closed ",
        };
        let inner = self.inner.get().map_or_else(String::new, |inner| format!("{inner:?}"));
        format!("<TlsTransport {state}over {inner}>")
    }
}

impl Caller<AnyStreamProtocol> for TlsTransport {
    fn calls(&self) -> &Calls<AnyStreamProtocol> {
        &self.calls
    }

    fn transport(self: Rc<Self>) -> Transport {
        Transport(self)
    }

    fn number(&self) -> Option<RawFd> {
        self.inner().get_extra_info(SOCKET)
    }

    /// Its beginning and its end reach a protocol as a part of what is received: to fail there is fatal.
    #[cold]
    fn notice_failed(&self, event_loop: &EventLoop, notice: &Notice, error: Error) {
        match notice {
            Notice::Made => {
                if let Some(opener) = self.opener.take() {
                    // It may be cancelled.
                    let _ = opener.set_exception(error.clone());
                }
                self.fatal(event_loop, "connection_made", error);
            }
            Notice::Eof => self.fatal(event_loop, "eof_received", error),
            notice => self.report(event_loop, notice.failure(), error),
        }
    }

    fn ended(&self, _event_loop: &EventLoop) -> bool {
        if self.calls.waits_for_layer() {
            return false;
        }
        self.over.set(true);
        self.inner().0.layer_ended();
        true
    }
}
