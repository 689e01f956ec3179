//! Socket options that std does not set.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// TCP keep-alive: the first probe after `idle_s` silent seconds, three more a second apart, then the
/// connection fails (tcp(7)).
///
/// # Errors
/// setsockopt(2)'s.
pub fn keep_alive(stream: &TcpStream, idle_s: i32) -> io::Result<()> {
    set(stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, idle_s)?;
    set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 1)?;
    set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3)
}

/// The connection fails if what was sent is not acknowledged for so long; a keep-alive alone keeps still
/// while something is on its way (tcp(7), TCP_USER_TIMEOUT). Not for one whose peer may stop reading.
///
/// # Errors
/// setsockopt(2)'s.
pub fn give_up_after(stream: &TcpStream, limit_ms: i32) -> io::Result<()> {
    set(stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, limit_ms)
}

/// Lets the sender's rate follow acknowledgements and nothing else: CUBIC, or Reno where that is not built
/// (tcp(7), TCP_CONGESTION). A pacing one such as BBR makes short bursts between near hosts wait for its clock.
///
/// # Errors
/// setsockopt(2)'s: neither is allowed here.
pub fn follow_acknowledgements(stream: &TcpStream) -> io::Result<()> {
    choose(stream, b"cubic").or_else(|_| choose(stream, b"reno"))
}

/// Small messages go out at once (tcp(7), TCP_NODELAY). A socket that has no such choice is as right, and perhaps
/// slower.
pub fn answer_at_once(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps small messages back");
    }
}

/// Who is at the other end of a connected unix socket, as the kernel saw it when it was connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// In this process's pid namespace; 0 where it is in none that is seen from here.
    pub pid: u32,
    /// Effective user id.
    pub user: u32,
    /// Effective group id.
    pub group: u32,
}

/// SO_PEERCRED, see unix(7).
///
/// # Errors
/// getsockopt(2)'s.
pub fn peer(stream: &impl AsRawFd) -> io::Result<Peer> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(size_of_val(&peer)).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes to `peer`, for which all bits are valid.
    let result = unsafe {
        let (value, len) = ((&raw mut peer).cast(), &raw mut len);
        libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, value, len)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer { pid: u32::try_from(peer.pid).unwrap_or(0), user: peer.uid, group: peer.gid })
}

fn choose(stream: &TcpStream, name: &[u8]) -> io::Result<()> {
    let len = libc::socklen_t::try_from(name.len()).unwrap_or(0);
    // SAFETY: the option's value is `len` bytes of `name`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_CONGESTION,
            name.as_ptr().cast(),
            len,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set(stream: &TcpStream, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: the option's value is an int that lives through the call.
    let result = unsafe {
        libc::setsockopt(stream.as_raw_fd(), level, name, (&raw const value).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that one segment carries (tcp(7), TCP_MAXSEG): the MTU of the way less its headers, as far as it is known.
///
/// # Errors
/// getsockopt(2)'s.
pub fn segment_bytes(stream: &TcpStream) -> io::Result<u32> {
    let mut bytes = 0i32;
    let mut len = libc::socklen_t::try_from(size_of_val(&bytes)).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes to `bytes`, for which all bits are valid.
    let result = unsafe {
        let (value, len) = ((&raw mut bytes).cast(), &raw mut len);
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_MAXSEG, value, len)
    };
    if result == 0 {
        Ok(u32::try_from(bytes).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends some of `bytes`, and gives how many; the kernel waits for more before it makes a segment of them
/// (MSG_MORE, send(2)).
///
/// # Errors
/// send(2)'s.
pub fn send_more(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_MORE;
    // SAFETY: the kernel reads `bytes` during the call alone.
    let sent = unsafe { libc::send(stream.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives what is there, without waiting: `WouldBlock` if nothing is.
///
/// # Errors
/// recv(2)'s.
pub fn receive_now(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let (start, len) = (into.as_mut_ptr().cast(), into.len());
    // SAFETY: the kernel writes at most `len` bytes into `into`, during the call alone.
    let got = unsafe { libc::recv(stream.as_raw_fd(), start, len, libc::MSG_DONTWAIT) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// What is there, without waiting and without taking it: `WouldBlock` if nothing is. Whoever has sent it is not woken, as
/// it would be by the room that taking it makes.
///
/// # Errors
/// recv(2)'s.
pub fn peek_now(stream: &std::os::unix::net::UnixStream, into: &mut [u8]) -> io::Result<usize> {
    let (start, len) = (into.as_mut_ptr().cast(), into.len());
    let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
    // SAFETY: the kernel writes at most `len` bytes into `into`, during the call alone.
    let got = unsafe { libc::recv(stream.as_raw_fd(), start, len, flags) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Two connected ends that keep messages apart.
///
/// # Errors
/// socketpair(2)'s.
pub fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: two descriptors are written, and owned only if they were.
    unsafe {
        if libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])))
    }
}

/// A socket that this process was started with, at a number that it was told.
///
/// # Errors
/// `InvalidInput` when there is no socket at that number.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    let is_socket = std::fs::metadata(format!("/proc/self/fd/{number}"))
        .is_ok_and(|meta| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()));
    if !is_socket {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("descriptor {number} is no socket"),
        ));
    }
    // SAFETY: the number is open, and whoever started this process left it to this caller alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
