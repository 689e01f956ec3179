//! The `rc` fabric: one-sided READs of owners' arenas over RC connections.
//!
//! | part | does |
//! |---|---|
//! | `connector` | finds the peer by rdma-cm, shows it a token |
//! | `link` | one connection's READs in flight |
//! | `super::landings` | READs whose buffers belong to the card |
//! | `super::arrivals` | a QP's completions |
//! | `super::queue` | a pager's READs, over one link a peer |
//! | `super::pool` | connections, shared by all queues |
//!
//! A READ never waits for a connection: until there is one, and while the bytes are not in the arena, `tcp`
//! has the page. A connection that fails is replaced as a whole; both of its QPs are in ERR by then.

use std::sync::Arc;

use super::pool::{Limits, Pool};
use super::queue::Queue;
use super::tcp::TokenSource;
use super::{Fabric, Posted, ReadQueue};
use crate::descriptor::Export;
use crate::verbs::{Error, EventChannel, Pd};

mod connector;
mod link;

pub use connector::RcSettings;

use connector::RcConnector;
use link::RcLink;

/// READs owners' arenas over RC.
#[derive(Debug)]
pub struct RcFabric {
    pool: Arc<Pool<RcConnector>>,
    /// "host:port" of this host's own agent, whose seeds are read without a card.
    own_agent: Option<String>,
}

impl RcFabric {
    /// A fabric on the card of `pd`, whose connections are opened with `tokens`.
    ///
    /// # Errors
    /// rdma-cm is not to be had.
    pub fn new(
        pd: Arc<Pd>,
        settings: RcSettings,
        tokens: Arc<dyn TokenSource>,
        own_agent: Option<String>,
    ) -> Result<Arc<Self>, Error> {
        // Said now, not by the first READ.
        drop(EventChannel::new()?);
        let limits = Limits::default();
        let connector = RcConnector {
            pd,
            settings,
            tokens,
            timeout: limits.connect_timeout,
            doorbells: Arc::default(),
        };
        Ok(Arc::new(RcFabric { pool: Pool::new(connector, limits), own_agent }))
    }

    /// Connections to a peer that exist or are being made: for metrics.
    pub fn connections(&self, peer: &str) -> usize {
        self.pool.open(peer)
    }
}

impl Fabric for RcFabric {
    fn name(&self) -> &'static str {
        "rc"
    }

    fn is_rdma(&self) -> bool {
        true
    }

    fn serves(&self, export: &Export) -> bool {
        match export {
            Export::Rc(endpoint) => Some(endpoint.agent()) != self.own_agent.as_deref(),
            Export::Tcp { .. } | Export::Dc(_) => false,
        }
    }

    fn posted(&self) -> Posted {
        self.pool.connector().doorbells.posted()
    }

    fn queue(self: Arc<Self>) -> Box<dyn ReadQueue> {
        Box::new(Queue::<RcLink>::new(Arc::clone(&self.pool)))
    }
}
