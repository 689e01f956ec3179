//! The `tcp` fabric: READ over streams to page services (`wire::read`).
//!
//! | part | does |
//! |---|---|
//! | `connector` | opens a stream |
//! | `link` | one connection's READs in flight, in order |
//! | `push` | a seed's hot pages, unasked |
//! | `super::queue` | a pager's READs, over one link a peer |
//! | `super::pool` | connections, shared by all queues |

use std::sync::Arc;

use super::pool::Pool;
use super::queue::Queue;
use super::{Fabric, ReadQueue};
use crate::descriptor::Export;
use crate::wire::seal::Encryption;

mod connector;
mod link;
mod push;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

use connector::TcpConnector;
use link::TcpLink;

pub use super::pool::Limits;
pub use connector::TokenSource;
pub use push::PushReport;

/// READs seeds whose agents have a remote listener.
#[derive(Debug)]
pub struct TcpFabric {
    pool: Arc<Pool<TcpConnector>>,
}

impl TcpFabric {
    /// A fabric with a pool of its own, whose connections are opened with `tokens`.
    pub fn new(tokens: Arc<dyn TokenSource>, limits: Limits) -> Arc<Self> {
        TcpFabric::encrypting(tokens, limits, Encryption::default())
    }

    /// As [`Self::new`]; its streams are encrypted where this side or the other demands it.
    pub fn encrypting(
        tokens: Arc<dyn TokenSource>,
        limits: Limits,
        encryption: Encryption,
    ) -> Arc<Self> {
        let connector = TcpConnector::new(tokens, limits.connect_timeout, encryption);
        Arc::new(TcpFabric { pool: Pool::new(connector, limits) })
    }

    /// Connections to `agent` that exist or are being made: for metrics.
    pub fn connections(&self, agent: &str) -> usize {
        self.pool.open(agent)
    }
}

impl Fabric for TcpFabric {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn serves(&self, export: &Export) -> bool {
        export.tcp().is_some_and(|(agent, _)| agent.is_some())
    }

    fn queue(self: Arc<Self>) -> Box<dyn ReadQueue> {
        Box::new(Queue::<TcpLink>::new(Arc::clone(&self.pool)))
    }
}
