//! What is in a queue, who waits for it, and what each step changes; the callers wake and drop after the lock was let go.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    task::{Poll, Waker},
};

use crate::{
    error::{Error, Result},
    event_loop::waiters::wake,
    sync::{
        locked,
        queue::order::Items,
        waiters::{Line, Place, Wakers},
    },
};

/// What the handles of one queue share.
pub(super) struct Core<O> {
    /// Zero where there is no limit.
    pub(super) maxsize: usize,
    state: Mutex<State<O>>,
}

pub(super) struct State<O> {
    items: O,
    pub(super) len: usize,
    /// Places that a sink has promised and not filled.
    reserved: usize,
    pub(super) unfinished: usize,
    /// Set by shut_down(); never cleared.
    pub(super) is_shut_down: bool,
    pub(super) getters: Line,
    pub(super) putters: Line,
    pub(super) joiners: Line,
}
