//! Threads that do not wait: their registers, what they count, and the code that they have made.

use std::arch::asm;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

use mitosis_process_suite::{PAGE, digest, fail, word};

use crate::crossing::{Crossing, equal, must};
use crate::worker::{Flag, Worker, until};

/// Registers as a thread fills and finds them.
#[derive(Clone, Debug, PartialEq)]
#[repr(C, align(64))]
struct Registers {
    vectors: [[u64; 4]; 16],
    general: [u64; 6],
    x87_control: u16,
    pad: [u16; 3],
    mxcsr: u32,
    pad_too: u32,
}

/// Fills the vector registers, some general ones and both control words, spins until `go`, and tells what it
/// finds there then. Nothing between the two is a system call.
#[target_feature(enable = "avx")]
fn hold(registers: &Registers, found: &mut Registers, standing: &AtomicU32, go: &AtomicU32) {
    // SAFETY: reads and writes the two structs by the offsets of their fields, and gives both control words
    // back as it found them.
    unsafe {
        asm!(
            "sub rsp, 16",
            "stmxcsr [rsp]",
            "fnstcw [rsp + 8]",
            "vmovups ymm0, [rdi]", "vmovups ymm1, [rdi + 32]", "vmovups ymm2, [rdi + 64]",
            "vmovups ymm3, [rdi + 96]", "vmovups ymm4, [rdi + 128]", "vmovups ymm5, [rdi + 160]",
            "vmovups ymm6, [rdi + 192]", "vmovups ymm7, [rdi + 224]", "vmovups ymm8, [rdi + 256]",
            "vmovups ymm9, [rdi + 288]", "vmovups ymm10, [rdi + 320]", "vmovups ymm11, [rdi + 352]",
            "vmovups ymm12, [rdi + 384]", "vmovups ymm13, [rdi + 416]", "vmovups ymm14, [rdi + 448]",
            "vmovups ymm15, [rdi + 480]",
            "mov r8, [rdi + 512]", "mov r9, [rdi + 520]", "mov r10, [rdi + 528]",
            "mov r11, [rdi + 536]", "mov r12, [rdi + 544]", "mov r13, [rdi + 552]",
            "fldcw [rdi + 560]",
            "ldmxcsr [rdi + 568]",
            "lock inc dword ptr [rdx]",
            "2:",
            "pause",
            "cmp dword ptr [rcx], 0",
            "je 2b",
            "vmovups [rsi], ymm0", "vmovups [rsi + 32], ymm1", "vmovups [rsi + 64], ymm2",
            "vmovups [rsi + 96], ymm3", "vmovups [rsi + 128], ymm4", "vmovups [rsi + 160], ymm5",
            "vmovups [rsi + 192], ymm6", "vmovups [rsi + 224], ymm7", "vmovups [rsi + 256], ymm8",
            "vmovups [rsi + 288], ymm9", "vmovups [rsi + 320], ymm10", "vmovups [rsi + 352], ymm11",
            "vmovups [rsi + 384], ymm12", "vmovups [rsi + 416], ymm13", "vmovups [rsi + 448], ymm14",
            "vmovups [rsi + 480], ymm15",
            "mov [rsi + 512], r8", "mov [rsi + 520], r9", "mov [rsi + 528], r10",
            "mov [rsi + 536], r11", "mov [rsi + 544], r12", "mov [rsi + 552], r13",
            "fnstcw [rsi + 560]",
            "stmxcsr [rsi + 568]",
            "ldmxcsr [rsp]",
            "fldcw [rsp + 8]",
            "add rsp, 16",
            in("rdi") registers, in("rsi") found,
            in("rdx") standing.as_ptr(), in("rcx") go.as_ptr(),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
            out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _,
            out("ymm11") _, out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
        );
    }
}

/// Bit for bit, of threads that were in the middle of a computation.
pub(crate) fn registers(crossing: &mut Crossing) {
    const THREADS: u32 = 3;
    static STANDING: AtomicU32 = AtomicU32::new(0);
    static GO: AtomicU32 = AtomicU32::new(0);
    must(std::arch::is_x86_feature_detected!("avx"), "this case wants a CPU with AVX");
    let workers: Vec<Worker> = (1..=THREADS as usize)
        .map(|number| {
            Worker::start(move || {
                let at = |index: usize| word(number * 1000 + index);
                let filled = Registers {
                    vectors: std::array::from_fn(|row| std::array::from_fn(|of| at(row * 4 + of))),
                    general: std::array::from_fn(|index| at(100 + index)),
                    // Double precision, rounded towards zero; down, with denormals as zeros.
                    x87_control: 0x0e7f,
                    pad: [0; 3],
                    mxcsr: 0x3f80 | 0x40,
                    pad_too: 0,
                };
                let mut found = Registers {
                    vectors: [[0; 4]; 16],
                    general: [0; 6],
                    x87_control: 0,
                    mxcsr: 0,
                    ..filled
                };
                // SAFETY: the CPU has AVX, as was asked above.
                unsafe { hold(&filled, &mut found, &STANDING, &GO) };
                equal("registers of a thread that computes", &found, &filled);
            })
        })
        .collect();
    until("all hold their registers", || STANDING.load(SeqCst) == THREADS);
    crossing.cross();
    GO.store(1, SeqCst);
    workers.into_iter().for_each(Worker::join);
}

/// A thread counts, in a register and in memory: both go on from where they were.
pub(crate) fn spinning(crossing: &mut Crossing) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    let worker = Worker::start(|| {
        let mut count = 0u64;
        while !STOP.load(SeqCst) {
            equal("what was counted", COUNT.load(SeqCst), count);
            count += 1;
            COUNT.store(count, SeqCst);
        }
    });
    until("it counts", || COUNT.load(SeqCst) > 10_000);
    let before = COUNT.load(SeqCst);
    crossing.cross();
    let after = COUNT.load(SeqCst);
    must(after >= before, &format!("{after} after {before}"));
    until("it counts on", || COUNT.load(SeqCst) > after + 10_000);
    STOP.store(true, SeqCst);
    worker.join();
}

/// Code that the program has written into memory which it may write and run, with a thread inside of it.
pub(crate) fn made_code(crossing: &mut Crossing) {
    static GO: AtomicU32 = AtomicU32::new(0);
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    let access = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: new memory.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, access, flags, -1, 0) };
    must(page != libc::MAP_FAILED, "no memory that may be written and run");
    // lock inc dword [rdi]; 1: pause; cmp dword [rsi], 0; je 1b; mov eax, VALUE; ret
    let code = |value: u32| {
        let mut code = vec![0xf0, 0xff, 0x07, 0xf3, 0x90, 0x83, 0x3e, 0x00, 0x74, 0xf9, 0xb8];
        code.extend(value.to_le_bytes());
        code.push(0xc3);
        code
    };
    let write = |at: *mut libc::c_void, code: &[u8]| {
        // SAFETY: within the page, and nobody runs these bytes.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), at.cast(), code.len()) };
    };
    type Made = unsafe extern "C" fn(*mut u32, *mut u32) -> u32;
    write(page, &code(4711));
    // SAFETY: the page holds code with this interface.
    let made: Made = unsafe { std::mem::transmute(page) };
    let worker = Worker::start(move || {
        // SAFETY: the words live for good.
        equal("what made code returns", unsafe { made(INSIDE.as_ptr(), GO.as_ptr()) }, 4711);
    });
    until("a thread is in it", || INSIDE.load(SeqCst) == 1);
    crossing.cross();
    // More of it, beside what runs.
    // SAFETY: within the page.
    let beside = unsafe { page.byte_add(PAGE / 2) };
    write(beside, &code(815));
    // SAFETY: as above.
    let newer: Made = unsafe { std::mem::transmute(beside) };
    GO.store(1, SeqCst);
    // SAFETY: as above.
    equal("what newer code returns", unsafe { newer(INSIDE.as_ptr(), GO.as_ptr()) }, 815);
    worker.join();
}

/// Threads that take and give memory all the time, forked wherever they happen to be, in libc's allocator too.
pub(crate) fn heap(crossing: &mut Crossing) {
    const THREADS: usize = 4;
    let stop = Arc::new(Flag::new());
    let turns: Arc<[AtomicU64; THREADS]> = Arc::new(Default::default());
    let workers: Vec<Worker> = (0..THREADS)
        .map(|number| {
            let (stop, turns) = (Arc::clone(&stop), Arc::clone(&turns));
            Worker::start(move || {
                let mut held: Vec<(Vec<u8>, u64)> = Vec::new();
                let mut turn = 0;
                while !stop.is_raised() {
                    turn += 1;
                    let bytes = 8 + (word(turn * THREADS + number) % 40_000) as usize / 8 * 8;
                    let block = vec![turn as u8; bytes];
                    let sum = digest(&block);
                    held.push((block, sum));
                    if held.len() > 64 {
                        let (block, sum) = held.swap_remove(turn % 64);
                        if digest(&block) != sum {
                            fail(&"a block of the heap differs");
                        }
                    }
                    turns[number].store(turn as u64, SeqCst);
                }
                held.iter().for_each(|(block, sum)| equal("a block", digest(block), *sum));
            })
        })
        .collect();
    let all_past = |limit: [u64; THREADS]| {
        turns.iter().zip(limit).all(|(turn, limit)| turn.load(SeqCst) > limit)
    };
    until("all are at it", || all_past([100; THREADS]));
    crossing.cross();
    let seen = std::array::from_fn(|at| turns[at].load(SeqCst) + 100);
    until("all go on", || all_past(seen));
    stop.raise();
    workers.into_iter().for_each(Worker::join);
}
