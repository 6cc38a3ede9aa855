//! Datagrams that wait to be sent.

use std::{collections::VecDeque, io::IoSlice};

use crate::{
    constants::{DATAGRAM_HEADER, KEPT_DATAGRAMS},
    transport::write_buffer::{Spares, WriteBuffer},
};

/// Datagrams that wait to be sent, first in, first out, each with where it goes.
#[derive(Debug)]
pub(crate) struct DatagramQueue<A> {
    /// Length and destination of each.
    entries: VecDeque<(usize, A)>,
    /// Invariant: as long as all entries together.
    bytes: WriteBuffer,
}

impl<A> Default for DatagramQueue<A> {
    fn default() -> Self {
        DatagramQueue { entries: VecDeque::new(), bytes: WriteBuffer::default() }
    }
}

impl<A> DatagramQueue<A> {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How much waits, in bytes: the data, and what the system needs for each datagram.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len() + self.entries.len() * DATAGRAM_HEADER
    }

    pub(crate) fn push(&mut self, data: &[u8], destination: A, spares: &Spares) {
        self.bytes.push(data, spares);
        self.entries.push_back((data.len(), destination));
    }

    /// The datagram that is to be sent next, in two pieces of which the second one may be empty.
    pub(crate) fn front(&self) -> Option<([IoSlice<'_>; 2], &A)> {
        let (length, destination) = self.entries.front()?;
        let (first, second) = self.bytes.slices();
        let cut = first.len().min(*length);
        let pieces = [&first[..cut], &second[..length - cut]].map(IoSlice::new);
        Some((pieces, destination))
    }

    /// The first datagram needs to wait no more.
    pub(crate) fn pop(&mut self, spares: &Spares) {
        let Some((length, _)) = self.entries.pop_front() else { return };
        self.bytes.consume(length, spares);
        if self.entries.is_empty() {
            self.entries.shrink_to(KEPT_DATAGRAMS);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self, spares: &Spares) {
        self.entries = VecDeque::new();
        self.bytes.clear(spares);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_keep_their_bounds_and_destinations() {
        let (mut queue, spares) = (DatagramQueue::default(), Spares::default());
        let mut expected = VecDeque::new();
        for number in 0..2000_usize {
            let data = vec![number as u8; number * 7 % 53];
            queue.push(&data, number, &spares);
            expected.push_back((data, number));
            for _ in 0..number % 3 {
                let front = queue.front().map(|([first, second], to)| ([&first[..], &second[..]].concat(), *to));
                assert_eq!(front, expected.pop_front());
                queue.pop(&spares);
            }
            let size: usize = expected.iter().map(|(data, _)| data.len() + 8).sum();
            assert_eq!((queue.size(), queue.is_empty()), (size, expected.is_empty()));
        }
    }

    #[test]
    fn a_crowd_that_is_gone_leaves_its_room() {
        let (mut queue, spares) = (DatagramQueue::default(), Spares::default());
        (0..10 * KEPT_DATAGRAMS).for_each(|_| queue.push(b"x", (), &spares));
        (0..10 * KEPT_DATAGRAMS).for_each(|_| queue.pop(&spares));
        assert!(queue.front().is_none() && queue.entries.capacity() < 2 * KEPT_DATAGRAMS);
        queue.push(b"", (), &spares);
        assert_eq!((queue.size(), queue.is_empty()), (8, false), "nothing is a datagram, too");
        queue.clear(&spares);
        assert_eq!((queue.size(), queue.is_empty(), queue.entries.capacity()), (0, true, 0));
        queue.pop(&spares);
    }
}
