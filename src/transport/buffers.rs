//! What the transports of a loop share: memory to read into, and room for what waits to be written.

use std::{cell::RefCell, rc::Rc};

use crate::{
    constants::{READ_BUFFER, READ_BUFFERS},
    event_loop::{EventLoop, slots},
    transport::write_buffer::Spares,
};

#[derive(Default)]
pub(crate) struct IoBuffers {
    /// What is not lent now. Invariant: at most `READ_BUFFERS`, each of `READ_BUFFER` bytes.
    read: RefCell<Vec<Vec<u8>>>,
    pub(crate) spares: Spares,
}

impl IoBuffers {
    pub(crate) fn of(event_loop: &EventLoop) -> Rc<IoBuffers> {
        event_loop.slots().get_or_init(slots::IO_BUFFERS, IoBuffers::default)
    }

    /// Lends the loop's memory to read into, or new one while others have it.
    #[inline]
    pub(crate) fn lend(&self) -> Lent<'_> {
        let kept = self.read.borrow_mut().pop();
        // From the system, which gives pages only as they are touched.
        let memory = kept.unwrap_or_else(|| vec![0; READ_BUFFER]);
        Lent { memory, home: self }
    }
}

/// Memory to read into, until it is dropped.
pub(crate) struct Lent<'a> {
    pub(crate) memory: Vec<u8>,
    home: &'a IoBuffers,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut kept = self.home.read.borrow_mut();
        if kept.len() < READ_BUFFERS {
            kept.push(std::mem::take(&mut self.memory));
        }
    }
}
