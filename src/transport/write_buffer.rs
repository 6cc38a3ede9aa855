//! Bytes that wait to be written.

use std::{cell::RefCell, collections::VecDeque, io::IoSlice};

use crate::constants::{SPARE_BUFFER, SPARE_BUFFERS};

/// Bytes that wait to be written, first in, first out.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    bytes: VecDeque<u8>,
}

impl WriteBuffer {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends `data`; room comes from `spares` where there is none yet.
    pub(crate) fn push(&mut self, data: &[u8], spares: &Spares) {
        if self.bytes.capacity() == 0 {
            self.bytes = spares.take();
        }
        self.bytes.extend(data);
    }

    /// What is to be written next, in two pieces.
    pub(crate) fn pieces(&self) -> [IoSlice<'_>; 2] {
        let (first, second) = self.slices();
        [IoSlice::new(first), IoSlice::new(second)]
    }

    /// All bytes, in two pieces.
    pub(crate) fn slices(&self) -> (&[u8], &[u8]) {
        self.bytes.as_slices()
    }

    /// The first `count` bytes were written; what is empty goes back to `spares`.
    pub(crate) fn consume(&mut self, count: usize, spares: &Spares) {
        self.bytes.drain(..count);
        if self.bytes.is_empty() {
            self.clear(spares);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self, spares: &Spares) {
        spares.give(std::mem::take(&mut self.bytes));
    }
}

/// Empty buffers of a loop, kept for their capacity: an idle connection has none, a busy one need not allocate.
#[derive(Default)]
pub(crate) struct Spares {
    /// Invariant: at most `SPARE_BUFFERS`, each empty and of at most `SPARE_BUFFER` bytes.
    buffers: RefCell<Vec<VecDeque<u8>>>,
}

impl Spares {
    fn take(&self) -> VecDeque<u8> {
        self.buffers.borrow_mut().pop().unwrap_or_default()
    }

    fn give(&self, mut buffer: VecDeque<u8>) {
        let mut buffers = self.buffers.borrow_mut();
        if (1..=SPARE_BUFFER).contains(&buffer.capacity()) && buffers.len() < SPARE_BUFFERS {
            buffer.clear();
            buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(buffer: &WriteBuffer) -> Vec<u8> {
        buffer.pieces().iter().flat_map(|piece| piece.to_vec()).collect()
    }

    #[test]
    fn bytes_leave_in_their_order() {
        let (mut buffer, spares) = (WriteBuffer::default(), Spares::default());
        let (mut expected, mut next) = (VecDeque::new(), 0u8);
        for round in 1..500 {
            let data: Vec<u8> = (0..round % 37).map(|index| next + index as u8).collect();
            next = data.len() as u8;
            buffer.push(&data, &spares);
            expected.extend(&data);
            let count = (round * 7 % 41).min(buffer.len());
            buffer.consume(count, &spares);
            expected.drain(..count);
            assert_eq!(content(&buffer), Vec::from(expected.clone()));
            assert_eq!(buffer.len(), expected.len());
        }
    }

    #[test]
    fn an_empty_buffer_lends_its_room() {
        let (mut buffer, spares) = (WriteBuffer::default(), Spares::default());
        buffer.push(&[1; 1000], &spares);
        let room = buffer.pieces()[0].as_ptr();
        buffer.consume(1000, &spares);
        assert_eq!(buffer.bytes.capacity(), 0);
        let mut other = WriteBuffer::default();
        other.push(&[2; 10], &spares);
        assert_eq!((content(&other), other.pieces()[0].as_ptr()), (vec![2; 10], room));
    }

    #[test]
    fn what_is_too_large_or_too_many_is_given_up() {
        let spares = Spares::default();
        spares.give(VecDeque::with_capacity(SPARE_BUFFER + 1));
        assert_eq!(spares.buffers.borrow().len(), 0);
        (0..SPARE_BUFFERS + 3).for_each(|_| spares.give(VecDeque::with_capacity(8)));
        assert_eq!(spares.buffers.borrow().len(), SPARE_BUFFERS);
    }
}
