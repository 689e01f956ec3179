//! Connections to other hosts, keyed by peer and shared by all queues. What a connection is, and how one is
//! made, is the fabric's [`Connector`].
//!
//! A queue has a connection while it has READs in flight there, and no longer: their number follows the
//! queues that read at one moment, never the children or images.
//!
//! ```text
//!            checkout                        checkin
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
//! [`Mailbox`], whose descriptor then becomes readable.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;

use super::ReadError;
use super::mailbox::{Delivery, Mailbox};

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
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_per_peer: 8,
            idle: 256,
            connect_timeout: Duration::from_secs(1),
            push_timeout: Duration::from_secs(5),
        }
    }
}

/// Pause before the second attempt after a failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(5);
/// The pause grows no longer.
const BACKOFF_LAST: Duration = Duration::from_millis(500);
/// A connector that pauses looks this often whether anybody still waits.
const BACKOFF_STEP: Duration = Duration::from_millis(20);
/// How long a connection is still wanted behind the last READ that did not wait for it.
const INTEREST: Duration = Duration::from_secs(2);
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
}

/// See the module's comment.
pub(super) struct Pool<K: Connector> {
    connector: K,
    pub(super) limits: Limits,
    state: Mutex<State<K::Connection>>,
    /// To the pool's hand, if it has one.
    errands: Option<Sender<Errand<K::Connection>>>,
}

#[derive(Debug)]
struct State<C> {
    peers: HashMap<Arc<str>, Peer<C>>,
    idle: usize,
}

#[derive(Debug)]
struct Peer<C> {
    idle: Vec<Pooled<C>>,
    /// Connections that exist or are being made.
    open: usize,
    connectors: usize,
    waiters: VecDeque<Arc<Mailbox<C>>>,
    /// When somebody who does not wait would have used one more.
    wished: Option<Instant>,
    /// In a row.
    failures: u32,
    not_before: Option<Instant>,
    last_error: String,
}

impl<K: Connector> std::fmt::Debug for Pool<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("connector", &self.connector).finish_non_exhaustive()
    }
}

impl<C> State<C> {
    fn entry(&mut self, peer: &Arc<str>) -> &mut Peer<C> {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(peer) {
            self.peers.retain(|_, peer| peer.open > 0 || !peer.waiters.is_empty());
        }
        self.peers.entry(Arc::clone(peer)).or_insert_with(Peer::new)
    }
}

impl<C> Peer<C> {
    fn new() -> Self {
        Peer {
            idle: Vec::new(),
            open: 0,
            connectors: 0,
            waiters: VecDeque::new(),
            wished: None,
            failures: 0,
            not_before: None,
            last_error: String::new(),
        }
    }

    /// Notes a failure; tells whether it is another than the last one.
    fn failed(&mut self, reason: String, count: u32) -> bool {
        let is_news = self.failures == 0 || self.last_error != reason;
        self.failures = self.failures.saturating_add(count).max(1);
        self.not_before = Some(Instant::now() + backoff(self.failures));
        self.last_error = reason;
        is_news
    }

    /// Whether anybody would use one more connection.
    fn is_waited_for(&self) -> bool {
        let is_wished = || self.wished.is_some_and(|at| at.elapsed() < INTEREST);
        !self.waiters.is_empty() || (self.idle.is_empty() && is_wished())
    }

    /// Counts one more connector if one is wanted: one for each waiter, but a peer that fails is tried
    /// once at a time.
    fn wants_connector(&mut self, limit: usize) -> bool {
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

impl<K: Connector> Pool<K> {
    pub(super) fn new(connector: K, limits: Limits) -> Arc<Self> {
        let state = Mutex::new(State { peers: HashMap::new(), idle: 0 });
        Arc::new(Pool { connector, limits, state, errands: None })
    }

    /// A pool with a hand, which ends with it.
    pub(super) fn with_hand(connector: K, limits: Limits) -> io::Result<Arc<Self>> {
        let state = Mutex::new(State { peers: HashMap::new(), idle: 0 });
        let (errands, given) = crossbeam_channel::bounded(MAX_ERRANDS);
        let pool = Arc::new(Pool { connector, limits, state, errands: Some(errands) });
        let own = Arc::downgrade(&pool);
        let thread = thread::Builder::new().name("mitosis-mend".to_owned());
        thread.spawn(move || carry_out(&own, &given))?;
        Ok(pool)
    }

    /// What it makes connections with.
    pub(super) fn connector(&self) -> &K {
        &self.connector
    }

    /// Makes one connection now, to be idle until it is needed.
    ///
    /// # Errors
    /// The connector's.
    pub(super) fn stock(&self, peer: &Arc<str>) -> Result<(), ReadError> {
        let connection = self.connector.connect(peer)?;
        self.state.lock().entry(peer).open += 1;
        self.checkin(peer, Pooled { connection, proved: false });
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

    /// A connection to `peer` if there is one now; if not, one is made for whoever asks next.
    pub(super) fn grab(self: &Arc<Self>, peer: &Arc<str>) -> Option<Pooled<K::Connection>> {
        let wanted = {
            let mut state = self.state.lock();
            let entry = state.entry(peer);
            if let Some(stream) = entry.idle.pop() {
                entry.wished = None;
                state.idle -= 1;
                return Some(stream);
            }
            entry.wished = Some(Instant::now());
            entry.wants_connector(self.limits.connections_per_peer)
        };
        if wanted {
            self.start_connector(peer);
        }
        None
    }

    /// Gives back a connection on which nothing is in flight.
    pub(super) fn checkin(&self, peer: &Arc<str>, stream: Pooled<K::Connection>) {
        let mut state = self.state.lock();
        let State { peers, idle } = &mut *state;
        let Some(entry) = peers.get_mut(peer) else { return };
        if stream.proved {
            entry.failures = 0;
            entry.not_before = None;
        }
        let surplus = match entry.waiters.pop_front() {
            Some(waiter) => {
                waiter.put(Delivery::Connection(Arc::clone(peer), stream));
                drop(state);
                waiter.announce();
                return;
            }
            None if *idle < self.limits.idle => {
                *idle += 1;
                entry.idle.push(stream);
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

    /// Whether others wait for a connection to `peer`.
    pub(super) fn is_waited_for(&self, peer: &str) -> bool {
        self.state.lock().peers.get(peer).is_some_and(Peer::is_waited_for)
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
                    self.checkin(peer, Pooled { connection, proved: false });
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
