//! The side of RC connections that is READ from: a listener, and for each connection a QP in the arena's
//! protection domain, on which the card answers by itself.
//!
//! ```text
//!   request (token) --> good? a QP, prepare, make_ready, accept --> Established ... Disconnected --> gone
//!                        \-- reject, with the reason
//! ```
//! One thread for all: it sleeps while READs are served.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::PageService;
use crate::id::StreamToken;
use crate::sys::event::Bell;
use crate::sys::poll;
use crate::verbs::{
    CmEvent, CmEventKind, CmId, ConnectRequest, Cq, Depths, Error, EventChannel, IdNumber,
    Patience, Pd, RcQp,
};

/// Connections that are served at a time: 32 hosts with a full pool. One more takes the place of the oldest.
pub const MAX_CONNECTIONS: usize = 256;
/// Requests that the kernel keeps while others are answered.
const BACKLOG: i32 = 64;
/// Bytes of a refusal's reason: a REJ message holds 148.
const MAX_REASON: usize = 148;

/// Serves the arena over RC.
#[derive(Debug)]
pub struct RcService {
    address: SocketAddr,
    bell: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

/// What the serving thread works with.
struct Listener {
    pages: Arc<PageService>,
    pd: Arc<Pd>,
    /// READs of one connection that the card answers at a time (max_dest_rd_atomic).
    answered: u8,
    connections: Latest<IdNumber, Connection>,
    // Ids go before their channel.
    _listener: CmId,
    channel: Arc<EventChannel>,
    bell: Arc<Bell>,
}

/// The latest so many, by key. A host that has lost its power never says that its connections have ended, and
/// a card that is only READ from cannot notice: without this they would be kept, and at last all there are. A
/// peer that is there finds its connection ended and makes another.
struct Latest<K, V> {
    most: usize,
    by_key: HashMap<K, V>,
    /// The oldest in front.
    order: VecDeque<K>,
}

/// One connection. The QP goes first: nothing is served any more, then the peer hears of it.
struct Connection {
    _qp: RcQp,
    _id: CmId,
}

impl RcService {
    /// Listens at `address`; port 0 is one that is free.
    ///
    /// # Errors
    /// The address is not the card's, the port is taken, or rdma-cm is not to be had.
    pub fn start(
        pd: Arc<Pd>,
        address: SocketAddr,
        answered: u8,
        pages: Arc<PageService>,
    ) -> Result<Self, Error> {
        let channel = EventChannel::new()?;
        let listener = CmId::new(&channel)?;
        listener.bind(address)?;
        listener.listen(BACKLOG)?;
        let address = SocketAddr::new(address.ip(), listener.local_port());
        let failed = |error: std::io::Error| Error::Call {
            call: "eventfd or thread",
            on: address.to_string(),
            errno: error.raw_os_error().unwrap_or(0),
        };
        let bell = Arc::new(Bell::new().map_err(failed)?);
        let (connections, own) = (Latest::new(MAX_CONNECTIONS), bell.clone());
        let this =
            Listener { pages, pd, answered, connections, _listener: listener, channel, bell: own };
        let thread = std::thread::Builder::new().name("rc-service".to_owned());
        let thread = thread.spawn(move || this.run()).map_err(failed)?;
        Ok(RcService { address, bell, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for RcService {
    fn drop(&mut self) {
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Listener {
    fn run(mut self) {
        let fds: [RawFd; 2] = [self.channel.fd(), self.bell.as_raw_fd()];
        loop {
            match self.channel.next() {
                Ok(Some(event)) => self.take(event),
                Ok(None) => {
                    if poll::is_readable(self.bell.as_raw_fd()).unwrap_or(true) {
                        return;
                    }
                    if let Err(error) = poll::readable(&fds, None) {
                        tracing::error!(%error, "no RC connection is accepted any more");
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "no RC connection is accepted any more");
                    return;
                }
            }
        }
    }

    fn take(&mut self, event: CmEvent) {
        match event.kind {
            CmEventKind::ConnectRequest(request) => {
                let peer = event.id;
                if let Err(reason) = self.accept(request) {
                    tracing::warn!(?peer, %reason, "an RC connection was refused");
                }
            }
            CmEventKind::Disconnected | CmEventKind::Failed { .. } => {
                self.connections.remove(&event.id);
            }
            CmEventKind::DeviceGone => {
                let device = self.pd.context().name();
                tracing::error!(
                    "{device} is gone: pages are read over tcp; restart the agent when it is back"
                );
                self.connections.clear();
            }
            _ => {}
        }
    }

    fn accept(&mut self, request: ConnectRequest) -> Result<(), String> {
        let token = <[u8; 32]>::try_from(request.data.get(..32).unwrap_or_default());
        let good = token.is_ok_and(|token| self.pages.redeem(&StreamToken(token), None).is_ok());
        if !good {
            let reason = "the peer has refused the connection's token";
            let _ = request.id.reject(reason.as_bytes());
            return Err(reason.to_owned());
        }
        self.connect(request).map_err(|error| error.to_string())
    }

    fn connect(&mut self, request: ConnectRequest) -> Result<(), Error> {
        let ConnectRequest { id, reads_outstanding, .. } = request;
        let made = || -> Result<RcQp, Error> {
            // Nothing completes here: one place is for the flushed ones that never come.
            let cq = Cq::new(self.pd.context(), 1)?;
            let mut qp = RcQp::new(&self.pd, &cq, 1)?;
            let depths = Depths { answered: self.answered.min(reads_outstanding), outstanding: 1 };
            id.prepare(&mut qp, true)?;
            id.make_ready(&mut qp, true, depths, Patience::PAGER)?;
            id.accept(&qp, &[], depths)?;
            Ok(qp)
        };
        match made() {
            Ok(qp) => {
                if self.connections.insert(id.number(), Connection { _qp: qp, _id: id }).is_some() {
                    tracing::debug!("the oldest of {MAX_CONNECTIONS} RC connections was ended");
                }
                Ok(())
            }
            Err(error) => {
                let text = error.to_string();
                let _ = id.reject(&text.as_bytes()[..text.len().min(MAX_REASON)]);
                Err(error)
            }
        }
    }
}

impl<K: Copy + Eq + Hash, V> Latest<K, V> {
    fn new(most: usize) -> Self {
        Latest { most, by_key: HashMap::new(), order: VecDeque::new() }
    }

    /// Adds one; the oldest, if it had to go.
    fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.remove(&key);
        let oldest = if self.order.len() >= self.most { self.order.pop_front() } else { None };
        self.order.push_back(key);
        self.by_key.insert(key, value);
        self.by_key.remove(&oldest?)
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        self.order.retain(|other| other != key);
        self.by_key.remove(key)
    }

    fn clear(&mut self) {
        self.order.clear();
        self.by_key.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_for_one_more_than_there_may_be() {
        let mut latest = Latest::new(3);
        for key in 1..=3 {
            assert_eq!(latest.insert(key, key * 10), None);
        }
        assert_eq!(latest.insert(4, 40), Some(10));
        assert_eq!(latest.remove(&3), Some(30));
        assert_eq!(latest.remove(&1), None, "it is gone already");
        assert_eq!(latest.insert(5, 50), None, "one has ended by itself");
        assert_eq!(latest.insert(6, 60), Some(20));
        assert_eq!((latest.by_key.len(), latest.order.len()), (3, 3));
        latest.clear();
        assert_eq!((latest.by_key.len(), latest.order.len()), (0, 0));
    }
}
