//! Sockets and names.

pub(crate) mod resolve;
pub(crate) mod sock;
