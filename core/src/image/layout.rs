//! Where each VMA lies in an image's file: pure arithmetic.
//!
//! ```text
//! addresses   ..[ text | rodata | data ]....[ heap ].............[ array           ]..
//! offsets     gap [ text | rodata | data ] gap [ heap ] gap [ array           ] gap
//!                 `--- one slot ---------'     `slot -'     `--- slot -------'
//! ```
//! A *slot* is one VMA, or neighbouring VMAs of one file (they may become one mapping again). Behind
//! every slot is a gap of at least [`GUARD`] bytes that reads as zeros: a mapping that grows in a child
//! must not run into its neighbour's bytes. Offset and address are equal modulo [`ALIGNMENT`], so that
//! huge pages remain possible. Offsets are dense: the page cache's tree stays shallow.
//! Last stand the slots of what lies beneath written pages of files (`descriptor/beneath.rs`).

use crate::descriptor::{BENEATH, ImageOffset, SeedAddr, SeedRange, Vma, VmaKind};

/// Offset and address of a byte are equal modulo this: the size of a huge page.
pub const ALIGNMENT: u64 = 2 << 20;
/// Bytes behind a slot, at least, that belong to no VMA; more than the kernel ever reads around.
pub const GUARD: u64 = 2 << 20;

/// Where the VMAs of one seed lie in its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLayout {
    /// Ascending in address and in offset alike.
    slots: Vec<Slot>,
    page_size: u64,
}

/// A range of addresses with a place in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The addresses.
    pub range: SeedRange,
    /// The place of the first one.
    pub offset: ImageOffset,
}

impl Slot {
    fn offset_end(&self) -> u64 {
        self.offset.0 + self.range.len()
    }
}

/// What lies at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The byte at `addr`; `left` bytes of its slot begin with it.
    Slot { addr: SeedAddr, left: u64 },
    /// No VMA's byte, and the next `left` bytes are none either.
    Gap { left: u64 },
}

impl ImageLayout {
    /// Gives every VMA a place, but for those that a child has from elsewhere (vvar, holes).
    /// `vmas` must ascend.
    pub fn new(vmas: &[Vma], page_size: u64) -> Self {
        let mut slots: Vec<Slot> = Vec::new();
        let mut before: Option<&Vma> = None;
        for vma in vmas {
            if matches!(vma.kind, VmaKind::Vvar | VmaKind::Hole) || vma.range.is_empty() {
                before = None;
                continue;
            }
            match slots.last_mut() {
                Some(slot) if before.is_some_and(|before| vma.continues(before)) => {
                    slot.range.end = vma.range.end;
                }
                last => {
                    let free = last.map_or(0, |slot| slot.offset_end()) + GUARD;
                    let ahead = vma.range.start.0.wrapping_sub(free) % ALIGNMENT;
                    slots.push(Slot { range: vma.range, offset: ImageOffset(free + ahead) });
                }
            }
            before = Some(vma);
        }
        ImageLayout { slots, page_size }
    }

    /// From where to where what lies beneath written pages has its places; `None`: there is nothing.
    pub fn beneath(&self) -> Option<(ImageOffset, ImageOffset)> {
        let first = self.slots.partition_point(|slot| slot.range.start.0 < BENEATH);
        let (first, last) = (self.slots.get(first)?, self.slots.last()?);
        Some((first.offset, ImageOffset(last.offset_end())))
    }

    /// The place of the byte at `addr`.
    pub fn offset_of(&self, addr: SeedAddr) -> Option<ImageOffset> {
        let after = self.slots.partition_point(|slot| slot.range.end <= addr);
        let slot = self.slots.get(after).filter(|slot| slot.range.contains(addr))?;
        Some(ImageOffset(slot.offset.0 + (addr.0 - slot.range.start.0)))
    }

    /// The address of the byte at `offset`; `None` in a gap.
    pub fn address_of(&self, offset: ImageOffset) -> Option<SeedAddr> {
        match self.place_of(offset) {
            Place::Slot { addr, .. } => Some(addr),
            Place::Gap { .. } => None,
        }
    }

    /// All slots, ascending.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The first offset behind all slots and their gaps.
    pub fn end(&self) -> ImageOffset {
        ImageOffset(self.slots.last().map_or(0, Slot::offset_end) + GUARD)
    }

    pub(super) fn place_of(&self, offset: ImageOffset) -> Place {
        let after = self.slots.partition_point(|slot| slot.offset_end() <= offset.0);
        match self.slots.get(after) {
            None => Place::Gap { left: u64::MAX - offset.0 },
            Some(slot) if offset.0 < slot.offset.0 => Place::Gap { left: slot.offset.0 - offset.0 },
            Some(slot) => {
                let addr = slot.range.start.0 + (offset.0 - slot.offset.0);
                Place::Slot { addr: SeedAddr(addr), left: slot.offset_end() - offset.0 }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::descriptor::VmaFlags;

    const PAGE: u64 = 4096;

    fn vma(start: u64, pages: u64, kind: VmaKind) -> Vma {
        let range = SeedRange::new(start, start + pages * PAGE);
        Vma { range, prot: 3, kind, flags: VmaFlags::default() }
    }

    fn kinds() -> impl Strategy<Value = VmaKind> {
        prop_oneof![
            4 => Just(VmaKind::Anonymous),
            1 => Just(VmaKind::Stack),
            1 => Just(VmaKind::Shared),
            1 => Just(VmaKind::Vdso),
            1 => Just(VmaKind::Hole),
            4 => (0u16..3).prop_map(|file| VmaKind::File { file, offset: 0 }),
        ]
    }

    fn any_vmas() -> impl Strategy<Value = Vec<Vma>> {
        let one = (prop_oneof![Just(0u64), 0u64..2000], 1u64..3000, kinds());
        prop::collection::vec(one, 1..40).prop_map(|list| {
            let mut at = 0x40_0000;
            let mut vmas = Vec::new();
            for (gap, pages, kind) in list {
                at += gap * PAGE;
                vmas.push(vma(at, pages, kind));
                at += pages * PAGE;
            }
            vmas
        })
    }

    fn has_a_place(vma: &Vma) -> bool {
        !matches!(vma.kind, VmaKind::Vvar | VmaKind::Hole)
    }

    #[test]
    fn places_are_aligned_to_pages_of_each_size() {
        for page in [1u64 << 12, 1 << 14, 1 << 16] {
            let at = |start: u64, end: u64, kind| Vma {
                range: SeedRange::new(start * page, end * page),
                ..vma(0, 1, kind)
            };
            let vmas = [
                at(3, 5, VmaKind::Anonymous),
                at(5, 6, VmaKind::Hole),
                at(6, 7, VmaKind::File { file: 0, offset: 0 }),
                at(1001, 1009, VmaKind::Anonymous),
            ];
            let layout = ImageLayout::new(&vmas, page);
            for vma in vmas.iter().filter(|vma| has_a_place(vma)) {
                let offset = layout.offset_of(vma.range.start).unwrap();
                assert_eq!(offset.0 % page, 0, "{page}");
                assert_eq!(layout.address_of(offset), Some(vma.range.start), "{page}");
            }
        }
    }

    proptest! {
        #[test]
        fn places_and_addresses_are_inverse(vmas in any_vmas(), within in 0u64..3000 * PAGE) {
            let layout = ImageLayout::new(&vmas, PAGE);
            for vma in &vmas {
                let addr = SeedAddr(vma.range.start.0 + within % vma.range.len());
                let offset = layout.offset_of(addr);
                prop_assert_eq!(offset.is_some(), has_a_place(vma));
                if let Some(offset) = offset {
                    prop_assert_eq!(layout.address_of(offset), Some(addr));
                    prop_assert_eq!(offset.0 % ALIGNMENT, addr.0 % ALIGNMENT);
                }
            }
        }

        #[test]
        fn slots_are_disjoint_dense_and_guarded(vmas in any_vmas()) {
            let layout = ImageLayout::new(&vmas, PAGE);
            let mut end = 0;
            for slot in layout.slots() {
                prop_assert!(slot.offset.0 >= end + GUARD);
                prop_assert!(slot.offset.0 < end + GUARD + ALIGNMENT);
                for inside_gap in [slot.offset.0 - 1, slot.offset.0 - GUARD, end] {
                    prop_assert_eq!(layout.address_of(ImageOffset(inside_gap)), None);
                }
                end = slot.offset.0 + slot.range.len();
                prop_assert_eq!(layout.address_of(ImageOffset(end)), None);
            }
            prop_assert_eq!(layout.end().0, end + GUARD);
        }
    }

    #[test]
    fn neighbours_of_one_file_share_a_slot_and_nobody_else_does() {
        let file = |file| VmaKind::File { file, offset: 0 };
        let layout = ImageLayout::new(
            &[
                vma(0x10_0000, 1, file(0)),
                vma(0x10_1000, 1, file(0)),
                vma(0x10_2000, 1, VmaKind::Anonymous),
                vma(0x10_3000, 1, file(0)),
                vma(0x10_4000, 1, file(1)),
                vma(0x10_6000, 1, file(1)),
                vma(0x10_7000, 1, VmaKind::Anonymous),
                vma(0x10_8000, 1, VmaKind::Anonymous),
            ],
            PAGE,
        );
        let pages: Vec<u64> = layout.slots().iter().map(|slot| slot.range.len() / PAGE).collect();
        assert_eq!(pages, [2, 1, 1, 1, 1, 1, 1]);
    }
}
