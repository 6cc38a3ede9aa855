//! Subprocesses: how they are started, who learns that they ended, and their transports.

pub(crate) mod protocol;
pub(crate) mod spawn;
pub(crate) mod stdio;
pub(crate) mod transport;
pub(crate) mod watcher;
