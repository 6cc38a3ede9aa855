//! Waiting under a lock until another task says that something has changed.

use std::{
    fmt,
    future::Future as StdFuture,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as Cx, Poll, ready},
};

use crate::{
    error::{Cancelled, Error, Result},
    event_loop::scope::Leaf,
    sync::{
        lock::{Lock, LockAcquire, LockGuard, Ticket},
        locked, suspend,
        waiters::{Line, Place},
        wake_all,
    },
};

/// A lock together with a line of tasks that wait to be told of a change. Clones are handles of one condition.
///
/// Who holds the lock may [`wait`](Self::wait): that releases the lock until somebody notifies, and has it back when it
/// returns. Notifications go to those who wait in the order in which they came; one who was notified goes on when the
/// lock is free and it is its turn there. Notifying wakes nobody for later: it is lost if nobody waits. A wait may
/// return although nothing has changed, so look again, or use [`wait_for`](Self::wait_for).
///
/// `Threads:` may cross them and be shared by them; the tasks that wait may belong to several loops.
///
/// # Examples
///
/// ```
/// use std::{cell::Cell, rc::Rc};
///
/// asyncio::run(async {
///     let (condition, stock) = (asyncio::Condition::new(), Rc::new(Cell::new(0)));
///     let (changed, store) = (condition.clone(), stock.clone());
///     let buyer = asyncio::create_task(async move {
///         let _guard = changed.acquire().await?;
///         changed.wait_for(|| store.get() > 0).await?;
///         Ok(store.replace(0))
///     });
///     asyncio::sleep(std::time::Duration::ZERO).await?;
///     let guard = condition.acquire().await?;
///     stock.set(5);
///     condition.notify(1)?;
///     drop(guard);
///     assert_eq!(buyer.await?, 5);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Condition`. Differs: `acquire` gives a guard that releases when it is dropped; bound to no loop.
#[derive(Clone, Default)]
pub struct Condition {
    lock: Lock,
    line: Arc<Mutex<Line>>,
}

impl Condition {
    /// A condition with a lock of its own.
    ///
    /// asyncio: `asyncio.Condition()`.
    pub fn new() -> Condition {
        Condition::default()
    }

    /// A condition with this lock, which others may share.
    ///
    /// asyncio: `asyncio.Condition(lock)`.
    pub fn with_lock(lock: &Lock) -> Condition {
        Condition { lock: lock.clone(), line: Arc::default() }
    }

    /// As [`Lock::acquire`].
    ///
    /// # Cancel safety
    ///
    /// That of [`Lock::acquire`].
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if the task is cancelled while it waits.
    ///
    /// asyncio: `Condition.acquire`.
    pub fn acquire(&self) -> LockAcquire<'_> {
        self.lock.acquire()
    }

    /// As [`Lock::try_acquire`].
    ///
    /// asyncio: has no counterpart.
    pub fn try_acquire(&self) -> Option<LockGuard<'_>> {
        self.lock.try_acquire()
    }

    /// As [`Lock::locked`].
    ///
    /// asyncio: `Condition.locked`.
    pub fn locked(&self) -> bool {
        self.lock.locked()
    }

    /// As [`Lock::release`].
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] "Lock is not acquired." if nobody holds it: fix the program.
    ///
    /// asyncio: `Condition.release`.
    pub fn release(&self) -> Result<()> {
        self.lock.release()
    }

    /// Releases the lock, waits to be notified, and acquires the lock again.
    ///
    /// The guard that the task had before holds the lock again afterwards.
    ///
    /// # Cancel safety
    ///
    /// A wait that is cancelled acquires the lock before it gives the error, and waits for it however often it is
    /// cancelled meanwhile; a notification that it has had goes to the next one. A wait that is dropped passes its
    /// notification on too, but leaves the lock alone: a guard that the task still has then releases nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] "cannot wait on un-acquired lock" if nobody holds the lock: fix the program.
    /// [`Error::Cancelled`] if the task is cancelled while it waits.
    ///
    /// asyncio: `Condition.wait`. Differs: gives no `True`, which it always is.
    pub fn wait(&self) -> ConditionWait<'_> {
        ConditionWait { condition: self, stage: Stage::Fresh, leaf: Leaf::new() }
    }

    /// Waits until `predicate` says true, which it is asked with the lock held: at once, and after each notification.
    /// Gives what it said last, which is true.
    ///
    /// # Cancel safety
    ///
    /// That of [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait), if it has to wait.
    ///
    /// asyncio: `Condition.wait_for`.
    pub async fn wait_for(&self, mut predicate: impl FnMut() -> bool) -> Result<bool> {
        while !predicate() {
            self.wait().await?;
        }
        Ok(true)
    }

    /// Tells the first `n` of those who wait. They go on when the lock is released, one after the other.
    ///
    /// # Errors
    ///
    /// [`Error::Runtime`] "cannot notify on un-acquired lock" if nobody holds the lock: fix the program.
    ///
    /// asyncio: `Condition.notify`. Differs: `n` has no default, which is 1.
    pub fn notify(&self, n: usize) -> Result<()> {
        if !self.lock.locked() {
            return Err(Error::Runtime("cannot notify on un-acquired lock".into()));
        }
        self.notify_many(n);
        Ok(())
    }

    /// Tells all of those who wait.
    ///
    /// # Errors
    ///
    /// As [`notify`](Self::notify).
    ///
    /// asyncio: `Condition.notify_all`.
    pub fn notify_all(&self) -> Result<()> {
        self.notify(usize::MAX)
    }

    fn notify_many(&self, count: usize) {
        let woken = locked(&self.line).wake_many(count);
        wake_all(woken);
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = locked(&self.line).waiting();
        f.write_str(if self.locked() { "<Condition locked" } else { "<Condition unlocked" })?;
        if waiting > 0 {
            write!(f, " waiters={waiting}")?;
        }
        f.write_str(">")
    }
}

/// What [`Condition::wait`] gives.
///
/// `Threads:` may cross them and be shared by them.
///
/// # Cancel safety
///
/// Dropping it midway leaves the lock alone, and passes on a notification that it has had.
///
/// asyncio: the coroutine `Condition.wait`.
#[derive(Debug)]
#[must_use = "nothing is waited for until it is awaited"]
pub struct ConditionWait<'a> {
    condition: &'a Condition,
    stage: Stage<'a>,
    leaf: Leaf,
}

/// ```text
/// Fresh --the lock is released--> Waiting --notified, cancelled--> Acquiring --the lock is held--> Fresh
/// ```
#[derive(Debug)]
enum Stage<'a> {
    Fresh,
    /// In the condition's line; the acquisition is the one that was released.
    Waiting(Place, Ticket),
    Acquiring {
        acquire: LockAcquire<'a>,
        ticket: Ticket,
        /// The last cancellation since the lock was released.
        cancelled: Option<Cancelled>,
    },
}

impl ConditionWait<'_> {
    /// Releases the lock and joins the line.
    fn begin(&mut self, cx: &Cx<'_>) -> Result<()> {
        // In the line first: a notification of another thread's, once the lock is free, must find us there.
        let mut line = locked(&self.condition.line);
        let place = line.push(cx.waker());
        drop(line);
        let Some(ticket) = self.condition.lock.release_any() else {
            let waker = locked(&self.condition.line).leave(place);
            if waker.is_none() {
                self.condition.notify_many(1);
            }
            return Err(Error::Runtime("cannot wait on un-acquired lock".into()));
        };
        self.stage = Stage::Waiting(place, ticket);
        Ok(())
    }

    /// Waits for a notification; gives the acquisition that was released.
    fn poll_line(&mut self, place: Place, ticket: Ticket, cx: &Cx<'_>) -> Poll<Ticket> {
        let mut line = locked(&self.condition.line);
        if line.is_woken(place) {
            let gone = line.leave(place);
            drop(line);
            drop(gone);
            self.leaf.resume();
            return Poll::Ready(ticket);
        }
        let old = line.refresh(place, cx.waker());
        drop(line);
        drop(old);
        suspend(&mut self.leaf, cx);
        Poll::Pending
    }

    fn leave_line(&mut self, place: Place) -> bool {
        self.leaf.resume();
        let waker = locked(&self.condition.line).leave(place);
        waker.is_none()
    }
}

impl StdFuture for ConditionWait<'_> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        if let Stage::Fresh = this.stage {
            this.begin(cx)?;
        }
        if let Stage::Waiting(place, ticket) = this.stage {
            let cancelled = this.leaf.take_cancel();
            if cancelled.is_some() {
                this.leave_line(place);
            } else {
                ready!(this.poll_line(place, ticket, cx));
            }
            this.stage = Stage::Acquiring { acquire: this.condition.lock.acquire(), ticket, cancelled };
        }
        loop {
            let Stage::Acquiring { acquire, ticket, cancelled } = &mut this.stage else {
                unreachable!("the stages before end here")
            };
            match ready!(Pin::new(acquire).poll(cx)) {
                Ok(guard) => {
                    guard.hand_to(*ticket);
                    let cancelled = cancelled.take();
                    this.stage = Stage::Fresh;
                    let Some(cancelled) = cancelled else { return Poll::Ready(Ok(())) };
                    // It may have been notified before, or believed so by others.
                    this.condition.notify_many(1);
                    return Poll::Ready(Err(Error::Cancelled(cancelled)));
                }
                Err(Error::Cancelled(again)) => *cancelled = Some(again),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Drop for ConditionWait<'_> {
    fn drop(&mut self) {
        let notified = match self.stage {
            Stage::Fresh => false,
            Stage::Waiting(place, _) => self.leave_line(place),
            Stage::Acquiring { .. } => true,
        };
        if notified {
            self.condition.notify_many(1);
        }
    }
}
