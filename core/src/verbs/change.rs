//! A state change of a QP: attributes and their bits, always set together.

use std::fmt;

use rdma_mummy_sys as sys;

use super::address::{Gid, LinkLayer, Mtu};
use super::patience::{Patience, RetryCount};
use super::transitions::{AttrMask, QpState};

/// The time that a QP asks a sender to wait which found it without a receive buffer: 0.64 ms. READs
/// need none, but the attribute is required.
const MIN_RNR_TIMER: u8 = 12;
/// Hops that a packet may take, where the other side does not say.
pub const DEFAULT_HOP_LIMIT: u8 = 64;

/// How packets reach a peer, or leave a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The port that they leave by.
    pub port: u8,
    /// What the port is.
    pub link: LinkLayer,
    /// The place of the sender's GID in the port's table.
    pub gid_index: u8,
    /// The peer's GID; none for a QP that is not connected.
    pub gid: Option<Gid>,
    /// The peer's LID, on InfiniBand.
    pub lid: u16,
    /// Hops.
    pub hop_limit: u8,
    /// The traffic class of the IP or GRH header.
    pub traffic_class: u8,
    /// The service level.
    pub service_level: u8,
}

impl Path {
    /// From GID `gid_index` of `port`, to nobody yet.
    pub fn from(port: u8, link: LinkLayer, gid_index: u8) -> Self {
        Self {
            port,
            link,
            gid_index,
            gid: None,
            lid: 0,
            hop_limit: DEFAULT_HOP_LIMIT,
            traffic_class: 0,
            service_level: 0,
        }
    }

    /// To the peer with this GID and, on InfiniBand, LID.
    pub fn to(self, gid: Gid, lid: u16) -> Self {
        Self { gid: Some(gid), lid, ..self }
    }

    pub(super) fn raw(&self) -> sys::ibv_ah_attr {
        sys::ibv_ah_attr {
            grh: sys::ibv_global_route {
                dgid: sys::ibv_gid { raw: self.gid.unwrap_or_default().0 },
                flow_label: 0,
                sgid_index: self.gid_index,
                hop_limit: self.hop_limit,
                traffic_class: self.traffic_class,
            },
            dlid: self.lid,
            sl: self.service_level,
            src_path_bits: 0,
            static_rate: 0,
            // RoCE addresses by GID alone; InfiniBand needs the header only between subnets, and takes it.
            is_global: u8::from(self.link == LinkLayer::Ethernet || self.gid.is_some()),
            port_num: self.port,
        }
    }
}

/// Attributes for one transition.
pub struct Change {
    pub(super) to: QpState,
    pub(super) attr: sys::ibv_qp_attr,
    pub(super) mask: AttrMask,
}

impl Clone for Change {
    fn clone(&self) -> Self {
        Self { to: self.to, attr: self.attr(), mask: self.mask }
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Change(to {}, {})", self.to, self.mask)
    }
}

impl Change {
    /// The attributes, for a call that takes them by a pointer that is not const.
    pub(super) fn attr(&self) -> sys::ibv_qp_attr {
        // SAFETY: plain C data without an owner; that bindgen gives it no Copy is for want of knowing.
        unsafe { std::ptr::read(&raw const self.attr) }
    }

    /// To this state, with nothing beside.
    pub fn to(state: QpState) -> Self {
        // SAFETY: plain C data, for which zeros are a value.
        let mut attr: sys::ibv_qp_attr = unsafe { std::mem::zeroed() };
        attr.qp_state = state.raw();
        Self { to: state, attr, mask: AttrMask::STATE }
    }

    /// What the connection manager says.
    pub(super) fn from_raw(to: QpState, attr: sys::ibv_qp_attr, mask: u32) -> Self {
        Self { to, attr, mask: AttrMask(mask) }
    }

    fn set(mut self, bits: AttrMask, write: impl FnOnce(&mut sys::ibv_qp_attr)) -> Self {
        write(&mut self.attr);
        self.mask = self.mask.with(bits);
        self
    }

    /// PORT and PKEY_INDEX, the default partition.
    pub fn port(self, port: u8) -> Self {
        self.set(AttrMask::PORT.with(AttrMask::PKEY_INDEX), |attr| {
            attr.port_num = port;
            attr.pkey_index = 0;
        })
    }

    /// ACCESS_FLAGS: what peers may do. READs, or nothing.
    pub fn remote_reads(self, allowed: bool) -> Self {
        let access = sys::ibv_access_flags::IBV_ACCESS_REMOTE_READ.0;
        self.set(AttrMask::ACCESS_FLAGS, |attr| {
            attr.qp_access_flags = if allowed { access } else { 0 }
        })
    }

    /// AV and PATH_MTU.
    pub fn path(self, path: &Path, mtu: Mtu) -> Self {
        self.set(AttrMask::AV.with(AttrMask::PATH_MTU), |attr| {
            attr.ah_attr = path.raw();
            attr.path_mtu = mtu.raw();
        })
    }

    /// MIN_RNR_TIMER.
    pub fn rnr_timer(self) -> Self {
        self.set(AttrMask::MIN_RNR_TIMER, |attr| attr.min_rnr_timer = MIN_RNR_TIMER)
    }

    /// DEST_QPN and RQ_PSN: the peer's QP and the packet number that it starts with.
    pub fn peer(self, qp_num: u32, psn: u32) -> Self {
        self.set(AttrMask::DEST_QPN.with(AttrMask::RQ_PSN), |attr| {
            attr.dest_qp_num = qp_num;
            attr.rq_psn = psn;
        })
    }

    /// MAX_DEST_RD_ATOMIC: READs of the peer's that are answered at a time.
    pub fn reads_answered(self, depth: u8) -> Self {
        self.set(AttrMask::MAX_DEST_RD_ATOMIC, |attr| attr.max_dest_rd_atomic = depth)
    }

    /// SQ_PSN, TIMEOUT, RETRY_CNT, RNR_RETRY and MAX_QP_RD_ATOMIC: what a requester needs.
    pub fn requester(self, psn: u32, depth: u8, patience: Patience) -> Self {
        let bits = AttrMask::SQ_PSN
            .with(AttrMask::TIMEOUT)
            .with(AttrMask::RETRY_CNT)
            .with(AttrMask::RNR_RETRY)
            .with(AttrMask::MAX_QP_RD_ATOMIC);
        self.set(bits, |attr| {
            attr.sq_psn = psn;
            attr.max_rd_atomic = depth;
            set_patience(attr, patience);
        })
    }

    /// Puts `patience` in the place of what the connection manager says, where it says anything.
    pub(super) fn with_patience(mut self, patience: Patience) -> Self {
        if self.mask.has(AttrMask::TIMEOUT) {
            set_patience(&mut self.attr, patience);
        }
        self
    }

    /// Narrows what peers may do to READs, or to nothing, where the connection manager says more.
    pub(super) fn with_access(self, remote_reads: bool) -> Self {
        if self.mask.has(AttrMask::ACCESS_FLAGS) { self.remote_reads(remote_reads) } else { self }
    }
}

fn set_patience(attr: &mut sys::ibv_qp_attr, patience: Patience) {
    attr.timeout = patience.timeout.exponent();
    attr.retry_cnt = patience.retries.count();
    // READs need no receive buffers, so nobody answers "receiver not ready"; 7 would mean for ever.
    attr.rnr_retry = RetryCount::MAX.count();
}

#[cfg(test)]
mod tests {
    use super::super::transitions::{QpKind, allow};
    use super::*;

    fn path() -> Path {
        Path::from(1, LinkLayer::Ethernet, 1)
    }

    #[test]
    fn the_builders_make_what_the_table_of_transitions_asks_for() {
        let init = Change::to(QpState::Init).port(1);
        let rts = Change::to(QpState::Rts).requester(0, 16, Patience::PAGER);
        let rtr = Change::to(QpState::Rtr).path(&path(), Mtu::B1024);
        let check = |kind, from, change: &Change| {
            assert_eq!(allow(kind, from, change.to, change.mask), Ok(()), "{kind}");
        };
        for kind in [QpKind::Rc, QpKind::Dct] {
            check(kind, QpState::Reset, &init.clone().remote_reads(true));
        }
        check(QpKind::Dci, QpState::Reset, &init);
        check(QpKind::Dci, QpState::Init, &rtr);
        check(QpKind::Dct, QpState::Init, &rtr.clone().rnr_timer());
        check(QpKind::Rc, QpState::Init, &rtr.rnr_timer().peer(7, 0).reads_answered(16));
        for kind in [QpKind::Rc, QpKind::Dci] {
            check(kind, QpState::Rtr, &rts);
        }
    }

    #[test]
    fn nobody_else_may_write() {
        let change = Change::to(QpState::Init).remote_reads(true);
        assert_eq!(change.attr.qp_access_flags, sys::ibv_access_flags::IBV_ACCESS_REMOTE_READ.0);
        assert_eq!(change.remote_reads(false).attr.qp_access_flags, 0);
    }

    #[test]
    fn roce_always_has_a_global_route() {
        assert_eq!(path().raw().is_global, 1);
        assert_eq!(Path::from(1, LinkLayer::InfiniBand, 0).raw().is_global, 0);
        assert_eq!(Path::from(1, LinkLayer::InfiniBand, 0).to(Gid([1; 16]), 3).raw().is_global, 1);
    }
}
