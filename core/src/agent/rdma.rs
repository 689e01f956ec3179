//! This host's RDMA card, if the agent uses one: what is made on it once, at the agent's start.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use super::card_events::CardEvents;
use super::config::Config;
use crate::descriptor::{Export, RcEndpoint};
use crate::export::PageService;
use crate::export::arena::{Arena, SLAB_BYTES};
use crate::export::rc::RcService;
use crate::fabric::buffers::REGISTERED_BYTES;
use crate::fabric::rc::{RcFabric, RcSettings};
use crate::fabric::tcp::TokenSource;
use crate::fabric::{Buffers, Fabric};
use crate::verbs::choice::{ChosenPort, DeviceFacts, FabricName, choose};
use crate::verbs::{self, Error, GidKind, Pd, Surveyed};

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
    /// What it says unasked.
    _events: CardEvents,
}

/// The side that other hosts READ.
#[derive(Debug)]
pub struct Served {
    // In this order: first nobody connects any more, then the memory goes.
    rc: RcService,
    /// Its memory.
    pub arena: Arena,
    agent: String,
}

impl Served {
    /// What a descriptor says of every seed of this host, beside the arena.
    pub fn exports(&self) -> Vec<Export> {
        vec![Export::Rc(RcEndpoint::new(&self.agent, self.rc.address()))]
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
        let dc = |_: &ChosenPort| Err("this version has no dc fabric yet".to_owned());
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
        match Rdma::open(config, &surveyed, port, pages, tokens) {
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

    fn open(
        config: &Config,
        surveyed: &[Surveyed],
        port: &ChosenPort,
        pages: &Arc<PageService>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<Self, String> {
        let text = |error: Error| error.to_string();
        let context = verbs::open_chosen(surveyed, port).map_err(text)?;
        let address = card_address(port, config)?;
        let caps = context.caps().map_err(text)?;
        let pd = Pd::new(&context).map_err(text)?;
        let buffers = Buffers::registered(pd.clone()).map_err(text)?;
        let outstanding = OUTSTANDING.min(caps.max_qp_init_rd_atom).max(1);
        let settings = RcSettings { source: Some(address), outstanding };
        let own = config.advertise.clone();
        let rc = RcFabric::new(pd.clone(), settings, tokens, own).map_err(text)?;
        let served = match &config.advertise {
            None => None,
            Some(agent) => {
                let arena = Arena::start(Arc::new(pd.clone()), config.rdma.arena);
                let arena = arena.map_err(|error| error.to_string())?;
                let answered = OUTSTANDING.min(caps.max_qp_rd_atom).max(1);
                let listener = SocketAddr::new(address, 0);
                let rc = RcService::start(pd, listener, answered, pages.clone()).map_err(text)?;
                Some(Served { rc, arena, agent: agent.clone() })
            }
        };
        let events = CardEvents::listen(context);
        let events =
            events.map_err(|error| format!("no thread to listen to the card ({error})"))?;
        Ok(Rdma { buffers, served, fabrics: vec![rc], _events: events })
    }
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
