//! Files by the handles that their file systems give them.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// MAX_HANDLE_SZ.
const MAX_BYTES: usize = 128;

/// `struct file_handle`.
#[repr(C)]
struct Handle {
    len: u32,
    kind: i32,
    bytes: [u8; MAX_BYTES],
}

/// The path of what a handle names, by the mount of its file system at `mount`.
///
/// # Errors
/// open_by_handle_at(2)'s: EPERM without CAP_DAC_READ_SEARCH, ESTALE where it is not there; `NotFound` if it has no path.
pub(crate) fn path_of(mount: &Path, kind: i32, handle: &[u8]) -> io::Result<PathBuf> {
    let mut named = Handle { len: 0, kind, bytes: [0; MAX_BYTES] };
    let place = named.bytes.get_mut(..handle.len()).ok_or(io::ErrorKind::InvalidInput)?;
    place.copy_from_slice(handle);
    named.len = u32::try_from(handle.len()).unwrap_or(0);
    // A mount point may be a file, and a device's or a fifo's must not wait.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let mount = OpenOptions::new().read(true).custom_flags(flags).open(mount)?;
    let (number, named) = (libc::SYS_open_by_handle_at, &raw const named);
    // SAFETY: the kernel reads a handle of the length that it tells.
    let fd =
        unsafe { libc::syscall(number, mount.as_raw_fd(), named, libc::O_PATH | libc::O_CLOEXEC) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: it was just opened, and is nobody else's.
    let found = unsafe { OwnedFd::from_raw_fd(fd) };
    fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
}
