//! The selector of Linux: epoll, with one system call a wait.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use crate::constants::MAXIMUM_SELECT_TIMEOUT;

use super::selector::{Event, Interest, Mode, Selector, SelectorWaker, WAKE_KEY, check_key, with_descriptor};

/// How many events one wait takes; what is left comes first in the next one. 12 KiB.
const EVENTS_PER_WAIT: usize = 1024;

/// A selector over epoll, the default on Linux.
///
/// A wait is one system call, and deadlines are kept to the timer slack of the thread (50 us unless changed).
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use std::os::fd::AsRawFd;
/// use std::os::unix::net::UnixStream;
///
/// use asyncio::selector::{EpollSelector, Event, Interest, Mode, Selector};
///
/// let (watched, mut peer) = UnixStream::pair()?;
/// let mut selector = EpollSelector::new()?;
/// selector.register(watched.as_raw_fd(), 7, Interest::READABLE, Mode::Level)?;
/// peer.write_all(b"x")?;
/// let mut events = Vec::new();
/// selector.select(&mut events, None)?;
/// assert_eq!(events, [Event { key: 7, readable: true, writable: false }]);
/// # std::io::Result::Ok(())
/// ```
///
/// asyncio: `selectors.EpollSelector`. Differs: timeouts are not rounded up to milliseconds.
pub struct EpollSelector {
    epoll: OwnedFd,
    waker: Arc<EventfdWaker>,
    /// Lent to the kernel for a wait. Invariant: empty between selects, and the capacity stays what `new` gave it.
    ready: Vec<epoll::Event>,
}

impl EpollSelector {
    /// Opens an epoll instance with a waker of its own.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` if no descriptor is left. `ENOSYS`, or what a sandbox says instead, if the kernel has no
    /// `epoll_pwait2` (Linux 5.11): take another selector.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let waker = EventfdWaker { counter: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? };
        // Edge-triggered: every write is reported once, so that nobody has to read the counter.
        epoll::add(&epoll, &waker.counter, EventData::new_u64(WAKE_KEY as u64), EventFlags::IN | EventFlags::ET)?;
        let mut selector = Self { epoll, waker: Arc::new(waker), ready: Vec::with_capacity(EVENTS_PER_WAIT) };
        // The first wait finds out whether the kernel has the call at all.
        selector.select(&mut Vec::new(), Some(Duration::ZERO))?;
        Ok(selector)
    }
}

impl Selector for EpollSelector {
    fn register(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
        check_key(key)?;
        with_descriptor(fd, |fd| {
            Ok(epoll::add(&self.epoll, fd, EventData::new_u64(key as u64), to_flags(interest, mode))?)
        })
    }

    fn modify(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
        check_key(key)?;
        with_descriptor(fd, |fd| {
            Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(key as u64), to_flags(interest, mode))?)
        })
    }

    fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
        with_descriptor(fd, |fd| Ok(epoll::delete(&self.epoll, fd)?))
    }

    fn select(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(to_timespec);
        match wait(&self.epoll, &mut self.ready, timeout.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        events.extend(self.ready.drain(..).filter_map(to_event));
        Ok(())
    }

    fn waker(&self) -> Arc<dyn SelectorWaker> {
        self.waker.clone()
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_fd())
    }
}

impl fmt::Debug for EpollSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpollSelector").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

/// Wakes by counting up an eventfd that is watched edge-triggered and never read.
struct EventfdWaker {
    counter: OwnedFd,
}

impl EventfdWaker {
    fn count_up(&self) -> Result<usize, Errno> {
        rustix::io::write(&self.counter, &1u64.to_ne_bytes())
    }
}

impl SelectorWaker for EventfdWaker {
    fn wake(&self) {
        if self.count_up() == Err(Errno::AGAIN) {
            // Full, after 2^64 - 2 wakes: it refuses the write and makes no edge. Emptying it makes none either and may
            // swallow that of another thread, but the write that follows makes one, whoever else is at it. Neither of
            // the two can fail in a way that matters: a read of zero means that another thread was faster.
            let _ = rustix::io::read(&self.counter, &mut [0; 8]);
            let _ = self.count_up();
        }
    }
}

/// `epoll_pwait2`, which knows nanoseconds. Fills `ready`, which must be empty.
///
/// rustix has it only under its feature `linux_5_11`, which holds for the whole program: `polling` would then need the
/// call as well, and nothing would be left for older kernels.
fn wait(epoll: &OwnedFd, ready: &mut Vec<epoll::Event>, timeout: Option<&Timespec>) -> io::Result<()> {
    let timeout = timeout.map_or(ptr::null(), ptr::from_ref);
    let no_mask = ptr::null::<libc::sigset_t>();
    let (epoll, room, size) = (epoll.as_raw_fd(), ready.as_mut_ptr(), ready.capacity());
    // SAFETY: the kernel writes at most `size` events to `room`, which is that large; rustix's Event has the layout of
    // epoll_event, its Timespec the 64-bit layout that this call takes on every architecture. `timeout` is null or
    // lives as long as the call. Without a mask the last argument is not looked at.
    let count = unsafe { libc::syscall(libc::SYS_epoll_pwait2, epoll, room, size, timeout, no_mask, 0usize) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the kernel has written that many events, and no more than `size`.
    unsafe { ready.set_len(count) };
    Ok(())
}

fn to_flags(interest: Interest, mode: Mode) -> EventFlags {
    let mut flags = match mode {
        Mode::Level => EventFlags::empty(),
        Mode::Oneshot => EventFlags::ONESHOT,
    };
    flags.set(EventFlags::IN, interest.readable);
    flags.set(EventFlags::OUT, interest.writable);
    flags
}

/// Translates what the kernel reports; `None` for the waker, which has done its work by ending the wait.
fn to_event(ready: epoll::Event) -> Option<Event> {
    const ENDED: EventFlags = EventFlags::HUP.union(EventFlags::ERR);
    let (flags, key) = (ready.flags, ready.data.u64() as usize);
    (key != WAKE_KEY).then(|| Event {
        key,
        readable: flags.intersects(EventFlags::IN.union(ENDED)),
        writable: flags.intersects(EventFlags::OUT.union(ENDED)),
    })
}

fn to_timespec(timeout: Duration) -> Timespec {
    Timespec::try_from(timeout.min(MAXIMUM_SELECT_TIMEOUT)).expect("a day fits into a timespec")
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::super::selector::tests::within_limit;
    use super::*;

    /// The counter of a selector's waker at its maximum, as after 2^64 - 2 wakes.
    fn with_a_full_counter() -> EpollSelector {
        let mut selector = EpollSelector::new().unwrap();
        rustix::io::write(&selector.waker.counter, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        selector.select(&mut Vec::new(), None).unwrap();
        assert_eq!(selector.waker.count_up(), Err(Errno::AGAIN));
        selector
    }

    #[test]
    fn a_full_counter_still_wakes() {
        within_limit(|| {
            let mut selector = with_a_full_counter();
            selector.waker().wake();
            selector.select(&mut Vec::new(), None).unwrap();
            selector.waker().wake();
            selector.select(&mut Vec::new(), None).unwrap();
        });
    }

    #[test]
    fn a_full_counter_wakes_for_several_threads_at_once() {
        within_limit(|| {
            for _ in 0..200 {
                let mut selector = with_a_full_counter();
                let threads = [(); 3].map(|()| {
                    let waker = selector.waker();
                    thread::spawn(move || waker.wake())
                });
                selector.select(&mut Vec::new(), None).unwrap();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            }
        });
    }

    #[test]
    fn an_empty_interest_still_reports_hang_ups() {
        let (watched, peer) = UnixStream::pair().unwrap();
        let mut selector = EpollSelector::new().unwrap();
        selector.register(watched.as_raw_fd(), 5, Interest::NONE, Mode::Level).unwrap();
        drop(peer);
        let mut events = Vec::new();
        selector.select(&mut events, Some(Duration::ZERO)).unwrap();
        assert_eq!(events, [Event { key: 5, readable: true, writable: true }]);
    }

    #[test]
    fn a_file_that_is_always_ready_is_refused() {
        let mut selector = EpollSelector::new().unwrap();
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let error = selector.register(file.as_raw_fd(), 1, Interest::READABLE, Mode::Level).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::PERM.raw_os_error()));
    }

    #[test]
    fn a_crowd_comes_in_several_selects_and_allocates_once() {
        let (watched, _peer) = UnixStream::pair().unwrap();
        let copies: Vec<_> = (0..EVENTS_PER_WAIT / 4).map(|_| watched.try_clone().unwrap()).collect();
        let mut selector = EpollSelector::new().unwrap();
        selector.ready = Vec::with_capacity(100);
        for (key, copy) in copies.iter().enumerate() {
            selector.register(copy.as_raw_fd(), key, Interest::WRITABLE, Mode::Oneshot).unwrap();
        }
        let mut events = Vec::new();
        for _ in 0..3 {
            selector.select(&mut events, Some(Duration::ZERO)).unwrap();
        }
        assert_eq!(selector.ready.capacity(), 100);
        events.sort_by_key(|event| event.key);
        assert!(events.iter().map(|event| event.key).eq(0..copies.len()));
    }
}
