//! Items on their way from producers to consumers.

pub(crate) mod faces;
pub(crate) mod kinds;
pub(crate) mod order;
mod state;
pub(crate) mod waits;

use std::{fmt, marker::PhantomData, sync::Arc};

use crate::{
    error::{Error, Result},
    event_loop::scope::Leaf,
    sync::{
        queue::{
            order::{Fifo, QueueOrder},
            state::Core,
            waits::{QueueGet, QueueJoin, QueuePut},
        },
        waiters::Place,
    },
};

/// A queue between producers and consumers. Clones are handles of one queue.
///
/// The first item in is the first out; [`LifoQueue`](crate::LifoQueue) and [`PriorityQueue`](crate::PriorityQueue) have
/// the same methods and other orders. With a `maxsize`, [`put`](Self::put) waits while the queue is full. Those who wait
/// are woken in the order in which they came, one for each item or place; whoever comes while there is an item or a
/// place takes it, so that one who was woken may have to wait again.
///
/// ```text
/// Open --shutdown--> Shut down: nothing goes in; what is in it may still be got, unless it was thrown away
/// ```
///
/// It is a [`Stream`](futures::Stream) of its items, which ends when it is shut down and empty, and a
/// [`Sink`](futures::Sink) for them, of which `close` shuts the queue down for all. Those two do not see a cancellation
/// of their task: drop them. A clone begins with no place in any line.
///
/// `Threads:` may cross them and be shared by them (`T: Send`); those who wait may belong to several loops.
///
/// # Examples
///
/// ```
/// use asyncio::{Queue, create_task};
///
/// asyncio::run(async {
///     let queue = Queue::new(2);
///     let orders = queue.clone();
///     let consumer = create_task(async move {
///         let mut sum = 0;
///         while let Some(order) = orders.try_next().await? {
///             sum += order;
///             orders.task_done()?;
///         }
///         Ok(sum)
///     });
///     for order in 1..=4 {
///         queue.put(order).await?;
///     }
///     queue.join().await?;
///     queue.shutdown(false);
///     assert_eq!(consumer.await?, 10);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// As a stream:
///
/// ```
/// use futures::StreamExt;
///
/// asyncio::run(async {
///     let queue = asyncio::Queue::new(0);
///     (0..3).try_for_each(|item| queue.put_nowait(item))?;
///     queue.shutdown(false);
///     assert_eq!(queue.collect::<Vec<_>>().await, [0, 1, 2]);
///     Ok(())
/// })?;
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.Queue`. Differs: a `maxsize` is always given and cannot be negative; the subclasses' hooks are not
/// there; bound to no loop.
pub struct Queue<T, O = Fifo<T>> {
    core: Arc<Core<O>>,
    /// Where this handle waits as a stream.
    getter: Option<Place>,
    /// Where this handle waits as a sink.
    putter: Option<Place>,
    /// Whether this handle has a place in the queue that it has not filled, as a sink. Set by poll_ready, cleared by
    /// start_send and by drop.
    has_reserved: bool,
    items: PhantomData<fn() -> T>,
}

impl<T> Queue<T> {
    /// A queue of at most `maxsize` items; 0 is without a limit.
    ///
    /// asyncio: `asyncio.Queue(maxsize)`.
    pub fn new(maxsize: usize) -> Queue<T> {
        Queue::with_order(maxsize)
    }
}

impl<T, O: QueueOrder<T>> Queue<T, O> {
    fn with_order(maxsize: usize) -> Self {
        Queue::of(Arc::new(Core::new(maxsize)))
    }

    /// Puts an item in, and waits for room while the queue is full.
    ///
    /// Ready at the first poll if there is room.
    ///
    /// # Cancel safety
    ///
    /// A put that is cancelled or dropped before it is done leaves nothing behind: the item is dropped, and if there is
    /// room the next one in the line is woken. [`try_put`](Self::try_put) gives the item back.
    ///
    /// # Errors
    ///
    /// [`Error::QueueShutDown`] if the queue was shut down, also while it waits. [`Error::Cancelled`] if the task is
    /// cancelled while it waits.
    ///
    /// asyncio: `Queue.put`.
    pub fn put(&self, item: T) -> QueuePut<'_, T, O> {
        QueuePut { queue: self, item: Some(item), place: None, leaf: Leaf::new() }
    }

    /// Puts an item in without waiting. An item that cannot be put is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::QueueFull`] if there is no room, [`Error::QueueShutDown`] if the queue was shut down.
    ///
    /// asyncio: `Queue.put_nowait`.
    pub fn put_nowait(&self, item: T) -> Result<()> {
        self.try_put(item).map_err(|(_, error)| error)
    }

    /// As [`put_nowait`](Self::put_nowait), but gives an item back that cannot be put, with the error.
    ///
    /// asyncio: has no counterpart.
    pub fn try_put(&self, item: T) -> std::result::Result<(), (T, Error)> {
        self.core.put_nowait(item)
    }

    /// Takes the next item, and waits for one while the queue is empty.
    ///
    /// Ready at the first poll if there is one.
    ///
    /// # Cancel safety
    ///
    /// A get that is cancelled or dropped takes no item: if it was its turn, the next one in the line is woken.
    ///
    /// # Errors
    ///
    /// [`Error::QueueShutDown`] if the queue is shut down and empty, also while it waits. [`Error::Cancelled`] if the
    /// task is cancelled while it waits.
    ///
    /// asyncio: `Queue.get`.
    pub fn get(&self) -> QueueGet<'_, T, O> {
        QueueGet { queue: self, place: None, leaf: Leaf::new() }
    }

    /// The next item, as [`get`](Self::get), or `None` at the end: when the queue is shut down and empty.
    ///
    /// For loops: `while let Some(item) = queue.try_next().await? { .. }` sees a cancellation, which
    /// `while let Ok(item) = queue.get().await` would take for the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping it takes no item.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if the task is cancelled while it waits.
    ///
    /// asyncio: `get` until `QueueShutDown`.
    pub async fn try_next(&self) -> Result<Option<T>> {
        match self.get().await {
            Ok(item) => Ok(Some(item)),
            Err(Error::QueueShutDown) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the next item without waiting.
    ///
    /// # Errors
    ///
    /// [`Error::QueueEmpty`] if there is none, [`Error::QueueShutDown`] if moreover the queue was shut down.
    ///
    /// asyncio: `Queue.get_nowait`.
    pub fn get_nowait(&self) -> Result<T> {
        self.core.get_nowait()
    }

    /// Shuts the queue down, for all its handles: from now on nothing goes in.
    ///
    /// Those who wait in [`put`](Self::put) get [`Error::QueueShutDown`], and so does whoever gets from the queue once it
    /// is empty. With `immediate` it is emptied at once, and what was thrown away counts as done for
    /// [`join`](Self::join).
    ///
    /// asyncio: `Queue.shutdown`. Differs: `immediate` has no default, which is false.
    pub fn shutdown(&self, immediate: bool) {
        self.core.shut_down(immediate);
    }
}

/// What needs no look at the items.
impl<T, O> Queue<T, O> {
    fn of(core: Arc<Core<O>>) -> Self {
        Queue { core, getter: None, putter: None, has_reserved: false, items: PhantomData }
    }

    /// Says that the work on an item that was got is done, for those who wait in [`join`](Self::join).
    ///
    /// # Errors
    ///
    /// [`Error::Value`] "task_done() called too many times" if that was said of all items that were put: fix the
    /// program.
    ///
    /// asyncio: `Queue.task_done`.
    pub fn task_done(&self) -> Result<()> {
        self.core.task_done()
    }

    /// Waits until [`task_done`](Self::task_done) was called for each item that was put; ready at once if that is so.
    ///
    /// # Cancel safety
    ///
    /// Dropping the wait loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] if the task is cancelled while it waits.
    ///
    /// asyncio: `Queue.join`.
    pub fn join(&self) -> QueueJoin<'_, T, O> {
        QueueJoin { queue: self, place: None, leaf: Leaf::new() }
    }

    /// How many items there are.
    ///
    /// asyncio: `Queue.qsize`.
    pub fn qsize(&self) -> usize {
        self.core.lock().len
    }

    /// Whether there is no item.
    ///
    /// asyncio: `Queue.empty`.
    pub fn empty(&self) -> bool {
        self.qsize() == 0
    }

    /// Whether there is no room: `maxsize` items, counting those that a sink has room reserved for. Never without a
    /// limit.
    ///
    /// asyncio: `Queue.full`.
    pub fn full(&self) -> bool {
        self.core.is_full(&self.core.lock())
    }

    /// How many items there may be; 0 is without a limit.
    ///
    /// asyncio: `Queue.maxsize`.
    pub fn maxsize(&self) -> usize {
        self.core.maxsize
    }

    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.core.lock();
        let counts =
            [("getters", state.getters.waiting()), ("putters", state.putters.waiting()), ("tasks", state.unfinished)];
        let (len, is_shut_down) = (state.len, state.is_shut_down);
        drop(state);
        write!(f, "<{name} maxsize={} items={len}", self.core.maxsize)?;
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            write!(f, " {name}={count}")?;
        }
        f.write_str(if is_shut_down { " shutdown>" } else { ">" })
    }
}

impl<T, O> Clone for Queue<T, O> {
    fn clone(&self) -> Self {
        Queue::of(self.core.clone())
    }
}

impl<T, O: QueueOrder<T>> fmt::Debug for Queue<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(O::NAME, f)
    }
}

impl<T, O> Drop for Queue<T, O> {
    fn drop(&mut self) {
        if let Some(place) = self.getter {
            self.core.leave_getters(place);
        }
        if let Some(place) = self.putter {
            self.core.leave_putters(place);
        }
        if self.has_reserved {
            self.core.unreserve();
        }
    }
}
