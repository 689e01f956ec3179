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
            routes: routes.collect(),
            arena: owner.arena.as_ref().map(|map| Arc::new(RemoteArena::new(map))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{DcTarget, RcEndpoint};
    use crate::fabric::ReadQueue;
    use crate::id::{DcKey, ReadKey};

    #[derive(Debug)]
    struct Named(&'static str);

    impl Fabric for Named {
        fn name(&self) -> &'static str {
            self.0
        }
        fn is_rdma(&self) -> bool {
            self.0 != "tcp"
        }
        fn serves(&self, export: &Export) -> bool {
            matches!(
                (self.0, export),
                ("dc", Export::Dc(_)) | ("rc", Export::Rc(_)) | ("tcp", Export::Tcp { .. })
            )
        }
        fn queue(self: Arc<Self>) -> Box<dyn ReadQueue> {
            unreachable!("nothing is read here")
        }
    }

    /// The fabrics by which a host that has `fabrics` READs an owner of these exports.
    fn ways(fabrics: &[&'static str], exports: &[&str]) -> Vec<&'static str> {
        let export = |name: &&str| match *name {
            "dc" => Export::Dc(DcTarget { gid: [1; 16], lid: 0, dctn: 7, dc_key: DcKey([2; 8]) }),
            "rc" => Export::Rc(RcEndpoint::new("host-a:7370", "10.0.0.1:9".parse().unwrap())),
            _ => Export::Tcp { agent: Some("host-a:7370".to_owned()), read_key: ReadKey([3; 16]) },
        };
        let exports = exports.iter().map(export).collect();
        let owner = Owner { seed: SeedId(1), epoch: 1, exports, arena: None };
        let made = |name: &&'static str| Arc::new(Named(name)) as Arc<dyn Fabric>;
        let ways = Ways::new(&owner, &fabrics.iter().map(made).collect::<Vec<_>>());
        ways.routes.iter().map(|route| fabrics[route.fabric]).collect()
    }

    #[test]
    fn hosts_that_differ_meet_in_what_both_have() {
        let (dc, rc, tcp) = (&["dc", "rc", "tcp"][..], &["rc", "tcp"][..], &["tcp"][..]);
        // Of two ways by the card the first alone: a second one costs a connection for nothing.
        assert_eq!(ways(dc, dc), ["dc", "tcp"]);
        assert_eq!(ways(rc, dc), ["rc", "tcp"]);
        assert_eq!(ways(dc, rc), ["rc", "tcp"]);
        assert_eq!(ways(dc, &["dc", "tcp"]), ["dc", "tcp"]);
        assert_eq!(ways(rc, &["dc", "tcp"]), ["tcp"]);
        for (own, owners) in [(tcp, dc), (tcp, rc), (dc, tcp), (rc, tcp)] {
            assert_eq!(ways(own, owners), ["tcp"]);
        }
    }
}
