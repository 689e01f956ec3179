//! Connections to other hosts, keyed by peer and shared by all queues. What a connection is, and how one is
//! made, is the fabric's [`Connector`].
//!
//! A queue has a connection while it has READs in flight there, and no longer: their number follows the
//! queues that read at one moment, never the children or images.
//!
//! ```text
//!         checkout, grab                     checkin
//!   idle ---------------> a queue's own -------------------> the longest waiter, else idle
//!    ^                          |--discard--> closed, with the peer's idle ones
//!    |                          |--close----> closed alone
//!    |                          \--mend-----> the pool's hand makes it good again --.
//!    \-- connector thread: backs off, for as long as somebody waits <--------------'
//! ```
//! Where connections are made without the other host (DCIs), one thread, the pool's *hand*, makes and mends
//! them all: a pager starts no thread and waits for no device then.
//!
//! Nothing here blocks a pager: a connection that is not there at once arrives in the queue's
//! [`Mailbox`], whose descriptor then becomes readable. Queues with another way do not wait: whom `grab` refuses
//! has a *wish*, and is served in its turn when it asks again (`wishes`).

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;

use super::ReadError;
use super::mailbox::{Delivery, Mailbox};

mod peer;
#[cfg(test)]
mod tests;
mod wishes;

use peer::Peer;
pub(super) use wishes::QueueId;

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections to one peer. Queues beyond it take turns, or read another way where there is one.
    pub connections_per_peer: usize,
    /// Idle connections to all peers together; beyond it, a connection is closed when it is given back.
    pub idle: usize,
    /// For a connection's set-up, greeting included.
    pub connect_timeout: Duration,
    /// For each step of a push.
    pub push_timeout: Duration,
    /// How long a queue that was refused a connection keeps its place without asking again. It reads on by another
    /// way: longer than a READ takes, and than a thread of a busy host waits for a CPU.
    pub keeps_place: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_per_peer: 8,
            idle: 256,
            connect_timeout: Duration::from_secs(1),
            push_timeout: Duration::from_secs(5),
            keeps_place: Duration::from_millis(100),
        }
    }
}

/// READs on one connection before whoever has it gives way to a queue that waits, or wishes, for one.
const TURN_READS: u32 = 64;
/// A connector that pauses looks this often whether anybody still waits.
const BACKOFF_STEP: Duration = Duration::from_millis(20);
/// Peers that are remembered; beyond it, those without connections and waiters are forgotten.
const MAX_PEERS: usize = 1024;

/// Makes connections.
pub(super) trait Connector: Send + Sync + std::fmt::Debug + 'static {
    /// A connection, ready for READs.
    type Connection: Send + std::fmt::Debug;

    /// Whether READs take another way while there is none: nobody notices it then but by a warning.
    const IS_SPARED: bool = false;

    /// Connects to `peer`; may block.
    ///
    /// # Errors
    /// `Unreachable` is worth another attempt; any other kind fails the READs that wait.
    fn connect(&self, peer: &str) -> Result<Self::Connection, ReadError>;

    /// Makes a connection that a READ's failure has ended good again; may block.
    ///
    /// # Errors
    /// It is of no use any more.
    fn mend(&self, _spent: Self::Connection) -> Result<Self::Connection, ReadError> {
        Err(ReadError::Local("a connection like this is replaced, not mended".to_owned()))
    }
}

/// Errands that a pool's hand has before it: more than there are connections to have them.
const MAX_ERRANDS: usize = 256;

/// What a pool's hand is to do.
#[derive(Debug)]
enum Errand<C> {
    Connect(Arc<str>),
    Mend(Arc<str>, Pooled<C>),
}

/// A connection of a pool.
#[derive(Debug)]
pub(super) struct Pooled<C> {
    pub(super) connection: C,
    /// Whether a request was answered on it: losing it then tells nothing about the next one.
    pub(super) proved: bool,
    /// READs of this turn, of all queues that have had it since the turn began.
    turn: u32,
}

impl<C> Pooled<C> {
    fn new(connection: C) -> Self {
        Pooled { connection, proved: false, turn: 0 }
    }

    /// Counts a READ.
    pub(super) fn count_read(&mut self) {
        self.turn += 1;
    }

    /// Whether others come first now, if there are any.
    pub(super) fn is_turn_over(&self) -> bool {
        self.turn >= TURN_READS
    }

    pub(super) fn begin_turn(&mut self) {
        self.turn = 0;
    }
}

/// See the module's comment.
pub(super) struct Pool<K: Connector> {
    connector: K,
    pub(super) limits: Limits,
    state: Mutex<State<K::Connection>>,
    /// To the pool's hand, if it has one.
    errands: Option<Sender<Errand<K::Connection>>>,
    queues: AtomicU64,
}

#[derive(Debug)]
struct State<C> {
    peers: HashMap<Arc<str>, Peer<C>>,
    idle: usize,
    keeps_place: Duration,
}

impl<K: Connector> std::fmt::Debug for Pool<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("connector", &self.connector).finish_non_exhaustive()
    }
}

impl<C> State<C> {
    fn new(limits: &Limits) -> Self {
        State { peers: HashMap::new(), idle: 0, keeps_place: limits.keeps_place }
    }

    fn entry(&mut self, peer: &Arc<str>) -> &mut Peer<C> {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(peer) {
            self.peers.retain(|_, peer| peer.open > 0 || !peer.waiters.is_empty());
        }
        self.peers.entry(Arc::clone(peer)).or_insert_with(|| Peer::new(self.keeps_place))
    }
}

impl<K: Connector> Pool<K> {
    pub(super) fn new(connector: K, limits: Limits) -> Arc<Self> {
        let state = Mutex::new(State::new(&limits));
        Arc::new(Pool { connector, limits, state, errands: None, queues: AtomicU64::new(0) })
    }

    /// A pool with a hand, which ends with it.
    pub(super) fn with_hand(connector: K, limits: Limits) -> io::Result<Arc<Self>> {
        let state = Mutex::new(State::new(&limits));
        let (errands, given) = crossbeam_channel::bounded(MAX_ERRANDS);
        let (errands, queues) = (Some(errands), AtomicU64::new(0));
        let pool = Arc::new(Pool { connector, limits, state, errands, queues });
        let own = Arc::downgrade(&pool);
        let thread = thread::Builder::new().name("mitosis-mend".to_owned());
        thread.spawn(move || carry_out(&own, &given))?;
        Ok(pool)
    }

    /// What it makes connections with.
    pub(super) fn connector(&self) -> &K {
        &self.connector
    }

    /// Another queue that asks it.
    pub(super) fn queue(&self) -> QueueId {
        QueueId(self.queues.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes one connection now, to be idle until it is needed.
    ///
    /// # Errors
    /// The connector's.
    pub(super) fn stock(&self, peer: &Arc<str>) -> Result<(), ReadError> {
        let connection = self.connector.connect(peer)?;
        self.state.lock().entry(peer).open += 1;
        self.checkin(peer, Pooled::new(connection));
        Ok(())
    }

    /// A connection to `peer`: now, or later in `mailbox`.
    pub(super) fn checkout(
        self: &Arc<Self>,
        peer: &Arc<str>,
        mailbox: &Arc<Mailbox<K::Connection>>,
    ) -> Option<Pooled<K::Connection>> {
        let wanted = {
            let mut state = self.state.lock();
            let entry = state.entry(peer);
            if entry.waiters.is_empty()
                && let Some(stream) = entry.idle.pop()
            {
                state.idle -= 1;
                return Some(stream);
            }
            entry.waiters.push_back(Arc::clone(mailbox));
            entry.wants_connector(self.limits.connections_per_peer)
        };
        if wanted {
            self.start_connector(peer);
        }
        None
    }

    /// A connection to `peer` if there is one now that is not another queue's turn; if not, `queue` comes in its
    /// turn when it asks again, and one more is made if there may be.
    pub(super) fn grab(
        self: &Arc<Self>,
        peer: &Arc<str>,
        queue: QueueId,
    ) -> Option<Pooled<K::Connection>> {
        let wanted = {
            let mut state = self.state.lock();
            let entry = state.entry(peer);
            if let Some(stream) = entry.grab(queue) {
                state.idle -= 1;
                return Some(stream);
            }
            entry.wants_connector(self.limits.connections_per_peer)
        };
        if wanted {
            self.start_connector(peer);
        }
        None
    }

    /// Gives back a connection on which nothing is in flight.
    pub(super) fn checkin(&self, peer: &Arc<str>, mut stream: Pooled<K::Connection>) {
        let mut state = self.state.lock();
        let State { peers, idle, .. } = &mut *state;
        let Some(entry) = peers.get_mut(peer) else { return };
        if stream.proved {
            entry.proved();
        }
        let surplus = match entry.waiters.pop_front() {
            Some(waiter) => {
                stream.begin_turn();
                waiter.put(Delivery::Connection(Arc::clone(peer), stream));
                drop(state);
                waiter.announce();
                return;
            }
            None if *idle < self.limits.idle => {
                *idle += 1;
                entry.rest(stream);
                return;
            }
            None => {
                entry.open -= 1;
                stream
            }
        };
        // Closed outside the lock.
        drop(state);
        drop(surplus);
    }

    /// Gives back a connection that has failed; the peer's idle ones go with it, for what broke one has
    /// mostly broken all.
    pub(super) fn discard(
        self: &Arc<Self>,
        peer: &Arc<str>,
        stream: Pooled<K::Connection>,
        reason: &str,
    ) {
        let (wanted, idle, is_news) = {
            let mut state = self.state.lock();
            let Some(entry) = state.peers.get_mut(peer) else { return };
            let idle = std::mem::take(&mut entry.idle);
            entry.open -= 1 + idle.len();
            let is_news = entry.failed(reason.to_owned(), u32::from(!stream.proved));
            let wanted = entry.wants_connector(self.limits.connections_per_peer);
            state.idle -= idle.len();
            (wanted, idle, is_news)
        };
        report::<K>(peer, reason, is_news);
        drop((stream, idle));
        if wanted {
            self.start_connector(peer);
        }
    }

    /// Closes a connection that is sound, but of no use to others.
    pub(super) fn close(self: &Arc<Self>, peer: &Arc<str>, stream: Pooled<K::Connection>) {
        let wanted = self.state.lock().peers.get_mut(peer).is_some_and(|entry| {
            entry.open -= 1;
            entry.wants_connector(self.limits.connections_per_peer)
        });
        drop(stream);
        if wanted {
            self.start_connector(peer);
        }
    }

    /// Gives a connection that a READ's failure has ended to the pool's hand; without one it is closed.
    pub(super) fn mend(self: &Arc<Self>, peer: &Arc<str>, spent: Pooled<K::Connection>) {
        let errand = Errand::Mend(Arc::clone(peer), spent);
        let left = match &self.errands {
            Some(errands) => errands.try_send(errand).err().map(TrySendError::into_inner),
            None => Some(errand),
        };
        if let Some(Errand::Mend(peer, spent)) = left {
            self.close(&peer, spent);
        }
    }

    /// What the hand does with it.
    fn make_good(self: &Arc<Self>, peer: &Arc<str>, spent: Pooled<K::Connection>) {
        match self.connector.mend(spent.connection) {
            Ok(connection) => self.checkin(peer, Pooled { connection, ..spent }),
            Err(error) => {
                tracing::warn!(%peer, %error, "a connection could not be made good again");
                if let Some(entry) = self.state.lock().peers.get_mut(peer) {
                    entry.open -= 1;
                    entry.failed(error.to_string(), 1);
                }
                self.connect_for_the_rest(peer);
            }
        }
    }

    /// `mailbox` waits for `peer` no longer. A connection may be in it already; none comes any more.
    pub(super) fn cancel(&self, peer: &str, mailbox: &Arc<Mailbox<K::Connection>>) {
        if let Some(entry) = self.state.lock().peers.get_mut(peer) {
            entry.waiters.retain(|waiter| !Arc::ptr_eq(waiter, mailbox));
        }
    }

    /// `queue` asks for connections to `peer` no longer.
    pub(super) fn withdraw(&self, peer: &str, queue: QueueId) {
        if let Some(entry) = self.state.lock().peers.get_mut(peer) {
            entry.wishes.withdraw(queue);
        }
    }

    /// Whether others would have the turn of a connection to `peer` that is given back.
    pub(super) fn wants_a_turn(&self, peer: &str) -> bool {
        self.state.lock().peers.get_mut(peer).is_some_and(Peer::wants_a_turn)
    }

    /// Why `peer` was not reached last; empty if nothing has failed.
    pub(super) fn last_error(&self, peer: &str) -> String {
        let state = self.state.lock();
        state.peers.get(peer).map(|entry| entry.last_error.clone()).unwrap_or_default()
    }

    /// Connections to `peer` that exist or are being made.
    pub(super) fn open(&self, peer: &str) -> usize {
        self.state.lock().peers.get(peer).map_or(0, |entry| entry.open)
    }

    /// Connects on a thread of its own: name resolution, token and connect(2) block.
    fn start_connector(self: &Arc<Self>, peer: &Arc<str>) {
        if let Some(errands) = &self.errands {
            if errands.try_send(Errand::Connect(Arc::clone(peer))).is_err() {
                self.give_up(peer, &ReadError::Local("nobody to connect".to_owned()));
            }
            return;
        }
        let (pool, name) = (Arc::clone(self), Arc::clone(peer));
        let started = thread::Builder::new()
            .name("mitosis-connect".to_owned())
            .spawn(move || pool.connect_for_waiters(&name));
        if let Err(error) = started {
            self.give_up(peer, &ReadError::Local(format!("no thread to connect with ({error})")));
        }
    }

    fn connect_for_waiters(self: &Arc<Self>, peer: &Arc<str>) {
        loop {
            let Some(pause) = self.pause(peer) else { return };
            if !pause.is_zero() {
                thread::sleep(pause.min(BACKOFF_STEP));
                continue;
            }
            match self.connector.connect(peer) {
                Ok(connection) => {
                    if let Some(entry) = self.state.lock().peers.get_mut(peer) {
                        entry.connectors -= 1;
                    }
                    self.checkin(peer, Pooled::new(connection));
                    self.connect_for_the_rest(peer);
                    return;
                }
                Err(ReadError::Unreachable(reason)) => {
                    let is_news = match self.state.lock().peers.get_mut(peer) {
                        Some(entry) => entry.failed(reason.clone(), 1),
                        None => false,
                    };
                    report::<K>(peer, &reason, is_news);
                }
                Err(fatal) => return self.give_up(peer, &fatal),
            }
        }
    }

    /// How long to pause before connecting; `None`, and the connector is counted no longer, if nobody
    /// waits.
    fn pause(&self, peer: &str) -> Option<Duration> {
        let mut state = self.state.lock();
        let entry = state.peers.get_mut(peer)?;
        if !entry.is_waited_for() {
            entry.connectors -= 1;
            entry.open -= 1;
            return None;
        }
        let now = Instant::now();
        Some(entry.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now)))
    }

    /// A connector that has succeeded starts one for who still waits: while a peer fails, one tries
    /// for all.
    fn connect_for_the_rest(self: &Arc<Self>, peer: &Arc<str>) {
        let limit = self.limits.connections_per_peer;
        let mut state = self.state.lock();
        let wanted = state.peers.get_mut(peer).is_some_and(|entry| entry.wants_connector(limit));
        drop(state);
        if wanted {
            self.start_connector(peer);
        }
    }

    /// Ends a connector and tells all who wait.
    fn give_up(&self, peer: &Arc<str>, error: &ReadError) {
        let (waiters, is_news) = {
            let mut state = self.state.lock();
            let Some(entry) = state.peers.get_mut(peer) else { return };
            entry.connectors -= 1;
            entry.open -= 1;
            let is_news = entry.failed(error.to_string(), 1);
            entry.wished = None;
            entry.wishes.clear();
            for waiter in &entry.waiters {
                waiter.put(Delivery::Failed(Arc::clone(peer), error.clone()));
            }
            (std::mem::take(&mut entry.waiters), is_news)
        };
        report::<K>(peer, &error.to_string(), is_news);
        for waiter in waiters {
            waiter.announce();
        }
    }
}

/// Tells why there is no connection: once for each reason where nothing else would tell.
fn report<K: Connector>(peer: &str, reason: &str, is_news: bool) {
    if K::IS_SPARED && is_news {
        tracing::warn!(%peer, %reason, "pages of this peer are read over tcp for now");
    } else {
        tracing::debug!(%peer, %reason, "no connection");
    }
}

/// The hand of a pool, until the pool is gone.
fn carry_out<K: Connector>(pool: &Weak<Pool<K>>, given: &Receiver<Errand<K::Connection>>) {
    while let Ok(errand) = given.recv() {
        let Some(pool) = pool.upgrade() else { return };
        match errand {
            Errand::Connect(peer) => pool.connect_for_waiters(&peer),
            Errand::Mend(peer, spent) => pool.make_good(&peer, spent),
        }
    }
}
