//! Connections to other hosts, keyed by peer and shared by all queues. What a connection is, and how one is
//! made, is the fabric's [`Connector`].
//!
//! A queue has a connection while it has READs in flight there, and no longer: their number follows the
//! queues that read at one moment, never the children or images.
//!
//! ```text
//!            checkout                        checkin
//!   idle ---------------> a queue's own -------------------> the longest waiter, else idle
//!    ^                          \--discard--> closed, with the peer's idle ones
//!    \-- connector thread: backs off, for as long as somebody waits
//! ```
//!
//! Nothing here blocks a pager: a connection that is not there at once arrives in the queue's
//! [`Mailbox`], whose descriptor then becomes readable.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::ReadError;

/// Bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections to one peer. Queues beyond it take turns.
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
}

/// A connection of a pool.
#[derive(Debug)]
pub(super) struct Pooled<C> {
    pub(super) connection: C,
    /// Whether a request was answered on it: losing it then tells nothing about the next one.
    pub(super) proved: bool,
}

/// What the pool sends to a queue.
#[derive(Debug)]
pub(super) enum Delivery<C> {
    /// The connection that it waits for.
    Connection(Arc<str>, Pooled<C>),
    /// No connection will come.
    Failed(Arc<str>, ReadError),
}

/// Where a queue receives; its descriptor is readable while something is in it.
#[derive(Debug)]
pub(super) struct Mailbox<C> {
    inbox: Mutex<VecDeque<Delivery<C>>>,
    arrived: Condvar,
    rung: AtomicBool,
    bell: UnixStream,
    ear: UnixStream,
}

impl<C> Mailbox<C> {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        let (inbox, arrived) = (Mutex::default(), Condvar::new());
        Ok(Arc::new(Mailbox { inbox, arrived, rung: AtomicBool::new(false), bell, ear }))
    }

    /// Makes the descriptor readable.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // One byte fits always: the one before it was taken out before `rung` was cleared.
            let _ = (&self.bell).write(&[1]);
        }
    }

    /// Whether something may be in it; clears the descriptor.
    pub(super) fn hear(&self) -> bool {
        if !self.rung.load(Ordering::Relaxed) {
            return false;
        }
        // A ring between its flag and its byte: the flag stays, the byte is taken next time.
        if (&self.ear).read(&mut [0; 8]).is_ok_and(|got| got > 0) {
            self.rung.store(false, Ordering::SeqCst);
        }
        true
    }

    pub(super) fn take(&self) -> Option<Delivery<C>> {
        self.inbox.lock().pop_front()
    }

    /// Waits for a delivery until `deadline`.
    pub(super) fn wait(&self, deadline: Instant) -> Option<Delivery<C>> {
        let mut inbox = self.inbox.lock();
        while inbox.is_empty() {
            if self.arrived.wait_until(&mut inbox, deadline).timed_out() {
                break;
            }
        }
        inbox.pop_front()
    }

    pub(super) fn fd(&self) -> RawFd {
        self.ear.as_raw_fd()
    }

    /// Called under the pool's lock, so that behind `Pool::cancel` nothing more arrives; `announce`
    /// follows, without it.
    fn put(&self, delivery: Delivery<C>) {
        self.inbox.lock().push_back(delivery);
    }

    fn announce(&self) {
        self.arrived.notify_one();
        self.ring();
    }
}

/// See the module's comment.
pub(super) struct Pool<K: Connector> {
    connector: K,
    pub(super) limits: Limits,
    state: Mutex<State<K::Connection>>,
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

impl<C> Peer<C> {
    fn new() -> Self {
        Peer {
            idle: Vec::new(),
            open: 0,
            connectors: 0,
            waiters: VecDeque::new(),
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

    /// Counts one more connector if one is wanted: one for each waiter, but a peer that fails is tried
    /// once at a time.
    fn wants_connector(&mut self, limit: usize) -> bool {
        let most = if self.failures > 0 { 1 } else { self.waiters.len() };
        let wanted = self.connectors < most.min(self.waiters.len()) && self.open < limit;
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
        Arc::new(Pool { connector, limits, state })
    }

    /// A connection to `peer`: now, or later in `mailbox`.
    pub(super) fn checkout(
        self: &Arc<Self>,
        peer: &Arc<str>,
        mailbox: &Arc<Mailbox<K::Connection>>,
    ) -> Option<Pooled<K::Connection>> {
        let wanted = {
            let mut state = self.state.lock();
            let state = &mut *state;
            if state.peers.len() >= MAX_PEERS && !state.peers.contains_key(peer) {
                state.peers.retain(|_, peer| peer.open > 0 || !peer.waiters.is_empty());
            }
            let entry = match state.peers.get_mut(peer) {
                Some(entry) => entry,
                None => state.peers.entry(Arc::clone(peer)).or_insert_with(Peer::new),
            };
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

    /// `mailbox` waits for `peer` no longer. A connection may be in it already; none comes any more.
    pub(super) fn cancel(&self, peer: &str, mailbox: &Arc<Mailbox<K::Connection>>) {
        if let Some(entry) = self.state.lock().peers.get_mut(peer) {
            entry.waiters.retain(|waiter| !Arc::ptr_eq(waiter, mailbox));
        }
    }

    /// Whether others wait for a connection to `peer`.
    pub(super) fn is_waited_for(&self, peer: &str) -> bool {
        self.state.lock().peers.get(peer).is_some_and(|entry| !entry.waiters.is_empty())
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
        if entry.waiters.is_empty() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_free_and_the_pauses_end_growing() {
        let pauses: Vec<u128> = (0..12).map(|failures| backoff(failures).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 5, 10, 20, 40, 80, 160, 320, 500, 500, 500]);
        assert_eq!(backoff(u32::MAX), BACKOFF_LAST);
    }

    #[test]
    fn a_mailbox_is_readable_until_it_was_heard() {
        let mailbox = Mailbox::<()>::new().unwrap();
        let readable = |mailbox: &Mailbox<()>| crate::sys::poll::is_readable(mailbox.fd()).unwrap();
        assert!(!readable(&mailbox) && !mailbox.hear());
        for _ in 0..3 {
            mailbox.ring();
            mailbox.ring();
            assert!(readable(&mailbox) && mailbox.hear());
            assert!(!readable(&mailbox) && !mailbox.hear());
        }
    }
}
