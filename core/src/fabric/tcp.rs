//! The `tcp` fabric: READ over streams to page services (`wire::read`).
//!
//! | part | does |
//! |---|---|
//! | `link` | one connection's READs in flight, in order |
//! | `queue` | a pager's READs, over one link a peer |
//! | `push` | a seed's hot pages, unasked |
//! | `super::pool` | connections, shared by all queues |

use std::sync::Arc;

use super::pool::Pool;
use super::{Fabric, ReadQueue};
use crate::descriptor::Export;

mod link;
mod push;
mod queue;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod tests;

pub use super::pool::{Limits, TokenSource};
pub use push::PushReport;

/// READs seeds whose agents have a remote listener.
#[derive(Debug)]
pub struct TcpFabric {
    pool: Arc<Pool>,
}

impl TcpFabric {
    /// A fabric with a pool of its own, whose connections are opened with `tokens`.
    pub fn new(tokens: Arc<dyn TokenSource>, limits: Limits) -> Arc<Self> {
        Arc::new(TcpFabric { pool: Pool::new(tokens, limits) })
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
        let Export::Tcp { agent, .. } = export;
        agent.is_some()
    }

    fn queue(self: Arc<Self>) -> Box<dyn ReadQueue> {
        Box::new(queue::TcpQueue::new(Arc::clone(&self.pool)))
    }
}
