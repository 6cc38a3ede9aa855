//! Streams: transports as coroutines use them.

mod buffer;
mod compat;
mod core;
pub(crate) mod feeder;
pub(crate) mod open;
pub(crate) mod pipe;
pub(crate) mod protocol;
pub(crate) mod reader;
pub(crate) mod separator;
pub(crate) mod serve;
#[cfg(feature = "tls")]
pub(crate) mod start_tls;
mod store;
pub(crate) mod stream;
pub(crate) mod writer;
