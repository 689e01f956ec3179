//! Random memory calls, one after another, and a line for what each did: the result, and from time to time
//! a digest of every byte of the arena. The lines of a child must be those of a process that was never
//! forked.
//!
//! `suite-calls SEED plain` does them at once, `suite-calls SEED` in children of this process, `suite-calls SEED all` in
//! those of all its threads. The heap is left to the calls: nothing here allocates once they have begun but lines of a fixed buffer.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::process::exit;

use mitosis::prepare::{PrepareOptions, Threads};
use mitosis_process_suite::{Chance, PAGE, digest, fail, prepare_and_hold_with, say};

/// Far from all that the kernel places by itself.
const ARENA: usize = 0x2000_0000_0000;
const SLOTS: usize = 12;
/// Address space of a slot: its mapping may grow in place up to that.
const SLOT_BYTES: usize = 64 * PAGE;
const CALLS: usize = 160;
/// After so many calls every byte is looked at (looking touches, so it is not done after each).
const LOOK_EVERY: usize = 40;
const MAX_HEAP_PAGES: u64 = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seed = arguments.first().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fail(&"SEED [plain | all]"));
    if arguments.get(1).is_some_and(|word| word == "exec'd") {
        say("exec is clean");
        return;
    }
    let mut calls = Calls::new(seed);
    if arguments.get(1).is_none_or(|word| word != "plain") {
        let is_whole = arguments.get(1).is_some_and(|word| word == "all");
        let threads = if is_whole { Threads::All } else { Threads::Caller };
        prepare_and_hold_with(&PrepareOptions { threads, ..PrepareOptions::default() });
    }
    calls.make();
}

#[derive(Clone, Copy)]
struct Slot {
    pages: usize,
    mapped: bool,
}

struct Calls {
    seed: u64,
    chance: Chance,
    slots: [Slot; SLOTS],
    heap_start: usize,
    heap_pages: usize,
}

impl Calls {
    fn new(seed: u64) -> Calls {
        let mut chance = Chance(seed);
        let mut slots = [Slot { pages: 0, mapped: false }; SLOTS];
        for (index, slot) in slots.iter_mut().enumerate() {
            slot.pages = 1 + chance.below(48) as usize;
            map(index, slot.pages);
            slot.mapped = true;
            for page in 0..slot.pages {
                if chance.below(3) > 0 {
                    fill(base(index) + page * PAGE, chance.number());
                }
            }
        }
        // SAFETY: asks, then extends the heap by pages of ours; malloc leaves a heap alone that others extend.
        let heap_start = unsafe {
            let now = libc::sbrk(0) as usize;
            let gap = now.next_multiple_of(PAGE) - now;
            libc::sbrk((gap + 16 * PAGE) as isize) as usize + gap
        };
        for page in 0..16 {
            fill(heap_start + page * PAGE, chance.number());
        }
        Calls { seed, chance, slots, heap_start, heap_pages: 16 }
    }

    fn make(&mut self) {
        for number in 0..CALLS {
            let (name, result) = self.call();
            say(&format!("{number} {name} {result}"));
            if number % LOOK_EVERY == LOOK_EVERY - 1 {
                say(&format!("{number} bytes {:x}", self.bytes()));
            }
        }
        self.exec();
    }

    fn call(&mut self) -> (&'static str, i64) {
        let index = self.chance.below(SLOTS as u64) as usize;
        let kind = self.chance.below(16);
        let slot = self.slots[index];
        let (at, len) = self.part(index);
        let whole = (base(index), slot.pages * PAGE);
        match kind {
            0 | 1 => ("dontneed", advise(at, len, libc::MADV_DONTNEED)),
            2 => ("willneed", advise(at, len, libc::MADV_WILLNEED)),
            3 => ("dontneed whole", advise(whole.0, whole.1, libc::MADV_DONTNEED)),
            4 | 5 => ("write", self.write(index)),
            6 => ("grow", self.resize(index, false)),
            7 => ("resize", self.resize(index, true)),
            8 => ("move", self.relocate(index)),
            9 => ("heap", self.heap()),
            10 => ("heap dontneed", self.heap_dontneed()),
            11 => ("stack", descend(self.chance.below(120) as u32, self.chance.number()) as i64),
            12 => ("fork", self.fork()),
            13 => ("map anew", self.map_anew(index)),
            14 => ("protect", self.protect(at, len)),
            _ => ("free and write", self.free(at, len)),
        }
    }

    /// A random part of a slot.
    fn part(&mut self, index: usize) -> (usize, usize) {
        let pages = self.slots[index].pages as u64;
        let first = self.chance.below(pages);
        let count = 1 + self.chance.below(pages - first);
        (base(index) + first as usize * PAGE, count as usize * PAGE)
    }

    fn write(&mut self, index: usize) -> i64 {
        if !self.slots[index].mapped {
            return -1;
        }
        let (at, len) = self.part(index);
        let value = self.chance.number();
        // Some words, not whole pages: the rest of each page must still be what it was.
        for page in 0..len / PAGE {
            // SAFETY: mapped and writable.
            unsafe { ((at + page * PAGE) as *mut u64).add(page % 512).write_volatile(value) };
        }
        0
    }

    /// mremap(2) to another length, within the slot.
    fn resize(&mut self, index: usize, may_move: bool) -> i64 {
        let slot = &mut self.slots[index];
        let pages = 1 + self.chance.below((SLOT_BYTES / PAGE) as u64) as usize;
        if !slot.mapped {
            return -1;
        }
        // A slot with room behind it never needs to move: the flag alone must change nothing.
        let flags = if may_move { libc::MREMAP_MAYMOVE } else { 0 };
        // SAFETY: see advise().
        let to =
            unsafe { libc::mremap(base(index) as *mut _, slot.pages * PAGE, pages * PAGE, flags) };
        if to == libc::MAP_FAILED {
            return -i64::from(errno());
        }
        slot.pages = pages;
        to as i64 - base(index) as i64
    }

    /// mremap(2) of a whole slot over another one, with and without leaving the old place mapped.
    fn relocate(&mut self, from: usize) -> i64 {
        const DONTUNMAP: i32 = 4;
        let to = (from + 1 + self.chance.below(SLOTS as u64 - 1) as usize) % SLOTS;
        let stays = self.chance.below(2) == 0;
        let slot = self.slots[from];
        if !slot.mapped || to == from {
            return -1;
        }
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | if stays { DONTUNMAP } else { 0 };
        let bytes = slot.pages * PAGE;
        // SAFETY: see advise().
        let moved = unsafe {
            libc::mremap(base(from) as *mut _, bytes, bytes, flags, base(to) as *mut libc::c_void)
        };
        if moved == libc::MAP_FAILED {
            return -i64::from(errno());
        }
        if self.slots[to].mapped && self.slots[to].pages > slot.pages {
            // The tail of what was there is still mapped: away with it, a slot is one mapping.
            let (start, end) = (base(to) + bytes, base(to) + self.slots[to].pages * PAGE);
            // SAFETY: see advise().
            unsafe { libc::munmap(start as *mut _, end - start) };
        }
        self.slots[to] = slot;
        self.slots[from].mapped = stays;
        moved as i64 - ARENA as i64
    }

    fn heap(&mut self) -> i64 {
        let pages = self.chance.below(MAX_HEAP_PAGES) as usize;
        let value = self.chance.number();
        // SAFETY: nobody else extends the heap while the calls are made.
        let done = unsafe { libc::brk((self.heap_start + pages * PAGE) as *mut _) };
        if done != 0 {
            return -i64::from(errno());
        }
        for page in self.heap_pages..pages {
            let at = self.heap_start + page * PAGE;
            // SAFETY: just mapped.
            let fresh = unsafe { (at as *const u64).read_volatile() };
            if fresh != 0 {
                return -4096;
            }
            if page % 2 == 0 {
                fill(at, value);
            }
        }
        self.heap_pages = pages;
        pages as i64
    }

    fn heap_dontneed(&mut self) -> i64 {
        let bytes = self.heap_pages / 2 * PAGE;
        // SAFETY: see advise().
        result(unsafe { libc::madvise(self.heap_start as *mut _, bytes, libc::MADV_DONTNEED) })
    }

    /// A plain fork: its child sees the same bytes, and what it discards and writes is its own.
    fn fork(&mut self) -> i64 {
        let discarded = self.part(self.seed as usize % SLOTS);
        // SAFETY: this program has one thread.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let before = self.bytes();
            // SAFETY: see advise().
            unsafe { libc::madvise(discarded.0 as *mut _, discarded.1, libc::MADV_DONTNEED) };
            self.write(0);
            let after = self.bytes();
            exit(((before ^ after.rotate_left(8)) & 0x7f) as i32);
        }
        let mut status = 0;
        // SAFETY: our own child.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        i64::from(status)
    }

    fn map_anew(&mut self, index: usize) -> i64 {
        let pages = 1 + self.chance.below(48) as usize;
        // SAFETY: see advise().
        unsafe { libc::munmap(base(index) as *mut _, SLOT_BYTES) };
        map(index, pages);
        self.slots[index] = Slot { pages, mapped: true };
        pages as i64
    }

    /// To read-only and back; a discard of read-only memory counts as any.
    fn protect(&mut self, at: usize, len: usize) -> i64 {
        // SAFETY: see advise().
        unsafe {
            let first = libc::mprotect(at as *mut _, len, libc::PROT_READ);
            let discarded = libc::madvise(at as *mut _, PAGE, libc::MADV_DONTNEED);
            let back = libc::mprotect(at as *mut _, len, libc::PROT_READ | libc::PROT_WRITE);
            i64::from(first * 4 + discarded * 2 + back)
        }
    }

    /// MADV_FREE may take the bytes or leave them; after a write they are the writer's.
    fn free(&mut self, at: usize, len: usize) -> i64 {
        // SAFETY: see advise().
        let done = result(unsafe { libc::madvise(at as *mut _, len, libc::MADV_FREE) });
        if done == 0 {
            let value = self.chance.number();
            (0..len / PAGE).for_each(|page| fill(at + page * PAGE, value));
        }
        done
    }

    /// Every byte of the arena and the heap.
    fn bytes(&self) -> u64 {
        let mut sum = 0u64;
        for (index, slot) in self.slots.iter().enumerate().filter(|(_, slot)| slot.mapped) {
            // SAFETY: mapped and readable.
            let bytes =
                unsafe { std::slice::from_raw_parts(base(index) as *const u8, slot.pages * PAGE) };
            sum = sum.rotate_left(7) ^ digest(bytes) ^ slot.pages as u64;
        }
        // SAFETY: as long as the heap is.
        let heap = unsafe {
            std::slice::from_raw_parts(self.heap_start as *const u8, self.heap_pages * PAGE)
        };
        sum.rotate_left(7) ^ digest(heap)
    }

    /// The end: the child becomes this program again.
    fn exec(&self) {
        use std::os::unix::process::CommandExt;
        let own = std::env::args().next().unwrap_or_default();
        let error = std::process::Command::new(own).args([&self.seed.to_string(), "exec'd"]).exec();
        fail(&error);
    }
}

/// madvise(2) on the arena, which is this program's alone: what it makes unreadable is noted in `slots`.
fn advise(at: usize, len: usize, advice: i32) -> i64 {
    // SAFETY: no reference leads there.
    result(unsafe { libc::madvise(at as *mut _, len, advice) })
}

fn base(index: usize) -> usize {
    ARENA + index * 2 * SLOT_BYTES
}

fn map(index: usize, pages: usize) {
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a place that nothing else uses.
    let at = unsafe {
        libc::mmap(
            base(index) as *mut _,
            pages * PAGE,
            access,
            flags | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    if at as usize != base(index) {
        fail(&format!("slot {index}: {}", std::io::Error::last_os_error()));
    }
}

fn fill(at: usize, value: u64) {
    for word in 0..PAGE / 8 {
        // SAFETY: a writable page of ours.
        unsafe { (at as *mut u64).add(word).write(value.wrapping_mul(word as u64 + 1)) };
    }
}

/// The stack grows by pages that hold what is written and nothing else.
#[inline(never)]
fn descend(frames: u32, value: u64) -> u64 {
    let mut frame = [value; 1024];
    std::hint::black_box(&mut frame);
    let below = if frames == 0 { 0 } else { descend(frames - 1, value.wrapping_add(1)) };
    frame.iter().fold(below, |sum, word| sum.wrapping_mul(31).wrapping_add(*word)) & 0xffff
}

fn result(done: i32) -> i64 {
    if done == 0 { 0 } else { -i64::from(errno()) }
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
