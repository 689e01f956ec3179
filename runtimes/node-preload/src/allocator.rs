//! Memory that is not libc's: a handler of ours may have interrupted malloc(3).
//!
//! No lock either: a thread may be stopped anywhere in here while another one prepares. Blocks are powers of
//! two, cut from one arena, on a stack for each size; its head carries a count, so that a thread that was away
//! for long notices. What is large, or finds the arena full, is a mapping of its own.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// A prepare takes some dozens of KiB.
const ARENA_BYTES: usize = 16 << 20;
const SMALLEST: usize = 16;
const LARGEST: usize = 32 << 10;
const CLASSES: usize = (LARGEST / SMALLEST).ilog2() as usize + 1;
/// Cut into blocks at once.
const SLAB_BYTES: usize = 4096;
const PAGE: usize = 4096;

/// The arena; 0 until it is first used.
static ARENA: AtomicUsize = AtomicUsize::new(0);
/// What of it is cut already.
static CUT: AtomicUsize = AtomicUsize::new(0);
/// Free blocks of each size: a count (upper half), and one more than the offset in [`SMALLEST`]s; 0: none.
static FREE: [AtomicU64; CLASSES] = [const { AtomicU64::new(0) }; CLASSES];

#[derive(Debug)]
pub(crate) struct Allocator;

// SAFETY: blocks of a class are at least as large as what is asked for and lie at multiples of their size;
// a block is on a stack or in use, never both.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            Some(class) => take(class).unwrap_or_else(|| map(layout.size())),
            // A mapping lies at a multiple of the page size.
            None if layout.align() <= PAGE => map(layout.size()),
            None => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let arena = ARENA.load(SeqCst);
        match (block as usize).checked_sub(arena) {
            Some(offset) if arena != 0 && offset < ARENA_BYTES => {
                put(class(layout).unwrap_or(0), offset);
            }
            // SAFETY: not from the arena, so a mapping of its own, of this many bytes.
            _ => unsafe {
                libc::munmap(block.cast(), layout.size().next_multiple_of(PAGE));
            },
        }
    }
}

fn class(layout: Layout) -> Option<usize> {
    let bytes = layout.size().max(layout.align()).max(SMALLEST).next_power_of_two();
    (bytes <= LARGEST).then(|| (bytes / SMALLEST).ilog2() as usize)
}

fn take(class: usize) -> Option<*mut u8> {
    let base = arena()?;
    let head = &FREE[class];
    loop {
        let seen = head.load(SeqCst);
        let Some(offset) = offset(seen) else { return cut(class, base) };
        let block = (base + offset) as *mut u8;
        // SAFETY: inside the arena. If the block has been taken meanwhile this is its user's data, which the
        // count below makes us throw away.
        let next = unsafe { (*block.cast::<AtomicU64>()).load(SeqCst) };
        let new = counted(seen, next & u64::from(u32::MAX));
        if head.compare_exchange(seen, new, SeqCst, SeqCst).is_ok() {
            return Some(block);
        }
    }
}

fn put(class: usize, offset: usize) {
    let head = &FREE[class];
    let block = ARENA.load(SeqCst) + offset;
    let own = (offset / SMALLEST + 1) as u64;
    loop {
        let seen = head.load(SeqCst);
        // SAFETY: a block of ours that nobody uses, at least as large and aligned as this.
        unsafe { (*(block as *const AtomicU64)).store(seen & u64::from(u32::MAX), SeqCst) };
        if head.compare_exchange(seen, counted(seen, own), SeqCst, SeqCst).is_ok() {
            return;
        }
    }
}

fn offset(head: u64) -> Option<usize> {
    let first = usize::try_from(head & u64::from(u32::MAX)).ok()?;
    first.checked_sub(1).map(|index| index * SMALLEST)
}

fn counted(seen: u64, first: u64) -> u64 {
    (seen >> 32).wrapping_add(1) << 32 | first
}

/// New blocks: one for the caller, the others onto the stack.
fn cut(class: usize, base: usize) -> Option<*mut u8> {
    let block = SMALLEST << class;
    let slab = block.max(SLAB_BYTES);
    // A slab lies at a multiple of its blocks.
    let start = CUT
        .fetch_update(SeqCst, SeqCst, |cut| {
            let end = cut.next_multiple_of(block) + slab;
            (end <= ARENA_BYTES).then_some(end)
        })
        .ok()?
        .next_multiple_of(block);
    (1..slab / block).for_each(|index| put(class, start + index * block));
    Some((base + start) as *mut u8)
}

fn arena() -> Option<usize> {
    let known = ARENA.load(SeqCst);
    if known != 0 {
        return Some(known);
    }
    // At a multiple of the largest block.
    let mapped = map(ARENA_BYTES + LARGEST);
    if mapped.is_null() {
        return None;
    }
    let base = (mapped as usize).next_multiple_of(LARGEST);
    match ARENA.compare_exchange(0, base, SeqCst, SeqCst) {
        Ok(_) => Some(base),
        Err(other) => {
            // SAFETY: mapped above, and nobody has seen it.
            unsafe { libc::munmap(mapped.cast(), ARENA_BYTES + LARGEST) };
            Some(other)
        }
    }
}

fn map(bytes: usize) -> *mut u8 {
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let (bytes, flags) = (bytes.next_multiple_of(PAGE), flags | libc::MAP_NORESERVE);
    // SAFETY: a new mapping, wherever the kernel likes.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), bytes, prot, flags, -1, 0) };
    if mapped == libc::MAP_FAILED { ptr::null_mut() } else { mapped.cast() }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn classes_hold_what_is_asked_for() {
        let class = |size, align| class(Layout::from_size_align(size, align).unwrap());
        assert_eq!((class(0, 1), class(16, 16), class(17, 1)), (Some(0), Some(0), Some(1)));
        assert_eq!((class(1, 64), class(LARGEST, 8)), (Some(2), Some(CLASSES - 1)));
        assert_eq!(class(LARGEST + 1, 1), None);
    }

    #[test]
    fn threads_never_share_a_block() {
        let work = |seed: u8| {
            let mut kept: Vec<(*mut u8, Layout)> = Vec::new();
            for round in 0..20_000 {
                let size = (usize::from(seed) * 31 + round * 7) % 700 + 1;
                let layout = Layout::from_size_align(size, 8).unwrap();
                // SAFETY: the layout has a size; blocks are written within it and freed once.
                unsafe {
                    let block = Allocator.alloc(layout);
                    assert_eq!(block as usize % 8, 0);
                    block.write_bytes(seed, size);
                    kept.push((block, layout));
                    if kept.len() > 40 {
                        let (block, layout) = kept.swap_remove(round % kept.len());
                        let bytes = std::slice::from_raw_parts(block, layout.size());
                        assert!(bytes.iter().all(|byte| *byte == seed));
                        Allocator.dealloc(block, layout);
                    }
                }
            }
            for (block, layout) in kept {
                // SAFETY: as above.
                unsafe { Allocator.dealloc(block, layout) };
            }
        };
        let threads: Vec<_> = (1..=4).map(|seed| thread::spawn(move || work(seed))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let grows = || {
            let cut = CUT.load(SeqCst);
            work(5);
            CUT.load(SeqCst) - cut
        };
        // Other tests cut meanwhile, too, and threads that wait for a processor hold blocks.
        let until = Instant::now() + Duration::from_secs(10);
        while grows() >= 16 << 10 {
            assert!(Instant::now() < until, "blocks are not used again");
        }
    }

    #[test]
    fn what_is_large_is_a_mapping() {
        let layout = Layout::from_size_align(1 << 20, 4096).unwrap();
        // SAFETY: as above.
        unsafe {
            let block = Allocator.alloc(layout);
            block.add((1 << 20) - 1).write(1);
            Allocator.dealloc(block, layout);
            assert!(Allocator.alloc(Layout::from_size_align(8, 1 << 20).unwrap()).is_null());
        }
    }
}
