//! An allocator that counts, for the tests and benches that link this package. Counts are those of the thread that asks.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note(allocated: usize, freed: usize) {
    if allocated > 0 {
        COUNT.set(COUNT.get() + 1);
        BYTES.set(BYTES.get() + allocated as u64);
    }
    HELD.set(HELD.get() + allocated as i64 - freed as i64);
    PEAK.set(PEAK.get().max(HELD.get()));
}

// SAFETY: each call goes to the system's allocator with the arguments that came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller's promises are those that the system asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// How often memory was asked for so far; growing counts too.
#[allow(
    dead_code,
    reason = "not everyone who includes this asks for everything"
)]
pub fn count() -> u64 {
    COUNT.get()
}

/// How many bytes were asked for so far.
pub fn bytes() -> u64 {
    BYTES.get()
}

/// How many bytes are held now: those that this thread asked for without giving them back.
pub fn held() -> i64 {
    HELD.get()
}

/// What the action gives, and the most bytes that were held meanwhile beyond those that were held before.
pub fn peak<T>(action: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = action();
    (result, (PEAK.get() - before).max(0) as usize)
}
