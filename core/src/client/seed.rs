//! A seed, as the process that prepared it holds it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::connection::{ask, done, unexpected};
use super::{AgentAddress, ClientError};
use crate::id::{Handle, PrepareToken};
use crate::prepare::{Pause, reap};
use crate::sys::pidfd::PidFd;
use crate::wire::local::{DropMode, LocalReply, LocalRequest};

/// After a drop the seed ends at once unless children hold it: looks for its end, and the pause between.
const REAP_TRIES: u32 = 10;
const REAP_PAUSE: Duration = Duration::from_millis(1);

/// A frozen copy of this process. It outlives this value, and the process, until it is dropped by
/// [`Seed::drop_seed`] or its agent is told to end.
#[derive(Debug)]
pub struct Seed {
    /// The seed's process: only the process that prepared it may reap it.
    pid: i32,
    owner: u32,
    token: PrepareToken,
    agent: AgentAddress,
    /// The agent has answered for it, one way or the other.
    settled: AtomicBool,
    pause: Option<Pause>,
}

impl Seed {
    pub(crate) fn new(
        pid: i32,
        token: PrepareToken,
        agent: AgentAddress,
        pause: Option<Pause>,
    ) -> Self {
        let settled = AtomicBool::new(false);
        Seed { pid, owner: std::process::id(), token, agent, settled, pause }
    }

    /// How long the threads of this process stood still for it; `None` if only the caller is in its
    /// children.
    pub fn pause(&self) -> Option<Pause> {
        self.pause
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The agent that has it.
    pub fn agent(&self) -> &AgentAddress {
        &self.agent
    }

    /// What names it to its agent before it has a handle, for [`published`].
    pub fn token(&self) -> &PrepareToken {
        &self.token
    }

    /// Waits until the agent has published the seed and returns its handle.
    ///
    /// # Errors
    /// Why the process could not be published, or that the agent is gone or silent.
    pub fn handle(&self) -> Result<Handle, ClientError> {
        let reply = published(&self.agent, self.token);
        if matches!(reply, Ok(_) | Err(ClientError::Failed(_))) {
            self.settled.store(true, Relaxed);
        }
        reply
    }

    /// Ends the seed.
    ///
    /// # Errors
    /// The agent refuses, is gone or silent. Unless it is [`FailureKind::SeedGone`](crate::wire::local::FailureKind),
    /// the seed may live on, and the next agent may have it: drop it again.
    pub fn drop_seed(&self, how: DropMode) -> Result<(), ClientError> {
        const WHILE: &str = "drops the seed";
        if !self.settled.load(Relaxed) {
            // An agent to which the seed has not reported yet has nothing to drop. Why it was not published
            // does not matter any more.
            let _ = self.handle();
        }
        let outcome = match how {
            DropMode::Revoke => self.handle().and_then(|handle| {
                let request = LocalRequest::Drop { seed: handle.seed, how };
                done(ask(&self.agent, &request, WHILE)?, WHILE)
            }),
            DropMode::AfterChildren => {
                let request = LocalRequest::DropPrepared { token: self.token };
                ask(&self.agent, &request, WHILE).and_then(|reply| done(reply, WHILE))
            }
        };
        self.reap_soon();
        outcome
    }

    /// Ends a seed of which nobody has the handle, even if its agent is gone: the next one would find it.
    pub fn discard(self) {
        if self.drop_seed(DropMode::AfterChildren).is_ok() || self.reaped() {
            return;
        }
        // Not reaped yet, its number is nobody else's.
        if let Some(seed) = u32::try_from(self.pid).ok().and_then(|pid| PidFd::open(pid).ok()) {
            // One that has ended meanwhile is as well.
            let _ = seed.signal(libc::SIGKILL);
            self.reap_soon();
        }
    }

    fn reap_soon(&self) {
        for _ in 0..REAP_TRIES {
            if self.reaped() {
                return;
            }
            thread::sleep(REAP_PAUSE);
        }
    }

    /// Takes the seed's process away if it has ended; whether nothing of it is left in this process.
    pub fn reaped(&self) -> bool {
        self.owner != std::process::id() || reap::one(self.pid)
    }
}

/// The handle of the seed that was prepared with `token`, once `agent` has published it.
///
/// # Errors
/// Why the process could not be published, or that the agent is gone or silent.
pub fn published(agent: &AgentAddress, token: PrepareToken) -> Result<Handle, ClientError> {
    const WHILE: &str = "publishes the seed";
    match ask(agent, &LocalRequest::Await { token }, WHILE)? {
        LocalReply::Published { handle } => Ok(handle),
        other => Err(unexpected(&other, WHILE)),
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.reaped();
    }
}
