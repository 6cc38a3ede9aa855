//! The fair line: who waits, in the order of coming, and who was woken and has not gone on yet.

use std::task::Waker;

use slab::Slab;

use crate::event_loop::waiters::wake;

/// A place in a [`Line`], kept by whoever waits there until it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(usize);

/// Those who wait, in order, and those who were woken and have not left.
///
/// ```text
/// push --> waiting --wake_first, wake_all--> woken --leave--> gone
///             `--------------------leave-------------------------^
/// ```
///
/// One whose task was cancelled stands there until the task runs, and what it is given meanwhile goes on then.
///
/// Every step takes the same time, however long the line is; none allocates once the line has been as long before.
/// Invariant: the waiting ones, and they alone, have a waker and are linked from `first` to `last`.
#[derive(Debug, Default)]
pub(super) struct Line {
    entries: Slab<Entry>,
    first: Option<usize>,
    last: Option<usize>,
    /// How many of the entries were woken.
    woken: usize,
}

#[derive(Debug)]
struct Entry {
    waker: Option<Waker>,
    /// Whether it is a stream's or a sink's, which may have turned to other things.
    is_face: bool,
    is_nudged: bool,
    before: Option<usize>,
    next: Option<usize>,
}

impl Line {
    /// Whether nobody waits, and nobody was woken who has not left.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many were not woken yet.
    pub(super) fn waiting(&self) -> usize {
        self.entries.len() - self.woken
    }

    /// Whether somebody was woken and has not left.
    pub(super) fn has_woken(&self) -> bool {
        self.woken > 0
    }

    /// Joins the line at its end.
    pub(super) fn push(&mut self, waker: &Waker) -> Place {
        self.insert(waker, false)
    }

    /// As [`push`](Self::push), for a stream or a sink: nobody is told when it is given up, so that a wake for it goes to
    /// the next one as well.
    pub(super) fn push_face(&mut self, waker: &Waker) -> Place {
        self.insert(waker, true)
    }

    fn insert(&mut self, waker: &Waker, is_face: bool) -> Place {
        let index = self.entries.insert(Entry {
            waker: Some(waker.clone()),
            is_face,
            is_nudged: false,
            before: self.last,
            next: None,
        });
        match self.last.replace(index) {
            Some(last) => self.entries[last].next = Some(index),
            None => self.first = Some(index),
        }
        Place(index)
    }

    pub(super) fn is_woken(&self, place: Place) -> bool {
        self.entries[place.0].waker.is_none()
    }

    /// Changes whom to wake, if that is another one. Gives the waker that is no longer needed, for the caller to drop
    /// outside its lock.
    #[must_use]
    pub(super) fn refresh(&mut self, place: Place, waker: &Waker) -> Option<Waker> {
        let known = self.entries[place.0].waker.as_mut()?;
        if known.will_wake(waker) {
            return None;
        }
        Some(std::mem::replace(known, waker.clone()))
    }

    /// Leaves the line. Gives the waker of one who was still waiting, for the caller to drop outside its lock; `None`
    /// says that it was woken.
    #[must_use]
    pub(super) fn leave(&mut self, place: Place) -> Option<Waker> {
        let entry = self.entries.remove(place.0);
        if entry.waker.is_none() {
            self.woken -= 1;
            return None;
        }
        self.unlink(entry.before, entry.next);
        entry.waker
    }

    /// Marks the first one who waits as woken. The caller wakes it outside its lock.
    #[must_use]
    pub(super) fn wake_first(&mut self) -> Option<Waker> {
        let entry = &mut self.entries[self.first?];
        let (waker, next) = (entry.waker.take(), entry.next);
        self.unlink(None, next);
        self.woken += 1;
        waker
    }

    /// Marks the first one who waits as woken. If that is a stream or a sink, those who come after it are nudged, too, as
    /// far as the first one who is neither: they keep their places.
    #[inline]
    #[must_use]
    pub(super) fn wake_next(&mut self) -> Wakers {
        let Some(first) = self.first else { return Wakers::default() };
        let Entry { is_face, next, .. } = self.entries[first];
        let mut wakers = Wakers { first: self.wake_first(), more: Vec::new() };
        if is_face {
            self.nudge(next, &mut wakers.more);
        }
        wakers
    }

    #[cold]
    fn nudge(&mut self, mut next: Option<usize>, wakers: &mut Vec<Waker>) {
        while let Some(entry) = next.map(|next| &mut self.entries[next]) {
            entry.is_nudged = true;
            wakers.extend(entry.waker.clone());
            next = entry.next.filter(|_| entry.is_face);
        }
    }

    /// Whether one who waits was told to look, because who was woken may have turned to other things. Once.
    pub(super) fn take_nudge(&mut self, place: Place) -> bool {
        std::mem::take(&mut self.entries[place.0].is_nudged)
    }

    /// Marks the first `count` of those who wait as woken.
    #[must_use]
    pub(super) fn wake_many(&mut self, count: usize) -> Wakers {
        let first = if count > 0 { self.wake_first() } else { None };
        let more = count.saturating_sub(1).min(self.waiting());
        Wakers { first, more: (0..more).map_while(|_| self.wake_first()).collect() }
    }

    /// Marks all who wait as woken.
    #[must_use]
    pub(super) fn wake_all(&mut self) -> Wakers {
        self.wake_many(usize::MAX)
    }

    /// Closes the gap between two neighbours.
    fn unlink(&mut self, before: Option<usize>, next: Option<usize>) {
        match before {
            Some(before) => self.entries[before].next = next,
            None => self.first = next,
        }
        match next {
            Some(next) => self.entries[next].before = before,
            None => self.last = before,
        }
    }
}

/// Wakers on their way out of a lock, in order. The first needs no allocation: there is seldom a second.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    first: Option<Waker>,
    more: Vec<Waker>,
}

impl Wakers {
    /// Wakes them, in order.
    #[inline]
    pub(super) fn wake(self) {
        if let Some(first) = self.first {
            wake(first);
        }
        if !self.more.is_empty() {
            self.more.into_iter().for_each(wake);
        }
    }

    #[cfg(test)]
    fn into_iter(self) -> impl Iterator<Item = Waker> {
        self.first.into_iter().chain(self.more)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    /// Tells wakers apart: each writes its number when it is used.
    struct Number(usize, Arc<AtomicUsize>);

    impl Wake for Number {
        fn wake(self: Arc<Self>) {
            self.1.store(self.0, Ordering::Relaxed);
        }
    }

    #[derive(Default)]
    struct Wakings(Arc<AtomicUsize>);

    impl Wakings {
        fn waker(&self, number: usize) -> Waker {
            Arc::new(Number(number, self.0.clone())).into()
        }

        fn number(&self, waker: Option<Waker>) -> Option<usize> {
            waker?.wake();
            Some(self.0.load(Ordering::Relaxed))
        }

        fn numbers(&self, wakers: Wakers) -> Vec<usize> {
            wakers.into_iter().filter_map(|waker| self.number(Some(waker))).collect()
        }
    }

    #[test]
    fn the_first_to_come_is_the_first_to_be_woken() {
        let (mut line, wakings) = (Line::default(), Wakings::default());
        let places = [1, 2, 3].map(|number| line.push(&wakings.waker(number)));
        assert_eq!(wakings.number(line.wake_first()), Some(1));
        assert_eq!(places.map(|place| line.is_woken(place)), [true, false, false]);
        assert_eq!((line.waiting(), line.has_woken(), line.is_empty()), (2, true, false));
        assert!(line.leave(places[0]).is_none(), "it was woken");
        assert_eq!(wakings.numbers(line.wake_all()), [2, 3]);
        assert!(line.wake_first().is_none());
        assert!(places[1..].iter().all(|place| line.leave(*place).is_none()));
        assert!(line.is_empty() && !line.has_woken());
    }

    #[test]
    fn who_leaves_the_middle_is_not_woken() {
        let (mut line, wakings) = (Line::default(), Wakings::default());
        let places = [1, 2, 3, 4].map(|number| line.push(&wakings.waker(number)));
        assert_eq!(wakings.number(line.leave(places[1])), Some(2));
        assert_eq!(wakings.number(line.leave(places[3])), Some(4));
        line.push(&wakings.waker(5));
        assert_eq!(wakings.numbers(line.wake_many(2)), [1, 3]);
        assert_eq!(wakings.numbers(line.wake_many(0)), []);
        assert_eq!(wakings.numbers(line.wake_many(9)), [5]);
    }

    #[test]
    fn a_place_keeps_its_turn_when_its_waker_changes() {
        let (mut line, wakings) = (Line::default(), Wakings::default());
        let waker = wakings.waker(1);
        let place = line.push(&waker);
        line.push(&wakings.waker(2));
        assert!(line.refresh(place, &waker).is_none(), "it is the same one");
        assert_eq!(wakings.number(line.refresh(place, &wakings.waker(3))), Some(1));
        assert_eq!(wakings.numbers(line.wake_all()), [3, 2]);
        assert!(line.refresh(place, &waker).is_none(), "it was woken");
        assert!(line.is_woken(place));
    }

    #[test]
    fn whatever_happens_the_line_is_as_a_plain_list_says() {
        let (mut line, wakings) = (Line::default(), Wakings::default());
        let (mut waiting, mut woken) = (VecDeque::<(usize, Place)>::new(), Vec::<Place>::new());
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for number in 1..20_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let choice = random as usize >> 8;
            match random % 7 {
                0..=2 => waiting.push_back((number, line.push(&wakings.waker(number)))),
                3 => {
                    let first = waiting.pop_front();
                    assert_eq!(wakings.number(line.wake_first()), first.map(|first| first.0));
                    woken.extend(first.map(|first| first.1));
                }
                4 if !waiting.is_empty() => {
                    let (number, place) = waiting.remove(choice % waiting.len()).expect("it is not empty");
                    assert_eq!(wakings.number(line.leave(place)), Some(number));
                }
                5 if !woken.is_empty() => {
                    let place = woken.swap_remove(choice % woken.len());
                    assert!(line.leave(place).is_none());
                }
                6 if choice % 64 == 0 => {
                    let numbers = waiting.iter().map(|entry| entry.0).collect::<Vec<_>>();
                    assert_eq!(wakings.numbers(line.wake_all()), numbers);
                    woken.extend(waiting.drain(..).map(|entry| entry.1));
                }
                _ => {}
            }
            assert_eq!((line.waiting(), line.has_woken()), (waiting.len(), !woken.is_empty()));
            assert_eq!(line.is_empty(), waiting.is_empty() && woken.is_empty());
        }
    }
}
