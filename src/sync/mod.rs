//! Waiting for each other in a fair line: locks, events, conditions, semaphores, barriers, queues.
//!
//! Each is a clonable handle of a state behind a mutex that is held for moments, never while somebody waits. Wakers and
//! drops of users' values run after it was let go.

pub(crate) mod barrier;
pub(crate) mod condition;
pub(crate) mod event;
pub(crate) mod lock;
pub(crate) mod queue;
pub(crate) mod semaphore;
mod waiters;

use std::{
    sync::{Mutex, MutexGuard},
    task::Context as Cx,
};

use crate::{
    event_loop::{running, scope::Leaf},
    sync::waiters::Wakers,
};

/// The state is sound between any two of its changes, so that a panic inside of one does not matter.
fn locked<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// To be called before `Poll::Pending`, outside of the state's lock.
fn suspend(leaf: &mut Leaf, cx: &Cx<'_>) {
    running::with(|running| leaf.suspend(running, cx));
}

fn wake_all(wakers: Wakers) {
    wakers.wake();
}
