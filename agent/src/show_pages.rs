//! A seed's page table as a small picture: a line of characters for each VMA.

use mitosis::descriptor::{Descriptor, SeedRange, Source, Vma, VmaKind, WarmRun};

/// Characters of a VMA's picture at most; one with fewer pages has one for each.
pub const WIDTH: u64 = 24;

/// What pages are, the most telling first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Touched in the rehearsal: pushed to other hosts, and mapped ahead.
    Warm,
    /// An owner has it.
    Owned,
    /// Shared memory, which an owner has a copy of.
    Shared,
    /// Of a mapped file, which a child's host may have.
    File,
    /// All zero.
    Zero,
    /// Never touched.
    Absent,
}

impl Look {
    /// All.
    pub const ALL: [Look; 6] =
        [Look::Warm, Look::Owned, Look::Shared, Look::File, Look::Zero, Look::Absent];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Look::Warm => "warm",
            Look::Owned => "owned",
            Look::Shared => "shared",
            Look::File => "file",
            Look::Zero => "zero",
            Look::Absent => "absent",
        }
    }

    fn character(self) -> char {
        match self {
            Look::Warm => '\u{2588}',
            Look::Owned => '\u{2593}',
            Look::Shared => '\u{2261}',
            Look::File => '\u{2592}',
            Look::Zero => '\u{2591}',
            Look::Absent => '\u{b7}',
        }
    }
}

/// Pages by their look, in the order of [`Look::ALL`]. Warm ones are not counted as what they are beside.
pub type Counts = [u64; Look::ALL.len()];

/// Pages in a part of a VMA.
fn counts_in(descriptor: &Descriptor, vma: &Vma, range: SeedRange) -> Counts {
    let page = descriptor.page_size();
    let mut counts = Counts::default();
    let mut present = 0;
    for run in descriptor.page_table.overlapping(range) {
        let look = match (&vma.kind, run.source) {
            (VmaKind::Shared, _) => Look::Shared,
            (_, Source::Owner { .. }) => Look::Owned,
            (_, Source::File { .. }) => Look::File,
            (_, Source::Zero) => Look::Zero,
        };
        let all = run.range.len() / page;
        let warm = warm_in(descriptor.warm.runs(), run.range) / page;
        counts[look as usize] += all - warm;
        counts[Look::Warm as usize] += warm;
        present += all;
    }
    counts[Look::Absent as usize] = range.len() / page - present;
    counts
}

/// Bytes of a range that are warm.
fn warm_in(runs: &[WarmRun], range: SeedRange) -> u64 {
    let first = runs.partition_point(|run| run.range.end <= range.start);
    let own = runs[first..].iter().take_while(|run| run.range.start < range.end);
    own.map(|run| run.range.intersect(range).len()).sum()
}

/// Pages of a whole VMA.
pub fn counts(descriptor: &Descriptor, vma: &Vma) -> Counts {
    counts_in(descriptor, vma, vma.range)
}

/// The picture of a VMA: each character stands for as many pages as any other, within one. A warm page is seen wherever
/// there is one; else the most frequent look is, absent only where there is nothing else.
pub fn picture(descriptor: &Descriptor, vma: &Vma) -> String {
    let page = descriptor.page_size();
    let pages = vma.range.len() / page;
    let cells = pages.min(WIDTH);
    let edge = |cell: u64| vma.range.start.0 + pages * cell / cells.max(1) * page;
    let cell = |cell| {
        let counts = counts_in(descriptor, vma, SeedRange::new(edge(cell), edge(cell + 1)));
        look(&counts).character()
    };
    (0..cells).map(cell).collect()
}

fn look(counts: &Counts) -> Look {
    if counts[Look::Warm as usize] > 0 {
        return Look::Warm;
    }
    let present = Look::ALL.into_iter().filter(|look| *look != Look::Absent);
    let most = present.max_by_key(|look| counts[*look as usize]);
    most.filter(|look| counts[*look as usize] > 0).unwrap_or(Look::Absent)
}

/// What the characters mean, and how many pages of each there are.
pub fn legend(descriptor: &Descriptor) -> String {
    let mut sums = Counts::default();
    for vma in &descriptor.vmas {
        let own = counts(descriptor, vma);
        sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
    }
    let looks = Look::ALL.into_iter().filter(|look| sums[*look as usize] > 0);
    let words =
        looks.map(|look| format!("{} {} {}", look.character(), look.name(), sums[look as usize]));
    words.collect::<Vec<_>>().join("   ")
}

#[cfg(test)]
mod tests {
    use mitosis::descriptor::{OwnerIndex, PageTable, Run, SeedAddr, VmaFlags, WarmSet, codec};

    use super::*;

    fn vma(pages: u64) -> Vma {
        let range = SeedRange::new(0x10_0000, 0x10_0000 + pages * 4096);
        Vma { range, prot: 3, kind: VmaKind::Anonymous, flags: VmaFlags::default() }
    }

    /// A VMA whose pages `owned` an owner has, and `warm` are warm.
    fn descriptor(vma: &Vma, owned: (u64, u64), warm: &[(u64, u64)]) -> Descriptor {
        let bytes = include_bytes!("../../tests/wire/descriptor-1.0-files.bin");
        let mut descriptor = codec::decode(bytes).unwrap();
        let at = |page: u64| vma.range.start.0 + page * 4096;
        let range = |(from, to)| SeedRange::new(at(from), at(to));
        let source = Source::Owner { owner: OwnerIndex(0), addr: SeedAddr(at(owned.0)) };
        descriptor.page_table =
            PageTable::new([Run { range: range(owned), source }], 4096).unwrap();
        let warm: Vec<SeedRange> = warm.iter().copied().map(range).collect();
        descriptor.warm = WarmSet::new(&warm, &[]);
        descriptor.vmas = vec![vma.clone()];
        descriptor
    }

    #[test]
    fn a_small_vma_has_a_character_a_page() {
        let vma = vma(6);
        let descriptor = descriptor(&vma, (1, 4), &[(2, 3)]);
        assert_eq!(picture(&descriptor, &vma), "·▓█▓··");
        assert_eq!(counts(&descriptor, &vma), [1, 2, 0, 0, 0, 3]);
        assert_eq!(legend(&descriptor), "█ warm 1   ▓ owned 2   · absent 3");
    }

    #[test]
    fn a_large_one_is_drawn_in_proportion_and_nothing_that_is_there_vanishes() {
        let vma = vma(24_000);
        let descriptor = descriptor(&vma, (12_000, 13_001), &[(12_500, 12_501)]);
        let picture = picture(&descriptor, &vma);
        assert_eq!(picture, format!("{}█▓{}", "·".repeat(12), "·".repeat(10)));
        assert_eq!(counts(&descriptor, &vma).iter().sum::<u64>(), 24_000);
    }
}
