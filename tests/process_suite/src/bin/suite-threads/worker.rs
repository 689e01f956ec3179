//! Threads of a case, and how they are told to go on.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mitosis_process_suite::fail;

/// Nothing here takes as long.
const LIMIT: Duration = Duration::from_secs(15);

/// A thread that this program has started.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) tid: i32,
    pub(crate) pthread: libc::pthread_t,
    handle: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn start(body: impl FnOnce() + Send + 'static) -> Worker {
        use std::os::unix::thread::JoinHandleExt;
        let tid = Arc::new(AtomicI32::new(0));
        let told = Arc::clone(&tid);
        let handle = std::thread::spawn(move || {
            told.store(own_tid(), SeqCst);
            drop(told);
            body();
        });
        until("a thread has started", || tid.load(SeqCst) != 0);
        Worker { tid: tid.load(SeqCst), pthread: handle.as_pthread_t(), handle }
    }

    /// Waits until the thread sleeps in this system call. Before the crossing alone: afterwards /proc may
    /// count threads otherwise.
    pub(crate) fn stands_in(&self, call: libc::c_long) {
        let path = format!("/proc/self/task/{}/syscall", self.tid);
        until(&format!("a thread stands in system call {call}"), || {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            text.split_whitespace().next().and_then(|number| number.parse().ok()) == Some(call)
        });
    }

    /// Its end.
    pub(crate) fn join(self) {
        if self.handle.join().is_err() {
            fail(&format!("thread {} panicked", self.tid));
        }
    }
}

/// What threads wait for, without any lock of a library's.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicU32);

impl Flag {
    pub(crate) const fn new() -> Flag {
        Flag(AtomicU32::new(0))
    }

    pub(crate) fn raise(&self) {
        self.0.store(1, SeqCst);
        futex(&self.0, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX as u32, None);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(SeqCst) != 0
    }

    pub(crate) fn wait(&self) {
        while !self.is_raised() {
            futex(&self.0, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, 0, None);
        }
    }
}

/// futex(2): what it returns, or the negative errno.
pub(crate) fn futex(
    word: &AtomicU32,
    operation: i32,
    value: u32,
    time: Option<libc::timespec>,
) -> i64 {
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    let none = ptr::null::<u32>();
    // SAFETY: the word and the time live through the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            operation,
            value,
            time,
            none,
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    };
    if done < 0 { -i64::from(errno()) } else { done }
}

pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

pub(crate) fn own_tid() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// Waits until it holds.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > LIMIT {
            fail(&format!("not within {LIMIT:?}: {what}"));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// A moment that lies so far ahead on a clock.
pub(crate) fn from_now(clock: libc::clockid_t, ahead: Duration) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    let then = Duration::new(now.tv_sec as u64, now.tv_nsec as u32) + ahead;
    span(then)
}

pub(crate) fn span(time: Duration) -> libc::timespec {
    libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) }
}
