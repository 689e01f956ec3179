//! x86-64: entry, system call, return to a signal frame.

use core::arch::{asm, global_asm};

use crate::abi::{InitShared, RawThread, STACK, STACK_LEN};
use crate::syscall::CloneArgs;

const CLONE3: u64 = 435;

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

/// Uses an AMX tile, and lets all of them go: the first use makes the kernel give this thread room for them.
///
/// # Safety
/// The process has permission to use tiles (ARCH_REQ_XCOMP_PERM), and none of this thread's is in use.
pub unsafe fn use_tiles() {
    /// Palette 1, and one tile of one row of 64 bytes.
    #[repr(C, align(64))]
    struct TileConfiguration([u8; 64]);
    let mut shape = TileConfiguration([0; 64]);
    shape.0[0] = 1;
    shape.0[16] = 64;
    shape.0[48] = 1;
    // SAFETY: the caller's promise; the first instruction reads the 64 bytes above. By their bytes, for assemblers
    // may not know them: ldtilecfg [rax], tilezero tmm0, tilerelease.
    unsafe {
        asm!(
            ".byte 0xc4, 0xe2, 0x78, 0x49, 0x00",
            ".byte 0xc4, 0xe2, 0x7b, 0x49, 0xc0",
            ".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0",
            in("rax") &raw const shape,
            options(nostack),
        );
    }
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

/// clone3(2) of a thread, which calls `threads::begin` on its own stack. Answers its tid or `-errno`.
///
/// # Safety
/// As `syscall::clone_thread`.
pub unsafe fn clone_thread(args: &CloneArgs, record: *const RawThread, base: u64) -> i64 {
    let result;
    // SAFETY: the new thread has the registers and touches the caller's stack no more; it does not return.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "mov rsi, r13",
            "call {begin}",
            "ud2",
            "2:",
            begin = sym crate::threads::begin,
            inlateout("rax") CLONE3 => result,
            in("rdi") args, in("rsi") size_of::<CloneArgs>(), in("r12") record, in("r13") base,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

/// clone3(2) of a namespace's init, which goes to `mitosis_init`. Answers its pid or `-errno`.
///
/// # Safety
/// As `syscall::clone_init`; it shares this process's memory and stack pointer.
pub unsafe fn clone_init(args: &CloneArgs, go: i32, child: u32, shared: *mut InitShared) -> i64 {
    let result;
    // SAFETY: the init writes to `shared` alone and uses no stack.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jz mitosis_init",
            inlateout("rax") CLONE3 => result,
            in("rdi") args, in("rsi") size_of::<CloneArgs>(),
            in("r12") i64::from(go), in("r13") u64::from(child), in("r14") shared,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    result
}

// The init of a child's namespace: r12 is the pipe, r13 the child's id, r14 an InitShared. It shares memory
// with the template, which goes on: not one instruction here may touch the stack.
global_asm!(
    ".text",
    "mitosis_init:",
    // It dies with the keeper, and with it the namespace.
    "mov eax, {prctl}",
    "mov edi, 1",
    "mov esi, 9",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    "mov eax, {prctl}",
    "mov edi, 15",
    "lea rsi, [rip + mitosis_init_name]",
    "syscall",
    // Orphans that end are gone at once: SIGCHLD is ignored.
    "mov eax, {sigaction}",
    "mov edi, 17",
    "lea rsi, [rip + mitosis_init_ignore]",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    // The pipe as 0, and nothing else: the child's files are the child's.
    "mov eax, {dup2}",
    "mov edi, r12d",
    "xor esi, esi",
    "syscall",
    "mov eax, {close_range}",
    "mov edi, 1",
    "mov esi, 0xffffffff",
    "xor edx, edx",
    "syscall",
    // Is there a child?
    "xor eax, eax",
    "xor edi, edi",
    "mov rsi, r14",
    "mov edx, 1",
    "syscall",
    "cmp rax, 1",
    "jne 4f",
    // Until it ends ...
    "mov eax, {pidfd_open}",
    "mov edi, r13d",
    "xor esi, esi",
    "syscall",
    "test rax, rax",
    "js 3f",
    "2:",
    "mov eax, {ppoll}",
    "lea rdi, [r14 + 8]",
    "mov esi, 1",
    "xor edx, edx",
    "xor r10d, r10d",
    "mov r8d, 8",
    "syscall",
    "cmp rax, -{eintr}",
    "je 2b",
    // ... and then until there is nobody: processes that it has forked are this one's children now.
    "3:",
    "mov eax, {wait4}",
    "mov rdi, -1",
    "xor esi, esi",
    "mov edx, 0x40000000",
    "xor r10d, r10d",
    "syscall",
    "test rax, rax",
    "jns 3b",
    "cmp rax, -{eintr}",
    "je 3b",
    "4:",
    "mov eax, {exit_group}",
    "xor edi, edi",
    "syscall",
    "jmp 4b",
    "mitosis_init_name: .asciz \"mitosis-init\"",
    ".balign 8",
    "mitosis_init_ignore: .quad 1, 0, 0, 0",
    prctl = const 157,
    sigaction = const 13,
    dup2 = const 33,
    close_range = const 436,
    pidfd_open = const 434,
    ppoll = const 271,
    wait4 = const 61,
    exit_group = const 231,
    eintr = const 4,
);
