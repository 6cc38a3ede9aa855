//! Where a loop's time comes from.

use std::{
    cell::Cell,
    fmt,
    rc::Rc,
    time::{Duration, Instant},
};

/// The time of a loop: what `EventLoop::time` gives and deadlines are compared with.
///
/// Time must never go backwards. The loop asks for it on its own thread only.
///
/// asyncio: `loop.time()`.
pub trait Clock {
    /// The time now.
    fn now(&self) -> Instant;

    /// Called when the loop has nothing left to do but to wait until `deadline`, that of its first timer or of a
    /// `run_once`: nothing is ready, and nothing outside the loop (an executor's job, a descriptor) is being waited for.
    ///
    /// A clock that can jump goes to `deadline` and says `true`; the default says `false`, and the loop waits.
    fn advance_to(&self, deadline: Instant) -> bool {
        let _ = deadline;
        false
    }

    /// Whether time stands still unless it is moved: then the loop never bounds a wait by a deadline.
    fn is_virtual(&self) -> bool {
        false
    }
}

/// The system's monotonic clock: the default.
///
/// asyncio: `time.monotonic`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A clock for tests: it stands still while there is work and jumps to the next deadline when there is none.
///
/// Clones are the same clock. A program that sleeps for an hour is tested in no time, in the same order of events.
/// Time does not jump while an executor's job runs or a descriptor is being waited for (unless that descriptor is marked
/// with [`set_background`](crate::EventLoop::set_background)).
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let clock = asyncio::VirtualClock::new();
/// let event_loop = asyncio::EventLoop::builder().clock(clock.clone()).build()?;
/// let (begin, real) = (event_loop.time(), Instant::now());
/// event_loop.run_until_complete(asyncio::sleep(Duration::from_secs(3600)))?;
/// assert_eq!(event_loop.time() - begin, Duration::from_secs(3600));
/// assert!(real.elapsed() < Duration::from_secs(5));
/// # asyncio::ok(())
/// ```
#[derive(Clone)]
pub struct VirtualClock {
    now: Rc<Cell<Instant>>,
}

impl VirtualClock {
    /// A clock that stands at the present.
    pub fn new() -> Self {
        VirtualClock { now: Rc::new(Cell::new(Instant::now())) }
    }

    /// Moves the clock on by hand; timers that are due then run in the loop's next iteration.
    pub fn advance(&self, duration: Duration) {
        self.now.set(self.now.get().checked_add(duration).unwrap_or(self.now.get()));
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VirtualClock").field(&self.now.get()).finish()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        self.now.get()
    }

    fn advance_to(&self, deadline: Instant) -> bool {
        self.now.set(self.now.get().max(deadline));
        true
    }

    fn is_virtual(&self) -> bool {
        true
    }
}
