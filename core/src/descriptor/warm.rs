//! What a child of the seed touches until its own code goes on, as its rehearsal did.
//!
//! A hint: a child that was cloned ahead has these pages in its page table when it is started. A child
//! that touches others is as right, and a little later.

use serde::{Deserialize, Serialize};

use super::addr::SeedRange;

/// Runs that a set holds at most; what a rehearsal touched beyond them is left out. A CPython with numpy
/// makes some 300.
pub const MAX_WARM_RUNS: usize = 4096;

/// Bytes that a set tells as written at most; runs beyond them are left out. Each child that is cloned ahead copies them,
/// started or not, and a rehearsal that hangs may have written any number.
pub const MAX_WRITTEN_BYTES: u64 = 64 << 20;

/// Neighbouring pages that were touched alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmRun {
    /// The pages.
    pub range: SeedRange,
    /// Written, and so the child's own; else read, and shared by all children of a host.
    pub is_written: bool,
}

/// The pages that a rehearsal touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WarmSet {
    runs: Vec<WarmRun>,
}

/// A run as a descriptor carries it, in pages: since the last run's end, how many, written or not.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct WarmRecord(u64, u64, bool);

impl WarmSet {
    /// Of what was touched and what was written, page-aligned and each in any order; what is both is
    /// written.
    pub fn new(touched: &[SeedRange], written: &[SeedRange]) -> Self {
        let mut edges: Vec<(u64, i32, i32)> = Vec::new();
        let ranges = touched.iter().map(|range| (range, 1, 0));
        for (range, read, write) in ranges.chain(written.iter().map(|range| (range, 0, 1))) {
            edges.extend([(range.start.0, read, write), (range.end.0, -read, -write)]);
        }
        edges.sort_unstable_by_key(|(at, ..)| *at);
        let mut set = WarmSet::default();
        let (mut from, mut reads, mut writes) = (0, 0, 0);
        for (at, read, write) in edges {
            if at > from && (reads > 0 || writes > 0) {
                set.push(SeedRange::new(from, at), writes > 0);
            }
            (from, reads, writes) = (at, reads + read, writes + write);
        }
        let mut left = MAX_WRITTEN_BYTES;
        set.runs.retain(|run| {
            let copied = if run.is_written { run.range.len() } else { 0 };
            let fits = copied <= left;
            left -= if fits { copied } else { 0 };
            fits
        });
        set.runs.truncate(MAX_WARM_RUNS);
        set
    }

    /// The runs, ascending and disjoint.
    pub fn runs(&self) -> &[WarmRun] {
        &self.runs
    }

    /// Pages that are read, and pages that are written.
    pub fn pages(&self, page_size: u64) -> (u64, u64) {
        let count = |is_written| {
            let runs = self.runs.iter().filter(|run| run.is_written == is_written);
            runs.map(|run| run.range.len()).sum::<u64>() / page_size
        };
        (count(false), count(true))
    }

    pub(super) fn to_records(&self, page_shift: u8) -> Vec<WarmRecord> {
        let mut end = 0;
        let record = |run: &WarmRun| {
            let (start, pages) = (run.range.start.0 >> page_shift, run.range.len() >> page_shift);
            let gap = start - end;
            end = start + pages;
            WarmRecord(gap, pages, run.is_written)
        };
        self.runs.iter().map(record).collect()
    }

    /// A set that ends below `max_page`.
    pub(super) fn from_records(
        records: Vec<WarmRecord>,
        page_shift: u8,
        max_page: u64,
    ) -> Result<Self, String> {
        if records.len() > MAX_WARM_RUNS {
            return Err(format!("{} runs, above the limit of {MAX_WARM_RUNS}", records.len()));
        }
        let mut set = WarmSet::default();
        let mut end = 0u64;
        for WarmRecord(gap, pages, is_written) in records {
            let start = end.checked_add(gap);
            let next = start.and_then(|start| start.checked_add(pages));
            let (Some(start), Some(next)) = (start, next.filter(|next| *next <= max_page)) else {
                return Err("a run ends beyond the address space".to_owned());
            };
            if pages == 0 {
                return Err("a run of no pages".to_owned());
            }
            end = next;
            let range = SeedRange::new(start << page_shift, end << page_shift);
            set.runs.push(WarmRun { range, is_written });
        }
        Ok(set)
    }

    fn push(&mut self, range: SeedRange, is_written: bool) {
        match self.runs.last_mut() {
            Some(last) if last.range.end == range.start && last.is_written == is_written => {
                last.range.end = range.end;
            }
            _ => self.runs.push(WarmRun { range, is_written }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_PAGE: u64 = 1 << 44;

    fn range(from: u64, to: u64) -> SeedRange {
        SeedRange::new(from << 12, to << 12)
    }

    fn run(from: u64, to: u64, is_written: bool) -> WarmRun {
        WarmRun { range: range(from, to), is_written }
    }

    #[test]
    fn what_is_written_is_cut_out_of_what_is_touched() {
        let set = WarmSet::new(&[range(8, 9), range(1, 5)], &[range(2, 3), range(9, 11)]);
        let expected = [
            run(1, 2, false),
            run(2, 3, true),
            run(3, 5, false),
            run(8, 9, false),
            run(9, 11, true),
        ];
        assert_eq!(set.runs(), expected);
        assert_eq!(set.pages(4096), (4, 3));
    }

    #[test]
    fn overlapping_ranges_are_counted_once() {
        let set = WarmSet::new(&[range(1, 3), range(2, 4), range(4, 5)], &[]);
        assert_eq!(set.runs(), [run(1, 5, false)]);
    }

    #[test]
    fn what_is_written_has_an_end_and_what_is_read_none() {
        let most = MAX_WRITTEN_BYTES >> 12;
        let set = WarmSet::new(&[range(0, 2 * most)], &[range(1, most), range(most + 1, most + 3)]);
        assert_eq!(set.pages(4096), (most - 1, most - 1));
        assert!(!set.runs().iter().any(|run| run.range.start == range(most + 1, most + 2).start));
    }

    #[test]
    fn a_set_survives_its_records_and_bad_ones_are_refused() {
        let set = WarmSet::new(&[range(1, 5), range(100, 101)], &[range(2, 3)]);
        let records = set.to_records(12);
        assert_eq!(WarmSet::from_records(records, 12, MAX_PAGE).unwrap(), set);
        let refused = |records| WarmSet::from_records(records, 12, MAX_PAGE).unwrap_err();
        assert!(refused(vec![WarmRecord(1, 0, false)]).contains("no pages"));
        for beyond in [WarmRecord(MAX_PAGE, 1, true), WarmRecord(1, u64::MAX, true)] {
            assert!(refused(vec![beyond]).contains("beyond the address space"));
        }
        let many = |count| vec![WarmRecord(1, 1, false); count];
        assert!(WarmSet::from_records(many(MAX_WARM_RUNS), 12, MAX_PAGE).is_ok());
        assert!(refused(many(MAX_WARM_RUNS + 1)).contains("limit"));
    }
}
