//! The `dc` fabric: one-sided READ by an RDMA card, of any seed on any host by the same few initiators.
//!
//! ```text
//!   pager's queue --post--> way known? --no--> NotYet (tcp), asked for          `address_book`
//!                              | yes
//!                           trusted? ---------> healthy lane, suspect lane, NotYet    `fabric::trust`
//!                              |
//!   batch, sorted by target, one doorbell --> DCI of that lane  ... a READ fails: no further one is posted,
//!        ^                                     the rest completes (flushed, or by other streams), and then
//!        '------- READs flushed, posted again -- the DCI goes to the pool's hand: RESET, INIT, RTR, RTS
//! ```
//! | part | does |
//! |---|---|
//! | `card` | what makes initiators and ways to peers: a card's port, in tests a stand-in |
//! | `connector` | an initiator for the pool, and one that failed made good again |
//! | `link` | one initiator's READs in flight |
//! | `streams` | which stream a READ goes by, where a card isolates them |
//! | `address_book` | ways to peers (AHs), made by a thread of its own |
//! | `super::{queue, pool, landings, arrivals}` | as for rc; the pool's "peers" are the two lanes |
//!
//! What a host keeps for connections is constant in the number of seeds and of peers, but for one address handle
//! a peer: at most [`MAX_INITIATORS`] DCIs, used by whoever has READs in flight.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::pool::{Limits, Pool};
use super::queue::Queue;
use super::{Fabric, Posted, ReadError, ReadQueue};
use crate::descriptor::{DcTarget, Export};
use crate::verbs::{Gid, Pd};

mod address_book;
mod card;
mod connector;
mod link;
mod streams;
#[cfg(test)]
mod tests;

pub use card::DcSettings;

use address_book::Place;
use card::Port;
use connector::DciMaker;
use link::DcLink;

/// DCIs of one lane; queues beyond take turns.
const INITIATORS_PER_LANE: usize = 8;
/// DCIs that a host has at most.
pub const MAX_INITIATORS: usize = 2 * INITIATORS_PER_LANE;
/// By this lane go READs of targets that have never failed, or have answered since.
const HEALTHY: &str = "dc healthy";
/// And by this one those of targets that have failed.
const SUSPECT: &str = "dc suspect";
/// DCIs that are there from the start: two images read at a time on a quiet host.
const STOCK: [&str; 3] = [HEALTHY, HEALTHY, SUSPECT];

/// READs owners' arenas over DC.
#[derive(Debug)]
pub struct DcFabric {
    pool: Arc<Pool<DciMaker<Port>>>,
    /// This host's own port, whose seeds are read without a card.
    own: Place,
}

/// Why there is no fabric.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DcError {
    /// No DCI can be made.
    #[error("no DC initiator could be made: {0}")]
    Initiator(ReadError),
    /// No thread.
    #[error("no thread for DC initiators could be started ({0}); look at the limit on processes")]
    Thread(io::Error),
}

/// What a fabric has, and what has happened to it: for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DcNumbers {
    /// DCIs.
    pub initiators: u64,
    /// Times that a DCI was taken from a failure back into use.
    pub mended: u64,
    /// READs that another's failure has flushed; they were posted again.
    pub flushed: u64,
    /// Peers to which the way is known (AHs).
    pub ways: u64,
}

impl DcFabric {
    /// A fabric on the port of `settings`, whose own GID and LID are given; its first DCIs are made now.
    ///
    /// # Errors
    /// [`DcError`].
    pub fn new(pd: Arc<Pd>, settings: DcSettings, own: (Gid, u16)) -> Result<Arc<Self>, DcError> {
        let maker = DciMaker::new(Port::new(pd, settings)).map_err(DcError::Thread)?;
        let limits = Limits { connections_per_peer: INITIATORS_PER_LANE, ..Limits::default() };
        let pool = Pool::with_hand(maker, limits).map_err(DcError::Thread)?;
        for lane in STOCK {
            pool.stock(&lane.into()).map_err(DcError::Initiator)?;
        }
        Ok(Arc::new(DcFabric { pool, own: Place { gid: own.0.0, lid: own.1 } }))
    }

    /// What it has, and what has happened to it.
    pub fn numbers(&self) -> DcNumbers {
        let counters = self.pool.connector().counters();
        let initiators = self.pool.open(HEALTHY) + self.pool.open(SUSPECT);
        DcNumbers {
            initiators: initiators as u64,
            mended: counters.mended.load(Ordering::Relaxed),
            flushed: counters.flushed.load(Ordering::Relaxed),
            ways: self.pool.connector().book().known() as u64,
        }
    }
}

impl Fabric for DcFabric {
    fn name(&self) -> &'static str {
        "dc"
    }

    fn is_rdma(&self) -> bool {
        true
    }

    fn serves(&self, export: &Export) -> bool {
        match export {
            Export::Dc(target) => Place::of(target) != self.own,
            Export::Tcp { .. } | Export::Rc(_) => false,
        }
    }

    fn posted(&self) -> Posted {
        self.pool.connector().counters().doorbells.posted()
    }

    fn queue(self: Arc<Self>) -> Box<dyn ReadQueue> {
        Box::new(Queue::<DcLink<Port>>::new(Arc::clone(&self.pool)))
    }
}

impl Place {
    fn of(target: &DcTarget) -> Self {
        Place { gid: target.gid, lid: target.lid }
    }
}
