//! Descriptors at exact numbers, for tails that carry open files.
//!
//! Whatever opens one gets the lowest free number; it is copied to the one that is wanted. All numbers that are
//! wanted are taken before (`op::RESERVE`), so that none is handed out.

use core::mem::MaybeUninit;

use crate::abi::RawOp;
use crate::{arch, syscall};

const SOCKETPAIR: u32 = 53;
/// Its process is this one.
const PIDFD_OPEN: u32 = 434;
const EBADF: i64 = 9;
/// IN_DELETE_SELF, IN_MASK_CREATE: what is watched already is an error.
const WATCH_QUIETLY: u64 = 0x400 | 0x1000_0000;
/// Of a good many events, none of which has a name.
const EVENT_BYTES: usize = 1024;

/// `op::OPEN`: a system call that answers a descriptor, which goes to a number.
///
/// # Safety
/// As the system call.
pub unsafe fn open(op: &RawOp) -> Result<(), i64> {
    let [mut a, b, c, d, e, number] = op.args;
    if op.number == PIDFD_OPEN {
        a = syscall::process_id();
    }
    // SAFETY: the caller's promise.
    match unsafe { arch::syscall(u64::from(op.number), [a, b, c, d, e, 0]) } {
        fd @ 0.. => place(fd as u64, number, op.expect),
        error => Err(error),
    }
}

/// `op::PAIR`: pipe2(2) or socketpair(2), whose two ends go to numbers.
///
/// # Safety
/// As the system call.
pub unsafe fn pair(op: &RawOp) -> Result<(), i64> {
    let [a, b, c, _, first, second] = op.args;
    let mut ends = [-1i32; 2];
    let into = (&raw mut ends).addr() as u64;
    let args = match op.number {
        SOCKETPAIR => [a, b, c, into, 0, 0],
        _ => [into, b, 0, 0, 0, 0],
    };
    // SAFETY: the caller's promise; two ints are written to live ones.
    let answer = unsafe { arch::syscall(u64::from(op.number), args) };
    if answer < 0 {
        return Err(answer);
    }
    place(ends[0] as u64, first, op.expect & u64::from(u32::MAX))?;
    place(ends[1] as u64, second, op.expect >> 32)
}

/// `op::WATCH`.
///
/// # Safety
/// Paths lie where the op says.
pub unsafe fn watch(op: &RawOp) -> Result<(), i64> {
    let [inotify, path, between, spare, ..] = op.args;
    for _ in 0..between {
        pass_over(inotify, spare)?;
    }
    if syscall::watch(inotify, path, WATCH_QUIETLY) < 0 {
        pass_over(inotify, spare)?;
    }
    // Nobody looks at them.
    let mut events = MaybeUninit::<[u8; EVENT_BYTES]>::uninit();
    while syscall::read(inotify, &mut events) > 0 {}
    Ok(())
}

/// A watch that is let go: its number is not given again.
fn pass_over(inotify: u64, spare: u64) -> Result<(), i64> {
    match syscall::watch(inotify, spare, WATCH_QUIETLY) {
        number @ 0.. => {
            syscall::let_go_of_watch(inotify, number as u64);
            Ok(())
        }
        error => Err(error),
    }
}

/// Moves a descriptor to a number; `flags` are dup3(2)'s.
fn place(fd: u64, number: u64, flags: u64) -> Result<(), i64> {
    if fd == number {
        // The number was not taken before.
        return Err(-EBADF);
    }
    let answer = syscall::dup3(fd, number, flags);
    syscall::close(fd);
    if answer < 0 { Err(answer) } else { Ok(()) }
}
