//! Memory with a descriptor (memfd_create(2)): copied out of as memory, sent to sockets as a file.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::ptr::NonNull;

/// So many bytes, all of them mapped; zeros at first, and not touched yet.
pub struct MemoryFile {
    file: File,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: bytes without an owner, only copied in and out.
unsafe impl Send for MemoryFile {}
// SAFETY: as above; a copy may see a part of another.
unsafe impl Sync for MemoryFile {}

impl std::fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryFile({} bytes)", self.bytes)
    }
}

impl MemoryFile {
    /// A new one.
    ///
    /// # Errors
    /// memfd_create(2)'s, ftruncate(2)'s and mmap(2)'s.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let name = c"mitosis-copy".as_ptr();
        // SAFETY: a name that lives; the descriptor is new, and owned if there is one.
        let file = unsafe {
            let fd = libc::memfd_create(name, libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            File::from_raw_fd(fd)
        };
        file.set_len(bytes as u64)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping where the kernel likes, of a file of this size that nobody cuts.
        let start = unsafe {
            let null = std::ptr::null_mut();
            libc::mmap(null, bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(MemoryFile { file, start, bytes })
    }

    /// Copies out of it, from byte `from` on.
    ///
    /// # Panics
    /// If that goes beyond its end.
    pub fn read(&self, from: usize, into: &mut [u8]) {
        let source = self.at(&(from..from + into.len()));
        // SAFETY: within the mapping; `into` is ordinary memory elsewhere.
        unsafe { source.as_ptr().copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) }
    }

    /// Fills `range` with the bytes of `file` from `offset` on.
    ///
    /// # Errors
    /// pread(2)'s; `UnexpectedEof` if the file ends before.
    ///
    /// # Panics
    /// If the range goes beyond its end.
    pub fn fill_from(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        range: Range<usize>,
    ) -> io::Result<()> {
        let target = self.at(&range);
        let mut done = 0;
        while done < range.len() {
            let at = i64::try_from(offset.saturating_add(done as u64));
            let at = at.map_err(|_| io::ErrorKind::InvalidInput)?;
            // SAFETY: the rest of the range lies within the mapping.
            let read = unsafe {
                let rest = target.as_ptr().add(done).cast();
                libc::pread(file.as_raw_fd(), rest, range.len() - done, at)
            };
            match usize::try_from(read) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(_) => interrupted()?,
            }
        }
        Ok(())
    }

    /// Sends bytes of `range` from its start on, and gives how many; the socket has the pages themselves, not a
    /// copy: they must not change until the peer has them.
    ///
    /// # Errors
    /// sendfile(2)'s.
    pub fn send(&self, range: Range<usize>, socket: &TcpStream) -> io::Result<usize> {
        let mut at = i64::try_from(range.start).map_err(|_| io::ErrorKind::InvalidInput)?;
        loop {
            // SAFETY: two open descriptors, and an offset that lives through the call.
            let sent = unsafe {
                let file = self.file.as_raw_fd();
                libc::sendfile(socket.as_raw_fd(), file, &raw mut at, range.len())
            };
            match usize::try_from(sent) {
                Ok(sent) => return Ok(sent),
                Err(_) => interrupted()?,
            }
        }
    }

    fn at(&self, range: &Range<usize>) -> NonNull<u8> {
        assert!(range.start <= range.end && range.end <= self.bytes, "a range outside of it");
        // SAFETY: within the mapping.
        unsafe { self.start.add(range.start) }
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Nothing, if the last call was interrupted by a signal.
fn interrupted() -> io::Result<()> {
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_filled_is_read_and_sent() {
        let bytes: Vec<u8> = (0..=250).cycle().take(70_000).collect();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&bytes).unwrap();
        source.rewind().unwrap();
        let memory = MemoryFile::new(1 << 20).unwrap();
        memory.fill_from(source.as_fd(), 100, 5000..70_000).unwrap();
        let mut got = vec![0; 65_000];
        memory.read(5000, &mut got);
        assert!(got == bytes[100..65_100]);
        let beyond = memory.fill_from(source.as_fd(), 69_999, 0..2);
        assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut receiver = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let sender = listener.accept().unwrap().0;
        let thread = std::thread::spawn(move || {
            let mut at = 6000;
            while at < 70_000 {
                at += memory.send(at..70_000, &sender).unwrap();
            }
        });
        let mut got = Vec::new();
        receiver.read_to_end(&mut got).unwrap();
        thread.join().unwrap();
        assert!(got == bytes[1100..65_100]);
    }
}
