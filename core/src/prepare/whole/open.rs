//! Threads that block the parking signal at kernel level (a raw rt_sigprocmask(2) of all 64 bits) are
//! opened by a helper process: only another process may trace a thread of this one.
//!
//! ```text
//!  parker   clone(CLONE_VM) > (Yama: names it its tracer) > go ................> wait4
//!  helper                       PTRACE_SEIZE > INTERRUPT > mask less the signal > DETACH > exit
//! ```
//!
//! The pending signal is then delivered; the handler puts the blocked bit back into its frame, so that the
//! thread goes on with the mask that it had. The helper shares the memory and runs on a stack of its own,
//! with nothing but raw system calls.

use std::arch::global_asm;
use std::sync::atomic::Ordering::SeqCst;

use super::entry;
use super::park::now;
use super::signal::{self, PARK_SIGNAL};
use super::table::{GONE, OPENED, REFUSED, Slot, Table, WANTED};
use crate::sys::futex::{self, Reach};
use crate::sys::queued_signal::QueuedSignal;
use crate::sys::rawcall::{SIGSET_BYTES, rawcall, restorer, signal_bit};

const PTRACE_SEIZE: u32 = 0x4206;
const PTRACE_INTERRUPT: u32 = 0x4207;
const PTRACE_PEEKSIGINFO: u32 = 0x4209;
const PTRACE_GETSIGMASK: u32 = 0x420a;
const PTRACE_SETSIGMASK: u32 = 0x420b;
const PTRACE_GET_SYSCALL_USER_DISPATCH: u32 = 0x4211;
const PTRACE_DETACH: u32 = 17;
const PTRACE_PEEKDATA: u32 = 2;
const PTRACE_GETREGS: u32 = 12;
const PTRACE_EVENT_STOP: i32 = 128;
const PR_SET_PTRACER: u32 = 0x5961_6d61;
const PAUSE_NS: u64 = 20_000;
/// Of the instructions that end a handler.
const RESTORER_BYTES: u64 = 9;
/// Signals of a thread's queue that are looked through for ours; whoever has more is taken to have it.
const MOST_PENDING: u64 = 4096;

global_asm!(
    ".pushsection .text.mitosis_helper, \"ax\", @progbits",
    ".hidden mitosis_helper_clone",
    ".globl mitosis_helper_clone",
    ".type mitosis_helper_clone, @function",
    // rdi: flags, rsi: top of a stack, rdx: function, rcx: its argument. Returns in the caller alone.
    "mitosis_helper_clone:",
    "sub $16, %rsi",
    "mov %rdx, (%rsi)",
    "mov %rcx, 8(%rsi)",
    "xor %edx, %edx",
    "xor %r10d, %r10d",
    "xor %r8d, %r8d",
    "mov $56, %eax",
    "syscall",
    "test %rax, %rax",
    "jz 1f",
    "ret",
    "1: xor %ebp, %ebp",
    "pop %rax",
    "pop %rdi",
    "call *%rax",
    "ud2",
    ".size mitosis_helper_clone, . - mitosis_helper_clone",
    ".popsection",
    options(att_syntax)
);

unsafe extern "C" {
    fn mitosis_helper_clone(
        flags: usize,
        stack: usize,
        function: extern "C" fn(*const libc::c_void) -> !,
        argument: *const libc::c_void,
    ) -> isize;
}

/// Has the threads opened that are [`WANTED`]; the kernel's answer if there is no helper.
pub(super) fn blocked(table: &Table, deadline: u64) -> Result<(), isize> {
    by_helper(table, deadline, open_wanted)
}

/// What a helper process does, before it ends.
pub(super) type Help = fn(&Table);

/// Has a process do it that shares this one's memory, may trace its threads, and is told to stop at `deadline`; the
/// kernel's answer if there is none.
pub(super) fn by_helper(table: &Table, deadline: u64, what: Help) -> Result<(), isize> {
    // SAFETY: the last helper has been reaped, and the next one is not there yet.
    unsafe { *table.helper.what.get() = Some(what) };
    table.helper.go.store(0, SeqCst);
    table.helper.stop.store(0, SeqCst);
    // SAFETY: the table's helper stack has no other user: one round at a time, one helper in it. It stays
    // until the helper has been reaped, below.
    let pid = unsafe {
        let flags = libc::CLONE_VM as usize;
        let argument = std::ptr::from_ref(table).cast();
        mitosis_helper_clone(flags, table.helper_stack_top(), help, argument)
    };
    if pid < 0 {
        return Err(pid);
    }
    let is_restricted = yama_wants_a_name();
    // SAFETY: plain numbers.
    unsafe {
        if is_restricted {
            rawcall!(libc::SYS_prctl, PR_SET_PTRACER, pid, 0, 0, 0);
        }
        table.helper.go.store(1, SeqCst);
        futex::wake(&table.helper.go, Reach::Process);
        reap(table, pid, deadline);
        if is_restricted {
            rawcall!(libc::SYS_prctl, PR_SET_PTRACER, 0, 0, 0, 0);
        }
    }
    Ok(())
}

/// # Safety
/// `pid` is the helper.
unsafe fn reap(table: &Table, pid: isize, deadline: u64) {
    loop {
        // SAFETY: our child without exit signal, which nobody else reaps.
        let answer = unsafe { rawcall!(libc::SYS_wait4, pid, 0, libc::__WALL | libc::WNOHANG, 0) };
        if answer == pid || answer == -(libc::ECHILD as isize) {
            return;
        }
        if now() >= deadline {
            table.helper.stop.store(1, SeqCst);
        }
        pause();
    }
}

/// Yama lets a process be traced by its ancestors alone, and by whom it names: ptrace_scope is 1.
fn yama_wants_a_name() -> bool {
    let mut text = [0u8; 8];
    let path = c"/proc/sys/kernel/yama/ptrace_scope";
    let len = crate::prepare::proc_files::read_file(path.as_ptr().cast(), &mut text);
    len.is_ok_and(|len| text[..len].first() == Some(&b'1'))
}

fn pause() {
    let time = [0u64, PAUSE_NS];
    // SAFETY: a live timespec.
    unsafe { rawcall!(libc::SYS_nanosleep, time.as_ptr(), 0) };
}

/// The helper process.
extern "C" fn help(table: *const libc::c_void) -> ! {
    // SAFETY: the parker passes the table, waits for this process, and the table outlives both.
    let table = unsafe { &*table.cast::<Table>() };
    while table.helper.go.load(SeqCst) == 0 {
        futex::wait(&table.helper.go, 0, None, Reach::Process);
    }
    // SAFETY: written before this process was made.
    if let Some(what) = unsafe { *table.helper.what.get() } {
        what(table);
    }
    loop {
        // SAFETY: ends this process; what it still traces goes on.
        unsafe { rawcall!(libc::SYS_exit, 0) };
    }
}

fn open_wanted(table: &Table) {
    let used = table.used.load(SeqCst) as usize;
    for (index, (tid, slot)) in table.tids.iter().zip(&table.slots).take(used).enumerate() {
        if slot.claim.load(SeqCst) != GONE && slot.opened.load(SeqCst) == WANTED {
            open(table, tid.load(SeqCst), slot, index);
        }
    }
}

/// Stops a thread of this process's maker: the signal that must be handed on when it is let go, or 0. `Err` is -errno of
/// ptrace(2), or 0 where it has ended, or is in no state to stop by the deadline: the exit of this process lets go of it.
pub(super) fn stop(table: &Table, tid: u32) -> Result<i32, isize> {
    // SAFETY: requests with plain numbers.
    let seized = unsafe { rawcall!(libc::SYS_ptrace, PTRACE_SEIZE, tid, 0, 0) };
    if seized != 0 {
        return Err(seized);
    }
    // SAFETY: as above.
    unsafe { rawcall!(libc::SYS_ptrace, PTRACE_INTERRUPT, tid, 0, 0) };
    let mut status = 0i32;
    loop {
        let how = libc::__WALL | libc::WNOHANG;
        // SAFETY: `status` lives.
        let answer = unsafe { rawcall!(libc::SYS_wait4, tid, &raw mut status, how, 0) };
        if answer == tid as isize {
            break;
        }
        if answer < 0 || table.helper.stop.load(SeqCst) != 0 {
            return Err(0);
        }
        pause();
    }
    if !libc::WIFSTOPPED(status) {
        return Err(0);
    }
    let is_event = status >> 16 == PTRACE_EVENT_STOP;
    Ok(if is_event { 0 } else { libc::WSTOPSIG(status) })
}

/// Lets go of a thread that [`stop`] has stopped.
pub(super) fn let_go(tid: u32, deliver: i32) {
    // SAFETY: the thread is stopped.
    unsafe { rawcall!(libc::SYS_ptrace, PTRACE_DETACH, tid, 0, deliver) };
}

fn open(table: &Table, tid: u32, slot: &Slot, index: usize) {
    let deliver = match stop(table, tid) {
        Ok(deliver) => deliver,
        Err(0) => return,
        Err(refused) => {
            slot.error.store(u32::try_from(-refused).unwrap_or(0), SeqCst);
            slot.opened.store(REFUSED, SeqCst);
            return;
        }
    };
    let mut mask = 0u64;
    let bit = signal_bit(PARK_SIGNAL);
    let registers = registers_of(tid);
    if registers.is_some_and(|registers| has_been_parked(&registers)) {
        // It is about to leave the handler of a round that is over, and is asked then. Were it opened here, each
        // round would lay a frame upon the last one's as long as the thread does not get to run.
        slot.opened.store(0, SeqCst);
        let_go(tid, deliver);
        return;
    }
    if registers.is_some_and(|registers| is_in_restorer(tid, &registers)) {
        // It leaves within microseconds, with the mask that its own code had. There it can be parked, and
        // what a child of ours would make of a thread in here is nothing.
        slot.opened.store(0, SeqCst);
        let_go(tid, deliver);
        return;
    }
    if !is_pending(tid, signal::value(table.round.load(SeqCst), index)) {
        // It has the signal, and stands in our handler, which blocks everything: that is not its own mask.
        slot.opened.store(0, SeqCst);
        let_go(tid, deliver);
        return;
    }
    // SAFETY: the thread is stopped; `mask` lives.
    unsafe {
        rawcall!(libc::SYS_ptrace, PTRACE_GETSIGMASK, tid, SIGSET_BYTES, &raw mut mask);
        slot.masked.store(u32::from(mask & bit != 0), SeqCst);
        mask &= !bit;
        rawcall!(libc::SYS_ptrace, PTRACE_SETSIGMASK, tid, SIGSET_BYTES, &raw mut mask);
        slot.opened.store(OPENED, SeqCst);
        rawcall!(libc::SYS_ptrace, PTRACE_DETACH, tid, 0, deliver);
    }
}

/// Whether a stopped thread still has our question to come. Where the kernel does not tell, it has.
fn is_pending(tid: u32, value: u64) -> bool {
    for offset in 0..MOST_PENDING {
        let mut info = [QueuedSignal::default()];
        match peek(tid, Queue::Own, offset, &mut info) {
            0 => return false,
            1 if signal::asks(&info[0], value) => return true,
            1 => {}
            _ => return true,
        }
    }
    true
}

/// Which signals of a stopped thread: its own, or its process's.
#[derive(Clone, Copy)]
pub(super) enum Queue {
    Own = 0,
    Shared = 1,
}

/// What is pending there behind the first `offset`: how many were filled in, or -errno. They stay pending.
pub(super) fn peek(tid: u32, queue: Queue, offset: u64, into: &mut [QueuedSignal]) -> isize {
    #[repr(C)]
    struct Which {
        offset: u64,
        flags: u32,
        count: i32,
    }
    let count = i32::try_from(into.len()).unwrap_or(i32::MAX);
    let which = Which { offset, flags: queue as u32, count };
    // SAFETY: both live; the kernel fills as many as there is room for.
    unsafe {
        rawcall!(libc::SYS_ptrace, PTRACE_PEEKSIGINFO, tid, &raw const which, into.as_mut_ptr())
    }
}

/// Whether a stopped thread has system calls dispatched to a handler of its own. Kernels before 6.4 do not tell.
pub(super) fn is_dispatched(tid: u32) -> bool {
    /// `struct ptrace_sud_config`.
    #[repr(C)]
    #[derive(Default)]
    struct Dispatch {
        mode: u64,
        rest: [u64; 3],
    }
    let mut dispatch = Dispatch::default();
    let len = size_of::<Dispatch>();
    // SAFETY: the thread is stopped; the kernel fills a live local of the size that it is told, or refuses.
    let answer = unsafe {
        rawcall!(libc::SYS_ptrace, PTRACE_GET_SYSCALL_USER_DISPATCH, tid, len, &raw mut dispatch)
    };
    answer == 0 && dispatch.mode != 0
}

/// Of the restorer's region, in which threads of a child begin: bases are multiples of the first, code lies
/// in as much of it as the second says, and behind it this word.
const REGION_ALIGN: u64 = 2 << 20;
const REGION_TEXT: u64 = 64 << 10;
const REGION_MAGIC: u64 = u64::from_le_bytes(*b"MITORUN1");

fn registers_of(tid: u32) -> Option<libc::user_regs_struct> {
    // SAFETY: plain numbers, for which all zero is a valid value.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: the thread is stopped; the kernel fills them, or refuses.
    let answer = unsafe { rawcall!(libc::SYS_ptrace, PTRACE_GETREGS, tid, 0, &raw mut registers) };
    (answer == 0).then_some(registers)
}

/// Whether a stopped thread, whose question is still to come, is in our handler, or in what leads back from there.
fn has_been_parked(registers: &libc::user_regs_struct) -> bool {
    let leads_back = restorer()..restorer() + RESTORER_BYTES;
    entry::holds(registers.rip) || leads_back.contains(&registers.rip)
}

/// Whether a stopped thread of a child has not come to its own code yet: it waits at the gate, or is on its
/// way from there.
fn is_in_restorer(tid: u32, registers: &libc::user_regs_struct) -> bool {
    let mut word = 0u64;
    // SAFETY: the thread is stopped; the kernel fills the word, or refuses.
    unsafe {
        let base = registers.rip / REGION_ALIGN * REGION_ALIGN;
        let at = base + REGION_TEXT;
        registers.rip < at
            && rawcall!(libc::SYS_ptrace, PTRACE_PEEKDATA, tid, at, &raw mut word) == 0
            && word == REGION_MAGIC
    }
}

#[cfg(all(test, feature = "agent"))]
mod tests {
    use super::*;
    use crate::resume::abi;

    #[test]
    fn the_restorers_region_is_known() {
        assert_eq!(REGION_TEXT, abi::TEXT_LEN);
        assert_eq!(abi::PARAMS, REGION_TEXT, "the magic is the first word behind the code");
        assert_eq!(std::mem::offset_of!(abi::Params, magic), 0);
        assert_eq!(REGION_MAGIC, abi::PARAMS_MAGIC);
    }
}
