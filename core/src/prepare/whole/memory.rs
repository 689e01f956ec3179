//! What fork(2) would leave out: memory marked MADV_DONTFORK (V8's heap), shared memory, which it
//! would not freeze, and locks of memory (mlock(2)).
//!
//! Only proc_pid_smaps(5) tells which VMAs are marked, and it walks every page table to do so. So it is
//! read before the threads stop; then proc_pid_maps(5), which has the same lines without the pages, tells
//! whether anything has changed since, and only then smaps is read while they stand.

use std::io;

use crate::descriptor::{SeedAddr, SeedRange};
use crate::prepare::proc_files::{close, open};
use crate::prepare::proc_text::hex;
use crate::prepare::scratch::Guarded;
use crate::sys::rawcall::rawcall;

/// VMAs that a process may have: the kernel's default limit (vm.max_map_count).
const MAX_VMAS: usize = 65_530;
const TEXT_BYTES: usize = 64 << 10;
const LIST_BYTES: usize = (MAX_VMAS * size_of::<Vma>()).next_multiple_of(4096);

const DONT_FORK: u8 = 1;
/// `io` or `pf`: madvise(2) refuses it, and it is no ordinary memory.
const DEVICE: u8 = 2;
const SHARED: u8 = 4;
const LOCKED: u8 = 8;
const LOCKED_ON_FAULT: u8 = 16;
/// `um`, `uw` or `ui`: a userfaultfd is told of its faults, which a fork forgets.
const WATCHED: u8 = 32;

/// One VMA.
#[derive(Clone, Copy, Debug)]
struct Vma {
    range: SeedRange,
    /// Of its line in maps.
    line: u64,
    flags: u8,
}

impl Vma {
    fn is_marked(&self) -> bool {
        self.flags & (DONT_FORK | DEVICE | SHARED) == DONT_FORK
    }
}

/// The VMAs of this process, in order, in memory of their own.
#[derive(Debug)]
pub(in crate::prepare) struct Map {
    memory: Guarded,
    len: usize,
}

/// Why they are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// /proc/self/smaps could not be opened, or a line of it is not understood: the kernel's answer.
    Text(i32),
    /// More than [`MAX_VMAS`].
    TooMany,
    /// A userfaultfd is told of the faults of this memory.
    Watched(SeedRange),
}

impl Map {
    /// An empty one.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Map { memory: Guarded::new(LIST_BYTES + TEXT_BYTES)?, len: 0 })
    }

    /// Its own memory, guards included.
    pub(super) fn range(&self) -> SeedRange {
        self.memory.whole()
    }

    /// Reads smaps.
    pub(super) fn scan(&mut self) -> Result<(), Unreadable> {
        let (list, text) = self.parts();
        let mut len = 0;
        let (mut outcome, mut watched) = (Ok(()), None);
        let read = each_line(c"/proc/self/smaps", text, &mut |line| {
            if let Some(flags) = line.strip_prefix(b"VmFlags:") {
                if let Some(last) = list[..len].last_mut() {
                    last.flags |= flags_of(flags);
                    if last.flags & WATCHED != 0 {
                        watched = watched.or(Some(last.range));
                    }
                }
            } else if let Some(vma) = vma(line) {
                match list.get_mut(len) {
                    Some(place) => {
                        *place = vma;
                        len += 1;
                    }
                    None => outcome = Err(Unreadable::TooMany),
                }
            }
        });
        self.len = len;
        read.map_err(Unreadable::Text)?;
        if len == 0 {
            return Err(Unreadable::Text(-libc::ENODATA));
        }
        if let Some(range) = watched {
            // It is to be looked at anew, though maps says the same.
            self.len = 0;
            return Err(Unreadable::Watched(range));
        }
        outcome
    }

    /// Whether there was a scan.
    pub(super) fn is_known(&self) -> bool {
        self.len > 0
    }

    /// Whether maps says what smaps said. False before the first scan.
    pub(super) fn is_current(&mut self) -> bool {
        let expected = self.len;
        if expected == 0 {
            return false;
        }
        let (list, text) = self.parts();
        let (mut at, mut same) = (0, true);
        let read = each_line(c"/proc/self/maps", text, &mut |line| {
            same &= at < expected && list[at].line == hash(line);
            at += 1;
        });
        read.is_ok() && same && at == expected
    }

    /// As before the first scan.
    pub(super) fn forget(&mut self) {
        self.len = 0;
    }

    /// Shared VMAs.
    pub(super) fn shared(&self) -> impl Iterator<Item = SeedRange> {
        self.vmas().iter().filter(|vma| vma.flags & SHARED != 0).map(|vma| vma.range)
    }

    /// Marked memory, as far as it can be carried, in as few ranges as there are runs of it.
    pub(in crate::prepare) fn marked(&self) -> impl Iterator<Item = SeedRange> {
        self.runs(Vma::is_marked)
    }

    /// Memory that is locked.
    pub(in crate::prepare) fn locked(&self) -> impl Iterator<Item = SeedRange> {
        self.runs(|vma| vma.flags & LOCKED != 0)
    }

    /// What mlockall(2) has said of memory to come, in its own flags: nothing else tells it than memory that has come
    /// since, as this map's own.
    pub(in crate::prepare) fn locks_future(&self) -> i32 {
        let own = self.memory.at(0).as_ptr() as u64;
        let vma = self.vmas().iter().find(|vma| vma.range.contains(SeedAddr(own)));
        match vma.map_or(0, |vma| vma.flags & (LOCKED | LOCKED_ON_FAULT)) {
            0 | LOCKED_ON_FAULT => 0,
            LOCKED => libc::MCL_FUTURE,
            _ => libc::MCL_FUTURE | libc::MCL_ONFAULT,
        }
    }

    fn runs(&self, belongs: impl Fn(&Vma) -> bool) -> impl Iterator<Item = SeedRange> {
        let mut rest = self.vmas();
        std::iter::from_fn(move || {
            let start = rest.iter().position(&belongs)?;
            let run = &rest[start..];
            let len = run.iter().position(|vma| !belongs(vma)).unwrap_or(run.len());
            rest = &run[len..];
            Some(SeedRange { start: run[0].range.start, end: run[len - 1].range.end })
        })
    }

    /// Has a fork copy what is marked, until [`Self::mark_again`].
    ///
    /// Holes and what is not marked may lie between: madvise(2) passes both over. A device ends a call.
    pub(super) fn unmark(&self) {
        for part in self.vmas().split(|vma| vma.flags & DEVICE != 0) {
            let first = part.iter().find(|vma| vma.is_marked());
            let last = part.iter().rfind(|vma| vma.is_marked());
            if let (Some(first), Some(last)) = (first, last) {
                advise(first.range.start, last.range.end, libc::MADV_DOFORK);
            }
        }
        // Shared memory that is marked stays out of the seed's address space, as of any fork's.
        for vma in self.vmas() {
            if vma.flags & (SHARED | DONT_FORK | DEVICE) == SHARED | DONT_FORK {
                advise(vma.range.start, vma.range.end, libc::MADV_DONTFORK);
            }
        }
    }

    /// Marks it as it was.
    pub(super) fn mark_again(&self) {
        for run in self.marked() {
            advise(run.start, run.end, libc::MADV_DONTFORK);
        }
    }

    fn vmas(&self) -> &[Vma] {
        // SAFETY: the list lies at the start of the memory; `len` of it have been written.
        unsafe { std::slice::from_raw_parts(self.memory.at(0).as_ptr().cast(), self.len) }
    }

    fn parts(&mut self) -> (&mut [Vma], &mut [u8]) {
        const { assert!(align_of::<Vma>() <= 4096) };
        // SAFETY: both lie in the memory, apart from each other, and zero is a valid VMA; `self` is borrowed
        // for as long as they are.
        unsafe {
            let list = std::slice::from_raw_parts_mut(self.memory.at(0).as_ptr().cast(), MAX_VMAS);
            let text = self.memory.at(LIST_BYTES).as_ptr();
            (list, std::slice::from_raw_parts_mut(text, TEXT_BYTES))
        }
    }
}

fn advise(start: SeedAddr, end: SeedAddr, advice: i32) {
    // SAFETY: DOFORK and DONTFORK change no memory; a hole is an error that does not matter.
    unsafe { rawcall!(libc::SYS_madvise, start.0, end.0 - start.0, advice) };
}

fn flags_of(text: &[u8]) -> u8 {
    text.split(|byte| *byte == b' ').fold(0, |flags, word| {
        flags
            | match word {
                b"dc" => DONT_FORK,
                b"io" | b"pf" => DEVICE,
                b"lo" => LOCKED,
                b"lf" => LOCKED_ON_FAULT,
                b"um" | b"uw" | b"ui" => WATCHED,
                _ => 0,
            }
    })
}

/// `start-end perms ...`; other lines of smaps begin with a capital letter.
fn vma(line: &[u8]) -> Option<Vma> {
    if !line.first().is_some_and(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)) {
        return None;
    }
    let dash = line.iter().position(|byte| *byte == b'-')?;
    let blank = dash + line[dash..].iter().position(|byte| *byte == b' ')?;
    let (start, end) = (hex(&line[..dash])?, hex(&line[dash + 1..blank])?);
    let flags = if line.get(blank + 4) == Some(&b's') { SHARED } else { 0 };
    (start <= end).then(|| Vma { range: SeedRange::new(start, end), line: hash(line), flags })
}

/// FNV-1a.
fn hash(line: &[u8]) -> u64 {
    line.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Calls `found` with each line of a file of /proc; the kernel's answer if it could not be read to its end.
fn each_line(
    path: &std::ffi::CStr,
    text: &mut [u8],
    found: &mut dyn FnMut(&[u8]),
) -> Result<(), i32> {
    let fd = open(path.as_ptr().cast(), 0);
    if fd < 0 {
        return Err(fd);
    }
    let mut len = 0;
    let whole = loop {
        // SAFETY: the kernel writes at most what is left of the buffer.
        let got =
            unsafe { rawcall!(libc::SYS_read, fd, text.as_mut_ptr().add(len), text.len() - len) };
        match usize::try_from(got) {
            Ok(0) if len == 0 => break Ok(()),
            Ok(0) => break Err(-libc::ENODATA),
            Ok(bytes) => len += bytes,
            Err(_) if got == -(libc::EINTR as isize) => continue,
            Err(_) => break Err(i32::try_from(got).unwrap_or(-libc::EIO)),
        }
        let mut start = 0;
        while let Some(end) = text[start..len].iter().position(|byte| *byte == b'\n') {
            found(&text[start..start + end]);
            start += end + 1;
        }
        text.copy_within(start..len, 0);
        len -= start;
        if len == text.len() {
            break Err(-libc::ENOBUFS);
        }
    };
    close(fd);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(pages: usize) -> SeedRange {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, left where it is.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), pages << 12, libc::PROT_READ, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        SeedRange::new(at as usize as u64, (at as usize + (pages << 12)) as u64)
    }

    fn part(of: SeedRange, from: u64, to: u64) -> SeedRange {
        SeedRange::new(of.start.0 + (from << 12), of.start.0 + (to << 12))
    }

    fn is_marked(range: SeedRange) -> bool {
        let mut map = Map::new().unwrap();
        map.scan().unwrap();
        map.marked().any(|run| run.start <= range.start && range.end <= run.end)
    }

    /// In a process of its own: other tests map and unmap.
    #[test]
    fn what_is_marked_is_found_unmarked_and_marked_again() {
        let all = mapping(16);
        let (marked, hole, other) = (part(all, 2, 5), part(all, 8, 9), part(all, 12, 13));
        for range in [marked, other] {
            advise(range.start, range.end, libc::MADV_DONTFORK);
        }
        // SAFETY: inside of our own mapping.
        unsafe {
            libc::munmap(usize::try_from(hole.start.0).unwrap() as *mut _, 4096);
        }
        let mut map = Map::new().unwrap();
        map.scan().unwrap();
        let within = |map: &Map| -> Vec<_> {
            map.marked().filter(|run| !run.intersect(all).is_empty()).collect()
        };
        assert_eq!(within(&map), [marked, other]);
        map.unmark();
        assert!(!is_marked(marked) && !is_marked(other));
        map.mark_again();
        assert!(is_marked(marked) && is_marked(other));
        assert!(!is_marked(part(all, 0, 1)) && !is_marked(part(all, 6, 7)));
    }

    #[test]
    fn a_change_is_seen() {
        // Other tests of this process map, too: it must only be seen, and once in many times not be there.
        let mut map = Map::new().unwrap();
        let quiet = (0..200).any(|_| {
            map.scan().unwrap();
            map.is_current()
        });
        assert!(quiet, "maps never says what smaps said");
        let page = mapping(1);
        // SAFETY: ours.
        unsafe {
            libc::mprotect(usize::try_from(page.start.0).unwrap() as *mut _, 4096, libc::PROT_NONE);
        }
        assert!(!map.is_current());
    }

    #[test]
    fn lines_are_put_together_and_cut_off_texts_are_errors() {
        let mut text = vec![0u8; 4096];
        let mut lines = 0;
        assert_eq!(each_line(c"/proc/self/smaps", &mut text, &mut |_| lines += 1), Ok(()));
        assert!(lines > 100, "{lines}");
        let mut short = [0u8; 16];
        assert_eq!(each_line(c"/proc/self/smaps", &mut short, &mut |_| {}), Err(-libc::ENOBUFS));
        assert_eq!(each_line(c"/nonexistent", &mut text, &mut |_| {}), Err(-libc::ENOENT));
        assert!(vma(b"Size:   4 kB").is_none() && vma(b"7f00-").is_none());
        let shared = vma(b"7f00-8f00 rw-s 00000000 00:01 7 /dev/zero (deleted)").unwrap();
        assert_eq!((shared.range, shared.flags), (SeedRange::new(0x7f00, 0x8f00), SHARED));
    }
}
