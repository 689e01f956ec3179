//! Signals that are pending: a child of a whole process has those of the process and of each thread, with what was sent
//! along; one of fork mode has none, as after fork(2).

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use mitosis_process_suite::fail;

/// Of the process: one that counts once, and three that queue.
const PLAIN: i32 = libc::SIGUSR1;
const QUEUED: i32 = 40;
/// Of the other thread.
const OF_THREAD: i32 = 41;

/// What was sent.
pub(crate) struct Pending {
    go: Sender<()>,
    found: Receiver<Vec<(i32, i64)>>,
    thread: JoinHandle<()>,
}

fn set_of(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |set, signal| set | 1 << (signal - 1))
}

fn queue(tid: i32, signal: i32, value: i64) {
    let mut info = [0i32; 32];
    // SAFETY: takes nothing.
    let pid = unsafe { libc::getpid() };
    (info[0], info[2], info[4]) = (signal, libc::SI_QUEUE, pid);
    (info[6], info[7]) = (value as i32, (value >> 32) as i32);
    // SAFETY: a siginfo of 128 bytes, to this process.
    let sent = unsafe {
        match tid {
            0 => libc::syscall(libc::SYS_rt_sigqueueinfo, pid, signal, info.as_ptr()),
            tid => libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, signal, info.as_ptr()),
        }
    };
    if sent != 0 {
        fail(&format!("signal {signal}: {}", std::io::Error::last_os_error()));
    }
}

/// All that are pending for this thread or its process, with their values, in their order; none of them is afterwards.
fn taken() -> Vec<(i32, i64)> {
    let set = set_of(&[PLAIN, QUEUED, OF_THREAD]);
    let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut all = Vec::new();
    loop {
        let mut info = [0i32; 32];
        // SAFETY: a set of eight bytes, a siginfo to be filled, a time.
        let signal = unsafe {
            libc::syscall(
                libc::SYS_rt_sigtimedwait,
                &raw const set,
                info.as_mut_ptr(),
                &raw const none,
                8usize,
            )
        };
        if signal < 0 {
            return all;
        }
        all.push((signal as i32, i64::from(info[6]) | i64::from(info[7]) << 32));
    }
}

/// Blocks them in this thread and another one, and sends them.
pub(crate) fn send() -> Pending {
    let set = set_of(&[PLAIN, QUEUED, OF_THREAD]);
    // SAFETY: a set of eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const set, 0, 8usize) };
    let (go, told) = channel();
    let (finds, found) = channel();
    let (ready, is_ready) = channel();
    let thread = std::thread::spawn(move || {
        // SAFETY: takes nothing.
        queue(unsafe { libc::gettid() }, OF_THREAD, 4);
        let _ = ready.send(());
        if told.recv().is_ok() {
            let _ = finds.send(taken());
        }
    });
    let _ = is_ready.recv();
    // SAFETY: to this process, which blocks it in all threads.
    unsafe { libc::kill(libc::getpid(), PLAIN) };
    for value in [1 << 40, 2, 3] {
        queue(0, QUEUED, value);
    }
    Pending { go, found, thread }
}

impl Pending {
    /// What is not as it should be.
    pub(crate) fn look(self, are_carried: bool) -> Option<String> {
        let own = taken();
        let mut wanted = vec![(PLAIN, own.first().map_or(0, |(_, value)| *value))];
        wanted.extend([(QUEUED, 1 << 40), (QUEUED, 2), (QUEUED, 3)]);
        if !are_carried {
            // The other thread is not here either.
            std::mem::forget(self.thread);
            return (!own.is_empty())
                .then(|| format!("{own:?} is pending in a child of fork mode"));
        }
        let _ = self.go.send(());
        let of_thread = self.found.recv().unwrap_or_default();
        let _ = self.thread.join();
        let right = own == wanted && of_thread == [(OF_THREAD, 4)];
        (!right).then(|| format!("{own:?} and, of a thread, {of_thread:?} were pending"))
    }
}
