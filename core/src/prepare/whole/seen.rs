//! The seed tells the parent that it has looked at the open files.
//!
//! Their state (what is in a pipe, an eventfd's count) is the parent's as well: it changes as soon as the
//! parent's threads go on. So the parent waits for this word, in a page that both share.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::park::now;
use crate::descriptor::SeedRange;
use crate::sys::futex::{self, Reach};
use crate::sys::rawcall::rawcall;

const PAGE: usize = 4096;
/// Between two looks whether the seed is still there.
const LOOK_NS: u64 = 5_000_000;
/// A seed looks at a thousand files within some 10 ms.
const LONGEST_NS: u64 = 1_000_000_000;

/// The page, in the parent.
#[derive(Debug)]
pub(in crate::prepare) struct Seen(NonNull<AtomicU32>);

// SAFETY: it is a page of plain memory, owned by whoever holds the value.
unsafe impl Send for Seen {}

impl Seen {
    pub(in crate::prepare) fn new() -> io::Result<Self> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping, wherever the kernel likes.
        let at =
            unsafe { libc::mmap(ptr::null_mut(), PAGE, prot, flags | libc::MAP_ANONYMOUS, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast()).map(Seen).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// For the seed.
    pub(in crate::prepare) fn address(&self) -> u64 {
        self.0.as_ptr() as usize as u64
    }

    /// Its page.
    pub(in crate::prepare) fn range(&self) -> SeedRange {
        SeedRange::new(self.address(), self.address() + PAGE as u64)
    }

    /// Until seed `pid` has looked, has ended, or takes far too long. Allocates nothing.
    pub(in crate::prepare) fn wait(&self, pid: i32) {
        // SAFETY: the page is mapped for as long as `self` lives.
        let word = unsafe { self.0.as_ref() };
        let deadline = now() + LONGEST_NS;
        while word.load(SeqCst) == 0 && now() < deadline && !has_ended(pid) {
            futex::wait(word, 0, Some(LOOK_NS), Reach::Shared);
        }
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        // SAFETY: ours, and the seed has a mapping of its own.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

/// In the seed: the parent may go on.
///
/// # Safety
/// `address` is 0 or [`Seen::address`], mapped.
pub(in crate::prepare) unsafe fn tell(address: u64) {
    let Ok(address @ 1..) = usize::try_from(address) else { return };
    // SAFETY: the caller's.
    unsafe {
        let word = &*(address as *const AtomicU32);
        word.store(1, SeqCst);
        futex::wake(word, Reach::Shared);
    }
}

/// Without taking its status: reaping is `reap.rs`'s.
fn has_ended(pid: i32) -> bool {
    const P_PID: i32 = 1;
    let mut info = [0i32; 32];
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: a siginfo_t is 128 bytes.
    let answer = unsafe { rawcall!(libc::SYS_waitid, P_PID, pid, info.as_mut_ptr(), how, 0) };
    // si_signo is 0 while there is nothing to tell.
    answer != 0 || info[0] != 0
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn child(body: impl FnOnce()) -> i32 {
        // SAFETY: the child makes raw calls and ends.
        unsafe {
            let pid = rawcall!(libc::SYS_clone, 0, 0, 0, 0, 0);
            if pid == 0 {
                body();
                rawcall!(libc::SYS_exit_group, 0);
            }
            i32::try_from(pid).unwrap()
        }
    }

    #[test]
    fn the_word_is_told_and_an_end_is_seen() {
        let seen = Seen::new().unwrap();
        let time = [0, 3_000_000u64];
        let began = Instant::now();
        // SAFETY: raw calls with live arguments.
        let pid = child(|| unsafe {
            rawcall!(libc::SYS_nanosleep, time.as_ptr(), 0);
            tell(seen.address());
            loop {
                rawcall!(libc::SYS_pause);
            }
        });
        seen.wait(pid);
        assert!(began.elapsed() >= Duration::from_millis(3));
        // SAFETY: our child.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, ptr::null_mut(), libc::__WALL);
        }
        let silent = Seen::new().unwrap();
        let pid = child(|| {});
        let began = Instant::now();
        silent.wait(pid);
        assert!(began.elapsed() < Duration::from_millis(500));
        // SAFETY: it is still there to be reaped.
        assert_eq!(unsafe { libc::waitpid(pid, ptr::null_mut(), libc::__WALL) }, pid);
    }
}
