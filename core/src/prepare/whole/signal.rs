//! The signal that parks threads, and what a thread does that gets it.
//!
//! It is 33, with which glibc has other threads change their ids (SIGSETXID) and musl cancels them: no
//! program can block it through libc, and language runtimes leave it alone. Only the kernel's table knows
//! of the change, by raw rt_sigaction(2), and only while threads are asked. What others send by it goes
//! where it would have gone.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::entry::{self, ORIGINAL_HANDLER};
use super::faults;
use super::state::ThreadState;
use super::table::{Slot, Table};
use crate::sys::queued_signal::QueuedSignal;
use crate::sys::rawcall::{
    KernelAction, SA_RESTORER, SIGSET_BYTES, rawcall, restorer, sigaction, signal_bit,
};

/// The signal.
pub(in crate::prepare) const PARK_SIGNAL: i32 = 33;
/// `si_errno` of ours.
pub(super) const OURS: i32 = 0x4d49_544f;

/// The rest of the program's action: flags, restorer, mask.
static ORIGINAL: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// Takes the signal over.
pub(super) fn take_over() {
    let action = KernelAction {
        handler: entry::handler(),
        // The alternative stack is used where a thread has one: its own may be a few kilobytes (Go).
        flags: [libc::SA_SIGINFO, libc::SA_RESTART, libc::SA_ONSTACK]
            .iter()
            .fold(SA_RESTORER, |flags, flag| flags | u64::from(flag.cast_unsigned())),
        restorer: restorer(),
        mask: !0,
    };
    faults::take_over();
    // SAFETY: the handler is made to run at any moment: it allocates nothing and takes no lock.
    unsafe {
        let old = sigaction(PARK_SIGNAL, None);
        if old.handler != entry::handler() {
            ORIGINAL_HANDLER.store(old.handler, SeqCst);
            for (place, word) in ORIGINAL.iter().zip([old.flags, old.restorer, old.mask]) {
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
        if sigaction(PARK_SIGNAL, None).handler == entry::handler() {
            sigaction(PARK_SIGNAL, Some(&original()));
        }
    }
    faults::give_back();
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

/// Takes back what the calling thread was asked, if it is still to come: by then the action may be the program's,
/// or none, which ends the process. All signals are blocked.
pub(super) fn drop_question() {
    let (set, no_time) = (signal_bit(PARK_SIGNAL), [0u64; 2]);
    // Two at most: one of ours, one of libc's.
    let mut others = [None; 2];
    for other in &mut others {
        let mut info = QueuedSignal::default();
        let number = libc::SYS_rt_sigtimedwait;
        // SAFETY: all of them live.
        let answer = unsafe {
            rawcall!(number, &raw const set, &raw mut info, no_time.as_ptr(), SIGSET_BYTES)
        };
        if answer < 0 || info.errno == OURS && info.code == libc::SI_QUEUE {
            break;
        }
        *other = Some(info);
    }
    others.iter().flatten().for_each(|info| send_again(PARK_SIGNAL, info));
}

/// Sends the calling thread what it has been sent, as a process may.
pub(super) fn send_again(signal: i32, info: &QueuedSignal) {
    let info = std::ptr::from_ref(info);
    // SAFETY: `info` lives.
    unsafe {
        let (process, thread) = (rawcall!(libc::SYS_getpid), rawcall!(libc::SYS_gettid));
        rawcall!(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info);
    }
}

fn original() -> KernelAction {
    let [flags, restorer, mask] = ORIGINAL.each_ref().map(|word| word.load(SeqCst));
    KernelAction { handler: ORIGINAL_HANDLER.load(SeqCst), flags, restorer, mask }
}

/// In a thread that has claimed `slot`: writes down what it is. Everything is blocked here, and the frame below
/// the handler, which has `context`, is the thread's own.
pub(super) extern "C" fn enter(slot: &Slot, table: &Table, context: *mut libc::ucontext_t) {
    // SAFETY: nobody else writes to a slot that is claimed, and the kernel has handed `context` to a SA_SIGINFO
    // handler of this thread.
    unsafe {
        if slot.masked.load(SeqCst) != 0 {
            let mask = (&raw mut (*context).uc_sigmask).cast::<u64>();
            *mask |= signal_bit(PARK_SIGNAL);
        }
        *slot.state.get() = ThreadState::of_this_thread(table, context);
    }
}
