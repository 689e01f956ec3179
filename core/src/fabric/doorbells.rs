//! What was posted to a card, and by how many doorbells.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts for all queues of a fabric.
#[derive(Debug, Default)]
pub(super) struct Doorbells {
    reads: AtomicU64,
    rung: AtomicU64,
}

/// READs that a fabric's queues have posted to a card: for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// READs, each piece of memory that is contiguous on the owner's card for itself.
    pub reads: u64,
    /// Doorbells that took them there: what is posted in one turn shares one.
    pub doorbells: u64,
}

impl Doorbells {
    /// One was rung, for so many READs.
    pub(super) fn rung_for(&self, reads: usize) {
        self.reads.fetch_add(reads as u64, Ordering::Relaxed);
        self.rung.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn posted(&self) -> Posted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Posted { reads: read(&self.reads), doorbells: read(&self.rung) }
    }
}
