//! Which pages of a process exist, and of what kind: PAGEMAP_SCAN (Linux 6.7), else the table of
//! 64-bit entries that proc_pid_pagemap(5) is.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use crate::descriptor::SeedRange;

/// What a run of existing pages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// The process's own: anonymous, written, swapped.
    Own,
    /// The kernel's shared page of zeros.
    Zero,
    /// A page of the mapped file (or of shared memory), not modified.
    File,
    /// No page: MADV_GUARD_INSTALL has made it a guard. Seen from Linux 6.15 on.
    Guard,
}

const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
/// Regions fetched by one call; more take another.
const REGIONS: usize = 4096;

/// struct pm_scan_arg of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// struct page_region of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// The existing pages of `range`, as ascending runs, from a /proc/PID/pagemap descriptor. Kernels
/// without PAGEMAP_SCAN cannot tell zero pages from others: they come as [`PageKind::Own`].
///
/// # Errors
/// The ioctl's or read's errors; `UnexpectedEof` when the process is gone.
pub fn existing_pages(
    pagemap: &File,
    range: SeedRange,
    page_size: u64,
) -> io::Result<Vec<(SeedRange, PageKind)>> {
    match scan(pagemap, range, page_size) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {
            read_entries(pagemap, range, page_size)
        }
        result => result,
    }
}

fn scan(
    pagemap: &File,
    range: SeedRange,
    page_size: u64,
) -> io::Result<Vec<(SeedRange, PageKind)>> {
    let mut found = Vec::new();
    let mut regions = vec![Region::default(); REGIONS];
    let mut start = range.start.0;
    while start < range.end.0 {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            start,
            end: range.end.0,
            vec: regions.as_mut_ptr() as u64,
            vec_len: REGIONS as u64,
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_FILE | PAGE_IS_PFNZERO,
            ..ScanArg::default()
        };
        // SAFETY: `arg` and `regions` live through the call, and `vec_len` is the length of `regions`.
        let count = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for region in &regions[..count] {
            let range = SeedRange::new(region.start, region.end);
            // A guard looks like a page that is swapped out, but for its entry.
            if region.categories & PAGE_IS_SWAPPED != 0 {
                read_into(&mut found, pagemap, range, page_size)?;
            } else {
                push(&mut found, range, kind(region.categories));
            }
        }
        // The kernel walks by pieces of 511 regions, and where the last piece comes to the end of the range, it
        // leaves in `walk_end` where the one before it had stopped.
        let walked = regions[..count].last().map_or(0, |region| region.end).max(arg.walk_end);
        if walked <= start {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        start = walked;
    }
    Ok(found)
}

fn kind(categories: u64) -> PageKind {
    if categories & PAGE_IS_PFNZERO != 0 {
        PageKind::Zero
    } else if categories & PAGE_IS_FILE != 0 && categories & PAGE_IS_SWAPPED == 0 {
        PageKind::File
    } else {
        PageKind::Own
    }
}

/// Bits of an entry, proc_pid_pagemap(5).
mod entry {
    pub(super) const PRESENT: u64 = 1 << 63;
    pub(super) const SWAPPED: u64 = 1 << 62;
    pub(super) const FILE: u64 = 1 << 61;
    pub(super) const EXCLUSIVE: u64 = 1 << 56;
    pub(super) const GUARD: u64 = 1 << 58;
}

fn read_entries(
    pagemap: &File,
    range: SeedRange,
    page_size: u64,
) -> io::Result<Vec<(SeedRange, PageKind)>> {
    let mut found = Vec::new();
    read_into(&mut found, pagemap, range, page_size)?;
    Ok(found)
}

fn read_into(
    found: &mut Vec<(SeedRange, PageKind)>,
    pagemap: &File,
    range: SeedRange,
    page_size: u64,
) -> io::Result<()> {
    each_entry(pagemap, range, page_size, |page, entry| {
        let kind = if entry & entry::GUARD != 0 {
            PageKind::Guard
        } else if entry & (entry::PRESENT | entry::SWAPPED) == 0 {
            return;
        } else if entry & entry::FILE != 0 && entry & entry::SWAPPED == 0 {
            PageKind::File
        } else {
            PageKind::Own
        };
        push(found, page, kind);
    })
}

/// Calls `found` with each page of `range` and its entry.
fn each_entry(
    pagemap: &File,
    range: SeedRange,
    page_size: u64,
    mut found: impl FnMut(SeedRange, u64),
) -> io::Result<()> {
    let mut bytes = vec![0u8; 8 * REGIONS];
    let mut page = range.start.0 / page_size;
    let end = range.end.0 / page_size;
    while page < end {
        let count = (end - page).min(REGIONS as u64);
        let bytes = &mut bytes[..8 * usize::try_from(count).unwrap_or(REGIONS)];
        pagemap.read_exact_at(bytes, page * 8)?;
        for (entry, page) in bytes.as_chunks::<8>().0.iter().zip(page..) {
            let place = SeedRange::new(page * page_size, (page + 1) * page_size);
            found(place, u64::from_le_bytes(*entry));
        }
        page += count;
    }
    Ok(())
}

/// The pages of `range` that the process has made its own since it was cloned, by writing them: private, and
/// mapped by nobody else.
///
/// # Errors
/// As [`existing_pages`].
pub fn copied_pages(
    pagemap: &File,
    range: SeedRange,
    page_size: u64,
) -> io::Result<Vec<SeedRange>> {
    let mut copied: Vec<(SeedRange, PageKind)> = Vec::new();
    for (run, kind) in existing_pages(pagemap, range, page_size)? {
        if kind != PageKind::Own {
            continue;
        }
        each_entry(pagemap, run, page_size, |page, entry| {
            if entry & (entry::PRESENT | entry::FILE | entry::EXCLUSIVE)
                == entry::PRESENT | entry::EXCLUSIVE
            {
                push(&mut copied, page, kind);
            }
        })?;
    }
    Ok(copied.into_iter().map(|(run, _)| run).collect())
}

fn push(found: &mut Vec<(SeedRange, PageKind)>, range: SeedRange, kind: PageKind) {
    match found.last_mut() {
        Some((last, last_kind)) if last.end == range.start && *last_kind == kind => {
            last.end = range.end
        }
        _ => found.push((range, kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    /// Eight anonymous pages: 1 and 2 written, 4 read only (the zero page), the rest untouched.
    fn region() -> SeedRange {
        // SAFETY: a fresh private mapping; only its own bytes are touched.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(std::ptr::null_mut(), 8 * 4096, 3, flags, -1, 0).cast::<u8>();
            libc::madvise(at.cast(), 8 * 4096, libc::MADV_NOHUGEPAGE);
            at.add(4096).write_volatile(1);
            at.add(2 * 4096).write_volatile(1);
            at.add(4 * 4096).read_volatile();
            at as u64
        };
        SeedRange::new(start, start + 8 * PAGE)
    }

    fn at(region: SeedRange, from: u64, to: u64) -> SeedRange {
        SeedRange::new(region.start.0 + from * PAGE, region.start.0 + to * PAGE)
    }

    #[test]
    fn both_ways_find_the_written_pages() {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let region = region();
        let own = (at(region, 1, 3), PageKind::Own);
        let scanned = existing_pages(&pagemap, region, PAGE).unwrap();
        assert!(scanned.contains(&own), "{scanned:?}");
        let read = read_entries(&pagemap, region, PAGE).unwrap();
        assert_eq!(read, [own, (at(region, 4, 5), PageKind::Own)]);
    }

    /// More regions in one range than the kernel takes in one piece.
    #[test]
    fn pages_with_gaps_come_in_order_and_once() {
        const PAGES: usize = 8192;
        const EVERY: usize = 8;
        // SAFETY: a fresh private mapping; only its own bytes are touched.
        let start = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let at = libc::mmap(std::ptr::null_mut(), PAGES * 4096, 3, flags, -1, 0).cast::<u8>();
            libc::madvise(at.cast(), PAGES * 4096, libc::MADV_NOHUGEPAGE);
            (0..PAGES).step_by(EVERY).for_each(|page| at.add(page * 4096).write_volatile(1));
            at as u64
        };
        let region = SeedRange::new(start, start + PAGES as u64 * PAGE);
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let found = existing_pages(&pagemap, region, PAGE).unwrap();
        let written = (0..PAGES as u64).step_by(EVERY);
        let expected: Vec<_> =
            written.map(|page| (at(region, page, page + 1), PageKind::Own)).collect();
        assert_eq!(found.len(), expected.len());
        assert!(found == expected);
    }

    /// What a fork has in common with its parent is neither's own.
    #[test]
    fn only_what_is_written_is_copied() {
        let region = region();
        let (read, write) = std::io::pipe().unwrap();
        // SAFETY: the child touches its own memory and makes system calls only.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe {
                (region.start.0 as *mut u8).add(4096).write_volatile(2);
                libc::write(write.as_raw_fd(), c"1".as_ptr().cast(), 1);
                loop {
                    libc::pause();
                }
            }
        }
        std::io::Read::read_exact(&mut &read, &mut [0]).unwrap();
        let pagemap = File::open(format!("/proc/{child}/pagemap")).unwrap();
        let copied = copied_pages(&pagemap, region, PAGE);
        // SAFETY: our child.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        assert_eq!(copied.unwrap(), [at(region, 1, 2)]);
    }

    #[test]
    fn scanning_tells_the_zero_page() {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let region = region();
        match scan(&pagemap, region, PAGE) {
            Ok(found) => assert_eq!(
                found,
                [(at(region, 1, 3), PageKind::Own), (at(region, 4, 5), PageKind::Zero)]
            ),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOTTY), "kernels before 6.7")
            }
        }
    }
}
