//! madvise(2).

use super::kernel::{self, EINVAL, ENOMEM, PAGE};
use super::mapping::{Backing, Mapping, Mappings};
use super::table::{MovedRange, Table};
use crate::abi::StubTable;

pub const DONTNEED: u32 = 4;
pub const FREE: u32 = 8;
pub const REMOVE: u32 = 9;
pub const DONTFORK: u32 = 10;
pub const WIPEONFORK: u32 = 18;
pub const DONTNEED_LOCKED: u32 = 24;
pub const GUARD_INSTALL: u32 = 102;

const PROT_WRITE: u64 = 2;

/// madvise(2) with one of the advices above.
///
/// # Safety
/// `Table::at`'s promise for `table`; the caller is a call site of the program.
pub unsafe extern "C" fn stub_madvise(
    start: u64,
    len: u64,
    advice: u32,
    _: u64,
    _: u64,
    table: *mut StubTable,
) -> i64 {
    // SAFETY: the caller's promise.
    let table = unsafe { Table::at(table) };
    let rounded = len.wrapping_add(PAGE - 1) & !(PAGE - 1);
    let end = start.wrapping_add(rounded);
    // What the kernel refuses at once, it words itself.
    let refused = start & (PAGE - 1) != 0 || rounded == 0 || rounded < len || end < start;
    if refused || !table.may_hold_image(start, end) {
        return kernel::madvise(start, len, advice);
    }
    let mask = kernel::block_signals();
    let result = advise(table, start, end, advice);
    kernel::set_signal_mask(mask);
    result
}

/// Walks the VMAs as the kernel does: the first error ends it, a hole is told at the end. Signals are blocked.
#[inline(never)]
pub fn advise(table: Table, start: u64, end: u64, advice: u32) -> i64 {
    let mut mappings = match Mappings::open(table) {
        Ok(mappings) => mappings,
        // A loud error rather than wrong content; to MADV_FREE on an image the kernel says EINVAL itself.
        Err(_) if advice == FREE => return kernel::madvise(start, end - start, advice),
        Err(_) => return ENOMEM,
    };
    let (mut at, mut result, mut hole) = (start, 0, 0);
    while at < end {
        if !mappings.find(at, end) {
            hole = ENOMEM;
            break;
        }
        if mappings.at.start > at {
            hole = ENOMEM;
            at = mappings.at.start;
        }
        let piece_end = mappings.at.end.min(end);
        result = advise_piece(table, at, piece_end - at, &mappings.at, advice);
        if result != 0 {
            break;
        }
        at = piece_end;
    }
    settle(table, start, end, &mut mappings);
    if result != 0 { result } else { hole }
}

/// `[at, at + len)` lies in `mapping`.
fn advise_piece(table: Table, at: u64, len: u64, mapping: &Mapping, advice: u32) -> i64 {
    match mapping.backing(table) {
        Backing::Image => {}
        Backing::ImageShared => return advise_shared(at, len, mapping, advice),
        Backing::ImageFile => return advise_file(table, at, len, mapping, advice),
        Backing::ImageBeneath | Backing::Anonymous | Backing::Foreign => {
            return kernel::madvise(at, len, advice);
        }
    }
    if advice == REMOVE {
        return EINVAL;
    }
    let locked = Mapping::is_locked(at);
    match advice {
        // The flag must stay on the VMA, which fresh memory over a part of it later would take away.
        WIPEONFORK | DONTFORK => {
            let result = materialise(at, len, mapping.protection());
            if result != 0 {
                return result;
            }
            if locked {
                kernel::mlock(at, len, false);
            }
            return kernel::madvise(at, len, advice);
        }
        // Not every kernel knows these.
        DONTNEED_LOCKED | GUARD_INSTALL if !locked || advice == DONTNEED_LOCKED => {
            let result = kernel::madvise(at, len, advice);
            if result != 0 {
                return result;
            }
        }
        _ if locked => return EINVAL,
        _ => {}
    }
    let result = overlay(at, len, mapping.protection());
    if result != 0 { result } else { mark_anew(at, len, locked, advice) }
}

/// What lay there has been replaced, its lock and its guards with it.
fn mark_anew(at: u64, len: u64, locked: bool, advice: u32) -> i64 {
    if locked {
        kernel::mlock(at, len, true);
    }
    match advice {
        GUARD_INSTALL => kernel::madvise(at, len, advice),
        _ => 0,
    }
}

/// A child's shared memory is its own copy; what is asked of it must not bring the snapshot back.
fn advise_shared(at: u64, len: u64, mapping: &Mapping, advice: u32) -> i64 {
    const EACCES: i64 = -13;
    match advice {
        FREE | WIPEONFORK => EINVAL,
        DONTNEED if Mapping::is_locked(at) => EINVAL,
        DONTNEED | DONTNEED_LOCKED => 0,
        REMOVE if Mapping::is_locked(at) => EINVAL,
        REMOVE if mapping.protection() & PROT_WRITE == 0 => EACCES,
        REMOVE => write_zeros(at, len),
        _ => kernel::madvise(at, len, advice),
    }
}

/// A private mapping of a file: what is discarded shows the file, and not what the seed had written.
fn advise_file(table: Table, at: u64, len: u64, mapping: &Mapping, advice: u32) -> i64 {
    let locked = Mapping::is_locked(at);
    // Of the rest, the kernel refuses what it refuses for any file, and DONTFORK changes no byte.
    let result = kernel::madvise(at, len, advice);
    if result != 0 || !matches!(advice, DONTNEED | DONTNEED_LOCKED | GUARD_INSTALL) {
        return result;
    }
    let result = reveal(table, at, len, mapping);
    if result != 0 { result } else { mark_anew(at, len, locked, advice) }
}

/// The file's own bytes in place of `[at, at + len)`. They stay where they lie, too, for the next time.
fn reveal(table: Table, at: u64, len: u64, mapping: &Mapping) -> i64 {
    let beneath = match table.beneath(mapping.offset_of(at), len) {
        Some(beneath) => beneath,
        None => return ENOMEM,
    };
    let flags = kernel::MAYMOVE | kernel::DONTUNMAP;
    let copy = kernel::mremap(beneath, len, len, flags, 0);
    if kernel::failed(copy) {
        return ENOMEM;
    }
    let copy = copy as u64;
    let mut result = kernel::mprotect(copy, len, mapping.protection());
    if result == 0 {
        result = kernel::mremap(copy, len, len, kernel::MAYMOVE | kernel::FIXED, at);
    }
    if kernel::failed(result) {
        kernel::munmap(copy, len);
        return ENOMEM;
    }
    0
}

/// Fresh memory in place of `[at, at + len)`.
fn overlay(at: u64, len: u64, protection: u64) -> i64 {
    let result = kernel::mmap(at, len, protection, kernel::OVER);
    if !kernel::failed(result) {
        return 0;
    }
    // Sealed memory that cannot be written keeps its bytes, as it would in any process.
    if result == kernel::EPERM && protection & PROT_WRITE == 0 {
        return result;
    }
    // Sealed, or no VMA left, or no commit: the pages must do.
    match write_zeros(at, len) {
        0 => 0,
        _ => result,
    }
}

/// Writes zeros whatever the protection.
fn write_zeros(at: u64, len: u64) -> i64 {
    static ZEROS: [u8; 1024] = [0; 1024];
    let memory = match kernel::open_memory() {
        Ok(memory) => memory,
        Err(_) => return ENOMEM,
    };
    let zeros = ZEROS.as_ptr() as u64;
    let mut done = 0;
    while done < len {
        let written = kernel::pwrite(memory, zeros, ZEROS.len() as u64, at + done);
        if written <= 0 {
            break;
        }
        done += written as u64;
    }
    kernel::close(memory);
    if done < len { ENOMEM } else { 0 }
}

/// The same bytes as anonymous memory.
fn materialise(at: u64, len: u64, protection: u64) -> i64 {
    let copy = kernel::mmap(0, len, kernel::PROT_READ_WRITE, kernel::ANYWHERE);
    if kernel::failed(copy) {
        return copy;
    }
    let copy = copy as u64;
    let mut result = match copy_memory(at, len, copy) {
        true => kernel::mprotect(copy, len, protection),
        false => ENOMEM,
    };
    if result == 0 {
        result = kernel::mremap(copy, len, len, kernel::MAYMOVE | kernel::FIXED, at);
    }
    if kernel::failed(result) {
        kernel::munmap(copy, len);
        return result;
    }
    0
}

/// Copies memory that may not be readable.
fn copy_memory(from: u64, len: u64, to: u64) -> bool {
    let memory = match kernel::open_memory() {
        Ok(memory) => memory,
        Err(_) => return false,
    };
    let mut done = 0;
    while done < len {
        match kernel::pread(memory, to + done, len - done, from + done) {
            kernel::EINTR => {}
            read @ 1.. => done += read as u64,
            _ => break,
        }
    }
    kernel::close(memory);
    done == len
}

/// Clears what no longer holds an image page: the chunks that `[start, end)` touches and lie between
/// image-backed VMAs.
pub fn settle(table: Table, start: u64, end: u64, mappings: &mut Mappings) {
    let (first, last) = table.chunks_around(start, end);
    clear_between_images(table, None, first, last, mappings);
    for slot in table.moved() {
        let mut moved = slot.range();
        if let Some((first, last)) = moved.parts_around(start, end) {
            clear_between_images(table, Some(&mut moved), first, last, mappings);
        }
    }
}

/// Clears the bits, in the table or of one moved range, of what lies in `[first, last)` between VMAs that
/// are image-backed.
#[inline(never)]
fn clear_between_images(
    table: Table,
    mut moved: Option<&mut MovedRange>,
    first: u64,
    last: u64,
    mappings: &mut Mappings,
) {
    mappings.rewind();
    let mut free_from = first;
    let mut at = first;
    while at < last {
        let found = mappings.find(at, last);
        if found && !is_listed(table, &mappings.at) {
            at = mappings.at.end;
            continue;
        }
        let free_to = if found { mappings.at.start } else { last };
        match &mut moved {
            None => table.clear(free_from, free_to),
            Some(moved) => moved.clear(free_from, free_to),
        }
        at = if found { mappings.at.end } else { last };
        free_from = at;
    }
    if free_from < last {
        match moved {
            None => table.clear(free_from, last),
            Some(moved) => moved.clear(free_from, last),
        }
    }
}

fn is_listed(table: Table, mapping: &Mapping) -> bool {
    !matches!(mapping.backing(table), Backing::Anonymous | Backing::Foreign)
}
