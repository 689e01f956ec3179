//! connect(2) to a unix socket, bounded in time.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// A connected, close-on-exec stream socket. `patience` bounds the connect (the listener's queue may be
/// full) and every later send.
pub(crate) fn connect(path: &Path, patience: Duration) -> io::Result<OwnedFd> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: sockaddr_un is plain data; all zero is its empty value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) || bytes.is_empty() {
        let wrong = "the path of a unix socket has 1 to 107 bytes";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, wrong));
    }
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default();
    for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
        *place = byte.cast_signed();
    }
    // SAFETY: plain numbers; the descriptor is new and ours.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let patience = libc::timeval {
        tv_sec: libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(patience.subsec_micros()),
    };
    // SAFETY: the option's value and the address live until the calls return.
    unsafe {
        let (value, len) = ((&raw const patience).cast(), size_of_val(&patience));
        let len = libc::socklen_t::try_from(len).unwrap_or(0);
        let fd = socket.as_raw_fd();
        if libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, value, len) != 0 {
            return Err(io::Error::last_os_error());
        }
        let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
        loop {
            if libc::connect(fd, (&raw const address).cast(), len) == 0 {
                return Ok(socket);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}
