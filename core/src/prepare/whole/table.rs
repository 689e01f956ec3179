//! The table that parked threads enter themselves into.
//!
//! It is mapped at the first prepare of a whole process and stays: a thread that was asked to park and
//! comes too late still looks at it. Its memory is touched as far as there are threads.

use std::cell::UnsafeCell;
use std::io;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, Ordering::SeqCst};

use super::open::Help;
use super::pending::Waiting;
use super::state::ThreadState;
use crate::descriptor::MAX_THREADS;
use crate::prepare::report::ReportWriter;
use crate::prepare::scratch::Guarded;

/// Stack of the process that opens threads which block the signal (`open.rs`).
const HELPER_STACK_BYTES: usize = 64 << 10;
/// What [`super::signal::enter`] runs on: a page, of which it takes less than a third.
pub(super) const SLOT_STACK_BYTES: usize = 4 << 10;

/// All zero when mapped.
#[repr(C)]
pub(in crate::prepare) struct Table {
    /// The round that is on. Parked threads wait until it is another one. Rounds are even and never 0.
    pub(super) round: AtomicU32,
    /// Threads that have entered themselves in this round.
    pub(super) arrived: AtomicU32,
    /// How many must; whoever makes it whole wakes the parker, which waits on `arrived`.
    pub(super) expected: AtomicU32,
    /// Offset of libc's rseq area from the thread pointer, and lengths it may have registered; 0: none.
    pub(super) rseq_offset: AtomicI64,
    pub(super) rseq_lengths: [AtomicU32; 3],
    /// Slots in use this round.
    pub(super) used: AtomicU32,
    pub(super) helper: Helper,
    /// Of each slot, apart from it so that looking for one is quick.
    pub(super) tids: [AtomicU32; MAX_THREADS],
    pub(super) slots: [Slot; MAX_THREADS],
    /// The caller of prepare.
    pub(super) caller: UnsafeCell<ThreadState>,
    helper_stack: UnsafeCell<[u8; HELPER_STACK_BYTES]>,
    pub(super) waiting: Waiting,
    /// Of each slot, while its thread looks at itself.
    pub(super) stacks: UnsafeCell<[Stack; MAX_THREADS]>,
}

/// Aligned so that one thread touches one page.
#[repr(C, align(4096))]
pub(super) struct Stack([u8; SLOT_STACK_BYTES]);

/// What the parker and its helper process say to each other.
#[repr(C)]
pub(super) struct Helper {
    /// 1: it may begin.
    pub(super) go: AtomicU32,
    /// 1: it must give up.
    pub(super) stop: AtomicU32,
    /// What it does, written before it is made.
    pub(super) what: UnsafeCell<Option<Help>>,
}

/// One other thread.
#[repr(C)]
pub(super) struct Slot {
    /// The round in which it is asked to park; one more once it has; [`GONE`] if it will not.
    pub(super) claim: AtomicU32,
    /// Where the helper process stands with it.
    pub(super) opened: AtomicU32,
    /// 1: it blocks the signal but for us: its frame's mask must say so.
    pub(super) masked: AtomicU32,
    /// The thread's number in /proc, which may be mounted for another pid namespace.
    pub(super) in_proc: AtomicU32,
    /// errno of ptrace(2), with [`REFUSED`].
    pub(super) error: AtomicU32,
    pub(super) state: UnsafeCell<ThreadState>,
}

/// `Slot::claim`: it has ended, or was given up.
pub(super) const GONE: u32 = 1;

/// `Slot::opened`: the helper is to open it.
pub(super) const WANTED: u32 = 1;
/// The signal gets through.
pub(super) const OPENED: u32 = 2;
/// ptrace(2) was refused.
pub(super) const REFUSED: u32 = 3;
/// It has its system calls dispatched.
pub(super) const DISPATCHED: u32 = 4;

// SAFETY: a slot's state is written by the thread that has claimed it, before it counts itself as arrived,
// and read by the parker after that; the caller's is touched by the parker alone; what waits, by the parker and by the
// helper that it has made and waits for.
unsafe impl Sync for Table {}

pub(super) static TABLE: AtomicPtr<Table> = AtomicPtr::new(std::ptr::null_mut());

/// The table of this process, for who is asked to park.
pub(super) fn existing() -> Option<&'static Table> {
    // SAFETY: once published it stays.
    unsafe { TABLE.load(SeqCst).as_ref() }
}

/// The table of this process; callers hold the turn to prepare.
pub(super) fn get() -> io::Result<&'static Table> {
    if let Some(table) = existing() {
        return Ok(table);
    }
    let memory = Guarded::new(size_of::<Table>().next_multiple_of(4096))?;
    let table: *mut Table = memory.at(0).as_ptr().cast();
    std::mem::forget(memory);
    TABLE.store(table, SeqCst);
    // SAFETY: the mapping stays; zero is a valid value of every field.
    Ok(unsafe { &*table })
}

impl Table {
    /// Begins a round without threads.
    pub(super) fn begin(&self, rseq_offset: i64, rseq_lengths: [u32; 3]) -> u32 {
        self.rseq_offset.store(rseq_offset, SeqCst);
        for (place, len) in self.rseq_lengths.iter().zip(rseq_lengths) {
            place.store(len, SeqCst);
        }
        self.arrived.store(0, SeqCst);
        self.expected.store(u32::MAX, SeqCst);
        self.used.store(0, SeqCst);
        self.next_round()
    }

    /// Lets everybody go who waits for the end of the round.
    pub(super) fn next_round(&self) -> u32 {
        let round = self.round.load(SeqCst).wrapping_add(2).max(2);
        self.round.store(round, SeqCst);
        round
    }

    /// Slots of threads that are there, with the id of each.
    pub(super) fn threads(&self) -> impl Iterator<Item = (u32, &Slot)> {
        let used = self.used.load(SeqCst) as usize;
        let slots = self.tids.iter().zip(&self.slots).take(used);
        let there = slots.filter(|(_, slot)| slot.claim.load(SeqCst) != GONE);
        there.map(|(tid, slot)| (tid.load(SeqCst), slot))
    }

    /// States of all that have parked.
    ///
    /// # Safety
    /// The round is over for good (in a seed), or every thread of it has arrived.
    pub(in crate::prepare) unsafe fn parked(&self) -> impl Iterator<Item = &ThreadState> {
        // SAFETY: the caller's: nobody writes any more.
        self.threads().map(|(_, slot)| unsafe { &*slot.state.get() })
    }

    /// The thread that prepares.
    ///
    /// # Safety
    /// Only between the parker's own writes to it.
    pub(in crate::prepare) unsafe fn caller(&self) -> &ThreadState {
        // SAFETY: the caller's.
        unsafe { &*self.caller.get() }
    }

    /// Signals that wait, in a seed.
    ///
    /// # Safety
    /// Nobody writes to them.
    pub(in crate::prepare) unsafe fn report_waiting(&self, writer: &mut ReportWriter<'_>) {
        // SAFETY: the caller's.
        unsafe { self.waiting.report(writer) };
    }

    /// Where the helper's stack begins, growing down.
    pub(super) fn helper_stack_top(&self) -> usize {
        (self.helper_stack.get() as usize + HELPER_STACK_BYTES) & !15
    }
}
