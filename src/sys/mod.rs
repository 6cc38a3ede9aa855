//! The system: descriptors, threads, signals. `unsafe` lives here and in `event_loop/step.rs`, nowhere else.
#![expect(unsafe_code, reason = "system calls are made here and nowhere else")]

pub(crate) mod addr;
pub(crate) mod child;
#[cfg(target_os = "linux")]
pub(crate) mod epoll;
pub(crate) mod fork;
#[cfg(feature = "process-pool")]
pub(crate) mod function;
pub(crate) mod park;
pub(crate) mod pipe;
pub(crate) mod poll;
pub(crate) mod resolve;
pub(crate) mod selector;
pub(crate) mod sendfile;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod thread_pool;

use std::io;

use selector::Selector;

/// The best selector that the system has.
pub(crate) fn system_selector() -> io::Result<Box<dyn Selector>> {
    #[cfg(target_os = "linux")]
    match epoll::EpollSelector::new() {
        Ok(selector) => return Ok(Box::new(selector)),
        // A kernel before 5.11 lacks a call; `polling` does without.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
        Err(error) => return Err(error),
    }
    Ok(Box::new(poll::PollingSelector::new()?))
}
