//! A datagram endpoint over a socket.
//!
//! ```text
//! Opening --Made--> Open --close--> Closing --all sent--> lost queued --Lost--> Ended
//!                   Open, Closing --abort--> lost queued
//! ```

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    panic::Location,
    rc::{Rc, Weak},
    time::Duration,
};

use crate::{
    constants::{BUSY_DELAY, DATAGRAMS_PER_TURN, FIRST_RETRY, LAST_RETRY},
    error::{Error, Result},
    event_loop::{
        EventLoop,
        owned::{IoEvent, IoHandler},
        running::WeakLoop,
        timers::TimerKey,
        turn::{Ready, TimerEntry},
    },
    future::Future,
    report,
    sys::{
        addr::Address,
        selector::Interest,
        socket::{self, SystemAddress},
    },
    transport::{
        buffers::IoBuffers,
        calls::{Called, Caller, Calls, Notice},
        datagram::{AnyDatagramProtocol, DatagramTransport, RawDatagramTransport},
        datagram_queue::DatagramQueue,
        extra_info::{ExtraName, ExtraValue},
        flow::Flow,
    },
};

/// What an endpoint is opened with.
pub(crate) struct DatagramOpening {
    /// Non-blocking.
    pub(crate) fd: OwnedFd,
    /// Where everything goes, if that is settled; the socket need not be connected.
    pub(crate) remote: Option<Address>,
    pub(crate) protocol: AnyDatagramProtocol,
    /// Completed when the protocol knows of its endpoint.
    pub(crate) opener: Future<()>,
}

pub(crate) struct DatagramEndpoint {
    this: Weak<DatagramEndpoint>,
    event_loop: WeakLoop,
    number: RawFd,
    /// Taken at the end.
    fd: RefCell<Option<OwnedFd>>,
    /// Set when the descriptor is to be closed, even where it is lent at that moment; never cleared.
    closed: Cell<bool>,
    remote: Option<Address>,
    /// Whom the socket is connected to.
    peer: Option<Address>,
    /// The address that the socket had when it was closed.
    last_local: RefCell<Option<Address>>,
    /// Whether nobody but a timer can tell when there is room again: a unix socket that is not connected counts as
    /// writable although its receiver has no room.
    tries_again: bool,
    queue: RefCell<DatagramQueue<Option<SystemAddress>>>,
    flow: Cell<Flow>,
    calls: Calls<AnyDatagramProtocol>,
    buffers: Rc<IoBuffers>,
    lookout: Cell<Lookout>,
    /// Set when the protocol knows of its endpoint: receiving begins then.
    started: Cell<bool>,
    /// Set by close() and by whatever ends the endpoint; never cleared.
    closing: Cell<bool>,
    /// Set once Lost is queued; never cleared.
    losing: Cell<bool>,
    /// How often in a row nothing could be delivered because somebody held the protocol.
    undelivered: Cell<u32>,
    /// How often in a row it was ready for reading and had nothing.
    in_vain: Cell<u8>,
    /// Set while such a protocol is let alone: nothing is received before that.
    next_delivery: Cell<Option<TimerKey>>,
    /// Set while a receiver without room is let alone.
    next_sending: Cell<Option<TimerKey>>,
    failure: RefCell<Option<Error>>,
    opener: Cell<Option<Future<()>>>,
}

impl DatagramEndpoint {
    /// Makes the endpoint of a socket; its protocol hears of it from the ready queue.
    pub(crate) fn open(event_loop: &EventLoop, opening: DatagramOpening) -> Result<Rc<Self>> {
        let DatagramOpening { fd, remote, protocol, opener } = opening;
        let peer = socket::peer_address(fd.as_fd());
        let inet = socket::local_address(fd.as_fd()).is_some_and(|local| local.as_inet().is_some());
        let number = fd.as_raw_fd();
        let endpoint = Rc::new_cyclic(|this| DatagramEndpoint {
            this: this.clone(),
            event_loop: Rc::downgrade(&event_loop.inner),
            number,
            fd: RefCell::new(Some(fd)),
            closed: Cell::new(false),
            remote: remote.or_else(|| peer.clone()),
            tries_again: !inet && peer.is_none(),
            peer,
            last_local: RefCell::new(None),
            queue: RefCell::default(),
            flow: Cell::default(),
            calls: Calls::new(event_loop, protocol),
            buffers: IoBuffers::of(event_loop),
            lookout: Cell::default(),
            started: Cell::new(false),
            closing: Cell::new(false),
            losing: Cell::new(false),
            undelivered: Cell::new(0),
            in_vain: Cell::new(0),
            next_delivery: Cell::new(None),
            next_sending: Cell::new(None),
            failure: RefCell::new(None),
            opener: Cell::new(Some(opener)),
        });
        event_loop.own(number, endpoint.clone())?;
        event_loop.push(Ready::Io(endpoint.clone(), IoEvent::Made));
        Ok(endpoint)
    }

    /// Ends an endpoint whose opener has gone: a protocol that has not heard of it never will.
    pub(crate) fn abandon(&self) {
        if self.started.get() {
            return self.force_close(None);
        }
        let Some(event_loop) = self.event_loop() else { return };
        self.closing.set(true);
        self.losing.set(true);
        self.ended(&event_loop);
        // Last, for the drop of a protocol is other people's code.
        self.calls.release();
    }

    fn this(&self) -> Rc<Self> {
        self.this.upgrade().expect("whoever calls it holds it")
    }

    fn event_loop(&self) -> Option<EventLoop> {
        self.event_loop.upgrade().map(EventLoop::from_inner)
    }

    #[inline]
    fn wants_to_receive(&self) -> bool {
        self.started.get() && !self.closing.get()
    }

    fn wants_to_send(&self) -> bool {
        !self.losing.get() && !self.queue.borrow().is_empty()
    }

    /// Tells the selector what the socket is watched for now, if that has changed.
    fn update_interest(&self) {
        let Some(event_loop) = self.event_loop() else { return };
        let interest = Interest {
            readable: self.wants_to_receive() && self.next_delivery.get().is_none(),
            writable: self.wants_to_send() && !self.tries_again,
        };
        if let Err(error) = event_loop.watch_owned(self.number, interest) {
            self.force_close(Some(error.into()));
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
            // It may be cancelled, and its owner has closed this endpoint then.
            let _ = opener.set_result(());
        }
        self.update_interest();
    }

    #[inline]
    fn ready(self: &Rc<Self>, event_loop: &EventLoop, readable: bool, writable: bool) {
        if readable && self.wants_to_receive() {
            let waited = self.end_wait(&self.next_delivery);
            self.receive(event_loop);
            if waited {
                self.update_interest();
            }
        }
        if writable && self.wants_to_send() {
            self.end_wait(&self.next_sending);
            self.send_queued(event_loop);
        }
    }

    /// Receives what waits, as long as the protocol can be had and others have their turns.
    fn receive(self: &Rc<Self>, event_loop: &EventLoop) {
        let mut lookout = self.lookout.get();
        let most = if lookout.looks_further() { DATAGRAMS_PER_TURN } else { 1 };
        let mut received = 0;
        let mut lent = self.buffers.lend();
        while received < most && self.wants_to_receive() {
            let called: Called<io::Result<()>> = Calls::call(self, event_loop, |protocol| {
                let (count, sender) = self.receive_into(&mut lent.memory)?;
                protocol.datagram_received(&lent.memory[..count], &sender);
                Ok(())
            });
            match called {
                Called::Returned(Ok(())) => {}
                Called::Panicked(error) => {
                    self.report(event_loop, "protocol.datagram_received() failed".into(), error);
                }
                Called::Returned(Err(error)) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        Calls::notify(self, event_loop, Notice::Error(error.into()));
                    } else if received == 0 {
                        self.ready_in_vain(event_loop);
                    }
                    break;
                }
                Called::Borrowed => {
                    self.not_delivered(event_loop);
                    break;
                }
                Called::Gone => break,
            }
            received += 1;
            self.undelivered.set(0);
            self.in_vain.set(0);
        }
        if most > 1 {
            lookout.has_looked(received > 1);
        }
        self.lookout.set(lookout);
    }

    fn receive_into(&self, memory: &mut [u8]) -> io::Result<(usize, Address)> {
        let fd = self.fd.borrow();
        let Some(fd) = &*fd else { return Err(io::ErrorKind::WouldBlock.into()) };
        socket::recv_from_into(fd.as_fd(), memory)
    }

    /// Nothing was received, so nothing is lost by waiting. Whoever holds the protocol for long is told, once, and costs
    /// no spinning: the selector would say it again and again.
    #[cold]
    fn not_delivered(self: &Rc<Self>, event_loop: &EventLoop) {
        let times = self.undelivered.get().saturating_add(1);
        self.undelivered.set(times);
        if times < 2 {
            return;
        }
        if times == 2 {
            let error = Error::Runtime("protocol is borrowed".into());
            self.report(event_loop, "protocol.datagram_received() could not be called".into(), error);
        }
        let delay = (FIRST_RETRY * (1 << (times - 2).min(16))).min(LAST_RETRY);
        self.wait(event_loop, &self.next_delivery, delay, IoEvent::Ready { readable: true, writable: false });
        self.update_interest();
    }

    /// The system said that something was there, and nothing was. It says so for ever of a socket that somebody has shut
    /// down for reading: looked at seldom, it costs no spinning.
    #[cold]
    fn ready_in_vain(&self, event_loop: &EventLoop) {
        const HARMLESS: u8 = 8;
        let times = self.in_vain.get().saturating_add(1);
        self.in_vain.set(times);
        if times > HARMLESS {
            let delay = (FIRST_RETRY * (1 << (times - HARMLESS).min(16))).min(LAST_RETRY);
            self.wait(event_loop, &self.next_delivery, delay, IoEvent::Ready { readable: true, writable: false });
            self.update_interest();
        }
    }

    /// Lets a timer say that it is time for `event`.
    fn wait(&self, event_loop: &EventLoop, place: &Cell<Option<TimerKey>>, delay: Duration, event: IoEvent) {
        self.end_wait(place);
        let deadline = event_loop.deadline_in(delay);
        place.set(Some(event_loop.insert_timer(deadline, TimerEntry::Io(self.this(), event))));
    }

    /// False if there was no such timer.
    fn end_wait(&self, place: &Cell<Option<TimerKey>>) -> bool {
        let Some(key) = place.take() else { return false };
        if let Some(event_loop) = self.event_loop() {
            let entry = event_loop.inner.timers.borrow_mut().remove(key);
            drop(entry);
        }
        true
    }

    /// Where a datagram goes; `None` is where the socket is connected.
    #[inline]
    fn destination(&self, address: Option<Address>) -> Result<Option<SystemAddress>> {
        let Some(remote) = &self.remote else {
            let Some(address) = address else {
                return Err(Error::Value("an address is needed: the endpoint is not connected".into()));
            };
            return address.to_sock_addr().map(Some);
        };
        if address.is_some_and(|address| address != *remote && Some(&address) != self.peer.as_ref()) {
            return Err(Error::Value(format!("Invalid address: must be None or {remote}").into()));
        }
        if self.peer.is_some() { Ok(None) } else { remote.to_sock_addr().map(Some) }
    }

    fn send(&self, pieces: [io::IoSlice<'_>; 2], destination: Option<&SystemAddress>) -> io::Result<()> {
        let fd = self.fd.borrow();
        let Some(fd) = &*fd else { return Ok(()) };
        socket::send_datagram(fd.as_fd(), pieces, destination)?;
        Ok(())
    }

    fn send_queued(self: &Rc<Self>, event_loop: &EventLoop) {
        for _ in 0..DATAGRAMS_PER_TURN {
            let queue = self.queue.borrow();
            let Some((pieces, destination)) = queue.front() else { break };
            let sent = self.send(pieces, destination.as_ref());
            drop(queue);
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                sent => {
                    self.queue.borrow_mut().pop(&self.buffers.spares);
                    if let Err(error) = sent {
                        Calls::notify(self, event_loop, Notice::Error(error.into()));
                    }
                }
            }
        }
        let mut flow = self.flow.get();
        let resumes = flow.shrunk(self.queue.borrow().size());
        self.flow.set(flow);
        if resumes {
            Calls::notify(self, event_loop, Notice::Resume);
        }
        self.go_on_sending();
    }

    /// Sees to it that what waits will be sent, or that the endpoint ends.
    fn go_on_sending(&self) {
        let empty = self.queue.borrow().is_empty();
        if empty && self.closing.get() {
            self.lose(None);
        }
        if !empty && self.tries_again && self.next_sending.get().is_none() {
            if let Some(event_loop) = self.event_loop() {
                let event = IoEvent::Ready { readable: false, writable: true };
                self.wait(&event_loop, &self.next_sending, BUSY_DELAY, event);
            }
        }
        self.update_interest();
    }

    /// Tells the protocol to pause if the queue has grown too large.
    fn grown(&self) {
        let mut flow = self.flow.get();
        let pauses = flow.grown(self.queue.borrow().size());
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

    /// Ends the endpoint at once, and drops what waits to be sent.
    fn force_close(&self, error: Option<Error>) {
        if self.losing.get() {
            return;
        }
        self.queue.borrow_mut().clear(&self.buffers.spares);
        self.closing.set(true);
        self.lose(error);
        self.update_interest();
    }

    /// Queues the last call of the protocol.
    fn lose(&self, error: Option<Error>) {
        if self.losing.replace(true) {
            return;
        }
        self.end_wait(&self.next_delivery);
        self.end_wait(&self.next_sending);
        *self.failure.borrow_mut() = error;
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
        let read = if self.wants_to_receive() { "polling" } else { "idle" };
        let size = self.write_buffer_size();
        let write = if size > 0 { "polling" } else { "idle" };
        format!("<DatagramTransport {state}fd={} read={read} write=<{write}, bufsize={size}>>", self.number)
    }

    /// Asked anew while it is open: the first datagram that is sent may give the socket one.
    fn local_address(&self) -> Option<Address> {
        match &*self.fd.borrow() {
            Some(fd) => socket::local_address(fd.as_fd()),
            None => self.last_local.borrow().clone(),
        }
    }

    /// Closes the descriptor.
    fn close_fd(&self) {
        *self.last_local.borrow_mut() = self.local_address();
        // Where it is lent now, with_fd() comes here again.
        let fd = self.fd.try_borrow_mut().ok().and_then(|mut fd| fd.take());
        self.closed.set(true);
        drop(fd);
    }
}

impl IoHandler for DatagramEndpoint {
    #[inline]
    fn run(self: Rc<Self>, event_loop: &EventLoop, event: IoEvent) {
        match event {
            IoEvent::Ready { readable, writable } => self.ready(event_loop, readable, writable),
            IoEvent::Made => self.made(event_loop),
            IoEvent::Lost => {
                let failure = self.failure.borrow().clone();
                Calls::notify(&self, event_loop, Notice::Lost(failure));
            }
            IoEvent::TimedOut => {}
            IoEvent::Retry => Calls::retry(&self, event_loop),
        }
    }

    fn discard(self: Rc<Self>) {
        if !self.closing.get() && self.event_loop().is_some_and(|event_loop| event_loop.get_debug()) {
            report::warning(&format!("ResourceWarning: unclosed transport {}", self.describe()));
        }
        self.closing.set(true);
        self.losing.set(true);
        self.queue.borrow_mut().clear(&self.buffers.spares);
        self.close_fd();
        let opener = self.opener.take();
        self.calls.release();
        drop(opener);
    }

    fn describe(&self) -> String {
        self.describe()
    }
}

impl Caller<AnyDatagramProtocol> for DatagramEndpoint {
    fn calls(&self) -> &Calls<AnyDatagramProtocol> {
        &self.calls
    }

    fn transport(self: Rc<Self>) -> DatagramTransport {
        DatagramTransport(self)
    }

    fn number(&self) -> Option<RawFd> {
        Some(self.number)
    }

    fn ended(&self, event_loop: &EventLoop) -> bool {
        event_loop.disown(self.number);
        self.close_fd();
        let opener = self.opener.take();
        drop(opener);
        true
    }
}

impl RawDatagramTransport for DatagramEndpoint {
    fn describe(&self) -> String {
        self.describe()
    }

    #[inline]
    fn sendto(&self, data: &[u8], address: Option<Address>) -> Result<()> {
        if self.closing.get() {
            return Ok(());
        }
        let destination = self.destination(address)?;
        if self.queue.borrow().is_empty() {
            match self.send([io::IoSlice::new(data), io::IoSlice::new(&[])], destination.as_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.notify(Notice::Error(error.into()));
                    return Ok(());
                }
                Ok(()) => return Ok(()),
            }
        }
        self.queue.borrow_mut().push(data, destination, &self.buffers.spares);
        self.go_on_sending();
        self.grown();
        Ok(())
    }

    fn close(&self) {
        if self.closing.replace(true) {
            return;
        }
        self.end_wait(&self.next_delivery);
        self.go_on_sending();
    }

    fn abort(&self) {
        self.force_close(None);
    }

    fn is_closing(&self) -> bool {
        self.closing.get()
    }

    fn extra_info(&self, name: ExtraName) -> Option<ExtraValue> {
        match name {
            ExtraName::PeerName => Some(Box::new(self.peer.clone()?)),
            ExtraName::SockName => Some(Box::new(self.local_address()?)),
            ExtraName::Socket => Some(Box::new(self.number)),
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

    fn set_protocol(&self, protocol: AnyDatagramProtocol) {
        self.calls.set_protocol(protocol);
    }

    fn protocol(&self) -> Option<AnyDatagramProtocol> {
        self.calls.protocol()
    }

    fn write_buffer_size(&self) -> usize {
        self.queue.borrow().size()
    }

    fn write_buffer_limits(&self) -> (usize, usize) {
        self.flow.get().limits()
    }

    fn set_write_buffer_limits(&self, high: Option<usize>, low: Option<usize>) -> Result<()> {
        let mut flow = self.flow.get();
        flow.set_limits(high, low)?;
        self.flow.set(flow);
        self.grown();
        Ok(())
    }

    fn is_write_paused(&self) -> bool {
        self.flow.get().is_paused()
    }

    #[cold]
    fn report_misuse(&self, error: Error, location: &'static Location<'static>) {
        if let Some(event_loop) = self.event_loop() {
            self.report_mistake(&event_loop, "sendto", error, location);
        }
    }
}

/// Whether a turn that has received one datagram looks for a second one: a look in vain costs a system call, and one that
/// was not taken a wait of the selector.
///
/// Each look in vain makes the next one rarer, so that question and answer pay for hardly any, and one that finds
/// something lets every turn look.
#[derive(Clone, Copy, Debug, Default)]
struct Lookout {
    /// How many turns take one datagram only before the next look.
    turns_left: u8,
    /// How many there were before the last one.
    turns: u8,
}

impl Lookout {
    /// The most turns between two looks: few enough for a flood that begins to be noticed soon.
    const MOST_TURNS: u8 = 63;

    fn looks_further(&mut self) -> bool {
        let looks = self.turns_left == 0;
        self.turns_left = self.turns_left.saturating_sub(1);
        looks
    }

    fn has_looked(&mut self, found: bool) {
        self.turns = if found { 0 } else { (self.turns * 2 + 1).min(Self::MOST_TURNS) };
        self.turns_left = self.turns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of so many turns look, and find nothing or something.
    fn looks(lookout: &mut Lookout, turns: usize, found: bool) -> usize {
        let looks = |_: &usize| {
            let looks = lookout.looks_further();
            if looks {
                lookout.has_looked(found);
            }
            looks
        };
        (0..turns).filter(looks).count()
    }

    #[test]
    fn looks_in_vain_become_rare_and_one_that_finds_ends_that() {
        let mut lookout = Lookout::default();
        assert_eq!(looks(&mut lookout, 1000, true), 1000);
        assert_eq!(looks(&mut lookout, 1, false), 1);
        assert!(looks(&mut lookout, 6400, false) < 110);
        assert!(looks(&mut lookout, 164, true) >= 100);
        assert_eq!(looks(&mut lookout, 1000, true), 1000);
    }
}
