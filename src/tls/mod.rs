//! TLS over any transport: a session that only turns bytes into bytes, and the transport that is made of it.

pub(crate) mod context;
pub(crate) mod context_builder;
mod delivery;
mod errors;
pub(crate) mod extra_info;
pub(crate) mod protocol;
mod rustls;
pub(crate) mod session;
mod state;
mod transport;
