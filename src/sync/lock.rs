//! One at a time.

use std::{
    fmt,
    future::Future as StdFuture,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as Cx, Poll, Waker},
};

use crate::{
    error::{Error, Result},
    event_loop::{scope::Leaf, waiters::wake},
    sync::{
        locked, suspend,
        waiters::{Line, Place},
    },
};

/// A lock that one task at a time holds. Clones are handles of one lock.
///
/// ```text
/// Unlocked --acquire--> Locked --release, drop of the guard--> Unlocked
/// ```
///
/// It is fair: those who wait acquire it in the order in which they came. When it is released the first of them is
/// woken and acquires it one iteration later; meanwhile [`locked`](Self::locked) is false, and whoever comes joins the
/// end of the line. It guards no value: keep that beside it, in a
/// `RefCell` or `Cell` on one thread, in an atomic or a `std::sync::Mutex` across threads.
///
/// `Threads:` may cross them and be shared by them; the tasks that wait may belong to several loops.
///
/// # Examples
///
/// ```
/// use std::{cell::Cell, time::Duration};
///
/// let (lock, balance) = (asyncio::Lock::new(), Cell::new(10));
/// let pay = async |amount| {
///     let _guard = lock.acquire().await?;
///     let before = balance.get();
///     asyncio::sleep(Duration::from_millis(1)).await?;
///     balance.set(before - amount);
///     asyncio::ok(())
/// };
/// asyncio::run(async { futures::try_join!(pay(3), pay(4)) })?;
/// assert_eq!(balance.get(), 3);
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Lock`. Differs: `acquire` gives a guard that releases when it is dropped, which takes the place of
/// `async with`; bound to no loop.
#[derive(Clone, Default)]
pub struct Lock {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    locked: bool,
    /// The number of the present acquisition, or of the last one: a guard releases its own alone.
    holder: Ticket,
    last: Ticket,
    /// Invariant: at most one was woken, and only while `locked` is false.
    line: Line,
}

/// The number of an acquisition.
pub(super) type Ticket = u64;

/// No acquisition has this one.
const NOBODYS: Ticket = 0;

impl State {
    fn is_free(&self) -> bool {
        !self.locked && self.line.is_empty()
    }

    fn take(&mut self) -> Ticket {
        self.last += 1;
        self.locked = true;
        self.holder = self.last;
        self.last
    }

    /// Unlocks, and says whom to wake.
    fn release(&mut self) -> Option<Waker> {
        self.locked = false;
        self.wake_next()
    }

    fn wake_next(&mut self) -> Option<Waker> {
        if self.locked || self.line.has_woken() { None } else { self.line.wake_first() }
    }
}

impl Lock {
    /// A lock that nobody holds.
    ///
    /// asyncio: `asyncio.Lock()`.
    pub fn new() -> Lock {
        Lock::default()
    }

    /// Waits until the lock is free and everybody who came before has had it, and takes it.
    ///
    /// It is taken at the first poll if it is free and nobody waits. A task that holds the lock and acquires it again
    /// waits for itself.
    ///
    /// # Cancel safety
    ///
    /// A wait that is cancelled or dropped loses its place in the line and nothing else: if it was its turn, the next
    /// one is woken. After a cancellation it can be polled again, to wait at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if the task is cancelled while it waits.
    ///
    /// asyncio: `Lock.acquire`.
    pub fn acquire(&self) -> LockAcquire<'_> {
        LockAcquire { lock: self, place: None, leaf: Leaf::new() }
    }

    /// Takes the lock if it is free and nobody waits for it.
    ///
    /// asyncio: has no counterpart.
    pub fn try_acquire(&self) -> Option<LockGuard<'_>> {
        let mut state = locked(&self.state);
        if !state.is_free() {
            return None;
        }
        let ticket = state.take();
        drop(state);
        Some(LockGuard { lock: self, ticket })
    }

    /// Whether somebody holds the lock.
    ///
    /// asyncio: `Lock.locked`.
    pub fn locked(&self) -> bool {
        locked(&self.state).locked
    }

    /// Unlocks, whoever holds the lock, and wakes the first who waits. Guards do this when they are dropped; this is for
    /// a lock whose guard was [forgotten](LockGuard::forget). The guard of an acquisition that was released here does
    /// nothing more.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] "Lock is not acquired." if nobody holds it: fix the program.
    ///
    /// asyncio: `Lock.release`.
    pub fn release(&self) -> Result<()> {
        match self.release_any() {
            Some(_) => Ok(()),
            None => Err(Error::Runtime("Lock is not acquired.".into())),
        }
    }

    /// Unlocks and says whose acquisition it was; `None` if nobody's.
    pub(super) fn release_any(&self) -> Option<Ticket> {
        let mut state = locked(&self.state);
        if !state.locked {
            return None;
        }
        let (holder, woken) = (state.holder, state.release());
        drop(state);
        woken.into_iter().for_each(wake);
        Some(holder)
    }

    /// Unlocks if the lock is held by this acquisition.
    fn release_own(&self, ticket: Ticket) {
        let mut state = locked(&self.state);
        if !state.locked || state.holder != ticket {
            return;
        }
        let woken = state.release();
        drop(state);
        woken.into_iter().for_each(wake);
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = locked(&self.state);
        let (is_locked, waiting) = (state.locked, state.line.waiting());
        drop(state);
        f.write_str(if is_locked { "<Lock locked" } else { "<Lock unlocked" })?;
        if waiting > 0 {
            write!(f, " waiters={waiting}")?;
        }
        f.write_str(">")
    }
}

/// What [`Lock::acquire`] gives.
///
/// `Threads:` may cross them and be shared by them.
///
/// # Cancel safety
///
/// Dropping it gives up the place in the line; if it was its turn, the next one is woken.
///
/// asyncio: the coroutine `Lock.acquire`.
#[derive(Debug)]
#[must_use = "nothing is acquired until it is awaited"]
pub struct LockAcquire<'a> {
    lock: &'a Lock,
    place: Option<Place>,
    leaf: Leaf,
}

impl LockAcquire<'_> {
    /// Leaves the line; who was woken wakes the next.
    fn give_up(&mut self) {
        self.leaf.resume();
        let Some(place) = self.place.take() else { return };
        let mut state = locked(&self.lock.state);
        let waker = state.line.leave(place);
        let woken = if waker.is_none() { state.wake_next() } else { None };
        drop(state);
        drop(waker);
        woken.into_iter().for_each(wake);
    }
}

impl<'a> StdFuture for LockAcquire<'a> {
    type Output = Result<LockGuard<'a>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            this.give_up();
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let mut state = locked(&this.lock.state);
        let old = match this.place {
            None if state.is_free() => {
                let ticket = state.take();
                return Poll::Ready(Ok(LockGuard { lock: this.lock, ticket }));
            }
            None => {
                this.place = Some(state.line.push(cx.waker()));
                None
            }
            Some(place) if state.line.is_woken(place) => {
                this.place = None;
                let gone = state.line.leave(place);
                let ticket = state.take();
                drop(state);
                drop(gone);
                this.leaf.resume();
                return Poll::Ready(Ok(LockGuard { lock: this.lock, ticket }));
            }
            Some(place) => state.line.refresh(place, cx.waker()),
        };
        drop(state);
        drop(old);
        suspend(&mut this.leaf, cx);
        Poll::Pending
    }
}

impl Drop for LockAcquire<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.give_up();
        }
    }
}

/// A lock that is held: it is released when this is dropped.
///
/// It releases its own acquisition alone: if that was released already, by [`Lock::release`] or by a
/// [`Condition::wait`](crate::Condition::wait) that was dropped midway, the drop does nothing.
///
/// `Threads:` may cross them and be shared by them.
///
/// asyncio: the inside of `async with lock`.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub struct LockGuard<'a> {
    lock: &'a Lock,
    ticket: Ticket,
}

impl LockGuard<'_> {
    /// Keeps the lock held until [`Lock::release`] is called, by any task.
    pub fn forget(self) {
        std::mem::forget(self);
    }

    /// Makes this acquisition the continuation of an earlier one, whose guard then releases it.
    pub(super) fn hand_to(self, ticket: Ticket) {
        locked(&self.lock.state).holder = ticket;
        self.forget();
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        self.lock.release_own(self.ticket);
    }
}

impl Lock {
    /// As [`acquire`](Self::acquire), with a guard that borrows nothing, to be moved into a task or kept in a struct.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if the task is cancelled while it waits.
    ///
    /// # Examples
    ///
    /// ```
    /// use asyncio::{Lock, create_task};
    ///
    /// asyncio::run(async {
    ///     let lock = Lock::new();
    ///     let guard = lock.acquire_owned().await?;
    ///     let task = create_task(async move {
    ///         let _guard = guard; // released when the task ends
    ///         Ok(())
    ///     });
    ///     task.await?;
    ///     assert!(!lock.locked());
    ///     Ok(())
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: the bare `Lock.acquire`, released by whoever has the guard.
    pub async fn acquire_owned(&self) -> Result<OwnedLockGuard> {
        let guard = self.acquire().await?;
        let ticket = guard.ticket;
        guard.forget();
        Ok(OwnedLockGuard { lock: self.clone(), ticket })
    }
}

/// A lock that is held, as [`LockGuard`], by a handle of its own.
///
/// `Threads:` may cross them and be shared by them.
///
/// asyncio: a lock that one task acquires and another releases.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub struct OwnedLockGuard {
    lock: Lock,
    ticket: Ticket,
}

impl OwnedLockGuard {
    /// Keeps the lock held until [`Lock::release`] is called, by any task.
    pub fn forget(mut self) {
        // The drop then finds no acquisition of its own.
        self.ticket = NOBODYS;
    }
}

impl Drop for OwnedLockGuard {
    fn drop(&mut self) {
        self.lock.release_own(self.ticket);
    }
}
