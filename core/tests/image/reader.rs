//! Processes that map an image: never threads of the process that answers their misses.

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use mitosis::descriptor::SeedAddr;
use mitosis::image::{Image, ImageLayout};

/// The image's descriptor in a reader.
pub(crate) const IMAGE_FD: RawFd = 400;

/// A forked reader; killed when dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) pid: i32,
    ended: bool,
}

/// How a reader ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Exited(i32),
    Signalled(i32),
    StillRunning,
}

/// A reader's view of one address range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    base: *mut u8,
    len: usize,
}

impl View {
    /// Maps `len` bytes at `addr`.
    pub(crate) fn new(layout: &ImageLayout, addr: SeedAddr, len: usize) -> View {
        let Some(offset) = layout.offset_of(addr) else { exit(90) };
        // SAFETY: a new private mapping at a place of the kernel's choice.
        let base = unsafe {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            let null = std::ptr::null_mut();
            libc::mmap(null, len, prot, libc::MAP_PRIVATE, IMAGE_FD, offset.0 as i64)
        };
        if base == libc::MAP_FAILED {
            exit(91);
        }
        View { base: base.cast(), len }
    }

    /// MADV_RANDOM: each miss is one page.
    pub(crate) fn random(self) -> View {
        // SAFETY: `base` and `len` are a whole mapping; the advice changes no bytes.
        unsafe { libc::madvise(self.base.cast(), self.len, libc::MADV_RANDOM) };
        self
    }

    /// The byte at `at`.
    pub(crate) fn byte(&self, at: usize) -> u8 {
        assert!(at < self.len);
        // SAFETY: inside the mapping; volatile, so that each call touches it.
        unsafe { self.base.add(at).read_volatile() }
    }

    /// The bytes from `at` on.
    pub(crate) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        assert!(at + len <= self.len);
        // SAFETY: inside the mapping, private, and nobody in this process writes to it.
        unsafe { std::slice::from_raw_parts(self.base.add(at), len) }
    }
}

/// Ends a reader without running anything of the parent's.
pub(crate) fn exit(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

/// Forks a process that runs `work` and exits with what it returns. It inherits the image's file and
/// nothing else (a copy of the device would keep the connection alive). It must not allocate: other
/// threads may have held the allocator's lock when it was forked.
pub(crate) fn fork(image: &Image, work: impl FnOnce() -> i32) -> Reader {
    fork_with(image.file().as_raw_fd(), work)
}

/// As [`fork`], with any file in the image's place.
pub(crate) fn fork_with(file: RawFd, work: impl FnOnce() -> i32) -> Reader {
    // SAFETY: the child calls nothing but system calls and `work`, which the caller vouches for.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: plain system calls on the child's own descriptors and limits.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::dup2(file, IMAGE_FD);
            libc::close_range(3, 399, 0);
            libc::close_range(401, !0, 0);
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        }
        exit(work());
    }
    Reader { pid, ended: false }
}

impl Reader {
    /// Where it stands, for whoever reads of a wait that was too long.
    fn tell_where(&self) {
        for name in ["status", "wchan", "stack", "syscall"] {
            let text = std::fs::read_to_string(format!("/proc/{}/{name}", self.pid));
            println!("{name} of {}: {}", self.pid, text.unwrap_or_default());
        }
    }

    /// Waits for its end, but not longer than `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> End {
        let until = Instant::now() + limit;
        loop {
            let mut status = 0;
            // SAFETY: `status` lives through the call; the process is this one's own child.
            let pid = unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) };
            if pid == self.pid {
                self.ended = true;
                return match libc::WIFSIGNALED(status) {
                    true => End::Signalled(libc::WTERMSIG(status)),
                    false => End::Exited(libc::WEXITSTATUS(status)),
                };
            }
            if Instant::now() > until {
                self.tell_where();
                return End::StillRunning;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    pub(crate) fn kill(&self, signal: i32) {
        // SAFETY: the process is this one's own child and has not been reaped.
        unsafe { libc::kill(self.pid, signal) };
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.ended {
            self.kill(libc::SIGKILL);
            self.wait(Duration::from_secs(2));
        }
    }
}

/// Small, repeatable random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A number that a reader and the test see alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag(*mut u32);

impl View {
    /// A new shared flag, 0.
    pub(crate) fn shared() -> Flag {
        // SAFETY: a new mapping of one page, at a place of the kernel's choice.
        let base = unsafe {
            let (prot, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
            libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0)
        };
        assert_ne!(base, libc::MAP_FAILED);
        Flag(base.cast())
    }
}

impl Flag {
    fn atom(&self) -> &std::sync::atomic::AtomicU32 {
        // SAFETY: aligned, inside a mapping that is never unmapped, and only used through this.
        unsafe { std::sync::atomic::AtomicU32::from_ptr(self.0) }
    }

    pub(crate) fn raise(&self, to: u32) {
        self.atom().store(to, std::sync::atomic::Ordering::SeqCst);
    }

    pub(crate) fn await_at_least(&self, wanted: u32) {
        while self.atom().load(std::sync::atomic::Ordering::SeqCst) < wanted {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
