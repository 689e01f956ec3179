//! Descriptors of processes: pidfd_open(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::queued_signal::QueuedSignal;

/// A process, for as long as this is held: its pid may go to another one, this never does. Readable once
/// the process has ended.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Process `pid`.
    ///
    /// # Errors
    /// pidfd_open(2)'s: ESRCH when there is none.
    pub fn open(pid: u32) -> io::Result<PidFd> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        match RawFd::try_from(fd) {
            // SAFETY: the kernel has just opened it for us.
            Ok(fd) if fd >= 0 => Ok(PidFd(unsafe { OwnedFd::from_raw_fd(fd) })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// pidfd_send_signal(2)'s: ESRCH when it has been reaped.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        self.send(signal, std::ptr::null())
    }

    /// Sends it a signal with a value, as sigqueue(3) does.
    ///
    /// # Errors
    /// As [`Self::signal`], and EAGAIN where its user has too many signals pending.
    pub fn queue(&self, signal: i32, value: u64) -> io::Result<()> {
        let sender = i32::try_from(std::process::id()).unwrap_or(0);
        let info = QueuedSignal::new(signal, value).by(sender, super::user_id());
        self.send(signal, &raw const info)
    }

    fn send(&self, signal: i32, info: *const QueuedSignal) -> io::Result<()> {
        let fd = self.0.as_raw_fd();
        // SAFETY: null is allowed, and else it is a whole siginfo that lives through the call.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, info, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
