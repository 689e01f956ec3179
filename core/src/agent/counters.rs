//! The agent's counters: its own, and the sums over images that are gone and that are there.

use std::sync::atomic::{AtomicU64, Ordering};

use super::hosting::Hosting;
use super::rdma::Rdma;
use crate::export::PageService;
use crate::wire::local::Stats;

/// Counters that only grow.
#[derive(Debug, Default)]
pub struct Counters {
    children_started: AtomicU64,
    seeds_published: AtomicU64,
    fabric_fallbacks: u64,
}

impl Counters {
    /// Of an agent whose fabric is the one that was wanted, or not.
    pub fn new(fell_back: bool) -> Self {
        Counters { fabric_fallbacks: u64::from(fell_back), ..Counters::default() }
    }

    /// Children were started.
    pub fn count_children(&self, count: usize) {
        self.children_started.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// A seed was published.
    pub fn count_seed(&self) {
        self.seeds_published.fetch_add(1, Ordering::Relaxed);
    }

    /// All counters. Images that are gone no longer count: what is shown is of the seeds that are here.
    pub fn stats(&self, hosting: &Hosting, pages: &PageService, rdma: Option<&Rdma>) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = Stats {
            children_started: read(&self.children_started),
            seeds_published: read(&self.seeds_published),
            fabric_fallbacks: self.fabric_fallbacks,
            reads_served: read(&pages.counters().reads_served),
            bytes_served: read(&pages.counters().bytes_served),
            ..Stats::default()
        };
        if let Some(rdma) = rdma {
            rdma.count_into(&mut stats);
        }
        hosting.for_each(|hosted| {
            let image = hosted.image().counters();
            stats.misses += read(&image.misses);
            stats.pages_pulled += read(&image.pages_pulled);
            stats.pages_rdma += read(&image.pages_rdma);
            stats.pages_pushed += read(&image.pages_pushed);
            stats.pages_from_files += read(&image.pages_from_files);
            stats.reads += read(&image.reads);
            stats.reads_failed += read(&image.reads_failed);
            stats.fallbacks += read(&image.fallbacks);
            stats.pages_lost += read(&image.pages_lost);
        });
        stats
    }
}
