//! Listening sockets: accepting, and what keeps them from it.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    rc::{Rc, Weak},
    sync::Arc,
};

use crate::{
    constants::ACCEPT_RETRY_DELAY,
    error::Result,
    event_loop::{
        EventLoop,
        exceptions::ExceptionContext,
        owned::{IoEvent, IoHandler},
        timers::TimerKey,
        turn::TimerEntry,
    },
    net::server::{ServerSocket, core::ServerCore},
    sys::{addr::Address, selector::Interest, socket},
};

/// A listening socket.
pub(super) struct Listener {
    this: Weak<Listener>,
    server: Weak<ServerCore>,
    number: RawFd,
    address: Address,
    /// Taken at the end.
    fd: RefCell<Option<Arc<OwnedFd>>>,
    /// Set while accepting pauses.
    pause: Cell<Option<TimerKey>>,
    /// Whether the present trouble has been reported.
    reported: Cell<bool>,
}

impl Listener {
    pub(super) fn new(server: &Rc<ServerCore>, fd: OwnedFd) -> Rc<Self> {
        Rc::new_cyclic(|this| Listener {
            this: this.clone(),
            server: Rc::downgrade(server),
            number: fd.as_raw_fd(),
            address: socket::local_address(fd.as_fd()).unwrap_or(Address::Unnamed),
            fd: RefCell::new(Some(Arc::new(fd))),
            pause: Cell::new(None),
            reported: Cell::new(false),
        })
    }

    pub(super) fn as_socket(&self) -> ServerSocket {
        let fd = self.fd.borrow().as_ref().map(Arc::downgrade).unwrap_or_default();
        ServerSocket { address: self.address.clone(), number: self.number, fd }
    }

    pub(super) fn start(&self, event_loop: &EventLoop, server: &ServerCore) -> Result<()> {
        let Some(this) = self.this.upgrade() else { return Ok(()) };
        let fd = self.fd.borrow().clone();
        let Some(fd) = fd else { return Ok(()) };
        socket::listen(fd.as_fd(), server.backlog)?;
        event_loop.own(self.number, this)?;
        Ok(self.update_interest(event_loop, server)?)
    }

    /// Takes back what [`start`](Self::start) did, as far as that can be.
    pub(super) fn undo_start(&self, event_loop: &EventLoop) {
        event_loop.disown(self.number);
    }

    /// As [`update_interest`](Self::update_interest), after the start: where it cannot be done, it is tried again later.
    pub(super) fn go_on(&self, event_loop: &EventLoop, server: &ServerCore) {
        if let Err(error) = self.update_interest(event_loop, server) {
            self.pause(event_loop, error);
        }
    }

    /// Listens unless accepting pauses.
    fn update_interest(&self, event_loop: &EventLoop, server: &ServerCore) -> io::Result<()> {
        let pause = self.pause.take();
        let accepts = pause.is_none() && !server.is_full();
        self.pause.set(pause);
        let interest = if accepts { Interest::READABLE } else { Interest::NONE };
        event_loop.watch_owned(self.number, interest)
    }

    /// Accepts what waits to be, unless that pauses.
    pub(super) fn accept_waiting(&self, event_loop: &EventLoop, server: &Rc<ServerCore>) {
        if self.pause.get().is_none() {
            self.accept(event_loop, server);
        }
    }

    fn accept(&self, event_loop: &EventLoop, server: &Rc<ServerCore>) {
        for _ in 0..server.backlog.max(1) {
            if server.is_full() {
                return self.go_on(event_loop, server);
            }
            // Its own handle: a factory may close the server.
            let fd = self.fd.borrow().clone();
            let Some(fd) = fd else { return };
            match socket::accept(fd.as_fd()) {
                Ok((connection, peer)) => {
                    self.reported.set(false);
                    server.connect(event_loop, connection, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => return self.pause(event_loop, error),
            }
        }
    }

    /// Nothing can be accepted for now: comes again later, as the connections stay in the backlog.
    #[cold]
    fn pause(&self, event_loop: &EventLoop, error: io::Error) {
        let Some(this) = self.this.upgrade() else { return };
        let deadline = event_loop.deadline_in(ACCEPT_RETRY_DELAY);
        self.pause.set(Some(event_loop.insert_timer(deadline, TimerEntry::Io(this, IoEvent::Retry))));
        // To watch nothing cannot fail in a way that matters.
        let _ = event_loop.watch_owned(self.number, Interest::NONE);
        if !self.reported.replace(true) {
            self.report(event_loop, error);
        }
    }

    fn report(&self, event_loop: &EventLoop, error: io::Error) {
        const OF_RESOURCES: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        let is_of_resources = error.raw_os_error().is_some_and(|code| OF_RESOURCES.contains(&code));
        let what = if is_of_resources { "out of system resource" } else { "failed" };
        let context = ExceptionContext::new(format!("socket.accept() {what}"))
            .exception(error.into())
            .socket(self.number)
            .extra("address", &self.address);
        event_loop.call_exception_handler(&context);
    }

    pub(super) fn close(&self, event_loop: &EventLoop) {
        if let Some(timer) = self.pause.take() {
            let entry = event_loop.inner.timers.borrow_mut().remove(timer);
            drop(entry);
        }
        let this = self.this.upgrade();
        event_loop.disown(self.number);
        drop(self.fd.take());
        drop(this);
    }
}

/// Whether an accept failed because of the connection, which is gone then: the system passes on what happened to it.
fn is_of_the_connection(error: &io::Error) -> bool {
    const OF_IT: [i32; 8] = [
        libc::ENETDOWN,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EPERM,
        libc::ETIMEDOUT,
    ];
    error.raw_os_error().is_some_and(|code| OF_IT.contains(&code))
}

impl IoHandler for Listener {
    fn run(self: Rc<Self>, event_loop: &EventLoop, event: IoEvent) {
        let Some(server) = self.server.upgrade() else { return };
        if server.is_closed() {
            return;
        }
        if event == IoEvent::Retry {
            self.pause.set(None);
            return self.go_on(event_loop, &server);
        }
        self.accept(event_loop, &server);
    }

    fn discard(self: Rc<Self>) {
        drop(self.fd.take());
    }

    fn describe(&self) -> String {
        format!("<Server socket fd={} {}>", self.number, self.address)
    }
}
