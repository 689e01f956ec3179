//! Memory that a seed describes itself in: mapped before the fork, reported as not carried, unmapped in
//! the parent at once.
//!
//! ```text
//! guard | report (1 MiB + header) | work | stack, growing down | Freeze | guard
//! ```
//!
//! The guards keep the kernel from merging it with a neighbour that is carried.

use std::io;
use std::ptr::{self, NonNull};

use super::carried::Looked;
use super::header::MAX_HEADER_BYTES;
use super::report::{MAX_REPORT_BYTES, Written};
use super::seed::Refusal;
use super::shared::Copied;
use super::whole::{Map, Table};
use crate::descriptor::{Clocks, SeedAddr, SeedRange};
use crate::id::PrepareToken;
use crate::sys::rawcall::KernelAction;

const GUARD_BYTES: usize = 64 << 10;
/// The report starts a page into its area; its frame's header ends there.
const REPORT_AT: usize = 4096;
const WORK_BYTES: usize = 64 << 10;
const STACK_BYTES: usize = 128 << 10;
const FREEZE_BYTES: usize = 32 << 10;
const REPORT_AREA: usize = (REPORT_AT + MAX_REPORT_BYTES).next_multiple_of(4096);
const BODY_BYTES: usize = REPORT_AREA + WORK_BYTES + STACK_BYTES + FREEZE_BYTES;
/// Shared VMAs that one seed may have copies of.
pub(super) const MAX_COPIES: usize = 256;

/// What the seed must know beyond what the kernel can tell it, filled in before the fork.
#[repr(C, align(16))]
#[derive(Debug)]
pub(super) struct Freeze {
    /// The connection to the agent, inherited by the fork.
    pub(super) socket: i32,
    /// [`PrepareToken`]'s bytes.
    pub(super) token: [u8; 16],
    pub(super) parent_pid: u64,
    pub(super) parent_tid: u64,
    pub(super) generation: u64,
    /// getitimer(2) of the parent.
    pub(super) timers: [[u64; 4]; 3],
    /// The parent's clocks.
    pub(super) frozen_at: Clocks,
    /// The parent's action of the signal that the freeze uses.
    pub(super) old_action: KernelAction,
    /// Offset of glibc's rseq area from the thread pointer and lengths it may have registered; 0: none.
    pub(super) rseq_offset: i64,
    pub(super) rseq_lengths: [u32; 3],
    /// What was found registered: length, 0 if nothing.
    pub(super) rseq_registered: u32,
    /// unshare(CLONE_THREAD) was refused: a fork handler started a thread.
    pub(super) foreign_threads: bool,
    /// Address of the `ResumeInfo`.
    pub(super) resume_area: u64,
    /// Address of where children are told of losses.
    pub(super) losses_area: u64,
    /// Open files are carried.
    pub(super) carry_files: bool,
    /// What the parent has found in them, and how far the report is with it.
    pub(super) looked: Option<(Result<Looked, Refusal>, Written)>,
    /// `Refuse::bits`.
    pub(super) refuse: u64,
    /// The whole scratch mapping, guards included.
    pub(super) scratch: SeedRange,
    /// Other memory of ours that no child has.
    pub(super) not_carried: SeedRange,
    /// Set in whole-process mode.
    pub(super) whole: Option<Whole>,
    pub(super) copies: [SharedCopy; MAX_COPIES],
    pub(super) copy_count: usize,
}

/// What the seed of a whole process knows of the other threads. In the parent's memory, of which the seed
/// has its own copy at the same addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    pub(super) table: NonNull<Table>,
    pub(super) map: NonNull<Map>,
    /// The u32 at which they wait in a child.
    pub(super) gate: u64,
}

/// A shared VMA and its copy; `mapping` is the copy with its guards.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SharedCopy {
    pub(super) shared: SeedRange,
    pub(super) copy: SeedAddr,
    pub(super) mapping: SeedRange,
}

impl SharedCopy {
    /// Of a copy that has been or will be made.
    pub(super) fn of(copied: &Copied) -> Self {
        let copy = SeedAddr(copied.memory.at(0).as_ptr() as usize as u64);
        SharedCopy { shared: copied.shared, copy, mapping: copied.memory.whole() }
    }
}

impl Freeze {
    /// The memory areas of the scratch mapping that this lies in.
    ///
    /// # Safety
    /// `self` lies in a live [`Scratch`], and nothing else uses the areas.
    pub(super) unsafe fn areas(&self) -> Areas {
        let body = usize::try_from(self.scratch.start.0).unwrap_or(0) + GUARD_BYTES;
        // SAFETY: the areas are parts of the live mapping, apart from each other and from `self`.
        unsafe {
            Areas {
                header: &mut *((body + REPORT_AT - MAX_HEADER_BYTES) as *mut _),
                report: slice(body + REPORT_AT, MAX_REPORT_BYTES),
                work: slice(body + REPORT_AREA, WORK_BYTES),
            }
        }
    }
}

/// Pieces of scratch memory. `report` lies right behind `header`.
#[derive(Debug)]
pub(super) struct Areas {
    pub(super) header: &'static mut [u8; MAX_HEADER_BYTES],
    pub(super) report: &'static mut [u8],
    pub(super) work: &'static mut [u8],
}

unsafe fn slice(at: usize, len: usize) -> &'static mut [u8] {
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts_mut(at as *mut u8, len) }
}

/// The mapping. Dropped, it is unmapped; a child forgets it, for it has nothing there.
#[derive(Debug)]
pub(super) struct Scratch {
    mapping: Guarded,
}

impl Scratch {
    /// Maps it; `freeze` gets its place and its address's range.
    pub(super) fn new(token: &PrepareToken) -> io::Result<Self> {
        const { assert!(size_of::<Freeze>() <= FREEZE_BYTES) };
        let scratch = Scratch { mapping: Guarded::new(BODY_BYTES)? };
        let freeze = Freeze {
            socket: -1,
            token: token.0,
            parent_pid: 0,
            parent_tid: 0,
            generation: 0,
            timers: [[0; 4]; 3],
            frozen_at: Clocks::default(),
            old_action: KernelAction::default(),
            rseq_offset: 0,
            rseq_lengths: [0; 3],
            rseq_registered: 0,
            foreign_threads: false,
            resume_area: 0,
            losses_area: 0,
            carry_files: false,
            looked: None,
            refuse: 0,
            scratch: scratch.mapping.whole(),
            not_carried: SeedRange::default(),
            whole: None,
            copies: [SharedCopy::default(); MAX_COPIES],
            copy_count: 0,
        };
        // SAFETY: the place is ours, large enough (asserted), page-aligned and not yet initialised.
        unsafe { scratch.freeze().as_ptr().write(freeze) };
        Ok(scratch)
    }

    /// Where the seed finds everything; its stack ends here.
    pub(super) fn freeze(&self) -> NonNull<Freeze> {
        self.mapping.at(BODY_BYTES - FREEZE_BYTES).cast()
    }
}

/// Private anonymous memory between two guards.
#[derive(Debug)]
pub(super) struct Guarded {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it is plain memory, owned by whoever holds the value.
unsafe impl Send for Guarded {}

impl Guarded {
    /// `bytes` of zeros, a multiple of the page size.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let whole = bytes
            .checked_add(2 * GUARD_BYTES)
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, wherever the kernel likes.
        let base = unsafe { libc::mmap(ptr::null_mut(), whole, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let guarded = Guarded { base, bytes };
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the middle of the mapping made above.
        if unsafe { libc::mprotect(guarded.at(0).as_ptr().cast(), bytes, prot) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(guarded)
    }

    /// The address `offset` bytes behind the first guard.
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.bytes);
        // SAFETY: inside the mapping, by the assertion.
        unsafe { self.base.add(GUARD_BYTES + offset) }
    }

    /// With its guards.
    pub(super) fn whole(&self) -> SeedRange {
        let start = self.base.as_ptr() as usize as u64;
        SeedRange::new(start, start + (self.bytes + 2 * GUARD_BYTES) as u64)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the whole mapping is ours and nobody refers to it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes + 2 * GUARD_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_lie_in_the_mapping_apart_from_each_other() {
        let scratch = Scratch::new(&PrepareToken::random()).unwrap();
        let whole = scratch.mapping.whole();
        // SAFETY: the scratch lives and nothing else uses it.
        let areas = unsafe { scratch.freeze().as_ref().areas() };
        areas.report.fill(1);
        areas.work.fill(2);
        areas.header.fill(3);
        let at = |slice: &[u8]| SeedAddr(slice.as_ptr() as usize as u64);
        assert_eq!(at(areas.header).0 + MAX_HEADER_BYTES as u64, at(areas.report).0);
        assert!(areas.report.iter().all(|b| *b == 1) && areas.work.iter().all(|b| *b == 2));
        for addr in [at(areas.header), at(areas.report), at(areas.work)] {
            assert!(whole.contains(addr));
        }
        // SAFETY: as above.
        assert_eq!(unsafe { scratch.freeze().as_ref().scratch }, whole);
    }
}
