//! One prepare at a time in a process.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// A prepare takes milliseconds; one that takes this long hangs in a fork handler.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_micros(200);

/// Not a mutex: a fork by another thread copies it locked, and its child must be able to open it.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The right to prepare; given back when dropped, in a child as in the parent.
#[derive(Debug)]
pub(super) struct Turn(());

impl Turn {
    /// Waits for it; `None` after [`LONGEST_WAIT`].
    pub(super) fn take() -> Option<Self> {
        let deadline = Instant::now() + LONGEST_WAIT;
        while TAKEN.swap(true, SeqCst) {
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(PAUSE);
        }
        Some(Turn(()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.store(false, SeqCst);
    }
}

/// In the child of a fork by another thread: whoever had it is not here.
pub(super) fn reset() {
    TAKEN.store(false, SeqCst);
}
