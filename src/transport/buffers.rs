//! What the transports of a loop share: memory to read into, and room for what waits to be written.

use std::{cell::Cell, rc::Rc};

use crate::{
    constants::READ_BUFFER,
    event_loop::{EventLoop, slots},
    transport::write_buffer::Spares,
};

#[derive(Default)]
pub(crate) struct IoBuffers {
    /// Empty while it is lent, and until it is first needed.
    read: Cell<Vec<u8>>,
    pub(crate) spares: Spares,
}

impl IoBuffers {
    pub(crate) fn of(event_loop: &EventLoop) -> Rc<IoBuffers> {
        event_loop.slots().get_or_init(slots::IO_BUFFERS, IoBuffers::default)
    }

    /// Lends the loop's memory to read into, or new one while somebody else has it.
    #[inline]
    pub(crate) fn lend(&self) -> Lent<'_> {
        let mut memory = self.read.take();
        if memory.is_empty() {
            // From the system, which gives pages only as they are touched.
            memory = vec![0; READ_BUFFER];
        }
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
        self.home.read.set(std::mem::take(&mut self.memory));
    }
}
