//! Which fabric, device, port and GID are used, and why: a value that can be printed.
//!
//! Pure: what the user asks for ([`Settings`]) and what is there ([`DeviceFacts`]) go in. Of the ports
//! that the lists allow and that are ACTIVE, the one nearest in NUMA is taken, then the one that stands
//! earlier in `MITOSIS_DEV`, then the first by name. `auto` takes `dc` where that port serves it, else
//! `rc`, else `tcp`. What cannot be had falls back to the next, and says so, unless it is required.
#![deny(unsafe_code)]

mod gid;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

pub use settings::{DeviceList, DeviceRule, FabricName, SettingError, Settings, Wish};

use super::address::{Gid, GidEntry, LinkLayer, Mtu, PortState};
use super::change::Path;
use super::device::Transport;

/// What is known of a device.
#[derive(Clone, Debug)]
pub struct DeviceFacts {
    /// Its name.
    pub name: String,
    /// What carries its READs.
    pub transport: Transport,
    /// How far it is from the CPUs that this process may use, as the kernel counts (10 is here).
    pub numa_distance: Option<u32>,
    /// Why it cannot be used, if it cannot be opened.
    pub trouble: Option<String>,
    /// Its ports.
    pub ports: Vec<PortFacts>,
}

/// What is known of a port.
#[derive(Clone, Debug)]
pub struct PortFacts {
    /// From 1 on.
    pub number: u8,
    /// Whether it carries traffic.
    pub state: PortState,
    /// What it is.
    pub link: LinkLayer,
    /// Its path MTU.
    pub mtu: Mtu,
    /// Its LID, on InfiniBand.
    pub lid: u16,
    /// Its GID table, less empty places.
    pub gids: Vec<GidEntry>,
}

/// The port that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenPort {
    /// The device's name.
    pub device: String,
    /// The port.
    pub port: u8,
    /// What it is.
    pub link: LinkLayer,
    /// Its path MTU.
    pub mtu: Mtu,
    /// Its LID, on InfiniBand.
    pub lid: u16,
    /// Its GID; iWARP has none.
    pub gid: Option<GidEntry>,
}

impl ChosenPort {
    /// The way out by this port, to nobody yet.
    pub fn path(&self) -> Path {
        let index = self.gid.as_ref().map_or(0, |entry| entry.index);
        Path::from(self.port, self.link, u8::try_from(index).unwrap_or(0))
    }

    /// How peers address it: its GID, and on InfiniBand its LID.
    pub fn address(&self) -> (Gid, u16) {
        let gid = self.gid.as_ref().map(|entry| entry.gid).unwrap_or_default();
        (gid, if self.link == LinkLayer::Ethernet { 0 } else { self.lid })
    }
}

impl fmt::Display for ChosenPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.device, self.port)?;
        match &self.gid {
            Some(entry) if self.link == LinkLayer::Ethernet => {
                write!(out, ", GID {} ({}, {})", entry.index, entry.kind, entry.gid.ip())
            }
            Some(entry) => write!(out, ", GID {} ({}), LID {}", entry.index, entry.gid, self.lid),
            None => out.write_str(" (iWARP)"),
        }
    }
}

/// What is used, and why. As text: `rc on rxe0:1, GID 1 (RoCE v2, 10.77.0.1)`.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The fabric.
    pub fabric: FabricName,
    /// The port; tcp has none.
    pub port: Option<ChosenPort>,
    /// How it came to that.
    pub reason: String,
    /// What was wanted and could not be had: worth a warning, and counted.
    pub fell_back: Option<ChoiceError>,
}

impl fmt::Display for Choice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            Some(port) => write!(out, "{} on {port}", self.fabric),
            None => self.fabric.fmt(out),
        }
    }
}

/// Why something cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChoiceError {
    /// No library, no kernel support, no device.
    #[error("{0}")]
    NoRdma(String),
    /// `MITOSIS_DEV` names none that is there.
    #[error("MITOSIS_DEV names {named}, which is not there; there are: {there}")]
    NotThere {
        /// What it names.
        named: String,
        /// The ports that are there.
        there: String,
    },
    /// The lists leave nothing.
    #[error("MITOSIS_DEV and MITOSIS_DEV_DENY leave no port; there are: {0}")]
    NoneAllowed(String),
    /// None is ACTIVE, or none can be opened.
    #[error(
        "no port is ACTIVE: {0}; look at its cable and at 'ip link', on InfiniBand at the subnet manager"
    )]
    NotActive(String),
    /// A device cannot be opened.
    #[error("{0}")]
    NotOpen(String),
    /// `MITOSIS_GID_INDEX` is not in the table.
    #[error("MITOSIS_GID_INDEX={index}: {port} has no such GID; it has: {table}")]
    NoSuchGid {
        /// What was asked for.
        index: u8,
        /// The port.
        port: String,
        /// Its table.
        table: String,
    },
    /// No GID that other hosts reach by UDP.
    #[error(
        "{port} has no RoCE v2 GID (give its network interface an IP address, or choose one with MITOSIS_GID_INDEX); it has: {table}"
    )]
    NoRoceV2 {
        /// The port.
        port: String,
        /// Its table.
        table: String,
    },
    /// The port has no DC.
    #[error(
        "{port} has no DC: {reason}; use rc (MITOSIS_FABRIC=rc), or a ConnectX-4 or later card"
    )]
    NoDc {
        /// The port.
        port: String,
        /// What refused it.
        reason: String,
    },
}

/// Chooses.
///
/// `devices`: what is there, or why there is no RDMA. `address`: the one under which this host's agent
/// is reached; a GID that is it is preferred. `dc`: finds out whether a port serves DC; asked at most
/// once.
///
/// # Errors
/// [`ChoiceError`], where it is required.
pub fn choose(
    settings: &Settings,
    devices: Result<&[DeviceFacts], String>,
    address: Option<IpAddr>,
    dc: impl FnOnce(&ChosenPort) -> Result<(), String>,
) -> Result<Choice, ChoiceError> {
    let wish = settings.fabric;
    if wish.fabric == Some(FabricName::Tcp) {
        let reason = format!("MITOSIS_FABRIC={wish}");
        return Ok(Choice { fabric: FabricName::Tcp, port: None, reason, fell_back: None });
    }
    let picked =
        devices.map_err(ChoiceError::NoRdma).and_then(|devices| pick(settings, devices, address));
    let (port, mut reason) = match picked {
        Ok(picked) => picked,
        Err(error) if wish.required => return Err(error),
        Err(error) => {
            let reason = format!("MITOSIS_FABRIC={wish}, but {error}");
            // Where nothing was asked for and there is no RDMA, tcp is no fall-back.
            let plain = wish.fabric.is_none() && matches!(error, ChoiceError::NoRdma(_));
            let fell_back = (!plain).then_some(error);
            return Ok(Choice { fabric: FabricName::Tcp, port: None, reason, fell_back });
        }
    };
    if wish.fabric == Some(FabricName::Rc) {
        return Ok(Choice { fabric: FabricName::Rc, port: Some(port), reason, fell_back: None });
    }
    let error = match dc(&port) {
        Ok(()) => {
            return Ok(Choice {
                fabric: FabricName::Dc,
                port: Some(port),
                reason,
                fell_back: None,
            });
        }
        Err(reason) => {
            let port = format!("{}:{}", port.device, port.port);
            ChoiceError::NoDc { port, reason }
        }
    };
    if wish.fabric == Some(FabricName::Dc) && wish.required {
        return Err(error);
    }
    reason = format!("{reason}; {error}");
    let fell_back = (wish.fabric == Some(FabricName::Dc)).then_some(error);
    Ok(Choice { fabric: FabricName::Rc, port: Some(port), reason, fell_back })
}

/// The port to use, and why that one.
fn pick(
    settings: &Settings,
    devices: &[DeviceFacts],
    address: Option<IpAddr>,
) -> Result<(ChosenPort, String), ChoiceError> {
    let ports =
        || devices.iter().flat_map(|device| device.ports.iter().map(move |port| (device, port)));
    if devices.is_empty() {
        return Err(ChoiceError::NoRdma("no RDMA device is there".to_owned()));
    }
    let allowed: Vec<_> =
        ports().filter(|(device, port)| settings.allows(&device.name, port.number)).collect();
    if allowed.is_empty() {
        return Err(nothing_left(settings, devices));
    }
    let mut usable: Vec<_> =
        allowed.iter().filter(|(_, port)| port.state == PortState::Active).collect();
    /// The kernel's distance of a neighbour: what is not known is not taken for near.
    const UNKNOWN_DISTANCE: u32 = 20;
    usable.sort_by_key(|(device, port)| {
        let distance = device.numa_distance.unwrap_or(UNKNOWN_DISTANCE);
        (distance, settings.devices.place(&device.name, port.number), &device.name, port.number)
    });
    let Some((device, port)) = usable.first() else {
        return Err(ChoiceError::NotActive(list(&allowed)));
    };
    let reason = match (usable.len(), device.numa_distance) {
        (1, _) => format!("MITOSIS_FABRIC={}; the only ACTIVE port", settings.fabric),
        (count, Some(distance)) => format!(
            "MITOSIS_FABRIC={}; the nearest of {count} ACTIVE ports (NUMA distance {distance})",
            settings.fabric
        ),
        (count, None) => format!(
            "MITOSIS_FABRIC={}; the first of {count} ACTIVE ports, NUMA distance unknown",
            settings.fabric
        ),
    };
    let gid = match device.transport {
        Transport::Iwarp => None,
        _ => Some(gid::pick(&device.name, port, settings.gid_index, address)?),
    };
    let chosen = ChosenPort {
        device: device.name.clone(),
        port: port.number,
        link: port.link,
        mtu: port.mtu,
        lid: port.lid,
        gid,
    };
    Ok((chosen, reason))
}

/// Why no port is allowed.
fn nothing_left(settings: &Settings, devices: &[DeviceFacts]) -> ChoiceError {
    let trouble = devices.iter().find(|device| device.ports.is_empty() && device.trouble.is_some());
    if let Some(text) = trouble.and_then(|device| device.trouble.clone()) {
        return ChoiceError::NotOpen(text);
    }
    let all: Vec<_> = devices
        .iter()
        .flat_map(|device| device.ports.iter().map(move |port| (device, port)))
        .collect();
    let there = list(&all);
    let named = &settings.devices;
    let any_there = all.iter().any(|(device, port)| named.names(&device.name, port.number));
    if named.inverted || named.rules.is_empty() || any_there {
        return ChoiceError::NoneAllowed(there);
    }
    let named = named.rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    ChoiceError::NotThere { named, there }
}

/// `mlx5_0:1 (ACTIVE), mlx5_1:1 (DOWN)`.
fn list(ports: &[(&DeviceFacts, &PortFacts)]) -> String {
    let one = |(device, port): &(&DeviceFacts, &PortFacts)| {
        format!("{}:{} ({})", device.name, port.number, port.state)
    };
    ports.iter().map(one).collect::<Vec<_>>().join(", ")
}
