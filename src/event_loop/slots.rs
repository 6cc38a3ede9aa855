//! State that higher layers keep with a loop: the scheduler gives it a place and never names it.

use std::{any::Any, cell::RefCell, rc::Rc};

/// A layer's place; each layer that needs one has a constant of its own.
#[derive(Clone, Copy)]
pub(crate) struct SlotIndex(usize);

pub(crate) const SIGNALS: SlotIndex = SlotIndex(0);
pub(crate) const EXECUTOR: SlotIndex = SlotIndex(1);
pub(crate) const RESOLVER: SlotIndex = SlotIndex(2);
pub(crate) const ASYNC_GENERATORS: SlotIndex = SlotIndex(3);
pub(crate) const IO_BUFFERS: SlotIndex = SlotIndex(4);
pub(crate) const SERVERS: SlotIndex = SlotIndex(5);
pub(crate) const WORKER: SlotIndex = SlotIndex(6);
pub(crate) const STREAMS: SlotIndex = SlotIndex(7);
pub(crate) const CHILDREN: SlotIndex = SlotIndex(8);
const COUNT: usize = 9;

#[derive(Default)]
pub(crate) struct Slots {
    cells: RefCell<[Option<Rc<dyn Any>>; COUNT]>,
}

impl Slots {
    /// What the layer has stored, if anything.
    pub(crate) fn get<T: 'static>(&self, index: SlotIndex) -> Option<Rc<T>> {
        let cell = self.cells.borrow()[index.0].clone()?;
        Some(cell.downcast().expect("a slot is used by one layer with one type"))
    }

    /// Lends what the layer has stored, if anything. `look` must not touch the slots.
    #[inline]
    pub(crate) fn look<T: 'static, R>(&self, index: SlotIndex, look: impl FnOnce(&T) -> R) -> Option<R> {
        let cells = self.cells.borrow();
        let value = cells[index.0].as_ref()?;
        Some(look(value.downcast_ref().expect("a slot is used by one layer with one type")))
    }

    /// What the layer has stored; the first call makes it.
    pub(crate) fn get_or_init<T: 'static>(&self, index: SlotIndex, make: impl FnOnce() -> T) -> Rc<T> {
        if let Some(value) = self.get(index) {
            return value;
        }
        let value = Rc::new(make());
        self.cells.borrow_mut()[index.0] = Some(value.clone());
        value
    }

    /// Empties all places; the contents clean up in their drops. Called by close.
    pub(crate) fn clear(&self) {
        let cells = self.cells.take();
        drop(cells);
    }
}
