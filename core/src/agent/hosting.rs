//! The seeds that live on this host. Each is built at its first resume, shared by all children here, and
//! let go after the last one.
//!
//! ```text
//!  resume --> here already? --no--> building --> Hosted --> child, child, ...
//!                 \-----------yes----------------/
//! ```

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;

use super::Agent;
use super::building::{Found, build};
use super::failure::{fail, seed_gone};
use super::hosted::Hosted;
use super::limits::too_many_images;
use crate::descriptor::Descriptor;
use crate::id::{Handle, SeedId};
use crate::tally::Counted;
use crate::wire::local::{Failure, FailureKind};

/// Images alive at once on one host; each has a FUSE connection and its pager threads.
pub const MAX_HOSTED: usize = 256;

/// The seeds that live on this host.
#[derive(Debug, Default)]
pub struct Hosting {
    table: Mutex<HashMap<SeedId, Arc<Place>>>,
}

/// One seed's place: its lock is held while it is built, so that it is built once.
#[derive(Debug, Default)]
struct Place {
    hosted: Mutex<Option<Arc<Hosted>>>,
    idle_since: Mutex<Option<Instant>>,
    /// For the peer that has had it built.
    counted: Mutex<Option<Counted<IpAddr>>>,
}

impl Hosting {
    /// The hosted seed behind a handle, built if need be; the flag tells whether it was.
    ///
    /// # Errors
    /// The seed cannot be had, this host cannot run it, or the peer that asks has too many images here.
    pub fn get(
        &self,
        agent: &Arc<Agent>,
        handle: &Handle,
        ends_with_children: bool,
        peer: Option<IpAddr>,
    ) -> Result<(Arc<Hosted>, bool), Failure> {
        let place = self.place(handle.seed)?;
        let mut hosted = place.hosted.lock();
        if !self.stands(handle.seed, &place) {
            drop(hosted);
            return self.get(agent, handle, ends_with_children, peer);
        }
        if let Some(hosted) = hosted.as_ref() {
            if hosted.dropping.load(Ordering::Acquire) {
                return Err(seed_gone(handle.seed));
            }
            if hosted.key == handle.key && !hosted.is_of_no_use() {
                *place.idle_since.lock() = None;
                hosted.ends_with_children.fetch_or(ends_with_children, Ordering::AcqRel);
                return Ok((hosted.clone(), false));
            }
            if hosted.key != handle.key {
                // The owner decides, in its own words.
                agent.find(handle, false)?;
            }
        }
        // What it had, whoever asked for it, is not beside the new one for long.
        *place.counted.lock() = None;
        if let Some(peer) = peer {
            let most = agent.config.limits.images_of_peer;
            let Some(counted) = agent.images_of_peers.enter(peer, 1, most) else {
                self.clear(handle.seed, hosted.as_ref());
                return Err(too_many_images(peer, most));
            };
            *place.counted.lock() = Some(counted);
        }
        let begun = Instant::now();
        let found = agent
            .find(handle, ends_with_children)
            .inspect_err(|_| self.clear(handle.seed, hosted.as_ref()))?;
        let found_us = begun.elapsed().as_micros();
        let built = build(agent, handle, found, ends_with_children)
            .inspect_err(|_| self.clear(handle.seed, hosted.as_ref()))?;
        let hosted_us = begun.elapsed().as_micros();
        tracing::info!(seed = %handle.seed, found_us, hosted_us, "seed hosted");
        *place.idle_since.lock() = None;
        agent.counters.add_image(built.image().counters());
        *hosted = Some(built.clone());
        Ok((built, true))
    }

    /// A seed's place, made if need be. It may be gone by the time that it is locked: see [`Self::stands`].
    fn place(&self, seed: SeedId) -> Result<Arc<Place>, Failure> {
        let mut table = self.table.lock();
        if !table.contains_key(&seed) && table.len() >= MAX_HOSTED {
            let text = format!("this host already holds {MAX_HOSTED} seeds' images");
            return Err(fail(FailureKind::Limit, text));
        }
        Ok(table.entry(seed).or_default().clone())
    }

    /// Whether a place that is locked is still the seed's: whoever held it before may have failed and taken
    /// it away, and what is built at such a place nobody finds.
    fn stands(&self, seed: SeedId, place: &Arc<Place>) -> bool {
        self.table.lock().get(&seed).is_some_and(|standing| Arc::ptr_eq(standing, place))
    }

    /// Takes away a place that is locked and at which nothing stands.
    fn clear(&self, seed: SeedId, hosted: Option<&Arc<Hosted>>) {
        if hosted.is_none() {
            self.table.lock().remove(&seed);
        }
    }

    /// Builds a seed of this host without entering it: for its rehearsal.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn rehearse(
        agent: &Arc<Agent>,
        handle: &Handle,
        descriptor: Descriptor,
        bytes: u64,
    ) -> Result<Arc<Hosted>, Failure> {
        build(agent, handle, Found::to_rehearse(descriptor, bytes), false)
    }

    /// Leases of other hosts' seeds that are held here; of a seed that is being built none is yet.
    pub fn leases(&self) -> u64 {
        let is_leased = |hosted: &Arc<Hosted>| !hosted.is_local() && !hosted.is_of_no_use();
        let table = self.table.lock();
        let held = table.values().filter_map(|place| place.hosted.try_lock());
        held.filter(|hosted| hosted.as_ref().is_some_and(is_leased)).count() as u64
    }

    /// A seed that is hosted here now.
    pub fn hosted(&self, seed: SeedId) -> Option<Arc<Hosted>> {
        let place = self.table.lock().get(&seed).cloned()?;
        let hosted = place.hosted.lock();
        hosted.clone()
    }

    /// No more children of this seed here; its image goes with the last one, or now if there is none.
    pub fn let_go(&self, seed: SeedId) {
        let place = self.table.lock().get(&seed).cloned();
        let Some(place) = place else { return };
        if let Some(hosted) = place.hosted.lock().as_ref() {
            hosted.dropping.store(true, Ordering::Release);
        }
        // Other seeds' images linger as they do.
        self.sweep(std::time::Duration::MAX);
    }

    /// Lets go of images without children: at once where the seed is ending, else after `linger`.
    pub fn sweep(&self, linger: std::time::Duration) {
        let mut over = Vec::new();
        self.table.lock().retain(|_, place| {
            // Somebody is building or taking it right now: it is in use.
            let Some(mut hosted) = place.hosted.try_lock() else { return true };
            let Some(current) = hosted.as_ref() else { return Arc::strong_count(place) > 1 };
            if Arc::strong_count(current) > 1 {
                *place.idle_since.lock() = None;
                return true;
            }
            let since = *place.idle_since.lock().get_or_insert_with(Instant::now);
            let ending = current.ends_with_children.load(Ordering::Acquire)
                || current.dropping.load(Ordering::Acquire)
                || current.is_of_no_use();
            if !ending && since.elapsed() < linger {
                return true;
            }
            over.extend(hosted.take());
            false
        });
        // Tearing an image down takes milliseconds: outside of the lock.
        drop(over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_was_taken_away_is_not_built_at() {
        let hosting = Hosting::default();
        let seed = SeedId(7);
        let (first, waiting) = (hosting.place(seed).unwrap(), hosting.place(seed).unwrap());
        let locked = first.hosted.lock();
        assert!(hosting.stands(seed, &first));
        hosting.clear(seed, locked.as_ref());
        drop(locked);
        // Whoever has waited meanwhile begins anew, beside nobody.
        let _locked = waiting.hosted.lock();
        assert!(!hosting.stands(seed, &waiting));
        assert!(hosting.stands(seed, &hosting.place(seed).unwrap()));
    }
}
