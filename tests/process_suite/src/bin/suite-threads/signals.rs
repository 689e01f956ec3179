//! Signals of threads: masks, what is pending, waits, and the ones that libc itself sends.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

use crate::crossing::{Crossing, equal, must};
use crate::worker::{Flag, Worker, errno, own_tid, until};

const THREADS: usize = 6;
/// What programs cannot block through libc; a kernel's mask may have them nevertheless.
const INTERNAL: u64 = 0b11 << 31;

/// rt_sigprocmask(2), past libc.
fn set_mask(how: i32, set: u64) -> u64 {
    let mut before = 0u64;
    // SAFETY: masks of eight bytes.
    let done = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const set, &raw mut before, 8usize)
    };
    equal("rt_sigprocmask", done, 0);
    before
}

fn mask() -> u64 {
    set_mask(libc::SIG_BLOCK, 0)
}

fn of(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |set, signal| set | 1 << (signal - 1))
}

/// Each thread has its own; one blocks everything that libc lets it, and one that libc's own, too.
pub(crate) fn masks(crossing: &mut Crossing) {
    fn wanted(number: usize) -> u64 {
        match number {
            0 => of(&[libc::SIGUSR1, libc::SIGALRM]),
            1 => 0,
            2 => !INTERNAL & !of(&[libc::SIGKILL, libc::SIGSTOP]),
            3 => !of(&[libc::SIGKILL, libc::SIGSTOP]),
            other => of(&[libc::SIGUSR2, 34 + other as i32, 64]),
        }
    }
    let go = Arc::new(Flag::new());
    let workers: Vec<Worker> = (1..THREADS)
        .map(|number| {
            let go = Arc::clone(&go);
            let worker = Worker::start(move || {
                set_mask(libc::SIG_SETMASK, wanted(number));
                go.wait();
                equal("the mask of a thread", mask(), wanted(number));
            });
            worker.stands_in(libc::SYS_futex);
            worker
        })
        .collect();
    set_mask(libc::SIG_SETMASK, wanted(0));
    crossing.cross();
    equal("the mask of the main thread", mask(), wanted(0));
    go.raise();
    workers.into_iter().for_each(Worker::join);
}

fn pending_signals() -> u64 {
    let mut set = 0u64;
    // SAFETY: fills eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, 8usize) };
    set
}

/// What is pending for the process, and for one of its threads, is so afterwards.
pub(crate) fn pending(crossing: &mut Crossing) {
    let blocked = of(&[libc::SIGUSR1, libc::SIGUSR2]);
    let of_process = of(&[libc::SIGUSR2]);
    set_mask(libc::SIG_SETMASK, blocked);
    let go = Arc::new(Flag::new());
    let flag = Arc::clone(&go);
    let worker = Worker::start(move || {
        // SAFETY: to this thread, which blocks it.
        unsafe { libc::raise(libc::SIGUSR1) };
        must(pending_signals() & of(&[libc::SIGUSR1]) != 0, "nothing is pending before");
        flag.wait();
        equal("what is pending for a thread", pending_signals(), blocked);
    });
    // SAFETY: to this process, which blocks it in all threads.
    unsafe { libc::kill(libc::getpid(), libc::SIGUSR2) };
    worker.stands_in(libc::SYS_futex);
    crossing.cross();
    equal("what is pending for the process", pending_signals(), of_process);
    go.raise();
    worker.join();
}

/// sigwait, sigwaitinfo and sigtimedwait: each thread is woken by its own signal. The latter two say EINTR
/// to their callers after any handler, so they may after a fork.
pub(crate) fn sigwait(crossing: &mut Crossing) {
    set_mask(libc::SIG_SETMASK, of(&[libc::SIGUSR1, libc::SIGUSR2, 40]));
    let set = |signal| {
        // SAFETY: fills the set.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, signal);
            set
        }
    };
    type Wait = fn(&libc::sigset_t) -> i32;
    let calls: [(i32, Wait); 3] = [
        (libc::SIGUSR1, |set| {
            let mut got = 0;
            // SAFETY: fills a number.
            if unsafe { libc::sigwait(set, &raw mut got) } == 0 { got } else { -1 }
        }),
        (libc::SIGUSR2, |set| {
            // SAFETY: no information is asked for.
            unsafe { libc::sigwaitinfo(set, ptr::null_mut()) }
        }),
        (40, |set| {
            let limit = libc::timespec { tv_sec: 1000, tv_nsec: 0 };
            // SAFETY: no information is asked for.
            unsafe { libc::sigtimedwait(set, ptr::null_mut(), &raw const limit) }
        }),
    ];
    let workers = calls.map(|(signal, call)| {
        let set = set(signal);
        let worker = Worker::start(move || {
            let got = loop {
                match call(&set) {
                    -1 if errno() == libc::EINTR => {}
                    got => break got,
                }
            };
            equal("the signal that came", got, signal);
        });
        worker.stands_in(libc::SYS_rt_sigtimedwait);
        (signal, worker)
    });
    crossing.cross();
    for (signal, worker) in workers {
        // SAFETY: a thread that has not been joined.
        equal("pthread_kill", unsafe { libc::pthread_kill(worker.pthread, signal) }, 0);
        worker.join();
    }
}

static KILLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn tell_thread(_signal: i32) {
    KILLED.store(own_tid(), SeqCst);
}

/// pthread_kill: the handler runs in the thread that it was sent to.
pub(crate) fn kill(crossing: &mut Crossing) {
    // SAFETY: the handler writes a word.
    unsafe { libc::signal(libc::SIGUSR1, tell_thread as *const () as usize) };
    let go = Arc::new(Flag::new());
    let workers: Vec<Worker> = (0..THREADS)
        .map(|_| {
            let go = Arc::clone(&go);
            let worker = Worker::start(move || go.wait());
            worker.stands_in(libc::SYS_futex);
            worker
        })
        .collect();
    crossing.cross();
    for worker in &workers {
        // SAFETY: a thread that has not been joined.
        equal("pthread_kill", unsafe { libc::pthread_kill(worker.pthread, libc::SIGUSR1) }, 0);
        until("the handler has run in its thread", || KILLED.load(SeqCst) == worker.tid);
    }
    go.raise();
    workers.into_iter().for_each(Worker::join);
}

/// libc's setresuid tells every thread, by signal 33: the one that threads are parked by.
pub(crate) fn setxid(crossing: &mut Crossing) {
    change_users(crossing, false);
}

/// The same, where libc has sent that signal before.
pub(crate) fn setxid_twice(crossing: &mut Crossing) {
    change_users(crossing, true);
}

fn change_users(crossing: &mut Crossing, before: bool) {
    const NOBODY: u32 = 65534;
    let turns: Arc<[Flag; 2]> = Arc::new(Default::default());
    let seen = Arc::new(AtomicU32::new(0));
    let workers: Vec<Worker> = (0..THREADS)
        .map(|_| {
            let (turns, seen) = (Arc::clone(&turns), Arc::clone(&seen));
            let worker = Worker::start(move || {
                turns[0].wait();
                equal("the user of a thread, changed", own_user(), NOBODY);
                seen.fetch_add(1, SeqCst);
                turns[1].wait();
                equal("the user of a thread, changed back", own_user(), 0);
            });
            worker.stands_in(libc::SYS_futex);
            worker
        })
        .collect();
    equal("this case wants root: its user", own_user(), 0);
    if before {
        become_user(NOBODY);
        become_user(0);
    }
    crossing.cross();
    become_user(NOBODY);
    turns[0].raise();
    until("all threads have looked", || seen.load(SeqCst) == THREADS as u32);
    become_user(0);
    turns[1].raise();
    workers.into_iter().for_each(Worker::join);
}

/// The effective one of the calling thread, as the kernel has it.
fn own_user() -> u32 {
    // SAFETY: takes nothing.
    unsafe { libc::syscall(libc::SYS_geteuid) as u32 }
}

fn become_user(user: u32) {
    // SAFETY: takes numbers; -1 leaves one as it is.
    equal("setresuid", unsafe { libc::setresuid(u32::MAX, user, u32::MAX) }, 0);
}
