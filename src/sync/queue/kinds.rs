//! Queues with another order.

use std::{
    fmt,
    ops::Deref,
    pin::Pin,
    task::{Context as Cx, Poll},
};

use futures::{Sink, Stream, stream::FusedStream};

use crate::{
    error::{Error, Result},
    sync::queue::{
        Queue,
        order::{Lifo, Smallest},
    },
};

/// A [`Queue`] that gives the item first that was put last. It has all methods of [`Queue`], to which it derefs.
///
/// Clones are handles of one queue.
///
/// `Threads:` may cross them and be shared by them (`T: Send`); those who wait may belong to several loops.
///
/// # Examples
///
/// ```
/// let stack = asyncio::LifoQueue::new(0);
/// [1, 2, 3].into_iter().try_for_each(|item| stack.put_nowait(item))?;
/// assert_eq!([stack.get_nowait()?, stack.get_nowait()?], [3, 2]);
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.LifoQueue`. Differs: as [`Queue`].
pub struct LifoQueue<T> {
    queue: Queue<T, Lifo<T>>,
}

/// A [`Queue`] that gives the smallest item first, of equal ones the one that was put first. It has all methods of
/// [`Queue`], to which it derefs.
///
/// Clones are handles of one queue. Items are compared while the queue is locked: their `Ord` must not use this queue,
/// which would wait for itself for ever, and should not panic, after which the order of the items is anybody's guess.
///
/// `Threads:` may cross them and be shared by them (`T: Send`); those who wait may belong to several loops.
///
/// # Examples
///
/// ```
/// let queue = asyncio::PriorityQueue::new(0);
/// queue.put_nowait((2, "eat"))?;
/// queue.put_nowait((1, "cook"))?;
/// assert_eq!(queue.get_nowait()?, (1, "cook"));
/// # asyncio::ok(())
/// ```
///
/// The greatest first:
///
/// ```
/// use std::cmp::Reverse;
///
/// let queue = asyncio::PriorityQueue::new(0);
/// [2, 3, 1].into_iter().try_for_each(|item| queue.put_nowait(Reverse(item)))?;
/// assert_eq!(queue.get_nowait()?, Reverse(3));
/// # asyncio::ok(())
/// ```
///
/// asyncio: `asyncio.PriorityQueue`. Differs: as [`Queue`]; equal items keep their order.
pub struct PriorityQueue<T> {
    queue: Queue<T, Smallest<T>>,
}

impl<T> LifoQueue<T> {
    /// A queue of at most `maxsize` items; 0 is without a limit.
    ///
    /// asyncio: `asyncio.LifoQueue(maxsize)`.
    pub fn new(maxsize: usize) -> LifoQueue<T> {
        LifoQueue { queue: Queue::with_order(maxsize) }
    }
}

impl<T: Ord> PriorityQueue<T> {
    /// A queue of at most `maxsize` items; 0 is without a limit.
    ///
    /// asyncio: `asyncio.PriorityQueue(maxsize)`.
    pub fn new(maxsize: usize) -> PriorityQueue<T> {
        PriorityQueue { queue: Queue::with_order(maxsize) }
    }
}

impl<T> Deref for LifoQueue<T> {
    type Target = Queue<T, Lifo<T>>;

    fn deref(&self) -> &Self::Target {
        &self.queue
    }
}

impl<T> Deref for PriorityQueue<T> {
    type Target = Queue<T, Smallest<T>>;

    fn deref(&self) -> &Self::Target {
        &self.queue
    }
}

impl<T> Clone for LifoQueue<T> {
    fn clone(&self) -> Self {
        LifoQueue { queue: self.queue.clone() }
    }
}

impl<T> Clone for PriorityQueue<T> {
    fn clone(&self) -> Self {
        PriorityQueue { queue: self.queue.clone() }
    }
}

impl<T> fmt::Debug for LifoQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.queue.write("LifoQueue", f)
    }
}

impl<T> fmt::Debug for PriorityQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.queue.write("PriorityQueue", f)
    }
}

impl<T> Stream for LifoQueue<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.get_mut().queue).poll_next(cx)
    }
}

impl<T: Ord> Stream for PriorityQueue<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.get_mut().queue).poll_next(cx)
    }
}

impl<T> FusedStream for LifoQueue<T> {
    fn is_terminated(&self) -> bool {
        self.queue.is_terminated()
    }
}

impl<T: Ord> FusedStream for PriorityQueue<T> {
    fn is_terminated(&self) -> bool {
        self.queue.is_terminated()
    }
}

impl<T> Sink<T> for LifoQueue<T> {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().queue).poll_ready(cx)
    }

    fn start_send(self: Pin<&mut Self>, item: T) -> Result<()> {
        Pin::new(&mut self.get_mut().queue).start_send(item)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().queue).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().queue).poll_close(cx)
    }
}

impl<T: Ord> Sink<T> for PriorityQueue<T> {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().queue).poll_ready(cx)
    }

    fn start_send(self: Pin<&mut Self>, item: T) -> Result<()> {
        Pin::new(&mut self.get_mut().queue).start_send(item)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().queue).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Cx<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().queue).poll_close(cx)
    }
}
