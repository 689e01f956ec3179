//! mremap(2).
//!
//! The kernel moves and grows a VMA of a file with its offsets, and refuses what spans several VMAs. Where
//! the seed had one anonymous VMA, the child may have many pieces, image-backed and fresh ones in turn; they
//! are moved one by one, and what grows is fresh memory. Pieces of which some are locked are no one VMA in any process. A file of the seed's does not grow: behind what was
//! mapped of it the image has something else.

use core::sync::atomic::Ordering;

use super::discard::{self, settle};
use super::kernel::{self, DONTUNMAP, EFAULT, EINVAL, ENOMEM, FIXED, MAYMOVE, PAGE, failed};
use super::mapping::{Backing, Mapping, Mappings};
use super::table::Table;
use crate::abi::StubTable;

/// End of user space with four-level page tables.
const USER_END: u64 = 0x7fff_ffff_f000;

/// A call that the kernel would not refuse at once; lengths are whole pages.
struct Move {
    old: u64,
    old_len: u64,
    new_len: u64,
    flags: u64,
    target: u64,
}

/// What lies in the range that moves.
struct Survey {
    vmas: u32,
    image: bool,
    file: bool,
    /// What the image shows of a file, written or not.
    only_as_mapped: bool,
    /// Not of one protection, locked in part, or partly neither image-backed nor anonymous.
    mixed: bool,
    hole_at_start: bool,
    hole: bool,
    protection: u64,
    is_locked: bool,
    last_start: u64,
    last_is_image: bool,
}

/// mremap(2).
///
/// # Safety
/// `Table::at`'s promise for `table`; the caller is a call site of the program.
pub unsafe extern "C" fn stub_mremap(
    old: u64,
    old_len: u64,
    new_len: u64,
    flags: u64,
    target: u64,
    table: *mut StubTable,
) -> i64 {
    let round = |len: u64| len.wrapping_add(PAGE - 1) & !(PAGE - 1);
    let mut call = Move { old, old_len: round(old_len), new_len: round(new_len), flags, target };
    // What the kernel refuses at once, it words itself; a plain shrink is exact as it is.
    if call.old_len < old_len || call.new_len < new_len || call.is_refused() || call.is_shrink() {
        return kernel::mremap(old, old_len, new_len, flags, target);
    }
    // SAFETY: the caller's promise.
    let table = unsafe { Table::at(table) };
    if !table.knows(old, old + call.old_len) {
        return call.pass_on();
    }
    if !table.may_hold_image(old, old + call.old_len) {
        // All of it is anonymous, but perhaps in pieces.
        match call.pass_on() {
            EFAULT => {}
            result => return result,
        }
    }
    let mask = kernel::block_signals();
    let result = remap(table, &mut call);
    kernel::set_signal_mask(mask);
    result
}

impl Move {
    fn is_refused(&self) -> bool {
        let misfit =
            |start: u64, len: u64| start & (PAGE - 1) != 0 || start.wrapping_add(len) < start;
        let has_target = self.flags & (FIXED | DONTUNMAP) != 0;
        self.flags & !(MAYMOVE | FIXED | DONTUNMAP) != 0
            || (has_target && self.flags & MAYMOVE == 0)
            || self.old_len == 0
            || self.new_len == 0
            || misfit(self.old, self.old_len)
            || misfit(self.old, self.new_len)
            || (self.flags & DONTUNMAP != 0 && self.old_len != self.new_len)
            || (has_target
                && (misfit(self.target, self.new_len)
                    || self.target + self.new_len > USER_END
                    || (self.target < self.old + self.old_len
                        && self.old < self.target + self.new_len)))
    }

    fn is_shrink(&self) -> bool {
        self.flags & (FIXED | DONTUNMAP) == 0 && self.new_len <= self.old_len
    }

    fn end(&self) -> u64 {
        self.old + self.old_len
    }

    fn pass_on(&self) -> i64 {
        kernel::mremap(self.old, self.old_len, self.new_len, self.flags, self.target)
    }
}

/// What is to be done after a look at the memory.
enum Plan {
    /// Nothing: this is the result.
    Done(i64),
    /// The pieces go here.
    MoveTo(u64),
}

#[inline(never)]
fn remap(table: Table, call: &mut Move) -> i64 {
    let mut mappings = match Mappings::open(table) {
        Ok(mappings) => mappings,
        Err(_) => return ENOMEM,
    };
    let target = match plan(table, call, &mut mappings) {
        Plan::Done(result) => return result,
        Plan::MoveTo(target) => target,
    };
    table.add_moved(target, target + call.new_len);
    mappings.rewind();
    match move_pieces(table, call, target, &mut mappings) {
        Ok(()) => {
            settle(table, call.old, call.end(), &mut mappings);
            target as i64
        }
        Err((moved, error)) => {
            move_back(call, target, moved, &mut mappings);
            kernel::munmap(target, call.new_len);
            error
        }
    }
}

#[inline(never)]
fn plan(table: Table, call: &mut Move, mappings: &mut Mappings) -> Plan {
    let survey = survey(table, call, mappings);
    if survey.vmas == 0 || survey.hole_at_start {
        return Plan::Done(EFAULT);
    }
    let torn = survey.mixed || survey.hole;
    if survey.only_as_mapped && call.new_len > call.old_len {
        return Plan::Done(ENOMEM);
    }
    if !survey.image && (survey.vmas < 2 || torn) {
        let result = call.pass_on();
        if survey.only_as_mapped && !failed(result) {
            table.add_moved(result as u64, result as u64 + call.new_len);
        }
        // What stays where it was has lost the pages that were written.
        if survey.file && call.flags & DONTUNMAP != 0 && !failed(result) {
            let left = discard::advise(table, call.old, call.end(), discard::DONTNEED);
            if failed(left) {
                // The old place would show them: nothing has moved.
                let back = MAYMOVE | FIXED;
                kernel::mremap(result as u64, call.old_len, call.old_len, back, call.old);
                return Plan::Done(left);
            }
        }
        return Plan::Done(result);
    }
    let may_span = call.flags & FIXED != 0 && call.old_len == call.new_len;
    if torn && !(may_span && moves_span(table)) {
        return Plan::Done(EFAULT);
    }
    if call.new_len > call.old_len && call.flags & FIXED == 0 {
        if grow_in_place(call, &survey) {
            return Plan::Done(call.old as i64);
        }
        if call.flags & MAYMOVE == 0 {
            return Plan::Done(ENOMEM);
        }
    }
    match make_room(call, &survey) {
        Ok(target) => Plan::MoveTo(target),
        Err(error) => Plan::Done(error),
    }
}

/// Looks at what the kernel would look at: of a range that shrinks to a fixed place, what survives.
fn survey(table: Table, call: &Move, mappings: &mut Mappings) -> Survey {
    let len = match call.flags & FIXED {
        0 => call.old_len,
        _ => call.old_len.min(call.new_len),
    };
    let end = call.old + len;
    let mut found = Survey {
        vmas: 0,
        image: false,
        file: false,
        only_as_mapped: false,
        mixed: false,
        hole_at_start: false,
        hole: false,
        protection: 0,
        is_locked: false,
        last_start: call.old,
        last_is_image: false,
    };
    let mut at = call.old;
    while at < end {
        if !mappings.find(at, end) {
            found.hole = true;
            break;
        }
        let mapping = &mappings.at;
        if mapping.start > at {
            found.hole = true;
            found.hole_at_start |= at == call.old;
        }
        let backing = mapping.backing(table);
        found.mixed |= !matches!(backing, Backing::Image | Backing::Anonymous);
        let start = mapping.start.max(at);
        let is_locked = Mapping::is_locked(start);
        found.mixed |= found.vmas > 0 && found.protection != mapping.protection();
        found.mixed |= found.vmas > 0 && found.is_locked != is_locked;
        found.protection = mapping.protection();
        found.is_locked = is_locked;
        found.vmas += 1;
        found.image |= backing == Backing::Image;
        found.file |= backing == Backing::ImageFile;
        found.only_as_mapped |=
            !matches!(backing, Backing::Anonymous | Backing::Foreign | Backing::Image);
        found.last_is_image = backing == Backing::Image;
        found.last_start = start;
        at = mapping.end;
    }
    found
}

/// Whether a move of equal size to a fixed place may span VMAs and holes on this kernel: tried once.
fn moves_span(table: Table) -> bool {
    const NO: u32 = 1;
    const YES: u32 = 2;
    let known = table.moves_span().load(Ordering::Relaxed);
    if known != 0 {
        return known == YES;
    }
    let len = 2 * PAGE;
    let room = kernel::mmap(0, 2 * len, 0, kernel::ANYWHERE | kernel::NO_RESERVE);
    if failed(room) {
        return false;
    }
    let room = room as u64;
    kernel::mprotect(room, PAGE, 1);
    kernel::munmap(room + len, len);
    let moved = kernel::mremap(room, len, len, MAYMOVE | FIXED, room + len);
    kernel::munmap(room, len);
    if !failed(moved) {
        kernel::munmap(room + len, len);
    }
    table.moves_span().store(if failed(moved) { NO } else { YES }, Ordering::Relaxed);
    !failed(moved)
}

fn grow_in_place(call: &Move, survey: &Survey) -> bool {
    let more = call.new_len - call.old_len;
    if !survey.last_is_image {
        let last = call.end() - survey.last_start;
        return !failed(kernel::mremap(survey.last_start, last, last + more, 0, 0));
    }
    let grown = kernel::mmap(call.end(), more, survey.protection, kernel::IN_HOLE);
    if failed(grown) {
        return false;
    }
    // Before Linux 4.17 the address is a mere hint.
    if grown as u64 != call.end() {
        kernel::munmap(grown as u64, more);
        return false;
    }
    if survey.is_locked {
        kernel::mlock(call.end(), more, false);
    }
    true
}

/// The range that the pieces go to; what grows behind an image-backed one is already in place. A shrinking move is cut to
/// what survives.
fn make_room(call: &mut Move, survey: &Survey) -> Result<u64, i64> {
    let mut target = call.target;
    if call.flags & FIXED == 0 {
        let hint = if call.flags & DONTUNMAP != 0 { call.target } else { 0 };
        let room = kernel::mmap(hint, call.new_len, 0, kernel::ANYWHERE | kernel::NO_RESERVE);
        if failed(room) {
            return Err(room);
        }
        target = room as u64;
    } else {
        if call.new_len < call.old_len {
            kernel::munmap(call.old + call.new_len, call.old_len - call.new_len);
            call.old_len = call.new_len;
        }
        // Holes move, too: what lies where they go stays.
        if !survey.hole {
            let room = kernel::mmap(target, call.new_len, 0, kernel::OVER | kernel::NO_RESERVE);
            if failed(room) {
                return Err(room);
            }
        }
    }
    // An anonymous piece at the end grows by itself when it moves, and keeps its flags.
    if call.new_len > call.old_len && survey.last_is_image {
        let (behind, more) = (target + call.old_len, call.new_len - call.old_len);
        let grown = kernel::mmap(behind, more, survey.protection, kernel::OVER);
        if failed(grown) {
            kernel::munmap(target, call.new_len);
            return Err(grown);
        }
        if survey.is_locked {
            kernel::mlock(behind, more, false);
        }
    }
    Ok(target)
}

/// Moves piece by piece; an error tells up to where.
fn move_pieces(
    table: Table,
    call: &Move,
    target: u64,
    mappings: &mut Mappings,
) -> Result<(), (u64, i64)> {
    let mut at = call.old;
    while at < call.end() && mappings.find(at, call.end()) {
        let start = mappings.at.start.max(at);
        let len = mappings.at.end.min(call.end()) - start;
        let image = mappings.at.backing(table) == Backing::Image;
        let flags = MAYMOVE | FIXED | (call.flags & DONTUNMAP);
        let to = target + (start - call.old);
        let more = match start + len == call.end() && !image {
            true => call.new_len.saturating_sub(call.old_len),
            false => 0,
        };
        let mut result = kernel::mremap(start, len, len + more, flags, to);
        // Before Linux 5.13 the old range of a file's VMA cannot be kept.
        if result == EINVAL && image && flags & DONTUNMAP != 0 {
            result = kernel::mremap(start, len, len, MAYMOVE | FIXED, to);
        }
        if failed(result) {
            return Err((at, result));
        }
        if call.flags & DONTUNMAP != 0 && image {
            kernel::mmap(start, len, mappings.at.protection(), kernel::OVER);
        }
        at = start + len;
    }
    Ok(())
}

/// The pieces of `[call.old, moved)` go back where they were.
fn move_back(call: &Move, target: u64, moved: u64, mappings: &mut Mappings) {
    let end = target + (moved - call.old);
    mappings.rewind();
    let mut at = target;
    while at < end && mappings.find(at, end) {
        let start = mappings.at.start.max(at);
        let len = mappings.at.end.min(end) - start;
        kernel::mremap(start, len, len, MAYMOVE | FIXED, call.old + (start - target));
        at = start + len;
    }
}
