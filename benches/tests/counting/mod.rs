//! An allocator that counts for each thread, for tests of what must not allocate.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Instant;

/// Does it often enough that whatever is made once is there, and then so many times: how often it allocated in all of them,
/// and nanoseconds for each.
pub fn times(times: u32, mut what: impl FnMut()) -> (u64, u128) {
    for _ in 0..WARM {
        what();
    }
    let (before, began) = (COUNT.with(Cell::get), Instant::now());
    for _ in 0..times {
        what();
    }
    (COUNT.with(Cell::get) - before, began.elapsed().as_nanos() / u128::from(times))
}

struct Counting;

fn count() {
    // A thread whose locals are gone already is ending, and is not the one that is counted.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator with the arguments as they came, so its promises are kept.
// Counting touches a constant-initialised thread local without a destructor, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

const WARM: u32 = 1000;
