//! The cases that were got wrong once, each as a script that is compared with a plain process, and what
//! cannot be compared: registers, stack, shared and file memory, threads, a full address space.

use std::arch::global_asm;
use std::thread;

use libc::c_int;
use mitosis::descriptor::SiteKind;

use crate::duel::{self, script};
use crate::op::{Op, Place};
use crate::player::{advise, exit, remap, wait};
use crate::stand_in::{self, PAGE, Snapshot, StandIn, map, read};

const DONTNEED: c_int = 4;
const FREE: c_int = 8;
const REMOVE: c_int = 9;
const DONTFORK: c_int = 10;
const DOFORK: c_int = 11;
const WIPEONFORK: c_int = 18;
const DONTNEED_LOCKED: c_int = 24;
const GUARD_INSTALL: c_int = 102;
const GUARD_REMOVE: c_int = 103;

pub(crate) const ALL: &[(&str, fn())] = &[
    ("libc_has_its_four_sites", libc_has_its_four_sites),
    ("an_unpatched_child_is_caught", an_unpatched_child_is_caught),
    ("discards", discards),
    ("advice_that_stays_on_memory", advice_that_stays_on_memory),
    ("locked_memory", locked_memory),
    ("guards", guards),
    ("growth", growth),
    ("moves", moves),
    ("more_moves_than_the_table_holds", more_moves_than_the_table_holds),
    ("the_break", the_break),
    ("registers_are_kept", registers_are_kept),
    ("the_stack_is_used_sparingly", the_stack_is_used_sparingly),
    ("shared_memory_keeps_its_bytes", shared_memory_keeps_its_bytes),
    ("a_carried_file_is_the_kernels", a_carried_file_is_the_kernels),
    ("threads_discard_side_by_side", threads_discard_side_by_side),
    ("without_vmas_left_zeros_are_written", without_vmas_left_zeros_are_written),
    ("without_proc_there_is_an_error", without_proc_there_is_an_error),
];

fn at(page: u64) -> Place {
    Place { window: 0, offset: page * PAGE }
}

fn advice(page: u64, pages: u64, advice: c_int) -> Op {
    Op::Advise { at: at(page), len: pages * PAGE, advice, by_number: page % 2 == 1 }
}

fn moving(page: u64, pages: u64, new_pages: u64, flags: c_int, to: u64) -> Op {
    let (len, new_len) = (pages * PAGE, new_pages * PAGE);
    Op::Remap { at: at(page), len, new_len, flags, to: at(to), by_number: page % 2 == 1 }
}

fn protect(page: u64, pages: u64, prot: c_int) -> Op {
    Op::Protect { at: at(page), len: pages * PAGE, prot }
}

fn write(page: u64, pages: u64) -> Op {
    Op::Write { at: at(page), len: pages * PAGE, byte: 0x35 }
}

fn lock(page: u64, pages: u64) -> Op {
    Op::Lock { at: at(page), len: pages * PAGE, lock: true }
}

fn unmap(page: u64, pages: u64) -> Op {
    Op::Unmap { at: at(page), len: pages * PAGE }
}

fn same(ops: &[Op]) {
    if let Err(difference) = script(ops) {
        panic!("{difference}");
    }
}

fn libc_has_its_four_sites() {
    let (_, sites) = stand_in::libc_sites();
    for kind in [SiteKind::Madvise, SiteKind::Mremap, SiteKind::Generic] {
        assert!(sites.iter().any(|site| site.kind == kind), "{kind:?} in {sites:x?}");
    }
    assert!(sites.len() < 10, "{sites:x?}");
}

/// What is compared can differ at all.
fn an_unpatched_child_is_caught() {
    let ops = [(advice(20, 4, DONTNEED), true)];
    let unpatched = duel::unpatched(&ops);
    assert!(unpatched.is_err_and(|why| why.contains("window 0 page 0x14")));
    let ops = [(moving(20, 4, 6, 1, 0), true)];
    assert!(duel::unpatched(&ops).is_err(), "a grown file mapping went unnoticed");
}

fn discards() {
    same(&[
        advice(20, 3, DONTNEED),
        protect(30, 2, libc::PROT_READ),
        protect(32, 2, libc::PROT_NONE),
        advice(29, 6, DONTNEED),
        write(40, 2),
        advice(39, 4, FREE),
        write(40, 1),
        advice(39, 4, FREE),
        advice(44, 2, REMOVE),
        unmap(50, 2),
        advice(48, 6, DONTNEED),
        advice(8, 12, DONTNEED),
        Op::Advise {
            at: Place { window: 0, offset: 60 * PAGE + 7 },
            len: PAGE,
            advice: 4,
            by_number: false,
        },
        Op::Advise { at: at(60), len: 5000, advice: DONTNEED, by_number: true },
        Op::Advise { at: at(64), len: 0, advice: DONTNEED, by_number: true },
        Op::Advise {
            at: at(64),
            len: 0_u64.wrapping_sub(PAGE),
            advice: DONTNEED,
            by_number: false,
        },
        advice(66, 1, 999),
        Op::ForkAside { at: at(70), len: 8 * PAGE },
        Op::Fork,
        advice(70, 4, DONTNEED),
        advice(16, 96, DONTNEED),
        write(16, 2),
        advice(16, 96, DONTNEED),
    ]);
}

fn advice_that_stays_on_memory() {
    same(&[
        advice(20, 4, WIPEONFORK),
        advice(30, 4, DONTFORK),
        advice(32, 4, DONTNEED),
        protect(40, 2, libc::PROT_NONE),
        advice(39, 4, WIPEONFORK),
        write(20, 1),
        Op::Fork,
        advice(50, 4, DONTFORK),
        advice(50, 2, DOFORK),
        Op::Fork,
    ]);
}

fn locked_memory() {
    same(&[
        lock(20, 4),
        advice(18, 6, DONTNEED),
        advice(20, 2, FREE),
        advice(18, 4, DONTNEED_LOCKED),
        advice(18, 4, DONTNEED),
        advice(22, 2, WIPEONFORK),
        lock(40, 4),
        moving(40, 4, 8, 1, 60),
        moving(41, 3, 6, 3, 120),
        Op::Fork,
        advice(20, 4, DONTNEED),
    ]);
}

fn guards() {
    same(&[
        advice(20, 4, GUARD_INSTALL),
        advice(21, 2, GUARD_REMOVE),
        advice(20, 4, DONTNEED),
        advice(20, 4, GUARD_REMOVE),
        lock(30, 2),
        advice(30, 2, GUARD_INSTALL),
    ]);
}

fn growth() {
    same(&[
        // The end of what is mapped: grows in place.
        moving(108, 4, 8, 0, 0),
        advice(114, 4, DONTNEED),
        moving(108, 8, 12, 1, 0),
        // In the middle: must move, or fails.
        moving(40, 4, 6, 0, 0),
        moving(40, 4, 12, 1, 120),
        advice(118, 6, DONTNEED),
        // Of one page image, of one page fresh.
        advice(60, 1, DONTNEED),
        moving(60, 2, 5, 1, 130),
        moving(70, 8, 2, 0, 0),
        moving(80, 8, 2, 3, 136),
    ]);
}

fn moves() {
    same(&[
        advice(22, 2, DONTNEED),
        moving(20, 8, 8, 3, 120),
        advice(120, 1, DONTNEED),
        moving(120, 8, 8, 3, 20),
        advice(20, 8, DONTNEED),
        moving(30, 4, 4, 5, 0),
        moving(40, 4, 4, 7, 130),
        write(40, 1),
        advice(40, 4, DONTNEED),
        advice(130, 4, DONTNEED),
        protect(52, 2, libc::PROT_READ),
        moving(50, 6, 6, 1, 0),
        moving(50, 6, 8, 3, 140),
        moving(50, 6, 6, 3, 140),
        unmap(62, 1),
        moving(60, 6, 6, 3, 148),
        moving(70, 4, 4, 3, 72),
        Op::Fork,
        advice(140, 14, DONTNEED),
    ]);
}

fn more_moves_than_the_table_holds() {
    let mut ops: Vec<Op> = Vec::new();
    for page in 0..80 {
        ops.push(moving(16 + page, 1, 1, 3, if page % 2 == 0 { 120 } else { 122 }));
        ops.push(moving(if page % 2 == 0 { 120 } else { 122 }, 1, 1, 3, 16 + page));
    }
    ops.push(advice(16, 96, DONTNEED));
    same(&ops);
}

fn the_break() {
    let heap = |page: u64| Place { window: 1, offset: page * PAGE };
    same(&[
        Op::Break { pages: 12 },
        Op::Break { pages: 30 },
        Op::Write { at: heap(20), len: 5 * PAGE, byte: 7 },
        Op::Advise { at: heap(8), len: 16 * PAGE, advice: DONTNEED, by_number: false },
        Op::Break { pages: 4 },
        Op::Break { pages: 24 },
        Op::Deepen { len: 300 << 10 },
    ]);
}

/// Runs `test` in a process of its own, which may change itself for good.
fn alone(test: impl FnOnce()) {
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
            exit(i32::from(done.is_err()))
        }
        child => assert_eq!(wait(child), 0, "see above"),
    }
}

/// Pages that hold their number, from an image.
fn numbered(pages: u64, shared: bool, listed: bool) -> (u64, StandIn) {
    let start = map(0, pages * PAGE, 3, 0);
    for page in 0..pages {
        stand_in::fill(start + page * PAGE, PAGE, (page as u8).wrapping_add(1));
    }
    let snapshot = Snapshot { shared, listed, ..Snapshot::anonymous(start, pages * PAGE) };
    (start, StandIn::make(&[snapshot], false))
}

fn assert_page(addr: u64, byte: u8) {
    assert!(read(addr, PAGE).iter().all(|found| *found == byte), "{addr:#x} is not {byte:#x}");
}

/// Every register, as code has it around a call site.
#[repr(C, align(32))]
struct Registers {
    general: [u64; 12],
    vectors: [[u64; 4]; 16],
    result: u64,
    red_zone: u64,
    flags: u64,
}

fn registers_are_kept() {
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

fn the_stack_is_used_sparingly() {
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

fn shared_memory_keeps_its_bytes() {
    alone(|| {
        let (start, _) = numbered(8, true, true);
        stand_in::fill(start, PAGE, 0x77);
        assert_eq!(advise(start, 8 * PAGE, DONTNEED, false), 0);
        assert_page(start, 0x77);
        assert_page(start + PAGE, 2);
        assert_eq!(advise(start, PAGE, FREE, false), -1);
        assert_eq!(advise(start, PAGE, WIPEONFORK, false), -1);
        assert_eq!(advise(start, PAGE, REMOVE, true), 0);
        assert_page(start, 0);
        let target = map(0, 8 * PAGE, 0, 0);
        assert_eq!(remap(start, 8 * PAGE, 8 * PAGE, 3, target, false).cast_unsigned(), target);
        stand_in::fill(target, PAGE, 0x55);
        assert_eq!(advise(target, 8 * PAGE, DONTNEED, false), 0);
        assert_page(target, 0x55);
        assert_page(target + 7 * PAGE, 8);
    });
}

fn a_carried_file_is_the_kernels() {
    alone(|| {
        let (start, _) = numbered(8, false, false);
        stand_in::fill(start, PAGE, 0x77);
        assert_eq!(advise(start, PAGE, DONTNEED, false), 0);
        assert_page(start, 1);
    });
}

fn threads_discard_side_by_side() {
    const THREADS: u64 = 4;
    const PAGES: u64 = 1024;
    alone(|| {
        let start = map(0, PAGES * PAGE, 3, 0);
        stand_in::fill(start, PAGES * PAGE, 0x11);
        let stand_in = StandIn::make(&[Snapshot::anonymous(start, PAGES * PAGE)], false);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    for page in (thread..PAGES).step_by(THREADS as usize) {
                        let addr = start + page * PAGE;
                        assert_page(addr, 0x11);
                        assert_eq!(advise(addr, PAGE, DONTNEED, page % 8 < 4), 0);
                        assert_page(addr, 0);
                        stand_in::fill(addr, PAGE, thread as u8);
                    }
                });
            }
        });
        for page in 0..PAGES {
            assert_page(start + page * PAGE, (page % THREADS) as u8);
        }
        assert_eq!(stand_in.cleared(), stand_in.chunks(), "a chunk is asked about for ever");
    });
}

fn without_vmas_left_zeros_are_written() {
    alone(|| {
        let (start, _) = numbered(64, false, true);
        // Every second page another protection: one VMA each, until there are no more.
        let len = 70_000 * PAGE;
        let many = map(0, len, 1, libc::MAP_NORESERVE);
        let left = (0..70_000).step_by(2).find(|page| {
            let page = (many + page * PAGE) as *mut libc::c_void;
            // SAFETY: memory of this test.
            (unsafe { libc::mprotect(page, PAGE as usize, 3) }) != 0
        });
        assert!(left.is_some(), "the kernel's vm.max_map_count is above 70,000");
        assert_eq!(advise(start + 8 * PAGE, 4 * PAGE, DONTNEED, false), 0);
        assert_page(start + 7 * PAGE, 8);
        for page in 8..12 {
            assert_page(start + page * PAGE, 0);
        }
        assert_page(start + 12 * PAGE, 13);
    });
}

fn without_proc_there_is_an_error() {
    alone(|| {
        let (start, _) = numbered(8, false, true);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a limit of this process alone.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) }, 0);
        assert_eq!(advise(start, PAGE, DONTNEED, false), -1);
        assert_eq!(stand_in::errno(), libc::ENOMEM);
        assert_eq!(advise(start, PAGE, FREE, false), -1);
        assert_eq!(stand_in::errno(), libc::EINVAL);
        assert_eq!(remap(start, PAGE, 2 * PAGE, 1, 0, false), -1);
        assert_eq!(stand_in::errno(), libc::ENOMEM);
        assert_page(start, 1);
    });
}
