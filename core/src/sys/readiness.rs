//! Waiting for descriptors: poll(2), eventfd(2), epoll(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Waits until `fd` can be read (or has ended); false when `timeout` has passed first.
pub(crate) fn readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left_ms = match deadline {
            None => -1,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
            }
        };
        let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live entry.
        match unsafe { libc::poll(&raw mut entry, 1, left_ms) } {
            0 if deadline.is_some_and(|deadline| Instant::now() < deadline) => {}
            0 => return Ok(false),
            1.. => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// A flag that other threads can wait for.
#[derive(Debug)]
pub(crate) struct Flag(OwnedFd);

impl Flag {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: plain numbers; the descriptor is new and ours.
        unsafe { new_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }.map(Flag)
    }

    /// Makes it readable for good.
    pub(crate) fn raise(&self) {
        let one = 1u64;
        // SAFETY: eight live bytes. It fails only when the counter is full, that is, raised.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }
}

impl AsFd for Flag {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A descriptor that is readable while one of `fds` is.
pub(crate) fn any_of(fds: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the descriptor is new and ours.
    let set = unsafe { new_fd(libc::epoll_create1(libc::EPOLL_CLOEXEC)) }?;
    for fd in fds {
        let events = u32::try_from(libc::EPOLLIN | libc::EPOLLRDHUP).unwrap_or(0);
        let mut event = libc::epoll_event { events, u64: 0 };
        // SAFETY: both descriptors are open and the event lives until the call returns.
        let answer = unsafe {
            let (set, fd) = (set.as_raw_fd(), fd.as_raw_fd());
            libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event)
        };
        if answer != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

/// Another descriptor of what is open at `number`, closed on exec.
pub(crate) fn duplicate(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers, one that is not open fails; the descriptor is new and ours.
    unsafe { new_fd(libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3)) }
}

/// # Safety
/// `fd` is new, or negative with errno set.
unsafe fn new_fd(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: the caller's.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_open_is_not_duplicated() {
        let flag = Flag::new().unwrap();
        let copy = duplicate(flag.as_fd().as_raw_fd()).unwrap();
        flag.raise();
        assert!(readable(copy.as_fd(), None).unwrap());
        for number in [-1, i32::MAX] {
            assert_eq!(duplicate(number).unwrap_err().raw_os_error(), Some(libc::EBADF));
        }
    }

    #[test]
    fn a_raised_flag_is_seen_through_a_set() {
        let (one, other) = (Flag::new().unwrap(), Flag::new().unwrap());
        let set = any_of(&[one.as_fd(), other.as_fd()]).unwrap();
        assert!(!readable(set.as_fd(), Some(Duration::from_millis(1))).unwrap());
        other.raise();
        assert!(readable(set.as_fd(), None).unwrap());
        assert!(readable(set.as_fd(), Some(Duration::ZERO)).unwrap());
    }
}
