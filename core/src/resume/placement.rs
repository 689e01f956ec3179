//! Where the restorer's region and the stub's trampolines lie in a child: in holes that the seed did not
//! use, and out of the way of what grows (the heap upwards, stacks and mmap's area downwards).

use super::ResumeError;
use super::abi::REGION_LEN;
use crate::descriptor::{
    Descriptor, ImageOffset, SeedAddr, SeedRange, StubPlace, VmaFlags, VmaKind,
};

/// Bytes of trampoline that each call site gets.
pub const TRAMPOLINE_LEN: u64 = 64;
/// Room behind the region where the template's own vvar and vdso wait while all else is unmapped.
pub const PARKING_LEN: u64 = 256 << 10;

/// The region stays above what a stray 32-bit pointer reaches, ...
const LOWEST: u64 = 4 << 30;
/// ... trampolines of non-PIE programs cannot, but lie above mmap_min_addr.
const LOWEST_NEAR: u64 = 1 << 20;
/// End of user space with four-level page tables.
pub(super) const USER_END: u64 = 0x7fff_ffff_f000;
/// Between where PIE programs and where mmap's area lie on x86-64.
const PREFERRED: u64 = 0x6000_0000_0000;
const ALIGNMENT: u64 = 2 << 20;
/// How far to stay from neighbours, the best first.
const DISTANCES: [u64; 3] = [64 << 30, 1 << 30, 16 << 20];
/// A 32-bit displacement reaches 2 GiB; less, so that both ends of a trampoline are in reach.
const REACH: u64 = (2 << 30) - (64 << 20);
/// Sites this far apart share trampolines.
const GROUP_SPAN: u64 = 1 << 30;
/// Kept free above the heap and below stacks.
const GROWTH: u64 = 1 << 30;
/// Kept free beside other memory.
const MARGIN: u64 = 64 << 10;

/// Where things lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The region's first address.
    pub base: u64,
    /// The trampoline of each of `Descriptor::sites`, in their order.
    pub trampolines: Vec<SeedAddr>,
    /// The pages that hold them.
    pub trampoline_pages: Vec<SeedRange>,
    /// What lies beneath written pages of files; `None`: nothing, or there is no room for it.
    pub beneath: Option<Beneath>,
}

/// A child's mapping of what lies beneath written pages (`descriptor/beneath.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beneath {
    /// Its addresses in the child.
    pub range: SeedRange,
    /// What it shows first.
    pub offset: ImageOffset,
}

impl Beneath {
    /// Where in the child lies what the image has at `place`.
    pub fn address_of(&self, place: ImageOffset) -> u64 {
        self.range.start.0 + (place.0 - self.offset.0)
    }
}

impl Placement {
    /// Finds room in `desc`'s holes. The region stays clear of `avoid`, too: what is mapped in the keeper.
    ///
    /// # Errors
    /// `NoRoom` when no hole is large or near enough.
    pub fn choose(desc: &Descriptor, avoid: &[SeedRange]) -> Result<Placement, ResumeError> {
        let own: Vec<SeedRange> = desc.vmas.iter().map(|vma| vma.range).collect();
        if let Some(place) = &desc.stub_place {
            return Placement::given(place, &own, avoid);
        }
        let all: Vec<SeedRange> = own.iter().chain(avoid).copied().collect();
        let base = base_of(REGION_LEN + PARKING_LEN, &holes(all, LOWEST))
            .ok_or(ResumeError::NoRoom { near: None })?;
        let mut placement = Placement {
            base,
            trampolines: Vec::new(),
            trampoline_pages: Vec::new(),
            beneath: None,
        };
        placement.trampolines = vec![SeedAddr(0); desc.sites.len()];
        for group in groups(desc) {
            let bytes = group.len() as u64 * TRAMPOLINE_LEN;
            let len = bytes.next_multiple_of(desc.page_size());
            let taken = own.iter().copied();
            let taken = taken.chain(placement.trampoline_pages.iter().copied());
            let taken = taken.chain([placement.region()]).collect();
            let ends = [group[0], group[group.len() - 1]].map(|site| desc.sites[site].addr.0);
            let start = near(desc, &holes(taken, LOWEST_NEAR), ends, len)
                .ok_or(ResumeError::NoRoom { near: Some(SeedAddr(ends[0])) })?;
            placement.trampoline_pages.push(SeedRange::new(start, start + len));
            for (slot, site) in (0..).zip(group) {
                placement.trampolines[site] = SeedAddr(start + slot * TRAMPOLINE_LEN);
            }
        }
        placement.trampoline_pages.sort();
        Ok(placement)
    }

    /// Where the seed's text expects it, if that is free.
    fn given(
        place: &StubPlace,
        own: &[SeedRange],
        avoid: &[SeedRange],
    ) -> Result<Placement, ResumeError> {
        let placement = Placement {
            base: place.base.0,
            trampolines: place.trampolines.clone(),
            trampoline_pages: place.trampoline_pages.clone(),
            beneath: None,
        };
        let region = placement.region();
        let hits = |taken: &[SeedRange], range: SeedRange| {
            taken.iter().any(|taken| !taken.intersect(range).is_empty())
        };
        if hits(own, region) || hits(avoid, region) {
            return Err(ResumeError::NoRoom { near: None });
        }
        match placement.trampoline_pages.iter().find(|pages| hits(own, **pages)) {
            Some(pages) => Err(ResumeError::NoRoom { near: Some(pages.start) }),
            None => Ok(placement),
        }
    }

    /// Finds room for what the image has between these offsets. Where there is none, discarding a written page of
    /// a file fails in the child: that is told, and the wrong bytes would not be.
    pub fn find_room_beneath(
        &mut self,
        desc: &Descriptor,
        places: Option<(ImageOffset, ImageOffset)>,
    ) {
        self.beneath = places.and_then(|(offset, end)| {
            let len = end.0 - offset.0;
            let start = self.room_for(desc, len)?.0;
            Some(Beneath { range: SeedRange::new(start, start + len), offset })
        });
    }

    /// Where `len` bytes more find room, clear of the seed and of all that is placed.
    pub(super) fn room_for(&self, desc: &Descriptor, len: u64) -> Option<SeedAddr> {
        let own = desc.vmas.iter().map(|vma| vma.range);
        let placed = self.trampoline_pages.iter().copied().chain([self.region()]);
        let taken = own.chain(placed).chain(self.beneath.map(|beneath| beneath.range));
        base_of(len, &holes(taken.collect(), LOWEST)).map(SeedAddr)
    }

    /// As a seed made of one of its children must tell it.
    pub fn as_stub_place(&self) -> StubPlace {
        StubPlace {
            base: SeedAddr(self.base),
            trampolines: self.trampolines.clone(),
            trampoline_pages: self.trampoline_pages.clone(),
        }
    }

    /// The region with its parking.
    pub fn region(&self) -> SeedRange {
        SeedRange::new(self.base, self.base + REGION_LEN + PARKING_LEN)
    }

    /// The parking.
    pub(super) fn parking(&self) -> SeedRange {
        SeedRange::new(self.base + REGION_LEN, self.base + REGION_LEN + PARKING_LEN)
    }
}

/// Free ranges between `taken` ones from `lowest` on, ascending.
fn holes(mut taken: Vec<SeedRange>, lowest: u64) -> Vec<SeedRange> {
    taken.sort();
    let mut holes = Vec::with_capacity(taken.len() + 1);
    let mut free_from = lowest;
    for range in taken.into_iter().chain([SeedRange::new(USER_END, USER_END)]) {
        let end = range.start.0.min(USER_END);
        if free_from < end {
            holes.push(SeedRange::new(free_from, end));
        }
        free_from = free_from.max(range.end.0);
    }
    holes
}

/// Where `len` bytes lie as near to `PREFERRED` as a hole with the greatest possible distance to its neighbours allows.
fn base_of(len: u64, holes: &[SeedRange]) -> Option<u64> {
    let inside = |hole: &SeedRange, distance: u64| {
        let lowest = (hole.start.0 + distance).next_multiple_of(ALIGNMENT);
        let highest = hole.end.0.checked_sub(distance.checked_add(len)?)?;
        let highest = highest / ALIGNMENT * ALIGNMENT;
        (lowest <= highest).then(|| PREFERRED.clamp(lowest, highest))
    };
    DISTANCES.iter().find_map(|distance| {
        let bases = holes.iter().filter_map(|hole| inside(hole, *distance));
        bases.min_by_key(|base| base.abs_diff(PREFERRED))
    })
}

/// Indices of sites, ascending by address, cut where a group would span too much.
fn groups(desc: &Descriptor) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..desc.sites.len()).collect();
    order.sort_by_key(|site| desc.sites[*site].addr);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for site in order {
        let addr = |site: usize| desc.sites[site].addr.0;
        match groups.last_mut() {
            Some(group) if addr(site) - addr(group[0]) <= GROUP_SPAN => group.push(site),
            _ => groups.push(vec![site]),
        }
    }
    groups
}

/// `len` bytes in reach of both `ends`, in the middle of the largest free stretch there.
fn near(desc: &Descriptor, holes: &[SeedRange], ends: [u64; 2], len: u64) -> Option<u64> {
    let page = desc.page_size();
    let heap_end = desc.process.layout.brk.1.next_multiple_of(page);
    let grows_down = |start: SeedAddr| {
        let vma = desc.vmas.iter().find(|vma| vma.range.start == start);
        vma.is_some_and(|vma| vma.kind == VmaKind::Stack || vma.flags.has(VmaFlags::GROWS_DOWN))
    };
    let window = SeedRange::new(ends[1].saturating_sub(REACH), ends[0] + REACH);
    let usable = holes.iter().filter_map(|hole| {
        let above = if hole.start.0 == heap_end { GROWTH } else { MARGIN };
        let below = if grows_down(hole.end) { GROWTH } else { MARGIN };
        let (start, end) = (hole.start.0 + above, hole.end.0.checked_sub(below)?);
        let free = SeedRange::new(start.min(end), end).intersect(window);
        (free.len() >= len).then_some(free)
    });
    let free = usable.max_by_key(|free| free.len())?;
    Some((free.start.0 + (free.len() - len) / 2) / page * page).map(|start| start.max(free.start.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{CallSite, SiteKind, Vma};
    use crate::resume::compile::tests::descriptor;

    fn with_vmas(ranges: &[(u64, u64)], sites: &[u64]) -> Descriptor {
        let mut desc = descriptor();
        let vma = |(start, end): &(u64, u64)| Vma {
            range: SeedRange::new(*start, *end),
            prot: 5,
            kind: VmaKind::Anonymous,
            flags: VmaFlags::default(),
        };
        desc.vmas = ranges.iter().map(vma).collect();
        let site = |addr: &u64| CallSite { addr: SeedAddr(*addr), kind: SiteKind::Madvise };
        desc.sites = sites.iter().map(site).collect();
        desc
    }

    #[test]
    fn the_region_keeps_its_distance_from_the_seed_and_the_keeper() {
        let seed = [(0x5500_0000_0000, 0x5fff_0000_0000), (0x7f00_0000_0000, 0x7f00_1000_0000)];
        let keeper = SeedRange::new(0x6000_0000_0000, 0x6000_0000_1000);
        let placement = Placement::choose(&with_vmas(&seed, &[]), &[keeper]).unwrap();
        assert_eq!(placement.base, 0x6010_0020_0000, "64 GiB from the keeper, 2 MiB aligned");
        let alone = Placement::choose(&with_vmas(&seed[1..], &[]), &[]).unwrap();
        assert_eq!(alone.base, PREFERRED);
    }

    #[test]
    fn a_full_address_space_is_refused() {
        let gap = 24 << 20;
        let taken = [(LOWEST, 1 << 46), ((1 << 46) + gap, USER_END)];
        let error = Placement::choose(&with_vmas(&taken, &[]), &[]).unwrap_err();
        assert!(matches!(error, ResumeError::NoRoom { near: None }), "{error}");
    }

    #[test]
    fn every_site_has_a_trampoline_in_reach_that_overlaps_nothing() {
        let text = [0x40_0000u64, 0x7f00_0000_0000, 0x7f80_0000_0000];
        let vmas: Vec<(u64, u64)> = text.iter().map(|at| (*at, at + 0x20_0000)).collect();
        let sites: Vec<u64> =
            text.iter().flat_map(|at| (0..100).map(move |i| at + i * 99)).collect();
        let desc = with_vmas(&vmas, &sites);
        let placement = Placement::choose(&desc, &[]).unwrap();
        assert_eq!(placement.trampoline_pages.len(), 3);
        let mut slots: Vec<u64> = placement.trampolines.iter().map(|slot| slot.0).collect();
        for (site, slot) in sites.iter().zip(&slots) {
            assert!(site.abs_diff(*slot) + TRAMPOLINE_LEN < 1 << 31, "{site:x} {slot:x}");
            let range = SeedRange::new(*slot, slot + TRAMPOLINE_LEN);
            assert!(placement.trampoline_pages.iter().any(|page| page.intersect(range) == range));
            assert!(desc.vmas.iter().all(|vma| vma.range.intersect(range).is_empty()));
            assert!(placement.region().intersect(range).is_empty());
        }
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), sites.len());
    }
}
