//! What lies beneath a page that was written in a private mapping of a file, and shows again once that page is
//! discarded: the file's own bytes.
//!
//! ```text
//!  addresses    ..[ file | written | file ]..    ..[ file | file | file ]..
//!                 `-- a VMA of the seed's --'       `-- BENEATH further on: in no process
//! ```
//! A child maps such a VMA from the image, where a written page is the seed's. So the image has the file's pages,
//! too, as if they lay [`BENEATH`] bytes further on; who has no such file here asks the owner for these addresses,
//! and the owner reads its file.

use super::{Descriptor, OwnerIndex, PageTable, Run, SeedAddr, SeedRange, Source, Vma, VmaKind};

/// What is added to an address to name what lies beneath it: more than any process has addresses.
pub const BENEATH: u64 = 1 << 62;

impl Descriptor {
    /// The VMAs of files in which pages were written, and those that go on from them or lead up to them in the same
    /// file, for in a child these may be one with them; each [`BENEATH`] bytes further on, ascending.
    pub fn beneath(&self) -> Vec<Vma> {
        let is_owned = |run: Run| matches!(run.source, Source::Owner { .. });
        let is_written = |vma: &Vma| self.page_table.overlapping(vma.range).any(is_owned);
        let slots = self.vmas.chunk_by(|before, vma| vma.continues(before));
        let files = slots.filter(|slot| matches!(slot[0].kind, VmaKind::File { .. }));
        let written = files.filter(|slot| slot.iter().any(is_written)).flatten();
        written.map(|vma| Vma { range: beneath(vma.range), ..vma.clone() }).collect()
    }

    /// The page table with what `vmas`, which are [`Descriptor::beneath`], show.
    pub fn page_table_with(&self, vmas: &[Vma]) -> PageTable {
        let runs = vmas.iter().filter_map(|vma| {
            let VmaKind::File { file, offset } = vma.kind else { return None };
            let (owner, addr) = (OwnerIndex(0), vma.range.start);
            Some(Run { range: vma.range, source: Source::File { file, offset, owner, addr } })
        });
        self.page_table.followed_by(runs)
    }
}

/// What lies beneath `range`.
fn beneath(range: SeedRange) -> SeedRange {
    let [start, end] = [range.start, range.end].map(|addr| SeedAddr(addr.0 + BENEATH));
    SeedRange { start, end }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::VmaFlags;
    use crate::resume::compile::tests::descriptor;

    const PAGE: u64 = 4096;

    fn file_run(start: u64, end: u64, offset: u64) -> Run {
        let source = Source::File { file: 0, offset, owner: OwnerIndex(0), addr: SeedAddr(start) };
        Run { range: SeedRange::new(start, end), source }
    }

    #[test]
    fn only_files_with_written_pages_have_something_beneath() {
        let mut desc = descriptor();
        let vma = |start: u64, kind| Vma {
            range: SeedRange::new(start, start + 4 * PAGE),
            prot: 3,
            kind,
            flags: VmaFlags::default(),
        };
        let file = VmaKind::File { file: 0, offset: 0x5000 };
        desc.vmas = vec![
            vma(0x10_0000, file.clone()),
            vma(0x20_0000, file.clone()),
            vma(0x20_4000, VmaKind::File { file: 0, offset: 0x1_0000 }),
            vma(0x20_8000, VmaKind::File { file: 1, offset: 0x1_0000 }),
            vma(0x30_0000, VmaKind::Anonymous),
        ];
        let owned = |start: u64, end: u64| Run {
            range: SeedRange::new(start, end),
            source: Source::Owner { owner: OwnerIndex(0), addr: SeedAddr(start) },
        };
        let runs = [
            file_run(0x10_0000, 0x10_4000, 0x5000),
            file_run(0x20_0000, 0x20_1000, 0x5000),
            owned(0x20_1000, 0x20_4000),
            file_run(0x20_4000, 0x20_8000, 0x1_0000),
            owned(0x30_0000, 0x30_4000),
        ];
        desc.page_table = PageTable::new(runs, PAGE).unwrap();
        let at = |start: u64| SeedRange::new(BENEATH + start, BENEATH + start + 4 * PAGE);
        let found = desc.beneath();
        // Its neighbour of the same file may become one mapping with it.
        let expected = [desc.vmas[1].clone(), desc.vmas[2].clone()]
            .map(|vma| Vma { range: at(vma.range.start.0), ..vma });
        assert_eq!(found, expected);
        let table = desc.page_table_with(&found);
        assert_eq!(table.runs()[..5], runs);
        let beneath = |start: u64, offset| file_run(at(start).start.0, at(start).end.0, offset);
        assert_eq!(table.runs()[5..], [beneath(0x20_0000, 0x5000), beneath(0x20_4000, 0x1_0000)]);
    }
}
