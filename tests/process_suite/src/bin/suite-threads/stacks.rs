//! Stacks of threads, and the ones that their signal handlers use.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use mitosis_process_suite::{digest, word};

use crate::crossing::{Crossing, equal, must};
use crate::worker::{Flag, Worker, until};

const THREADS: usize = 4;
const STACK_BYTES: usize = 64 << 10;

fn own_stack() -> (usize, usize, i32) {
    // SAFETY: fills the struct, for which all zero is a valid value.
    unsafe {
        let mut stack: libc::stack_t = std::mem::zeroed();
        libc::sigaltstack(ptr::null(), &raw mut stack);
        (stack.ss_sp as usize, stack.ss_size, stack.ss_flags)
    }
}

/// A stack of its own for the calling thread's handlers; it stays for good.
fn give_stack() -> (usize, usize, i32) {
    let memory = Box::leak(vec![0u8; STACK_BYTES].into_boxed_slice());
    let stack =
        libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_BYTES };
    // SAFETY: the memory is leaked above.
    equal("sigaltstack", unsafe { libc::sigaltstack(&raw const stack, ptr::null_mut()) }, 0);
    own_stack()
}

fn handle(signal: i32, handler: extern "C" fn(i32)) {
    // SAFETY: the handlers of this program do what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_RESTART;
        equal("sigaction", libc::sigaction(signal, &raw const action, ptr::null_mut()), 0);
    }
}

static HANDLED_AT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn tell_place(_signal: i32) {
    let here = 0u8;
    HANDLED_AT.store(ptr::from_ref(std::hint::black_box(&here)) as usize, SeqCst);
}

/// sigaltstack(2) of each thread, and a handler that runs there.
pub(crate) fn altstacks(crossing: &mut Crossing) {
    handle(libc::SIGUSR1, tell_place);
    let go: Arc<[Flag; THREADS]> = Arc::new(Default::default());
    let workers: Vec<Worker> = (0..THREADS)
        .map(|number| {
            let go = Arc::clone(&go);
            let worker = Worker::start(move || {
                let given = give_stack();
                go[number].wait();
                equal("the stack for handlers", own_stack(), given);
                // SAFETY: to this thread, which handles it.
                unsafe { libc::raise(libc::SIGUSR1) };
                let at = HANDLED_AT.load(SeqCst);
                must((given.0..given.0 + given.1).contains(&at), "the handler ran elsewhere");
            });
            worker.stands_in(libc::SYS_futex);
            worker
        })
        .collect();
    crossing.cross();
    // One after another: they share the word that the handler writes.
    for (worker, flag) in workers.into_iter().zip(&*go) {
        flag.raise();
        worker.join();
    }
}

static LEAVE: Flag = Flag::new();
static ON_STACK: AtomicU32 = AtomicU32::new(0);

extern "C" fn stay(_signal: i32) {
    let words: [u64; 256] = std::array::from_fn(word);
    let before = own_stack();
    ON_STACK.fetch_add(1, SeqCst);
    LEAVE.wait();
    equal("the stack for handlers, in one", own_stack(), before);
    must(before.2 & libc::SS_ONSTACK != 0, "the handler is not on its stack");
    let words = std::hint::black_box(words);
    must(words.iter().enumerate().all(|(at, got)| *got == word(at)), "the handler's frame differs");
}

/// Threads that stand on that stack while they are forked.
pub(crate) fn on_altstack(crossing: &mut Crossing) {
    handle(libc::SIGUSR1, stay);
    let workers: Vec<Worker> = (0..THREADS)
        .map(|_| {
            Worker::start(|| {
                let given = give_stack();
                // SAFETY: to this thread, which handles it.
                unsafe { libc::raise(libc::SIGUSR1) };
                equal("the stack for handlers, after one", own_stack(), given);
                // Again: the kernel must not think that it is still in use.
                // SAFETY: as above.
                unsafe { libc::raise(libc::SIGUSR1) };
                equal("the stack for handlers, after two", own_stack(), given);
            })
        })
        .collect();
    until("all are in their handlers", || ON_STACK.load(SeqCst) == THREADS as u32);
    workers.iter().for_each(|worker| worker.stands_in(libc::SYS_futex));
    crossing.cross();
    LEAVE.raise();
    workers.into_iter().for_each(Worker::join);
}

static BOTTOM: AtomicU32 = AtomicU32::new(0);

#[inline(never)]
fn descend(frames: usize, flag: &Flag) -> u64 {
    let mut frame: [u64; 512] = std::array::from_fn(|at| word(frames * 512 + at));
    let below = if frames == 0 {
        BOTTOM.fetch_add(1, SeqCst);
        flag.wait();
        0
    } else {
        descend(frames - 1, flag)
    };
    let frame = std::hint::black_box(&mut frame);
    // SAFETY: words may be looked at as bytes.
    let bytes = unsafe { std::slice::from_raw_parts(frame.as_ptr().cast::<u8>(), 4096) };
    below.rotate_left(1) ^ digest(bytes)
}

/// Threads far down their stacks come back up over frames as they were.
pub(crate) fn deep_stacks(crossing: &mut Crossing) {
    const FRAMES: usize = 200;
    let raised = Flag::new();
    raised.raise();
    let wanted = descend(FRAMES, &raised);
    BOTTOM.store(0, SeqCst);
    let go = Arc::new(Flag::new());
    let workers: Vec<Worker> = (0..THREADS)
        .map(|_| {
            let go = Arc::clone(&go);
            Worker::start(move || equal("the frames of a stack", descend(FRAMES, &go), wanted))
        })
        .collect();
    until("all are down there", || BOTTOM.load(SeqCst) == THREADS as u32);
    crossing.cross();
    go.raise();
    workers.into_iter().for_each(Worker::join);
}
