//! The signal that parks threads, and what a thread does that gets it.
//!
//! It is 33, with which glibc has other threads change their ids (SIGSETXID) and musl cancels them: no
//! program can block it through libc, and language runtimes leave it alone. Only the kernel's table knows
//! of the change, by raw rt_sigaction(2), and only while threads are asked. What others send by it goes
//! where it would have gone.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::state::ThreadState;
use super::table::{self, Slot, Table};
use crate::sys::futex::{self, Reach};
use crate::sys::queued_signal::QueuedSignal;
use crate::sys::rawcall::{KernelAction, SA_RESTORER, rawcall, restorer, sigaction, signal_bit};

/// The signal.
pub(in crate::prepare) const PARK_SIGNAL: i32 = 33;
/// `si_errno` of ours.
const OURS: i32 = 0x4d49_544f;

/// The program's action.
static ORIGINAL: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// Takes the signal over.
pub(super) fn take_over() {
    let action = KernelAction {
        handler: handler(),
        // The alternative stack is used where a thread has one: its own may be a few kilobytes (Go).
        flags: [libc::SA_SIGINFO, libc::SA_RESTART, libc::SA_ONSTACK]
            .iter()
            .fold(SA_RESTORER, |flags, flag| flags | u64::from(flag.cast_unsigned())),
        restorer: restorer(),
        mask: !0,
    };
    // SAFETY: the handler is made to run at any moment: it allocates nothing and takes no lock.
    unsafe {
        let old = sigaction(PARK_SIGNAL, None);
        if old.handler != handler() {
            let words = [old.handler, old.flags, old.restorer, old.mask];
            for (place, word) in ORIGINAL.iter().zip(words) {
                place.store(word, SeqCst);
            }
        }
        sigaction(PARK_SIGNAL, Some(&action));
    }
}

/// Gives it back, once no thread has one of ours to come.
pub(super) fn give_back() {
    // SAFETY: the action is the program's own; only ours is replaced.
    unsafe {
        if sigaction(PARK_SIGNAL, None).handler == handler() {
            sigaction(PARK_SIGNAL, Some(&original()));
        }
    }
}

/// `si_value` of the question to slot `index` in `round`.
pub(super) fn value(round: u32, index: usize) -> u64 {
    u64::from(round) << 32 | index as u64
}

/// Asks thread `tid` to enter itself into slot `index`: the kernel's answer.
pub(super) fn ask(process: isize, tid: u32, round: u32, index: usize) -> isize {
    let mut info = QueuedSignal::new(PARK_SIGNAL, value(round, index))
        .by(i32::try_from(process).unwrap_or(0), 0);
    info.errno = OURS;
    let number = libc::SYS_rt_tgsigqueueinfo;
    // SAFETY: `info` lives; the handler is installed.
    unsafe { rawcall!(number, process, tid, PARK_SIGNAL, &raw mut info) }
}

/// Whether a signal is our question of this value.
pub(super) fn asks(info: &QueuedSignal, value: u64) -> bool {
    info.signal == PARK_SIGNAL
        && (info.errno, info.code, info.value) == (OURS, libc::SI_QUEUE, value)
}

fn handler() -> u64 {
    on_signal as *const () as usize as u64
}

fn original() -> KernelAction {
    let [handler, flags, restorer, mask] = ORIGINAL.each_ref().map(|word| word.load(SeqCst));
    KernelAction { handler, flags, restorer, mask }
}

/// In the thread that was asked. Everything is blocked here, and the frame below is the thread's context.
extern "C" fn on_signal(signal: i32, info: *mut QueuedSignal, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel hands a SA_SIGINFO handler a live siginfo and ucontext of this thread.
    unsafe {
        let (errno, code, value) = ((*info).errno, (*info).code, (*info).value);
        if errno != OURS || code != libc::SI_QUEUE {
            return hand_on(signal, info, context);
        }
        let Some(table) = table::existing() else { return };
        let (round, index) = ((value >> 32) as u32, (value & 0xffff_ffff) as usize);
        // One who comes after its round is not asked any more: `park::release` has ended its claim.
        let Some(slot) = table.slots.get(index) else { return };
        if slot.claim.compare_exchange(round, round + 1, SeqCst, SeqCst).is_err() {
            return;
        }
        park(table, slot, round, context);
    }
}

/// # Safety
/// This thread has claimed the slot; `context` is its frame.
unsafe fn park(table: &Table, slot: &Slot, round: u32, context: *mut libc::ucontext_t) {
    // SAFETY: the caller's: nobody else writes to the slot, and the frame is live.
    unsafe {
        if slot.masked.load(SeqCst) != 0 {
            let mask = (&raw mut (*context).uc_sigmask).cast::<u64>();
            *mask |= signal_bit(PARK_SIGNAL);
        }
        *slot.state.get() = ThreadState::of_this_thread(table, context);
    }
    let arrived = table.arrived.fetch_add(1, SeqCst) + 1;
    if arrived == table.expected.load(SeqCst) {
        futex::wake(&table.arrived, Reach::Process);
    }
    while table.round.load(SeqCst) == round {
        futex::wait(&table.round, round, None, Reach::Process);
    }
}

/// A signal that is not ours: to whom it would have gone. One that nobody handles is dropped.
///
/// # Safety
/// Called from the handler with its own arguments.
unsafe fn hand_on(signal: i32, info: *mut QueuedSignal, context: *mut libc::ucontext_t) {
    type Handler = extern "C" fn(i32, *mut QueuedSignal, *mut libc::ucontext_t);
    let handler = usize::try_from(original().handler).unwrap_or(0);
    if handler > 1 {
        // SAFETY: a handler of the program's own, called with the kernel's arguments.
        unsafe { std::mem::transmute::<usize, Handler>(handler)(signal, info, context) }
    }
}
