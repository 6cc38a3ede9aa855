//! What is in a queue, who waits for it, and what each step changes.

use std::{
    sync::{Mutex, MutexGuard},
    task::{Poll, Waker},
};

use crate::{
    error::{Error, Result},
    sync::{
        locked,
        queue::order::Items,
        waiters::{Line, Place, Wakers},
        wake_all,
    },
};

/// What the handles of one queue share.
pub(super) struct Core<O> {
    /// Zero where there is no limit.
    pub(super) maxsize: usize,
    state: Mutex<State<O>>,
}

#[derive(Default)]
pub(super) struct State<O> {
    items: O,
    /// How many items there are.
    pub(super) len: usize,
    /// How many places sinks have taken and not filled.
    reserved: usize,
    /// asyncio: `_unfinished_tasks`.
    pub(super) unfinished: usize,
    /// Set by shut_down(); never cleared.
    pub(super) is_shut_down: bool,
    pub(super) getters: Line,
    pub(super) putters: Line,
    pub(super) joiners: Line,
}

impl<O> State<O> {
    /// Counts items as done. Says whether none is left.
    fn finish(&mut self, count: usize) -> bool {
        self.unfinished = self.unfinished.saturating_sub(count);
        self.unfinished == 0
    }
}

/// What needs no look at the items, so that drops can do it.
impl<O> Core<O> {
    pub(super) fn lock(&self) -> MutexGuard<'_, State<O>> {
        locked(&self.state)
    }

    pub(super) fn is_full(&self, state: &State<O>) -> bool {
        self.maxsize > 0 && state.len + state.reserved >= self.maxsize
    }

    /// Leaves the line of getters; who was woken wakes the next, if there is something.
    pub(super) fn leave_getters(&self, place: Place) {
        let mut state = self.lock();
        let waker = state.getters.leave(place);
        let woken = if waker.is_none() && state.len > 0 { state.getters.wake_next() } else { Wakers::default() };
        drop(state);
        drop(waker);
        wake_all(woken);
    }

    /// Leaves the line of putters; who was woken wakes the next, if there is room.
    pub(super) fn leave_putters(&self, place: Place) {
        let mut state = self.lock();
        let waker = state.putters.leave(place);
        let woken =
            if waker.is_none() && !self.is_full(&state) { state.putters.wake_next() } else { Wakers::default() };
        drop(state);
        drop(waker);
        wake_all(woken);
    }

    /// Waits in the line of putters until there is room, which is the caller's if it takes it under the same lock.
    fn poll_room<'l>(
        &'l self,
        place: &mut Option<Place>,
        waker: &Waker,
        is_face: bool,
    ) -> Poll<Result<MutexGuard<'l, State<O>>>> {
        // Declared before the guard, and so dropped after it.
        let _gone;
        let mut state = self.lock();
        if let Some(waiting) = place.filter(|place| !state.putters.is_woken(*place)) {
            let looks = state.putters.take_nudge(waiting) && !self.is_full(&state);
            if !looks {
                let old = state.putters.refresh(waiting, waker);
                drop(state);
                drop(old);
                return Poll::Pending;
            }
        }
        _gone = place.take().and_then(|place| state.putters.leave(place));
        if state.is_shut_down {
            return Poll::Ready(Err(Error::QueueShutDown));
        }
        if self.is_full(&state) {
            *place = Some(if is_face { state.putters.push_face(waker) } else { state.putters.push(waker) });
            return Poll::Pending;
        }
        Poll::Ready(Ok(state))
    }

    /// Waits for room and keeps it for [`put_reserved`](Self::put_reserved).
    pub(super) fn poll_reserve(&self, place: &mut Option<Place>, waker: &Waker) -> Poll<Result<()>> {
        self.poll_room(place, waker, true).map_ok(|mut state| state.reserved += 1)
    }

    /// Gives the place up that was reserved.
    pub(super) fn unreserve(&self) {
        let mut state = self.lock();
        state.reserved -= 1;
        let woken = state.putters.wake_next();
        drop(state);
        wake_all(woken);
    }

    pub(super) fn task_done(&self) -> Result<()> {
        let mut state = self.lock();
        if state.unfinished == 0 {
            return Err(Error::Value("task_done() called too many times".into()));
        }
        if state.finish(1) {
            let woken = state.joiners.wake_all();
            drop(state);
            wake_all(woken);
        }
        Ok(())
    }
}

impl<O> Core<O> {
    pub(super) fn new<T>(maxsize: usize) -> Self
    where
        O: Items<T>,
    {
        Core { maxsize, state: Mutex::default() }
    }

    /// Waits in the line of getters until there is an item.
    pub(super) fn poll_get<T>(&self, place: &mut Option<Place>, waker: &Waker, is_face: bool) -> Poll<Result<T>>
    where
        O: Items<T>,
    {
        // Declared before the guard, and so dropped after it.
        let _gone;
        let mut state = self.lock();
        if let Some(waiting) = place.filter(|place| !state.getters.is_woken(*place)) {
            let looks = state.getters.take_nudge(waiting) && state.len > 0;
            if !looks {
                let old = state.getters.refresh(waiting, waker);
                drop(state);
                drop(old);
                return Poll::Pending;
            }
        }
        _gone = place.take().and_then(|place| state.getters.leave(place));
        if state.len > 0 {
            return Poll::Ready(take(state));
        }
        if state.is_shut_down {
            return Poll::Ready(Err(Error::QueueShutDown));
        }
        *place = Some(if is_face { state.getters.push_face(waker) } else { state.getters.push(waker) });
        Poll::Pending
    }

    pub(super) fn get_nowait<T>(&self) -> Result<T>
    where
        O: Items<T>,
    {
        let state = self.lock();
        match state.len {
            0 if state.is_shut_down => Err(Error::QueueShutDown),
            0 => Err(Error::QueueEmpty),
            _ => take(state),
        }
    }

    /// Waits in the line of putters until there is room for the item.
    pub(super) fn poll_put<T>(&self, place: &mut Option<Place>, item: &mut Option<T>, waker: &Waker) -> Poll<Result<()>>
    where
        O: Items<T>,
    {
        self.poll_room(place, waker, false).map_ok(|state| {
            if let Some(item) = item.take() {
                put(state, item);
            }
        })
    }

    pub(super) fn put_nowait<T>(&self, item: T) -> std::result::Result<(), (T, Error)>
    where
        O: Items<T>,
    {
        let state = self.lock();
        if state.is_shut_down {
            return Err((item, Error::QueueShutDown));
        }
        if self.is_full(&state) {
            return Err((item, Error::QueueFull));
        }
        put(state, item);
        Ok(())
    }

    /// Puts an item in the place that was reserved for it.
    pub(super) fn put_reserved<T>(&self, item: T) -> Result<()>
    where
        O: Items<T>,
    {
        let mut state = self.lock();
        state.reserved -= 1;
        if state.is_shut_down {
            drop(state);
            drop(item);
            return Err(Error::QueueShutDown);
        }
        put(state, item);
        Ok(())
    }

    pub(super) fn shut_down<T>(&self, immediate: bool)
    where
        O: Items<T>,
    {
        let mut state = self.lock();
        state.is_shut_down = true;
        let mut items = None;
        let mut joiners = None;
        if immediate {
            items = Some(std::mem::take(&mut state.items));
            let count = std::mem::take(&mut state.len);
            joiners = state.finish(count).then(|| state.joiners.wake_all());
        }
        let (getters, putters) = (state.getters.wake_all(), state.putters.wake_all());
        drop(state);
        joiners.into_iter().chain([getters, putters]).for_each(wake_all);
        drop(items);
    }
}

/// Takes the next item, of which there is one, and tells who waits for room.
fn take<T, O: Items<T>>(mut state: MutexGuard<'_, State<O>>) -> Result<T> {
    state.len -= 1;
    // As in `put`.
    let woken = WakeOnDrop(state.putters.wake_next());
    let item = state.items.pop();
    drop(state);
    drop(woken);
    // The heap of a queue whose items panicked when they were compared may have lost one.
    item.ok_or(Error::QueueEmpty)
}

/// Puts an item in, and tells who waits for one.
fn put<T, O: Items<T>>(mut state: MutexGuard<'_, State<O>>, item: T) {
    state.len += 1;
    state.unfinished += 1;
    let woken = WakeOnDrop(state.getters.wake_next());
    // An item's `Ord` may panic, and the item is in all the same: who waits is told however this ends, after the lock.
    state.items.push(item);
    drop(state);
    drop(woken);
}

struct WakeOnDrop(Wakers);

impl Drop for WakeOnDrop {
    #[inline]
    fn drop(&mut self) {
        wake_all(std::mem::take(&mut self.0));
    }
}
