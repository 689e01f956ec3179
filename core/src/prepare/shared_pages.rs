//! Pages of shared memory, read whatever stands before them.
//!
//! /proc/self/mem asks for no rights. A page that it cannot read lies behind the end of its file (SIGBUS to whoever
//! touches it), and stays zero; or a guard of MADV_GUARD_INSTALL stands before it, which is the mapping's and not the
//! memory's: what is beneath shows again when the guard is taken away. So at the first such page the memory is mapped
//! once more, where it has no guards, and read there.
//!
//! No allocation, no libc: other threads may stand.

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
    Refused,
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
    pub(super) unsafe fn read(&mut self, start: u64, into: *mut u8, len: usize) -> Result<(), i32> {
        let mut done = 0;
        while done < len {
            let at = self.seen_at(start + done as u64);
            // SAFETY: what is left of the room.
            let got =
                unsafe { rawcall!(libc::SYS_pread64, self.memory, into.add(done), len - done, at) };
            match usize::try_from(got) {
                Ok(0) => return Err(-libc::ENODATA),
                Ok(bytes) => done += bytes,
                Err(_) => match i32::try_from(-got).unwrap_or(libc::ENODATA) {
                    libc::EINTR => {}
                    libc::EIO | libc::EFAULT if self.is_mapped_again() => {}
                    libc::EIO | libc::EFAULT => done = (done + 1).next_multiple_of(self.page),
                    errno => return Err(-errno),
                },
            }
        }
        Ok(())
    }

    fn seen_at(&self, addr: u64) -> u64 {
        match self.again {
            Again::At(start) => start + (addr - self.range.start.0),
            Again::NotAsked | Again::Refused => addr,
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
        self.again = u64::try_from(at).map_or(Again::Refused, Again::At);
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

    fn read(memory: &File, start: u64, pages: usize) -> Result<Vec<u8>, i32> {
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
        assert_eq!(unsafe { none.read(start, into.as_mut_ptr(), PAGE) }, Err(-libc::EBADF));
        assert_eq!(read(&memory, start, 1).unwrap(), page);
        // Nothing is mapped there: EIO, and nothing is there to be mapped once more.
        assert_eq!(read(&memory, PAGE as u64, 1).unwrap(), [0; PAGE]);
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
            unmap(start, 3);
            let left = std::fs::read_to_string("/proc/self/maps").unwrap();
            assert!(left.lines().count() < maps.lines().count(), "nothing else is left mapped");
        }
    }
}
