//! poll(2).

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Waits until one of `fds` is readable or at its end; true if one is, false at the timeout.
///
/// # Errors
/// poll(2)'s; interruptions are waited over.
pub fn readable(fds: &[RawFd], timeout: Option<Duration>) -> io::Result<bool> {
    let polled = |fd: &RawFd| libc::pollfd { fd: *fd, events: libc::POLLIN, revents: 0 };
    ready(&mut fds.iter().map(polled).collect::<Vec<_>>(), timeout)
}

fn ready(polled: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<bool> {
    let timeout_ms =
        timeout.map_or(-1, |timeout| i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX));
    let count = libc::nfds_t::try_from(polled.len()).unwrap_or(0);
    loop {
        // SAFETY: `polled` holds `count` entries and lives through the call.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), count, timeout_ms) };
        if ready >= 0 {
            return Ok(ready > 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether a read would not block.
///
/// # Errors
/// As [`readable`].
pub fn is_readable(fd: RawFd) -> io::Result<bool> {
    ready(&mut [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }], Some(Duration::ZERO))
}

/// Bytes in a pipe or socket that wait to be read (ioctl_list(2), FIONREAD).
///
/// # Errors
/// ioctl(2)'s.
pub fn bytes_in(fd: RawFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes an int, which lives through the call.
    if unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut bytes) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Whether a short write would not block.
///
/// # Errors
/// As [`readable`].
pub fn is_writable(fd: RawFd) -> io::Result<bool> {
    ready(&mut [libc::pollfd { fd, events: libc::POLLOUT, revents: 0 }], Some(Duration::ZERO))
}
