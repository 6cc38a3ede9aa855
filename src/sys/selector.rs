//! What a loop asks of the system: wait until a descriptor is ready, a time is over, or a thread says so.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

/// The key under which a selector watches its own waker.
///
/// Invariant: [`check_key`] keeps it and the one above, which is `polling`'s own, from registrations.
pub(crate) const WAKE_KEY: usize = usize::MAX - 1;

/// Waits for descriptors to become ready, on the thread of one loop.
///
/// The loop calls [`select`](Self::select) once a turn. Give it a selector of your own to record or to delay what it
/// waits for, or to let it run inside another loop.
///
/// - The file behind a descriptor is what is watched. Deregister before you close: where a duplicate keeps the file
///   open (`dup`, a child process), epoll goes on reporting it under the old key, and nothing can remove it by number.
/// - A descriptor that was closed nevertheless may have left its number to another one. So a caller who does not own
///   the descriptor trusts no memory of it: `modify`, on [`NotFound`](io::ErrorKind::NotFound) `register`; or
///   `register`, on [`AlreadyExists`](io::ErrorKind::AlreadyExists) `modify`.
/// - epoll reports a hang-up or an error even where the [`Interest`] is empty. Whoever wants to hear nothing for a
///   while deregisters; [`Interest::NONE`] is no pause.
/// - Numbers that no descriptor can have or that are not open give `EBADF`; files that are always ready (regular files,
///   directories) give `EPERM` from epoll.
///
/// Threads: a selector stays on the thread of its loop and need not be `Send`; its [`waker`](Self::waker) crosses them.
///
/// # Examples
///
/// A selector that records how long the loop was ready to wait:
///
/// ```
/// use std::cell::RefCell;
/// use std::io;
/// use std::os::fd::{BorrowedFd, RawFd};
/// use std::rc::Rc;
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use asyncio::selector::{Event, Interest, Mode, PollingSelector, Selector, SelectorWaker};
///
/// struct Recording<S> {
///     inner: S,
///     timeouts: Rc<RefCell<Vec<Option<Duration>>>>,
/// }
///
/// impl<S: Selector> Selector for Recording<S> {
///     fn register(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
///         self.inner.register(fd, key, interest, mode)
///     }
///
///     fn modify(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()> {
///         self.inner.modify(fd, key, interest, mode)
///     }
///
///     fn deregister(&mut self, fd: RawFd) -> io::Result<()> {
///         self.inner.deregister(fd)
///     }
///
///     fn select(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
///         self.timeouts.borrow_mut().push(timeout);
///         self.inner.select(events, timeout)
///     }
///
///     fn waker(&self) -> Arc<dyn SelectorWaker> {
///         self.inner.waker()
///     }
///
///     fn as_fd(&self) -> Option<BorrowedFd<'_>> {
///         self.inner.as_fd()
///     }
/// }
///
/// let timeouts = Rc::default();
/// let mut selector = Recording { inner: PollingSelector::new()?, timeouts: Rc::clone(&timeouts) };
/// let mut events = Vec::new();
/// selector.select(&mut events, Some(Duration::from_millis(1)))?;
/// selector.waker().wake();
/// selector.select(&mut events, None)?; // returns at once: it was woken
/// assert!(events.is_empty());
/// assert_eq!(*timeouts.borrow(), [Some(Duration::from_millis(1)), None]);
/// # io::Result::Ok(())
/// ```
///
/// asyncio: `selectors.BaseSelector`. Differs: a key instead of an object with data, one-shot registrations, a waker.
pub trait Selector {
    /// Begins to watch `fd` and reports what happens under `key`.
    ///
    /// The loop uses the descriptor's number as the key. The two largest keys, from `usize::MAX - 1`, are the
    /// selectors' own.
    ///
    /// # Errors
    ///
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if `fd` is being watched: [`modify`](Self::modify) it.
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a key of the selector's own. `EBADF`, `EPERM` as above,
    /// `ENOSPC` and `ENOMEM` if the system's limits are reached. After an error nothing is watched that was not before.
    fn register(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()>;

    /// Replaces the key, the interest and the mode of a descriptor that is being watched, and arms it again.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) if `fd` is not being watched: [`register`](Self::register) it. Otherwise
    /// those of `register`.
    fn modify(&mut self, fd: RawFd, key: usize, interest: Interest, mode: Mode) -> io::Result<()>;

    /// Ends the watch on `fd`; nothing is reported for it from the next [`select`](Self::select) on.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) if `fd` is not being watched, `EBADF` if it is closed: both mean that
    /// nothing is left to do.
    fn deregister(&mut self, fd: RawFd) -> io::Result<()>;

    /// Waits until something is to be reported and appends it to `events`.
    ///
    /// Waits at most `timeout`; `None` is without limit, zero only looks. Returns early when it is woken. It may return
    /// without events for no reason at all, and does after a signal and after a day: the caller looks at the clock
    /// and comes again. A descriptor may appear twice, once for each direction; order means nothing.
    ///
    /// # Errors
    ///
    /// Those of the system, which mean that this selector has come to its end. `EINTR` is none of them.
    fn select(&mut self, events: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()>;

    /// Gives what ends a [`select`](Self::select) from elsewhere.
    ///
    /// It is the same one each time, and harmless once the selector is gone.
    fn waker(&self) -> Arc<dyn SelectorWaker>;

    /// Lends a descriptor that is readable while [`select`](Self::select) would have something to report, if there is
    /// one.
    ///
    /// With it a loop runs inside another: watch it for reading there, then call `select` with a timeout of zero. It
    /// knows nothing of timeouts, and it may be readable without reason.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Ends a [`Selector::select`], from any thread.
pub trait SelectorWaker: Send + Sync {
    /// Ends the select that is running or, if none is, the next one.
    ///
    /// What was written before it is seen after that select. Many calls may end only one select. It takes no lock and
    /// allocates nothing, so a signal handler may call it (one that keeps `errno`, as handlers must). The exception is
    /// [`ParkSelector`](crate::selector::ParkSelector), where that depends on the system.
    fn wake(&self);
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// A read, an accept or the end of the input would not block.
    pub readable: bool,
    /// A write would not block, or a connect has ended.
    pub writable: bool,
}

impl Interest {
    /// Neither direction. epoll still reports hang-ups and errors: to hear nothing, deregister.
    pub const NONE: Self = Self { readable: false, writable: false };
    /// Reading only.
    pub const READABLE: Self = Self { readable: true, writable: false };
    /// Writing only.
    pub const WRITABLE: Self = Self { readable: false, writable: true };
    /// Reading and writing.
    pub const BOTH: Self = Self { readable: true, writable: true };

    /// Tells whether neither direction is wanted.
    pub const fn is_empty(self) -> bool {
        !self.readable && !self.writable
    }
}

/// How long a registration lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Reported by each select for as long as it holds.
    Level,
    /// Reported once, hang-ups and errors included, then silent until [`Selector::modify`] arms it again.
    ///
    /// The registration stays, so it must still be deregistered. epoll disarms both directions at the first report;
    /// kqueue keeps the other one armed, so each of the two is reported at most once.
    Oneshot,
}

/// What has happened to a descriptor.
///
/// A hang-up or an error sets both fields, whatever the interest was: the next read or write finds out what it is.
/// (kqueue tells less: there an error that is seen while writing sets `writable` alone.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key that the descriptor was registered with.
    pub key: usize,
    /// A read would not block.
    pub readable: bool,
    /// A write would not block.
    pub writable: bool,
}

/// Keeps the selectors' own keys from registrations.
pub(crate) fn check_key(key: usize) -> io::Result<()> {
    if key >= WAKE_KEY {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the two largest keys belong to the selector"));
    }
    Ok(())
}

/// Lends the descriptor with the number `fd` to `call`, which asks the system about it; `EBADF` if there can be none.
pub(crate) fn with_descriptor(fd: RawFd, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>) -> io::Result<()> {
    if fd < 0 {
        return Err(Errno::BADF.into());
    }
    // SAFETY: it is not -1, the one value that must not be. The borrow ends with `call`, whose signature cannot let it
    // out, and our callers only pass it to epoll_ctl, kevent or F_GETFD: those neither read, write nor close the file, and
    // answer EBADF where the number is not open, which is how users learn that they closed it too early.
    call(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Whether the number is that of an open descriptor.
pub(crate) fn is_open(fd: RawFd) -> bool {
    with_descriptor(fd, |fd| Ok(rustix::io::fcntl_getfd(fd).map(drop)?)).is_ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Read, Write};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Instant;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::fcntl_dupfd_cloexec;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Runs `test` on a thread of its own, where a select may wait without limit: whoever hangs is found out here.
    pub(crate) fn within_limit(test: impl FnOnce() + Send + 'static) {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            test();
            sender.send(()).expect("the test still waits");
        });
        match receiver.recv_timeout(LIMIT) {
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs"),
            _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        }
    }

    /// What a select finds that only looks, sorted.
    fn look(selector: &mut impl Selector) -> Vec<Event> {
        let mut events = Vec::new();
        selector.select(&mut events, Some(Duration::ZERO)).unwrap();
        events.sort_by_key(|event| event.key);
        events
    }

    fn event(key: usize, readable: bool, writable: bool) -> Event {
        Event { key, readable, writable }
    }

    fn readable_now(fd: BorrowedFd<'_>) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    }

    /// A descriptor number that no other test uses, so that it can be closed and taken again.
    fn own_number() -> RawFd {
        static NEXT: AtomicI32 = AtomicI32::new(700);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// Moves `stream` to the number `number`.
    fn at_number(stream: UnixStream, number: RawFd) -> OwnedFd {
        let moved = fcntl_dupfd_cloexec(&stream, number).unwrap();
        assert_eq!(moved.as_raw_fd(), number);
        moved
    }

    /// Fills the stream's buffers, so that it is not writable.
    fn fill(stream: &mut UnixStream) {
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 4096]).is_ok() {}
    }

    #[track_caller]
    fn assert_errno(result: io::Result<()>, errno: Errno) {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(errno.raw_os_error()));
    }

    #[track_caller]
    fn assert_kind(result: io::Result<()>, kind: io::ErrorKind) {
        assert_eq!(result.unwrap_err().kind(), kind);
    }

    fn a_wake_before_a_select_ends_it(mut selector: impl Selector) {
        selector.waker().wake();
        selector.select(&mut Vec::new(), None).unwrap();
    }

    fn many_wakes_end_one_select(mut selector: impl Selector) {
        (0..5000).for_each(|_| selector.waker().wake());
        selector.select(&mut Vec::new(), None).unwrap();
        let (started, timeout) = (Instant::now(), Duration::from_millis(3));
        selector.select(&mut Vec::new(), Some(timeout)).unwrap();
        assert!(started.elapsed() >= timeout, "a wake was left over");
    }

    /// Each round arms the other thread and then waits, so that wakes come before, at the start of and in a select.
    fn no_wake_from_another_thread_is_lost(mut selector: impl Selector) {
        let rounds = if cfg!(miri) { 20 } else { 3000 };
        let (arm, armed) = mpsc::channel::<Arc<AtomicBool>>();
        let waker = selector.waker();
        let thread = thread::spawn(move || {
            for (round, flag) in armed.iter().enumerate() {
                (0..round % 64).for_each(|_| std::hint::spin_loop());
                flag.store(true, Ordering::Relaxed);
                waker.wake();
            }
        });
        for _ in 0..rounds {
            let flag = Arc::new(AtomicBool::new(false));
            arm.send(flag.clone()).unwrap();
            while !flag.load(Ordering::Relaxed) {
                selector.select(&mut Vec::new(), None).unwrap();
            }
        }
        drop(arm);
        thread.join().unwrap();
    }

    fn wakes_of_several_threads_end_a_select_after_the_last(mut selector: impl Selector) {
        let (threads, wakes) = if cfg!(miri) { (3, 5) } else { (4, 2000) };
        let count = Arc::new(AtomicI32::new(0));
        for _ in 0..threads {
            let (count, waker) = (count.clone(), selector.waker());
            thread::spawn(move || {
                for _ in 0..wakes {
                    count.fetch_add(1, Ordering::Relaxed);
                    waker.wake();
                }
            });
        }
        while count.load(Ordering::Relaxed) < threads * wakes {
            selector.select(&mut Vec::new(), None).unwrap();
        }
    }

    fn a_waker_outlives_its_selector(selector: impl Selector) {
        let waker = selector.waker();
        drop(selector);
        waker.wake();
        thread::spawn(move || waker.wake()).join().unwrap();
    }

    fn a_wait_is_never_short_and_not_rounded_to_milliseconds(mut selector: impl Selector) {
        let timeout = Duration::from_micros(200);
        let mut waits: Vec<_> = (0..20)
            .map(|_| {
                let started = Instant::now();
                selector.select(&mut Vec::new(), Some(timeout)).unwrap();
                started.elapsed()
            })
            .collect();
        waits.sort();
        assert!(waits[0] >= timeout, "{:?}", waits[0]);
        // The shortest one shows the selector; the others show the load of the machine.
        assert!(waits[0] < Duration::from_millis(1) || cfg!(miri), "{:?}", waits[0]);
    }

    fn the_longest_timeout_is_no_error(mut selector: impl Selector) {
        selector.waker().wake();
        selector.select(&mut Vec::new(), Some(Duration::MAX)).unwrap();
    }

    fn level_is_reported_until_it_ends(mut selector: impl Selector) {
        let (mut watched, mut peer) = UnixStream::pair().unwrap();
        selector.register(watched.as_raw_fd(), 5, Interest::READABLE, Mode::Level).unwrap();
        assert_eq!(look(&mut selector), []);
        peer.write_all(b"xy").unwrap();
        assert_eq!(look(&mut selector), [event(5, true, false)]);
        watched.read_exact(&mut [0]).unwrap();
        assert_eq!(look(&mut selector), [event(5, true, false)]);
        watched.read_exact(&mut [0]).unwrap();
        assert_eq!(look(&mut selector), []);
        selector.deregister(watched.as_raw_fd()).unwrap();
        peer.write_all(b"z").unwrap();
        assert_eq!(look(&mut selector), []);
    }

    fn oneshot_is_reported_once_until_it_is_armed_again(mut selector: impl Selector) {
        let (watched, mut peer) = UnixStream::pair().unwrap();
        let fd = watched.as_raw_fd();
        selector.register(fd, 5, Interest::READABLE, Mode::Oneshot).unwrap();
        peer.write_all(b"x").unwrap();
        assert_eq!(look(&mut selector), [event(5, true, false)]);
        assert_eq!(look(&mut selector), []);
        peer.write_all(b"y").unwrap();
        assert_eq!(look(&mut selector), []);
        drop(peer);
        assert_eq!(look(&mut selector), [], "a hang-up is silent as well");
        selector.modify(fd, 6, Interest::READABLE, Mode::Oneshot).unwrap();
        assert_eq!(look(&mut selector), [event(6, true, true)]);
        assert_eq!(look(&mut selector), []);
        selector.deregister(fd).unwrap();
    }

    fn modify_changes_key_interest_and_mode(mut selector: impl Selector) {
        let (watched, mut peer) = UnixStream::pair().unwrap();
        let fd = watched.as_raw_fd();
        selector.register(fd, 1, Interest::READABLE, Mode::Oneshot).unwrap();
        selector.modify(fd, 2, Interest::WRITABLE, Mode::Level).unwrap();
        assert_eq!(look(&mut selector), [event(2, false, true)]);
        assert_eq!(look(&mut selector), [event(2, false, true)]);
        peer.write_all(b"x").unwrap();
        selector.modify(fd, 3, Interest::BOTH, Mode::Level).unwrap();
        let both = look(&mut selector);
        assert!(both.iter().all(|event| event.key == 3));
        assert!(both.iter().any(|event| event.readable) && both.iter().any(|event| event.writable));
        selector.modify(fd, 4, Interest::READABLE, Mode::Oneshot).unwrap();
        assert_eq!(look(&mut selector), [event(4, true, false)]);
        assert_eq!(look(&mut selector), []);
        selector.modify(fd, 4, Interest::NONE, Mode::Level).unwrap();
        assert_eq!(look(&mut selector), []);
        selector.deregister(fd).unwrap();
    }

    fn a_full_stream_is_not_writable(mut selector: impl Selector) {
        let (mut watched, mut peer) = UnixStream::pair().unwrap();
        fill(&mut watched);
        selector.register(watched.as_raw_fd(), 5, Interest::BOTH, Mode::Level).unwrap();
        assert_eq!(look(&mut selector), []);
        peer.set_nonblocking(true).unwrap();
        while peer.read(&mut [0; 4096]).is_ok() {}
        assert_eq!(look(&mut selector), [event(5, false, true)]);
        selector.deregister(watched.as_raw_fd()).unwrap();
    }

    fn a_hang_up_sets_both_directions(mut selector: impl Selector) {
        let (watched, peer) = UnixStream::pair().unwrap();
        selector.register(watched.as_raw_fd(), 5, Interest::READABLE, Mode::Level).unwrap();
        drop(peer);
        assert_eq!(look(&mut selector), [event(5, true, true)]);
        assert_eq!(look(&mut selector), [event(5, true, true)]);
        selector.deregister(watched.as_raw_fd()).unwrap();
        assert_eq!(look(&mut selector), []);
    }

    fn many_descriptors_are_reported_in_one_select(mut selector: impl Selector) {
        let streams: Vec<_> = (0..100).map(|_| UnixStream::pair().unwrap()).collect();
        for (key, (watched, mut peer)) in streams.iter().map(|(watched, peer)| (watched, peer)).enumerate() {
            selector.register(watched.as_raw_fd(), key, Interest::READABLE, Mode::Level).unwrap();
            peer.write_all(b"x").unwrap();
        }
        let expected: Vec<_> = (0..streams.len()).map(|key| event(key, true, false)).collect();
        assert_eq!(look(&mut selector), expected);
        streams.iter().for_each(|(watched, _)| selector.deregister(watched.as_raw_fd()).unwrap());
    }

    fn select_appends(mut selector: impl Selector) {
        let (watched, _peer) = UnixStream::pair().unwrap();
        selector.register(watched.as_raw_fd(), 5, Interest::WRITABLE, Mode::Level).unwrap();
        selector.waker().wake();
        let mut events = vec![event(1, false, false)];
        selector.select(&mut events, None).unwrap();
        assert_eq!(events, [event(1, false, false), event(5, false, true)]);
        selector.deregister(watched.as_raw_fd()).unwrap();
    }

    fn readiness_ends_a_select_without_limit(mut selector: impl Selector) {
        let (watched, mut peer) = UnixStream::pair().unwrap();
        selector.register(watched.as_raw_fd(), 5, Interest::READABLE, Mode::Level).unwrap();
        let thread = thread::spawn(move || {
            peer.write_all(b"x").unwrap();
            peer
        });
        let mut events = Vec::new();
        while events.is_empty() {
            selector.select(&mut events, None).unwrap();
        }
        assert_eq!(events, [event(5, true, false)]);
        selector.deregister(watched.as_raw_fd()).unwrap();
        drop(thread.join().unwrap());
    }

    fn known_and_unknown_descriptors_are_told_apart(mut selector: impl Selector) {
        let (watched, _peer) = UnixStream::pair().unwrap();
        let fd = watched.as_raw_fd();
        assert_kind(selector.modify(fd, 1, Interest::BOTH, Mode::Level), io::ErrorKind::NotFound);
        assert_kind(selector.deregister(fd), io::ErrorKind::NotFound);
        selector.register(fd, 1, Interest::READABLE, Mode::Level).unwrap();
        assert_kind(selector.register(fd, 1, Interest::READABLE, Mode::Level), io::ErrorKind::AlreadyExists);
        selector.deregister(fd).unwrap();
        selector.register(fd, 1, Interest::READABLE, Mode::Level).unwrap();
        selector.deregister(fd).unwrap();
        assert_kind(selector.deregister(fd), io::ErrorKind::NotFound);
    }

    fn numbers_that_are_no_descriptors_are_refused(mut selector: impl Selector) {
        for fd in [-1, -2, RawFd::MIN, 10_000_000] {
            assert_errno(selector.register(fd, 1, Interest::READABLE, Mode::Level), Errno::BADF);
        }
        for fd in [-1, RawFd::MIN] {
            assert_errno(selector.modify(fd, 1, Interest::READABLE, Mode::Level), Errno::BADF);
            assert_errno(selector.deregister(fd), Errno::BADF);
        }
        assert_eq!(look(&mut selector), []);
    }

    fn the_selectors_own_keys_are_refused(mut selector: impl Selector) {
        let (watched, _peer) = UnixStream::pair().unwrap();
        let fd = watched.as_raw_fd();
        selector.register(fd, usize::MAX - 2, Interest::WRITABLE, Mode::Level).unwrap();
        for key in [usize::MAX, usize::MAX - 1] {
            assert_kind(selector.register(fd, key, Interest::BOTH, Mode::Level), io::ErrorKind::InvalidInput);
            assert_kind(selector.modify(fd, key, Interest::BOTH, Mode::Level), io::ErrorKind::InvalidInput);
        }
        assert_eq!(look(&mut selector), [event(usize::MAX - 2, false, true)]);
        selector.deregister(fd).unwrap();
    }

    fn a_number_that_was_closed_can_be_watched_again(mut selector: impl Selector) {
        let number = own_number();
        let (first, mut old_peer) = UnixStream::pair().unwrap();
        let first = at_number(first, number);
        selector.register(number, 1, Interest::READABLE, Mode::Level).unwrap();
        drop(first);
        // The peer's write fails: nobody holds the other end any more.
        let _ = old_peer.write(b"x");
        assert_eq!(look(&mut selector), []);

        let (second, mut peer) = UnixStream::pair().unwrap();
        let second = at_number(second, number);
        match selector.modify(number, 2, Interest::READABLE, Mode::Level) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                selector.register(number, 2, Interest::READABLE, Mode::Level).unwrap();
            }
            result => result.unwrap(),
        }
        peer.write_all(b"x").unwrap();
        assert_eq!(look(&mut selector), [event(2, true, false)]);
        selector.deregister(number).unwrap();
        drop(second);
    }

    fn the_selectors_descriptor_is_readable_while_there_is_something_to_report(mut selector: impl Selector) {
        let (mut watched, mut peer) = UnixStream::pair().unwrap();
        selector.register(watched.as_raw_fd(), 1, Interest::READABLE, Mode::Level).unwrap();
        let readable = |selector: &dyn Selector| readable_now(selector.as_fd().unwrap());
        assert!(!readable(&selector));
        selector.waker().wake();
        assert!(readable(&selector));
        assert_eq!(look(&mut selector), []);
        assert!(!readable(&selector));
        peer.write_all(b"x").unwrap();
        assert!(readable(&selector));
        assert_eq!(look(&mut selector), [event(1, true, false)]);
        assert!(readable(&selector));
        watched.read_exact(&mut [0]).unwrap();
        assert_eq!(look(&mut selector), []);
        assert!(!readable(&selector));
    }

    fn one_selector_watches_another(mut selector: impl Selector) {
        let mut outer = crate::sys::poll::PollingSelector::new().unwrap();
        let inner_fd = selector.as_fd().unwrap().as_raw_fd();
        outer.register(inner_fd, 9, Interest::READABLE, Mode::Level).unwrap();
        assert_eq!(look(&mut outer), []);
        selector.waker().wake();
        assert_eq!(look(&mut outer), [event(9, true, false)]);
        assert_eq!(look(&mut selector), []);
        assert_eq!(look(&mut outer), []);
        outer.deregister(inner_fd).unwrap();
    }

    macro_rules! suite {
        ($name:ident, $new:expr, [$($test:ident),* $(,)?]) => {
            mod $name {
                $(#[test]
                fn $test() {
                    super::within_limit(|| super::$test($new));
                })*
            }
        };
    }

    macro_rules! suite_of_descriptors {
        ($name:ident, $new:expr) => {
            suite!(
                $name,
                $new,
                [
                    a_wake_before_a_select_ends_it,
                    many_wakes_end_one_select,
                    no_wake_from_another_thread_is_lost,
                    wakes_of_several_threads_end_a_select_after_the_last,
                    a_waker_outlives_its_selector,
                    a_wait_is_never_short_and_not_rounded_to_milliseconds,
                    the_longest_timeout_is_no_error,
                    level_is_reported_until_it_ends,
                    oneshot_is_reported_once_until_it_is_armed_again,
                    modify_changes_key_interest_and_mode,
                    a_full_stream_is_not_writable,
                    a_hang_up_sets_both_directions,
                    many_descriptors_are_reported_in_one_select,
                    select_appends,
                    readiness_ends_a_select_without_limit,
                    known_and_unknown_descriptors_are_told_apart,
                    numbers_that_are_no_descriptors_are_refused,
                    the_selectors_own_keys_are_refused,
                    a_number_that_was_closed_can_be_watched_again,
                    the_selectors_descriptor_is_readable_while_there_is_something_to_report,
                    one_selector_watches_another,
                ]
            );
        };
    }

    #[cfg(target_os = "linux")]
    suite_of_descriptors!(epoll, crate::sys::epoll::EpollSelector::new().unwrap());

    suite_of_descriptors!(polling, crate::sys::poll::PollingSelector::new().unwrap());

    suite!(
        park,
        crate::sys::park::ParkSelector::new(),
        [
            a_wake_before_a_select_ends_it,
            many_wakes_end_one_select,
            no_wake_from_another_thread_is_lost,
            wakes_of_several_threads_end_a_select_after_the_last,
            a_waker_outlives_its_selector,
            a_wait_is_never_short_and_not_rounded_to_milliseconds,
            the_longest_timeout_is_no_error,
        ]
    );
}
