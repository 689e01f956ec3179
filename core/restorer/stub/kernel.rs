//! The system calls of the stub, with names.
//!
//! They are safe functions although they change memory: no Rust object lies in memory that they are given.
//! The stub's own are its stack frame and the table, and an address comes either from the program, which
//! asked for the change, or from the kernel, which has just mapped it.

use crate::arch;

/// madvise(2)'s number, as at its call sites.
pub const MADVISE: u32 = 28;

pub const PAGE: u64 = 4096;

pub const EPERM: i64 = -1;
pub const EINTR: i64 = -4;
pub const ENOMEM: i64 = -12;
pub const EFAULT: i64 = -14;
pub const EINVAL: i64 = -22;
pub const ENOTTY: i64 = -25;

pub const PROT_READ_WRITE: u64 = 3;
/// Private anonymous memory anywhere.
pub const ANYWHERE: u64 = 0x22;
/// Private anonymous memory in place of whatever is there.
pub const OVER: u64 = 0x32;
/// Private anonymous memory where nothing is.
pub const IN_HOLE: u64 = 0x10_0022;
/// Beside the others: no promise that memory can be had.
pub const NO_RESERVE: u64 = 0x4000;

pub const MAYMOVE: u64 = 1;
pub const FIXED: u64 = 2;
pub const DONTUNMAP: u64 = 4;

const O_CLOEXEC: u64 = 0o2_000_000;
const O_RDWR: u64 = 2;

/// Whether a result is `-errno`.
pub fn failed(result: i64) -> bool {
    (-4095..0).contains(&result)
}

pub fn mmap(addr: u64, len: u64, prot: u64, flags: u64) -> i64 {
    call(9, [addr, len, prot, flags, u64::MAX, 0])
}

pub fn mprotect(addr: u64, len: u64, prot: u64) -> i64 {
    call(10, [addr, len, prot, 0, 0, 0])
}

pub fn munmap(addr: u64, len: u64) -> i64 {
    call(11, [addr, len, 0, 0, 0, 0])
}

pub fn mremap(addr: u64, old_len: u64, new_len: u64, flags: u64, target: u64) -> i64 {
    call(25, [addr, old_len, new_len, flags, target, 0])
}

pub fn madvise(addr: u64, len: u64, advice: u32) -> i64 {
    call(MADVISE.into(), [addr, len, advice.into(), 0, 0, 0])
}

/// mlock2(2) as `MLOCK_ONFAULT` or not.
pub fn mlock(addr: u64, len: u64, on_fault: bool) -> i64 {
    call(325, [addr, len, on_fault.into(), 0, 0, 0])
}

pub fn lseek_to_start(fd: u64) {
    call(8, [fd, 0, 0, 0, 0, 0]);
}

pub fn ioctl(fd: u64, request: u64, argument: u64) -> i64 {
    call(16, [fd, request, argument, 0, 0, 0])
}

pub fn read(fd: u64, into: u64, len: u64) -> i64 {
    call(0, [fd, into, len, 0, 0, 0])
}

pub fn pread(fd: u64, into: u64, len: u64, offset: u64) -> i64 {
    call(17, [fd, into, len, offset, 0, 0])
}

pub fn pwrite(fd: u64, from: u64, len: u64, offset: u64) -> i64 {
    call(18, [fd, from, len, offset, 0, 0])
}

pub fn close(fd: u64) {
    call(3, [fd, 0, 0, 0, 0, 0]);
}

/// This thread's view of the process: `/proc/self` shows nothing once the leader has ended.
pub fn open_maps() -> Result<u64, i64> {
    open(b"/proc/thread-self/maps\0", 0)
}

/// Reads and writes memory whatever its protection.
pub fn open_memory() -> Result<u64, i64> {
    open(b"/proc/thread-self/mem\0", O_RDWR)
}

/// Blocks every signal; the mask that was.
pub fn block_signals() -> u64 {
    let all = u64::MAX;
    let mut before = 0;
    const SIG_BLOCK: u64 = 0;
    call(14, [SIG_BLOCK, (&raw const all) as u64, (&raw mut before) as u64, 8, 0, 0]);
    before
}

pub fn set_signal_mask(mask: u64) {
    const SIG_SETMASK: u64 = 2;
    call(14, [SIG_SETMASK, (&raw const mask) as u64, 0, 8, 0, 0]);
}

fn open(path: &[u8], flags: u64) -> Result<u64, i64> {
    match call(2, [path.as_ptr() as u64, flags | O_CLOEXEC, 0, 0, 0, 0]) {
        error if error < 0 => Err(error),
        fd => Ok(fd as u64),
    }
}

#[inline(always)]
fn call(number: u64, args: [u64; 6]) -> i64 {
    // SAFETY: see the module's comment.
    unsafe { arch::syscall(number, args) }
}
