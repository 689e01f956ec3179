//! The calls. Each leaves a slot as one mapping of its kind's rights, so that where the kernel splits a mapping makes no
//! difference to the next call.

use mitosis_process_suite::{Chance, PAGE, fail};

use crate::others;
use crate::slots::{Kind, MAX_PAGES, Slot, Slots, fill_page};

const MREMAP_DONTUNMAP: i32 = 4;
const MADV_COLD: i32 = 20;
const MADV_PAGEOUT: i32 = 21;
const MADV_POPULATE_READ: i32 = 22;
const MADV_POPULATE_WRITE: i32 = 23;
const MADV_DONTNEED_LOCKED: i32 = 24;
pub const MADV_GUARD_INSTALL: i32 = 102;
pub const MADV_GUARD_REMOVE: i32 = 103;

/// A random call on a random slot: its name and what came of it.
pub fn make(slots: &mut Slots, chance: &mut Chance) -> (String, i64) {
    let index = chance.below(slots.all.len() as u64) as usize;
    let kind = chance.below(28);
    let slot = slots.all[index];
    // Drawn in any case: the sequence is the same whatever is mapped.
    let part = part(&slot, chance);
    let value = chance.number();
    if !slot.is_mapped {
        return (format!("{:?} nothing", slot.kind), 0);
    }
    let (name, result) = match kind {
        0..=3 => ("write", write(&slot, part, value)),
        4 | 5 => ("dontneed", discard(part)),
        6 => ("free", free(&slot, part, value)),
        7 => ("remove", remove(&slot, part)),
        8 => ("advice that changes no byte", advice(&slot, part, value)),
        9 => ("protect", protect(&slot, part)),
        10 => ("unmap and map", unmap_and_map(&slot, part)),
        11 => ("msync", msync(&slot, part, value)),
        12 => ("lock", lock(&slot, part, value)),
        13 => ("grow", resize(&mut slots.all[index], value, 0)),
        14 => ("resize", resize(&mut slots.all[index], value, libc::MREMAP_MAYMOVE)),
        15 => ("move and back", move_and_back(&slot, false)),
        16 => ("leave and come back", move_and_back(&slot, true)),
        17 => ("duplicate", duplicate(&slot)),
        18 => ("guard", guard(&slot, part, value)),
        19 => ("grow down", grow_down(&slot, value)),
        20 => ("fork", others::fork(slots, index, value)),
        21 => ("read and write by the kernel", others::by_the_kernel(&slot, part, value)),
        22 => ("trace", others::trace(slots, index, part, value)),
        23 => ("move to another length", move_resized(&mut slots.all[index], value)),
        24 => ("grow with a locked part", grow_locked_in_part(&slot)),
        25 => ("dontneed locked", advise(part, MADV_DONTNEED_LOCKED)),
        26 => ("execute", others::execute()),
        _ => ("heap and stack", others::heap_and_stack(value)),
    };
    (format!("{:?} {name}", slot.kind), result)
}

fn part(slot: &Slot, chance: &mut Chance) -> (usize, usize) {
    let first = chance.below(slot.pages as u64);
    let count = 1 + chance.below(slot.pages as u64 - first);
    (slot.start + first as usize * PAGE, count as usize * PAGE)
}

pub fn outcome(done: i32) -> i64 {
    if done == 0 {
        0
    } else {
        -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

/// madvise(2) on memory of this program's alone.
fn advise((at, len): (usize, usize), advice: i32) -> i64 {
    // SAFETY: no reference leads there.
    outcome(unsafe { libc::madvise(at as *mut _, len, advice) })
}

/// Runs with the slot writable.
pub fn writable(slot: &Slot, then: impl FnOnce() -> i64) -> i64 {
    let is_writable = slot.kind.rights() & libc::PROT_WRITE != 0;
    if !is_writable {
        slot.protect(libc::PROT_READ | libc::PROT_WRITE);
    }
    let result = then();
    if !is_writable {
        slot.protect(slot.kind.rights());
    }
    result
}

/// Some words of each page: the rest of it must still be what it was.
fn write(slot: &Slot, (at, len): (usize, usize), value: u64) -> i64 {
    writable(slot, || {
        for page in 0..len / PAGE {
            // SAFETY: mapped and writable.
            unsafe { ((at + page * PAGE) as *mut u64).add(page % 512).write_volatile(value) };
        }
        0
    })
}

fn discard(part: (usize, usize)) -> i64 {
    advise(part, libc::MADV_DONTNEED)
}

/// MADV_FREE may take the bytes or leave them; after a write they are the writer's.
fn free(slot: &Slot, part: (usize, usize), value: u64) -> i64 {
    writable(slot, || {
        let done = advise(part, libc::MADV_FREE);
        if done == 0 {
            (0..part.1 / PAGE).for_each(|page| fill_page(part.0 + page * PAGE, value));
        }
        done
    })
}

/// Of a file that is shared it would be a hole, which not every file system has.
fn remove(slot: &Slot, part: (usize, usize)) -> i64 {
    if matches!(slot.kind, Kind::FileShared | Kind::View | Kind::Deleted) {
        return 0;
    }
    advise(part, libc::MADV_REMOVE)
}

fn advice(slot: &Slot, part: (usize, usize), value: u64) -> i64 {
    let (first, second) = match value % 8 {
        0 => (libc::MADV_WILLNEED, libc::MADV_NORMAL),
        1 => (MADV_COLD, libc::MADV_NORMAL),
        // What may be dropped would be.
        2 if slot.kind != Kind::Droppable => (MADV_PAGEOUT, libc::MADV_NORMAL),
        3 => (MADV_POPULATE_READ, libc::MADV_NORMAL),
        4 => (MADV_POPULATE_WRITE, libc::MADV_NORMAL),
        5 => (libc::MADV_SEQUENTIAL, libc::MADV_NORMAL),
        6 if slot.kind != Kind::Guarded => (libc::MADV_DONTDUMP, libc::MADV_DODUMP),
        _ if slot.kind != Kind::Unforked => (libc::MADV_DONTFORK, libc::MADV_DOFORK),
        _ => (libc::MADV_NORMAL, libc::MADV_NORMAL),
    };
    advise(part, first) * 1000 + advise(part, second)
}

/// To other rights and back; a discard of read-only memory counts as any.
fn protect(slot: &Slot, part: (usize, usize)) -> i64 {
    let set = |rights| {
        // SAFETY: memory of ours.
        outcome(unsafe { libc::mprotect(part.0 as *mut _, part.1, rights) })
    };
    let first = set(libc::PROT_NONE);
    let discarded = advise((part.0, PAGE), libc::MADV_DONTNEED);
    let second = set(libc::PROT_READ);
    first + discarded + second + set(slot.kind.rights())
}

/// A hole, and private memory in it. Of shared memory and of what is advised the hole would stay another mapping; so would
/// one that could never be written, of which the kernel accounts nothing.
fn unmap_and_map(slot: &Slot, (at, len): (usize, usize)) -> i64 {
    if !matches!(slot.kind, Kind::Anonymous | Kind::ReadOnly | Kind::Hidden) {
        return 0;
    }
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: memory of ours.
    writable(slot, || unsafe {
        let unmapped = outcome(libc::munmap(at as *mut _, len));
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let mapped = libc::mmap(at as *mut _, len, rights, flags, -1, 0);
        unmapped + (mapped as i64 - at as i64)
    })
}

fn msync(slot: &Slot, part: (usize, usize), value: u64) -> i64 {
    let flags = [libc::MS_ASYNC, libc::MS_SYNC, libc::MS_INVALIDATE][value as usize % 3];
    let flags = if slot.kind.is_shared() { flags } else { flags & !libc::MS_INVALIDATE };
    // SAFETY: as above.
    outcome(unsafe { libc::msync(part.0 as *mut _, part.1, flags) })
}

/// Locked, and open again; what is locked all the time is so in all its parts.
fn lock(slot: &Slot, part: (usize, usize), value: u64) -> i64 {
    // Memory without rights cannot be faulted in.
    if slot.kind.rights() & libc::PROT_READ == 0 {
        return 0;
    }
    let on_fault = (value % 2) as u32;
    // SAFETY: as above.
    unsafe {
        let locked = outcome(libc::mlock2(part.0 as *const _, part.1, on_fault));
        // Locked memory is not discarded.
        let discarded = advise((part.0, PAGE), libc::MADV_DONTNEED);
        let opened = outcome(libc::munlock(part.0 as *const _, part.1));
        let again = match slot.kind {
            Kind::Locked => outcome(libc::mlock(slot.start as *const _, slot.bytes())),
            _ => 0,
        };
        locked * 1000 + discarded + opened + again
    }
}

/// mremap(2) to another length, within the slot.
fn resize(slot: &mut Slot, value: u64, flags: i32) -> i64 {
    // More of a file is more than a child has of it, and behind an object's end is SIGBUS.
    let most = if slot.kind.is_shared() { slot.pages } else { MAX_PAGES };
    let pages = 1 + value as usize % most;
    if slot.kind.is_of_file() || slot.kind == Kind::Growing {
        return 0;
    }
    // SAFETY: as above.
    let to = unsafe { libc::mremap(slot.start as *mut _, slot.bytes(), pages * PAGE, flags) };
    if to == libc::MAP_FAILED {
        return outcome(-1);
    }
    slot.pages = pages;
    to as i64 - slot.start as i64
}

/// To the other half of its slot and back, with and without leaving the old place mapped.
fn move_and_back(slot: &Slot, stays: bool) -> i64 {
    let other = slot.start + MAX_PAGES * PAGE * 2;
    if slot.kind == Kind::Growing {
        return 0;
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let away = if stays { flags | MREMAP_DONTUNMAP } else { flags };
    let shift = |from: usize, to: usize, flags: i32| {
        // SAFETY: as above.
        let done = unsafe {
            libc::mremap(from as *mut _, slot.bytes(), slot.bytes(), flags, to as *mut libc::c_void)
        };
        if done == libc::MAP_FAILED { outcome(-1) } else { done as i64 - to as i64 }
    };
    match shift(slot.start, other, away) {
        0 => shift(other, slot.start, flags),
        error => error,
    }
}

/// To the other half of its slot, longer or shorter than it was, and back.
fn move_resized(slot: &mut Slot, value: u64) -> i64 {
    let most = if slot.kind.is_shared() { slot.pages } else { MAX_PAGES };
    let (pages, other) = (1 + value as usize % most, slot.start + MAX_PAGES * PAGE * 2);
    if slot.kind.is_of_file() || slot.kind == Kind::Growing {
        return 0;
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: as above.
    unsafe {
        let (from, to) = (slot.start as *mut libc::c_void, other as *mut libc::c_void);
        let away = libc::mremap(from, slot.bytes(), pages * PAGE, flags, to);
        if away == libc::MAP_FAILED {
            return outcome(-1);
        }
        slot.pages = pages;
        let back = libc::mremap(to, slot.bytes(), slot.bytes(), flags, from);
        if back == libc::MAP_FAILED { outcome(-1) } else { back as i64 - from as i64 }
    }
}

/// Of memory that is locked in part no call makes one piece.
fn grow_locked_in_part(slot: &Slot) -> i64 {
    let is_readable = slot.kind.rights() & libc::PROT_READ != 0;
    // What may be dropped is not locked, and what grows down is left alone.
    let has_another_way = matches!(slot.kind, Kind::Locked | Kind::Droppable | Kind::Growing);
    if slot.pages < 2 || !is_readable || has_another_way || slot.kind.is_of_file() {
        return 0;
    }
    let (at, middle) = (slot.start as *mut libc::c_void, slot.start + slot.pages / 2 * PAGE);
    // SAFETY: as above; where it moves all the same, it is told and this program ends.
    unsafe {
        let locked = outcome(libc::mlock2(middle as *const _, PAGE, 1));
        let flags = libc::MREMAP_MAYMOVE;
        let moved = libc::mremap(at, slot.bytes(), slot.bytes() + PAGE, flags);
        let refused = outcome(if moved == libc::MAP_FAILED { -1 } else { 0 });
        if refused == 0 {
            fail(&"what is locked in part has moved");
        }
        locked * 1000 + refused + outcome(libc::munlock(middle as *const _, PAGE))
    }
}

/// Shared memory, mapped once more: what is written there is here.
fn duplicate(slot: &Slot) -> i64 {
    let other = slot.start + MAX_PAGES * PAGE * 2;
    if !slot.kind.is_shared() {
        return 0;
    }
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: as above; both mappings are this program's.
    unsafe {
        let to = other as *mut libc::c_void;
        let made = libc::mremap(slot.start as *mut _, 0, slot.bytes(), flags, to);
        if made == libc::MAP_FAILED {
            return outcome(-1);
        }
        let (here, there) = (slot.start as *mut u64, other as *mut u64);
        if slot.kind.rights() & libc::PROT_WRITE != 0 {
            there.write_volatile(here.read_volatile().wrapping_add(1));
        }
        let same = here.read_volatile() == there.read_volatile();
        libc::munmap(to, slot.bytes());
        i64::from(same)
    }
}

/// Guard pages are put up and taken down again; what was there is zeros, or the file.
fn guard(slot: &Slot, part: (usize, usize), value: u64) -> i64 {
    let put = advise(part, MADV_GUARD_INSTALL);
    let takes = others::kernel_takes(part.0);
    let down = advise(part, MADV_GUARD_REMOVE);
    if put == 0 {
        write(slot, part, value);
    }
    put * 1000 + down + i64::from(takes)
}

/// A touch below its start extends it; then it is as long as it was.
fn grow_down(slot: &Slot, value: u64) -> i64 {
    if slot.kind != Kind::Growing {
        return 0;
    }
    let below = slot.start - PAGE;
    // SAFETY: the kernel extends memory that grows down; the page is this program's alone.
    unsafe {
        let fresh = (below as *const u64).read_volatile();
        (below as *mut u64).write_volatile(value);
        let kept = (below as *const u64).read_volatile() == value;
        libc::munmap(below as *mut _, PAGE);
        i64::from(kept) * 2 + i64::from(fresh == 0)
    }
}
