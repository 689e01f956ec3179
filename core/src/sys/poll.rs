//! poll(2).

use std::io;
use std::os::fd::RawFd;

/// Waits until one of `fds` is readable, has failed or is closed by its peer; `false` if that took longer
/// than `timeout_ms` (negative: for ever). A signal ends the wait early, as a timeout does.
///
/// # Errors
/// poll(2)'s.
pub(crate) fn readable(fds: &[RawFd], timeout_ms: i32) -> io::Result<bool> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // SAFETY: the pointer and the length are those of `polled`, which lives until the call returns.
    let ready =
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout_ms) };
    match ready {
        0.. => Ok(ready > 0),
        _ => {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
        }
    }
}
