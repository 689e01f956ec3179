//! Shared memory, copied while every thread stands. What has to be allocated is before that.

use std::io;

use super::memory::Map;
use crate::descriptor::SeedRange;
use crate::prepare::proc_files::{close, open};
use crate::prepare::scratch::{Guarded, MAX_COPIES};
use crate::prepare::shared::{Copied, SharedMemoryError, SharedVma, shared_vmas, swap_exists};
use crate::prepare::shared_pages::{SharedPages, Unread};
use crate::sys::page_size;
use crate::sys::rawcall::rawcall;

/// Pages that one mincore(2) tells of.
const WINDOW_PAGES: usize = 16 << 10;

/// What there is to copy, and room for it.
#[derive(Debug)]
pub(super) struct Plan {
    /// All shared VMAs as they were found, in order.
    known: Vec<SeedRange>,
    sources: Vec<SharedVma>,
    pub(super) copies: Vec<Copied>,
    resident: Vec<u8>,
    by_page: bool,
    page: usize,
    limit: u64,
}

/// Why there is no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotCopied {
    /// Above the limit: the index of the VMA that was too much, and the bytes with it.
    Over { index: usize, bytes: u64 },
    /// /proc/self/mem could not be opened, or the memory not be read.
    Unreadable(Unread),
}

impl Plan {
    pub(super) fn new(limit: u64) -> Result<Self, SharedMemoryError> {
        let failed = |what| move |error| SharedMemoryError::Copy { what, error };
        let vmas = shared_vmas()?;
        let known = vmas.iter().map(|vma| vma.range).collect();
        let sources: Vec<_> = vmas.into_iter().filter(SharedVma::needs_copy).collect();
        if let Some(one_more) = sources.get(MAX_COPIES) {
            return Err(SharedMemoryError::TooMany(one_more.name.clone()));
        }
        let mut copies = Vec::with_capacity(sources.len());
        for vma in &sources {
            let len = usize::try_from(vma.range.len()).unwrap_or(usize::MAX);
            let memory = Guarded::new(len).map_err(failed("mapping for the copy"))?;
            copies.push(Copied { shared: vma.range, memory });
        }
        let page = usize::try_from(page_size()).unwrap_or(4096);
        let resident = if sources.is_empty() { Vec::new() } else { vec![0; WINDOW_PAGES] };
        let by_page = !swap_exists();
        Ok(Plan { known, sources, copies, resident, by_page, page, limit })
    }

    /// Whether the shared VMAs of `map` are those of the plan.
    pub(super) fn fits(&self, map: &Map) -> bool {
        map.shared().eq(self.known.iter().copied())
    }

    /// Copies. Nothing is allocated.
    pub(super) fn copy(&mut self) -> Result<(), NotCopied> {
        if self.sources.is_empty() {
            return Ok(());
        }
        let memory = open(c"/proc/self/mem".as_ptr().cast(), 0);
        if memory < 0 {
            return Err(NotCopied::Unreadable(Unread::Memory(memory)));
        }
        let mut bytes = 0;
        let outcome =
            (0..self.sources.len()).try_for_each(|index| self.copy_one(index, memory, &mut bytes));
        close(memory);
        outcome
    }

    fn copy_one(&mut self, index: usize, memory: i32, total: &mut u64) -> Result<(), NotCopied> {
        let (vma, into) = (&self.sources[index], &self.copies[index].memory);
        let (start, end) = (vma.range.start.0, vma.range.end.0);
        let page = self.page as u64;
        let mut source = SharedPages::of(memory, vma.range, self.page);
        let mut at = start;
        while at < end {
            let window = end.min(at + WINDOW_PAGES as u64 * page);
            let pages = usize::try_from((window - at) / page).unwrap_or(0);
            if self.by_page && vma.is_memory() {
                let resident = self.resident.as_mut_ptr();
                // SAFETY: the window is mapped and `resident` has a byte for each of its pages.
                let answer = unsafe { rawcall!(libc::SYS_mincore, at, window - at, resident) };
                if answer != 0 {
                    self.resident[..pages].fill(1);
                }
            } else {
                self.resident[..pages].fill(1);
            }
            let mut first = 0;
            while let Some(skip) = self.resident[first..pages].iter().position(|b| b & 1 != 0) {
                let from = first + skip;
                let run = self.resident[from..pages].iter().position(|b| b & 1 == 0);
                let to = run.map_or(pages, |len| from + len);
                let (place, len) = (at + from as u64 * page, (to - from) * self.page);
                *total += len as u64;
                if *total > self.limit {
                    return Err(NotCopied::Over { index, bytes: *total });
                }
                let offset = usize::try_from(place - start).unwrap_or(0);
                // SAFETY: the copy has room for all of the VMA, of which this is a part.
                let read = unsafe { source.read(place, into.at(offset).as_ptr(), len) };
                read.map_err(NotCopied::Unreadable)?;
                first = to;
            }
            at = window;
        }
        Ok(())
    }

    /// In words.
    pub(super) fn error(&self, cause: NotCopied) -> SharedMemoryError {
        let (index, bytes) = match cause {
            NotCopied::Over { index, bytes } => (index, bytes),
            NotCopied::Unreadable(why) => return why.error(),
        };
        let vma = &self.sources[index];
        SharedMemoryError::OverLimit {
            name: vma.name.clone(),
            range: vma.range,
            bytes,
            limit: self.limit,
        }
    }
}

/// That the shared memory of a process changes faster than it can be looked at.
pub(super) fn keeps_changing() -> SharedMemoryError {
    SharedMemoryError::Copy {
        what: "it is mapped and unmapped all the time",
        error: io::ErrorKind::ResourceBusy.into(),
    }
}
