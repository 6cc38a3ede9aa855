//! Who waits for a future or task: wakers and done callbacks in one list, in the order they came.

use std::{
    num::NonZeroU64,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Waker,
};

use crate::{
    error::Error,
    event_loop::{callbacks::CallbackKey, observers::Member},
    report,
};

/// A place in a [`Waiters`] list; kept by whoever waits, to be found again.
pub(crate) type Place = NonZeroU64;

/// Wakes a waker that may be anybody's: a panic of its own harms nobody else, and is written to the log.
#[inline]
pub(crate) fn wake(waker: Waker) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        report::error(&format!("Exception in a waker\n{}", Error::from_panic(payload)));
    }
}

pub(crate) enum Waiter {
    Waker(Waker),
    Callback(CallbackKey),
    Observer(Member),
}

/// The first waiter needs no allocation: there is seldom a second.
///
/// Invariant: `more` is empty while `first` is `None` and nothing was removed; places rise. At most half of `more` is
/// gone, so that neither does a removal shift the others, nor do the gaps take more room than the living.
#[derive(Default)]
pub(crate) struct Waiters {
    first: Option<(Place, Waiter)>,
    more: Vec<(Place, Option<Waiter>)>,
    /// How many of `more` were removed.
    gone: usize,
    last: u64,
}

impl Waiters {
    /// Puts a waker at the end, or refreshes it where it stands. Gives a waker that is no longer needed, for the caller
    /// to drop outside its lock.
    #[inline]
    #[must_use]
    pub(crate) fn register(&mut self, place: &mut Option<Place>, waker: &Waker) -> Option<Waker> {
        if let Some(Waiter::Waker(known)) = place.and_then(|place| self.find(place)) {
            if known.will_wake(waker) {
                return None;
            }
            return Some(std::mem::replace(known, waker.clone()));
        }
        *place = Some(self.push(Waiter::Waker(waker.clone())));
        None
    }

    #[inline]
    pub(crate) fn push(&mut self, waiter: Waiter) -> Place {
        self.last += 1;
        let place = Place::new(self.last).expect("a number that is counted up from zero for centuries");
        if self.first.is_none() && self.more.is_empty() {
            self.first = Some((place, waiter));
        } else {
            self.more.push((place, Some(waiter)));
        }
        place
    }

    pub(crate) fn remove(&mut self, place: Place) -> Option<Waiter> {
        if self.first.as_ref().is_some_and(|first| first.0 == place) {
            return self.first.take().map(|first| first.1);
        }
        let index = self.index(place)?;
        let waiter = self.more[index].1.take()?;
        self.gone += 1;
        if self.gone * 2 > self.more.len() {
            self.more.retain(|entry| entry.1.is_some());
            self.gone = 0;
        }
        Some(waiter)
    }

    /// Takes the first of the line.
    pub(crate) fn pop(&mut self) -> Option<Waiter> {
        if let Some(first) = self.first.take() {
            return Some(first.1);
        }
        let place = self.more.iter().find(|entry| entry.1.is_some())?.0;
        self.remove(place)
    }

    /// Whether somebody stands at `place`.
    pub(crate) fn holds(&self, place: Place) -> bool {
        let first = self.first.as_ref().is_some_and(|first| first.0 == place);
        first || self.index(place).is_some_and(|index| self.more[index].1.is_some())
    }

    /// Removes a callback, if it is the one that stands at `place`; true if it was.
    pub(crate) fn remove_callback(&mut self, place: Place, key: CallbackKey) -> bool {
        let stands = matches!(self.find(place), Some(Waiter::Callback(known)) if *known == key);
        stands && self.remove(place).is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_empty()
    }

    /// Whether somebody awaits the outcome, by itself or with others.
    pub(crate) fn has_wakers(&self) -> bool {
        self.iter().any(|waiter| !matches!(waiter, Waiter::Callback(_)))
    }

    pub(crate) fn has_callbacks(&self) -> bool {
        self.iter().any(|waiter| matches!(waiter, Waiter::Callback(_)))
    }

    /// The usual case, one waker or nobody; else the list back.
    #[inline]
    pub(crate) fn into_one_waker(self) -> Result<Option<Waker>, Waiters> {
        match self.first {
            Some((_, Waiter::Waker(waker))) if self.more.is_empty() => Ok(Some(waker)),
            None if self.more.is_empty() => Ok(None),
            first => Err(Waiters { first, ..self }),
        }
    }

    /// All of them, in order.
    pub(crate) fn into_iter(self) -> impl Iterator<Item = Waiter> {
        let first = self.first.map(|entry| entry.1);
        first.into_iter().chain(self.more.into_iter().filter_map(|entry| entry.1))
    }

    fn iter(&self) -> impl Iterator<Item = &Waiter> {
        let first = self.first.as_ref().map(|entry| &entry.1);
        first.into_iter().chain(self.more.iter().filter_map(|entry| entry.1.as_ref()))
    }

    fn find(&mut self, place: Place) -> Option<&mut Waiter> {
        if self.first.as_ref().is_some_and(|first| first.0 == place) {
            return self.first.as_mut().map(|first| &mut first.1);
        }
        let index = self.index(place)?;
        self.more[index].1.as_mut()
    }

    fn index(&self, place: Place) -> Option<usize> {
        self.more.binary_search_by_key(&place, |entry| entry.0).ok()
    }
}
