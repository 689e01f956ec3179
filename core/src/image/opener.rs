//! The thread that opens images' files.
//!
//! Whoever opens a file that its own process answers for waits until the answer comes or the connection ends,
//! and no signal wakes it: not even one that kills the process. The connection ends with the last descriptor of its
//! device. A thread that waits holds its descriptor table; were the device in it, an agent killed in that
//! moment would wait for itself for ever. So the thread that opens has a table of its own, in which no device is.
//!
//! ```text
//!   who mounts                                   opener (its own descriptors)
//!     mount's descriptor  ---- unix socket ---->   open, fstat: answered by who mounts, meanwhile
//!     the file            <---------------------   or its errno
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use parking_lot::{Mutex, MutexGuard};

use crate::sys::{fd_table, scm};

/// The opener's other end; `None` until the first file, and after the thread has ended.
static OPENER: Mutex<Option<UnixStream>> = Mutex::new(None);
/// An errno, 0 for none.
const ANSWER_BYTES: usize = 4;

/// A file that is being opened; others wait for their turn.
#[derive(Debug)]
pub(super) struct Opening {
    opener: MutexGuard<'static, Option<UnixStream>>,
    fd: RawFd,
}

impl Opening {
    /// Has the root of `mount` opened.
    ///
    /// # Errors
    /// There is no thread, or no socket, for it.
    pub(super) fn begin(mount: &OwnedFd) -> io::Result<Opening> {
        let mut opener = OPENER.lock();
        let socket = match opener.take() {
            Some(socket) => socket,
            None => start()?,
        };
        scm::send_all(socket.as_fd(), &[1], &[mount.as_fd()])?;
        let fd = opener.insert(socket).as_raw_fd();
        Ok(Opening { opener, fd })
    }

    /// What becomes readable when the file is open, or cannot be opened.
    pub(super) fn poll_fd(&self) -> RawFd {
        self.fd
    }

    /// The file. Waits for it: its connection must be answered, or have ended.
    ///
    /// # Errors
    /// open(2)'s; or the thread has ended.
    pub(super) fn finish(mut self) -> io::Result<File> {
        let Some(socket) = self.opener.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let mut answer = [0u8; ANSWER_BYTES];
        let mut fds = Vec::with_capacity(1);
        if scm::receive(socket.as_fd(), &mut answer, &mut fds)? != ANSWER_BYTES {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        *self.opener = Some(socket);
        match (i32::from_ne_bytes(answer), fds.pop()) {
            (0, Some(file)) => Ok(File::from(file)),
            (errno, _) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Starts the thread; it ends with the socket's other end.
fn start() -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let thread = std::thread::Builder::new().name("mitosis-opener".to_owned());
    thread.spawn(move || {
        if let Err(error) = fd_table::keep_only(theirs.as_fd()).and_then(|()| serve(&theirs)) {
            tracing::error!(%error, "the thread that opens images' files has ended");
        }
    })?;
    Ok(ours)
}

fn serve(socket: &UnixStream) -> io::Result<()> {
    let mut fds = Vec::with_capacity(1);
    while scm::receive(socket.as_fd(), &mut [0], &mut fds)? > 0 {
        let Some(mount) = fds.pop() else { return Err(io::ErrorKind::InvalidData.into()) };
        let opened = open(&mount);
        drop(mount);
        match opened {
            Ok(file) => scm::send_all(socket.as_fd(), &[0; ANSWER_BYTES], &[file.as_fd()])?,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                scm::send_all(socket.as_fd(), &errno.to_ne_bytes(), &[])?;
            }
        }
    }
    Ok(())
}

/// Opens the root of the mount and asks for its attributes (a page stored before is lost).
fn open(mount: &OwnedFd) -> io::Result<File> {
    // Not /proc/self: that is the table which this thread has left.
    let path = format!("/proc/thread-self/fd/{}", mount.as_raw_fd());
    let file = OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(path)?;
    file.metadata()?;
    Ok(file)
}
