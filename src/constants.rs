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

/// Where a transport's protocol is told to pause writing, in bytes (asyncio: 64 KiB, `DEFAULT_LIMIT`).
pub(crate) const HIGH_WATER: usize = 64 << 10;

/// What a loop's transports read into, in bytes, one for all of them (asyncio: `max_size`, 256 KiB).
pub(crate) const READ_BUFFER: usize = 256 << 10;

/// How many of them are kept: what was received, what TLS makes of it, and what it makes of the answer.
pub(crate) const READ_BUFFERS: usize = 3;

/// A write buffer up to this capacity, in bytes, is kept by its loop for the next transport that needs one.
pub(crate) const SPARE_BUFFER: usize = 1 << 20;

/// How many of them are kept.
pub(crate) const SPARE_BUFFERS: usize = 16;

/// What each datagram that waits to be sent counts in a buffer's size beside its data, in bytes (asyncio: 8).
pub(crate) const DATAGRAM_HEADER: usize = 8;

/// For how many waiting datagrams an endpoint keeps the room once they are sent.
pub(crate) const KEPT_DATAGRAMS: usize = 64;

/// How many datagrams an endpoint receives in one turn at most, so that others have theirs (asyncio: one).
pub(crate) const DATAGRAMS_PER_TURN: usize = 64;

/// How long a call to a unix socket whose queue is full waits before it is tried again: the system tells nobody when
/// there is room.
pub(crate) const BUSY_DELAY: Duration = Duration::from_millis(2);

/// How many pieces of data go into one vectored write.
pub(crate) const PIECES_PER_WRITE: usize = 128;

/// How long a server does not accept after it ran out of descriptors or memory (asyncio: `ACCEPT_RETRY_DELAY`, 1 s).
pub(crate) const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// How often a server that drains looks at its connections, and how long one is without a word until it counts as idle:
/// long beside what a program needs between two pieces of an answer, short beside any limit that an operator sets.
pub(crate) const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// How many connections may wait to be accepted, unless a server says otherwise (asyncio: 100).
pub(crate) const BACKLOG: u32 = 100;

/// How long a connect waits for one address before it tries the next one beside it (RFC 8305: 250 ms).
pub(crate) const HAPPY_EYEBALLS_DELAY: Duration = Duration::from_millis(250);

/// What a protocol that is borrowed could not be told is tried again after this time, which doubles up to the second.
pub(crate) const FIRST_RETRY: Duration = Duration::from_millis(1);
pub(crate) const LAST_RETRY: Duration = Duration::from_millis(100);

/// What a file is sent by where the system does not do it itself, in bytes
/// (asyncio: `SENDFILE_FALLBACK_READBUFFER_SIZE`).
pub(crate) const SENDFILE_FALLBACK_READBUFFER_SIZE: usize = 256 << 10;

/// How much of a file the system sends in one turn, in bytes: the others have theirs within a millisecond.
pub(crate) const SENDFILE_PER_TURN: usize = 1 << 20;

/// How many calls in a row tell a protocol what came up in the calls themselves, before others have a turn.
pub(crate) const NOTICES_PER_TURN: usize = 64;

/// How long a TLS handshake may take unless somebody says otherwise: 60 s. (asyncio: `SSL_HANDSHAKE_TIMEOUT`)
#[cfg(feature = "tls")]
pub const SSL_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a TLS connection that closes waits for the other side unless somebody says otherwise: 30 s.
/// (asyncio: `SSL_SHUTDOWN_TIMEOUT`)
#[cfg(feature = "tls")]
pub const SSL_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the protocol of a TLS transport is told to pause writing, in bytes
/// (asyncio: 512 KiB, `FLOW_CONTROL_HIGH_WATER_SSL_WRITE`).
#[cfg(feature = "tls")]
pub(crate) const HIGH_WATER_SSL: usize = 512 << 10;

/// How much of what is written TLS encrypts at once, in bytes: whole records, which fit a read buffer with what they add.
#[cfg(feature = "tls")]
pub(crate) const ENCRYPTED_AT_ONCE: usize = 15 << 14;

/// What is said of a child whose exit code nobody can know any more, because it was reaped by somebody else
/// (asyncio: 255).
pub(crate) const UNKNOWN_RETURNCODE: i32 = 255;

/// How long a loop that is closed waits for the children that it has killed: they need a moment to end.
pub(crate) const LAST_WORDS: Duration = Duration::from_millis(100);

/// How often a loop that hears of its children by SIGCHLD looks at them anyway: another handler may have taken it away.
pub(crate) const CHILDREN_CHECK: Duration = Duration::from_secs(1);

/// What a line of a stream may have, and half of what a stream holds before it pauses reading, in bytes.
/// (asyncio: `_DEFAULT_LIMIT`)
pub(crate) const LIMIT: usize = 64 << 10;

/// How often a group of processes that was asked to end is looked at: so often that its number cannot have become another
/// one's between.
pub(crate) const GROUP_CHECK: Duration = Duration::from_millis(10);
