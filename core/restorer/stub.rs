//! The stub: what stays in a child for good so that its memory behaves as if it had never been an image.
//!
//! A child's anonymous memory is a private mapping of the image's file until it is written. madvise(2) and
//! mremap(2) would show that (discarded memory comes back as the snapshot, growth runs into the file's next
//! offsets), so the image serves their call sites with jumps to trampolines, and those call in here:
//!
//! ```text
//!  call site --jmp--> trampoline: mov $nr,%eax; step over the red zone; call stub_entry; jmp back
//!                       stub_entry --advice that is none of ours--> syscall
//!                         | stub_madvise, stub_mremap
//!                         +-- no bit of the table set for these chunks --> syscall
//!                         +-- else: ask /proc/thread-self/maps what is there
//!                               anonymous or foreign VMA -> syscall on that piece
//!                               image-backed VMA         -> fresh anonymous memory over it
//!                               then clear the bits of chunks that hold no image page any more
//! ```
//!
//! The table (see `abi::StubTable`) may claim too much, never too little: a set bit costs a question, a
//! missing one would show the snapshot. Bits only ever go from 1 to 0; what moves away is remembered before
//! it moves. No locks: a signal handler or another thread may come in at any instruction, and the child's
//! own fork(2) takes the table along.
//!
//! To the program, a call is the `syscall` instruction: all registers but rax, rcx and r11 are as before,
//! flags and vector registers included. This code has no libc, no thread-local storage and cannot panic; it
//! uses less than 1 KiB of the caller's stack.

mod discard;
mod kernel;
mod mapping;
mod moves;
mod table;

use core::arch::global_asm;

use crate::abi::STUB;

/// Advices above 63 that are ours, and those below as a mask.
const ADVICE_MASK: u32 = 1 << discard::DONTNEED
    | 1 << discard::FREE
    | 1 << discard::REMOVE
    | 1 << discard::DONTFORK
    | 1 << discard::WIPEONFORK
    | 1 << discard::DONTNEED_LOCKED;

// Entered with the call's registers as at the site, the number (madvise or mremap) in eax. Only rcx and r11
// are free, as they are in a system call. SSE registers are saved because the compiler may use them; it is
// kept from the wider ones by build.rs, and the legacy instructions leave their upper parts alone.
global_asm!(
    ".text",
    ".globl stub_entry",
    "stub_entry:",
    "pushfq",
    "cmp eax, {madvise}",
    "jne 2f",
    "cmp edx, {guard_install}",
    "je 2f",
    "cmp edx, 31",
    "ja 1f",
    "mov ecx, {advice_mask}",
    "bt ecx, edx",
    "jc 2f",
    "1:",
    "popfq",
    "syscall",
    "ret",
    "2:",
    "push rdi",
    "push rsi",
    "push rdx",
    "push r8",
    "push r9",
    "push r10",
    "push rbp",
    "mov rbp, rsp",
    "sub rsp, 256",
    "and rsp, -16",
    "movaps [rsp], xmm0",
    "movaps [rsp + 16], xmm1",
    "movaps [rsp + 32], xmm2",
    "movaps [rsp + 48], xmm3",
    "movaps [rsp + 64], xmm4",
    "movaps [rsp + 80], xmm5",
    "movaps [rsp + 96], xmm6",
    "movaps [rsp + 112], xmm7",
    "movaps [rsp + 128], xmm8",
    "movaps [rsp + 144], xmm9",
    "movaps [rsp + 160], xmm10",
    "movaps [rsp + 176], xmm11",
    "movaps [rsp + 192], xmm12",
    "movaps [rsp + 208], xmm13",
    "movaps [rsp + 224], xmm14",
    "movaps [rsp + 240], xmm15",
    "cld",
    "lea r9, [rip + __ehdr_start + {table}]",
    "mov rcx, r10",
    "cmp eax, {madvise}",
    "jne 3f",
    "call {discard}",
    "jmp 4f",
    "3:",
    "call {moves}",
    "4:",
    "movaps xmm0, [rsp]",
    "movaps xmm1, [rsp + 16]",
    "movaps xmm2, [rsp + 32]",
    "movaps xmm3, [rsp + 48]",
    "movaps xmm4, [rsp + 64]",
    "movaps xmm5, [rsp + 80]",
    "movaps xmm6, [rsp + 96]",
    "movaps xmm7, [rsp + 112]",
    "movaps xmm8, [rsp + 128]",
    "movaps xmm9, [rsp + 144]",
    "movaps xmm10, [rsp + 160]",
    "movaps xmm11, [rsp + 176]",
    "movaps xmm12, [rsp + 192]",
    "movaps xmm13, [rsp + 208]",
    "movaps xmm14, [rsp + 224]",
    "movaps xmm15, [rsp + 240]",
    "mov rsp, rbp",
    "pop rbp",
    "pop r10",
    "pop r9",
    "pop r8",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "popfq",
    "ret",
    madvise = const kernel::MADVISE,
    guard_install = const discard::GUARD_INSTALL,
    advice_mask = const ADVICE_MASK,
    table = const STUB,
    discard = sym discard::stub_madvise,
    moves = sym moves::stub_mremap,
);
