//! This host's RDMA card, if the agent uses one: what is made on it once, at the agent's start.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use super::card_events::CardEvents;
use super::config::Config;
use crate::descriptor::{Export, RcEndpoint};
use crate::export::PageService;
use crate::export::arena::{Arena, Door, SLAB_BYTES};
use crate::export::dc::{DcTargets, SeedTarget, TargetPort};
use crate::export::rc::RcService;
use crate::fabric::buffers::REGISTERED_BYTES;
use crate::fabric::dc::{DcFabric, DcSettings};
use crate::fabric::rc::{RcFabric, RcSettings};
use crate::fabric::tcp::TokenSource;
use crate::fabric::{Buffers, Fabric};
use crate::verbs::choice::{ChosenPort, DeviceFacts, FabricName, choose};
use crate::verbs::{self, DeviceCaps, Error, GidKind, Pd, Surveyed};
use crate::wire::local::Stats;

/// READs that one connection has on the wire at a time, where the card allows it: as many as misses that a
/// pager has in flight.
const OUTSTANDING: u8 = 16;

/// What the queues of a card pin beside, at the most: 512 connections with rings of some 2 KiB to 32 KiB, of
/// which few are open at a time.
const QUEUE_BYTES: u64 = 4 << 20;

/// Bytes that an agent pins at its start, of whose arena `ready` bytes are registered then.
pub fn pinned_at_start(ready: u64) -> u64 {
    ready - ready % SLAB_BYTES + REGISTERED_BYTES as u64 + QUEUE_BYTES
}

/// A card in use.
#[derive(Debug)]
pub struct Rdma {
    /// Where READs land.
    pub buffers: Arc<Buffers>,
    /// What READs come from, on a host that others reach.
    pub served: Option<Served>,
    /// The fabrics that it carries, the preferred one first.
    pub fabrics: Vec<Arc<dyn Fabric>>,
    /// The one of them that is DC.
    dc: Option<Arc<DcFabric>>,
    /// What it says unasked.
    _events: CardEvents,
}

/// The side that other hosts READ.
#[derive(Debug)]
pub struct Served {
    // In this order: first nobody comes in any more, then the memory goes.
    rc: Option<RcService>,
    targets: Option<DcTargets>,
    /// Its memory.
    pub arena: Arena,
    agent: String,
}

/// By what ways a new seed's arena is READ.
#[derive(Debug, Default)]
pub struct Offer {
    /// The ways, the preferred one first.
    pub exports: Vec<Export>,
    /// Closed when the seed is revoked.
    pub door: Option<Box<dyn Door>>,
}

impl Served {
    /// What a descriptor says of a new seed of this host, beside the arena.
    pub fn offer(&self) -> Offer {
        let target = self.targets.as_ref().and_then(DcTargets::take);
        let mut offer = Offer::default();
        if let Some(SeedTarget { told, door }) = target {
            offer.exports.push(Export::Dc(told));
            offer.door = Some(door);
        }
        let endpoint = |rc: &RcService| Export::Rc(RcEndpoint::new(&self.agent, rc.address()));
        offer.exports.extend(self.rc.as_ref().map(endpoint));
        offer
    }
}

impl Rdma {
    /// Opens the card that the settings choose, and makes what it needs. `None`: tcp it is, for the reason
    /// that was logged; the flag tells whether that is a fall-back.
    ///
    /// # Errors
    /// RDMA is required and cannot be had; the text says why and what to do.
    pub fn start(
        config: &Config,
        pages: &Arc<PageService>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<(Option<Self>, bool), String> {
        let settings = &config.rdma.settings;
        if settings.fabric.fabric == Some(FabricName::Tcp) {
            return Ok((None, false));
        }
        let surveyed = verbs::survey();
        let facts = surveyed.as_ref().map(|all| all.iter().map(|one| one.facts.clone()).collect());
        let facts: Result<Vec<DeviceFacts>, String> = facts.map_err(ToString::to_string);
        let surveyed = surveyed.unwrap_or_default();
        let dc = |port: &ChosenPort| {
            verbs::try_dc_on(&surveyed, port).map(drop).map_err(|error| error.to_string())
        };
        let own = own_address(config);
        let choice = choose(settings, facts.as_deref().map_err(Clone::clone), own, dc);
        let choice = choice.map_err(|error| error.to_string())?;
        let Some(port) = &choice.port else {
            let fell_back = choice.fell_back.is_some();
            if fell_back {
                tracing::warn!("fabric tcp: {}", choice.reason);
            }
            return Ok((None, fell_back));
        };
        let card = Card::open(config, &surveyed, port);
        let opened = card.and_then(|card| match choice.fabric {
            FabricName::Dc => card.with_dc(pages, tokens),
            FabricName::Rc | FabricName::Tcp => card.with_rc(pages, tokens),
        });
        match opened {
            Ok(rdma) => {
                tracing::warn!("fabric {choice}: {}", choice.reason);
                Ok((Some(rdma), choice.fell_back.is_some()))
            }
            Err(reason) if settings.fabric.required => Err(reason),
            Err(reason) => {
                tracing::warn!("fabric tcp: {choice} was chosen and cannot be used: {reason}");
                Ok((None, true))
            }
        }
    }

    /// Adds what is to be known of it to an agent's counters.
    pub fn count_into(&self, stats: &mut Stats) {
        for posted in self.fabrics.iter().map(|fabric| fabric.posted()) {
            stats.rdma_reads += posted.reads;
            stats.rdma_doorbells += posted.doorbells;
        }
        if let Some(dc) = &self.dc {
            let numbers = dc.numbers();
            stats.dc_initiators = numbers.initiators;
            stats.dc_peers = numbers.ways;
            stats.dc_flushed = numbers.flushed;
            stats.dc_mended = numbers.mended;
        }
        let targets = self.served.as_ref().and_then(|served| served.targets.as_ref());
        stats.dc_targets_ready = targets.map_or(0, |targets| targets.ready() as u64);
    }
}

/// A card that was opened.
struct Card<'own> {
    config: &'own Config,
    port: &'own ChosenPort,
    pd: Arc<Pd>,
    caps: DeviceCaps,
    buffers: Arc<Buffers>,
}

impl<'own> Card<'own> {
    fn open(
        config: &'own Config,
        surveyed: &[Surveyed],
        port: &'own ChosenPort,
    ) -> Result<Self, String> {
        let context = verbs::open_chosen(surveyed, port).map_err(text)?;
        let caps = context.caps().map_err(text)?;
        let pd = Pd::new(&context).map_err(text)?;
        let buffers = Buffers::registered(pd.clone()).map_err(text)?;
        Ok(Card { config, port, pd, caps, buffers })
    }

    fn with_rc(
        self,
        pages: &Arc<PageService>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<Rdma, String> {
        let fabric = self.rc_fabric(tokens)?;
        let served = self.served(|| Ok((Some(self.rc_service(pages)?), None)))?;
        self.in_use(served, vec![fabric], None)
    }

    /// DC for peers that have it, and rc for those that have not, where connections can be made.
    fn with_dc(
        self,
        pages: &Arc<PageService>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<Rdma, String> {
        let without = |reason: &String| {
            tracing::warn!(%reason, "no rc beside dc: peers without dc are READ, and READ this host, by tcp");
        };
        let dc = self.dc_fabric()?;
        let mut fabrics: Vec<Arc<dyn Fabric>> = vec![dc.clone()];
        let rc = self.rc_fabric(tokens).inspect_err(without).ok();
        let has_rc = rc.is_some();
        fabrics.extend(rc.map(|rc| rc as Arc<dyn Fabric>));
        let served = self.served(|| {
            let rc = has_rc.then(|| self.rc_service(pages));
            let rc = rc.and_then(|rc| rc.inspect_err(without).ok());
            Ok((rc, Some(self.dc_targets()?)))
        })?;
        self.in_use(served, fabrics, Some(dc))
    }

    fn in_use(
        self,
        served: Option<Served>,
        fabrics: Vec<Arc<dyn Fabric>>,
        dc: Option<Arc<DcFabric>>,
    ) -> Result<Rdma, String> {
        let events = CardEvents::listen(self.pd.context().clone());
        let events =
            events.map_err(|error| format!("no thread to listen to the card ({error})"))?;
        Ok(Rdma { buffers: self.buffers, served, fabrics, dc, _events: events })
    }

    /// What others READ, with the ways that `make` makes; nothing where nobody reaches this host.
    fn served(
        &self,
        make: impl FnOnce() -> Result<(Option<RcService>, Option<DcTargets>), String>,
    ) -> Result<Option<Served>, String> {
        let Some(agent) = &self.config.advertise else { return Ok(None) };
        let arena = Arena::start(Arc::new(self.pd.clone()), self.config.rdma.arena);
        let arena = arena.map_err(|error| error.to_string())?;
        let (rc, targets) = make()?;
        Ok(Some(Served { rc, targets, arena, agent: agent.clone() }))
    }

    fn rc_fabric(&self, tokens: Arc<dyn TokenSource>) -> Result<Arc<RcFabric>, String> {
        let settings = RcSettings {
            source: Some(card_address(self.port, self.config)?),
            outstanding: OUTSTANDING.min(self.caps.max_qp_init_rd_atom).max(1),
            patience: self.config.rdma.patience,
        };
        let own = self.config.advertise.clone();
        RcFabric::new(self.pd.clone(), settings, tokens, own).map_err(text)
    }

    fn rc_service(&self, pages: &Arc<PageService>) -> Result<RcService, String> {
        let answered = OUTSTANDING.min(self.caps.max_qp_rd_atom).max(1);
        let listener = SocketAddr::new(card_address(self.port, self.config)?, 0);
        RcService::start(self.pd.clone(), listener, answered, pages.clone()).map_err(text)
    }

    fn dc_fabric(&self) -> Result<Arc<DcFabric>, String> {
        let caps = verbs::dc_caps(self.pd.context()).map_err(text)?;
        let allowed = match caps.max_rd_atomic {
            0 => self.caps.max_qp_init_rd_atom,
            told => told,
        };
        let settings = DcSettings {
            path: self.port.path(),
            mtu: self.port.mtu,
            outstanding: OUTSTANDING.min(allowed).max(1),
            patience: self.config.rdma.patience,
            streams: DcSettings::streams_of(caps.log_streams, caps.log_failed_streams),
        };
        let fabric = DcFabric::new(self.pd.clone(), settings, self.port.address());
        fabric.map_err(|error| error.to_string())
    }

    fn dc_targets(&self) -> Result<DcTargets, String> {
        let (path, mtu) = (self.port.path(), self.port.mtu);
        let port = TargetPort::new(&self.pd, path, mtu, self.port.address()).map_err(text)?;
        DcTargets::start(Box::new(port)).map_err(|error| error.to_string())
    }
}

fn text(error: Error) -> String {
    error.to_string()
}

/// The address under which others reach this host's agent.
fn own_address(config: &Config) -> Option<IpAddr> {
    let mut addresses = config.advertise.as_deref()?.to_socket_addrs().ok()?;
    addresses.next().map(|address| address.ip())
}

/// The address under which rdma-cm finds the card: on RoCE v2 its GID is one, else the agent's own must
/// be the card's.
fn card_address(port: &ChosenPort, config: &Config) -> Result<IpAddr, String> {
    if let Some(gid) = port.gid.as_ref().filter(|gid| gid.kind == GidKind::RoceV2) {
        return Ok(gid.gid.ip());
    }
    own_address(config).ok_or_else(|| {
        format!(
            "{}:{} is found by an IP address, and this agent advertises none: give --advertise with the \
             address of its network interface",
            port.device, port.port
        )
    })
}
