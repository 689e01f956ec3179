//! Pages of shared memory, read whatever stands before them.
//!
//! /proc/self/mem asks for no rights. A page that it cannot read lies behind the end of its file (SIGBUS to whoever
//! touches it), and stays zero; or a guard of MADV_GUARD_INSTALL stands before it, which is the mapping's and not the
//! memory's: what is beneath shows again when the guard is taken away. So at the first such page the memory is mapped
//! once more, where it has no guards, and read there.
//!
//! No allocation, no libc: other threads may stand.

use std::io;

use super::shared::SharedMemoryError;
use crate::descriptor::SeedRange;
use crate::sys::rawcall::rawcall;

/// The pages of one VMA.
#[derive(Debug)]
pub(super) struct SharedPages {
    /// /proc/self/mem.
    memory: i32,
    range: SeedRange,
    page: usize,
    again: Again,
}

/// Its second mapping.
#[derive(Clone, Copy, Debug)]
enum Again {
    NotAsked,
    At(u64),
    /// errno.
    Refused(i32),
}

/// Why bytes were not read: -errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// /proc/self/mem's.
    Memory(i32),
    /// mremap(2)'s: whether a page has bytes behind a guard cannot be told.
    Again(i32),
}

impl Unread {
    /// In words.
    pub(super) fn error(self) -> SharedMemoryError {
        let (Unread::Memory(answer) | Unread::Again(answer)) = self;
        let error = io::Error::from_raw_os_error(-answer);
        match self {
            Unread::Memory(_) => SharedMemoryError::Copy { what: "/proc/self/mem", error },
            Unread::Again(_) => {
                let remedy = match -answer {
                    libc::EAGAIN => "unlock it before prepare, or raise RLIMIT_MEMLOCK (ulimit -l)",
                    libc::EPERM => {
                        "it is sealed (mseal), so it must have no guards (MADV_GUARD_INSTALL), and no pages behind the \
                         end of its file"
                    }
                    _ => "leave room for one mapping more (ulimit -v, vm.max_map_count)",
                };
                let what = "mapping it once more, as some of its pages cannot be read";
                let error = io::Error::new(error.kind(), format!("{error}; {remedy}"));
                SharedMemoryError::Copy { what, error }
            }
        }
    }
}

impl SharedPages {
    pub(super) fn of(memory: i32, range: SeedRange, page: usize) -> Self {
        SharedPages { memory, range, page, again: Again::NotAsked }
    }

    /// Reads `len` bytes from `start` on, which lie in the VMA.
    ///
    /// # Safety
    /// `into` has room for them, and no other user.
    ///
    /// # Errors
    /// The kernel's answer, where it is not that a page has no bytes.
    pub(super) unsafe fn read(
        &mut self,
        start: u64,
        into: *mut u8,
        len: usize,
    ) -> Result<(), Unread> {
        let mut done = 0;
        while done < len {
            let at = self.seen_at(start + done as u64);
            // SAFETY: what is left of the room.
            let got =
                unsafe { rawcall!(libc::SYS_pread64, self.memory, into.add(done), len - done, at) };
            match usize::try_from(got) {
                Ok(0) => return Err(Unread::Memory(-libc::ENODATA)),
                Ok(bytes) => done += bytes,
                Err(_) => match i32::try_from(-got).unwrap_or(libc::ENODATA) {
                    libc::EINTR => {}
                    libc::EIO | libc::EFAULT if self.is_mapped_again() => {}
                    libc::EIO | libc::EFAULT => match self.again {
                        // The memory could be mapped once more, and a guard may stand before bytes.
                        Again::Refused(errno @ (libc::ENOMEM | libc::EAGAIN | libc::EPERM)) => {
                            return Err(Unread::Again(-errno));
                        }
                        _ => done = (done + 1).next_multiple_of(self.page),
                    },
                    errno => return Err(Unread::Memory(-errno)),
                },
            }
        }
        Ok(())
    }

    fn seen_at(&self, addr: u64) -> u64 {
        match self.again {
            Again::At(start) => start + (addr - self.range.start.0),
            Again::NotAsked | Again::Refused(_) => addr,
        }
    }

    /// Whether it is, and was not before.
    fn is_mapped_again(&mut self) -> bool {
        if !matches!(self.again, Again::NotAsked) {
            return false;
        }
        let (start, len) = (self.range.start.0, self.range.len());
        // SAFETY: of length 0, mremap(2) maps shared memory once more, at a place that nothing else has.
        let at = unsafe { rawcall!(libc::SYS_mremap, start, 0, len, libc::MREMAP_MAYMOVE, 0) };
        let refused = |_| Again::Refused(i32::try_from(-at).unwrap_or(libc::EINVAL));
        self.again = u64::try_from(at).map_or_else(refused, Again::At);
        matches!(self.again, Again::At(_))
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        if let Again::At(start) = self.again {
            // SAFETY: ours alone.
            unsafe { rawcall!(libc::SYS_munmap, start, self.range.len()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use super::*;

    const PAGE: usize = 4096;
    const MADV_GUARD_INSTALL: i32 = 102;

    fn read(memory: &File, start: u64, pages: usize) -> Result<Vec<u8>, Unread> {
        let mut into = vec![0; pages * PAGE];
        let range = SeedRange::new(start, start + into.len() as u64);
        let mut source = SharedPages::of(memory.as_raw_fd(), range, PAGE);
        // SAFETY: as long as it is said to be.
        unsafe { source.read(start, into.as_mut_ptr(), into.len()) }.map(|()| into)
    }

    fn map(pages: usize, file: Option<&File>) -> usize {
        let flags = libc::MAP_SHARED | if file.is_some() { 0 } else { libc::MAP_ANONYMOUS };
        let (fd, rights) =
            (file.map_or(-1, AsRawFd::as_raw_fd), libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), pages * PAGE, rights, flags, fd, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        at as usize
    }

    fn unmap(start: usize, pages: usize) {
        // SAFETY: of the test's own.
        unsafe { libc::munmap(start as *mut _, pages * PAGE) };
    }

    #[test]
    fn what_cannot_be_read_is_no_zeros() {
        let memory = File::open("/proc/self/mem").unwrap();
        let page = vec![7u8; PAGE];
        let start = page.as_ptr() as usize as u64;
        let mut into = [1u8; PAGE];
        let range = SeedRange::new(start, start + PAGE as u64);
        let mut none = SharedPages::of(-1, range, PAGE);
        // SAFETY: a page of its own.
        let read_none = unsafe { none.read(start, into.as_mut_ptr(), PAGE) };
        assert_eq!(read_none, Err(Unread::Memory(-libc::EBADF)));
        assert_eq!(read(&memory, start, 1).unwrap(), page);
        // Nothing is mapped there: EIO, and nothing is there to be mapped once more.
        assert_eq!(read(&memory, PAGE as u64, 1).unwrap(), [0; PAGE]);
    }

    #[test]
    fn what_may_stand_behind_a_guard_is_no_zeros() {
        let memory = File::open("/proc/self/mem").unwrap();
        let start = PAGE as u64;
        let range = SeedRange::new(start, 2 * start);
        let refused = |errno| {
            let mut into = vec![1u8; PAGE];
            let again = Again::Refused(errno);
            let mut source =
                SharedPages { again, ..SharedPages::of(memory.as_raw_fd(), range, PAGE) };
            // SAFETY: as long as it is said to be.
            unsafe { source.read(start, into.as_mut_ptr(), PAGE) }
        };
        for errno in [libc::ENOMEM, libc::EAGAIN, libc::EPERM] {
            let unread = Unread::Again(-errno);
            assert_eq!(refused(errno), Err(unread));
            let text = unread.error().to_string();
            let told = io::Error::from_raw_os_error(errno).to_string();
            assert!(text.contains("once more") && text.contains(&told), "{text}");
            assert!(!text.contains("/proc"), "{text}");
        }
        assert_eq!(refused(libc::EINVAL), Ok(()), "no shared memory of any file");
    }

    /// Device and inode of a line of /proc/self/maps.
    fn file_of(line: &str) -> (&str, &str) {
        let mut fields = line.split_ascii_whitespace().skip(3);
        (fields.next().unwrap(), fields.next().unwrap())
    }

    #[test]
    fn bytes_before_which_a_guard_stands_are_read_and_those_behind_a_file_are_zeros() {
        let memory = File::open("/proc/self/mem").unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(2 * PAGE as u64).unwrap();
        for (start, pages) in [(map(3, None), 3), (map(3, Some(&file)), 2)] {
            for page in 0..pages {
                // SAFETY: inside the mapping, and the file.
                unsafe { ((start + page * PAGE) as *mut u8).write_volatile(9) };
            }
            // SAFETY: of the test's own.
            let guarded =
                unsafe { libc::madvise((start + PAGE) as *mut _, PAGE, MADV_GUARD_INSTALL) == 0 };
            // Kernels before 6.15 have none in shared memory.
            println!("guarded: {guarded}");
            let found = read(&memory, start as u64, 3).unwrap();
            let first: Vec<u8> = found.iter().step_by(PAGE).copied().collect();
            assert_eq!(first, [9, 9, if pages == 3 { 9 } else { 0 }]);
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let is_its = |line: &&str| line.starts_with(&format!("{start:x}-"));
            let file_here = file_of(maps.lines().find(is_its).unwrap());
            unmap(start, 3);
            let left = std::fs::read_to_string("/proc/self/maps").unwrap();
            let still = left.lines().find(|line| file_of(line) == file_here);
            assert_eq!(still, None, "nothing of it is left mapped");
        }
    }
}
