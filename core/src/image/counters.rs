//! What an image has done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::times::TimesCounter;

/// Counters of one image; each only grows.
#[derive(Debug, Default)]
pub struct ImageCounters {
    /// Pages that only its owners have. This one stays as it is.
    pub pages_of_owners: u64,
    /// READs that the kernel asked for.
    pub misses: AtomicU64,
    /// From the arrival of each to its answer, with bytes or without; not of readers that were killed meanwhile.
    pub miss_times: TimesCounter,
    /// Pages got from owners, for a miss or ahead of one.
    pub pages_pulled: AtomicU64,
    /// Of these, pages got ahead of a miss.
    pub pages_prefetched: AtomicU64,
    /// Pages got by an RDMA card, of those got from owners.
    pub pages_rdma: AtomicU64,
    /// Pages that came unasked ([`Inlet::store`](super::Inlet::store)).
    pub pages_pushed: AtomicU64,
    /// Pages answered from files of this host.
    pub pages_from_files: AtomicU64,
    /// Pages answered with zeros, those outside every VMA included.
    pub zero_pages: AtomicU64,
    /// READs posted to fabrics.
    pub reads: AtomicU64,
    /// READs that ended in an error, flushed ones included.
    pub reads_failed: AtomicU64,
    /// Times that a second way to bytes was taken.
    pub fallbacks: AtomicU64,
    /// Pages given up; each was a SIGBUS.
    pub pages_lost: AtomicU64,
    /// Patches that did not find the bytes they expect.
    pub patches_refused: AtomicU64,
}

impl ImageCounters {
    /// Of an image that has so many pages from its owners.
    pub(super) fn of(pages_of_owners: u64) -> Self {
        ImageCounters { pages_of_owners, ..ImageCounters::default() }
    }

    /// Pages that have come, and pages of its owners that have not, as far as it counts: what the kernel throws away
    /// under pressure, and asks for again, is here twice.
    pub fn pages_here_and_remote(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let of_owners = read(&self.pages_pulled) + read(&self.pages_pushed);
        let remote = self.pages_of_owners.saturating_sub(of_owners);
        (of_owners + read(&self.pages_from_files), remote)
    }
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
