//! Tells a parent that what it could change by going on has been looked at.
//!
//! ```text
//! parent   map > fork > wait ............... goes on
//! seed                  look at files > seen
//! ```
//!
//! Counters, queues and offsets belong to both processes after a fork: a seed that carries files reads them
//! before its parent goes on.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::descriptor::SeedRange;
use crate::sys::rawcall::rawcall;

const PAGE: usize = 4096;
/// A seed that has died is noticed by then; a living one takes some tenths of a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);

/// A word that parent and seed share, on a page of its own.
#[derive(Debug)]
pub(super) struct Seen(NonNull<AtomicU32>);

// SAFETY: an atomic in memory that this value owns.
unsafe impl Send for Seen {}
// SAFETY: as above; what is shared is the atomic.
unsafe impl Sync for Seen {}

impl Seen {
    pub(super) fn new() -> io::Result<Self> {
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever the kernel likes.
        let page = unsafe { libc::mmap(ptr::null_mut(), PAGE, prot, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Seen(NonNull::new(page.cast()).ok_or(io::ErrorKind::OutOfMemory)?))
    }

    /// Memory that no child has.
    pub(super) fn range(&self) -> SeedRange {
        let start = self.0.as_ptr() as usize as u64;
        SeedRange::new(start, start + PAGE as u64)
    }

    /// Waits, in the parent.
    pub(super) fn wait(&self) {
        let until = Instant::now() + PATIENCE;
        // SAFETY: the page is zeros or what `tell` has stored, and mapped as long as this lives.
        let word = unsafe { self.0.as_ref() };
        while word.load(SeqCst) == 0 && Instant::now() < until {
            let tick = libc::timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            // SAFETY: a word and a time that live through the call.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    self.0.as_ptr(),
                    libc::FUTEX_WAIT,
                    0,
                    &raw const tick,
                    0,
                    0,
                );
            }
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        // SAFETY: ours, and nobody refers to it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

/// In the seed, with raw calls: the parent of the word in this range may go on.
///
/// # Safety
/// The range is empty, or a [`Seen`]'s, mapped here.
pub(super) unsafe fn tell(range: SeedRange) {
    if range.is_empty() {
        return;
    }
    let word = usize::try_from(range.start.0).unwrap_or(0) as *const AtomicU32;
    // SAFETY: the caller's.
    unsafe {
        (*word).store(1, SeqCst);
        rawcall!(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_goes_on_when_told() {
        let seen = Seen::new().unwrap();
        let range = seen.range();
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| seen.wait());
            // SAFETY: it lives to the end of the scope.
            unsafe { tell(range) };
        });
        assert!(begun.elapsed() < PATIENCE / 2);
    }
}
