//! So many at a time.

use std::{
    fmt,
    future::Future as StdFuture,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as Cx, Poll},
};

use crate::{
    error::{Error, Result},
    event_loop::{scope::Leaf, waiters::wake},
    sync::{
        locked, suspend,
        waiters::{Line, Place, Wakers},
        wake_all,
    },
};

/// A counter of free permits: `acquire` takes one and waits where there is none. Clones are handles of one semaphore.
///
/// It is fair: those who wait get their permits in the order in which they came, and whoever comes later waits behind
/// them, also while some of them are woken and have not gone on yet. A permit goes back when its guard is dropped.
///
/// `Threads:` may cross them and be shared by them; the tasks that wait may belong to several loops.
///
/// # Examples
///
/// ```
/// use std::{cell::Cell, time::Duration};
///
/// let (doors, inside) = (asyncio::Semaphore::new(2), Cell::new(0));
/// let visit = async || {
///     let _permit = doors.acquire().await?;
///     inside.set(inside.get() + 1);
///     assert!(inside.get() <= 2);
///     asyncio::sleep(Duration::from_millis(1)).await?;
///     inside.set(inside.get() - 1);
///     asyncio::ok(())
/// };
/// asyncio::run(async { futures::try_join!(visit(), visit(), visit()) })?;
/// # asyncio::ok(())
/// ```
///
/// A permit that ends elsewhere than it was acquired:
///
/// ```
/// asyncio::run(async {
///     let semaphore = asyncio::Semaphore::new(1);
///     semaphore.acquire().await?.forget();
///     let later = semaphore.clone();
///     asyncio::create_task(async move { asyncio::ok(later.release()) }).await?;
///     assert!(!semaphore.locked());
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Semaphore`. Differs: `acquire` gives a guard, which takes the place of `async with`; a value is
/// always given and cannot be negative; bound to no loop.
#[derive(Clone)]
pub struct Semaphore {
    core: Arc<Core>,
}

/// A [`Semaphore`] that never has more permits than it began with.
///
/// Clones are handles of one semaphore.
///
/// `Threads:` may cross them and be shared by them; the tasks that wait may belong to several loops.
///
/// # Examples
///
/// ```
/// let semaphore = asyncio::BoundedSemaphore::new(1);
/// let permit = semaphore.try_acquire().expect("it has one");
/// assert!(semaphore.locked());
/// drop(permit);
/// assert!(semaphore.release().is_err());
/// ```
///
/// asyncio: `asyncio.BoundedSemaphore`. Differs: as [`Semaphore`].
#[derive(Clone)]
pub struct BoundedSemaphore {
    core: Arc<Core>,
}

struct Core {
    state: Mutex<State>,
    /// `usize::MAX` where there is none.
    bound: usize,
}

struct State {
    /// Permits that are neither held nor given to somebody who was woken.
    value: usize,
    /// Invariant: nobody waits who was not woken while `value` is not zero, except behind one who was woken.
    line: Line,
}

impl State {
    fn is_locked(&self) -> bool {
        self.value == 0 || !self.line.is_empty()
    }

    /// Gives the permits that there are to those who wait.
    fn serve(&mut self) -> Wakers {
        let served = self.value.min(self.line.waiting());
        self.value -= served;
        self.line.wake_many(served)
    }
}

impl Core {
    fn new(value: usize, bound: usize) -> Arc<Core> {
        Arc::new(Core { state: Mutex::new(State { value, line: Line::default() }), bound })
    }

    fn acquire(&self) -> SemaphoreAcquire<'_> {
        SemaphoreAcquire { core: self, place: None, leaf: Leaf::new() }
    }

    fn try_acquire(&self) -> Option<SemaphorePermit<'_>> {
        let mut state = locked(&self.state);
        if state.is_locked() {
            return None;
        }
        state.value -= 1;
        Some(SemaphorePermit { core: self })
    }

    fn is_locked(&self) -> bool {
        locked(&self.state).is_locked()
    }

    /// False if there are as many permits as there may be.
    fn release(&self) -> bool {
        let mut state = locked(&self.state);
        if state.value >= self.bound {
            return false;
        }
        let woken = state.line.wake_first();
        if woken.is_none() {
            state.value += 1;
        }
        drop(state);
        woken.into_iter().for_each(wake);
        true
    }

    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = locked(&self.state);
        let (is_locked, value, waiting) = (state.is_locked(), state.value, state.line.waiting());
        drop(state);
        match is_locked {
            true => write!(f, "<{name} locked")?,
            false => write!(f, "<{name} unlocked value={value}")?,
        }
        if waiting > 0 {
            write!(f, " waiters={waiting}")?;
        }
        f.write_str(">")
    }
}

impl Semaphore {
    /// A semaphore with `value` permits.
    ///
    /// asyncio: `asyncio.Semaphore(value)`.
    pub fn new(value: usize) -> Semaphore {
        Semaphore { core: Core::new(value, usize::MAX) }
    }

    /// Waits for a permit.
    ///
    /// It is taken at the first poll if there is one and nobody is in the line.
    ///
    /// # Cancel safety
    ///
    /// A wait that is cancelled or dropped loses its place in the line and nothing else: a permit that it was given
    /// goes to the next one. After a cancellation it can be polled again, to wait at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if the task is cancelled while it waits.
    ///
    /// asyncio: `Semaphore.acquire`.
    pub fn acquire(&self) -> SemaphoreAcquire<'_> {
        self.core.acquire()
    }

    /// Takes a permit if there is one and nobody is in the line.
    ///
    /// asyncio: has no counterpart.
    pub fn try_acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.core.try_acquire()
    }

    /// As [`acquire`](Self::acquire), with a permit that borrows nothing, to be moved into a task or kept in a struct.
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
    /// use asyncio::{Semaphore, TaskGroup, sleep};
    /// use std::time::Duration;
    ///
    /// asyncio::run(async {
    ///     let semaphore = Semaphore::new(2); // no more than two at once
    ///     TaskGroup::scope(async |group| {
    ///         for _ in 0..10 {
    ///             let permit = semaphore.acquire_owned().await?;
    ///             group.create_task(async move {
    ///                 let _permit = permit;
    ///                 sleep(Duration::from_millis(1)).await
    ///             });
    ///         }
    ///         Ok(())
    ///     })
    ///     .await
    /// })?;
    /// # asyncio::ok(())
    /// ```
    ///
    /// asyncio: the bare `Semaphore.acquire`, released by whoever has the permit.
    pub async fn acquire_owned(&self) -> Result<OwnedSemaphorePermit> {
        self.acquire().await?.forget();
        Ok(OwnedSemaphorePermit { core: self.core.clone(), held: true })
    }

    /// As [`try_acquire`](Self::try_acquire), with a permit that borrows nothing.
    ///
    /// asyncio: has no counterpart.
    pub fn try_acquire_owned(&self) -> Option<OwnedSemaphorePermit> {
        self.try_acquire()?.forget();
        Some(OwnedSemaphorePermit { core: self.core.clone(), held: true })
    }

    /// Whether [`acquire`](Self::acquire) would wait: there is no permit, or others come first.
    ///
    /// asyncio: `Semaphore.locked`.
    pub fn locked(&self) -> bool {
        self.core.is_locked()
    }

    /// Adds a permit, which goes to the first who waits. Permits do this when they are dropped; this is for those that
    /// were [forgotten](SemaphorePermit::forget), and to have more than at the beginning.
    ///
    /// asyncio: `Semaphore.release`.
    pub fn release(&self) {
        // There are never more than `usize::MAX`, which nobody can count.
        self.core.release();
    }
}

impl BoundedSemaphore {
    /// A semaphore with `value` permits and never more.
    ///
    /// asyncio: `asyncio.BoundedSemaphore(value)`.
    pub fn new(value: usize) -> BoundedSemaphore {
        BoundedSemaphore { core: Core::new(value, value) }
    }

    /// As [`Semaphore::acquire`].
    ///
    /// # Cancel safety
    ///
    /// That of [`Semaphore::acquire`].
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if the task is cancelled while it waits.
    ///
    /// asyncio: `BoundedSemaphore.acquire`.
    pub fn acquire(&self) -> SemaphoreAcquire<'_> {
        self.core.acquire()
    }

    /// As [`Semaphore::try_acquire`].
    ///
    /// asyncio: has no counterpart.
    pub fn try_acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.core.try_acquire()
    }

    /// As [`acquire`](Self::acquire), with a permit that borrows nothing, to be moved into a task or kept in a struct.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if the task is cancelled while it waits.
    ///
    /// asyncio: the bare `BoundedSemaphore.acquire`, released by whoever has the permit.
    pub async fn acquire_owned(&self) -> Result<OwnedSemaphorePermit> {
        self.acquire().await?.forget();
        Ok(OwnedSemaphorePermit { core: self.core.clone(), held: true })
    }

    /// As [`try_acquire`](Self::try_acquire), with a permit that borrows nothing.
    pub fn try_acquire_owned(&self) -> Option<OwnedSemaphorePermit> {
        self.try_acquire()?.forget();
        Some(OwnedSemaphorePermit { core: self.core.clone(), held: true })
    }

    /// As [`Semaphore::locked`].
    ///
    /// asyncio: `BoundedSemaphore.locked`.
    pub fn locked(&self) -> bool {
        self.core.is_locked()
    }

    /// As [`Semaphore::release`].
    ///
    /// # Errors
    ///
    /// [`Error::Value`] "BoundedSemaphore released too many times" if all permits are back: fix the program.
    ///
    /// asyncio: `BoundedSemaphore.release`.
    pub fn release(&self) -> Result<()> {
        if self.core.release() {
            return Ok(());
        }
        Err(Error::Value("BoundedSemaphore released too many times".into()))
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.write("Semaphore", f)
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.core.write("BoundedSemaphore", f)
    }
}

/// What [`Semaphore::acquire`] gives.
///
/// `Threads:` may cross them and be shared by them.
///
/// # Cancel safety
///
/// Dropping it gives up the place in the line; a permit that it was given goes to the next one.
///
/// asyncio: the coroutine `Semaphore.acquire`.
#[must_use = "nothing is acquired until it is awaited"]
pub struct SemaphoreAcquire<'a> {
    core: &'a Core,
    place: Option<Place>,
    leaf: Leaf,
}

impl SemaphoreAcquire<'_> {
    /// Leaves the line; who was given a permit puts it back, for the next.
    fn give_up(&mut self) {
        self.leaf.resume();
        let Some(place) = self.place.take() else { return };
        let mut state = locked(&self.core.state);
        let waker = state.line.leave(place);
        if waker.is_none() {
            state.value += 1;
        }
        let woken = state.serve();
        drop(state);
        drop(waker);
        wake_all(woken);
    }
}

impl<'a> StdFuture for SemaphoreAcquire<'a> {
    type Output = Result<SemaphorePermit<'a>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(cancelled) = this.leaf.take_cancel() {
            this.give_up();
            return Poll::Ready(Err(Error::Cancelled(cancelled)));
        }
        let mut state = locked(&this.core.state);
        let old = match this.place {
            None if !state.is_locked() => {
                state.value -= 1;
                return Poll::Ready(Ok(SemaphorePermit { core: this.core }));
            }
            None => {
                this.place = Some(state.line.push(cx.waker()));
                None
            }
            Some(place) if state.line.is_woken(place) => {
                this.place = None;
                let gone = state.line.leave(place);
                // Others may have come while permits were free, and wait because we were before them.
                let woken = state.serve();
                drop(state);
                drop(gone);
                wake_all(woken);
                this.leaf.resume();
                return Poll::Ready(Ok(SemaphorePermit { core: this.core }));
            }
            Some(place) => state.line.refresh(place, cx.waker()),
        };
        drop(state);
        drop(old);
        suspend(&mut this.leaf, cx);
        Poll::Pending
    }
}

impl Drop for SemaphoreAcquire<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.give_up();
        }
    }
}

impl fmt::Debug for SemaphoreAcquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SemaphoreAcquire").field("waits", &self.place.is_some()).finish_non_exhaustive()
    }
}

/// A permit that is held: it goes back when this is dropped.
///
/// `Threads:` may cross them and be shared by them.
///
/// asyncio: the inside of `async with semaphore`.
#[must_use = "the permit goes back when this is dropped"]
pub struct SemaphorePermit<'a> {
    core: &'a Core,
}

impl SemaphorePermit<'_> {
    /// Keeps the permit taken until `release` of the semaphore is called, by any task.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for SemaphorePermit<'_> {
    fn drop(&mut self) {
        // False where a bounded semaphore was released by hand too: whoever did has the permit's place.
        self.core.release();
    }
}

impl fmt::Debug for SemaphorePermit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<SemaphorePermit>")
    }
}

/// A permit that is held, as [`SemaphorePermit`], by a handle of its own.
///
/// `Threads:` may cross them and be shared by them.
///
/// asyncio: a permit that one task acquires and another releases.
#[must_use = "the permit goes back when this is dropped"]
pub struct OwnedSemaphorePermit {
    core: Arc<Core>,
    /// Cleared by `forget`.
    held: bool,
}

impl OwnedSemaphorePermit {
    /// Keeps the permit taken until `release` of the semaphore is called, by any task.
    pub fn forget(mut self) {
        self.held = false;
    }
}

impl Drop for OwnedSemaphorePermit {
    fn drop(&mut self) {
        if self.held {
            // As for a permit that borrows.
            self.core.release();
        }
    }
}

impl fmt::Debug for OwnedSemaphorePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<OwnedSemaphorePermit>")
    }
}
