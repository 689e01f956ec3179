//! GIDs, ports, MTUs: plain values.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use rdma_mummy_sys as sys;

/// A global id: 16 bytes, on RoCE v2 an IP address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gid(pub [u8; 16]);

impl Gid {
    /// Whether its place in the table is empty: zeros, or a subnet prefix without an interface id.
    pub fn is_unset(&self) -> bool {
        self.0[8..].iter().all(|byte| *byte == 0)
    }

    /// The IP address that it is on RoCE v2.
    pub fn ip(&self) -> IpAddr {
        let address = Ipv6Addr::from(self.0);
        address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
    }

    /// fe80::/10.
    pub fn is_link_local(&self) -> bool {
        self.0[0] == 0xfe && self.0[1] & 0xc0 == 0x80
    }
}

impl From<IpAddr> for Gid {
    fn from(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        })
    }
}

/// As ibv_devinfo writes it: eight groups; an IPv4-mapped one as ::ffff:A.B.C.D.
impl fmt::Display for Gid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ipv6Addr::from(self.0).fmt(out)
    }
}

/// What a GID is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GidKind {
    /// InfiniBand's.
    Ib,
    /// RoCE over Ethernet frames: not routed.
    RoceV1,
    /// RoCE over UDP.
    RoceV2,
    /// One that this code does not know.
    Other,
}

impl GidKind {
    pub(super) fn from_raw(kind: u32) -> Self {
        match kind {
            sys::IBV_GID_TYPE_IB => Self::Ib,
            sys::IBV_GID_TYPE_ROCE_V1 => Self::RoceV1,
            sys::IBV_GID_TYPE_ROCE_V2 => Self::RoceV2,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for GidKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Ib => "InfiniBand",
            Self::RoceV1 => "RoCE v1",
            Self::RoceV2 => "RoCE v2",
            Self::Other => "unknown",
        })
    }
}

/// One line of a port's GID table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GidEntry {
    /// Its place.
    pub index: u32,
    /// The GID.
    pub gid: Gid,
    /// What it is used for.
    pub kind: GidKind,
    /// The network interface that it belongs to, on RoCE.
    pub netdev: Option<String>,
}

/// What a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// InfiniBand, addressed by LID.
    InfiniBand,
    /// Ethernet, addressed by GID (RoCE) or by IP (iWARP).
    Ethernet,
    /// Not told; InfiniBand by the specification.
    Unspecified,
}

impl LinkLayer {
    pub(super) fn from_raw(link: u8) -> Self {
        match link {
            sys::IBV_LINK_LAYER_INFINIBAND => Self::InfiniBand,
            sys::IBV_LINK_LAYER_ETHERNET => Self::Ethernet,
            _ => Self::Unspecified,
        }
    }
}

impl fmt::Display for LinkLayer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::InfiniBand => "InfiniBand",
            Self::Ethernet => "Ethernet",
            Self::Unspecified => "unspecified",
        })
    }
}

/// Whether a port carries traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// It does.
    Active,
    /// No link.
    Down,
    /// Link, but no subnet manager has set it up.
    Init,
    /// Set up, not yet active.
    Armed,
    /// Some other state.
    Other,
}

impl PortState {
    pub(super) fn from_raw(state: sys::ibv_port_state::Type) -> Self {
        match state {
            sys::ibv_port_state::IBV_PORT_ACTIVE => Self::Active,
            sys::ibv_port_state::IBV_PORT_DOWN => Self::Down,
            sys::ibv_port_state::IBV_PORT_INIT => Self::Init,
            sys::ibv_port_state::IBV_PORT_ARMED => Self::Armed,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for PortState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Active => "ACTIVE",
            Self::Down => "DOWN",
            Self::Init => "INIT",
            Self::Armed => "ARMED",
            Self::Other => "neither up nor down",
        })
    }
}

/// A path MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mtu {
    /// 256 bytes.
    B256,
    /// 512 bytes.
    B512,
    /// 1024 bytes.
    B1024,
    /// 2048 bytes.
    B2048,
    /// 4096 bytes.
    B4096,
}

impl Mtu {
    const ALL: [Self; 5] = [Self::B256, Self::B512, Self::B1024, Self::B2048, Self::B4096];

    pub(super) fn raw(self) -> sys::ibv_mtu::Type {
        match self {
            Self::B256 => sys::ibv_mtu::IBV_MTU_256,
            Self::B512 => sys::ibv_mtu::IBV_MTU_512,
            Self::B1024 => sys::ibv_mtu::IBV_MTU_1024,
            Self::B2048 => sys::ibv_mtu::IBV_MTU_2048,
            Self::B4096 => sys::ibv_mtu::IBV_MTU_4096,
        }
    }

    /// The smallest, where the port says something else: every port has it.
    pub(super) fn from_raw(raw: sys::ibv_mtu::Type) -> Self {
        Self::ALL.into_iter().find(|mtu| mtu.raw() == raw).unwrap_or(Self::B256)
    }

    /// In bytes.
    pub fn bytes(self) -> u32 {
        match self {
            Self::B256 => 256,
            Self::B512 => 512,
            Self::B1024 => 1024,
            Self::B2048 => 2048,
            Self::B4096 => 4096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_of_an_ip_address_tells_it_again() {
        for text in ["10.77.0.1", "2001:db8::7", "fe80::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(Gid::from(address).ip(), address);
        }
        assert_eq!(
            Gid::from("10.77.0.1".parse::<IpAddr>().unwrap()).to_string(),
            "::ffff:10.77.0.1"
        );
        assert!(Gid::from("fe80::1".parse::<IpAddr>().unwrap()).is_link_local());
    }

    #[test]
    fn an_empty_place_has_at_most_a_prefix() {
        let mut gid = [0; 16];
        gid[..2].copy_from_slice(&[0xfe, 0x80]);
        assert!(Gid::default().is_unset() && Gid(gid).is_unset());
        gid[15] = 1;
        assert!(!Gid(gid).is_unset());
    }

    #[test]
    fn mtus_survive_their_numbers() {
        for mtu in Mtu::ALL {
            assert_eq!(Mtu::from_raw(mtu.raw()), mtu);
        }
    }
}
