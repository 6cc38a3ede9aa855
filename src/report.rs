//! Where reports go when nobody handles them: `tracing`, or stderr where no subscriber is set.

use std::{
    fmt,
    io::{self, Write as _},
    panic::{AssertUnwindSafe, Location, catch_unwind},
};

use tracing::subscriber::NoSubscriber;

use crate::error::Error;

/// Whether a subscriber hears what this thread writes: one for all threads, or its own.
fn is_heard() -> bool {
    tracing::dispatcher::get_default(|subscriber| !subscriber.is::<NoSubscriber>())
}

/// Writes an ERROR record.
pub(crate) fn error(text: &str) {
    write(text, || tracing::error!(target: "asyncio", "{text}"));
}

/// Writes a WARN record.
pub(crate) fn warning(text: &str) {
    write(text, || tracing::warn!(target: "asyncio", "{text}"));
}

/// Reports come from drops and from the loop's edge: a subscriber that panics or a stderr that is closed must not end
/// what they report about.
fn write(text: &str, trace: impl FnOnce()) {
    let written = catch_unwind(AssertUnwindSafe(|| {
        if is_heard() {
            trace();
        } else {
            // Nobody is left to tell.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }));
    if let Err(payload) = written {
        drop(Error::from_panic(payload));
    }
}

/// What a report says of a future: which one it was and how it stood. The future itself may be gone.
///
/// Two are equal if they speak of the same future; [`Future::any`](crate::Future::any) gives one to compare with.
///
/// asyncio: the key `future` of an exception handler's context.
#[derive(Clone)]
pub struct AnyFuture {
    pub(crate) id: u64,
    pub(crate) state: FutureSummary,
    pub(crate) created: &'static Location<'static>,
}

#[derive(Clone)]
pub(crate) enum FutureSummary {
    Pending,
    Cancelled,
    Finished,
    Failed(Error),
}

impl AnyFuture {
    /// What tells this future from all others of the process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where the future was created.
    pub fn source_location(&self) -> &'static Location<'static> {
        self.created
    }
}

impl PartialEq for AnyFuture {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for AnyFuture {}

impl fmt::Debug for AnyFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            FutureSummary::Pending => write!(f, "<Future pending")?,
            FutureSummary::Cancelled => write!(f, "<Future cancelled")?,
            FutureSummary::Finished => write!(f, "<Future finished")?,
            FutureSummary::Failed(error) => write!(f, "<Future finished exception={error:?}")?,
        }
        write!(f, " created at {}>", self.created)
    }
}
