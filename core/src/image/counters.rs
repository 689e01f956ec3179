//! What an image has done, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one image; each only grows.
#[derive(Debug, Default)]
pub struct ImageCounters {
    /// READs that the kernel asked for.
    pub misses: AtomicU64,
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

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
