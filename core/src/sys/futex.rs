//! futex(2), raw: for code that may be in a signal handler, or in a process without a libc of its own.

use std::ptr;
use std::sync::atomic::AtomicU32;

use super::rawcall::rawcall;

/// Who may stand at a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Threads of this process.
    Process,
    /// Whoever has the memory mapped.
    Shared,
}

impl Reach {
    fn flags(self) -> i32 {
        match self {
            Reach::Process => libc::FUTEX_PRIVATE_FLAG,
            Reach::Shared => 0,
        }
    }
}

/// Waits while `word` is `value`, for at most `nanoseconds`.
pub(crate) fn wait(word: &AtomicU32, value: u32, nanoseconds: Option<u64>, reach: Reach) {
    let time = nanoseconds.map(|ns| [ns / 1_000_000_000, ns % 1_000_000_000]);
    let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    let how = libc::FUTEX_WAIT | reach.flags();
    // SAFETY: all pointers live until the call returns.
    unsafe { rawcall!(libc::SYS_futex, word.as_ptr(), how, value, time) };
}

/// Wakes all.
pub(crate) fn wake(word: &AtomicU32, reach: Reach) {
    let how = libc::FUTEX_WAKE | reach.flags();
    // SAFETY: `word` lives.
    unsafe { rawcall!(libc::SYS_futex, word.as_ptr(), how, i32::MAX) };
}
