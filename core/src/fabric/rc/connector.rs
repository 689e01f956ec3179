//! How an RC connection is made: token, rdma-cm, a QP with a CQ of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::descriptor::RcEndpoint;
use crate::fabric::ReadError;
use crate::fabric::arrivals::Arrivals;
use crate::fabric::doorbells::Doorbells;
use crate::fabric::landings::DEPTH;
use crate::fabric::pool::Connector;
use crate::fabric::tcp::TokenSource;
use crate::sys::poll;
use crate::verbs::{CmEventKind, CmId, Depths, Error, EventChannel, Patience, Pd, RcQp, Transport};

/// What a host's connections are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RcSettings {
    /// The address of the card's network interface; connections go out from there.
    pub source: Option<IpAddr>,
    /// READs that the card has on the wire at a time (max_rd_atomic).
    pub outstanding: u8,
    /// When a silent peer is given up.
    pub patience: Patience,
}

/// Makes RC connections.
pub(super) struct RcConnector {
    pub(super) pd: Arc<Pd>,
    pub(super) settings: RcSettings,
    pub(super) tokens: Arc<dyn TokenSource>,
    /// For the whole set-up.
    pub(super) timeout: Duration,
    /// Those of all connections.
    pub(super) doorbells: Arc<Doorbells>,
}

impl std::fmt::Debug for RcConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RcConnector").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A QP in RTS, connected.
#[derive(Debug)]
pub(super) struct RcConnection {
    /// `None` once it was abandoned.
    pub(super) qp: Option<RcQp>,
    pub(super) arrivals: Arrivals,
    pub(super) doorbells: Arc<Doorbells>,
    // The id goes before its channel.
    id: CmId,
    channel: Arc<EventChannel>,
}

impl RcConnection {
    /// Whether the peer has ended it, or the device is gone.
    pub(super) fn has_ended(&self) -> bool {
        while let Ok(Some(event)) = self.channel.next() {
            if matches!(event.kind, CmEventKind::Disconnected | CmEventKind::DeviceGone) {
                return true;
            }
        }
        false
    }
}

impl Drop for RcConnection {
    fn drop(&mut self) {
        // The peer hears of it at once; if it is gone, nobody needs to.
        let _ = self.id.disconnect();
    }
}

impl Connector for RcConnector {
    type Connection = RcConnection;

    const IS_SPARED: bool = true;

    fn connect(&self, peer: &str) -> Result<RcConnection, ReadError> {
        let endpoint: RcEndpoint = peer
            .parse()
            .map_err(|error| ReadError::Local(format!("'{peer}' is no RC endpoint: {error}")))?;
        let token = self.tokens.token(endpoint.agent())?;
        self.make(&endpoint, &token.0).map_err(|failed| {
            let listener = endpoint.listener();
            ReadError::Unreachable(format!("no RC connection to {listener}: {failed}"))
        })
    }
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Verbs(#[from] Error),
    #[error("{0}")]
    Said(String),
}

impl RcConnector {
    fn make(&self, endpoint: &RcEndpoint, token: &[u8]) -> Result<RcConnection, Failed> {
        let deadline = Instant::now() + self.timeout;
        let channel = EventChannel::new()?;
        let id = CmId::new(&channel)?;
        id.resolve_address(self.settings.source, endpoint.listener(), self.timeout)?;
        await_event(&channel, deadline, |kind| matches!(kind, CmEventKind::AddressResolved))?;
        self.check_device(&id)?;
        id.resolve_route(self.timeout)?;
        await_event(&channel, deadline, |kind| matches!(kind, CmEventKind::RouteResolved))?;
        let arrivals = Arrivals::new(self.pd.context(), DEPTH)?;
        let mut qp = RcQp::new(&self.pd, arrivals.cq(), DEPTH)?;
        let depths = Depths { answered: 1, outstanding: self.settings.outstanding };
        id.prepare(&mut qp, false)?;
        id.connect(&qp, token, depths)?;
        if self.pd.context().transport() == Transport::Iwarp {
            await_event(&channel, deadline, |kind| matches!(kind, CmEventKind::Established(_)))?;
            id.make_ready(&mut qp, false, depths, self.settings.patience)?;
        } else {
            await_event(&channel, deadline, |kind| {
                matches!(kind, CmEventKind::ConnectResponse(_))
            })?;
            id.make_ready(&mut qp, false, depths, self.settings.patience)?;
            id.establish()?;
        }
        let doorbells = self.doorbells.clone();
        Ok(RcConnection { qp: Some(qp), arrivals, doorbells, id, channel })
    }

    /// Buffers are registered with one card: a route by another is of no use.
    fn check_device(&self, id: &CmId) -> Result<(), Failed> {
        let (own, found) = (self.pd.context().name(), id.device_name().unwrap_or_default());
        match own == found {
            true => Ok(()),
            false => Err(Failed::Said(format!(
                "it is reached by {found}, and this agent uses {own}: choose the other with MITOSIS_DEV, or \
                 mend the route"
            ))),
        }
    }
}

/// Waits for an event that `is_wanted`.
fn await_event(
    channel: &Arc<EventChannel>,
    deadline: Instant,
    is_wanted: impl Fn(&CmEventKind) -> bool,
) -> Result<(), Failed> {
    loop {
        while let Some(event) = channel.next()? {
            match event.kind {
                kind if is_wanted(&kind) => return Ok(()),
                CmEventKind::Rejected { reason, data } if data.is_empty() => {
                    let text = format!("the peer refuses, reason {reason}: does its agent listen?");
                    return Err(Failed::Said(text));
                }
                CmEventKind::Rejected { data, .. } => {
                    return Err(Failed::Said(String::from_utf8_lossy(&data).into_owned()));
                }
                CmEventKind::Failed { doing, errno } => {
                    let error = std::io::Error::from_raw_os_error(errno);
                    return Err(Failed::Said(format!("{doing}: {error}")));
                }
                CmEventKind::Disconnected | CmEventKind::DeviceGone => {
                    return Err(Failed::Said("the peer or the device is gone".to_owned()));
                }
                _ => {}
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let is_there = poll::readable(&[channel.fd()], Some(left));
        match is_there {
            Ok(true) => {}
            Ok(false) => return Err(Failed::Said("no answer in time".to_owned())),
            Err(error) => return Err(Failed::Said(error.to_string())),
        }
    }
}
