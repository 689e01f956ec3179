//! What the objects here ask of file descriptors and network interfaces.

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

/// Makes reads of `fd` return at once.
pub(super) fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: fcntl on an open descriptor, without memory.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    if unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The name of a network interface; none for 0 and for one that is gone.
pub(super) fn interface_name(index: u32) -> Option<String> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: `name` has the size that if_indextoname wants.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if index == 0 || found.is_null() {
        return None;
    }
    // SAFETY: if_indextoname wrote a C string.
    Some(unsafe { CStr::from_ptr(found) }.to_string_lossy().into_owned())
}
