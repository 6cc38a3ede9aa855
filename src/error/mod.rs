//! One error type for everything that can go wrong, with asyncio's names.

mod cancelled;
mod group;
mod read;

use std::{
    any::Any,
    error::Error as StdError,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

pub use self::{
    cancelled::{Cancelled, Canceller},
    group::ExceptionGroup,
    read::{IncompleteReadError, LimitOverrunError},
};

/// What every fallible call of this crate gives; a coroutine is a future with this output.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A message that costs no copy when an error is cloned.
pub type Text = Arc<str>;

/// Wraps a value in this crate's [`Result`], for a bare `async` block whose error type nothing else fixes.
///
/// # Examples
///
/// ```
/// let value = asyncio::run(async {
///     let block = async {
///         asyncio::sleep(std::time::Duration::ZERO).await?;
///         asyncio::ok(5)
///     };
///     block.await
/// })?;
/// assert_eq!(value, 5);
/// # asyncio::ok(())
/// ```
pub fn ok<T>(value: T) -> Result<T> {
    Ok(value)
}

/// Everything that can go wrong, under the names that Python gives its exceptions.
///
/// Cloning is cheap: every payload is shared. Compare errors by [`kind`](Error::kind), read the text with `Display`.
///
/// `Threads:` an error may cross them.
///
/// # Examples
///
/// ```
/// use asyncio::{Error, ErrorKind};
///
/// let error = Error::Value("the size must not be zero".into());
/// assert_eq!(error.kind(), ErrorKind::Value);
/// assert_eq!(error.to_string(), "the size must not be zero");
/// ```
///
/// asyncio: the exception classes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The task, future or handle was cancelled. Clean up and pass it on with `?`. (asyncio: `CancelledError`)
    Cancelled(Cancelled),
    /// A future was completed or read in a state that does not allow it: fix the program. (`InvalidStateError`)
    InvalidState(Text),
    /// A call that the state of the loop or object forbids: fix the program. (`RuntimeError`)
    Runtime(Text),
    /// An argument that can never be right: fix the program. (`ValueError`)
    Value(Text),
    /// A context variable without a value. (`LookupError`)
    Lookup(Text),
    /// A deadline passed: retry or give up. (`TimeoutError`)
    Timeout(Text),
    /// A system call failed; the system's error is kept unchanged. (`OSError`)
    Io(Arc<IoError>),
    /// A name could not be resolved. (`socket.gaierror`)
    Resolve(Arc<ResolveError>),
    /// TLS: a handshake, a certificate or a record was not as it must be. (`ssl.SSLError`)
    Ssl(Text),
    /// A stream ended before all that was asked for had come: what came is in it. (`asyncio.IncompleteReadError`)
    IncompleteRead(Arc<IncompleteReadError>),
    /// What was read up to a separator is longer than the reader's limit. (`asyncio.LimitOverrunError`)
    LimitOverrun(Arc<LimitOverrunError>),
    /// There is no such process any more. (`ProcessLookupError`)
    ProcessLookup(Text),
    /// The system cannot send this file by itself, and sending it another way was ruled out.
    /// (`asyncio.SendfileNotAvailableError`)
    SendfileNotAvailable(Text),
    /// `get_nowait` on a queue that has nothing: wait with `get`, or come back later. (`asyncio.QueueEmpty`)
    QueueEmpty,
    /// `put_nowait` on a queue that has no room: wait with `put`, or come back later. (`asyncio.QueueFull`)
    QueueFull,
    /// The queue was shut down: there is nothing more to do with it. (`asyncio.QueueShutDown`)
    QueueShutDown,
    /// The barrier was aborted or reset while somebody waited. (`asyncio.BrokenBarrierError`)
    BrokenBarrier(Text),
    /// Several things failed together, as in a task group: all their errors. (`ExceptionGroup`)
    Group(Arc<ExceptionGroup>),
    /// A callback, coroutine or job panicked; this is the text of the panic.
    Panicked(Text),
    /// `run` or `Runner::run` was interrupted by SIGINT (Ctrl-C). (`KeyboardInterrupt`)
    KeyboardInterrupt,
    /// An error of the user's own: see [`Error::other`] and [`Error::downcast_ref`].
    Other(Arc<dyn StdError + Send + Sync>),
}

/// The kinds of [`Error`], without their data: what errors are compared by.
///
/// # Examples
///
/// ```
/// let error = asyncio::get_running_loop().unwrap_err();
/// assert_eq!(error.kind(), asyncio::ErrorKind::Runtime);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// See [`Error::Cancelled`].
    Cancelled,
    /// See [`Error::InvalidState`].
    InvalidState,
    /// See [`Error::Runtime`].
    Runtime,
    /// See [`Error::Value`].
    Value,
    /// See [`Error::Lookup`].
    Lookup,
    /// See [`Error::Timeout`].
    Timeout,
    /// See [`Error::Io`].
    Io,
    /// See [`Error::Resolve`].
    Resolve,
    /// See [`Error::Ssl`].
    Ssl,
    /// See [`Error::IncompleteRead`].
    IncompleteRead,
    /// See [`Error::LimitOverrun`].
    LimitOverrun,
    /// See [`Error::ProcessLookup`].
    ProcessLookup,
    /// See [`Error::SendfileNotAvailable`].
    SendfileNotAvailable,
    /// See [`Error::QueueEmpty`].
    QueueEmpty,
    /// See [`Error::QueueFull`].
    QueueFull,
    /// See [`Error::QueueShutDown`].
    QueueShutDown,
    /// See [`Error::BrokenBarrier`].
    BrokenBarrier,
    /// See [`Error::Group`].
    Group,
    /// See [`Error::Panicked`].
    Panicked,
    /// See [`Error::KeyboardInterrupt`].
    KeyboardInterrupt,
    /// See [`Error::Other`].
    Other,
}

/// The data of [`Error::Io`]: the system's error and, where it helps, what was being done.
///
/// asyncio: `OSError`.
#[derive(Debug)]
pub struct IoError {
    source: io::Error,
    context: Option<Text>,
}

impl IoError {
    /// The system's error, as it came.
    pub fn io_error(&self) -> &io::Error {
        &self.source
    }

    /// What was being done, for example which address was being connected to.
    pub fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }
}

/// The data of [`Error::Resolve`]: the resolver's code (`EAI_…`) and its text.
///
/// asyncio: `socket.gaierror`.
#[derive(Debug)]
pub struct ResolveError {
    code: i32,
    message: String,
}

impl ResolveError {
    /// The resolver's number, for example `EAI_NONAME` (-2 on Linux).
    pub fn code(&self) -> i32 {
        self.code
    }

    /// The resolver's text for [`code`](Self::code).
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl Error {
    /// Carries an error of the user's own; a value of type [`Error`] inside is unwrapped again.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = asyncio::Error::other("the moon is full");
    /// assert_eq!(error.to_string(), "the moon is full");
    /// ```
    pub fn other(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        match error.into().downcast::<Error>() {
            Ok(ours) => *ours,
            Err(foreign) => Error::Other(foreign.into()),
        }
    }

    /// An [`Error::Cancelled`] without a message: what a coroutine returns to end as cancelled.
    pub fn cancelled() -> Self {
        Error::Cancelled(Cancelled::default())
    }

    /// A system error together with what was being done.
    pub fn io(source: io::Error, context: impl Into<Text>) -> Self {
        Error::Io(Arc::new(IoError { source, context: Some(context.into()) }))
    }

    /// An error of the name resolver, for an own [`Resolver`](crate::Resolver): an `EAI_…` code and its text.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = asyncio::Error::resolve(-2, "Name or service not known");
    /// assert_eq!(error.to_string(), "[Errno -2] Name or service not known");
    /// ```
    pub fn resolve(code: i32, message: impl Into<String>) -> Self {
        Error::Resolve(Arc::new(ResolveError { code, message: message.into() }))
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Cancelled(_) => ErrorKind::Cancelled,
            Error::InvalidState(_) => ErrorKind::InvalidState,
            Error::Runtime(_) => ErrorKind::Runtime,
            Error::Value(_) => ErrorKind::Value,
            Error::Lookup(_) => ErrorKind::Lookup,
            Error::Timeout(_) => ErrorKind::Timeout,
            Error::Io(_) => ErrorKind::Io,
            Error::Resolve(_) => ErrorKind::Resolve,
            Error::Ssl(_) => ErrorKind::Ssl,
            Error::IncompleteRead(_) => ErrorKind::IncompleteRead,
            Error::LimitOverrun(_) => ErrorKind::LimitOverrun,
            Error::ProcessLookup(_) => ErrorKind::ProcessLookup,
            Error::SendfileNotAvailable(_) => ErrorKind::SendfileNotAvailable,
            Error::QueueEmpty => ErrorKind::QueueEmpty,
            Error::QueueFull => ErrorKind::QueueFull,
            Error::QueueShutDown => ErrorKind::QueueShutDown,
            Error::BrokenBarrier(_) => ErrorKind::BrokenBarrier,
            Error::Group(_) => ErrorKind::Group,
            Error::Panicked(_) => ErrorKind::Panicked,
            Error::KeyboardInterrupt => ErrorKind::KeyboardInterrupt,
            Error::Other(_) => ErrorKind::Other,
        }
    }

    /// Whether this is a cancellation.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Error::Cancelled(_))
    }

    /// The errors inside, if this is [`Error::Group`].
    pub fn group(&self) -> Option<&ExceptionGroup> {
        match self {
            Error::Group(group) => Some(group),
            _ => None,
        }
    }

    /// The system's error, if this is [`Error::Io`].
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Error::Io(error) => Some(&error.source),
            _ => None,
        }
    }

    /// The system's error number (errno), if this is [`Error::Io`] and the system gave one.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.io_error()?.raw_os_error()
    }

    /// The user's own error behind [`Error::Other`], if it is an `E`.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = asyncio::Error::other("x".parse::<i32>().unwrap_err());
    /// assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
    /// ```
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        match self {
            Error::Other(error) => error.downcast_ref(),
            _ => None,
        }
    }

    /// What `catch_unwind` caught, as an error. The payload is dropped; where its drop panics in turn, it is leaked.
    pub(crate) fn from_panic(payload: Box<dyn Any + Send>) -> Self {
        let error = Error::panicked(&*payload);
        if let Err(another) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
            std::mem::forget(another);
        }
        error
    }

    /// The text of a panic.
    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a panic without a text");
        Error::Panicked(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Cancelled(cancelled) => cancelled.fmt(f),
            Error::InvalidState(text)
            | Error::Runtime(text)
            | Error::Value(text)
            | Error::Lookup(text)
            | Error::Timeout(text)
            | Error::BrokenBarrier(text)
            | Error::Ssl(text)
            | Error::ProcessLookup(text)
            | Error::SendfileNotAvailable(text)
            | Error::Panicked(text) => f.write_str(text),
            Error::IncompleteRead(error) => error.fmt(f),
            Error::LimitOverrun(error) => error.fmt(f),
            Error::QueueEmpty => f.write_str("the queue is empty"),
            Error::QueueFull => f.write_str("the queue is full"),
            Error::QueueShutDown => f.write_str("the queue is shut down"),
            Error::Group(group) => fmt::Display::fmt(group, f),
            Error::Io(error) => match &error.context {
                Some(context) => write!(f, "{context}: {}", error.source),
                None => error.source.fmt(f),
            },
            Error::Resolve(error) => write!(f, "[Errno {}] {}", error.code, error.message),
            Error::KeyboardInterrupt => f.write_str("keyboard interrupt"),
            Error::Other(error) => error.fmt(f),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Io(error) => Some(&error.source),
            Error::Other(error) => error.source(),
            Error::Group(group) => group.exceptions().first().map(|error| error as &(dyn StdError + 'static)),
            _ => None,
        }
    }
}

impl From<Arc<ExceptionGroup>> for Error {
    /// Raises a group, or what is left of one, again.
    fn from(group: Arc<ExceptionGroup>) -> Self {
        Error::Group(group)
    }
}

impl From<io::Error> for Error {
    /// Keeps the system's error; an [`Error`] that travelled inside it is unwrapped.
    fn from(error: io::Error) -> Self {
        match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(source) => Error::Io(Arc::new(IoError { source, context: None })),
        }
    }
}

impl From<Error> for io::Error {
    /// Gives the system's error back where there is no context, else carries this one inside.
    fn from(error: Error) -> Self {
        match error {
            Error::Io(shared) if shared.context.is_none() => match Arc::try_unwrap(shared) {
                Ok(own) => own.source,
                Err(shared) => match shared.source.raw_os_error() {
                    Some(code) => io::Error::from_raw_os_error(code),
                    None => io::Error::new(shared.source.kind(), Error::Io(shared)),
                },
            },
            Error::Io(shared) => io::Error::new(shared.source.kind(), Error::Io(shared)),
            Error::Timeout(_) => io::Error::new(io::ErrorKind::TimedOut, error),
            Error::IncompleteRead(_) => io::Error::new(io::ErrorKind::UnexpectedEof, error),
            Error::Value(_) => io::Error::new(io::ErrorKind::InvalidInput, error),
            _ => io::Error::other(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_stays_three_words() {
        assert_eq!(size_of::<Error>(), 24);
        assert_eq!(size_of::<Result<()>>(), 24);
    }

    #[test]
    fn a_system_error_survives_the_way_there_and_back() {
        let error = Error::from(io::Error::from_raw_os_error(104));
        assert_eq!(error.raw_os_error(), Some(104));
        let other = error.clone();
        assert_eq!(io::Error::from(error).raw_os_error(), Some(104));
        assert_eq!(io::Error::from(other).raw_os_error(), Some(104));
    }

    #[test]
    fn our_error_survives_inside_a_system_error() {
        let error = Error::io(io::Error::from_raw_os_error(111), "connecting to nobody");
        let carried = io::Error::from(error);
        assert_eq!(carried.kind(), io::ErrorKind::ConnectionRefused);
        let back = Error::from(carried);
        assert_eq!(back.raw_os_error(), Some(111));
        assert!(back.to_string().starts_with("connecting to nobody: "));
        assert_eq!(Error::from(io::Error::from(Error::KeyboardInterrupt)).kind(), ErrorKind::KeyboardInterrupt);
    }
}
