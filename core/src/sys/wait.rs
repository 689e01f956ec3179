//! Children that have ended, and waiting for something to happen: waitid(2), signalfd(2), poll(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// A child that has ended and is reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its pid.
    pub pid: u32,
    /// Its status as wait(2) tells it.
    pub status: i32,
}

/// Reaps one ended child, of any exit signal, if there is one.
///
/// # Errors
/// waitid(2)'s but ECHILD, which is `None`.
pub fn reap_any() -> io::Result<Option<Ended>> {
    wait(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG)
}

/// Whether `pid` is a child that this process has not reaped: its number then means no other process.
pub fn is_child(pid: u32) -> bool {
    wait(libc::P_PID, pid, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).is_ok()
}

fn wait(kind: libc::idtype_t, id: u32, options: i32) -> io::Result<Option<Ended>> {
    // SAFETY: siginfo_t is plain data for which all zero is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is written by the kernel during the call alone.
    if unsafe { libc::waitid(kind, id, &raw mut info, options | libc::__WALL) } != 0 {
        let error = io::Error::last_os_error();
        let none = kind == libc::P_ALL && error.raw_os_error() == Some(libc::ECHILD);
        return if none { Ok(None) } else { Err(error) };
    }
    // SAFETY: the fields of a SIGCHLD siginfo; zero where no child was ready.
    let (pid, value) = unsafe { (info.si_pid(), info.si_status()) };
    let status = match info.si_code {
        libc::CLD_EXITED => value << 8,
        libc::CLD_DUMPED => value | 0x80,
        _ => value,
    };
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0).map(|pid| Ended { pid, status }))
}

/// Blocks SIGCHLD and gives a descriptor that becomes readable in its place.
///
/// # Errors
/// signalfd(2)'s.
pub fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set lives through the calls; signalfd's answer is checked before it is owned.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, or the end of the stream.
    Read,
    /// Room.
    Write,
    /// Either.
    Both,
}

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Bytes, or the end of the stream.
    pub read: bool,
    /// Room.
    pub write: bool,
}

/// Waits until one of `fds` is ready as wanted or has lost its peer.
///
/// # Errors
/// poll(2)'s but EINTR, which is as if the time were over.
pub fn ready<const N: usize>(
    fds: [(BorrowedFd<'_>, Interest); N],
    timeout: Option<Duration>,
) -> io::Result<[Readiness; N]> {
    let mut polled = fds.map(|(fd, interest)| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: match interest {
            Interest::Read => libc::POLLIN,
            Interest::Write => libc::POLLOUT,
            Interest::Both => libc::POLLIN | libc::POLLOUT,
        },
        revents: 0,
    });
    let timeout_ms = timeout.map_or(-1, |t| i32::try_from(t.as_millis()).unwrap_or(i32::MAX));
    // SAFETY: N entries, N a handful.
    if unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, timeout_ms) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        polled.iter_mut().for_each(|entry| entry.revents = 0);
    }
    Ok(polled.map(|entry| Readiness {
        read: entry.revents & !libc::POLLOUT != 0,
        write: entry.revents & libc::POLLOUT != 0,
    }))
}
