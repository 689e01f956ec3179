//! The agent's counters: its own, and the sums over the images that it has and has had.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::PAGE;
use super::rdma::Rdma;
use crate::export::PageService;
use crate::image::ImageCounters;
use crate::wire::local::Stats;
use crate::wire::seal::Encryption;

/// Counters that only grow.
#[derive(Debug, Default)]
pub struct Counters {
    children_started: AtomicU64,
    children_renumbered: AtomicU64,
    files_missing: AtomicU64,
    seeds_published: AtomicU64,
    fabric_fallbacks: u64,
    images: Mutex<Images>,
}

/// Images of seeds that were resumed here, not those of rehearsals.
#[derive(Debug, Default)]
struct Images {
    held: Vec<Arc<ImageCounters>>,
    /// The sums of those that are gone.
    gone: Stats,
}

impl Counters {
    /// Of an agent that came to its fabric by so many fall-backs.
    pub fn new(fabric_fallbacks: u64) -> Self {
        Counters { fabric_fallbacks, ..Counters::default() }
    }

    /// Children were started.
    pub fn count_children(&self, count: usize) {
        self.children_started.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// A child got other ids than it was to have. The first one is warned of: the others have the same reason.
    pub fn count_renumbered(&self, why: &str) {
        if self.children_renumbered.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("children of whole processes get new process and thread ids: {why}");
        }
    }

    /// Files that children will not have.
    pub fn count_missing_files(&self, count: usize) {
        self.files_missing.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// A seed was published.
    pub fn count_seed(&self) {
        self.seeds_published.fetch_add(1, Ordering::Relaxed);
    }

    /// An image counts from now on, and when it is gone, too.
    pub fn add_image(&self, counters: &Arc<ImageCounters>) {
        let mut images = self.images.lock();
        images.settle();
        images.held.push(counters.clone());
    }

    /// All counters.
    pub fn stats(&self, pages: &PageService, rdma: Option<&Rdma>) -> Stats {
        let mut images = self.images.lock();
        images.settle();
        let encrypted = pages.encrypted_streams();
        let mut stats = Stats {
            children_started: read(&self.children_started),
            children_renumbered: read(&self.children_renumbered),
            files_missing: read(&self.files_missing),
            seeds_published: read(&self.seeds_published),
            fabric_fallbacks: self.fabric_fallbacks,
            reads_served: read(&pages.counters().reads_served),
            bytes_served: read(&pages.counters().bytes_served),
            encrypt_reads: u64::from(pages.encryption() == Encryption::Demanded),
            streams_plain: pages.streams().saturating_sub(encrypted) as u64,
            streams_encrypted: encrypted as u64,
            images: images.held.len() as u64,
            ..images.gone.clone()
        };
        if let Some(rdma) = rdma {
            rdma.count_into(&mut stats);
        }
        for image in &images.held {
            add(&mut stats, image);
            let (here, remote) = image.pages_here_and_remote();
            stats.bytes_shared += here * PAGE;
            stats.bytes_remote += remote * PAGE;
        }
        stats
    }
}

impl Images {
    /// Moves what nobody counts on any more to the sums.
    fn settle(&mut self) {
        let gone = &mut self.gone;
        self.held.retain_mut(|image| {
            let is_over = Arc::get_mut(image).is_some();
            if is_over {
                add(gone, image);
            }
            !is_over
        });
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(stats: &mut Stats, image: &ImageCounters) {
    stats.misses += read(&image.misses);
    stats.miss_times.add(&image.miss_times);
    stats.pages_pulled += read(&image.pages_pulled);
    stats.pages_rdma += read(&image.pages_rdma);
    stats.pages_pushed += read(&image.pages_pushed);
    stats.pages_from_files += read(&image.pages_from_files);
    stats.reads += read(&image.reads);
    stats.reads_failed += read(&image.reads_failed);
    stats.fallbacks += read(&image.fallbacks);
    stats.pages_lost += read(&image.pages_lost);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::export::Exports;

    #[test]
    fn memory_of_images_is_here_or_with_their_seeds() {
        let pages = PageService::new(Exports::new());
        let counters = Counters::new(0);
        let image = Arc::new(ImageCounters { pages_of_owners: 100, ..ImageCounters::default() });
        counters.add_image(&image);
        let seen = || {
            let stats = counters.stats(&pages, None);
            (stats.bytes_shared / PAGE, stats.bytes_remote / PAGE)
        };
        assert_eq!(seen(), (0, 100));
        image.pages_pushed.fetch_add(10, Ordering::Relaxed);
        image.pages_pulled.fetch_add(30, Ordering::Relaxed);
        image.pages_from_files.fetch_add(5, Ordering::Relaxed);
        assert_eq!(seen(), (45, 60));
        image.pages_pulled.fetch_add(100, Ordering::Relaxed);
        assert_eq!(seen(), (145, 0));
    }

    #[test]
    fn an_image_counts_when_it_is_gone_too() {
        let pages = PageService::new(Exports::new());
        let counters = Counters::new(0);
        let images: Vec<Arc<ImageCounters>> = (0..3).map(|_| Arc::default()).collect();
        for image in &images {
            counters.add_image(image);
            image.misses.fetch_add(1, Ordering::Relaxed);
            image.pages_pushed.fetch_add(10, Ordering::Relaxed);
            image.miss_times.count(Duration::from_micros(16));
        }
        let seen = || {
            let stats = counters.stats(&pages, None);
            assert_eq!(stats.miss_times.count(), 3);
            (stats.images, stats.misses, stats.pages_pushed)
        };
        assert_eq!(seen(), (3, 3, 30));
        let [first, second, third] = <[_; 3]>::try_from(images).unwrap();
        drop(second);
        assert_eq!(seen(), (2, 3, 30));
        first.misses.fetch_add(4, Ordering::Relaxed);
        drop(first);
        counters.add_image(&Arc::default());
        assert_eq!(seen(), (1, 7, 30));
        drop(third);
        assert_eq!(counters.stats(&pages, None).bytes_shared, 0);
        assert_eq!(seen(), (0, 7, 30));
    }
}
