//! Timers in a hierarchical wheel: set and cancelled in constant time, handed out in exact order.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A level has 64 slots, so that one `u64` tells which of them hold timers.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Slots of 1 ms, 64 ms, 4 s, 4 min, 5 h and 12 days: six levels reach 2^36 ms, a little over two years.
const LEVELS: usize = 6;
/// The list of what lies beyond the last level; numbered as if it were the first slot of one level more.
const OVERFLOW: usize = LEVELS * SLOTS;
/// Ends a list, and the chain of free places.
const NIL: u32 = u32::MAX;
/// What [`Entry::previous`] says of a timer in the front; at the head of list `n` it says `FRONT + 1 + n`.
const FRONT: u32 = NIL - 1 - OVERFLOW as u32 - 1;
/// Stale keys that the front may hold beyond half its length: fewer are not worth a sweep.
const STALE_SLACK: usize = 32;
/// How many keys shifted within the front cost as much as one timer taken back to the wheel and out again.
const SHIFTS_PER_REPLACEMENT: usize = 32;

/// Names one timer.
///
/// Stale after the timer fired or was removed; every operation with a stale key does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimerKey {
    slot: u32,
    generation: u32,
}

/// Values that wait for their deadlines.
///
/// Time is told and never asked for. Ticks of 1 ms only choose where a timer waits; the order, and what is due, follow
/// the exact deadlines. The earliest timers stand sorted in the front and the others unsorted in the lists of the
/// wheel, divided by `position`:
///
/// ```text
///           tick <= position                                  tick > position
///  insert --------------------> front <------ refill ------ wheel <-------------------- insert
///                               |   \-------- rewind -----> (levels 0 to 5, overflow)
///                               \-- take_due --> out
/// ```
///
/// When the front has nothing left, `refill` moves `position` to the earliest list of the wheel, however far that is,
/// and again until the front has timers: so the next deadline is known exactly, and no tick is visited in vain.
/// `position` is therefore often ahead of the time. A timer set for before it is inserted into the sorted front, and
/// when that has become too dear, `rewind` takes `position` back.
///
/// A timer waits in the level of the highest digit (base 64) in which its tick differs from `position`, in the slot
/// that this digit names. Hence the first slot in use of the lowest level in use holds the earliest timers, and when
/// `position` moves there, all other lists remain right.
pub(crate) struct Timers<T> {
    /// The instant at which tick [`When::START`] begins.
    start: Instant,
    /// The tick of the last `now`; no bound, only where `rewind` goes.
    reached: u64,
    /// Invariant: a timer stands in the front if its tick is not after this one, else in the wheel.
    position: u64,
    /// Invariant: sorted; holds every timer up to `position`, and `stale` keys of removed ones.
    front: VecDeque<Due>,
    /// How many keys in `front` are stale.
    stale: usize,
    /// How many keys insertions into `front` have shifted since the last rewind.
    shifted: usize,
    /// The head of each list of the wheel.
    heads: [u32; OVERFLOW + 1],
    /// Invariant: a bit is set if and only if that list is not empty.
    occupied: [u64; LEVELS + 1],
    slab: Slab<T>,
    /// How many timers were ever inserted.
    sequence: u64,
}

impl<T> Timers<T> {
    /// Returns an empty set whose time begins at `start`; allocates nothing.
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            reached: When::START,
            position: When::START,
            front: VecDeque::new(),
            stale: 0,
            shifted: 0,
            heads: [NIL; OVERFLOW + 1],
            occupied: [0; LEVELS + 1],
            slab: Slab { entries: Vec::new(), free: NIL, len: 0 },
            sequence: 0,
        }
    }

    /// Adds `value`, due at `deadline`, which may lie in the past, even before `start`, and in any future.
    pub(crate) fn insert(&mut self, deadline: Instant, value: T) -> TimerKey {
        let when = When::new(deadline, self.start);
        let sequence = self.sequence;
        self.sequence += 1;
        if self.is_empty() {
            self.position = when.tick; // a lone timer need not enter the wheel
        }
        let key = self.slab.occupy(when, sequence, value);
        if when.tick > self.position {
            self.link(key.slot, when.tick);
        } else {
            self.insert_into_front(Due { when, sequence, key });
        }
        key
    }

    /// Takes a timer out before its time; `None` if the key is stale.
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<T> {
        let &mut Entry { previous, next, .. } = self.slab.get(key)?;
        let value = self.slab.release(key.slot);
        if previous == FRONT {
            self.add_stale();
        } else {
            self.unlink(previous, next);
        }
        value
    }

    /// Returns the value of a timer; `None` if the key is stale.
    pub(crate) fn get_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        self.slab.get(key)?.value.as_mut()
    }

    /// Returns the earliest deadline of all, exactly.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        self.first().map(|due| due.when.instant(self.start))
    }

    /// Moves out all that is due at `now`, in the order of deadlines and, where they are equal, of insertion.
    ///
    /// `now` may be any instant, also an earlier one than before.
    pub(crate) fn take_due(&mut self, now: Instant, mut take: impl FnMut(T)) {
        let now = When::new(now, self.start);
        self.reached = now.tick;
        while let Some(due) = self.first().filter(|due| due.when <= now) {
            self.front.pop_front();
            take(self.slab.release(due.key.slot).expect("the first key in the front is live"));
        }
    }

    /// Returns how many timers there are.
    pub(crate) fn len(&self) -> usize {
        self.slab.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves out everything, in no particular order.
    pub(crate) fn drain(&mut self) -> Vec<T> {
        self.front.clear();
        self.stale = 0;
        self.heads.fill(NIL);
        self.occupied.fill(0);
        self.slab.release_all()
    }
}

/// The front: what comes next, in order.
impl<T> Timers<T> {
    /// Finds the earliest timer, which then stands first in the front.
    fn first(&mut self) -> Option<Due> {
        loop {
            match self.front.front() {
                Some(&due) if self.stale == 0 || self.slab.is_live(due.key) => return Some(due),
                Some(_) => {
                    self.front.pop_front();
                    self.stale -= 1;
                }
                None => self.refill()?,
            }
        }
    }

    /// Moves `position` to the earliest list of the wheel, whose timers go to lower levels or to the front.
    ///
    /// The front must be empty. `None` if the wheel is empty too.
    fn refill(&mut self) -> Option<()> {
        let level = self.occupied.iter().position(|&lists| lists != 0)?;
        let list = level * SLOTS + self.occupied[level].trailing_zeros() as usize;
        let is_alone = self.slab.at(self.heads[list]).next == NIL;
        self.position = match level {
            LEVELS => self.earliest_tick(list),
            _ if is_alone => self.earliest_tick(list), // saves the way through the levels
            _ => start_of(self.position, list),
        };
        self.front.clear(); // begins anew at the start of its memory, in one piece
        self.replace_list(list);
        // All of them have the tick `position`.
        self.front.make_contiguous().sort_unstable_by_key(|due| (due.when.nanos, due.sequence));
        Some(())
    }

    /// Inserts a timer whose tick is not after `position`; of those with its deadline it is the last.
    fn insert_into_front(&mut self, due: Due) {
        let index = match self.front.back() {
            Some(last) if last.when > due.when => self.front.partition_point(|other| other.when <= due.when),
            _ => self.front.len(),
        };
        self.shifted += index.min(self.front.len() - index);
        if self.shifted > SHIFTS_PER_REPLACEMENT * self.len() && due.when.tick > 0 {
            self.rewind(self.reached.min(due.when.tick - 1));
            self.link(due.key.slot, due.when.tick);
        } else {
            self.slab.at(due.key.slot).previous = FRONT;
            self.front.insert(index, due);
        }
    }

    /// Moves `position` back to an earlier tick, and to the wheel what then is after it.
    ///
    /// Without this, a single timer far ahead would make a sorted array of the wheel. It costs no more than the
    /// shifting of keys that led to it, so insertions cost at most twice as much by it.
    #[cold]
    fn rewind(&mut self, position: u64) {
        let levels = level_of(self.position, position);
        self.position = position;
        self.shifted = 0;
        // The lower levels first: now all their timers belong in one higher list, while those of the front may not.
        for level in 0..levels {
            while self.occupied[level] != 0 {
                self.replace_list(level * SLOTS + self.occupied[level].trailing_zeros() as usize);
            }
        }
        let keep = self.front.partition_point(|due| due.when.tick <= position);
        while self.front.len() > keep {
            let Due { when, key, .. } = self.front.pop_back().expect("it is longer than `keep`");
            if self.slab.is_live(key) {
                self.link(key.slot, when.tick);
            } else {
                self.stale -= 1;
            }
        }
    }

    /// Notes that a key in the front became stale; sweeps when most are, so that they take no more room than the live.
    fn add_stale(&mut self) {
        self.stale += 1;
        if self.stale > self.front.len() / 2 + STALE_SLACK {
            self.front.retain(|due| self.slab.is_live(due.key));
            self.stale = 0;
        }
    }
}

/// The wheel: what comes later, in lists.
impl<T> Timers<T> {
    /// Puts a timer that stands nowhere to where it belongs; in the front that is the end.
    fn place(&mut self, slot: u32) {
        let position = self.position;
        let entry = self.slab.at(slot);
        let when = entry.when();
        if when.tick > position {
            self.link(slot, when.tick);
        } else {
            entry.previous = FRONT;
            let due = Due { when, sequence: entry.sequence, key: entry.key(slot) };
            self.front.push_back(due);
        }
    }

    /// Empties a list and places its timers anew.
    fn replace_list(&mut self, list: usize) {
        self.occupied[list / SLOTS] &= !bit_of(list);
        let mut slot = std::mem::replace(&mut self.heads[list], NIL);
        while slot != NIL {
            let next = self.slab.at(slot).next;
            self.place(slot);
            slot = next;
        }
    }

    /// Finds the earliest tick in a list that is not empty.
    fn earliest_tick(&mut self, list: usize) -> u64 {
        let mut earliest = u64::MAX;
        let mut slot = self.heads[list];
        while slot != NIL {
            let entry = self.slab.at(slot);
            earliest = earliest.min(entry.tick);
            slot = entry.next;
        }
        earliest
    }

    /// Puts a timer at the head of the list for `tick`, which must be after `position`.
    fn link(&mut self, slot: u32, tick: u64) {
        let list = list_of(self.position, tick);
        let next = std::mem::replace(&mut self.heads[list], slot);
        if next == NIL {
            self.occupied[list / SLOTS] |= bit_of(list);
        } else {
            self.slab.at(next).previous = slot;
        }
        let entry = self.slab.at(slot);
        entry.previous = FRONT + 1 + list as u32;
        entry.next = next;
    }

    /// Takes the timer between these two out of its list.
    fn unlink(&mut self, previous: u32, next: u32) {
        if next != NIL {
            self.slab.at(next).previous = previous;
        }
        if previous < FRONT {
            self.slab.at(previous).next = next;
            return;
        }
        let list = (previous - FRONT - 1) as usize;
        self.heads[list] = next;
        if next == NIL {
            self.occupied[list / SLOTS] &= !bit_of(list);
        }
    }
}

/// Returns the level of the highest digit in which two different ticks differ; `LEVELS` if it is beyond them.
fn level_of(position: u64, tick: u64) -> usize {
    (((position ^ tick).ilog2() / SLOT_BITS) as usize).min(LEVELS)
}

/// Returns the list for a tick after `position`.
fn list_of(position: u64, tick: u64) -> usize {
    match level_of(position, tick) {
        LEVELS => OVERFLOW,
        level => level * SLOTS + (tick >> (level as u32 * SLOT_BITS)) as usize % SLOTS,
    }
}

/// Returns the first tick of a list that is not the overflow.
fn start_of(position: u64, list: usize) -> u64 {
    let shift = (list / SLOTS) as u32 * SLOT_BITS;
    let above = shift + SLOT_BITS;
    (position >> above << above) | (((list % SLOTS) as u64) << shift)
}

/// Returns the bit of a list in the word of its level.
fn bit_of(list: usize) -> u64 {
    1 << (list % SLOTS)
}

/// An instant, counted from `start`; exact over some 290 million years before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct When {
    /// The millisecond.
    tick: u64,
    /// How far into it, in nanoseconds.
    nanos: u32,
}

impl When {
    /// The tick that begins at `start`: half of all ticks are for what was before.
    const START: u64 = 1 << 63;
    const NANOS_PER_TICK: u32 = 1_000_000;

    fn new(instant: Instant, start: Instant) -> Self {
        let Some(since) = instant.checked_duration_since(start) else {
            return Self::before_start(start.duration_since(instant));
        };
        Self { tick: Self::START.saturating_add(millis(since)), nanos: since.subsec_nanos() % Self::NANOS_PER_TICK }
    }

    #[cold]
    fn before_start(before: Duration) -> Self {
        let tick = Self::START.saturating_sub(millis(before));
        match before.subsec_nanos() % Self::NANOS_PER_TICK {
            0 => Self { tick, nanos: 0 },
            part => Self { tick: tick.saturating_sub(1), nanos: Self::NANOS_PER_TICK - part },
        }
    }

    fn instant(self, start: Instant) -> Instant {
        let nanos = Duration::from_nanos(u64::from(self.nanos));
        match self.tick.checked_sub(Self::START) {
            Some(since) => start + (Duration::from_millis(since) + nanos),
            None => start - (Duration::from_millis(Self::START - self.tick) - nanos),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1000).saturating_add(u64::from(duration.subsec_millis()))
}

/// A place in the front.
#[derive(Clone, Copy)]
struct Due {
    when: When,
    sequence: u64,
    key: TimerKey,
}

/// One timer, or a free place for one.
struct Entry<T> {
    /// The deadline, with `nanos`: a [`When`] in two parts, which take less room.
    tick: u64,
    /// How many timers were inserted before this one.
    sequence: u64,
    nanos: u32,
    /// How often the place was given back.
    generation: u32,
    /// The one before in the list; at its head, and in the front, see [`FRONT`].
    previous: u32,
    /// The one after in the list; of a free place, the next free one.
    next: u32,
    /// Invariant: `None` if and only if the place is free.
    value: Option<T>,
}

impl<T> Entry<T> {
    fn when(&self) -> When {
        When { tick: self.tick, nanos: self.nanos }
    }

    fn key(&self, slot: u32) -> TimerKey {
        TimerKey { slot, generation: self.generation }
    }
}

/// The memory that timers stand in; of the free places the last one given back is used first.
struct Slab<T> {
    entries: Vec<Entry<T>>,
    /// The first free place.
    free: u32,
    /// How many places are in use.
    len: usize,
}

impl<T> Slab<T> {
    fn occupy(&mut self, When { tick, nanos }: When, sequence: u64, value: T) -> TimerKey {
        self.len += 1;
        let slot = self.free;
        if slot == NIL {
            let value = Some(value);
            return self.extend(Entry { tick, sequence, nanos, generation: 0, previous: NIL, next: NIL, value });
        }
        let entry = &mut self.entries[slot as usize];
        entry.tick = tick;
        entry.sequence = sequence;
        entry.nanos = nanos;
        entry.value = Some(value);
        self.free = entry.next;
        entry.key(slot)
    }

    /// Adds a place. Memory ends before their numbers do.
    #[cold]
    fn extend(&mut self, entry: Entry<T>) -> TimerKey {
        assert!(self.entries.len() < FRONT as usize, "too many timers");
        let key = entry.key(self.entries.len() as u32);
        self.entries.push(entry);
        key
    }

    /// Takes the value out of a place and frees it.
    ///
    /// A place whose generations are used up is never used again, so no key comes back to life.
    fn release(&mut self, slot: u32) -> Option<T> {
        let entry = &mut self.entries[slot as usize];
        let value = entry.value.take()?;
        self.len -= 1;
        entry.generation += 1;
        if entry.generation < u32::MAX {
            entry.next = self.free;
            self.free = slot;
        }
        Some(value)
    }

    fn release_all(&mut self) -> Vec<T> {
        (0..self.entries.len() as u32).filter_map(|slot| self.release(slot)).collect()
    }

    /// Finds a timer by its key. The generation of a free place is one that no key has yet.
    fn get(&mut self, key: TimerKey) -> Option<&mut Entry<T>> {
        self.entries.get_mut(key.slot as usize).filter(|entry| entry.generation == key.generation)
    }

    fn is_live(&self, key: TimerKey) -> bool {
        self.entries[key.slot as usize].generation == key.generation
    }

    fn at(&mut self, slot: u32) -> &mut Entry<T> {
        &mut self.entries[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    /// A start that has instants before it on every platform.
    fn start() -> Instant {
        Instant::now() + YEAR
    }

    /// xorshift64
    struct Random(u64);

    impl Random {
        fn new(seed: u64) -> Self {
            Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
        }

        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) % end
        }

        /// From nanoseconds to centuries, each scale as likely as the others.
        fn duration(&mut self) -> Duration {
            match self.below(7) {
                0 => Duration::from_nanos(self.below(2_000_000)),
                1 => Duration::from_nanos(self.below(100_000_000)),
                2 => Duration::from_millis(self.below(100)),
                3 => Duration::from_micros(self.below(100_000_000)),
                4 => Duration::from_millis(self.below(100_000_000)),
                5 => Duration::from_millis(self.below(1 << 37)),
                _ => Duration::from_millis(self.below(400 * 365 * 24 * 3_600_000)),
            }
        }
    }

    impl<T> Timers<T> {
        fn all_due(&mut self, now: Instant) -> Vec<T> {
            let mut values = Vec::new();
            self.take_due(now, |value| values.push(value));
            values
        }

        fn assert_invariants(&self) {
            let entries = &self.slab.entries;
            let mut linked = 0;
            for (list, &head) in self.heads.iter().enumerate() {
                assert_eq!(self.occupied[list / SLOTS] & bit_of(list) != 0, head != NIL);
                let (mut previous, mut slot) = (FRONT + 1 + list as u32, head);
                while slot != NIL {
                    let entry = &entries[slot as usize];
                    assert!(entry.value.is_some() && entry.tick > self.position);
                    assert_eq!((entry.previous, list_of(self.position, entry.tick)), (previous, list));
                    linked += 1;
                    (previous, slot) = (slot, entry.next);
                }
            }
            let live = self.front.iter().filter(|due| self.slab.is_live(due.key));
            assert!(live.clone().all(|due| due.when.tick <= self.position));
            assert!(live.clone().all(|due| entries[due.key.slot as usize].previous == FRONT));
            assert!(live.clone().all(|due| entries[due.key.slot as usize].value.is_some()));
            assert_eq!(live.clone().count() + self.stale, self.front.len());
            assert_eq!(live.count() + linked, self.len());
            assert!(self.front.iter().is_sorted_by_key(|due| (due.when, due.sequence)));
            assert_eq!(entries.iter().filter(|entry| entry.value.is_some()).count(), self.len());
        }
    }

    /// The wheel, and an ordered map that is told the same.
    struct Pair {
        timers: Timers<u64>,
        expected: BTreeMap<(Instant, u64), TimerKey>,
        now: Instant,
        inserted: u64,
        /// Keys of timers that are gone.
        gone: Vec<TimerKey>,
    }

    impl Pair {
        fn new(start: Instant) -> Self {
            let timers = Timers::new(start);
            Self { timers, expected: BTreeMap::new(), now: start, inserted: 0, gone: Vec::new() }
        }

        fn insert(&mut self, deadline: Instant) {
            let key = self.timers.insert(deadline, self.inserted);
            self.expected.insert((deadline, self.inserted), key);
            self.inserted += 1;
        }

        fn pick(&self, random: &mut Random) -> Option<(Instant, u64)> {
            let index = random.below(self.expected.len().max(1) as u64) as usize;
            // Half of the time one of the first, which are in the front or near it.
            let index = if random.below(2) == 0 { index.min(2) } else { index };
            self.expected.keys().nth(index).copied()
        }

        fn insert_any(&mut self, random: &mut Random) {
            let deadline = match random.below(8) {
                0 => self.now.checked_sub(random.duration()).filter(|_| random.below(2) == 0).unwrap_or(self.now),
                1 => self.pick(random).map_or(self.now, |(deadline, _)| deadline),
                2 => self.pick(random).map_or(self.now, |(deadline, _)| deadline - Duration::from_nanos(1)),
                3 => self.pick(random).map_or(self.now, |(deadline, _)| deadline + MILLI),
                _ => self.now + random.duration(),
            };
            self.insert(deadline);
        }

        fn remove_any(&mut self, random: &mut Random) {
            let Some(name) = self.pick(random) else { return };
            let key = self.expected.remove(&name).unwrap();
            assert_eq!(self.timers.get_mut(key), Some(&mut name.1.clone()));
            assert_eq!(self.timers.remove(key), Some(name.1));
            self.gone.push(key);
        }

        fn advance(&mut self, now: Instant) {
            self.now = now;
            let later = self.expected.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut self.expected, later);
            assert_eq!(self.timers.all_due(now), due.keys().map(|&(_, id)| id).collect::<Vec<_>>());
            self.gone.extend(due.values());
        }

        fn advance_any(&mut self, random: &mut Random) {
            let first = self.expected.keys().next().map_or(self.now, |&(deadline, _)| deadline);
            let now = match random.below(8) {
                0 => self.now - Duration::from_micros(random.below(10_000)),
                1 => self.now,
                2 => first.max(self.now),
                3 => (first - Duration::from_nanos(1)).max(self.now),
                4 if random.below(20) == 0 => self.now + random.duration(),
                _ => self.now + Duration::from_micros(random.below(20_000)),
            };
            self.advance(now);
        }

        fn compare(&mut self, peek: bool) {
            if peek {
                assert_eq!(self.timers.next_deadline(), self.expected.keys().next().map(|&(deadline, _)| deadline));
            }
            assert_eq!(self.timers.len(), self.expected.len());
            assert_eq!(self.timers.is_empty(), self.expected.is_empty());
            if let Some(&key) = self.gone.last() {
                assert_eq!((self.timers.get_mut(key).copied(), self.timers.remove(key)), (None, None));
            }
        }
    }

    #[test]
    fn random_workloads_agree_with_an_ordered_map() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut pair = Pair::new(start());
            let (inserts, removes) = (1 + random.below(6), random.below(4));
            let peeks_always = seed % 2 == 0;
            for step in 0..600 {
                match random.below(inserts + removes + 2) {
                    choice if choice < inserts => pair.insert_any(&mut random),
                    choice if choice < inserts + removes => pair.remove_any(&mut random),
                    _ => pair.advance_any(&mut random),
                }
                pair.compare(peeks_always || random.below(10) == 0);
                if step % 8 == 0 {
                    pair.timers.assert_invariants();
                }
            }
            pair.advance(pair.now + 2000 * YEAR);
            pair.compare(true);
            pair.timers.assert_invariants();
            for key in std::mem::take(&mut pair.gone) {
                assert_eq!(pair.timers.remove(key), None);
            }
        }
    }

    #[test]
    fn crowds_within_few_milliseconds_agree_with_an_ordered_map() {
        for seed in 0..20 {
            let mut random = Random::new(seed);
            let mut pair = Pair::new(start());
            pair.insert(pair.now + YEAR);
            let span = [1_000_000, 3_000_000, 70_000_000][seed as usize % 3];
            for turn in 0..40 {
                for _ in 0..random.below(300) {
                    pair.insert(pair.now + Duration::from_nanos(random.below(span)));
                    if random.below(4) == 0 {
                        pair.remove_any(&mut random);
                    }
                    pair.compare(turn % 2 == 0);
                }
                pair.timers.assert_invariants();
                pair.advance(pair.now + Duration::from_nanos(random.below(span)));
                pair.compare(true);
            }
        }
    }

    #[test]
    fn timers_far_nearer_than_the_first_do_not_crowd_the_front() {
        let mut random = Random::new(1);
        let mut pair = Pair::new(start());
        pair.insert(pair.now + YEAR);
        pair.compare(true);
        let position = pair.timers.position;
        for _ in 0..20_000 {
            pair.insert(pair.now + Duration::from_micros(random.below(3_600_000_000)));
            pair.compare(true);
        }
        assert!(pair.timers.position < position && pair.timers.front.len() < 1000);
        pair.timers.assert_invariants();
        pair.advance(pair.now + YEAR);
        pair.compare(true);
    }

    #[test]
    fn equal_deadlines_keep_the_order_of_insertion_across_cascades() {
        let mut pair = Pair::new(start());
        let deadline = pair.now + Duration::from_nanos(5_000_300_000);
        let half = Duration::from_micros(500);
        // Ever nearer: from a high level to the front, each time with timers before and after it in the same tick.
        for before in [5000, 900, 70, 3, 1, 0] {
            pair.advance(deadline - Duration::from_millis(before) - half);
            for offset in [half / 2, Duration::ZERO, half / 5, Duration::ZERO] {
                pair.insert(deadline - offset);
            }
            pair.insert(deadline + half);
            pair.compare(before % 2 == 0);
            pair.timers.assert_invariants();
        }
        pair.advance(deadline);
        assert_eq!(pair.timers.len(), 6);
        pair.advance(deadline + half);
        assert!(pair.timers.is_empty());
    }

    #[test]
    fn stale_keys_do_nothing() {
        let start = start();
        let mut timers = Timers::new(start);
        let removed = timers.insert(start + MILLI, 'r');
        assert_eq!(timers.remove(removed), Some('r'));
        let fired = timers.insert(start + MILLI, 'f');
        assert_eq!(timers.all_due(start + MILLI), ['f']);
        let drained = timers.insert(start + YEAR, 'd');
        assert_eq!(timers.drain(), ['d']);
        let lives = timers.insert(start + YEAR, 'l');
        assert!([removed, fired, drained].iter().all(|key| key.slot == lives.slot));
        for key in [removed, fired, drained] {
            assert_eq!((timers.get_mut(key).copied(), timers.remove(key)), (None, None));
        }
        *timers.get_mut(lives).unwrap() = 'm';
        assert_eq!(timers.remove(lives), Some('m'));
    }

    #[test]
    fn a_place_whose_generations_are_used_up_is_not_used_again() {
        let start = start();
        let mut timers = Timers::new(start);
        let first = timers.insert(start, 0);
        timers.slab.entries[0].generation = u32::MAX - 1;
        timers.front[0].key.generation = u32::MAX - 1;
        let last = TimerKey { generation: u32::MAX - 1, ..first };
        assert_eq!(timers.remove(last), Some(0));
        let next = timers.insert(start, 1);
        assert_eq!((next.slot, timers.remove(first), timers.remove(last)), (1, None, None));
        assert_eq!(timers.remove(next), Some(1));
        assert_eq!(timers.insert(start, 2).slot, 1);
    }

    #[test]
    fn stale_keys_in_the_front_stay_few() {
        let mut pair = Pair::new(start());
        pair.insert(pair.now + YEAR);
        pair.compare(true);
        pair.insert(pair.now); // shields the stale keys after it from being met as the first
        for round in 0..10_000 {
            pair.insert(pair.now + MILLI * (1 + round % 100));
            let (&name, &key) = pair.expected.iter().nth(1).unwrap();
            pair.expected.remove(&name);
            assert_eq!(pair.timers.remove(key), Some(name.1));
            pair.compare(true);
            assert!(pair.timers.front.len() <= 2 * (STALE_SLACK + 3));
        }
        pair.timers.assert_invariants();
        pair.advance(pair.now + YEAR);
        assert!(pair.timers.is_empty());
    }

    #[test]
    fn a_million_timers_fire_in_order() {
        let start = start();
        let mut random = Random::new(7);
        let mut timers = Timers::new(start);
        let mut expected = Vec::new();
        for id in 0..1_000_000_u64 {
            let deadline = start + Duration::from_nanos(random.below(3_600_000_000_000));
            let key = timers.insert(deadline, (deadline, id));
            if id % 3 == 0 {
                assert_eq!(timers.remove(key), Some((deadline, id)));
            } else {
                expected.push((deadline, id));
            }
        }
        expected.sort_unstable();
        let middle = start + Duration::from_secs(1800);
        let mut fired = timers.all_due(middle);
        assert!(fired.last().unwrap().0 <= middle && timers.next_deadline().unwrap() > middle);
        fired.extend(timers.all_due(start + Duration::from_secs(3600)));
        assert!(fired == expected && timers.is_empty());
    }

    #[test]
    fn deadlines_beyond_the_wheel_are_exact() {
        let mut pair = Pair::new(start());
        let far = pair.now.checked_add(400 * YEAR).unwrap();
        let reach = Duration::from_millis(1 << 36);
        for deadline in [far, far + Duration::from_nanos(1), far - MILLI, far] {
            pair.insert(deadline);
            pair.compare(true);
        }
        for times in [1, 2, 3, 50] {
            for edge in [pair.now + reach * times, far - reach * times] {
                for offset in [Duration::ZERO, Duration::from_nanos(1), MILLI, 64 * MILLI] {
                    pair.insert(edge + offset);
                    pair.insert(edge - offset);
                    pair.compare(times % 2 == 0);
                }
            }
        }
        pair.timers.assert_invariants();
        while let Some(next) = pair.timers.next_deadline() {
            pair.advance(next - Duration::from_nanos(1));
            pair.compare(true);
            pair.advance(next);
            pair.compare(true);
            pair.timers.assert_invariants();
        }
        assert!(pair.expected.is_empty());
    }

    #[test]
    fn the_end_of_time_does_no_harm() {
        let start = start();
        let mut timers = Timers::new(start);
        let mut last = start;
        while let Some(later) =
            (0..64).rev().find_map(|bit| last.checked_add(Duration::from_nanos(1 << bit) * 1_000_000))
        {
            last = later;
            if timers.len() > 200 {
                break;
            }
            timers.insert(last, last);
        }
        let count = timers.len();
        assert!(timers.next_deadline().is_some());
        timers.assert_invariants();
        let fired = timers.all_due(last);
        assert!(fired.len() == count && fired.is_sorted());
    }

    #[test]
    fn instants_are_kept_to_the_nanosecond_on_both_sides_of_the_start() {
        let start = start();
        let mut random = Random::new(3);
        let mut instants =
            vec![start, start + MILLI, start - MILLI, start - MILLI / 2, start - Duration::from_nanos(1)];
        for _ in 0..1000 {
            instants.push(start + random.duration());
            instants.extend(start.checked_sub(Duration::from_nanos(random.below(10_000_000_000))));
        }
        instants.sort_unstable();
        let whens: Vec<When> = instants.iter().map(|&instant| When::new(instant, start)).collect();
        assert!(whens.iter().all(|when| when.nanos < When::NANOS_PER_TICK) && whens.is_sorted());
        assert_eq!(whens.iter().map(|when| when.instant(start)).collect::<Vec<_>>(), instants);
    }

    #[test]
    fn nothing_new_is_due_while_time_stands_still_or_runs_back() {
        let start = start();
        let mut timers = Timers::new(start);
        let now = start + 100 * MILLI;
        timers.insert(now, 1);
        timers.insert(now + Duration::from_nanos(1), 2);
        assert_eq!(timers.all_due(now), [1]);
        for time in [now, now, start, start - MILLI, now] {
            assert_eq!(timers.all_due(time), Vec::<i32>::new());
            assert_eq!(timers.next_deadline(), Some(now + Duration::from_nanos(1)));
        }
        timers.insert(start + MILLI, 3);
        assert_eq!(timers.all_due(start), Vec::<i32>::new());
        assert_eq!(timers.all_due(now), [3]);
        timers.insert(start - MILLI, 4);
        assert_eq!(timers.next_deadline(), Some(start - MILLI));
        assert_eq!(timers.all_due(now + MILLI), [4, 2]);
    }

    #[test]
    fn values_are_dropped_as_soon_as_they_are_given_back() {
        let start = start();
        let value = Rc::new(());
        let mut timers = Timers::new(start);
        let keys: Vec<_> = (0..100).map(|n| timers.insert(start + MILLI * n * n, Rc::clone(&value))).collect();
        timers.next_deadline();
        for (removed, &key) in keys.iter().enumerate().take(20) {
            assert_eq!(Rc::strong_count(&value), 101 - removed);
            drop(timers.remove(key));
        }
        timers.take_due(start + MILLI * 50 * 50, drop);
        assert_eq!(Rc::strong_count(&value), 50);
        drop(timers.drain());
        assert_eq!((Rc::strong_count(&value), timers.len(), timers.next_deadline()), (1, 0, None));
        timers.assert_invariants();
        timers.insert(start + YEAR, Rc::clone(&value));
        drop(timers);
        assert_eq!(Rc::strong_count(&value), 1);
    }

    #[test]
    fn a_panic_while_a_value_is_taken_loses_no_other() {
        let start = start();
        let mut timers = Timers::new(start);
        for value in 0..5 {
            timers.insert(start + MILLI, value);
        }
        let mut taken = Vec::new();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            timers.take_due(start + MILLI, |value| {
                taken.push(value);
                assert!(value != 2, "expected");
            });
        }));
        assert!(outcome.is_err());
        timers.assert_invariants();
        taken.extend(timers.all_due(start + MILLI));
        assert_eq!(taken, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn new_timers_allocate_nothing() {
        let mut timers = Timers::<u64>::new(start());
        assert_eq!((timers.next_deadline(), timers.all_due(start()), timers.len()), (None, vec![], 0));
        assert_eq!((timers.front.capacity(), timers.slab.entries.capacity()), (0, 0));
    }
}
