//! Sockets and names.

pub(crate) mod connect;
pub(crate) mod datagram;
pub(crate) mod listen;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod pipe;
pub(crate) mod resolve;
pub(crate) mod sendfile;
pub(crate) mod server;
pub(crate) mod sock;
pub(crate) mod socket_file;
#[cfg(feature = "tls")]
pub(crate) mod start_tls;
pub(crate) mod unix;
