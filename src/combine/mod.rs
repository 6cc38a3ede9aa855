//! Tasks put together, bounded in time, and handed to threads.

pub(crate) mod as_completed;
pub(crate) mod async_generator;
pub(crate) mod cancellable;
pub(crate) mod child;
pub(crate) mod gather;
pub(crate) mod gather_args;
pub(crate) mod shield;
pub(crate) mod shielded;
pub(crate) mod sleep;
pub(crate) mod staggered;
pub(crate) mod task_group;
pub(crate) mod timeout;
pub(crate) mod to_thread;
pub(crate) mod wait;
