//! connect(2) to a unix socket, bounded in time.

#[cfg(feature = "agent")]
use std::ffi::OsString;
use std::io;
#[cfg(feature = "agent")]
use std::os::fd::BorrowedFd;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
#[cfg(feature = "agent")]
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
#[cfg(feature = "agent")]
use std::path::PathBuf;
use std::time::Duration;

/// A connected, close-on-exec stream socket. `patience` bounds the connect (the listener's queue may be
/// full) and every later send.
pub(crate) fn connect(path: &Path, patience: Duration) -> io::Result<OwnedFd> {
    let address = address_of(path)?;
    let socket = new_socket(libc::SOCK_STREAM)?;
    bound(&socket, libc::SO_SNDTIMEO, patience)?;
    connect_to(&socket, &address)?;
    Ok(socket)
}

/// The same, of a socket that keeps messages apart; `patience` bounds every later receive, too.
#[cfg(feature = "agent")]
pub(crate) fn connect_packets(path: &Path, patience: Duration) -> io::Result<OwnedFd> {
    let address = address_of(path)?;
    let socket = new_socket(libc::SOCK_SEQPACKET)?;
    bound(&socket, libc::SO_SNDTIMEO, patience)?;
    bound(&socket, libc::SO_RCVTIMEO, patience)?;
    connect_to(&socket, &address)?;
    Ok(socket)
}

/// Whom connections may wait for: one asks, and perhaps who looks whether anybody is there.
#[cfg(feature = "agent")]
const BACKLOG: i32 = 8;

/// A close-on-exec socket at `path` that keeps messages apart and takes connections.
#[cfg(feature = "agent")]
pub(crate) fn listen_packets(path: &Path) -> io::Result<OwnedFd> {
    let address = address_of(path)?;
    let socket = new_socket(libc::SOCK_SEQPACKET)?;
    let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
    // SAFETY: the address lives until bind returns; listen takes plain numbers.
    unsafe {
        let fd = socket.as_raw_fd();
        if libc::bind(fd, (&raw const address).cast(), len) != 0 || libc::listen(fd, BACKLOG) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}

/// The next connection of a listening socket; `patience` bounds every later send and receive on it.
#[cfg(feature = "agent")]
pub(crate) fn accept(listener: BorrowedFd<'_>, patience: Duration) -> io::Result<OwnedFd> {
    let (none, flags) = (std::ptr::null_mut(), libc::SOCK_CLOEXEC);
    // SAFETY: no address is asked for; the descriptor is new and ours.
    let socket = unsafe {
        let fd = libc::accept4(listener.as_raw_fd(), none, std::ptr::null_mut(), flags);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    bound(&socket, libc::SO_SNDTIMEO, patience)?;
    bound(&socket, libc::SO_RCVTIMEO, patience)?;
    Ok(socket)
}

/// The path that a listening socket was bound to.
#[cfg(feature = "agent")]
pub(crate) fn path_of(listener: BorrowedFd<'_>) -> io::Result<PathBuf> {
    // SAFETY: sockaddr_un is plain data; all zero is its empty value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes to the address, for which all bits are valid.
    let asked = unsafe {
        let (value, len) = ((&raw mut address).cast(), &raw mut len);
        libc::getsockname(listener.as_raw_fd(), value, len)
    };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    let bytes = address.sun_path.iter().map(|byte| byte.cast_unsigned());
    let bytes: Vec<u8> = bytes.take_while(|byte| *byte != 0).collect();
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

fn new_socket(kind: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the descriptor is new and ours.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn address_of(path: &Path) -> io::Result<libc::sockaddr_un> {
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
    Ok(address)
}

/// Sets SO_SNDTIMEO or SO_RCVTIMEO.
fn bound(socket: &OwnedFd, option: i32, patience: Duration) -> io::Result<()> {
    let patience = libc::timeval {
        tv_sec: libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(patience.subsec_micros()),
    };
    let (value, len) = ((&raw const patience).cast(), size_of_val(&patience));
    let len = libc::socklen_t::try_from(len).unwrap_or(0);
    let fd = socket.as_raw_fd();
    // SAFETY: the option's value lives until the call returns.
    if unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, value, len) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn connect_to(socket: &OwnedFd, address: &libc::sockaddr_un) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of_val(address)).unwrap_or(0);
    loop {
        // SAFETY: the address lives until the call returns.
        if unsafe { libc::connect(socket.as_raw_fd(), (&raw const *address).cast(), len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
