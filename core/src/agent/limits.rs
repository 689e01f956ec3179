//! How much of a host others may take.

use std::net::IpAddr;

pub use super::children::MAX_CHILDREN;
use super::failure::fail;
pub use super::hosting::MAX_HOSTED;
pub use super::remote::MAX_CONNECTIONS;
pub use super::seeds::MAX_SEEDS;
use crate::export::PeerLimits;
pub use crate::export::service::MAX_STREAMS;
use crate::id::SeedId;
use crate::wire::local::{Failure, FailureKind};

/// Bounds that an operator may lower. A peer is an address: agents behind one are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Children alive here, [`MAX_CHILDREN`] at most.
    pub children: usize,
    /// Of these, of one seed.
    pub children_of_seed: usize,
    /// Of these, that one peer has asked for.
    pub children_of_peer: usize,
    /// Seeds that live here, [`MAX_SEEDS`] at most.
    pub seeds: usize,
    /// Leases and resumes of one peer, each of which has a connection; [`MAX_CONNECTIONS`] at most.
    pub connections_of_peer: usize,
    /// Images that one peer has had made here, [`MAX_HOSTED`] at most.
    pub images_of_peer: usize,
    /// READ streams of one peer, [`MAX_STREAMS`] at most.
    pub streams_of_peer: usize,
    /// Bytes of pages that one peer is sent in a second; `None`: as fast as it takes them.
    pub bytes_per_s_of_peer: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            children: MAX_CHILDREN,
            children_of_seed: MAX_CHILDREN,
            children_of_peer: MAX_CHILDREN,
            seeds: MAX_SEEDS,
            connections_of_peer: MAX_CONNECTIONS,
            images_of_peer: MAX_HOSTED / 2,
            streams_of_peer: MAX_STREAMS / 4,
            bytes_per_s_of_peer: None,
        }
    }
}

/// Whose children are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// All of this host.
    All,
    /// A seed's.
    Seed(SeedId),
    /// Those that a peer has asked for.
    Peer(IpAddr),
}

impl Limits {
    /// Those of who reads seeds of this host.
    pub(super) fn readers(&self) -> PeerLimits {
        PeerLimits { streams: self.streams_of_peer, bytes_per_s: self.bytes_per_s_of_peer }
    }

    /// The parties that a resume counts for, each with how many it may have.
    pub(super) fn of_resume(&self, seed: SeedId, peer: Option<IpAddr>) -> Vec<(Whose, usize)> {
        let peer = peer.map(|peer| (Whose::Peer(peer), self.children_of_peer));
        // The narrowest first: who is refused has taken nothing of the others' meanwhile.
        let here = [(Whose::Seed(seed), self.children_of_seed), (Whose::All, self.children)];
        peer.into_iter().chain(here).collect()
    }
}

impl Whose {
    /// A party would have too many.
    pub(super) fn refuse(self, count: u32, most: usize) -> Failure {
        let (whose, one, setting) = match self {
            Whose::All => (String::new(), "", "max_children"),
            Whose::Seed(seed) => {
                (format!(" of seed {seed}"), " for one seed", "max_children_of_seed")
            }
            Whose::Peer(peer) => (format!(" for {peer}"), " for one peer", "max_children_of_peer"),
        };
        let text = format!(
            "{count} more children{whose} would exceed this host's limit of {most}{one} ({setting}): end some, or \
             resume on another host"
        );
        fail(FailureKind::Limit, text)
    }
}

/// A peer has too many connections.
pub(super) fn too_many_connections(peer: IpAddr, most: usize) -> Failure {
    let text = format!(
        "{peer} has as many connections to this agent as one peer may have, {most} (max_connections_of_peer): each \
         seed that a host holds takes one, and each resume that runs"
    );
    fail(FailureKind::Limit, text)
}

/// A peer has had too many images made.
pub(super) fn too_many_images(peer: IpAddr, most: usize) -> Failure {
    let text = format!(
        "this host already holds as many seeds' images for {peer} as one peer may have, {most} (max_images_of_peer): \
         end children of other seeds there, or resume on another host"
    );
    fail(FailureKind::Limit, text)
}
