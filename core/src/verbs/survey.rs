//! What RDMA there is on this host: for choosing a port, and for `mitosis info` and `mitosis doctor`.
#![deny(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path as FilePath;
use std::sync::Arc;

use super::address::{GidEntry, GidKind, LinkLayer};
use super::change::Path;
use super::choice::{ChosenPort, DeviceFacts, PortFacts};
use super::dc::{self, DcCaps};
use super::device::{self, Context, Device, DeviceCaps};
use super::error::Error;

/// One device, as far as it can be asked.
#[derive(Debug)]
pub struct Surveyed {
    /// What choosing goes by.
    pub facts: DeviceFacts,
    /// What it can do; none if it cannot be opened.
    pub caps: Option<DeviceCaps>,
    /// The device itself.
    device: Device,
}

/// All devices of this host.
///
/// # Errors
/// [`Error::Library`] without libibverbs, [`Error::NoRdma`] where the kernel offers none.
pub fn survey() -> Result<Vec<Surveyed>, Error> {
    let near = own_nodes();
    Ok(device::devices()?.into_iter().map(|device| look(device, &near)).collect())
}

/// Opens the device of a port that was chosen among `surveyed`.
///
/// # Errors
/// [`Error::Call`]: ENODEV if it is gone.
pub fn open_chosen(surveyed: &[Surveyed], port: &ChosenPort) -> Result<Arc<Context>, Error> {
    let gone = || Error::returned("ibv_open_device", &port.device, libc::ENODEV);
    let found = surveyed.iter().find(|one| one.facts.name == port.device).ok_or_else(gone)?;
    found.device.open()
}

/// Whether a port serves DC: makes a target on it.
///
/// # Errors
/// Whatever refuses it.
pub fn try_dc_on(surveyed: &[Surveyed], port: &ChosenPort) -> Result<DcCaps, Error> {
    let context = open_chosen(surveyed, port)?;
    dc::try_out(&context, &port.path(), port.mtu)
}

impl Surveyed {
    /// Whether it serves DC on its first port that could; none if libmlx5 does not know it.
    pub fn dc(&self) -> Option<Result<DcCaps, Error>> {
        if !dc::is_mlx5(&self.device) {
            return None;
        }
        let port = self.facts.ports.first()?;
        let index = gid_of(port);
        let path = Path::from(port.number, port.link, index);
        Some(self.device.open().and_then(|context| dc::try_out(&context, &path, port.mtu)))
    }
}

/// A GID of the port, as a target has one: on RoCE of version 2, and one that leads beyond the link if there
/// is any.
fn gid_of(port: &PortFacts) -> u8 {
    let ethernet = port.link == LinkLayer::Ethernet;
    let can = |entry: &&GidEntry| !ethernet || entry.kind == GidKind::RoceV2;
    let gid = port.gids.iter().filter(can).min_by_key(|entry| entry.gid.is_link_local());
    gid.and_then(|entry| u8::try_from(entry.index).ok()).unwrap_or(0)
}

fn look(device: Device, near: &BTreeSet<u32>) -> Surveyed {
    let mut facts = DeviceFacts {
        name: device.name().to_owned(),
        transport: device.transport(),
        numa_distance: distance_of(device.name(), near),
        trouble: None,
        ports: Vec::new(),
    };
    let asked = device.open().and_then(|context| {
        let caps = context.caps()?;
        facts.ports =
            (1..=caps.ports).map(|number| ask_port(&context, number)).collect::<Result<_, _>>()?;
        Ok(caps)
    });
    let caps = match asked {
        Ok(caps) => Some(caps),
        Err(error) => {
            facts.trouble = Some(error.to_string());
            None
        }
    };
    Surveyed { facts, caps, device }
}

fn ask_port(context: &Context, number: u8) -> Result<PortFacts, Error> {
    let attr = context.port(number)?;
    Ok(PortFacts {
        number,
        state: attr.state,
        link: attr.link,
        mtu: attr.mtu,
        lid: attr.lid,
        gids: context.gids(number)?,
    })
}

/// How far a device is from the nearest of `near`; none where the kernel does not tell.
fn distance_of(device: &str, near: &BTreeSet<u32>) -> Option<u32> {
    let node =
        fs::read_to_string(format!("/sys/class/infiniband/{device}/device/numa_node")).ok()?;
    let node = usize::try_from(node.trim().parse::<i32>().ok()?).ok()?;
    let distance = |own: &u32| {
        let row =
            fs::read_to_string(format!("/sys/devices/system/node/node{own}/distance")).ok()?;
        row.split_whitespace().nth(node)?.parse().ok()
    };
    near.iter().filter_map(distance).min()
}

/// The NUMA nodes of the CPUs that this process may use.
fn own_nodes() -> BTreeSet<u32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let own = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let own = cpus(own.unwrap_or_default());
    let nodes = fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten();
    nodes
        .filter_map(|entry| {
            let node = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            let list = fs::read_to_string(FilePath::join(&entry.path(), "cpulist")).ok()?;
            (!cpus(&list).is_disjoint(&own)).then_some(node)
        })
        .collect()
}

/// The numbers of a list as the kernel writes it: `0-3,8`.
fn cpus(list: &str) -> BTreeSet<u32> {
    /// CPUs beyond any kernel's: a longer range is a misreading.
    const MAX_CPUS: u32 = 1 << 16;
    let range = |part: &str| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
        Some((first.parse::<u32>().ok()?, last.parse::<u32>().ok()?.min(MAX_CPUS)))
    };
    list.split(',').filter_map(range).flat_map(|(first, last)| first..=last).collect()
}

#[cfg(test)]
mod tests {
    use super::super::address::{Gid, Mtu, PortState};
    use super::*;

    #[test]
    fn a_target_is_tried_with_a_gid_that_leads_beyond_the_link() {
        let gid = |index: u32, address: &str, kind: GidKind| {
            let gid = Gid::from(address.parse::<std::net::IpAddr>().unwrap());
            GidEntry { index, gid, kind, netdev: None }
        };
        let mut port = PortFacts {
            number: 1,
            state: PortState::Active,
            link: LinkLayer::Ethernet,
            mtu: Mtu::B1024,
            lid: 0,
            gids: vec![
                gid(0, "10.77.0.1", GidKind::RoceV1),
                gid(1, "fe80::1", GidKind::RoceV2),
                gid(2, "10.77.0.1", GidKind::RoceV2),
            ],
        };
        assert_eq!(gid_of(&port), 2);
        port.gids.pop();
        assert_eq!(gid_of(&port), 1, "better than none");
        (port.link, port.gids) = (LinkLayer::InfiniBand, vec![gid(3, "fe80::1", GidKind::Ib)]);
        assert_eq!(gid_of(&port), 3);
    }

    #[test]
    fn lists_of_cpus() {
        assert_eq!(cpus("0-3,8\n"), BTreeSet::from([0, 1, 2, 3, 8]));
        assert_eq!(cpus(" 5"), BTreeSet::from([5]));
        assert!(cpus("").is_empty() && cpus("x-y").is_empty());
    }

    #[test]
    fn this_process_may_use_some_node_where_nodes_are_told() {
        if FilePath::new("/sys/devices/system/node/node0/cpulist").exists() {
            assert!(!own_nodes().is_empty());
        }
    }

    #[test]
    fn a_device_that_does_not_exist_has_no_distance() {
        assert_eq!(distance_of("no_such_device", &own_nodes()), None);
    }
}
