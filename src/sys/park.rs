//! The selector that watches nothing and only lets its thread sleep.

use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::constants::MAXIMUM_SELECT_TIMEOUT;

use super::selector::{Event, Interest, Mode, Selector, SelectorWaker};

/// A selector without descriptors, for loops that do no I/O and for Miri.
///
/// It parks its thread, opens nothing and makes no system call of its own. Unparks by other code neither end a
/// [`select`](Selector::select) nor get lost for long: its own waker marks what it does, and a thread that parks must
/// expect to be unparked for nothing.
///
/// Threads: it parks the one it was made on and stays there. Where the system has no futex (macOS, NetBSD), an unpark
/// may take a lock: do not wake it in a signal handler there.
///
/// # Examples
///
/// ```
/// use asyncio::selector::{ParkSelector, Selector};
///
/// let mut selector = ParkSelector::new();
/// let waker = selector.waker();
/// let other = std::thread::spawn(move || waker.wake());
/// selector.select(&mut Vec::new(), None)?; // sleeps until the other thread wakes it
/// other.join().expect("it does not panic");
/// # std::io::Result::Ok(())
/// ```
///
/// It cannot leave its thread, where nobody would unpark it:
///
/// ```compile_fail,E0277
/// fn send<T: Send>() {}
/// send::<asyncio::selector::ParkSelector>();
/// ```
#[derive(Debug)]
pub struct ParkSelector {
    waker: Arc<ParkWaker>,
    /// A selector that moved would park one thread and unpark another.
    bound_to_its_thread: PhantomData<*const ()>,
}

impl ParkSelector {
    /// Makes a selector for the current thread.
    pub fn new() -> Self {
        let waker = ParkWaker { woken: AtomicBool::new(false), thread: thread::current() };
        Self { waker: Arc::new(waker), bound_to_its_thread: PhantomData }
    }
}

impl Default for ParkSelector {
    fn default() -> Self {
        Self::new()
    }
}

impl Selector for ParkSelector {
    fn register(&mut self, _: RawFd, _: usize, _: Interest, _: Mode) -> io::Result<()> {
        Err(no_descriptors())
    }

    fn modify(&mut self, _: RawFd, _: usize, _: Interest, _: Mode) -> io::Result<()> {
        Err(no_descriptors())
    }

    fn deregister(&mut self, _: RawFd) -> io::Result<()> {
        Err(no_descriptors())
    }

    fn select(&mut self, _: &mut Vec<Event>, timeout: Option<Duration>) -> io::Result<()> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout.min(MAXIMUM_SELECT_TIMEOUT));
        while !self.waker.take_wake() {
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => break,
                Some(left) => thread::park_timeout(left),
            }
        }
        Ok(())
    }

    fn waker(&self) -> Arc<dyn SelectorWaker> {
        self.waker.clone()
    }
}

/// Wakes by unparking the selector's thread.
#[derive(Debug)]
struct ParkWaker {
    /// Set by `wake()`; cleared by the select that it ends. An unpark without it is not ours.
    woken: AtomicBool,
    thread: Thread,
}

impl ParkWaker {
    fn take_wake(&self) -> bool {
        self.woken.swap(false, Ordering::Acquire)
    }
}

impl SelectorWaker for ParkWaker {
    fn wake(&self) {
        // A swap and not a store: it keeps the release of an earlier wake that the same select is to see.
        self.woken.swap(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn no_descriptors() -> io::Error {
    let text = "a ParkSelector watches no descriptors; give the loop an EpollSelector or a PollingSelector";
    io::Error::new(io::ErrorKind::Unsupported, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unparks_by_others_do_not_end_a_select() {
        let mut selector = ParkSelector::new();
        let (started, timeout) = (Instant::now(), Duration::from_millis(5));
        let sleeper = thread::current();
        sleeper.unpark();
        let unparker = thread::spawn(move || (0..50).for_each(|_| sleeper.unpark()));
        selector.select(&mut Vec::new(), Some(timeout)).unwrap();
        assert!(started.elapsed() >= timeout);
        unparker.join().unwrap();
    }

    #[test]
    fn a_look_takes_no_time_and_takes_the_wake() {
        let mut selector = ParkSelector::new();
        selector.select(&mut Vec::new(), Some(Duration::ZERO)).unwrap();
        selector.waker().wake();
        selector.select(&mut Vec::new(), Some(Duration::ZERO)).unwrap();
        assert!(!selector.waker.take_wake());
    }

    #[test]
    fn descriptors_are_refused_with_a_reason() {
        let mut selector = ParkSelector::new();
        for result in [
            selector.register(0, 0, Interest::READABLE, Mode::Level),
            selector.modify(0, 0, Interest::READABLE, Mode::Level),
            selector.deregister(0),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(error.to_string().contains("watches no descriptors"));
        }
        assert!(selector.as_fd().is_none());
    }
}
