//! The side of RC connections that is READ from: a listener, and for each connection a QP in the arena's
//! protection domain, on which the card answers by itself.
//!
//! ```text
//!   request (token) --> good? a QP, prepare, make_ready, accept --> Established ... Disconnected --> gone
//!                        \-- reject, with the reason
//! ```
//! One thread for all: it sleeps while READs are served.

use std::collections::HashMap;
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

/// Connections that are served at a time: 32 hosts with a full pool.
pub const MAX_CONNECTIONS: usize = 256;
/// Requests that the kernel keeps while others are answered.
const BACKLOG: i32 = 64;

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
    connections: HashMap<IdNumber, Connection>,
    // Ids go before their channel.
    listener: CmId,
    channel: Arc<EventChannel>,
    bell: Arc<Bell>,
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
        let (connections, own) = (HashMap::new(), bell.clone());
        let this = Listener { pages, pd, answered, connections, listener, channel, bell: own };
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
                tracing::error!(
                    listener = ?self.listener, connections = self.connections.len(),
                    "the RDMA device is gone; pages are read over tcp"
                );
                self.connections.clear();
            }
            _ => {}
        }
    }

    fn accept(&mut self, request: ConnectRequest) -> Result<(), String> {
        let token = <[u8; 32]>::try_from(request.data.get(..32).unwrap_or_default());
        let good = token.is_ok_and(|token| self.pages.redeem(&StreamToken(token)));
        let refusal = match (good, self.connections.len()) {
            (false, _) => Some("the peer has refused the connection's token"),
            (true, MAX_CONNECTIONS..) => Some("the peer serves as many connections as it takes"),
            (true, _) => None,
        };
        if let Some(reason) = refusal {
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
                self.connections.insert(id.number(), Connection { _qp: qp, _id: id });
                Ok(())
            }
            Err(error) => {
                let _ = id.reject(error.to_string().as_bytes().get(..100).unwrap_or_default());
                Err(error)
            }
        }
    }
}
