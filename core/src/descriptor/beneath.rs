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
    /// The VMAs of files in which pages were written, each [`BENEATH`] bytes further on, ascending.
    pub fn beneath(&self) -> Vec<Vma> {
        let is_owned = |run: Run| matches!(run.source, Source::Owner { .. });
        let is_file = |vma: &&Vma| matches!(vma.kind, VmaKind::File { .. });
        let written = |vma: &&Vma| self.page_table.overlapping(vma.range).any(is_owned);
        let files = self.vmas.iter().filter(is_file).filter(written);
        files.map(|vma| Vma { range: beneath(vma.range), ..vma.clone() }).collect()
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
            owned(0x30_0000, 0x30_4000),
        ];
        desc.page_table = PageTable::new(runs, PAGE).unwrap();
        let (start, end) = (BENEATH + 0x20_0000, BENEATH + 0x20_4000);
        let found = desc.beneath();
        assert_eq!(found, [Vma { range: SeedRange::new(start, end), ..vma(0, file) }]);
        let table = desc.page_table_with(&found);
        assert_eq!(table.runs()[..4], runs);
        assert_eq!(table.runs()[4..], [file_run(start, end, 0x5000)]);
    }
}
