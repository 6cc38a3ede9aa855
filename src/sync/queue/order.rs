//! In which order a queue gives its items.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
};

/// In which order a [`Queue`](crate::Queue) gives its items: [`Fifo`], [`Lifo`] or [`Smallest`]. Sealed.
///
/// # Examples
///
/// ```
/// use asyncio::{LifoQueue, Queue, QueueOrder, Result};
///
/// fn fill<O: QueueOrder<u8>>(queue: &Queue<u8, O>) -> Result<()> {
///     (0..3).try_for_each(|item| queue.put_nowait(item))
/// }
///
/// let (queue, stack) = (Queue::new(0), LifoQueue::new(0));
/// fill(&queue)?;
/// fill(&stack)?;
/// assert_eq!((queue.get_nowait()?, stack.get_nowait()?), (0, 2));
/// # asyncio::ok(())
/// ```
///
/// asyncio: the methods `_init`, `_get` and `_put` of a queue.
pub trait QueueOrder<T>: Items<T> {}

impl<T> QueueOrder<T> for Fifo<T> {}
impl<T> QueueOrder<T> for Lifo<T> {}
impl<T: Ord> QueueOrder<T> for Smallest<T> {}

/// What is in a queue. Public in name only, which seals [`QueueOrder`].
pub trait Items<T>: Default {
    /// The name of the queue.
    const NAME: &str;

    fn push(&mut self, item: T);
    fn pop(&mut self) -> Option<T>;
}

/// The first in is the first out: the order of [`Queue`](crate::Queue).
#[derive(Debug)]
pub struct Fifo<T> {
    items: VecDeque<T>,
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Fifo { items: VecDeque::new() }
    }
}

impl<T> Items<T> for Fifo<T> {
    const NAME: &str = "Queue";

    fn push(&mut self, item: T) {
        self.items.push_back(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.items.pop_front()
    }
}

/// The last in is the first out: the order of [`LifoQueue`](crate::LifoQueue).
#[derive(Debug)]
pub struct Lifo<T> {
    items: Vec<T>,
}

impl<T> Default for Lifo<T> {
    fn default() -> Self {
        Lifo { items: Vec::new() }
    }
}

impl<T> Items<T> for Lifo<T> {
    const NAME: &str = "LifoQueue";

    fn push(&mut self, item: T) {
        self.items.push(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.items.pop()
    }
}

/// The smallest is the first out, of equal ones the first in: the order of [`PriorityQueue`](crate::PriorityQueue).
#[derive(Debug)]
pub struct Smallest<T> {
    items: BinaryHeap<Reverse<Numbered<T>>>,
    last: u64,
}

impl<T: Ord> Default for Smallest<T> {
    fn default() -> Self {
        Smallest { items: BinaryHeap::new(), last: 0 }
    }
}

impl<T: Ord> Items<T> for Smallest<T> {
    const NAME: &str = "PriorityQueue";

    fn push(&mut self, item: T) {
        self.last += 1;
        self.items.push(Reverse(Numbered { item, number: self.last }));
    }

    fn pop(&mut self) -> Option<T> {
        self.items.pop().map(|numbered| numbered.0.item)
    }
}

#[derive(Debug)]
struct Numbered<T> {
    item: T,
    /// The order of coming.
    number: u64,
}

impl<T: Ord> Ord for Numbered<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.item.cmp(&other.item).then(self.number.cmp(&other.number))
    }
}

impl<T: Ord> PartialOrd for Numbered<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for Numbered<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Ord> Eq for Numbered<T> {}
