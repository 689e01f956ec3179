//! A pager's READs, over at most one connection a peer at a time. What a READ is on a connection, is the
//! fabric's [`Link`].
//!
//! ```text
//!   post --> unsent --(a connection, room in its window)--> sent --> answered
//!               |                                             |
//!          its deadline: Unreachable      its deadline: Unreachable, the connection is closed and the
//!                                         others on it are Flushed; the same if the connection is lost
//! ```
//! A fabric that has another way to fall back to does not let READs wait for a connection: they are refused
//! (`NotYet`) while there is none, or `Flushed` if it was lost before they were sent; no connection is kept for a
//! queue that may not come back. Its READs are sent by `flush`, or with `reap`: those that are posted one after
//! the other are one batch.
//!
//! Where others want the connection, a queue gives it back when its turn is over and all its READs have ended.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use super::local::check;
use super::mailbox::{Delivery, Mailbox};
use super::pool::{Connector, Pool, Pooled, QueueId};
use super::{Completion, MAX_IN_FLIGHT, PostError, Read, ReadError, ReadQueue};

/// Peers that a queue remembers; beyond it, those without READs are forgotten.
const MAX_LANES: usize = 64;
/// One connection's READs in flight.
pub(super) trait Link: Send + std::fmt::Debug + 'static {
    /// What it runs on.
    type Connector: Connector;

    /// What a READ needs to know of its goal beside the connection; found when it is posted.
    type Aim: Send + std::fmt::Debug;

    /// Whether READs wait for a connection; if not, they are refused with `NotYet` until there is one.
    const WAITS: bool;

    /// A link without READs.
    fn new() -> Self;

    /// Whether `read` could be carried out at all, and if so, whom the pool is to connect with.
    ///
    /// # Errors
    /// `NotYet`, `Local`.
    fn aim<'read>(
        connector: &Self::Connector,
        read: &'read Read,
    ) -> Result<(&'read str, Self::Aim), ReadError>;

    /// Whether nothing is in flight.
    fn is_idle(&self) -> bool;

    /// Whether there is room for `read`; there always is where nothing is in flight.
    fn has_room(&self, read: &Read) -> bool;

    /// Takes a READ; `flush` sends it.
    fn push(&mut self, read: Read, aim: Self::Aim);

    /// Sends what can be sent.
    ///
    /// # Errors
    /// The connection is of no use any more.
    fn flush(&mut self, connection: &mut ConnectionOf<Self>) -> Result<(), Broken>;

    /// Receives what is there; gives each READ that ends to `done`.
    ///
    /// # Errors
    /// The connection is of no use any more.
    fn receive(
        &mut self,
        connection: &mut ConnectionOf<Self>,
        done: &mut dyn FnMut(Completion),
    ) -> Result<(), Broken>;

    /// Whether a READ is past its deadline.
    fn is_late(&self, now: Instant) -> bool;

    /// What a READ past its deadline says of the connection.
    fn late() -> Broken {
        Broken::Lost("a READ's deadline has passed".to_owned())
    }

    /// Ends the connection so that no READ on it lands any more; gives them all, front first.
    fn abandon(&mut self, connection: &mut ConnectionOf<Self>) -> Vec<Read>;

    /// What becomes readable when `receive` has something to do.
    fn poll_fd(&self, connection: &ConnectionOf<Self>) -> RawFd;
}

/// The connections of a link.
pub(super) type ConnectionOf<L> = <<L as Link>::Connector as Connector>::Connection;

/// Why a connection is of no use any more.
#[derive(Debug)]
pub(super) enum Broken {
    /// It was closed, or failed: none of the READs on it is at fault.
    Lost(String),
    /// A READ on it was refused, which has ended it: the peer is well, and so are its other connections.
    Refused,
    /// A READ on it has failed, or is late: it is to be made good again. Others are well.
    Spent,
    /// The peer's answer to the front READ makes no sense: to ask it again is useless.
    Protocol(String),
}

/// A pager's READs on the links of one fabric.
#[derive(Debug)]
pub(super) struct Queue<L: Link> {
    pool: Arc<Pool<L::Connector>>,
    id: QueueId,
    /// `None` if the agent was out of descriptors.
    mailbox: Option<Arc<Mailbox<ConnectionOf<L>>>>,
    lanes: Vec<Lane<L>>,
    in_flight: usize,
}

/// What goes to one peer.
#[derive(Debug)]
struct Lane<L: Link> {
    peer: Arc<str>,
    /// Whose it is.
    queue: QueueId,
    pooled: Option<Pooled<ConnectionOf<L>>>,
    /// Whether the pool will deliver a connection.
    waits: bool,
    unsent: VecDeque<(Read, L::Aim)>,
    link: L,
    /// Why the connection is of no use; `reap` deals with it.
    broken: Option<Broken>,
    /// Its turn is over: the connection is given back before a READ more is taken, or where READs wait, sent.
    yields: bool,
}

impl<L: Link> Queue<L> {
    pub(super) fn new(pool: Arc<Pool<L::Connector>>) -> Self {
        let mailbox = Mailbox::new().map_err(|error| {
            tracing::warn!(%error, "a queue has no descriptor; its READs will fail");
        });
        let id = pool.queue();
        Queue { pool, id, mailbox: mailbox.ok(), lanes: Vec::new(), in_flight: 0 }
    }

    fn lane(&mut self, peer: &str) -> &mut Lane<L> {
        let index = match self.lanes.iter().position(|lane| &*lane.peer == peer) {
            Some(index) => index,
            None => {
                if self.lanes.len() >= MAX_LANES {
                    self.lanes.retain(|lane| !lane.is_empty() || lane.waits);
                }
                self.lanes.push(Lane::new(peer.into(), self.id));
                self.lanes.len() - 1
            }
        };
        &mut self.lanes[index]
    }

    /// Takes what the pool has sent.
    fn receive_deliveries(
        &mut self,
        mailbox: &Mailbox<ConnectionOf<L>>,
        done: &mut dyn FnMut(Completion),
    ) {
        if !mailbox.hear() {
            return;
        }
        while let Some(delivery) = mailbox.take() {
            let (Delivery::Connection(peer, _) | Delivery::Failed(peer, _)) = &delivery;
            let lane = self.lanes.iter_mut().find(|lane| lane.peer == *peer);
            match (delivery, lane) {
                (Delivery::Connection(_, pooled), Some(lane)) if lane.pooled.is_none() => {
                    lane.waits = false;
                    lane.pooled = Some(pooled);
                }
                (Delivery::Connection(peer, pooled), _) => self.pool.checkin(&peer, pooled),
                (Delivery::Failed(_, error), Some(lane)) => {
                    lane.waits = false;
                    for (read, _) in lane.unsent.drain(..) {
                        end(read, Err(error.clone()), done);
                    }
                }
                (Delivery::Failed(..), None) => {}
            }
        }
    }
}

impl<L: Link> Lane<L> {
    fn new(peer: Arc<str>, queue: QueueId) -> Self {
        Lane {
            peer,
            queue,
            pooled: None,
            waits: false,
            unsent: VecDeque::with_capacity(MAX_IN_FLIGHT),
            link: L::new(),
            broken: None,
            yields: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.unsent.is_empty() && self.link.is_idle() && self.pooled.is_none()
    }

    /// Whether it has a connection; asks for one if it has not.
    fn is_connected(
        &mut self,
        pool: &Arc<Pool<L::Connector>>,
        mailbox: &Arc<Mailbox<ConnectionOf<L>>>,
    ) -> bool {
        if self.pooled.is_none() && !self.waits {
            self.pooled = match L::WAITS {
                true => pool.checkout(&self.peer, mailbox),
                false => pool.grab(&self.peer, self.queue),
            };
            self.waits = L::WAITS && self.pooled.is_none();
        }
        self.pooled.is_some()
    }

    /// Sends what can be sent now; asks for a connection if there is none.
    fn send(&mut self, pool: &Arc<Pool<L::Connector>>, mailbox: &Arc<Mailbox<ConnectionOf<L>>>) {
        if self.unsent.is_empty() || self.waits || self.broken.is_some() {
            return;
        }
        self.is_connected(pool, mailbox);
        let Some(pooled) = &mut self.pooled else { return };
        while !(L::WAITS && self.yields) {
            match self.unsent.pop_front() {
                Some((read, aim)) if self.link.has_room(&read) => self.link.push(read, aim),
                Some(waits) => {
                    self.unsent.push_front(waits);
                    break;
                }
                None => break,
            }
            pooled.count_read();
            if pooled.is_turn_over() && !self.yields {
                self.yields = pool.wants_a_turn(&self.peer);
                if !self.yields {
                    pooled.begin_turn();
                }
            }
        }
        if let Err(broken) = self.link.flush(&mut pooled.connection) {
            self.broken = Some(broken);
            mailbox.ring();
        }
    }

    /// Receives answers; a connection that fails ends the READs on it.
    fn receive(&mut self, pool: &Arc<Pool<L::Connector>>, done: &mut dyn FnMut(Completion)) {
        let Some(Pooled { connection, proved, .. }) = &mut self.pooled else { return };
        if self.broken.is_none() && !self.link.is_idle() {
            let link = &mut self.link;
            let received = link.flush(connection).and_then(|()| {
                link.receive(connection, &mut |completion| {
                    *proved |= completion.result.is_ok();
                    done(completion);
                })
            });
            self.broken = received.err();
        }
        if let Some(broken) = self.broken.take() {
            self.fail(pool, broken, done);
        }
    }

    /// Ends READs that are past their deadline.
    fn expire(
        &mut self,
        pool: &Arc<Pool<L::Connector>>,
        now: Instant,
        done: &mut dyn FnMut(Completion),
    ) {
        if self.link.is_late(now) {
            self.fail(pool, L::late(), done);
        }
        let mut at = 0;
        while at < self.unsent.len() {
            if self.unsent[at].0.deadline > now {
                at += 1;
            } else if let Some((read, _)) = self.unsent.remove(at) {
                let error = late(&self.peer, pool);
                end(read, Err(error), done);
            }
        }
    }

    /// Parts with the connection. The front READ ends with an error of its own, if it is at fault; one whose
    /// deadline has passed is `Unreachable`; all others are flushed.
    fn fail(
        &mut self,
        pool: &Arc<Pool<L::Connector>>,
        broken: Broken,
        done: &mut dyn FnMut(Completion),
    ) {
        let Some(mut pooled) = self.pooled.take() else { return };
        let reads = self.link.abandon(&mut pooled.connection);
        let mut front = None;
        match broken {
            Broken::Lost(reason) => pool.discard(&self.peer, pooled, &reason),
            Broken::Refused => pool.close(&self.peer, pooled),
            Broken::Spent => pool.mend(&self.peer, pooled),
            Broken::Protocol(reason) => {
                pool.discard(&self.peer, pooled, &reason);
                front = Some(ReadError::Unreachable(format!(
                    "{} breaks the READ protocol ({reason}); both sides must run the same version of mitosis",
                    self.peer
                )));
            }
        }
        let now = Instant::now();
        (self.yields, self.broken) = (false, None);
        for read in reads {
            let error = match front.take() {
                Some(error) => error,
                None if read.deadline <= now => late(&self.peer, pool),
                None => ReadError::Flushed,
            };
            end(read, Err(error), done);
        }
    }

    /// Gives the connection back when nothing is in flight on it.
    fn rest(&mut self, pool: &Arc<Pool<L::Connector>>, mailbox: &Arc<Mailbox<ConnectionOf<L>>>) {
        if self.unsent.is_empty() && self.waits {
            pool.cancel(&self.peer, mailbox);
            self.waits = false;
        }
        if self.link.is_idle() && (self.unsent.is_empty() || (L::WAITS && self.yields)) {
            if let Some(pooled) = self.pooled.take() {
                pool.checkin(&self.peer, pooled);
            }
            self.yields = false;
        }
    }
}

impl<L: Link> ReadQueue for Queue<L> {
    fn post(&mut self, read: Read) -> Result<(), PostError> {
        if let Err(error) = check(&read, self.in_flight) {
            return Err(PostError { error, read });
        }
        let Some(mailbox) = self.mailbox.clone() else {
            let error = ReadError::Local("the agent is out of descriptors".to_owned());
            return Err(PostError { error, read });
        };
        let pool = Arc::clone(&self.pool);
        let (peer, aim) = match L::aim(pool.connector(), &read) {
            Ok(aimed) => aimed,
            Err(error) => return Err(PostError { error, read }),
        };
        let lane = self.lane(peer);
        if !L::WAITS && (lane.yields || !lane.is_connected(&pool, &mailbox)) {
            return Err(PostError { error: ReadError::NotYet, read });
        }
        lane.unsent.push_back((read, aim));
        if L::WAITS {
            lane.send(&pool, &mailbox);
        }
        self.in_flight += 1;
        Ok(())
    }

    fn flush(&mut self) {
        let Some(mailbox) = &self.mailbox else { return };
        self.lanes.iter_mut().for_each(|lane| lane.send(&self.pool, mailbox));
    }

    fn reap(&mut self, done: &mut dyn FnMut(Completion)) {
        let Some(mailbox) = self.mailbox.clone() else { return };
        let mut ended = 0;
        let mut done = |completion| {
            ended += 1;
            done(completion);
        };
        self.receive_deliveries(&mailbox, &mut done);
        let now = Instant::now();
        for lane in &mut self.lanes {
            lane.receive(&self.pool, &mut done);
            lane.expire(&self.pool, now, &mut done);
            lane.rest(&self.pool, &mailbox);
            lane.send(&self.pool, &mailbox);
            if !L::WAITS && lane.pooled.is_none() {
                let unsent = lane.unsent.drain(..);
                unsent.for_each(|(read, _)| end(read, Err(ReadError::Flushed), &mut done));
            }
        }
        self.in_flight -= ended;
    }

    fn poll_fds(&self, fds: &mut Vec<RawFd>) {
        fds.extend(self.mailbox.as_ref().map(|mailbox| mailbox.fd()));
        let busy = self.lanes.iter().filter(|lane| !lane.link.is_idle());
        let fd = |lane: &Lane<L>| Some(lane.link.poll_fd(&lane.pooled.as_ref()?.connection));
        fds.extend(busy.filter_map(fd));
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl<L: Link> Drop for Queue<L> {
    fn drop(&mut self) {
        let Some(mailbox) = self.mailbox.take() else { return };
        for lane in &mut self.lanes {
            match L::WAITS {
                true if lane.waits => self.pool.cancel(&lane.peer, &mailbox),
                true => {}
                false => self.pool.withdraw(&lane.peer, self.id),
            }
            if let Some(mut pooled) = lane.pooled.take() {
                if lane.link.is_idle() {
                    self.pool.checkin(&lane.peer, pooled);
                } else {
                    // Answers that are still to come make it useless for others.
                    lane.link.abandon(&mut pooled.connection);
                    self.pool.close(&lane.peer, pooled);
                }
            }
        }
        while let Some(delivery) = mailbox.take() {
            if let Delivery::Connection(peer, pooled) = delivery {
                self.pool.checkin(&peer, pooled);
            }
        }
    }
}

fn end(read: Read, result: Result<(), ReadError>, done: &mut dyn FnMut(Completion)) {
    done(Completion { tag: read.tag, buffer: read.buffer, result });
}

fn late<K: Connector>(peer: &str, pool: &Pool<K>) -> ReadError {
    let last_error = pool.last_error(peer);
    ReadError::Unreachable(match last_error.as_str() {
        "" => format!("no answer from {peer} by the READ's deadline"),
        reason => format!("no answer from {peer} by the READ's deadline ({reason})"),
    })
}
