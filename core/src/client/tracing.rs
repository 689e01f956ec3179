//! What an image of this host does while somebody watches.

use super::connection::{Connection, unexpected};
use super::{AgentAddress, ClientError};
use crate::wire::local::{LocalReply, LocalRequest};
use crate::wire::traced::{TraceOf, Traced};

const WHILE: &str = "traces";

/// A trace that is under way. Dropped, it ends and nothing comes of it.
#[derive(Debug)]
pub struct Tracing {
    connection: Connection,
    was_here: bool,
}

/// Begins to record what the image of a seed, or of a child, does on this host. A seed that is not here yet is recorded from the
/// first page on, once it is resumed here.
///
/// # Errors
/// There is no such seed or child here, the key is wrong, it is traced already, or the agent is gone or silent.
pub fn trace(agent: &AgentAddress, of: TraceOf) -> Result<Tracing, ClientError> {
    let mut connection = Connection::open(agent)?;
    match connection.ask(&LocalRequest::Trace(of), &[], WHILE)? {
        LocalReply::Tracing { was_here } => Ok(Tracing { connection, was_here }),
        other => Err(unexpected(&other, WHILE)),
    }
}

impl Tracing {
    /// Whether the image was here before: what had come by then is not among the misses.
    pub fn was_here(&self) -> bool {
        self.was_here
    }

    /// Ends it, and tells what was recorded.
    ///
    /// # Errors
    /// The agent is gone or silent.
    pub fn end(mut self) -> Result<Traced, ClientError> {
        self.connection.end_asking().map_err(ClientError::Io)?;
        match self.connection.hear(WHILE)? {
            LocalReply::Traced(traced) => Ok(traced),
            other => Err(unexpected(&other, WHILE)),
        }
    }
}
