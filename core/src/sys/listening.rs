//! Sockets that listen with the options that another one had.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixDatagram;

/// How.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// As socket(2).
    pub domain: u32,
    /// As socket(2), without flags.
    pub socket_type: u32,
    /// As socket(2).
    pub protocol: u32,
    /// listen(2)'s argument; `None`: it is bound and does not listen.
    pub backlog: Option<u32>,
    /// SO_REUSEADDR.
    pub reuse_address: bool,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// IPV6_V6ONLY.
    pub v6_only: bool,
    /// TCP_NODELAY.
    pub no_delay: bool,
    /// SO_KEEPALIVE.
    pub keep_alive: bool,
}

/// A socket at `address`, a `struct sockaddr`; it does not wait.
///
/// # Errors
/// socket(2)'s, setsockopt(2)'s, bind(2)'s and listen(2)'s.
pub fn at(options: &ListenOptions, address: &[u8]) -> io::Result<OwnedFd> {
    let number = |value: u32| i32::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
    let domain = number(options.domain)?;
    let kind = number(options.socket_type)? | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a new descriptor, owned by nobody else.
    let socket = unsafe {
        let socket = libc::socket(domain, kind, number(options.protocol)?);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(socket)
    };
    let is_inet = matches!(domain, libc::AF_INET | libc::AF_INET6);
    for (level, name, wanted) in [
        (libc::SOL_SOCKET, libc::SO_REUSEADDR, options.reuse_address),
        // Kernels since 6.13 refuse it for other sockets.
        (libc::SOL_SOCKET, libc::SO_REUSEPORT, options.reuse_port && is_inet),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, options.keep_alive),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, options.no_delay),
    ] {
        if wanted {
            set(&socket, level, name, 1)?;
        }
    }
    if domain == libc::AF_INET6 {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, options.v6_only.into())?;
    }
    let len = libc::socklen_t::try_from(address.len()).unwrap_or(0);
    // SAFETY: the address is `len` live bytes.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), len) };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    if let Some(backlog) = options.backlog {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        // SAFETY: takes plain numbers.
        if unsafe { libc::listen(socket.as_raw_fd(), backlog) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}

/// Takes away a unix socket that is nobody's any more.
///
/// Asked by a datagram socket, which never waits and leaves no connection behind: a path of nobody's refuses
/// it, whatever it was, and a living socket of another type answers EPROTOTYPE.
pub fn remove_stale(path: &str) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let is_refused = || {
        let asked = UnixDatagram::unbound().and_then(|socket| socket.connect(path));
        asked.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    if is_socket && is_refused() {
        let _ = std::fs::remove_file(path);
    }
}

fn set(socket: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: the option's value is an int that lives through the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// A unix socket's options, of `socket_type`.
    fn unix(socket_type: i32, backlog: Option<u32>) -> ListenOptions {
        ListenOptions {
            domain: libc::AF_UNIX.cast_unsigned(),
            socket_type: socket_type.cast_unsigned(),
            protocol: 0,
            backlog,
            reuse_address: false,
            reuse_port: true,
            v6_only: false,
            no_delay: false,
            keep_alive: false,
        }
    }

    #[test]
    fn living_sockets_of_every_type_stay_and_stale_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let types = [
            (libc::SOCK_STREAM, Some(0)),
            (libc::SOCK_STREAM, None),
            (libc::SOCK_DGRAM, None),
            (libc::SOCK_SEQPACKET, Some(0)),
        ];
        for (number, (socket_type, backlog)) in types.into_iter().enumerate() {
            let path = folder.path().join(number.to_string());
            let path = path.to_str().unwrap();
            let family = u16::try_from(libc::AF_UNIX).unwrap().to_ne_bytes();
            let address = [&family[..], path.as_bytes(), &[0]].concat();
            let socket = at(&unix(socket_type, backlog), &address).unwrap();
            remove_stale(path);
            assert!(std::fs::exists(path).unwrap(), "{socket_type}");
            drop(socket);
            remove_stale(path);
            assert!(!std::fs::exists(path).unwrap(), "{socket_type}");
        }
    }

    #[test]
    fn one_whose_queue_is_full_is_asked_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let path = path.to_str().unwrap();
        let family = u16::try_from(libc::AF_UNIX).unwrap().to_ne_bytes();
        let address = [&family[..], path.as_bytes(), &[0]].concat();
        let _socket = at(&unix(libc::SOCK_STREAM, Some(0)), &address).unwrap();
        // A backlog of 0 takes one, and a second would wait for ever.
        let _waiting = UnixStream::connect(path).unwrap();
        remove_stale(path);
        assert!(std::fs::exists(path).unwrap());
    }

    #[test]
    fn a_stale_socket_goes_and_a_living_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let path = path.to_str().unwrap();
        let listener = UnixListener::bind(path).unwrap();
        remove_stale(path);
        assert!(std::fs::exists(path).unwrap());
        drop(listener);
        remove_stale(path);
        assert!(!std::fs::exists(path).unwrap());
        std::fs::write(path, "a file").unwrap();
        remove_stale(path);
        assert!(std::fs::exists(path).unwrap());
    }
}
