//! A pager's READs, over at most one connection a peer at a time.
//!
//! ```text
//!   post --> unsent --(a connection, room in its window)--> sent --> answered
//!               |                                             |
//!          its deadline: Unreachable      its deadline: Unreachable, the connection is closed and the
//!                                         others on it are Flushed; the same if the connection is lost
//! ```

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use super::link::{Broken, Link};
use crate::descriptor::Export;
use crate::fabric::local::check;
use crate::fabric::pool::{Delivery, Mailbox, Pool, Stream};
use crate::fabric::{Completion, MAX_IN_FLIGHT, PostError, Read, ReadError, ReadQueue};

/// READs that a queue sends on one connection before it gives way to a queue that waits for one.
const TURN_READS: u32 = 64;
/// Peers that a queue remembers; beyond it, those without READs are forgotten.
const MAX_LANES: usize = 64;

#[derive(Debug)]
pub(super) struct TcpQueue {
    pool: Arc<Pool>,
    /// `None` if the agent was out of descriptors.
    mailbox: Option<Arc<Mailbox>>,
    lanes: Vec<Lane>,
    in_flight: usize,
}

/// What goes to one peer.
#[derive(Debug)]
struct Lane {
    peer: Arc<str>,
    stream: Option<Stream>,
    /// Whether the pool will deliver a connection.
    waits: bool,
    unsent: VecDeque<Read>,
    link: Link,
    /// Why the connection is of no use; `reap` deals with it.
    broken: Option<Broken>,
    /// READs sent since the connection was checked out, or since nobody waited.
    turn: u32,
    /// Nothing more is sent until another queue has had the connection.
    yields: bool,
}

impl TcpQueue {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        let mailbox = Mailbox::new().map_err(|error| {
            tracing::warn!(%error, "a tcp queue has no descriptor; its READs will fail");
        });
        TcpQueue { pool, mailbox: mailbox.ok(), lanes: Vec::new(), in_flight: 0 }
    }

    fn lane(&mut self, peer: &str) -> &mut Lane {
        let index = match self.lanes.iter().position(|lane| &*lane.peer == peer) {
            Some(index) => index,
            None => {
                if self.lanes.len() >= MAX_LANES {
                    self.lanes.retain(|lane| !lane.is_empty() || lane.waits);
                }
                self.lanes.push(Lane::new(peer.into()));
                self.lanes.len() - 1
            }
        };
        &mut self.lanes[index]
    }

    /// Takes what the pool has sent.
    fn receive_deliveries(&mut self, mailbox: &Mailbox, done: &mut dyn FnMut(Completion)) {
        if !mailbox.hear() {
            return;
        }
        while let Some(delivery) = mailbox.take() {
            let (Delivery::Stream(peer, _) | Delivery::Failed(peer, _)) = &delivery;
            let lane = self.lanes.iter_mut().find(|lane| lane.peer == *peer);
            match (delivery, lane) {
                (Delivery::Stream(_, stream), Some(lane)) if lane.stream.is_none() => {
                    lane.waits = false;
                    lane.stream = Some(stream);
                }
                (Delivery::Stream(peer, stream), _) => self.pool.checkin(&peer, stream),
                (Delivery::Failed(_, error), Some(lane)) => {
                    lane.waits = false;
                    for read in lane.unsent.drain(..) {
                        end(read, Err(error.clone()), done);
                    }
                }
                (Delivery::Failed(..), None) => {}
            }
        }
    }
}

impl Lane {
    fn new(peer: Arc<str>) -> Self {
        Lane {
            peer,
            stream: None,
            waits: false,
            unsent: VecDeque::with_capacity(MAX_IN_FLIGHT),
            link: Link::new(),
            broken: None,
            turn: 0,
            yields: false,
        }
    }

    fn is_empty(&self) -> bool {
        self.unsent.is_empty() && self.link.is_idle() && self.stream.is_none()
    }

    /// Sends what can be sent now; asks for a connection if there is none.
    fn send(&mut self, pool: &Arc<Pool>, mailbox: &Arc<Mailbox>) {
        if self.unsent.is_empty() || self.waits || self.broken.is_some() {
            return;
        }
        if self.stream.is_none() {
            self.stream = pool.checkout(&self.peer, mailbox);
            self.waits = self.stream.is_none();
        }
        let Some(stream) = &self.stream else { return };
        while !self.yields {
            match self.unsent.pop_front() {
                Some(read) if self.link.has_room(&read) => self.link.push(read),
                Some(read) => {
                    self.unsent.push_front(read);
                    break;
                }
                None => break,
            }
            self.turn += 1;
            if self.turn >= TURN_READS {
                self.turn = 0;
                self.yields = pool.is_waited_for(&self.peer);
            }
        }
        if let Err(broken) = self.link.flush(&stream.tcp) {
            self.broken = Some(broken);
            mailbox.ring();
        }
    }

    /// Receives answers; a connection that fails ends the READs on it.
    fn receive(&mut self, pool: &Arc<Pool>, done: &mut dyn FnMut(Completion)) {
        let Some(stream) = &mut self.stream else { return };
        if self.broken.is_none() && !self.link.is_idle() {
            let (link, tcp) = (&mut self.link, &stream.tcp);
            let received = link.flush(tcp).and_then(|()| {
                link.receive(tcp, &mut |completion| {
                    stream.proved = true;
                    done(completion);
                })
            });
            self.broken = received.err();
        }
        match self.broken.take() {
            Some(Broken::Lost(reason)) => self.fail(pool, &reason, None, done),
            Some(Broken::Protocol(reason)) => {
                let peer = &self.peer;
                let text = format!(
                    "{peer} breaks the READ protocol ({reason}); both sides must run the same version \
                     of mitosis"
                );
                self.fail(pool, &reason, Some(ReadError::Unreachable(text)), done);
            }
            None => {}
        }
    }

    /// Ends READs that are past their deadline.
    fn expire(&mut self, pool: &Arc<Pool>, now: Instant, done: &mut dyn FnMut(Completion)) {
        if self.link.reads().any(|read| read.deadline <= now) {
            self.fail(pool, "a READ's deadline has passed", None, done);
        }
        let mut at = 0;
        while at < self.unsent.len() {
            if self.unsent[at].deadline > now {
                at += 1;
            } else if let Some(read) = self.unsent.remove(at) {
                let error = late(&self.peer, pool);
                end(read, Err(error), done);
            }
        }
    }

    /// Closes the connection. The front READ ends with `front`, if it is at fault; one whose deadline
    /// has passed is `Unreachable`; all others are flushed.
    fn fail(
        &mut self,
        pool: &Arc<Pool>,
        reason: &str,
        mut front: Option<ReadError>,
        done: &mut dyn FnMut(Completion),
    ) {
        if let Some(stream) = self.stream.take() {
            pool.discard(&self.peer, stream, reason);
        }
        let now = Instant::now();
        (self.turn, self.yields, self.broken) = (0, false, None);
        for read in self.link.reset() {
            let error = match front.take() {
                Some(error) => error,
                None if read.deadline <= now => late(&self.peer, pool),
                None => ReadError::Flushed,
            };
            end(read, Err(error), done);
        }
    }

    /// Gives the connection back when nothing is in flight on it.
    fn rest(&mut self, pool: &Arc<Pool>, mailbox: &Arc<Mailbox>) {
        if self.unsent.is_empty() && self.waits {
            pool.cancel(&self.peer, mailbox);
            self.waits = false;
        }
        if self.link.is_idle() && (self.unsent.is_empty() || self.yields) {
            if let Some(stream) = self.stream.take() {
                pool.checkin(&self.peer, stream);
            }
            (self.turn, self.yields) = (0, false);
        }
    }
}

impl ReadQueue for TcpQueue {
    fn post(&mut self, read: Read) -> Result<(), PostError> {
        if let Err(error) = check(&read, self.in_flight) {
            return Err(PostError { error, read });
        }
        let Some(mailbox) = self.mailbox.clone() else {
            let error = ReadError::Local("the agent is out of descriptors".to_owned());
            return Err(PostError { error, read });
        };
        let pool = Arc::clone(&self.pool);
        let Export::Tcp { agent: Some(agent), .. } = &read.export else {
            let error = ReadError::Local("the export names no agent to connect to".to_owned());
            return Err(PostError { error, read });
        };
        let lane = self.lane(agent);
        lane.unsent.push_back(read);
        lane.send(&pool, &mailbox);
        self.in_flight += 1;
        Ok(())
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
        }
        self.in_flight -= ended;
    }

    fn poll_fds(&self, fds: &mut Vec<RawFd>) {
        fds.extend(self.mailbox.as_ref().map(|mailbox| mailbox.fd()));
        let busy = self.lanes.iter().filter(|lane| !lane.link.is_idle());
        fds.extend(busy.filter_map(|lane| lane.stream.as_ref()).map(|s| s.tcp.as_raw_fd()));
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Drop for TcpQueue {
    fn drop(&mut self) {
        let Some(mailbox) = self.mailbox.take() else { return };
        for lane in &mut self.lanes {
            if lane.waits {
                self.pool.cancel(&lane.peer, &mailbox);
            }
            if let Some(stream) = lane.stream.take() {
                // Answers that are still to come make it useless for others.
                match lane.link.is_idle() {
                    true => self.pool.checkin(&lane.peer, stream),
                    false => self.pool.close(&lane.peer, stream),
                }
            }
        }
        while let Some(delivery) = mailbox.take() {
            if let Delivery::Stream(peer, stream) = delivery {
                self.pool.checkin(&peer, stream);
            }
        }
    }
}

fn end(read: Read, result: Result<(), ReadError>, done: &mut dyn FnMut(Completion)) {
    done(Completion { tag: read.tag, buffer: read.buffer, result });
}

fn late(peer: &str, pool: &Pool) -> ReadError {
    let last_error = pool.last_error(peer);
    ReadError::Unreachable(match last_error.as_str() {
        "" => format!("no answer from {peer} by the READ's deadline"),
        reason => format!("no answer from {peer} by the READ's deadline ({reason})"),
    })
}
