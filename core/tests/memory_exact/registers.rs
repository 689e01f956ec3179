//! Around a call site: every register as it was, and little of the caller's stack.

use std::arch::global_asm;

use crate::cases::{alone, assert_page, numbered};
use crate::stand_in::{self, PAGE, StandIn, map, read};

/// Every register, as code has it around a call site.
#[repr(C, align(32))]
struct Registers {
    general: [u64; 12],
    vectors: [[u64; 4]; 16],
    result: u64,
    red_zone: u64,
    flags: u64,
}

pub(crate) fn registers_are_kept() {
    alone(|| {
        let (start, stand_in) = numbered(64, false, true);
        for avx in [false, std::is_x86_feature_detected!("avx")] {
            // A discard that is done, one that has nothing to do, and an advice that is none of ours.
            for advice in [4, 4, 0] {
                call_with_full_registers(&stand_in, [start, 16 * PAGE, advice], avx);
                assert_page(start, 0);
            }
        }
    });
}

fn call_with_full_registers(stand_in: &StandIn, arguments: [u64; 3], avx: bool) {
    let mut before = Registers {
        general: std::array::from_fn(|i| 0x1111_0000_2222_0000 + i as u64),
        vectors: std::array::from_fn(|i| {
            std::array::from_fn(|j| (i * 4 + j + 1) as u64 * 0x0101_0101)
        }),
        result: 0,
        red_zone: 0x5afe,
        flags: 0,
    };
    before.general[..3].copy_from_slice(&arguments);
    let mut after = Registers { general: [0; 12], vectors: [[0; 4]; 16], ..before };
    // SAFETY: `call_stub` keeps to its pointers.
    unsafe { call_stub(&raw const before, &raw mut after, stand_in.stub_entry, avx.into()) };
    assert_eq!(after.result, 0, "madvise failed");
    // rdi rsi rdx r8 r9 r10 rbx rbp r12 r13 r14 r15, all but the one that holds the pointer.
    assert_eq!(after.general, before.general);
    let width = if avx { 4 } else { 2 };
    for (index, (after, before)) in after.vectors.iter().zip(&before.vectors).enumerate() {
        assert_eq!(after[..width], before[..width], "vector register {index}");
    }
    assert_eq!(after.red_zone, 0x5afe, "the red zone");
    // Direction and arithmetic flags: as set before the call.
    assert_eq!(after.flags & 0xcd5, 0xcd5, "flags {:#x}", after.flags);
}

unsafe extern "C" {
    /// Loads what `before` says, calls `entry` as a trampoline does with eax = 28, stores what is found.
    fn call_stub(before: *const Registers, after: *mut Registers, entry: u64, avx: u64);
    /// Calls `entry` as a trampoline does, on the stack that ends at `top`.
    fn call_stub_on(arguments: *const [u64; 5], top: u64, entry: u64, number: u64) -> i64;
}

global_asm!(
    "call_stub:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15",
    "sub rsp, 24",
    "mov [rsp], rsi; mov [rsp + 8], rcx; mov [rsp + 16], rdx",
    "mov rax, rdi",
    "test ecx, ecx",
    "jz 2f",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "vmovups ymm\\n, [rax + 96 + 32 * \\n]",
    ".endr",
    "jmp 3f",
    "2:",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "movups xmm\\n, [rax + 96 + 32 * \\n]",
    ".endr",
    "3:",
    "mov rdi, [rax]; mov rsi, [rax + 8]; mov rdx, [rax + 16]; mov r8, [rax + 24]",
    "mov r9, [rax + 32]; mov r10, [rax + 40]; mov rbx, [rax + 48]; mov rbp, [rax + 56]",
    "mov r12, [rax + 64]; mov r13, [rax + 72]; mov r14, [rax + 80]; mov r15, [rax + 88]",
    // Every arithmetic flag and the direction flag.
    "push 0xcd7; popfq",
    "mov r11, [rax + 616]; mov [rsp - 8], r11",
    "mov rcx, [rsp + 16]",
    "mov eax, 28",
    "lea rsp, [rsp - 128]; call rcx; lea rsp, [rsp + 128]",
    "mov rcx, [rsp]",
    "mov [rcx + 608], rax",
    "mov rax, [rsp - 8]; mov [rcx + 616], rax",
    "pushfq; pop rax; mov [rcx + 624], rax",
    "cld",
    "mov [rcx], rdi; mov [rcx + 8], rsi; mov [rcx + 16], rdx; mov [rcx + 24], r8",
    "mov [rcx + 32], r9; mov [rcx + 40], r10; mov [rcx + 48], rbx; mov [rcx + 56], rbp",
    "mov [rcx + 64], r12; mov [rcx + 72], r13; mov [rcx + 80], r14; mov [rcx + 88], r15",
    "cmp qword ptr [rsp + 8], 0",
    "je 4f",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "vmovups [rcx + 96 + 32 * \\n], ymm\\n",
    ".endr",
    "vzeroupper",
    "jmp 5f",
    "4:",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    "movups [rcx + 96 + 32 * \\n], xmm\\n",
    ".endr",
    "5:",
    "add rsp, 24",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "ret",
    "call_stub_on:",
    "push rbx",
    "mov rbx, rsp",
    "mov rsp, rsi",
    "mov eax, ecx",
    "mov r11, rdx",
    "mov r8, [rdi + 32]; mov r10, [rdi + 24]; mov rdx, [rdi + 16]; mov rsi, [rdi + 8]",
    "mov rdi, [rdi]",
    "lea rsp, [rsp - 128]; call r11",
    "mov rsp, rbx",
    "pop rbx",
    "ret",
);

/// The trampoline steps over it.
const RED_ZONE: u64 = 128;
/// Below the red zone.
const MOST_STACK: u64 = 1024;

pub(crate) fn the_stack_is_used_sparingly() {
    for text in [0, 1] {
        alone(|| {
            let (start, stand_in) = numbered(256, false, true);
            // SAFETY: the stub is not running.
            unsafe { (*stand_in.table).maps_as_text = text };
            let page = |page: u64| start + page * PAGE;
            let target = map(0, 64 * PAGE, 0, 0);
            let calls = [
                ("discard", 28, [page(0), 16 * PAGE, 4, 0, 0]),
                ("wipe on fork", 28, [page(20), PAGE, 18, 0, 0]),
                ("move", 25, [page(40), 4 * PAGE, 8 * PAGE, 3, target]),
                ("discard what moved", 28, [target, PAGE, 4, 0, 0]),
                ("keep what moves", 25, [page(60), 4 * PAGE, 4 * PAGE, 7, target + 16 * PAGE]),
                ("grow", 25, [page(80), 4 * PAGE, 8 * PAGE, 1, 0]),
            ];
            for (name, number, arguments) in calls {
                let used = stack_used(&stand_in, number, &arguments);
                if std::env::var_os("MITOSIS_MEMORY_VERBOSE").is_some() {
                    println!("{name}: {used} bytes of stack");
                }
                assert!((1..=MOST_STACK).contains(&used), "{name} uses {used} bytes of stack");
            }
        });
    }
}

fn stack_used(stand_in: &StandIn, number: u64, arguments: &[u64; 5]) -> u64 {
    const LEN: u64 = 4 * PAGE;
    const PAINT: u8 = 0xa7;
    let stack = map(0, LEN, 3, 0);
    stand_in::fill(stack, LEN, PAINT);
    // SAFETY: a stack of its own; what the call changes is memory of this test.
    let result = unsafe { call_stub_on(arguments, stack + LEN, stand_in.stub_entry, number) };
    assert!(!(-4095..0).contains(&result), "{result}");
    let painted = read(stack, LEN).iter().take_while(|byte| **byte == PAINT).count();
    LEN - painted as u64 - RED_ZONE
}
