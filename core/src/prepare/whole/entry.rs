//! The first and the last instructions of a thread that is asked to park: they need no stack at all.
//!
//! ```text
//!  frame of the kernel > claim the slot > slot's stack: what the thread is > back > arrived, wait > rt_sigreturn
//! ```
//!
//! A thread's alternative stack need not have room for more than the kernel's frame: AT_MINSIGSTKSZ is what
//! the largest frame takes, Rust gives its threads just that where the CPU has AMX, and a thread that has
//! tiles in use fills it. So what looks at the thread runs on a stack in its slot. That stack is used before
//! the thread counts as arrived, and no round ends before: whoever is given the slot next finds it free.

use std::arch::global_asm;
use std::mem::offset_of;
use std::sync::atomic::AtomicU64;

use super::signal::{self, OURS};
use super::table::{SLOT_STACK_BYTES, Slot, TABLE, Table};
use crate::descriptor::MAX_THREADS;
use crate::sys::queued_signal::QueuedSignal;

/// The program's handler of the signal; 0 and 1 are none.
pub(super) static ORIGINAL_HANDLER: AtomicU64 = AtomicU64::new(0);

global_asm!(
    ".pushsection .text.mitosis_park, \"ax\", @progbits",
    ".hidden mitosis_park_signal, mitosis_park_wait, mitosis_park_end",
    ".globl mitosis_park_signal, mitosis_park_wait, mitosis_park_end",
    ".type mitosis_park_signal, @function",
    // edi: signal, rsi: siginfo, rdx: context. No register needs to be kept: the frame has them.
    "mitosis_park_signal:",
    "cmpl ${ours}, {errno}(%rsi)",
    "jne 3f",
    "cmpl ${queued}, {code}(%rsi)",
    "jne 3f",
    "mov {table}(%rip), %rbx",
    "test %rbx, %rbx",
    "jz 2f",
    // The slot's number in r8, the round in r12.
    "mov {value}(%rsi), %r12",
    "mov %r12d, %r8d",
    "shr $32, %r12",
    "cmp ${max_threads}, %r8",
    "jae 2f",
    "imul ${slot_bytes}, %r8, %rdi",
    "lea {slots}(%rbx, %rdi), %rdi",
    // One who comes after its round is not asked any more: `park::release` has ended its claim.
    "mov %r12d, %eax",
    "lea 1(%r12), %ecx",
    "lock cmpxchg %ecx, {claim}(%rdi)",
    "jne 2f",
    "mov %rsp, %r13",
    "imul ${stack_bytes}, %r8, %r8",
    "lea {first_stack_top}(%rbx, %r8), %rsp",
    "mov %rbx, %rsi",
    "call {enter}",
    "mov %r13, %rsp",
    "mov %rbx, %rdi",
    "mov %r12d, %esi",
    "jmp mitosis_park_wait",
    "2: ret",
    // Not ours: to whom it would have gone. One that nobody handles is dropped.
    "3: mov {original}(%rip), %rax",
    "cmp $1, %rax",
    "jbe 2b",
    "jmp *%rax",
    ".size mitosis_park_signal, . - mitosis_park_signal",
    ".type mitosis_park_wait, @function",
    // rdi: table, esi: round.
    "mitosis_park_wait:",
    "mov %rdi, %r8",
    "mov %esi, %r9d",
    "mov $1, %eax",
    "lock xadd %eax, {arrived}(%r8)",
    "inc %eax",
    "cmp {expected}(%r8), %eax",
    "jne 1f",
    "lea {arrived}(%r8), %rdi",
    "mov ${wake}, %esi",
    "mov $0x7fffffff, %edx",
    "mov ${futex}, %eax",
    "syscall",
    "1: cmp %r9d, {round}(%r8)",
    "jne 2f",
    "lea {round}(%r8), %rdi",
    "mov ${wait}, %esi",
    "mov %r9d, %edx",
    "xor %r10d, %r10d",
    "mov ${futex}, %eax",
    "syscall",
    "jmp 1b",
    "2: ret",
    ".size mitosis_park_wait, . - mitosis_park_wait",
    "mitosis_park_end:",
    ".popsection",
    ours = const OURS,
    queued = const libc::SI_QUEUE,
    errno = const offset_of!(QueuedSignal, errno),
    code = const offset_of!(QueuedSignal, code),
    value = const offset_of!(QueuedSignal, value),
    table = sym TABLE,
    original = sym ORIGINAL_HANDLER,
    enter = sym signal::enter,
    max_threads = const MAX_THREADS,
    slot_bytes = const size_of::<Slot>(),
    slots = const offset_of!(Table, slots),
    claim = const offset_of!(Slot, claim),
    stack_bytes = const SLOT_STACK_BYTES,
    first_stack_top = const offset_of!(Table, stacks) + SLOT_STACK_BYTES,
    arrived = const offset_of!(Table, arrived),
    expected = const offset_of!(Table, expected),
    round = const offset_of!(Table, round),
    wake = const libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
    wait = const libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
    futex = const libc::SYS_futex,
    options(att_syntax)
);

unsafe extern "C" {
    fn mitosis_park_signal();
    fn mitosis_park_wait(table: *const libc::c_void, round: u32);
    static mitosis_park_end: u8;
}

/// Whether a thread at `address` is in here: it waits for the end of a round, or is on its way in or out.
pub(super) fn holds(address: u64) -> bool {
    let end = (&raw const mitosis_park_end) as usize as u64;
    (handler()..end).contains(&address)
}

/// The handler of the signal.
pub(super) fn handler() -> u64 {
    mitosis_park_signal as *const () as usize as u64
}

/// Counts the calling thread as arrived, and waits for the end of the round.
pub(super) fn wait(table: &Table, round: u32) {
    // SAFETY: reads and writes atomics of the table alone, and keeps the C calling convention.
    unsafe { mitosis_park_wait(std::ptr::from_ref(table).cast(), round) }
}
