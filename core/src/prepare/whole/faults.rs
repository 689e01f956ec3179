//! Threads whose alternative stack has not even room for the kernel's frame.
//!
//! One of MINSIGSTKSZ (2048 bytes) has none for AVX-512, and the kernel lets a thread have it all the same. Nobody
//! can ask for another thread's alternative stack, so it cannot be refused beforehand. What the kernel does
//! with a frame that has no room is to send the thread SIGSEGV; so that signal is ours, too, while threads are
//! asked, and is handled on the thread's regular stack. Its frame there is as good as the other one would
//! have been.
//!
//! A fault of the program's own meanwhile parks its thread as well, which then goes on at the instruction that
//! faulted, and faults again when the program's action is back.
//!
//! Not where a regular stack may be too small for any frame, which is why Go handles all signals on alternative ones,
//! that have room. And nothing helps a thread that blocks SIGSEGV.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::entry;
use super::signal;
use super::table::{self, Slot, Table};
use crate::sys::queued_signal::QueuedSignal;
use crate::sys::rawcall::{KernelAction, SA_RESTORER, rawcall, restorer, sigaction};
use crate::sys::signal::FAULTS;

/// The program's action.
static ORIGINAL: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

const LAST_CLASSIC: i32 = 31;

/// Takes SIGSEGV over, if the program's regular stacks have room for a frame.
pub(super) fn take_over() {
    // SAFETY: the handler is made to run at any moment: it allocates nothing and takes no lock.
    unsafe {
        let old = sigaction(libc::SIGSEGV, None);
        if old.handler == handler() || is_on_alternative(old) && has_small_stacks() {
            return;
        }
        let words = [old.handler, old.flags, old.restorer, old.mask];
        for (place, word) in ORIGINAL.iter().zip(words) {
            place.store(word, SeqCst);
        }
        let action = KernelAction {
            handler: handler(),
            flags: SA_RESTORER | u64::from(libc::SA_SIGINFO.cast_unsigned()),
            restorer: restorer(),
            mask: !0,
        };
        sigaction(libc::SIGSEGV, Some(&action));
    }
}

/// Gives it back.
pub(super) fn give_back() {
    // SAFETY: the action is the program's own; only ours is replaced.
    unsafe {
        if sigaction(libc::SIGSEGV, None).handler == handler() {
            let [handler, flags, restorer, mask] =
                ORIGINAL.each_ref().map(|word| word.load(SeqCst));
            sigaction(libc::SIGSEGV, Some(&KernelAction { handler, flags, restorer, mask }));
        }
    }
}

/// Whether signals that may come at any moment are handled on alternative stacks. Those of faults languages handle there to
/// tell of a stack that has overflowed, without having small ones.
fn has_small_stacks() -> bool {
    let others = (1..=LAST_CLASSIC).filter(|signal| !FAULTS.contains(signal));
    // SAFETY: only asks.
    others.map(|signal| unsafe { sigaction(signal, None) }).any(is_on_alternative)
}

fn is_on_alternative(action: KernelAction) -> bool {
    action.handler > 1 && action.flags & u64::from(libc::SA_ONSTACK.cast_unsigned()) != 0
}

fn handler() -> u64 {
    on_fault as *const () as usize as u64
}

/// Everything is blocked here, and the frame below is the thread's context.
extern "C" fn on_fault(_signal: i32, info: *mut QueuedSignal, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel hands a SA_SIGINFO handler a live siginfo.
    let sent = unsafe { (*info).code <= 0 };
    if sent {
        give_back();
        // It comes when this handler has returned, to the program's action.
        // SAFETY: `info` lives.
        signal::send_again(libc::SIGSEGV, unsafe { &*info });
        return;
    }
    // One that has not been asked faults again, until it is or the action is the program's.
    let Some((table, slot, round)) = table::existing().and_then(claimed) else { return };
    signal::drop_question();
    signal::enter(slot, table, context);
    entry::wait(table, round);
}

/// The calling thread's slot, if it is asked to park and has not yet.
fn claimed(table: &Table) -> Option<(&Table, &Slot, u32)> {
    // SAFETY: takes nothing.
    let own = unsafe { rawcall!(libc::SYS_gettid) }.unsigned_abs();
    let round = table.round.load(SeqCst);
    let places = table.tids.iter().zip(&table.slots);
    let mut asked = places.filter(|(tid, _)| tid.load(SeqCst) as usize == own);
    let slot = asked.find_map(|(_, slot)| {
        slot.claim.compare_exchange(round, round + 1, SeqCst, SeqCst).is_ok().then_some(slot)
    })?;
    Some((table, slot, round))
}
