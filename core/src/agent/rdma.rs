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
use crate::verbs::choice::{Choice, ChosenPort, DeviceFacts, FabricName, choose};
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
    /// Opens the card that the settings choose, and makes what it needs. `None`: tcp it is. The number is
    /// that of fall-backs on the way there, each of which was warned of with its reason.
    ///
    /// # Errors
    /// RDMA is required and cannot be had; the text says why and what to do.
    pub fn start(
        config: &Config,
        pages: &Arc<PageService>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<(Option<Self>, u64), String> {
        let settings = &config.rdma.settings;
        if settings.fabric.fabric == Some(FabricName::Tcp) {
            return Ok((None, 0));
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
        let mut choice = choice.map_err(|error| error.to_string())?;
        let mut fallbacks = 0;
        if choice.fell_back.is_some() {
            fallbacks += 1;
            tracing::warn!("fabric {}: {}", choice.fabric, choice.reason);
        }
        let Some(port) = choice.port.clone() else { return Ok((None, fallbacks)) };
        let set_up = Card::open(config, &surveyed, &port).and_then(|card| {
            let ways = card.ways(&mut choice, &mut fallbacks, pages, tokens)?;
            card.in_use(ways)
        });
        match set_up {
            Ok(rdma) => {
                tracing::info!("fabric {choice}: {}", choice.reason);
                Ok((Some(rdma), fallbacks))
            }
            Err(reason) if settings.fabric.required => Err(reason),
            Err(reason) => {
                tracing::warn!("fabric tcp: {choice} was chosen and cannot be used: {reason}");
                Ok((None, fallbacks + 1))
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

/// A card that was opened, with what is the same for all its fabrics.
struct Card<'own> {
    config: &'own Config,
    port: &'own ChosenPort,
    pd: Arc<Pd>,
    caps: DeviceCaps,
    buffers: Arc<Buffers>,
    /// What others READ; nothing where nobody reaches this host.
    arena: Option<Arena>,
}

/// By what this host READs others, and is READ.
struct Ways {
    fabrics: Vec<Arc<dyn Fabric>>,
    dc: Option<Arc<DcFabric>>,
    rc: Option<RcService>,
    targets: Option<DcTargets>,
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
        let arena = || Arena::start(Arc::new(pd.clone()), config.rdma.arena);
        let arena = config.advertise.as_ref().map(|_| arena()).transpose();
        let arena = arena.map_err(|error| error.to_string())?;
        Ok(Card { config, port, pd, caps, buffers, arena })
    }

    /// The ways of the fabric that was chosen. DC that turns out not to work is rc from then on, in `choice`
    /// as well, unless it was required by its name.
    fn ways(
        &self,
        choice: &mut Choice,
        fallbacks: &mut u64,
        pages: &Arc<PageService>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<Ways, String> {
        let wish = self.config.rdma.settings.fabric;
        if choice.fabric == FabricName::Dc {
            match self.with_dc(pages, tokens.clone()) {
                Err(reason) if wish.fabric != Some(FabricName::Dc) || !wish.required => {
                    tracing::warn!("fabric rc: {choice} was chosen and cannot be used: {reason}");
                    *fallbacks += 1;
                    choice.fabric = FabricName::Rc;
                }
                done => return done,
            }
        }
        self.with_rc(pages, tokens)
    }

    fn with_rc(
        &self,
        pages: &Arc<PageService>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<Ways, String> {
        let fabrics: Vec<Arc<dyn Fabric>> = vec![self.rc_fabric(tokens)?];
        let rc = self.arena.as_ref().map(|_| self.rc_service(pages)).transpose()?;
        Ok(Ways { fabrics, dc: None, rc, targets: None })
    }

    /// DC for peers that have it, and rc for those that have not, where connections can be made.
    fn with_dc(
        &self,
        pages: &Arc<PageService>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<Ways, String> {
        let without = |reason: &String| {
            tracing::warn!(%reason, "no rc beside dc: peers without dc are READ, and READ this host, by tcp");
        };
        let dc = self.dc_fabric()?;
        let targets = self.arena.as_ref().map(|_| self.dc_targets()).transpose()?;
        let mut fabrics: Vec<Arc<dyn Fabric>> = vec![dc.clone()];
        let rc_fabric = self.rc_fabric(tokens).inspect_err(without).ok();
        let served = self.arena.as_ref().and(rc_fabric.as_ref());
        let rc = served.and_then(|_| self.rc_service(pages).inspect_err(without).ok());
        fabrics.extend(rc_fabric.map(|rc| rc as Arc<dyn Fabric>));
        Ok(Ways { fabrics, dc: Some(dc), rc, targets })
    }

    fn in_use(self, ways: Ways) -> Result<Rdma, String> {
        let events = CardEvents::listen(self.pd.context().clone());
        let events =
            events.map_err(|error| format!("no thread to listen to the card ({error})"))?;
        let Ways { fabrics, dc, rc, targets } = ways;
        let agent = self.config.advertise.clone();
        let served = self.arena.zip(agent);
        let served = served.map(|(arena, agent)| Served { rc, targets, arena, agent });
        Ok(Rdma { buffers: self.buffers, served, fabrics, dc, _events: events })
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
