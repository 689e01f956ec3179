//! What bounds a hook: a thread that sleeps, and acts if nobody has ended it in time.
//!
//! It is there only while a hook with a limit runs, blocks all signals, so that it takes none that is the
//! program's, and is gone before anything is forked.

use std::io;
use std::mem::MaybeUninit;
use std::process;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::wake::generation;

/// How long a hook may run unless told otherwise: reconnecting to what is slow takes seconds, and a
/// supervisor that waits for a child gives it up after a minute or so.
pub const HOOK_LIMIT: Duration = Duration::from_secs(60);

/// Exit status of a child that cannot go on (EX_SOFTWARE of sysexits.h).
pub const STATUS_HALF_CHILD: i32 = 70;

/// glibc wants room for each thread's locals beside it.
const STACK_BYTES: usize = 256 << 10;

/// Acts after a time, unless it is dropped before.
#[derive(Debug)]
pub struct Watchdog {
    over: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
    /// A fork within the hook copies this object, and not the thread.
    process: (u32, u64),
}

impl Watchdog {
    /// Calls `expired` after `limit`, and again after as long as it answers.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(
        limit: Duration,
        mut expired: impl FnMut() -> Option<Duration> + Send + 'static,
    ) -> io::Result<Self> {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let watched = over.clone();
        let wait = move || {
            let mut next = Some(limit);
            while let Some(limit) = next {
                if ended_within(&watched, limit) {
                    return;
                }
                next = expired();
            }
        };
        let name = "mitosis-hooks".to_owned();
        let thread = unsignalled(|| Builder::new().name(name).stack_size(STACK_BYTES).spawn(wait))?;
        Ok(Watchdog { over, thread: Some(thread), process: (process::id(), generation()) })
    }

    /// In a child: after `limit` writes `text` to standard error and ends the process with
    /// [`STATUS_HALF_CHILD`], whatever its other threads do.
    ///
    /// # Errors
    /// As [`Watchdog::start`].
    pub fn ending_this_child(limit: Duration, text: String) -> io::Result<Self> {
        Watchdog::start(limit, move || {
            // SAFETY: a live buffer; neither call takes a lock that the hook may hold.
            unsafe {
                libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
                libc::_exit(STATUS_HALF_CHILD)
            }
        })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let thread = self.thread.take();
        if self.process != (process::id(), generation()) {
            // Not here: nobody could be joined.
            std::mem::forget(thread);
            return;
        }
        *self.over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.1.notify_one();
        // What it ran may have panicked, which it has said.
        let _ = thread.map(JoinHandle::join);
    }
}

fn ended_within(over: &(Mutex<bool>, Condvar), limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let mut ended = over.0.lock().unwrap_or_else(PoisonError::into_inner);
    while !*ended {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let waited = over.1.wait_timeout(ended, left);
        ended = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

/// Runs `work` with all signals blocked, as threads that it starts have them from then on.
fn unsignalled<T>(work: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both are places for a set; sigfillset initialises the one that is read.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
    }
    let done = work();
    // SAFETY: the call above has told the old set.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), std::ptr::null_mut()) };
    done
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn who_ends_in_time_is_not_disturbed() {
        let began = Instant::now();
        let dog = Watchdog::start(LONG, || panic!("a minute is not over")).unwrap();
        drop(dog);
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn it_acts_as_often_as_it_is_told_to() {
        let (sender, acted) = channel();
        let mut left = 3;
        let dog = Watchdog::start(Duration::from_millis(1), move || {
            left -= 1;
            sender.send(left).unwrap();
            (left > 0).then_some(Duration::from_millis(1))
        });
        let _dog = dog.unwrap();
        assert_eq!(acted.iter().collect::<Vec<_>>(), [2, 1, 0]);
    }

    #[test]
    fn its_thread_takes_no_signal() {
        let (sender, told) = channel();
        let _dog = Watchdog::start(Duration::ZERO, move || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t"));
            sender.send(u64::from_str_radix(blocked.unwrap(), 16).unwrap()).unwrap();
            None
        });
        // But those that cannot be blocked, and glibc's own two.
        let open = [libc::SIGKILL, libc::SIGSTOP, 32, 33].map(|signal| 1u64 << (signal - 1));
        let blocked = told.recv().unwrap();
        assert_eq!(blocked | open.iter().sum::<u64>(), !0);
    }
}
