//! Done callbacks: they may hold `Rc`, so they stay with the loop while futures and tasks keep their keys.

use std::rc::Rc;

use crate::event_loop::{
    EventLoop,
    handle::RunHandle,
    turn::Ready,
    waiters::{Waiter, Waiters, wake},
};

/// Names a stored callback; stale once the callback was scheduled or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallbackKey {
    slot: u32,
    number: u32,
}

#[derive(Default)]
pub(crate) struct Callbacks {
    slab: slab::Slab<(u32, Rc<dyn RunHandle>)>,
    last: u32,
}

impl Callbacks {
    pub(crate) fn insert(&mut self, callback: Rc<dyn RunHandle>) -> CallbackKey {
        self.last = self.last.wrapping_add(1);
        let slot = self.slab.insert((self.last, callback));
        CallbackKey { slot: u32::try_from(slot).expect("fewer callbacks than memory"), number: self.last }
    }

    pub(crate) fn remove(&mut self, key: CallbackKey) -> Option<Rc<dyn RunHandle>> {
        let slot = key.slot as usize;
        match self.slab.get(slot) {
            Some((number, _)) if *number == key.number => Some(self.slab.remove(slot).1),
            _ => None,
        }
    }

    pub(crate) fn drain(&mut self) -> Vec<Rc<dyn RunHandle>> {
        self.slab.drain().map(|entry| entry.1).collect()
    }
}

impl EventLoop {
    /// Wakes wakers and schedules callbacks, in order. The caller holds no borrow and no lock.
    pub(crate) fn notify(&self, waiters: Waiters) {
        for waiter in waiters.into_iter() {
            match waiter {
                Waiter::Waker(waker) => wake(waker),
                Waiter::Callback(key) => {
                    let callback = self.inner.callbacks.borrow_mut().remove(key);
                    if let Some(callback) = callback {
                        self.push(Ready::Handle(callback));
                    }
                }
                Waiter::Observer(member) => self.push(Ready::Child(member)),
            }
        }
    }
}
