//! Files and directories of /proc, read without allocation and without libc. Failures are the kernel's
//! answers: negative errnos.

use std::io;

use super::proc_text::decimal;
use crate::sys::rawcall::rawcall;

/// Opens for reading; negative on failure.
pub(super) fn open(path: *const u8, flags: i32) -> i32 {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | flags;
    // SAFETY: every caller's path ends with a zero byte.
    let fd = unsafe { rawcall!(libc::SYS_openat, libc::AT_FDCWD, path, flags, 0) };
    i32::try_from(fd).unwrap_or(-libc::EIO)
}

/// Closes what [`open`] gave, a failure included.
pub(super) fn close(fd: i32) {
    // SAFETY: the caller's own, or none.
    unsafe { rawcall!(libc::SYS_close, fd) };
}

/// The calling thread's number in /proc.
pub(super) fn own_entry(text: &mut [u8]) -> Option<u64> {
    let path = c"/proc/thread-self".as_ptr();
    // SAFETY: the kernel writes at most the text's length there.
    let len = unsafe { rawcall!(libc::SYS_readlink, path, text.as_mut_ptr(), text.len()) };
    // PID/task/TID
    let link = text.get(..usize::try_from(len).ok()?)?;
    decimal(link.rsplit(|byte| *byte == b'/').next()?)
}

/// Reads what fits of a file. One that is full when this returns may have more.
///
/// # Errors
/// openat(2)'s. What cannot be read of an open file (a thread that has ended) is as if it were not there.
pub(super) fn read_file(path: *const u8, into: &mut [u8]) -> Result<usize, i32> {
    let fd = open(path, 0);
    if fd < 0 {
        return Err(fd);
    }
    let mut len = 0;
    while let Some(room) = into.get_mut(len..).filter(|room| !room.is_empty()) {
        // SAFETY: the kernel writes at most the room's length there.
        let got = unsafe { rawcall!(libc::SYS_read, fd, room.as_mut_ptr(), room.len()) };
        match usize::try_from(got) {
            Ok(bytes) if bytes > 0 => len += bytes,
            _ if got == -(libc::EINTR as isize) => {}
            _ => break,
        }
    }
    close(fd);
    Ok(len)
}

/// Calls `found` with the name of each entry of an open directory.
///
/// # Errors
/// getdents64(2)'s: there may be more.
pub(super) fn each_entry(
    directory: i32,
    buffer: &mut [u8],
    found: &mut dyn FnMut(&[u8]),
) -> Result<(), i32> {
    /// Offset of d_reclen and d_name in linux_dirent64.
    const RECORD_LEN: usize = 16;
    const NAME: usize = 19;
    loop {
        // SAFETY: the kernel writes at most the buffer's length there.
        let got =
            unsafe { rawcall!(libc::SYS_getdents64, directory, buffer.as_mut_ptr(), buffer.len()) };
        let len = match usize::try_from(got) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(_) => return Err(i32::try_from(got).unwrap_or(-libc::EIO)),
        };
        let mut rest = &buffer[..len];
        while let (Some(low), Some(high)) = (rest.get(RECORD_LEN), rest.get(RECORD_LEN + 1)) {
            let record = usize::from(u16::from_le_bytes([*low, *high]));
            let Some(name) = rest.get(NAME..record) else { break };
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            found(&name[..end]);
            rest = &rest[record..];
        }
    }
}

/// What helps where a file of /proc could not be opened.
pub(super) fn remedy(errno: i32) -> &'static str {
    match errno.abs() {
        libc::EMFILE => "close files, or raise RLIMIT_NOFILE (ulimit -n): it is reached",
        libc::ENFILE => "this host has no room for another open file (fs.file-max)",
        libc::ENOMEM => "the kernel has no memory for it",
        libc::EACCES | libc::EPERM => {
            "a process that is not dumpable (setuid, file capabilities or PR_SET_DUMPABLE 0) can be a seed only \
             as root"
        }
        _ => "is /proc mounted? A seed is read through it",
    }
}

/// As [`remedy`], of an error in words.
pub(super) fn remedy_of(error: &io::Error) -> &'static str {
    remedy(error.raw_os_error().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_opened_says_why() {
        let mut text = [0u8; 64];
        let path = c"/proc/self/nothing".as_ptr().cast();
        assert_eq!(read_file(path, &mut text), Err(-libc::ENOENT));
        assert!(remedy(-libc::ENOENT).contains("mounted"));
        assert!(!remedy(-libc::EMFILE).contains("mounted"));
        assert_eq!(each_entry(-1, &mut text, &mut |_| {}), Err(-libc::EBADF));
        assert_eq!(read_file(c"/proc/self/comm".as_ptr().cast(), &mut text[..1]), Ok(1));
    }
}
