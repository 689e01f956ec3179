//! x86-64: entry, system call, return to a signal frame.

use core::arch::{asm, global_asm};

use crate::abi::{STACK, STACK_LEN};

// The image's entry: `rdi` is the region's base and the stack still someone else's.
global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start:",
    "lea rsp, [rdi + {stack_end}]",
    "xor ebp, ebp",
    "call {restore}",
    "ud2",
    ".text",
    stack_end = const STACK + STACK_LEN,
    restore = sym crate::restore,
);

/// A system call; negative answers are `-errno`.
///
/// # Safety
/// As the system call.
#[inline(always)]
pub unsafe fn syscall(number: u64, args: [u64; 6]) -> i64 {
    let result;
    let [a, b, c, d, e, f] = args;
    // SAFETY: the kernel clobbers rcx and r11 alone; what it does to memory is the caller's concern.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Copies `len` bytes, ascending.
///
/// # Safety
/// `from` is readable, `to` writable, and the copy is what their owners want.
#[inline(always)]
pub unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: the caller's promise; the direction flag is clear by the ABI.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Becomes what the signal frame at `frame` says: registers, FPU, signal mask, alternate stack.
///
/// # Safety
/// `frame` is where the kernel's frame begins behind its return address.
pub unsafe fn signal_return(frame: u64) -> ! {
    const RT_SIGRETURN: u32 = 15;
    // SAFETY: the caller's promise; this stack is left for good.
    unsafe {
        asm!(
            "mov rsp, {frame}",
            "mov eax, {number}",
            "syscall",
            "ud2",
            frame = in(reg) frame,
            number = const RT_SIGRETURN,
            options(noreturn),
        );
    }
}
