//! This host's card.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use mitosis::fabric::dc::DcSettings;
use mitosis::verbs::choice::{ChosenPort, FabricName, Settings, Wish, choose};
use mitosis::verbs::{self, DcCaps, DeviceCaps, Patience, Pd, PortState};

/// READs that a connection has on the wire at a time, as the agent's.
const OUTSTANDING: u8 = 16;

/// The first whose port 1 is ACTIVE.
pub(crate) fn open() -> Result<(Arc<Pd>, DeviceCaps)> {
    let devices = verbs::devices()?;
    let open = |device: &verbs::Device| {
        let context = device.open().ok()?;
        let port = context.port(1).ok()?;
        (port.state == PortState::Active).then_some(context)
    };
    let context = devices.iter().find_map(open).context("no RDMA device has an ACTIVE port 1")?;
    let caps = context.caps()?;
    Ok((Pd::new(&context)?, caps))
}

/// A port with DC.
#[derive(Debug)]
pub(crate) struct DcPort {
    pub(crate) pd: Arc<Pd>,
    pub(crate) port: ChosenPort,
    caps: DcCaps,
    device: DeviceCaps,
}

impl DcPort {
    /// The one that an agent would choose.
    pub(crate) fn open() -> Result<Self> {
        let surveyed = verbs::survey()?;
        let facts: Vec<_> = surveyed.iter().map(|one| one.facts.clone()).collect();
        let wish = Wish { fabric: Some(FabricName::Dc), required: true };
        let settings = Settings { fabric: wish, ..Settings::default() };
        let dc = |port: &ChosenPort| {
            verbs::try_dc_on(&surveyed, port).map(drop).map_err(|error| error.to_string())
        };
        let port = choose(&settings, Ok(&facts), None, dc)?.port.context("no port has DC")?;
        let context = verbs::open_chosen(&surveyed, &port)?;
        let (caps, device) = (verbs::dc_caps(&context)?, context.caps()?);
        Ok(DcPort { pd: Pd::new(&context)?, port, caps, device })
    }

    /// As an agent's initiators have it.
    pub(crate) fn settings(&self) -> DcSettings {
        let allowed = match self.caps.max_rd_atomic {
            0 => self.device.max_qp_init_rd_atom,
            told => told,
        };
        DcSettings {
            path: self.port.path(),
            mtu: self.port.mtu,
            outstanding: OUTSTANDING.min(allowed).max(1),
            patience: Patience::PAGER,
            streams: DcSettings::streams_of(self.caps.log_streams, self.caps.log_failed_streams),
        }
    }
}

/// READs that the card answers, or has on the wire, at a time.
pub(crate) fn outstanding(caps: DeviceCaps) -> u8 {
    OUTSTANDING.min(caps.max_qp_rd_atom).min(caps.max_qp_init_rd_atom).max(1)
}
