//! How much memory a parser takes for the bytes that it is given.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what this thread holds, and the most that it has held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: usize, sign: isize) {
    let held = HELD.get() + sign * isize::try_from(bytes).unwrap_or(isize::MAX);
    HELD.set(held);
    MOST.set(MOST.get().max(held));
}

// SAFETY: everything is passed on to the system's allocator; the counters are plain thread-locals without
// a destructor and allocate nothing themselves.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(new_size, 1);
        // SAFETY: the caller keeps `realloc`'s contract, and `ptr` comes from `alloc` above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller keeps `dealloc`'s contract, and `ptr` comes from `alloc` above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a decoder may set aside before it has looked: serde gives a sequence up to a megabyte for the length that it
/// claims, and sequences lie in each other.
const AHEAD: usize = 4 << 20;
/// Bytes in memory for one on the wire: a page-table run of four is one of 48, a vector that grows has twice as
/// many, and old and new stand side by side.
const PER_BYTE: usize = 256;

/// What `parse` makes of `input`.
///
/// # Panics
/// It has taken memory out of proportion.
pub(crate) fn bounded<T>(input: &[u8], parse: impl FnOnce(&[u8]) -> T) -> T {
    let before = HELD.get();
    MOST.set(before);
    let parsed = parse(input);
    let most = usize::try_from(MOST.get() - before).unwrap_or(0);
    let limit = AHEAD + PER_BYTE * input.len();
    assert!(most <= limit, "{most} bytes of memory for {} of input", input.len());
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_proportion_is_seen() {
        assert_eq!(bounded(&[1; 10], |input| vec![0u8; input.len() * PER_BYTE]).len(), 2560);
        let greedy = std::panic::catch_unwind(|| bounded(&[1; 10], |_| vec![0u8; 2 * AHEAD]).len());
        assert!(greedy.is_err());
    }
}
