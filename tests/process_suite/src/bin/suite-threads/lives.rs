//! Threads that begin and end after the fork.

use std::collections::HashSet;
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::channel;

use mitosis_process_suite::{fail, say};

use crate::crossing::{Crossing, Way, equal, must};
use crate::worker::{Flag, Worker, own_tid, until};

unsafe extern "C" {
    fn cancel_stand() -> i32;
    fn cancel_end() -> *const libc::c_char;
    fn waits_stand(count: i32) -> i32;
    fn waits_end() -> i32;
}

/// A thread that is waited for by another one ends after the fork; one that has ended before it is joined
/// after it; and the results are theirs.
pub(crate) fn joins(crossing: &mut Crossing) {
    let go = Arc::new(Flag::new());
    let flag = Arc::clone(&go);
    let awaited = std::thread::spawn(move || {
        flag.wait();
        0x5eed_u64
    });
    let waits = Worker::start(move || match awaited.join() {
        Ok(result) => equal("the result of a thread", result, 0x5eed),
        Err(_) => fail(&"the thread panicked"),
    });
    // pthread_join waits for the thread's number by futex.
    waits.stands_in(libc::SYS_futex);
    let ended = std::thread::spawn(|| 0xdead_u64);
    until("a thread has ended", || ended.is_finished());
    std::thread::sleep(std::time::Duration::from_millis(20));
    crossing.cross();
    go.raise();
    waits.join();
    equal("the result of one that had ended", ended.join().ok(), Some(0xdead));
}

fn threads_of_process() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// Nobody joins them: libc takes their stacks back when the kernel has let them go.
pub(crate) fn detached(crossing: &mut Crossing) {
    const THREADS: u32 = 6;
    let standing = Arc::new(AtomicU32::new(0));
    let go = Arc::new(Flag::new());
    for _ in 0..THREADS {
        let (standing, go) = (Arc::clone(&standing), Arc::clone(&go));
        drop(std::thread::spawn(move || {
            standing.fetch_add(1, SeqCst);
            go.wait();
        }));
    }
    until("all stand", || standing.load(SeqCst) == THREADS);
    crossing.cross();
    equal("threads of the process", threads_of_process(), THREADS as usize + 1);
    go.raise();
    until("only the main thread is left", || threads_of_process() == 1);
    until("what they shared is let go", || Arc::strong_count(&go) == 1);
    // Their stacks serve new ones.
    for _ in 0..THREADS {
        Worker::start(|| {}).join();
    }
}

/// New threads, made by the main thread and by one that was forked; and by them.
pub(crate) fn creation(crossing: &mut Crossing) {
    const NEW: usize = 20;
    fn spawn_all(depth: u32) -> Vec<i32> {
        let (sender, receiver) = channel();
        let threads: Vec<_> = (0..NEW)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    let more = if depth > 0 {
                        let inner = std::thread::spawn(own_tid);
                        inner.join().ok()
                    } else {
                        None
                    };
                    let _ = sender.send((own_tid(), more));
                })
            })
            .collect();
        drop(sender);
        let told = receiver.iter().flat_map(|(own, more)| [Some(own), more]).flatten().collect();
        threads.into_iter().for_each(|thread| must(thread.join().is_ok(), "a new thread panicked"));
        told
    }
    let go = Arc::new(Flag::new());
    let flag = Arc::clone(&go);
    let worker = Worker::start(move || {
        flag.wait();
        equal("threads of a forked thread", spawn_all(1).len(), 2 * NEW);
    });
    worker.stands_in(libc::SYS_futex);
    let stays = Arc::new(Flag::new());
    let flag = Arc::clone(&stays);
    let old = Worker::start(move || flag.wait());
    crossing.cross();
    go.raise();
    let new = spawn_all(0);
    equal("new threads", new.len(), NEW);
    let all: HashSet<i32> = new.into_iter().collect();
    must(!all.contains(&old.tid) && !all.contains(&own_tid()), "a number was given twice");
    worker.join();
    stays.raise();
    old.join();
}

/// pthread_cancel after the fork: at cancellation points, in the middle of a computation, and where it had
/// been switched off.
pub(crate) fn cancellation(crossing: &mut Crossing) {
    // SAFETY: takes nothing.
    equal("threads that can be cancelled", unsafe { cancel_stand() }, 0);
    crossing.cross();
    // SAFETY: answers null or a text that lives for good.
    let wrong = unsafe {
        let wrong = cancel_end();
        (!wrong.is_null()).then(|| CStr::from_ptr(wrong))
    };
    if let Some(wrong) = wrong {
        fail(&wrong.to_string_lossy());
    }
}

/// Two hundred threads, in every kind of wait (`c/waits.c`).
pub(crate) fn many(crossing: &mut Crossing) {
    const THREADS: i32 = 200;
    // SAFETY: takes a number.
    equal("threads in their waits", unsafe { waits_stand(THREADS) }, 0);
    crossing.cross();
    // SAFETY: takes nothing.
    equal("threads that found what they waited for", unsafe { waits_end() }, THREADS);
}

/// A thread waits in the kernel for a child that shares its memory (CLONE_VFORK), and no signal stops it:
/// prepare names it and gives up. Everything goes on, and when the wait is over, nothing is refused.
pub(crate) fn stuck() {
    const STACK_BYTES: usize = 64 << 10;
    extern "C" fn linger(_: *mut libc::c_void) -> i32 {
        let time = libc::timespec { tv_sec: 1, tv_nsec: 500_000_000 };
        // SAFETY: neither touches what the parent's threads use.
        unsafe {
            libc::syscall(libc::SYS_nanosleep, &raw const time, 0);
            libc::_exit(0)
        }
    }
    let go = Arc::new(Flag::new());
    let flag = Arc::clone(&go);
    let waits = Worker::start(move || flag.wait());
    waits.stands_in(libc::SYS_futex);
    let worker = Worker::start(|| {
        // SAFETY: reads up to the zero byte.
        unsafe { libc::prctl(libc::PR_SET_NAME, c"stuck for a bit".as_ptr()) };
        let stack = Box::leak(vec![0u8; STACK_BYTES].into_boxed_slice()).as_mut_ptr_range().end;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the child has a stack of its own, and only sleeps and ends.
        let child = unsafe { libc::clone(linger, stack.cast(), flags, std::ptr::null_mut()) };
        must(child > 0, "clone failed");
        // SAFETY: our own child.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    });
    std::thread::sleep(std::time::Duration::from_millis(50));
    let mut crossing = Crossing::new(Way::Whole, None);
    let refused = crossing.refused();
    say(&format!("refused: {} {}", worker.tid, refused.replace('\n', " ")));
    worker.join();
    crossing.cross();
    go.raise();
    waits.join();
    crossing.end("stuck")
}
