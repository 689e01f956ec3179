//! Shared memory is not frozen by fork(2): what the process may write there (anonymous shared, memfd,
//! shared file mappings) is copied while the caller stands still, into private memory that goes to the
//! seed with the fork. The parent unmaps it at once.
//!
//! Devices are left alone, and so are read-only mappings of files that are not mapped to be written, too: nobody here
//! changes their bytes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use super::proc_files;
use super::scratch::{Guarded, MAX_COPIES};
use super::shared_pages::{SharedPages, Unread};
use crate::descriptor::SeedRange;
use crate::sys::page_size;

/// Why shared memory keeps a process from becoming a seed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedMemoryError {
    /// There is more than the limit.
    #[error(
        "shared memory '{name}' at {range} brings what a seed must copy to {bytes} bytes, above the \
         limit of {limit}: unmap it before prepare, map it privately, or raise shared_copy_limit"
    )]
    OverLimit {
        /// As /proc/self/maps names it.
        name: String,
        /// Where it lies.
        range: SeedRange,
        /// Bytes to copy, this VMA included.
        bytes: u64,
        /// `PrepareOptions::shared_copy_limit`.
        limit: u64,
    },
    /// There are too many VMAs of it.
    #[error(
        "the process has more than {MAX_COPIES} writable shared mappings, '{0}' among them: unmap some \
         before prepare"
    )]
    TooMany(String),
    /// The kernel did not let it be found or copied.
    #[error("shared memory could not be copied ({what}): {error}{}", remedy_of(error))]
    Copy {
        /// What failed.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
}

/// Of what is no errno there is nothing to say.
fn remedy_of(error: &io::Error) -> String {
    let errno = error.raw_os_error();
    errno.map_or_else(String::new, |errno| format!("; {}", proc_files::remedy(errno)))
}

/// One copy.
#[derive(Debug)]
pub(super) struct Copied {
    pub(super) shared: SeedRange,
    pub(super) memory: Guarded,
}

/// Copies all of it.
pub(super) fn copy_all(limit: u64) -> Result<Vec<Copied>, SharedMemoryError> {
    let mut copies = Vec::new();
    let mut memory = None;
    let mut bytes = 0u64;
    for vma in shared_vmas()? {
        if !vma.needs_copy() {
            continue;
        }
        if copies.len() == MAX_COPIES {
            return Err(SharedMemoryError::TooMany(vma.name));
        }
        let data = vma.data()?;
        bytes += data.iter().map(|range| range.len()).sum::<u64>();
        if bytes > limit {
            let (name, range) = (vma.name, vma.range);
            return Err(SharedMemoryError::OverLimit { name, range, bytes, limit });
        }
        let source = match &memory {
            Some(source) => source,
            None => memory.insert(File::open("/proc/self/mem").map_err(failed("/proc/self/mem"))?),
        };
        copies.push(copy(&vma, &data, source)?);
    }
    Ok(copies)
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> SharedMemoryError {
    move |error| SharedMemoryError::Copy { what, error }
}

fn copy(vma: &SharedVma, data: &[SeedRange], source: &File) -> Result<Copied, SharedMemoryError> {
    let len = usize::try_from(vma.range.len()).unwrap_or(usize::MAX);
    let memory = Guarded::new(len).map_err(failed("mapping for the copy"))?;
    let page = usize::try_from(page_size()).unwrap_or(4096);
    let mut pages = SharedPages::of(source.as_raw_fd(), vma.range, page);
    for range in data {
        let offset = usize::try_from(range.start.0 - vma.range.start.0).unwrap_or(usize::MAX);
        let len = usize::try_from(range.len()).unwrap_or(usize::MAX);
        assert!(offset.checked_add(len).is_some());
        let (first, _end) = (memory.at(offset), memory.at(offset + len));
        // SAFETY: `offset..offset + len` lies in the new mapping (`at` asserts it), which has no other user.
        let read = unsafe { pages.read(range.start.0, first.as_ptr(), len) };
        read.map_err(Unread::error)?;
    }
    Ok(Copied { shared: vma.range, memory })
}

/// A shared mapping of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SharedVma {
    pub(super) range: SeedRange,
    writable: bool,
    pub(super) name: String,
    /// Device, major and minor, and inode.
    file: (u32, u32, u64),
    /// The same file is mapped to be written, too.
    is_written: bool,
}

impl SharedVma {
    /// Whether its bytes can change under a seed. A view that is read-only here may be written through
    /// another one, and, where the memory has no file, through another process's.
    pub(super) fn needs_copy(&self) -> bool {
        !self.is_device() && (self.writable || self.is_written || self.is_memory())
    }

    /// Memory without a file: mincore(2) knows which pages exist.
    pub(super) fn is_memory(&self) -> bool {
        ["/memfd:", "/dev/zero", "/SYSV", "/dev/shm/"]
            .iter()
            .any(|prefix| self.name.starts_with(prefix))
    }

    fn is_device(&self) -> bool {
        self.name.starts_with("anon_inode:")
            || (self.name.starts_with("/dev/") && !self.is_memory())
    }

    /// The parts that hold data.
    fn data(&self) -> Result<Vec<SeedRange>, SharedMemoryError> {
        if !self.is_memory() || swap_exists() {
            return Ok(vec![self.range]);
        }
        const WINDOW_PAGES: u64 = 16 << 10;
        let page = page_size();
        let mut runs: Vec<SeedRange> = Vec::new();
        let mut resident = vec![0u8; 0];
        let mut at = self.range.start.0;
        while at < self.range.end.0 {
            let end = self.range.end.0.min(at + WINDOW_PAGES * page);
            let len = usize::try_from(end - at).unwrap_or(0);
            resident.resize(len / usize::try_from(page).unwrap_or(4096), 0);
            // SAFETY: the range is mapped and `resident` has one byte for each of its pages.
            let answer = unsafe {
                let start = usize::try_from(at).unwrap_or(0) as *mut libc::c_void;
                libc::mincore(start, len, resident.as_mut_ptr())
            };
            if answer != 0 {
                return Err(failed("mincore")(io::Error::last_os_error()));
            }
            for (start, _) in (at..end)
                .step_by(usize::try_from(page).unwrap_or(4096))
                .zip(&resident)
                .filter(|(_, byte)| **byte & 1 != 0)
            {
                match runs.last_mut() {
                    Some(last) if last.end.0 == start => last.end.0 += page,
                    _ => runs.push(SeedRange::new(start, start + page)),
                }
            }
            at = end;
        }
        Ok(runs)
    }
}

/// With swap, a page that mincore(2) does not see may be on it.
pub(super) fn swap_exists() -> bool {
    // SAFETY: sysinfo fills the struct, for which all zero is a valid value.
    unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        libc::sysinfo(&raw mut info) != 0 || info.totalswap != 0
    }
}

pub(super) fn shared_vmas() -> Result<Vec<SharedVma>, SharedMemoryError> {
    let maps = File::open("/proc/self/maps").map_err(failed("/proc/self/maps"))?;
    let mut vmas = match queried(&maps) {
        Ok(vmas) => vmas,
        // Kernels before 6.11.
        Err(_) => {
            listed(&fs::read_to_string("/proc/self/maps").map_err(failed("/proc/self/maps"))?)
        }
    };
    note_written(&mut vmas);
    Ok(vmas)
}

/// Of views of one file, one can show what is written through another.
fn note_written(vmas: &mut [SharedVma]) {
    let written: HashSet<(u32, u32, u64)> =
        vmas.iter().filter(|vma| vma.writable).map(|vma| vma.file).collect();
    vmas.iter_mut().for_each(|vma| vma.is_written = written.contains(&vma.file));
}

/// linux/fs.h: struct procmap_query.
#[repr(C)]
#[derive(Default)]
struct ProcmapQuery {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

const PROCMAP_QUERY: libc::c_ulong = (3 << 30)
    | ((size_of::<ProcmapQuery>() as libc::c_ulong) << 16)
    | ((b'f' as libc::c_ulong) << 8)
    | 17;
const VMA_WRITABLE: u64 = 0x02;
const VMA_SHARED: u64 = 0x08;
const COVERING_OR_NEXT: u64 = 0x10;

/// By PROCMAP_QUERY: one call for each shared VMA and one more.
fn queried(maps: &File) -> io::Result<Vec<SharedVma>> {
    let mut vmas = Vec::new();
    let mut name = [0u8; 4096];
    let mut at = 0;
    loop {
        let mut query = ProcmapQuery {
            size: size_of::<ProcmapQuery>() as u64,
            query_flags: COVERING_OR_NEXT | VMA_SHARED,
            query_addr: at,
            vma_name_size: 4096,
            vma_name_addr: name.as_mut_ptr() as usize as u64,
            ..ProcmapQuery::default()
        };
        // SAFETY: the kernel writes to `query` and at most 4096 bytes to `name`, both live.
        if unsafe { libc::ioctl(maps.as_raw_fd(), PROCMAP_QUERY, &raw mut query) } != 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ENOENT) { Ok(vmas) } else { Err(error) };
        }
        let len = (query.vma_name_size as usize).saturating_sub(1).min(name.len());
        vmas.push(SharedVma {
            range: SeedRange::new(query.vma_start, query.vma_end),
            writable: query.vma_flags & VMA_WRITABLE != 0,
            name: String::from_utf8_lossy(&name[..len]).into_owned(),
            file: (query.dev_major, query.dev_minor, query.inode),
            is_written: false,
        });
        at = query.vma_end;
    }
}

/// From the text of proc_pid_maps(5).
fn listed(maps: &str) -> Vec<SharedVma> {
    let vma = |line: &str| {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let perms = fields.next()?.as_bytes();
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        let inode = fields.next()?.parse().ok()?;
        let name = fields.next().unwrap_or("").trim_start().to_owned();
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let number = |text| u32::from_str_radix(text, 16).ok();
        (perms.get(3) == Some(&b's')).then_some(SharedVma {
            range: SeedRange::new(hex(start)?, hex(end)?),
            writable: perms.get(1) == Some(&b'w'),
            name,
            file: (number(major)?, number(minor)?, inode),
            is_written: false,
        })
    };
    maps.lines().filter_map(vma).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    struct Mapping(*mut u8, usize);

    impl Mapping {
        fn anonymous(pages: usize) -> Self {
            let (prot, len) = (libc::PROT_READ | libc::PROT_WRITE, pages * 4096);
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            // SAFETY: a new mapping.
            let at = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, -1, 0) };
            assert_ne!(at, libc::MAP_FAILED);
            Mapping(at.cast(), len)
        }

        fn write(&self, offset: usize, byte: u8) {
            assert!(offset < self.1);
            // SAFETY: inside the mapping.
            unsafe { self.0.add(offset).write_volatile(byte) };
        }

        fn start(&self) -> u64 {
            self.0 as usize as u64
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // SAFETY: ours.
            unsafe { libc::munmap(self.0.cast(), self.1) };
        }
    }

    #[test]
    fn both_ways_to_find_shared_memory_agree() {
        let mapping = Mapping::anonymous(3);
        let maps = File::open("/proc/self/maps").unwrap();
        let text = fs::read_to_string("/proc/self/maps").unwrap();
        let ours = |vmas: Vec<SharedVma>| {
            vmas.into_iter().find(|vma| vma.range.start.0 == mapping.start())
        };
        let from_text = ours(listed(&text)).unwrap();
        assert!(from_text.needs_copy() && from_text.range.len() == 3 * 4096);
        if let Ok(vmas) = queried(&maps) {
            assert_eq!(ours(vmas), Some(from_text));
        }
    }

    #[test]
    fn only_pages_with_data_are_copied() {
        let mapping = Mapping::anonymous(1000);
        mapping.write(5 * 4096 + 7, 9);
        mapping.write(6 * 4096, 8);
        mapping.write(999 * 4096, 7);
        let vmas = shared_vmas().unwrap();
        let vma = vmas.iter().find(|vma| vma.range.start.0 == mapping.start()).unwrap();
        let data = vma.data().unwrap();
        if !swap_exists() {
            let pages: Vec<_> = data
                .iter()
                .map(|run| ((run.start.0 - mapping.start()) / 4096, run.len() / 4096))
                .collect();
            assert_eq!(pages, [(5, 2), (999, 1)]);
        }
        let copied = copy(vma, &data, &File::open("/proc/self/mem").unwrap()).unwrap();
        mapping.write(5 * 4096 + 7, 1);
        // SAFETY: inside the copy.
        unsafe {
            assert_eq!(*copied.memory.at(5 * 4096 + 7).as_ptr(), 9);
            assert_eq!(*copied.memory.at(999 * 4096).as_ptr(), 7);
            assert_eq!(*copied.memory.at(4096).as_ptr(), 0);
        }
    }

    #[test]
    fn devices_and_read_only_files_are_left_alone() {
        let vma = |name: &str, writable| SharedVma {
            range: SeedRange::new(0x1000, 0x2000),
            writable,
            name: name.to_owned(),
            file: (8, 1, name.len() as u64),
            is_written: false,
        };
        assert!(!vma("/dev/dri/card0", true).needs_copy());
        assert!(!vma("anon_inode:[io_uring]", true).needs_copy());
        assert!(!vma("/usr/lib/gconv/gconv-modules.cache", false).needs_copy());
        assert!(vma("/var/lib/data.mdb", true).needs_copy());
        assert!(vma("/memfd:jit (deleted)", false).needs_copy());
        assert!(vma("/dev/shm/x", true).needs_copy());
        // A view that is read-only beside one that is written.
        let names = [("/var/lib/data.mdb", true), ("/var/lib/data.mdb", false), ("/etc/x", false)];
        let mut views = names.map(|(name, writable)| vma(name, writable));
        note_written(&mut views);
        assert_eq!(views.map(|view| view.needs_copy()), [true, true, false]);
    }
}
