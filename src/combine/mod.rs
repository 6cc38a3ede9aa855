//! Tasks put together, bounded in time, and handed to threads.

pub(crate) mod cancellable;
pub(crate) mod shielded;
pub(crate) mod sleep;
pub(crate) mod timeout;
pub(crate) mod to_thread;
