//! Threads whose alternative stacks have no room to spare, and threads that fault while they are asked to stand.

use std::arch::asm;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mitosis::prepare::PrepareOptions;

use super::cases::{PAGE, keep, options, seed, seed_with};
use super::tiles::Holder;

const THREADS: usize = 4;
/// The least that the kernel lets a thread have.
const LEAST_BYTES: usize = 2048;
const ROOMY_BYTES: usize = 64 << 10;

/// Of the calling thread, `bytes` long and just above memory that nobody may touch; it stays. Where it begins.
fn use_stack(bytes: usize) -> usize {
    let whole = PAGE + bytes.next_multiple_of(PAGE);
    // SAFETY: new memory, of which the first page is closed; the stack is as long as what is left at least.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let memory = libc::mmap(null_mut(), whole, prot, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED);
        assert_eq!(libc::mprotect(memory, PAGE, libc::PROT_NONE), 0);
        let base = memory.byte_add(PAGE);
        let stack = libc::stack_t { ss_sp: base, ss_flags: 0, ss_size: bytes };
        let answer = libc::sigaltstack(&raw const stack, null_mut());
        assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
        base as usize
    }
}

fn own_stack() -> (usize, usize, i32) {
    // SAFETY: fills the struct, for which all zero is a valid value.
    unsafe {
        let mut stack: libc::stack_t = std::mem::zeroed();
        assert_eq!(libc::sigaltstack(std::ptr::null(), &raw mut stack), 0);
        (stack.ss_sp as usize, stack.ss_size, stack.ss_flags)
    }
}

type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::ucontext_t);

fn handle(signal: i32, handler: Handler, flags: i32) {
    // SAFETY: the handlers of this file do what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = flags | libc::SA_SIGINFO | libc::SA_RESTART;
        assert_eq!(libc::sigaction(signal, &raw const action, null_mut()), 0);
    }
}

static FRAME_AT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn tell_frame(_: i32, _: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // The frame begins with the address that the handler returns to.
    FRAME_AT.store(context as usize - size_of::<usize>(), SeqCst);
}

/// What the kernel's frame takes of an alternative stack that ends at a multiple of 64.
fn frame_bytes() -> usize {
    let ask = thread::spawn(|| {
        let top = use_stack(ROOMY_BYTES) + ROOMY_BYTES;
        handle(libc::SIGUSR1, tell_frame, libc::SA_ONSTACK);
        // SAFETY: to this thread, which handles it; then nobody does.
        unsafe {
            libc::raise(libc::SIGUSR1);
            libc::signal(libc::SIGUSR1, libc::SIG_DFL);
        }
        top - FRAME_AT.load(SeqCst)
    });
    ask.join().unwrap()
}

/// Threads with such stacks, which wait until they are told to look and end.
struct Waiters {
    go: Arc<Barrier>,
    threads: Vec<JoinHandle<()>>,
}

impl Waiters {
    fn new(bytes: usize) -> Waiters {
        let go = Arc::new(Barrier::new(THREADS + 1));
        let start = |_| {
            let go = Arc::clone(&go);
            thread::spawn(move || {
                let base = use_stack(bytes);
                go.wait();
                go.wait();
                assert_eq!(own_stack(), (base, bytes, 0));
            })
        };
        let threads = (0..THREADS).map(start).collect();
        go.wait();
        Waiters { go, threads }
    }

    fn end(self) {
        self.go.wait();
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

pub(crate) fn alternative_stacks_with_room_for_a_frame_alone() {
    let bytes = (frame_bytes() + size_of::<usize>()).next_multiple_of(64).max(LEAST_BYTES);
    let waiters = Waiters::new(bytes);
    for _ in 0..3 {
        assert_eq!(seed().pause().unwrap().threads as usize, THREADS);
    }
    keep(seed());
    waiters.end();
}

pub(crate) fn alternative_stacks_without_room_for_a_frame() {
    if frame_bytes() < LEAST_BYTES {
        println!("    a frame of this CPU has room in {LEAST_BYTES} bytes: no stack is too small");
    }
    // Rust's own handler of SIGSEGV, the default, and one on the regular stack.
    for kind in ["rust", "default", "own"] {
        match kind {
            // SAFETY: nothing of this process faults.
            "default" => _ = unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) },
            "own" => handle(libc::SIGSEGV, step_over, 0),
            _ => {}
        }
        let before = action_of_fault();
        let waiters = Waiters::new(LEAST_BYTES);
        assert_eq!(seed().pause().unwrap().threads as usize, THREADS);
        keep(seed());
        assert_eq!(action_of_fault(), before, "{kind}");
        waiters.end();
    }
}

fn action_of_fault() -> [u64; 4] {
    let mut action = [0u64; 4];
    let number = libc::SYS_rt_sigaction;
    // SAFETY: the kernel writes a struct sigaction.
    let answer = unsafe { libc::syscall(number, libc::SIGSEGV, 0, action.as_mut_ptr(), 8) };
    assert_eq!(answer, 0);
    action
}

static FAULTS: AtomicU32 = AtomicU32::new(0);
static SENT: AtomicU32 = AtomicU32::new(0);
/// Of the instruction in [`fault`].
const STORE_BYTES: i64 = 3;

extern "C" fn step_over(_: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel hands both to the handler.
    unsafe {
        if (*info).si_code <= 0 {
            SENT.fetch_add(1, SeqCst);
            return;
        }
        FAULTS.fetch_add(1, SeqCst);
        (*context).uc_mcontext.gregs[libc::REG_RIP as usize] += STORE_BYTES;
    }
}

fn fault() {
    // SAFETY: nothing is mapped at 8; the handler steps over the store.
    unsafe { asm!("mov byte ptr [rax], 0", in("rax") 8) };
}

/// The program's handler gets each of them, whether it comes before, while or after the thread stands.
pub(crate) fn faults_while_threads_are_asked() {
    handle(libc::SIGSEGV, step_over, 0);
    let stop = Arc::new(AtomicBool::new(false));
    let faulting = [(); 2].map(|()| {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let mut made = 0;
            while !stop.load(SeqCst) {
                fault();
                made += 1;
            }
            made
        })
    });
    let sending = {
        let stop = Arc::clone(&stop);
        thread::spawn(move || {
            let mut sent = 0;
            while !stop.load(SeqCst) {
                // SAFETY: to this thread, which handles it before the call returns.
                unsafe {
                    libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGSEGV)
                };
                sent += 1;
            }
            sent
        })
    };
    let before = action_of_fault();
    while FAULTS.load(SeqCst) < 100 || SENT.load(SeqCst) < 100 {
        thread::yield_now();
    }
    for _ in 0..30 {
        keep(seed());
        assert_eq!(action_of_fault(), before);
    }
    stop.store(true, SeqCst);
    let made: u32 = faulting.map(|thread| thread.join().unwrap()).iter().sum();
    let sent = sending.join().unwrap();
    assert_eq!((FAULTS.load(SeqCst), SENT.load(SeqCst)), (made, sent));
}

/// A thread that hardly gets to run is still in the handler of one round when the next one asks it.
pub(crate) fn a_thread_without_a_processor_is_asked_round_after_round() {
    const ROUNDS: usize = 8;
    static STOP: AtomicBool = AtomicBool::new(false);
    // SAFETY: plain numbers, for which all zero is a valid value.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: takes nothing.
    let here = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap();
    // SAFETY: a live set.
    unsafe { libc::CPU_SET(here, &mut one) };
    let pinned = Arc::new(Barrier::new(3));
    let threads = [libc::SCHED_IDLE, libc::SCHED_OTHER].map(|policy| {
        let pinned = Arc::clone(&pinned);
        thread::spawn(move || {
            let priority = libc::sched_param { sched_priority: 0 };
            // SAFETY: both structs live.
            unsafe {
                assert_eq!(libc::sched_setaffinity(0, size_of_val(&one), &raw const one), 0);
                assert_eq!(libc::sched_setscheduler(0, policy, &raw const priority), 0);
            }
            pinned.wait();
            while !STOP.load(SeqCst) {
                std::hint::spin_loop();
            }
        })
    });
    pinned.wait();
    let patient = PrepareOptions { stop_threads: Duration::from_secs(40), ..options() };
    for _ in 0..ROUNDS {
        keep(seed_with(&patient).unwrap());
    }
    STOP.store(true, SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

pub(crate) fn tiles_fill_an_alternative_stack() {
    // SAFETY: takes a number.
    let bytes = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) };
    let bytes = usize::try_from(bytes).unwrap();
    let holder = Holder::start(move || {
        use_stack(bytes);
    });
    let Some(holder) = holder else {
        println!("    no AMX here: no tile fills an alternative stack");
        return keep(seed());
    };
    let seed = seed();
    assert_eq!(seed.pause().unwrap().threads, 1);
    keep(seed);
    assert_eq!(holder.look(), None);
}
