//! What a miss needs: a FUSE READ's range, cut by slots and page-table runs. Pure.

use super::layout::{ImageLayout, Place};
use crate::descriptor::{ImageOffset, PageTable, SeedAddr, SeedRange, Source};

/// Bytes that the kernel may ask for in one READ. Small enough that a pager thread can keep a buffer for
/// each miss that it has in flight.
pub const MAX_MISS_BYTES: usize = 128 << 10;
/// Segments of a plan: a page each.
pub(super) const MAX_SEGMENTS: usize = MAX_MISS_BYTES / 4096;

/// Bytes of a miss that have one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where they stand in the answer.
    pub(super) at: usize,
    /// How many.
    pub(super) len: usize,
    /// Their address in the child; 0 in a gap.
    pub(super) addr: SeedAddr,
    /// Where they come from.
    pub(super) source: Source,
}

const NOTHING: Segment = Segment { at: 0, len: 0, addr: SeedAddr(0), source: Source::Zero };

/// A miss, cut by source. Reused: making one allocates nothing.
#[derive(Debug)]
pub(super) struct Plan {
    segments: [Segment; MAX_SEGMENTS],
    count: usize,
}

/// A READ that this file system never lets the kernel ask: unaligned, or too large.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unplannable;

impl Plan {
    pub(super) fn new() -> Self {
        Plan { segments: [NOTHING; MAX_SEGMENTS], count: 0 }
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments[..self.count]
    }

    pub(super) fn segments_mut(&mut self) -> &mut [Segment] {
        &mut self.segments[..self.count]
    }

    /// Plans `size` bytes at `offset`. `is_here` tells which files this host has: other file runs are
    /// read from their owner.
    pub(super) fn make(
        &mut self,
        layout: &ImageLayout,
        table: &PageTable,
        is_here: impl Fn(u16) -> bool,
        offset: u64,
        size: u32,
    ) -> Result<(), Unplannable> {
        self.count = 0;
        let size = size as usize;
        if !offset.is_multiple_of(4096) || !size.is_multiple_of(4096) || size > MAX_MISS_BYTES {
            return Err(Unplannable);
        }
        let mut at = 0;
        while at < size {
            let rest = (size - at) as u64;
            match layout.place_of(ImageOffset(offset + at as u64)) {
                Place::Gap { left } => {
                    let len = cut(rest, left);
                    self.add(at, len, SeedAddr(0), Source::Zero);
                    at += len;
                }
                Place::Slot { addr, left } => {
                    let len = cut(rest, left);
                    self.slot(table, &is_here, at, addr, len);
                    at += len;
                }
            }
        }
        Ok(())
    }

    fn slot(
        &mut self,
        table: &PageTable,
        is_here: &impl Fn(u16) -> bool,
        at: usize,
        addr: SeedAddr,
        len: usize,
    ) {
        let range = SeedRange { start: addr, end: SeedAddr(addr.0 + len as u64) };
        let place = |addr: SeedAddr| at + cut(u64::MAX, addr.0 - range.start.0);
        let mut done = range.start;
        for run in table.overlapping(range) {
            let source = match run.source {
                Source::File { file, owner, addr, .. } if !is_here(file) => {
                    Source::Owner { owner, addr }
                }
                source => source,
            };
            self.add(place(done), place(run.range.start) - place(done), done, Source::Zero);
            let len = cut(u64::MAX, run.range.len());
            self.add(place(run.range.start), len, run.range.start, source);
            done = run.range.end;
        }
        self.add(place(done), place(range.end) - place(done), done, Source::Zero);
    }

    fn add(&mut self, at: usize, len: usize, addr: SeedAddr, source: Source) {
        if len == 0 {
            return;
        }
        if let Some(last) = self.segments[..self.count].last_mut()
            && last.source == Source::Zero
            && source == Source::Zero
        {
            last.len += len;
            return;
        }
        // Every segment is at least a page, and a miss has no more pages than there are segments.
        if let Some(segment) = self.segments.get_mut(self.count) {
            *segment = Segment { at, len, addr, source };
            self.count += 1;
        }
    }
}

/// The smaller one, as a length in memory: both are at most the size of a miss where it matters.
fn cut(a: u64, b: u64) -> usize {
    usize::try_from(a.min(b)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::descriptor::{OwnerIndex, Run, Vma, VmaFlags, VmaKind};

    const PAGE: u64 = 4096;

    fn layout() -> ImageLayout {
        let vma = |start, end| Vma {
            range: SeedRange::new(start, end),
            prot: 3,
            kind: VmaKind::Anonymous,
            flags: VmaFlags::default(),
        };
        ImageLayout::new(&[vma(0x10_0000, 0x20_0000), vma(0x20_0000, 0x30_0000)], PAGE)
    }

    fn owned(start: u64, end: u64, owner: u8) -> Run {
        let addr = SeedAddr(start + 0x1000_0000);
        let source = Source::Owner { owner: OwnerIndex(owner), addr };
        Run { range: SeedRange::new(start, end), source }
    }

    fn file(start: u64, end: u64, file: u16) -> Run {
        let source =
            Source::File { file, offset: 0x5000, owner: OwnerIndex(0), addr: SeedAddr(start) };
        Run { range: SeedRange::new(start, end), source }
    }

    fn plan(runs: Vec<Run>, addr: u64, size: u32) -> Vec<(usize, usize, Source)> {
        let (layout, table) = (layout(), PageTable::new(runs, PAGE).unwrap());
        let offset = layout.offset_of(SeedAddr(addr)).unwrap().0;
        let mut plan = Plan::new();
        plan.make(&layout, &table, |file| file == 1, offset, size).unwrap();
        plan.segments().iter().map(|s| (s.at, s.len, s.source)).collect()
    }

    #[test]
    fn runs_files_and_absent_pages_are_told_apart() {
        let runs = vec![
            owned(0x10_1000, 0x10_3000, 0),
            owned(0x10_3000, 0x10_4000, 1),
            file(0x10_5000, 0x10_6000, 1),
            file(0x10_6000, 0x10_7000, 2),
        ];
        let owner = |owner, addr| Source::Owner { owner: OwnerIndex(owner), addr: SeedAddr(addr) };
        let here = Source::File {
            file: 1,
            offset: 0x5000,
            owner: OwnerIndex(0),
            addr: SeedAddr(0x10_5000),
        };
        assert_eq!(
            plan(runs, 0x10_0000, 0x8000),
            [
                (0, 0x1000, Source::Zero),
                (0x1000, 0x2000, owner(0, 0x1010_1000)),
                (0x3000, 0x1000, owner(1, 0x1010_3000)),
                (0x4000, 0x1000, Source::Zero),
                (0x5000, 0x1000, here),
                (0x6000, 0x1000, owner(0, 0x10_6000)),
                (0x7000, 0x1000, Source::Zero),
            ]
        );
    }

    #[test]
    fn what_reaches_over_a_slot_into_its_gap_is_zero_there() {
        let runs = vec![owned(0x1f_f000, 0x20_1000, 0)];
        let source = Source::Owner { owner: OwnerIndex(0), addr: SeedAddr(0x101f_f000) };
        assert_eq!(
            plan(runs, 0x1f_f000, 0x3000),
            [(0, 0x1000, source), (0x1000, 0x2000, Source::Zero)]
        );
    }

    #[test]
    fn the_largest_miss_is_planned_and_one_page_more_is_not() {
        let (layout, table) = (layout(), PageTable::default());
        let mut plan = Plan::new();
        let max = u32::try_from(MAX_MISS_BYTES).unwrap();
        assert_eq!(plan.make(&layout, &table, |_| true, 0, max), Ok(()));
        for (offset, size) in [(0, max + 4096), (1, 4096), (0, 100)] {
            assert_eq!(plan.make(&layout, &table, |_| true, offset, size), Err(Unplannable));
        }
    }

    proptest! {
        #[test]
        fn segments_cover_the_miss_and_name_the_right_bytes(
            pages in prop::collection::vec(0u8..4, 64),
            first in 0u64..80,
            size in 1u32..=32,
        ) {
            let runs = pages.iter().enumerate().filter_map(|(i, kind)| {
                let start = 0x10_0000 + i as u64 * PAGE;
                match kind {
                    0 => None,
                    1 => Some(owned(start, start + PAGE, 0)),
                    2 => Some(owned(start, start + PAGE, 1)),
                    _ => Some(Run { source: Source::Zero, ..owned(start, start + PAGE, 0) }),
                }
            });
            let table = PageTable::new(runs, PAGE).unwrap();
            let layout = layout();
            let offset = layout.slots()[0].offset.0 + first * PAGE - 8 * PAGE;
            let mut plan = Plan::new();
            plan.make(&layout, &table, |_| true, offset, size * 4096).unwrap();
            let mut at = 0;
            for segment in plan.segments() {
                prop_assert_eq!(segment.at, at);
                for page in 0..segment.len / 4096 {
                    let offset = offset + (at + page * 4096) as u64;
                    let wanted = layout
                        .address_of(ImageOffset(offset))
                        .and_then(|addr| table.lookup(addr))
                        .map_or(Source::Zero, |run| run.source);
                    let got = segment.source.advanced(page as u64 * PAGE);
                    prop_assert_eq!(got, wanted);
                }
                at += segment.len;
            }
            prop_assert_eq!(at, size as usize * 4096);
        }
    }
}
