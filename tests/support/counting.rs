//! An allocator that counts what each thread asks of it.
#![allow(unsafe_code, reason = "an allocator is unsafe to write")]
#![allow(dead_code, reason = "each binary uses a part of it")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    // Without destructors, so that they can be used to the thread's end and never allocate.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, and a count for each thread.
pub(crate) struct Counting;

fn count(allocations: u64, bytes: i64) {
    ALLOCATIONS.set(ALLOCATIONS.get() + allocations);
    BYTES.set(BYTES.get() + bytes);
}

fn signed(size: usize) -> i64 {
    i64::try_from(size).expect("no block is larger than half of the memory")
}

// SAFETY: every call is the system allocator's own, with the same arguments; the counting beside it neither allocates
// nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, signed(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, signed(layout.size()));
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, signed(size) - signed(layout.size()));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(0, -signed(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

/// How many blocks this thread has asked for so far; a change of size counts as one.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// How many bytes this thread has asked for and not given back.
pub(crate) fn bytes() -> i64 {
    BYTES.get()
}
