//! What reads from a stream fail with.

use std::fmt;

use crate::error::Text;

/// The data of [`Error::IncompleteRead`](crate::Error::IncompleteRead): the stream ended too early.
///
/// asyncio: `asyncio.IncompleteReadError`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncompleteReadError {
    partial: Vec<u8>,
    expected: Option<usize>,
}

impl IncompleteReadError {
    pub(crate) fn new(partial: Vec<u8>, expected: Option<usize>) -> Self {
        IncompleteReadError { partial, expected }
    }

    /// What came before the end; the reader has it no more.
    ///
    /// asyncio: `partial`.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// How many bytes were asked for; `None` where a separator was.
    ///
    /// asyncio: `expected`.
    pub fn expected(&self) -> Option<usize> {
        self.expected
    }
}

impl fmt::Display for IncompleteReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.expected {
            Some(expected) => write!(f, "{} bytes read on a total of {expected} expected bytes", self.partial.len()),
            None => write!(f, "{} bytes read on a total of undefined expected bytes", self.partial.len()),
        }
    }
}

/// The data of [`Error::LimitOverrun`](crate::Error::LimitOverrun): a separator did not come within the limit.
///
/// asyncio: `asyncio.LimitOverrunError`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitOverrunError {
    message: Text,
    consumed: usize,
}

impl LimitOverrunError {
    pub(crate) fn new(message: &str, consumed: usize) -> Self {
        LimitOverrunError { message: message.into(), consumed }
    }

    /// How many bytes there are before the separator, or before where it may begin: they are still in the reader, and
    /// can be read by their number.
    ///
    /// asyncio: `consumed`.
    pub fn consumed(&self) -> usize {
        self.consumed
    }
}

impl fmt::Display for LimitOverrunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
