//! The selector of every other system: the crate `polling`, which this file alone names.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use polling::{Events, PollMode, Poller};

use crate::constants::MAXIMUM_SELECT_TIMEOUT;

use super::selector::{Event, Interest, Mode, Selector, SelectorWaker, WAKE_KEY, check_key, with_descriptor};

/// A selector over the crate `polling`: kqueue on macOS and the BSDs, epoll on Linux.
///
/// The default where there is no [`EpollSelector`](crate::selector::EpollSelector). On Linux it costs five system
/// calls a wait, and urgent TCP data makes a descriptor readable, for one read that would block.
///
/// A signal does not end its [`select`](Selector::select); the waker does.
pub struct PollingSelector {
    /// Invariant: it stands before `waker`, so that it is gone before the socket it watches is closed.
    poller: Poller,
    waker: Arc<SocketWaker>,
    /// Filled by a wait; emptied by the next one.
    ready: Events,
}

impl PollingSelector {
    /// Opens the system's selector with a waker of its own.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](io::ErrorKind::Unsupported) where readiness cannot be reported for as long as it holds (illumos,
    /// Solaris). `EMFILE` or `ENFILE` if no descriptor is left. What a first wait fails with.
    pub fn new() -> io::Result<Self> {
        let poller = Poller::new()?;
        if !poller.supports_level() {
            let text = "the system's selector cannot report readiness for as long as it holds (level-triggered)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        let waker = Arc::new(SocketWaker::new()?);
        // SAFETY: the socket is open, and the poller, whose field stands first, is dropped before it.
        unsafe { poller.add_with_mode(&waker.receiver, polling::Event::readable(WAKE_KEY), PollMode::Level)? };
        let mut selector = Self { poller, waker, ready: Events::new() };
        // A system where waiting does not work is found out here, not in the middle of a program.
        selector.select(&mut Vec::new(), Some(Duration::ZERO))?;
        Ok(selector)
    }
}

impl Selector for PollingSelector {
    fn register(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
        check_key(key)?;
        with_descriptor(fd, |fd| {
            // SAFETY: `polling` wants the descriptor deleted before it is closed, so that it never names a number that
            // has passed to another file. The trait asks users for that and cannot force them; what happens if they do
            // not is a wrong or a missing report: epoll and kqueue drop the registration with the file, poll(2) answers
            // POLLNVAL, and all that is ever done with the number is to ask whether it is ready.
            unsafe { self.poller.add_with_mode(&fd, to_polling(key, interest), to_mode(mode)) }
        })
    }

    fn modify(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
        check_key(key)?;
        with_descriptor(fd, |fd| {
            // kqueue keeps the mode of what is armed already, so disarm first.
            self.poller.modify_with_mode(fd, to_polling(key, Interest::NONE), PollMode::Oneshot)?;
            self.poller.modify_with_mode(fd, to_polling(key, interest), to_mode(mode))
        })
    }

    fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        with_descriptor(fd, |fd| self.poller.delete(fd))
    }

    fn select(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        self.ready.clear();
        self.poller.wait(&mut self.ready, timeout.map(|timeout| timeout.min(MAXIMUM_SELECT_TIMEOUT)))?;
        for polling::Event { key, readable, writable, .. } in self.ready.iter() {
            if key == WAKE_KEY {
                self.waker.drain();
            } else {
                events.push(Event { key, readable, writable });
            }
        }
        Ok(())
    }

    fn waker(&self) -> Arc<dyn SelectorWaker> {
        self.waker.clone()
    }

    #[cfg(any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly",
    ))]
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.poller.as_fd())
    }
}

impl fmt::Debug for PollingSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollingSelector").field("poller", &self.poller).finish_non_exhaustive()
    }
}

/// Wakes by sending a byte to a socket that the selector watches.
///
/// [`Poller::notify`] will not do: kqueue's allocates and poll's takes a lock, and a signal handler may do neither.
/// Both ends live here, so that a waker that outlives its selector never writes to a socket that nobody can read.
struct SocketWaker {
    sender: UnixStream,
    receiver: UnixStream,
}

impl SocketWaker {
    fn new() -> io::Result<Self> {
        let (sender, receiver) = UnixStream::pair()?;
        sender.set_nonblocking(true)?;
        receiver.set_nonblocking(true)?;
        Ok(Self { sender, receiver })
    }

    /// Takes what has been sent; a byte that comes meanwhile may stay and end the next select.
    fn drain(&self) {
        let mut bytes = [0; 512];
        while (&self.receiver).read(&mut bytes).is_ok_and(|count| count == bytes.len()) {}
    }
}

impl SelectorWaker for SocketWaker {
    fn wake(&self) {
        // The one error there can be is a full socket, and a full one wakes as well.
        let _ = (&self.sender).write(&[1]);
    }
}

fn to_polling(key: usize, interest: Interest) -> polling::Event {
    polling::Event::new(key, interest.readable, interest.writable)
}

fn to_mode(mode: Mode) -> PollMode {
    match mode {
        Mode::Level => PollMode::Level,
        Mode::Oneshot => PollMode::Oneshot,
    }
}
