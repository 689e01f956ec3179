//! Which GID of a port its packets carry.

use std::net::IpAddr;

use super::super::address::{GidEntry, GidKind, LinkLayer};
use super::{ChoiceError, PortFacts};

/// The one that was asked for; else on InfiniBand the first, on RoCE the best of version 2.
pub(super) fn pick(
    device: &str,
    port: &PortFacts,
    asked: Option<u8>,
    address: Option<IpAddr>,
) -> Result<GidEntry, ChoiceError> {
    let name = || format!("{device}:{}", port.number);
    if let Some(index) = asked {
        let found = port.gids.iter().find(|entry| entry.index == u32::from(index));
        return found.cloned().ok_or_else(|| ChoiceError::NoSuchGid {
            index,
            port: name(),
            table: table(&port.gids),
        });
    }
    let best = match port.link {
        LinkLayer::Ethernet => best_roce_v2(&port.gids, address),
        LinkLayer::InfiniBand | LinkLayer::Unspecified => port.gids.first(),
    };
    best.cloned().ok_or_else(|| ChoiceError::NoRoceV2 { port: name(), table: table(&port.gids) })
}

/// Of version 2: the agent's own address before all; then one of the port's own interface (a VLAN on it
/// has GIDs in the same table), IPv4 before IPv6 before link-local.
fn best_roce_v2(gids: &[GidEntry], address: Option<IpAddr>) -> Option<&GidEntry> {
    // The first place is the port's own interface's, whatever else is in the table.
    let own = gids.first().and_then(|entry| entry.netdev.as_deref());
    let rank = |entry: &&GidEntry| {
        let ip = entry.gid.ip();
        (
            address != Some(ip),
            entry.netdev.as_deref() != own,
            entry.gid.is_link_local(),
            !ip.is_ipv4(),
            entry.index,
        )
    };
    let usable =
        |entry: &&GidEntry| entry.kind == GidKind::RoceV2 && entry.index <= u32::from(u8::MAX);
    gids.iter().filter(usable).min_by_key(rank)
}

/// `0: fe80::1 (RoCE v1, eth0), 1: ...`.
pub(super) fn table(gids: &[GidEntry]) -> String {
    if gids.is_empty() {
        return "none".to_owned();
    }
    let one = |entry: &GidEntry| {
        let netdev = entry.netdev.as_deref().map(|name| format!(", {name}")).unwrap_or_default();
        format!("{}: {} ({}{netdev})", entry.index, entry.gid, entry.kind)
    };
    gids.iter().map(one).collect::<Vec<_>>().join(", ")
}
