//! Where a loop keeps its streams, and what leads there from anywhere.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use slab::Slab;

use crate::{
    error::{Error, Result},
    event_loop::{
        EventLoop,
        exceptions::{check_loop, other_thread},
        running, slots,
        threadsafe::Shared,
    },
    streams::core::{Half, StreamCore},
};

/// The streams of a loop that somebody holds a half of.
type Streams = RefCell<Slab<Rc<StreamCore>>>;

fn streams(event_loop: &EventLoop) -> Rc<Streams> {
    event_loop.slots().get_or_init(slots::STREAMS, Streams::default)
}

/// What the halves of a stream hold of it.
///
/// `Threads:` may cross them; the stream is found on its loop's alone.
#[derive(Clone)]
pub(super) struct StreamKey {
    index: usize,
    number: u64,
    shared: Arc<Shared>,
}

impl StreamKey {
    /// Gives a stream to those who hold its `halves`.
    pub(super) fn share(event_loop: &EventLoop, core: &Rc<StreamCore>, halves: &[Half]) -> Self {
        halves.iter().for_each(|half| core.hold(*half));
        let index = streams(event_loop).borrow_mut().insert(core.clone());
        StreamKey { index, number: core.number, shared: event_loop.inner.shared.clone() }
    }

    /// The stream, for a call that belongs to its loop's thread.
    #[inline]
    pub(super) fn core(&self, call: &str) -> Result<Rc<StreamCore>> {
        let here = |running: Option<&EventLoop>| {
            running.filter(|running| running.inner.shared.id == self.shared.id).and_then(|running| self.find(running))
        };
        match running::with(here) {
            Some(core) => Ok(core),
            None => self.core_aside(call),
        }
    }

    /// The same where the loop does not run.
    #[cold]
    fn core_aside(&self, call: &str) -> Result<Rc<StreamCore>> {
        match running::local(&self.shared) {
            Some(event_loop) => self.find(&event_loop).ok_or_else(|| Error::Runtime("Event loop is closed".into())),
            None if self.shared.on_its_thread() => Err(Error::Runtime("Event loop is closed".into())),
            None => Err(other_thread(call)),
        }
    }

    #[inline]
    fn find(&self, event_loop: &EventLoop) -> Option<Rc<StreamCore>> {
        let find =
            |streams: &Streams| streams.borrow().get(self.index).filter(|core| core.number == self.number).cloned();
        event_loop.slots().look(slots::STREAMS, find).flatten()
    }

    /// Lets go of one half: now, or as soon as the loop comes to it.
    pub(super) fn release(&self, half: Half) {
        let key = self.clone();
        let release = move |event_loop: &EventLoop| key.release_in(event_loop, half);
        match running::local(&self.shared) {
            Some(event_loop) => release(&event_loop),
            None => drop(self.shared.push_call(release)), // a closed loop has no streams
        }
    }

    fn release_in(&self, event_loop: &EventLoop, half: Half) {
        let Some(core) = self.find(event_loop) else { return };
        core.release(half);
        if core.is_given_up() {
            let removed = streams(event_loop).borrow_mut().try_remove(self.index);
            drop(removed);
        }
    }

    /// Refuses to wait in another loop, which would never hear of it.
    pub(super) fn check_loop(&self) -> Result<()> {
        running::with(|running| check_loop(self.shared.id, running))
    }

    pub(super) fn is_of(&self, other: &StreamKey) -> bool {
        (self.index, self.number, self.shared.id) == (other.index, other.number, other.shared.id)
    }
}
