//! What a queue's awaited methods give.

use std::{
    fmt,
    future::Future as StdFuture,
    pin::Pin,
    task::{Context as Cx, Poll},
};

use crate::{
    error::{Error, Result},
    event_loop::scope::Leaf,
    sync::{
        queue::{
            Queue,
            order::{Fifo, QueueOrder},
        },
        suspend,
        waiters::Place,
    },
};

/// What [`Queue::get`] gives.
///
/// `Threads:` may cross them and be shared by them (`T: Send`).
///
/// # Cancel safety
///
/// Dropping it takes no item; if it was its turn, the next one is woken.
///
/// asyncio: the coroutine `Queue.get`.
#[must_use = "nothing is taken until it is awaited"]
pub struct QueueGet<'a, T, O = Fifo<T>> {
    pub(super) queue: &'a Queue<T, O>,
    pub(super) place: Option<Place>,
    pub(super) leaf: Leaf,
}

impl<T, O> QueueGet<'_, T, O> {
    fn give_up(&mut self) {
        self.leaf.resume();
        self.place.take().into_iter().for_each(|place| self.queue.core.leave_getters(place));
    }
}

impl<T, O: QueueOrder<T>> StdFuture for QueueGet<'_, T, O> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<T>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            this.give_up();
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let polled = this.queue.core.poll_get(&mut this.place, cx.waker(), false);
        follow(&mut this.leaf, &polled, cx);
        polled
    }
}

impl<T, O> Drop for QueueGet<'_, T, O> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.give_up();
        }
    }
}

impl<T, O> fmt::Debug for QueueGet<'_, T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueGet").field("waits", &self.place.is_some()).finish_non_exhaustive()
    }
}

/// What [`Queue::put`] gives.
///
/// `Threads:` may cross them (`T: Send`), and be shared by them (`T: Sync`).
///
/// # Cancel safety
///
/// Dropping it before it is done drops the item.
///
/// asyncio: the coroutine `Queue.put`.
#[must_use = "nothing is put until it is awaited"]
pub struct QueuePut<'a, T, O = Fifo<T>> {
    pub(super) queue: &'a Queue<T, O>,
    /// Taken when it is put.
    pub(super) item: Option<T>,
    pub(super) place: Option<Place>,
    pub(super) leaf: Leaf,
}

/// The item is not pinned.
impl<T, O> Unpin for QueuePut<'_, T, O> {}

impl<T, O> QueuePut<'_, T, O> {
    fn give_up(&mut self) {
        self.leaf.resume();
        self.place.take().into_iter().for_each(|place| self.queue.core.leave_putters(place));
    }
}

impl<T, O: QueueOrder<T>> StdFuture for QueuePut<'_, T, O> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            this.give_up();
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let polled = this.queue.core.poll_put(&mut this.place, &mut this.item, cx.waker());
        follow(&mut this.leaf, &polled, cx);
        polled
    }
}

impl<T, O> Drop for QueuePut<'_, T, O> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.give_up();
        }
    }
}

impl<T, O> fmt::Debug for QueuePut<'_, T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePut").field("waits", &self.place.is_some()).finish_non_exhaustive()
    }
}

/// What [`Queue::join`] gives.
///
/// `Threads:` may cross them and be shared by them (`T: Send`).
///
/// # Cancel safety
///
/// Dropping it loses nothing.
///
/// asyncio: the coroutine `Queue.join`.
#[must_use = "nothing is waited for until it is awaited"]
pub struct QueueJoin<'a, T, O = Fifo<T>> {
    pub(super) queue: &'a Queue<T, O>,
    pub(super) place: Option<Place>,
    pub(super) leaf: Leaf,
}

impl<T, O> QueueJoin<'_, T, O> {
    fn give_up(&mut self) {
        self.leaf.resume();
        let waker = self.place.take().and_then(|place| self.queue.core.lock().joiners.leave(place));
        drop(waker);
    }

    fn poll_joined(&mut self, cx: &Cx<'_>) -> Poll<Result<()>> {
        let mut state = self.queue.core.lock();
        let old = match self.place {
            None if state.unfinished == 0 => return Poll::Ready(Ok(())),
            None => {
                self.place = Some(state.joiners.push(cx.waker()));
                None
            }
            Some(place) if state.joiners.is_woken(place) => {
                self.place = None;
                let gone = state.joiners.leave(place);
                drop(state);
                drop(gone);
                return Poll::Ready(Ok(()));
            }
            Some(place) => state.joiners.refresh(place, cx.waker()),
        };
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl<T, O> StdFuture for QueueJoin<'_, T, O> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            this.give_up();
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let polled = this.poll_joined(cx);
        follow(&mut this.leaf, &polled, cx);
        polled
    }
}

impl<T, O> Drop for QueueJoin<'_, T, O> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.give_up();
        }
    }
}

impl<T, O> fmt::Debug for QueueJoin<'_, T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueJoin").field("waits", &self.place.is_some()).finish_non_exhaustive()
    }
}

/// Lets the leaf know what a poll has come to.
fn follow<T>(leaf: &mut Leaf, polled: &Poll<T>, cx: &Cx<'_>) {
    match polled {
        Poll::Ready(_) => leaf.resume(),
        Poll::Pending => suspend(leaf, cx),
    }
}
