//! flock(2).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Locks `file` against whoever else has opened it and locks it, until it is closed; false if another
/// one has the lock.
///
/// # Errors
/// flock(2)'s.
pub fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: plain numbers, of a descriptor that is open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        error => Err(error),
    }
}

/// A lock of a folder, until it is dropped.
///
/// # Errors
/// open(2)'s and flock(2)'s; another one has it for longer than `patience`.
pub fn turn(folder: &Path, patience: Duration) -> io::Result<File> {
    let turn = File::open(folder)?;
    let until = Instant::now() + patience;
    while !try_lock(&turn)? {
        if Instant::now() >= until {
            return Err(io::Error::other("another program has locked its folder"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(turn)
}
