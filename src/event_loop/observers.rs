//! Who waits for several tasks and futures together: groups, gather, wait, shield.
//!
//! Each learns of an end in the iteration after it, as a done callback would, but without an allocation for each.

use std::{num::NonZeroU32, rc::Rc};

use crate::{
    error::{Cancelled, Error},
    event_loop::{
        EventLoop,
        meta::{TaskKey, flag},
        running,
        step::TaskRef,
        turn::Ready,
        waiters::{Place, Waiter},
    },
};

/// Waits for several tasks and futures. None of these calls runs foreign code.
pub(crate) trait Observer {
    /// A task that was made for this observer has ended, this instant. Whether that counts as a look at its error.
    fn ended(&self, index: u32, error: Option<&Error>) -> bool {
        let _ = (index, error);
        false
    }

    /// The iteration after a task or future has ended.
    fn child_done(&self, event_loop: &EventLoop, index: u32);

    /// The tasks that it waits for and passes cancellations on to.
    fn tasks(&self) -> Vec<TaskKey> {
        Vec::new()
    }

    /// Passes a cancellation on; whether anybody took it.
    fn cancel(&self, reason: &Cancelled) -> bool {
        let _ = reason;
        false
    }
}

/// Names an observer for as long as it observes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObserverKey {
    slot: u32,
    pub(super) number: NonZeroU32,
}

/// One of those that an observer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) observer: ObserverKey,
    pub(crate) index: u32,
}

/// The observers of a loop.
#[derive(Default)]
pub(crate) struct Observers {
    slab: slab::Slab<(NonZeroU32, Rc<dyn Observer>)>,
    last: u32,
}

impl Observers {
    fn get(&self, key: ObserverKey) -> Option<&Rc<dyn Observer>> {
        self.slab.get(key.slot as usize).filter(|entry| entry.0 == key.number).map(|entry| &entry.1)
    }

    pub(super) fn drain(&mut self) -> Vec<Rc<dyn Observer>> {
        self.slab.drain().map(|entry| entry.1).collect()
    }
}

/// Where a task or future keeps who observes it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Observed {
    /// It was done.
    Not,
    /// In the task's slot.
    Slot,
    /// In the list of those who wait.
    Listed(Place),
}

impl EventLoop {
    pub(crate) fn add_observer(&self, observer: Rc<dyn Observer>) -> ObserverKey {
        let mut observers = self.inner.observers.borrow_mut();
        observers.last = observers.last.wrapping_add(1).max(1);
        let number = NonZeroU32::new(observers.last).expect("at least one");
        let slot = observers.slab.insert((number, observer));
        ObserverKey { slot: u32::try_from(slot).expect("fewer observers than memory"), number }
    }

    /// Lets the observer go; who still names it names nobody.
    pub(crate) fn remove_observer(&self, key: ObserverKey) {
        let mut observers = self.inner.observers.borrow_mut();
        let known = observers.get(key).is_some();
        let observer = known.then(|| observers.slab.remove(key.slot as usize));
        drop(observers);
        drop(observer);
    }

    fn observer(&self, key: ObserverKey) -> Option<Rc<dyn Observer>> {
        self.inner.observers.borrow().get(key).cloned()
    }

    /// A member task has ended. Gives whether that counts as a look at its error; `None` if nobody observes any more.
    pub(super) fn member_ended(&self, member: Member, error: Option<&Error>) -> Option<bool> {
        let observer = self.observer(member.observer)?;
        self.push(Ready::Child(member));
        Some(observer.ended(member.index, error))
    }

    pub(super) fn tell_observer(&self, member: Member) {
        if let Some(observer) = self.observer(member.observer) {
            observer.child_done(self, member.index);
        }
    }

    pub(super) fn observed_tasks(&self, key: ObserverKey) -> Vec<TaskKey> {
        self.observer(key).map_or_else(Vec::new, |observer| observer.tasks())
    }

    /// Tells apart the rounds in which cancellations are passed along; `None` outside of one.
    pub(crate) fn cancellation_round(&self) -> Option<u64> {
        self.inner.cancelling.get().then(|| self.inner.cancellations.get())
    }

    /// Passes a cancellation on to what the observer waits for; whether anybody took it.
    pub(super) fn cancel_observed(&self, key: ObserverKey, reason: &Cancelled) -> bool {
        self.observer(key).is_some_and(|observer| observer.cancel(reason))
    }
}

impl TaskRef {
    /// Lets `member`'s observer learn of the end. On the loop's thread only.
    pub(crate) fn observe(&self, member: Member) -> Observed {
        if self.is_done() {
            return Observed::Not;
        }
        // The list takes an allocation; who comes first can do without, and comes first then.
        if !self.has(flag::LISTED | flag::AWAITED) {
            if let Some(event_loop) = running::local(&self.shared) {
                if event_loop.inner.tasks.borrow_mut().set_member(self.key(), member) {
                    return Observed::Slot;
                }
            }
        }
        let place = self.with_waiters(|waiters| waiters.push(Waiter::Observer(member)));
        place.map_or(Observed::Not, Observed::Listed)
    }

    /// Takes back what [`observe`](Self::observe) did.
    pub(crate) fn unobserve(&self, member: Member, observed: Observed) {
        match observed {
            Observed::Not => {}
            Observed::Slot => {
                if let Some(event_loop) = running::local(&self.shared) {
                    event_loop.inner.tasks.borrow_mut().take_member(self.key(), member);
                }
            }
            Observed::Listed(place) => {
                let waiter = self.with_waiters(|waiters| waiters.remove(place));
                drop(waiter);
            }
        }
    }
}
