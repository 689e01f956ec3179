//! What may still be image-backed: the agent's ranges with one bit a chunk, and what was moved since.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::abi::{
    MAX_MOVED, RANGE_CLEAN, RANGE_FILE, RANGE_SHARED, StubMoved, StubRange, StubTable,
};

/// The low bits of `StubMoved::state`.
const PARTS: u64 = 48;
const PART_BITS: u64 = (1 << PARTS) - 1;
/// Set in `StubMoved::state` while the entry is being written.
const BEING_WRITTEN: u64 = 1 << PARTS;

/// The table of this process.
#[derive(Clone, Copy)]
pub struct Table(*mut StubTable);

/// What a range of the image's file was in the seed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Anonymous,
    Shared,
    /// A private mapping of a file, of which pages were written.
    File,
    /// A file's own bytes; the kernel's own behaviour is right for it.
    Other,
}

impl Table {
    /// The table at `head`.
    ///
    /// # Safety
    /// A table as the agent writes it lies there for as long as the process runs. Its first five words and
    /// its ranges never change; the rest is only ever accessed atomically.
    pub unsafe fn at(head: *mut StubTable) -> Self {
        Table(head)
    }

    pub fn is_image(self, dev_major: u32, dev_minor: u32, inode: u64) -> bool {
        // SAFETY: `at`'s promise.
        let head = unsafe { (&raw const (*self.0).inode).read() };
        // SAFETY: as above.
        let (major, minor) = unsafe { ((*self.0).dev_major, (*self.0).dev_minor) };
        head == inode && major == dev_major && minor == dev_minor
    }

    /// What lay at `offset` of the image's file.
    pub fn origin(self, offset: u64) -> Origin {
        let index = self.first(|range| range.offset + (range.end - range.start) > offset);
        match self.range(index) {
            Some(range) if range.offset <= offset => match range.kind {
                RANGE_SHARED => Origin::Shared,
                RANGE_FILE => Origin::File,
                RANGE_CLEAN => Origin::Other,
                _ => Origin::Anonymous,
            },
            _ => Origin::Other,
        }
    }

    /// Where the file's own bytes lie beneath what `len` bytes from `offset` of the image's file show, an `Origin::File`;
    /// `None`, too, where they are not all of one mapping.
    pub fn beneath(self, offset: u64, len: u64) -> Option<u64> {
        let index = self.first(|range| range.offset + (range.end - range.start) > offset);
        let range = self.range(index)?;
        let left = (range.end - range.start).checked_sub(offset.checked_sub(range.offset)?)?;
        (range.beneath != 0 && len <= left).then(|| range.beneath + (offset - range.offset))
    }

    /// Whether `[start, end)` touches memory that ever was image-backed.
    pub fn knows(self, start: u64, end: u64) -> bool {
        if self.always_ask().load(Ordering::Acquire) != 0 {
            return true;
        }
        let index = self.first(|range| range.end > start);
        self.range(index).is_some_and(|range| range.start < end)
            || self.moved().any(|moved| {
                let range = moved.range();
                range.state & PART_BITS != 0 && range.start < end && range.end > start
            })
    }

    /// Whether a page of `[start, end)` may be image-backed.
    pub fn may_hold_image(self, start: u64, end: u64) -> bool {
        if self.always_ask().load(Ordering::Acquire) != 0 {
            return true;
        }
        let mut index = self.first(|range| range.end > start);
        while let Some(range) = self.range(index) {
            if range.start >= end {
                break;
            }
            if self.any_bit(&range, start.max(range.start), end.min(range.end)) {
                return true;
            }
            index += 1;
        }
        self.moved().any(|moved| moved.range().any_part(start, end))
    }

    /// `[start, end)`, widened to whole chunks.
    pub fn chunks_around(self, start: u64, end: u64) -> (u64, u64) {
        let chunk = 1 << self.chunk_shift();
        (start & !(chunk - 1), (end + chunk - 1) & !(chunk - 1))
    }

    /// No page of `[start, end)` is image-backed: clears the bits of chunks that lie inside it.
    pub fn clear(self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let shift = self.chunk_shift();
        let mut index = self.first(|range| range.end > start);
        while let Some(range) = self.range(index) {
            if range.start >= end {
                break;
            }
            let mut chunk = start.max(range.start) >> shift;
            let last = (end.min(range.end) - 1) >> shift;
            while chunk <= last {
                let chunk_start = (chunk << shift).max(range.start);
                let chunk_end = ((chunk + 1) << shift).min(range.end);
                if chunk_start >= start && chunk_end <= end {
                    let bit = chunk - (range.start >> shift) + u64::from(range.first_bit);
                    self.word(bit >> 6).fetch_and(!(1 << (bit & 63)), Ordering::AcqRel);
                }
                chunk += 1;
            }
            index += 1;
        }
    }

    /// Remembers that `[start, end)` may be image-backed from now on.
    pub fn add_moved(self, start: u64, end: u64) {
        for moved in self.moved() {
            let state = moved.state().load(Ordering::Acquire);
            if state & (PART_BITS | BEING_WRITTEN) != 0 {
                continue;
            }
            let writing = (state & !PART_BITS).wrapping_add(BEING_WRITTEN);
            let claimed =
                moved.state().compare_exchange(state, writing, Ordering::AcqRel, Ordering::Relaxed);
            if claimed.is_err() {
                continue;
            }
            moved.start().store(start, Ordering::Relaxed);
            moved.end().store(end, Ordering::Relaxed);
            let ready = writing.wrapping_add(BEING_WRITTEN) | PART_BITS;
            moved.state().store(ready, Ordering::Release);
            return;
        }
        self.always_ask().store(1, Ordering::Release);
    }

    /// The moved ranges' slots.
    pub fn moved(self) -> impl Iterator<Item = MovedSlot> {
        (0..MAX_MOVED).map(move |index| {
            // SAFETY: `index` is inside the array, whose address alone is taken.
            MovedSlot(unsafe { (&raw mut (*self.0).moved).cast::<StubMoved>().add(index) })
        })
    }

    pub fn maps_as_text(self) -> &'static AtomicU32 {
        // SAFETY: `at`'s promise.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.0).maps_as_text) }
    }

    pub fn moves_span(self) -> &'static AtomicU32 {
        // SAFETY: `at`'s promise.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.0).moves_span) }
    }

    fn always_ask(self) -> &'static AtomicU32 {
        // SAFETY: `at`'s promise.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.0).always_ask) }
    }

    fn chunk_shift(self) -> u32 {
        // SAFETY: `at`'s promise.
        unsafe { (*self.0).chunk_shift }
    }

    fn ranges(self) -> u64 {
        // SAFETY: `at`'s promise.
        unsafe { (*self.0).ranges }
    }

    fn range(self, index: u64) -> Option<StubRange> {
        // SAFETY: `at`'s promise; the ranges stand behind the head and `index` is one.
        (index < self.ranges()).then(|| unsafe { self.range_at(index).read() })
    }

    fn range_at(self, index: u64) -> *const StubRange {
        self.0.wrapping_add(1).cast::<StubRange>().wrapping_add(index as usize)
    }

    /// The first range for which `is_behind`, which stays true once it is.
    #[inline(always)]
    fn first(self, is_behind: impl Fn(&StubRange) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.ranges());
        while low < high {
            let middle = low + (high - low) / 2;
            // SAFETY: `middle` is less than the number of ranges.
            match is_behind(unsafe { &*self.range_at(middle) }) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        low
    }

    /// Whether a bit is set for a chunk of `[start, end)`, which lies inside `range` and is not empty.
    fn any_bit(self, range: &StubRange, start: u64, end: u64) -> bool {
        let shift = self.chunk_shift();
        let base = u64::from(range.first_bit).wrapping_sub(range.start >> shift);
        let (mut bit, last) =
            (base.wrapping_add(start >> shift), base.wrapping_add((end - 1) >> shift));
        while bit <= last {
            let rest = self.word(bit >> 6).load(Ordering::Acquire) >> (bit & 63);
            let wanted = last - bit;
            let mask = if wanted >= 63 { u64::MAX } else { (2 << wanted) - 1 };
            if rest & mask != 0 {
                return true;
            }
            bit = (bit | 63) + 1;
        }
        false
    }

    fn word(self, index: u64) -> &'static AtomicU64 {
        let bitmap = self.range_at(self.ranges()).cast::<u64>().cast_mut();
        // SAFETY: the agent gave a bit to every chunk of every range; `index` is that of one.
        unsafe { AtomicU64::from_ptr(bitmap.wrapping_add(index as usize)) }
    }
}

/// One moved range as it lies in the table, under the eyes of other threads.
#[derive(Clone, Copy)]
pub struct MovedSlot(*mut StubMoved);

impl MovedSlot {
    /// What it holds now. Where `state` tells no part, the addresses mean nothing.
    pub fn range(self) -> MovedRange {
        let state = self.state().load(Ordering::Acquire);
        let start = self.start().load(Ordering::Relaxed);
        MovedRange { slot: self, state, start, end: self.end().load(Ordering::Relaxed) }
    }

    fn state(self) -> &'static AtomicU64 {
        // SAFETY: `Table::at`'s promise.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.0).state) }
    }

    fn start(self) -> &'static AtomicU64 {
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.0).start) }
    }

    fn end(self) -> &'static AtomicU64 {
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(&raw mut (*self.0).end) }
    }
}

/// A moved range as it was found.
#[derive(Clone, Copy)]
pub struct MovedRange {
    slot: MovedSlot,
    state: u64,
    start: u64,
    end: u64,
}

impl MovedRange {
    /// What `[start, end)` and this range share, widened to whole parts.
    pub fn parts_around(&self, start: u64, end: u64) -> Option<(u64, u64)> {
        if self.state & PART_BITS == 0 || self.start >= end || self.end <= start {
            return None;
        }
        let part = 1 << self.part_shift();
        let first = (start.max(self.start) - self.start) & !(part - 1);
        let last = (end.min(self.end) - self.start + part - 1) & !(part - 1);
        Some((self.start + first, (self.start + last).min(self.end)))
    }

    /// No page of `[start, end)` is image-backed: clears the bits of parts that lie inside it. Does nothing
    /// once someone else has changed the entry; a bit too many does no harm.
    pub fn clear(&mut self, start: u64, end: u64) {
        let shift = self.part_shift();
        let mut left = self.state;
        let mut part = 0;
        while part < PARTS {
            let part_start = self.start + (part << shift);
            let part_end = (part_start + (1 << shift)).min(self.end);
            if part_start >= self.end || (part_start >= start && part_end <= end) {
                left &= !(1 << part);
            }
            part += 1;
        }
        let swapped = self.slot.state().compare_exchange(
            self.state,
            left,
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        if swapped.is_ok() {
            self.state = left;
        }
    }

    fn any_part(&self, start: u64, end: u64) -> bool {
        let Some((first, last)) = self.parts_around(start, end) else { return false };
        let shift = self.part_shift();
        let first = (first - self.start) >> shift;
        let last = (last - 1 - self.start) >> shift;
        (self.state & PART_BITS) >> first & ((2 << (last - first)) - 1) != 0
    }

    /// log2 of a part's bytes: `PARTS` of them hold the range.
    fn part_shift(&self) -> u32 {
        let mut shift = 12;
        while (self.end - self.start - 1) >> shift >= PARTS {
            shift += 1;
        }
        shift
    }
}

const _: () = assert!(size_of::<StubTable>() % align_of::<StubRange>() == 0);
