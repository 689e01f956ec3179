//! The remote page table: from a seed's page to who owns its bytes.
//!
//! Runs of pages, ascending and disjoint. A page in no run is *absent*: the process never touched it,
//! and a child gets fresh zero memory there. What a run says is enough to READ the page from its owner;
//! a file run also says which file holds the same bytes, so that a host that has this very file never
//! asks.

use serde::{Deserialize, Serialize};

use super::addr::{SeedAddr, SeedRange};

/// An index into `Descriptor::owners`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnerIndex(pub u8);

/// Where the bytes of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// All zero; never sent.
    Zero,
    /// In the owner's memory, from `addr` on.
    Owner {
        /// Whose memory.
        owner: OwnerIndex,
        /// The owner's address of the run's first byte.
        addr: SeedAddr,
    },
    /// In a file of `Descriptor::files`, and readable through the owner's mapping of it.
    File {
        /// Index into `Descriptor::files`.
        file: u16,
        /// Byte offset of the run's first byte.
        offset: u64,
        /// Who has it mapped.
        owner: OwnerIndex,
        /// The owner's address of the run's first byte.
        addr: SeedAddr,
    },
}

impl Source {
    /// The source of the bytes `delta` further on.
    pub fn advanced(self, delta: u64) -> Source {
        match self {
            Source::Zero => Source::Zero,
            Source::Owner { owner, addr } => {
                Source::Owner { owner, addr: SeedAddr(addr.0 + delta) }
            }
            Source::File { file, offset, owner, addr } => {
                Source::File { file, offset: offset + delta, owner, addr: SeedAddr(addr.0 + delta) }
            }
        }
    }
}

/// A run of pages with one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The pages, page-aligned at both ends.
    pub range: SeedRange,
    /// Where their bytes are.
    pub source: Source,
}

/// Runs, ascending and disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageTable {
    runs: Vec<Run>,
}

/// Why runs make no page table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the page table's run {index} is empty, unaligned or overlaps the one before it")]
pub struct PageTableError {
    /// Which run.
    pub index: usize,
}

impl PageTable {
    /// A table of `runs`, neighbours of one source merged.
    ///
    /// # Errors
    /// A run that is empty, not aligned to `page_size` or not behind its predecessor.
    pub fn new(
        runs: impl IntoIterator<Item = Run>,
        page_size: u64,
    ) -> Result<Self, PageTableError> {
        let mut table = PageTable::default();
        let mut end = SeedAddr(0);
        for (index, run) in runs.into_iter().enumerate() {
            let aligned = (run.range.start.0 | run.range.end.0) & (page_size - 1) == 0;
            if run.range.start.0 >= run.range.end.0 || !aligned || run.range.start < end {
                return Err(PageTableError { index });
            }
            end = run.range.end;
            table.push_merged(run);
        }
        Ok(table)
    }

    /// This table and then `runs`, which ascend behind it.
    pub fn followed_by(&self, runs: impl IntoIterator<Item = Run>) -> Self {
        let mut table = self.clone();
        for run in runs {
            debug_assert!(table.runs.last().is_none_or(|last| last.range.end <= run.range.start));
            table.push_merged(run);
        }
        table
    }

    /// The runs.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Pages in all runs.
    pub fn pages(&self, page_size: u64) -> u64 {
        self.runs.iter().map(|run| run.range.len()).sum::<u64>() / page_size
    }

    /// The run that covers `addr`, cut to begin there; `None` where the page is absent.
    pub fn lookup(&self, addr: SeedAddr) -> Option<Run> {
        let after = self.runs.partition_point(|run| run.range.end <= addr);
        let run = self.runs.get(after).filter(|run| run.range.contains(addr))?;
        let source = run.source.advanced(addr.0 - run.range.start.0);
        Some(Run { range: SeedRange { start: addr, end: run.range.end }, source })
    }

    /// The runs that have a part in `range`, each cut to it, in order.
    pub fn overlapping(&self, range: SeedRange) -> impl Iterator<Item = Run> + '_ {
        let first = self.runs.partition_point(|run| run.range.end <= range.start);
        self.runs[first..].iter().take_while(move |run| run.range.start < range.end).map(
            move |run| {
                let cut = run.range.intersect(range);
                Run { range: cut, source: run.source.advanced(cut.start.0 - run.range.start.0) }
            },
        )
    }

    fn push_merged(&mut self, run: Run) {
        if let Some(last) = self.runs.last_mut() {
            let follows = last.range.end == run.range.start;
            if follows && last.source.advanced(last.range.len()) == run.source {
                last.range.end = run.range.end;
                return;
            }
        }
        self.runs.push(run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(start: u64, end: u64, addr: u64) -> Run {
        let source = Source::Owner { owner: OwnerIndex(0), addr: SeedAddr(addr) };
        Run { range: SeedRange::new(start, end), source }
    }

    #[test]
    fn neighbours_of_one_source_are_one_run() {
        let runs = [owned(0x1000, 0x2000, 0x1000), owned(0x2000, 0x4000, 0x2000)];
        let table = PageTable::new(runs, 4096).unwrap();
        assert_eq!(table.runs(), [owned(0x1000, 0x4000, 0x1000)]);
        assert_eq!(table.pages(4096), 3);
    }

    #[test]
    fn lookup_cuts_the_run_at_the_address() {
        let table = PageTable::new([owned(0x1000, 0x4000, 0x9000)], 4096).unwrap();
        assert_eq!(table.lookup(SeedAddr(0x2000)), Some(owned(0x2000, 0x4000, 0xa000)));
        assert_eq!(table.lookup(SeedAddr(0x4000)), None);
        assert_eq!(table.lookup(SeedAddr(0xfff)), None);
    }

    #[test]
    fn overlapping_cuts_at_both_ends() {
        let runs = [owned(0x1000, 0x3000, 0x1000), owned(0x5000, 0x6000, 0x5000)];
        let table = PageTable::new(runs, 4096).unwrap();
        let cut: Vec<Run> = table.overlapping(SeedRange::new(0x2000, 0x6000)).collect();
        assert_eq!(cut, [owned(0x2000, 0x3000, 0x2000), owned(0x5000, 0x6000, 0x5000)]);
    }

    #[test]
    fn bad_runs_are_refused() {
        for (runs, index) in [
            (vec![owned(0x1000, 0x1000, 0)], 0),
            (vec![owned(0x1001, 0x2000, 0)], 0),
            (vec![owned(0x1000, 0x3000, 0), owned(0x2000, 0x4000, 0)], 1),
        ] {
            assert_eq!(PageTable::new(runs, 4096), Err(PageTableError { index }));
        }
    }
}
