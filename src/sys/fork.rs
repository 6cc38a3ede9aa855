//! Tells a forked child that it is one, without a system call per question.
//!
//! A loop remembers the [`generation`] it was made in; another one means that its descriptors are shared with a parent.

use std::sync::{
    Once,
    atomic::{AtomicU32, Ordering},
};

/// Grows by one in each child, at its birth and nowhere else, from the first [`watch`] on.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between the process that first called [`watch`] and this one.
///
/// One relaxed load; may be called inside a signal handler. A process made by `vfork`, by a bare `clone` or by
/// `posix_spawn` is not noticed: it runs another program at once.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Sees to it that forks are counted from now on; called wherever a loop is made, only the first call does anything.
///
/// # Panics
///
/// If the system has no memory left.
pub(crate) fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        // SAFETY: the handler is a function of this program that only adds to an atomic, which is all that a child of
        // a process with several threads may do.
        let status = unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
        assert_eq!(status, 0, "pthread_atfork fails only for want of memory");
    });
}

/// Runs in the child before `fork` returns there, when it has no other thread.
unsafe extern "C" fn count_fork() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `body` gives in a forked child; it must be async-signal-safe.
    fn in_child(body: impl FnOnce() -> u32) -> u32 {
        // SAFETY: the tests' bodies load an atomic or fork again; the child then leaves without any clean-up.
        let child = unsafe {
            let child = libc::fork();
            if child == 0 {
                libc::_exit(body() as i32);
            }
            child
        };
        assert!(child > 0);
        let mut status = 0;
        // SAFETY: the child is ours and the pointer is valid.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert!(libc::WIFEXITED(status));
        libc::WEXITSTATUS(status) as u32
    }

    #[test]
    fn the_generation_grows_in_the_child_and_stays_in_the_parent() {
        watch();
        watch();
        let before = generation();
        assert_eq!(in_child(generation), before + 1);
        assert_eq!(generation(), before);
        assert_eq!(in_child(generation), before + 1);
    }

    #[test]
    fn a_grandchild_is_two_generations_away() {
        watch();
        let before = generation();
        assert_eq!(in_child(|| in_child(generation)), before + 2);
    }

    #[test]
    fn every_thread_sees_the_same_generation() {
        watch();
        assert_eq!(std::thread::spawn(generation).join().unwrap(), generation());
    }
}
