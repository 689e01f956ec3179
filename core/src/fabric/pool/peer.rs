//! What a pool knows of one peer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::wishes::{QueueId, Wishes};
use super::{Mailbox, Pooled};

/// Pause before the second attempt after a failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// The pause grows no longer.
const BACKOFF_LAST: Duration = Duration::from_millis(500);
/// How long a connection is still wanted behind the last READ that did not wait for it.
const INTEREST: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Peer<C> {
    pub(super) idle: Vec<Pooled<C>>,
    /// Connections that exist or are being made.
    pub(super) open: usize,
    pub(super) connectors: usize,
    pub(super) waiters: VecDeque<Arc<Mailbox<C>>>,
    /// Of those who do not wait.
    pub(super) wishes: Wishes,
    /// When one of them would have used one more connection than there are.
    pub(super) wished: Option<Instant>,
    /// In a row.
    failures: u32,
    pub(super) not_before: Option<Instant>,
    pub(super) last_error: String,
}

impl<C> Peer<C> {
    pub(super) fn new(keeps_place: Duration) -> Self {
        Peer {
            idle: Vec::new(),
            open: 0,
            connectors: 0,
            waiters: VecDeque::new(),
            wishes: Wishes::new(keeps_place),
            wished: None,
            failures: 0,
            not_before: None,
            last_error: String::new(),
        }
    }

    /// An idle connection for a queue that does not wait for one.
    pub(super) fn grab(&mut self, queue: QueueId) -> Option<Pooled<C>> {
        let now = Instant::now();
        if self.wishes.grant(queue, self.idle.len(), now) {
            self.wished = None;
            return self.idle.pop();
        }
        self.wished = Some(now);
        None
    }

    /// Takes a connection back that nobody waits for.
    pub(super) fn rest(&mut self, mut stream: Pooled<C>) {
        let is_over = stream.is_turn_over();
        if is_over {
            stream.begin_turn();
        }
        self.idle.push(stream);
        if is_over {
            self.wishes.keep_one(self.idle.len(), Instant::now());
        }
    }

    /// Notes a failure; tells whether it is another than the last one.
    pub(super) fn failed(&mut self, reason: String, count: u32) -> bool {
        let is_news = self.failures == 0 || self.last_error != reason;
        self.failures = self.failures.saturating_add(count).max(1);
        self.not_before = Some(Instant::now() + backoff(self.failures));
        self.last_error = reason;
        is_news
    }

    /// It has answered.
    pub(super) fn proved(&mut self) {
        self.failures = 0;
        self.not_before = None;
    }

    /// Whether anybody would use one more connection.
    pub(super) fn is_waited_for(&self) -> bool {
        let is_wished = || self.wished.is_some_and(|at| at.elapsed() < INTEREST);
        !self.waiters.is_empty() || (self.idle.is_empty() && is_wished())
    }

    /// Whether anybody would have the turn of one that is given back.
    pub(super) fn wants_a_turn(&mut self) -> bool {
        !self.waiters.is_empty() || self.wishes.want_a_turn(self.idle.len(), Instant::now())
    }

    /// Counts one more connector if one is wanted: one for each waiter, but a peer that fails is tried
    /// once at a time.
    pub(super) fn wants_connector(&mut self, limit: usize) -> bool {
        let most = match self.failures {
            0 => self.waiters.len().max(1),
            _ => 1,
        };
        let wanted = self.is_waited_for() && self.connectors < most && self.open < limit;
        if wanted {
            self.connectors += 1;
            self.open += 1;
        }
        wanted
    }
}

/// The pause after so many failures in a row: none after the first, so that a peer that was restarted is
/// found at once.
fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => BACKOFF_FIRST.saturating_mul(1 << (more - 2).min(16)).min(BACKOFF_LAST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_free_and_the_pauses_end_growing() {
        let pauses: Vec<u128> = (0..12).map(|failures| backoff(failures).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 5, 10, 20, 40, 80, 160, 320, 500, 500, 500]);
        assert_eq!(backoff(u32::MAX), BACKOFF_LAST);
    }
}
