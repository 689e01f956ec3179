//! Descriptors over a unix socket: SCM_RIGHTS (unix(7)).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Descriptors that one message may carry.
pub const MAX_FDS: usize = 64;

const CONTROL_LEN: usize = 16 + 8 + MAX_FDS * 4;

#[repr(align(8))]
struct Control([MaybeUninit<u8>; CONTROL_LEN]);

/// Sends `bytes` with `fds` on their first byte; returns how many bytes went out (stream sockets may
/// take a part; the descriptors have gone then).
///
/// # Errors
/// sendmsg(2)'s; EINVAL for more than [`MAX_FDS`].
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    if fds.len() > MAX_FDS || bytes.is_empty() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut control = Control([MaybeUninit::zeroed(); CONTROL_LEN]);
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: msghdr is plain data for which all zero is a valid, empty value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        let payload = u32::try_from(size_of::<RawFd>() * fds.len())
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        message.msg_control = control.0.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(payload) } as usize;
        // SAFETY: msg_control points to CONTROL_LEN zeroed bytes, enough for MAX_FDS descriptors, so the
        // first header and its data lie inside.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(payload) as usize;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            for (i, fd) in fds.iter().enumerate() {
                data.add(i).write_unaligned(fd.as_raw_fd());
            }
        }
    }
    loop {
        // SAFETY: `message` and everything it points to live until the call returns.
        let sent =
            unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) => return Ok(sent),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Sends `bytes` as one message if the socket takes them at once.
///
/// # Errors
/// send(2)'s: `WouldBlock` when its buffer is full.
pub fn send_now(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the kernel reads `bytes` during the call alone.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends all of `bytes`, with `fds` on the first.
///
/// # Errors
/// As [`send`].
pub fn send_all(
    socket: BorrowedFd<'_>,
    mut bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut fds = fds;
    while !bytes.is_empty() {
        let sent = send(socket, bytes, fds)?;
        bytes = &bytes[sent..];
        fds = &[];
    }
    Ok(())
}

/// Receives into `buffer` and appends the descriptors that came along (close-on-exec) to `fds`. Zero
/// bytes are the end of the stream.
///
/// # Errors
/// recvmsg(2)'s; `InvalidData` when descriptors were cut off.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut control = Control([MaybeUninit::zeroed(); CONTROL_LEN]);
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: as in `send`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_LEN;
    let received = loop {
        // SAFETY: `message` and everything it points to live until the call returns.
        let received =
            unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(received) {
            Ok(received) => break received,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    };
    // SAFETY: the kernel filled msg_control up to msg_controllen; the CMSG macros stay inside it, and each
    // descriptor in a SCM_RIGHTS message is new and ours alone.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                let len = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                for i in 0..len / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "descriptors were cut off a message",
        ));
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn descriptors_arrive_with_the_first_byte() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send_all(a.as_fd(), b"hello", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut fds = Vec::new();
        let mut buffer = [0u8; 16];
        assert_eq!(receive(b.as_fd(), &mut buffer, &mut fds).unwrap(), 5);
        let mut passed = std::fs::File::from(fds.pop().unwrap());
        passed.write_all(b"through").unwrap();
        drop(passed);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn one_descriptor_too_many_is_refused() {
        let (a, b) = UnixStream::pair().unwrap();
        let many = vec![a.as_fd(); MAX_FDS];
        assert_eq!(send(a.as_fd(), b"x", &many).unwrap(), 1);
        let mut fds = Vec::new();
        receive(b.as_fd(), &mut [0; 4], &mut fds).unwrap();
        assert_eq!(fds.len(), MAX_FDS);
        let too_many = vec![a.as_fd(); MAX_FDS + 1];
        assert!(send(a.as_fd(), b"x", &too_many).is_err());
    }
}
