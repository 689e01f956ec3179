//! Sockets of a seed that carries its files: options, addresses, what can be read, and who the other end of a
//! unix socket is (sock_diag(7): nothing else tells).

use std::mem::zeroed;

use super::carried::{most, readable};
use super::report::{ReportWriter, tag};
use super::reported::socket_bit;
use crate::sys::rawcall::rawcall;

/// Of `struct tcp_info`, of a socket that listens: listen(2)'s argument.
const TCP_INFO_BACKLOG: usize = 28;
/// Of one that does not: segments sent, and segments received (Linux 4.2).
const TCP_INFO_SEGMENTS: usize = 136;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
const ADDRESS_BYTES: usize = 128;

/// The records of a socket; `work` is free.
pub(super) fn describe(writer: &mut ReportWriter<'_>, work: &mut [u8], fd: u64, inode: u64) {
    let base = |name| option(fd, libc::SOL_SOCKET, name);
    let (domain, kind) = (base(libc::SO_DOMAIN), base(libc::SO_TYPE));
    let [mut name, mut peer] = [[0u8; ADDRESS_BYTES]; 2];
    let name_len = address(libc::SYS_getsockname, fd, &mut name).unwrap_or(0);
    let peer_len = address(libc::SYS_getpeername, fd, &mut peer);
    let mut bits = 0;
    for (bit, value) in [
        (socket_bit::LISTENS, base(libc::SO_ACCEPTCONN)),
        (socket_bit::REUSE_ADDRESS, base(libc::SO_REUSEADDR)),
        (socket_bit::REUSE_PORT, base(libc::SO_REUSEPORT)),
        (socket_bit::V6_ONLY, option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)),
        (socket_bit::NO_DELAY, option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)),
        (socket_bit::KEEP_ALIVE, base(libc::SO_KEEPALIVE)),
        (socket_bit::CONNECTED, i32::from(peer_len.is_some())),
    ] {
        if value > 0 {
            bits |= bit;
        }
    }
    let is_unix = domain == libc::AF_UNIX;
    let peer_inode = if is_unix && peer_len.is_some() { unix_peer(work, inode) } else { 0 };
    let (is_idle, backlog) = tcp(fd);
    if is_idle {
        bits |= socket_bit::IDLE;
    }
    let number = |value: i32| u64::try_from(value).unwrap_or(0);
    let numbers = [
        fd,
        number(domain),
        number(kind),
        number(base(libc::SO_PROTOCOL)),
        bits,
        u64::from(backlog),
        peer_inode,
        name_len as u64,
    ];
    let content = peer_inode != 0 && readable(fd) > 0;
    writer.record_filled(tag::SOCKET, &mut numbers.clone(), &mut |_, room| {
        let peer_len = peer_len.unwrap_or(0);
        let Some(room) = room.get_mut(..name_len + peer_len) else { return usize::MAX };
        room[..name_len].copy_from_slice(&name[..name_len]);
        room[name_len..].copy_from_slice(&peer[..peer_len]);
        room.len()
    });
    if content {
        let is_stream = kind == libc::SOCK_STREAM;
        writer.record_filled(tag::CONTENT, &mut [fd, readable(fd), 0], &mut |numbers, room| {
            let (len, has_descriptors) = peek(fd, most(room));
            numbers[2] = u64::from(has_descriptors);
            if is_stream { len } else { 0 }
        });
    }
}

/// An int option; -1 where there is none.
fn option(fd: u64, level: i32, name: i32) -> i32 {
    let (mut value, mut len) = (0i32, 4u32);
    // SAFETY: the kernel writes at most `len` bytes to the int.
    let answer =
        unsafe { rawcall!(libc::SYS_getsockopt, fd, level, name, &raw mut value, &raw mut len) };
    if answer == 0 { value } else { -1 }
}

/// Whether a TCP socket has never been connected and does not listen, and listen(2)'s argument if it listens. One whose
/// connection has ended is bound, too, but to the port of the socket that it was accepted from.
fn tcp(fd: u64) -> (bool, u32) {
    let (mut info, mut len) = ([0u8; 144], 144u32);
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the kernel writes at most `len` bytes.
    let answer =
        unsafe { rawcall!(libc::SYS_getsockopt, fd, level, name, info.as_mut_ptr(), &raw mut len) };
    if answer != 0 {
        return (false, 0);
    }
    let backlog = info.get(TCP_INFO_BACKLOG..).and_then(<[u8]>::first_chunk);
    let backlog = backlog.map_or(0, |value| u32::from_ne_bytes(*value));
    match info[0] {
        TCP_LISTEN => (false, backlog),
        state => {
            let was_connected = info[TCP_INFO_SEGMENTS..].iter().any(|byte| *byte != 0);
            (state == TCP_CLOSE && !was_connected, 0)
        }
    }
}

/// getsockname(2) or getpeername(2).
fn address(call: libc::c_long, fd: u64, into: &mut [u8; ADDRESS_BYTES]) -> Option<usize> {
    let mut len = 128u32;
    // SAFETY: the kernel writes at most `len` bytes.
    let answer = unsafe { rawcall!(call, fd, into.as_mut_ptr(), &raw mut len) };
    (answer == 0).then_some((len as usize).min(ADDRESS_BYTES))
}

/// Copies what can be read, and leaves it; whether descriptors would come along.
fn peek(fd: u64, room: &mut [u8]) -> (usize, bool) {
    let mut part = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    // SAFETY: msghdr is plain data; all zero is its empty value.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes at most the room's length there.
    let got = unsafe { rawcall!(libc::SYS_recvmsg, fd, &raw mut message, flags) };
    (usize::try_from(got).unwrap_or(0), message.msg_flags & libc::MSG_CTRUNC != 0)
}

/// The inode at the other end of a unix socket's connection; 0 where the kernel does not tell.
fn unix_peer(work: &mut [u8], inode: u64) -> u64 {
    const SOCK_DIAG: i32 = 4;
    const BY_FAMILY: u16 = 20;
    const SHOW_PEER: u32 = 4;
    /// The answer: nlmsghdr, unix_diag_msg, then attributes.
    const ATTRIBUTES: usize = 16 + 16;
    const PEER: u16 = 2;
    #[repr(C)]
    struct Request {
        len: u32,
        kind: u16,
        flags: u16,
        sequence: u32,
        port: u32,
        family: u8,
        protocol: u8,
        pad: u16,
        states: u32,
        inode: u32,
        show: u32,
        cookie: [u32; 2],
    }
    const LEN: u32 = 40;
    const _: () = assert!(size_of::<Request>() == LEN as usize);
    let request = Request {
        len: LEN,
        kind: BY_FAMILY,
        flags: 1,
        sequence: 1,
        port: 0,
        family: 1,
        protocol: 0,
        pad: 0,
        states: u32::MAX,
        inode: u32::try_from(inode).unwrap_or(0),
        show: SHOW_PEER,
        cookie: [u32::MAX; 2],
    };
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: a socket of our own, closed again; the kernel reads the request and writes at most the work
    // area's length.
    let got = unsafe {
        let socket = rawcall!(libc::SYS_socket, libc::AF_NETLINK, kind, SOCK_DIAG);
        rawcall!(libc::SYS_sendto, socket, &raw const request, LEN, 0, 0, 0);
        let got = rawcall!(
            libc::SYS_recvfrom,
            socket,
            work.as_mut_ptr(),
            work.len(),
            libc::MSG_DONTWAIT,
            0,
            0
        );
        rawcall!(libc::SYS_close, socket);
        got
    };
    let answer = work.get(..usize::try_from(got).unwrap_or(0)).unwrap_or(&[]);
    let mut rest = answer.get(ATTRIBUTES..).unwrap_or(&[]);
    while let Some([l0, l1, k0, k1]) = rest.first_chunk() {
        let len = usize::from(u16::from_ne_bytes([*l0, *l1]));
        if u16::from_ne_bytes([*k0, *k1]) == PEER {
            let value = rest.get(4..).and_then(<[u8]>::first_chunk);
            return value.map_or(0, |value| u32::from_ne_bytes(*value).into());
        }
        rest = rest.get(len.next_multiple_of(4).max(4)..).unwrap_or(&[]);
    }
    0
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsRawFd, FromRawFd};

    use super::*;

    fn seen(socket: &impl AsRawFd) -> (bool, u32) {
        tcp(u64::from(socket.as_raw_fd().cast_unsigned()))
    }

    #[test]
    fn a_connection_that_has_ended_is_not_taken_for_a_socket_that_is_bound() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(seen(&listener), (false, 128));
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert_eq!(seen(&accepted), (false, 0));
        // Unread bytes: closing it resets the connection.
        std::io::Write::write_all(&mut &accepted, b"unread").unwrap();
        while there.peek(&mut [0]).is_err() {}
        drop(there);
        while info_state(&accepted) != TCP_CLOSE {
            std::thread::yield_now();
        }
        assert_eq!(seen(&accepted), (false, 0));
        // SAFETY: a new descriptor, owned by nobody else.
        let fresh = unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
            std::os::fd::OwnedFd::from_raw_fd(fd)
        };
        assert_eq!(seen(&fresh), (true, 0));
    }

    fn info_state(socket: &impl AsRawFd) -> u8 {
        let (mut info, mut len) = ([0u8; 8], 8u32);
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        // SAFETY: the kernel writes at most `len` bytes.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                level,
                name,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        assert_eq!(answer, 0);
        info[0]
    }
}
