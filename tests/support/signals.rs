//! Sending signals, looking at what they do, and forking: for tests that have a process of their own.
#![allow(dead_code, unused_imports, reason = "each area uses a part of it")]
#![expect(unsafe_code, reason = "signals and fork are calls of the C library")]

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

pub(crate) use libc::{SIG_DFL, SIG_IGN, SIGALRM, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

/// Sends the signal to this very thread: it has arrived when this returns.
pub(crate) fn raise(number: i32) {
    // SAFETY: raise takes a number; what it runs are handlers that may run at any time.
    assert_eq!(unsafe { libc::raise(number) }, 0);
}

/// Sends the signal to this process, as Ctrl-C and `kill` do; the system picks the thread.
pub(crate) fn send(number: i32) {
    // SAFETY: kill takes numbers; what it runs are handlers that may run at any time.
    assert_eq!(unsafe { libc::kill(libc::getpid(), number) }, 0);
}

/// Sends the signal to this process when `delay` has passed, whatever the loop does meanwhile.
pub(crate) fn send_later(number: i32, delay: Duration) -> JoinHandle<()> {
    thread::spawn(move || {
        thread::sleep(delay);
        send(number);
    })
}

/// What the process does when the signal arrives: `SIG_DFL`, `SIG_IGN` or the address of a handler.
pub(crate) fn disposition(number: i32) -> libc::sighandler_t {
    let mut current = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action sigaction only writes the old one, to a pointer that is valid; zeros are valid too.
    unsafe {
        assert_eq!(libc::sigaction(number, std::ptr::null(), current.as_mut_ptr()), 0);
        current.assume_init().sa_sigaction
    }
}

/// Gives the signal a disposition, as C code would. Background jobs of a shell begin with SIGINT ignored, so that a test
/// that counts on the default says so.
pub(crate) fn install(number: i32, handler: libc::sighandler_t) {
    // SAFETY: the tests give the two constants and the function below, which adds to an atomic.
    assert_ne!(unsafe { libc::signal(number, handler) }, libc::SIG_ERR);
}

static FOREIGN_CALLS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn foreign(_: libc::c_int) {
    FOREIGN_CALLS.fetch_add(1, Ordering::SeqCst);
}

/// A handler of somebody else's, for `install`.
pub(crate) fn foreign_handler() -> libc::sighandler_t {
    foreign as extern "C" fn(libc::c_int) as libc::sighandler_t
}

/// How often the signal has reached `foreign_handler`.
pub(crate) fn foreign_calls() -> usize {
    FOREIGN_CALLS.load(Ordering::SeqCst)
}

/// How a forked child ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(i32),
    Killed(i32),
}

/// Runs `body` in a forked child, which has exited 0 if it came to its end and 101 if it panicked. To be called while the
/// process has one thread only, so that the child may do anything.
pub(crate) fn fork(body: impl FnOnce()) -> Ended {
    // SAFETY: with one thread no lock is held by another one; the child leaves without any clean-up of the parent's.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = if catch_unwind(AssertUnwindSafe(body)).is_ok() { 0 } else { 101 };
        // SAFETY: it takes a number and does not return.
        unsafe { libc::_exit(code) };
    }
    assert!(child > 0, "{}", io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: the child is ours and the pointer is valid.
    while unsafe { libc::waitpid(child, &mut status, 0) } != child {
        assert_eq!(io::Error::last_os_error().kind(), io::ErrorKind::Interrupted);
    }
    if libc::WIFSIGNALED(status) {
        Ended::Killed(libc::WTERMSIG(status))
    } else {
        Ended::Exited(libc::WEXITSTATUS(status))
    }
}

/// Whether the descriptor is readable now.
pub(crate) fn is_readable(fd: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: std::os::fd::AsRawFd::as_raw_fd(&fd), events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one entry, as the count says, and the descriptor is open.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}

/// Sets a variable of this process's environment, or removes it. To be called while there is one thread only.
pub(crate) fn set_environment(name: &str, value: Option<&str>) {
    match value {
        // SAFETY: no other thread reads or writes the environment.
        Some(value) => unsafe { std::env::set_var(name, value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(name) },
    }
}
