//! What a cancellation carries: a message, and who asked for it.

use std::fmt;

use crate::error::Text;

/// The data of [`Error::Cancelled`](crate::Error::Cancelled): the reason that travels with a cancellation. Two are equal if their messages are.
///
/// # Examples
///
/// ```
/// use asyncio::{Canceller, Error, create_task, sleep};
/// use std::time::Duration;
///
/// asyncio::run(async {
///     let task = create_task(async { sleep(Duration::MAX).await });
///     sleep(Duration::ZERO).await?;
///     task.cancel_with("the user left");
///     let Err(Error::Cancelled(cancelled)) = task.await else { unreachable!() };
///     assert_eq!(cancelled.message.as_deref(), Some("the user left"));
///     assert!(matches!(cancelled.by, Some(Canceller::Task(_)))); // this one
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: the argument of `CancelledError`. Differs: says who as well.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Cancelled {
    /// What was given to `cancel_with`, if anything.
    pub message: Option<Text>,
    /// Who asked for it, where that is known: the first who did, however far it was passed on.
    pub by: Option<Canceller>,
}

impl Cancelled {
    /// A cancellation with this message, or without one.
    pub fn new(message: Option<Text>) -> Self {
        Cancelled { message, by: None }
    }

    pub(crate) fn by(by: impl Into<Option<Canceller>>, message: Option<Text>) -> Self {
        Cancelled { message, by: by.into() }
    }
}

impl PartialEq for Cancelled {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

impl Eq for Cancelled {}

/// The message, or "cancelled".
impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or("cancelled"))
    }
}

/// Who asked for a cancellation; `Display` says it in words.
///
/// asyncio: has no counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Canceller {
    /// A task, by the N of its first name "Task-N".
    Task(u32),
    /// A callback, or code between two runs of the loop.
    Callback,
    /// Another thread than the loop's.
    Thread,
    /// A timeout or a deadline that passed.
    Timeout,
    /// A task group, because one of its tasks or its body failed, or because it was told to.
    TaskGroup,
    /// An async generator that is being closed.
    AsyncGenerator,
    /// SIGINT (Ctrl-C) under `run` or `run_workers`.
    Interrupt,
    /// SIGTERM under a `Runner` with `graceful_shutdown`.
    Terminate,
    /// `run` or `Runner`, which cancels what is left when the main coroutine has ended.
    Runner,
    /// `run_workers`, because of SIGTERM or because another worker failed.
    Workers,
}

impl fmt::Display for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Canceller::Task(number) => write!(f, "Task-{number}"),
            Canceller::Callback => f.write_str("a callback"),
            Canceller::Thread => f.write_str("another thread"),
            Canceller::Timeout => f.write_str("a timeout"),
            Canceller::TaskGroup => f.write_str("a task group"),
            Canceller::AsyncGenerator => f.write_str("an async generator"),
            Canceller::Interrupt => f.write_str("SIGINT"),
            Canceller::Terminate => f.write_str("SIGTERM"),
            Canceller::Runner => f.write_str("the runner"),
            Canceller::Workers => f.write_str("run_workers"),
        }
    }
}
