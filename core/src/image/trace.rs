//! Which pages a rehearsal missed, and in what order: what will be pushed to other hosts.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::layout::ImageLayout;
use crate::descriptor::{ImageOffset, SeedAddr, SeedRange};

/// Misses that one trace can hold; later ones are not recorded.
const MAX_TRACED: usize = 16 << 10;

/// A record of misses, while it is switched on.
#[derive(Debug, Default)]
pub(super) struct Trace {
    on: AtomicBool,
    misses: Mutex<Vec<(u64, u32)>>,
}

impl Trace {
    pub(super) fn start(&self) {
        let mut misses = self.misses.lock();
        misses.clear();
        misses.reserve_exact(MAX_TRACED);
        self.on.store(true, Ordering::Release);
    }

    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    pub(super) fn record(&self, offset: u64, size: u32) {
        let mut misses = self.misses.lock();
        if misses.len() < MAX_TRACED {
            misses.push((offset, size));
        }
    }

    /// Ends the trace. The addresses missed since its start, in order, one range where they join.
    pub(super) fn take(&self, layout: &ImageLayout) -> Vec<SeedRange> {
        self.on.store(false, Ordering::Release);
        let misses = std::mem::take(&mut *self.misses.lock());
        let mut ranges: Vec<SeedRange> = Vec::new();
        for range in misses.iter().flat_map(|&(offset, size)| addresses(layout, offset, size)) {
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        ranges
    }
}

/// The parts of an image's range that are addresses.
pub(super) fn addresses(
    layout: &ImageLayout,
    offset: u64,
    size: u32,
) -> impl Iterator<Item = SeedRange> + use<'_> {
    let end = offset + u64::from(size);
    let first = layout.slots().partition_point(|slot| slot.offset.0 + slot.range.len() <= offset);
    layout.slots()[first..].iter().take_while(move |slot| slot.offset.0 < end).filter_map(
        move |slot| {
            let from = slot.offset.0.max(offset);
            let to = (slot.offset.0 + slot.range.len()).min(end);
            let start = layout.address_of(ImageOffset(from))?;
            Some(SeedRange { start, end: SeedAddr(start.0 + (to - from)) })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{Vma, VmaFlags, VmaKind};

    #[test]
    fn misses_come_back_as_addresses_in_order_and_joined() {
        let vma = |start, end| Vma {
            range: SeedRange::new(start, end),
            prot: 3,
            kind: VmaKind::Anonymous,
            flags: VmaFlags::default(),
        };
        let layout =
            ImageLayout::new(&[vma(0x10_0000, 0x11_0000), vma(0x20_0000, 0x21_0000)], 4096);
        let offset = |addr| layout.offset_of(SeedAddr(addr)).unwrap().0;
        let trace = Trace::default();
        trace.start();
        trace.record(offset(0x20_4000), 0x2000);
        trace.record(offset(0x20_6000), 0x1000);
        trace.record(offset(0x10_0000) - 0x1000, 0x2000);
        assert_eq!(
            trace.take(&layout),
            [SeedRange::new(0x20_4000, 0x20_7000), SeedRange::new(0x10_0000, 0x10_1000)]
        );
        assert!(!trace.is_on());
    }
}
