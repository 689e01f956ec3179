//! Threads in every kind of wait, each of which checks itself.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What a thread does until it is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Futex,
    Epoll,
    Nanosleep,
    Read,
    Poll,
    SigWait,
    Spin,
    AllBlocked,
    Allocate,
    Locks,
}

pub(crate) const KINDS: [Kind; 10] = [
    Kind::Futex,
    Kind::Epoll,
    Kind::Nanosleep,
    Kind::Read,
    Kind::Poll,
    Kind::SigWait,
    Kind::Spin,
    Kind::AllBlocked,
    Kind::Allocate,
    Kind::Locks,
];

/// Threads, and what wakes them at the end.
pub(crate) struct Crew {
    threads: Vec<(Kind, JoinHandle<()>)>,
    ends: Arc<Ends>,
    write_ends: Vec<std::io::PipeWriter>,
}

#[derive(Default)]
struct Ends {
    stop: AtomicBool,
    running: AtomicU32,
    /// Of those that never wait.
    turns: AtomicU32,
    flag: Mutex<bool>,
    change: Condvar,
}

impl Crew {
    /// One of each kind, then of those that leave the processors to others.
    pub(crate) fn new(count: usize) -> Self {
        let more = KINDS.into_iter().filter(|kind| *kind != Kind::Spin).cycle();
        Self::of(KINDS.into_iter().chain(more).take(count))
    }

    pub(crate) fn of(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let ends = Arc::new(Ends::default());
        let (mut threads, mut write_ends) = (Vec::new(), Vec::new());
        for kind in kinds {
            let (reader, writer) = std::io::pipe().unwrap();
            write_ends.push(writer);
            let ends = ends.clone();
            let builder = thread::Builder::new().stack_size(256 << 10).name(format!("{kind:?}"));
            let body = move || {
                let before = own_state();
                ends.running.fetch_add(1, SeqCst);
                work(kind, &ends, &reader);
                assert_eq!(own_state(), before, "{kind:?}");
            };
            threads.push((kind, builder.spawn(body).unwrap()));
        }
        let count = u32::try_from(threads.len()).unwrap();
        while ends.running.load(SeqCst) < count {
            thread::sleep(Duration::from_millis(1));
        }
        // Into their waits.
        thread::sleep(Duration::from_millis(20));
        Crew { threads, ends, write_ends }
    }

    pub(crate) fn turns(&self) -> u32 {
        self.ends.turns.load(SeqCst)
    }

    /// Ends them; each has found everything right.
    pub(crate) fn end(mut self) {
        self.ends.stop.store(true, SeqCst);
        *self.ends.flag.lock().unwrap() = true;
        self.ends.change.notify_all();
        for writer in &mut self.write_ends {
            // Who does not wait for it has closed it.
            let _ = writer.write_all(b"end");
        }
        for (kind, thread) in &self.threads {
            if *kind == Kind::SigWait {
                use std::os::unix::thread::JoinHandleExt;
                // SAFETY: a thread that waits for this signal, and that has not been joined.
                unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR2) };
            }
        }
        for (kind, thread) in self.threads {
            assert!(thread.join().is_ok(), "a thread of {kind:?} failed");
        }
    }
}

/// Mask, name, alternative stack.
fn own_state() -> (String, String, usize) {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    // SAFETY: asks.
    let alt = unsafe {
        let mut alt: libc::stack_t = zeroed();
        assert_eq!(libc::sigaltstack(null(), &raw mut alt), 0);
        alt
    };
    (line("SigBlk:"), line("Name:"), alt.ss_sp as usize)
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn work(kind: Kind, ends: &Ends, reader: &std::io::PipeReader) {
    let fd = reader.as_raw_fd();
    let stopped = || ends.stop.load(SeqCst);
    match kind {
        Kind::Futex => {
            let mut flag = ends.flag.lock().unwrap();
            while !*flag {
                flag = ends.change.wait(flag).unwrap();
            }
        }
        Kind::Epoll => epoll(fd),
        // It must have slept at least as long as asked, whatever interrupts it.
        Kind::Nanosleep => {
            while !stopped() {
                let began = Instant::now();
                thread::sleep(Duration::from_millis(7));
                assert!(began.elapsed() >= Duration::from_millis(7));
            }
        }
        // Restarted by the kernel: never EINTR.
        Kind::Read => {
            let mut bytes = [0u8; 3];
            // SAFETY: a live buffer.
            let got = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), 3) };
            assert_eq!((got, &bytes), (3, b"end"), "{}", std::io::Error::last_os_error());
        }
        Kind::Poll => loop {
            let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one live pollfd.
            match unsafe { libc::poll(&raw mut poll, 1, -1) } {
                1 => break,
                answer => assert_eq!((answer, errno()), (-1, libc::EINTR)),
            }
        },
        Kind::SigWait => sig_wait(),
        Kind::Spin => {
            let mut value = 1.0f64;
            while !stopped() {
                value = (value * 1.000_001).sqrt() + 0.5;
                assert!(value.is_finite());
                ends.turns.fetch_add(1, SeqCst);
                if ends.turns.load(SeqCst).is_multiple_of(1000) {
                    thread::yield_now();
                }
            }
        }
        Kind::AllBlocked => all_blocked(ends),
        Kind::Allocate => {
            while !stopped() {
                let text = vec![7u8; 100_000];
                assert!(text.iter().all(|byte| *byte == 7));
                ends.turns.fetch_add(1, SeqCst);
                thread::sleep(Duration::from_millis(3));
            }
        }
        Kind::Locks => {
            while !stopped() {
                drop(ends.flag.lock().unwrap());
                thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn epoll(fd: i32) {
    // SAFETY: live arguments.
    unsafe {
        let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 17 };
        assert_eq!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event), 0);
        loop {
            let mut event: libc::epoll_event = zeroed();
            match libc::epoll_wait(epoll, &raw mut event, 1, -1) {
                1 => {
                    assert_eq!({ event.u64 }, 17);
                    break;
                }
                answer => assert_eq!((answer, errno()), (-1, libc::EINTR)),
            }
        }
        libc::close(epoll);
    }
}

fn sig_wait() {
    // SAFETY: live sets.
    unsafe {
        let (mut set, mut old): (libc::sigset_t, libc::sigset_t) = (zeroed(), zeroed());
        libc::sigaddset(&raw mut set, libc::SIGUSR2);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut old);
        let mut signal = 0;
        assert_eq!(libc::sigwait(&raw const set, &raw mut signal), 0);
        assert_eq!(signal, libc::SIGUSR2);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, null_mut());
    }
}

/// All 64 signals, which libc would not do.
pub(crate) fn raw_mask(mask: u64) -> u64 {
    let mut old = 0u64;
    // SAFETY: live words of 8 bytes.
    unsafe {
        let (number, how) = (libc::SYS_rt_sigprocmask, libc::SIG_SETMASK);
        assert_eq!(libc::syscall(number, how, &raw const mask, &raw mut old, 8), 0);
    }
    old
}

fn all_blocked(ends: &Ends) {
    let old = raw_mask(!0);
    while !ends.stop.load(SeqCst) {
        thread::sleep(Duration::from_millis(7));
        // SIGKILL and SIGSTOP cannot be.
        let now = raw_mask(!0);
        assert_eq!(now | 1 << 8 | 1 << 18, !0, "{now:x}");
    }
    raw_mask(old);
}

pub(crate) fn set_name(name: &str) {
    let name = CString::new(name).unwrap();
    // SAFETY: a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}
