//! Subprocesses with streams, and where their standard streams lead.
//!
//! asyncio: `asyncio.subprocess`.

pub use crate::process::{
    spawn::{CreateSubprocess, Program, WithProtocol},
    stdio::Stdio,
};

/// See [`Stdio::PIPE`].
pub const PIPE: Stdio = Stdio::PIPE;

/// See [`Stdio::DEVNULL`].
pub const DEVNULL: Stdio = Stdio::DEVNULL;

/// See [`Stdio::INHERIT`].
pub const INHERIT: Stdio = Stdio::INHERIT;

/// See [`Stdio::STDOUT`].
pub const STDOUT: Stdio = Stdio::STDOUT;
