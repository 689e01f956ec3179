//! The ways to an owner's bytes, preferred ones first.

use std::sync::Arc;

use crate::descriptor::{Export, Owner};
use crate::fabric::{Fabric, RemoteArena};
use crate::id::SeedId;

/// One owner and the ways to it.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) seed: SeedId,
    /// Who it is, for people.
    pub(super) host: String,
    pub(super) routes: Vec<Route>,
    /// Where its bytes lie for RDMA cards.
    pub(super) arena: Option<Arc<RemoteArena>>,
}

/// One export through one fabric.
#[derive(Debug)]
pub(super) struct Route {
    /// Index into the image's fabrics, and so into a thread's queues.
    pub(super) fabric: usize,
    pub(super) export: Export,
}

impl Ways {
    /// Every export through every fabric that serves it, in this order; but of the ways by a card the first
    /// alone. Behind it is tcp: where one card's way fails the next would, and would cost connections to know.
    pub(super) fn new(owner: &Owner, fabrics: &[Arc<dyn Fabric>]) -> Ways {
        let mut has_rdma = false;
        let routes = owner.exports.iter().flat_map(|export| {
            let serving = fabrics.iter().enumerate().filter(|(_, fabric)| fabric.serves(export));
            serving.map(|(fabric, serves)| {
                (serves.is_rdma(), Route { fabric, export: export.clone() })
            })
        });
        let routes = routes.filter_map(|(is_rdma, route)| {
            let is_second = is_rdma && std::mem::replace(&mut has_rdma, true);
            (!is_second).then_some(route)
        });
        let host = owner.exports.iter().find_map(|export| export.tcp()?.0.map(str::to_owned));
        Ways {
            seed: owner.seed,
            host: host.unwrap_or_else(|| "this host".to_owned()),
            routes: routes.collect::<Vec<_>>(),
            arena: owner.arena.as_ref().map(|map| Arc::new(RemoteArena::new(map))),
        }
    }
}
