//! How other threads tell a loop that there is work, with one system call per sleep at most.
//!
//! The atomics come from the including module, so that the loom test can put its own in their place.

use super::sync::{AtomicBool, Ordering};

/// Two flags between one sleeper and many fillers.
///
/// ```text
/// filler:  (work is in) filled = true;  if asleep was set: clear it and wake
/// sleeper: asleep = true;  if filled: do not sleep;  sleep;  asleep = false
/// ```
///
/// Both sides write their own flag before they read the other's, in one total order: either the sleeper sees the work
/// or the filler sees the sleeper.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// Set by a filler after its work is in; cleared by the sleeper before it takes the work.
    filled: AtomicBool,
    /// Set by the sleeper; cleared by the sleeper when it is awake and by the filler that wakes it.
    asleep: AtomicBool,
}

impl Handshake {
    pub(crate) fn new() -> Self {
        Handshake { filled: AtomicBool::new(false), asleep: AtomicBool::new(false) }
    }

    /// Says that work is in; the caller must wake the sleeper if this is true. Safe inside a signal handler.
    #[must_use]
    pub(crate) fn fill(&self) -> bool {
        self.filled.store(true, Ordering::SeqCst);
        self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst)
    }

    /// Whether there may be work.
    pub(crate) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Whether there may be work; the caller takes it after this.
    pub(crate) fn take(&self) -> bool {
        self.is_filled() && self.filled.swap(false, Ordering::SeqCst)
    }

    /// Announces a sleep; false if there is work and the sleep must not happen.
    #[must_use]
    pub(crate) fn fall_asleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        !self.filled.load(Ordering::SeqCst)
    }

    /// Ends the sleep: from here on nobody needs to wake the sleeper.
    pub(crate) fn wake_up(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}
