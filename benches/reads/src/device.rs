//! This host's card.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use mitosis::verbs::{self, DeviceCaps, Pd, PortState};

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

/// READs that the card answers, or has on the wire, at a time.
pub(crate) fn outstanding(caps: DeviceCaps) -> u8 {
    OUTSTANDING.min(caps.max_qp_rd_atom).min(caps.max_qp_init_rd_atom).max(1)
}
