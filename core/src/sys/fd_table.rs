//! A thread's own descriptor table (close_range(2), CLOSE_RANGE_UNSHARE).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Behind the standard streams: a descriptor that came at one of their numbers would be printed to.
const FIRST_CLOSED: libc::c_uint = 3;

/// Leaves the table that the calling thread shares with its process for one that holds `kept`, the
/// standard streams and nothing else. What the process opens from here on is not in it, and the other way round.
///
/// # Errors
/// close_range(2)'s: no memory for a table.
pub fn keep_only(kept: BorrowedFd<'_>) -> io::Result<()> {
    let kept = libc::c_uint::try_from(kept.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // In this order: the call that unshares does not copy what it would close.
    close(kept + 1, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)?;
    if kept > FIRST_CLOSED {
        close(FIRST_CLOSED, kept - 1, 0)?;
    }
    Ok(())
}

fn close(first: libc::c_uint, last: libc::c_uint, flags: libc::c_uint) -> io::Result<()> {
    let flags = libc::c_int::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: after the first call the table is this thread's own: no value of another thread owns a
    // descriptor in it, and the caller has none but the one it keeps.
    let result = unsafe { libc::close_range(first, last, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_thread_has_what_it_keeps_and_its_process_loses_nothing() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (mut other, far) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let mut theirs = theirs;
            keep_only(theirs.as_fd()).unwrap();
            let own = std::fs::read_dir("/proc/thread-self/fd").unwrap();
            let numbers = own.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let numbers: Vec<i32> = numbers.map(|name| name.parse().unwrap()).collect();
            let others = |number: &&i32| **number > 2 && **number != theirs.as_raw_fd();
            // The folder that is read is one, too.
            assert!(numbers.iter().filter(others).count() == 1, "{numbers:?}");
            theirs.write_all(b"here").unwrap();
            theirs.read_exact(&mut [0]).unwrap();
        });
        let mut said = [0; 4];
        ours.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"here");
        // Its copy of `far` is gone: with the one here closed, the other end sees the end.
        drop(far);
        assert_eq!(other.read(&mut [0]).unwrap(), 0);
        ours.write_all(b"!").unwrap();
        thread.join().unwrap();
    }
}
