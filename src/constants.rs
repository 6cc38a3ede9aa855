//! Numbers of the crate: unit, reason, and asyncio's name where it has one.

use std::time::Duration;

/// A callback that runs longer is reported in debug mode (asyncio: `slow_callback_duration`, 0.1 s).
pub(crate) const SLOW_CALLBACK_DURATION: Duration = Duration::from_millis(100);

/// The longest single wait of a selector (asyncio: `MAXIMUM_SELECT_TIMEOUT`, one day). A later deadline is waited for
/// in several waits, so that no system's limit on timeouts matters.
pub(crate) const MAXIMUM_SELECT_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// How far ahead a saturated deadline lies: farther than any program runs, near enough for `Instant` everywhere.
pub(crate) const FAR_FUTURE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How many steps more a cancelled body has in which those who poll several of its awaitables at once may come to the one
/// that takes the cancellation: `FuturesUnordered` stops early to let others run.
pub(crate) const MOST_SPARED: u8 = 8;

/// How long `run` waits for the default executor's threads (asyncio: `THREAD_JOIN_TIMEOUT`, 300 s).
pub(crate) const THREAD_JOIN_TIMEOUT: Duration = Duration::from_secs(300);

/// Threads for name resolution, apart from the executor's so that neither can starve the other.
pub(crate) const RESOLVER_THREADS: usize = 4;

/// The environment variable that switches debug mode on when it is set to anything but nothing
/// (asyncio: `PYTHONASYNCIODEBUG`).
pub(crate) const DEBUG_VARIABLE: &str = "ASYNCIO_DEBUG";
