//! Threads that have their system calls dispatched to a handler of their own (PR_SET_SYSCALL_USER_DISPATCH).
//!
//! Nobody is told of it but who traces such a thread, and it must not be asked to park: the calls of our handler would go to
//! its own, which is blocked there, and the kernel ends a process for that. So a helper process looks before anybody is
//! stopped, and only where SIGSYS has a handler at all: without one nobody has calls dispatched. Where clone, wait4 or
//! ptrace is refused nothing is known, and nothing is refused.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::failure::{self, Kind, StopError};
use super::open;
use super::park::{self, now};
use super::table::{self, DISPATCHED, Slot, Table};
use crate::prepare::scratch::Guarded;
use crate::prepare::{Threads, kept};
use crate::sys::rawcall::{rawcall, set_signal_mask, signal_bit};

/// Where names of threads, and the list of them, are read to.
const WORK_BYTES: usize = 48 << 10;

/// Why `threads` of this process cannot be prepared, if one of them is such a thread. Callers hold the turn to prepare.
pub(in crate::prepare) fn refuse(threads: Threads, patience: Duration) -> Option<StopError> {
    if !kept::handles_sigsys() {
        return None;
    }
    // What has no memory is told by what needs more of it.
    let table = table::get().ok()?;
    let memory = Guarded::new(WORK_BYTES).ok()?;
    // SAFETY: as many bytes were mapped, which nobody else knows of.
    let work = unsafe { std::slice::from_raw_parts_mut(memory.at(0).as_ptr(), WORK_BYTES) };
    // SAFETY: takes nothing.
    let own = unsafe { rawcall!(libc::SYS_gettid) };
    list(table, threads, u32::try_from(own).unwrap_or(0), work);
    let deadline = now().saturating_add(u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX));
    // No handler of the program runs in the helper, which shares its memory, but one: where a seccomp filter traps a call
    // of ours (SECCOMP_RET_TRAP, for which most handlers of SIGSYS are there), the kernel ends who blocks that signal.
    let mask = set_signal_mask(u64::MAX);
    set_signal_mask(mask | !signal_bit(libc::SIGSYS));
    let looked = match can_wait() {
        true => open::by_helper(table, deadline, look),
        false => Err(-(libc::ENOSYS as isize)),
    };
    set_signal_mask(mask);
    let found = listed(table).find(|(_, slot)| slot.opened.load(SeqCst) == DISPATCHED);
    let refused = found.filter(|_| looked.is_ok()).map(|(tid, slot)| {
        let in_proc = slot.in_proc.load(SeqCst);
        failure::describe(Kind::Dispatched, tid, 0, in_proc, work).error(patience)
    });
    table.used.store(0, SeqCst);
    refused
}

/// Whether wait4(2) is answered by the kernel: a helper of whose end nothing is told would be waited for without end.
fn can_wait() -> bool {
    // SAFETY: nobody is a child of its own, so nobody is reaped.
    let answer = unsafe {
        let own = rawcall!(libc::SYS_getpid);
        rawcall!(libc::SYS_wait4, own, 0, libc::__WALL | libc::WNOHANG, 0)
    };
    answer == -(libc::ECHILD as isize)
}

/// Who is to be looked at.
fn list(table: &Table, threads: Threads, own: u32, work: &mut [u8]) {
    let mut used = 0;
    let mut add = |tid: u32, in_proc: u32| {
        let Some(slot) = table.slots.get(used) else { return };
        slot.opened.store(0, SeqCst);
        slot.in_proc.store(in_proc, SeqCst);
        table.tids[used].store(tid, SeqCst);
        used += 1;
    };
    match threads {
        Threads::Caller => add(own, own),
        // Who cannot be listed is not looked at: parking says why.
        Threads::All => park::each_thread(work, &mut add),
    }
    table.used.store(u32::try_from(used).unwrap_or(0), SeqCst);
}

fn listed(table: &Table) -> impl Iterator<Item = (u32, &Slot)> {
    let used = table.used.load(SeqCst) as usize;
    let slots = table.tids.iter().zip(&table.slots).take(used);
    slots.map(|(tid, slot)| (tid.load(SeqCst), slot))
}

/// In the helper process.
fn look(table: &Table) {
    for (tid, slot) in listed(table) {
        let Ok(deliver) = open::stop(table, tid) else { continue };
        if open::is_dispatched(tid) {
            slot.opened.store(DISPATCHED, SeqCst);
        }
        open::let_go(tid, deliver);
    }
}
