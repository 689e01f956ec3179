//! Which state of a QP may follow which, and the attributes that each change needs: one table.
//!
//! ```text
//!  RC, DCI   RESET -> INIT -> RTR -> RTS      any -> RESET, any but RESET -> ERR
//!  DCT       RESET -> INIT -> RTR             nothing else: it is re-keyed by making another
//!  iWARP     RESET -> INIT -> RTR -> RTS      the kernel's connection manager does most of it
//! ```
//! The kernel answers EINVAL to a missing bit and to a surplus one, and tells neither. RC: `qp_state_table`
//! of drivers/infiniband/core/verbs.c; DCT and DCI: `mlx5_ib_modify_dct` and `modify_dci_qp_is_ok` of
//! drivers/infiniband/hw/mlx5/qp.c. Ours is stricter in one place: a DCI's path (AV) is always given.

use std::fmt;

use rdma_mummy_sys::{ibv_qp_attr_mask as bit, ibv_qp_state};

/// What a QP is, as far as its transitions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QpKind {
    /// Reliable connection, InfiniBand or RoCE.
    Rc,
    /// Reliable connection over iWARP.
    IwarpRc,
    /// Dynamically connected target (mlx5).
    Dct,
    /// Dynamically connected initiator (mlx5).
    Dci,
}

impl fmt::Display for QpKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Rc => "an RC QP",
            Self::IwarpRc => "an iWARP QP",
            Self::Dct => "a DCT",
            Self::Dci => "a DCI",
        })
    }
}

/// A QP's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QpState {
    /// As created.
    Reset,
    /// Has a port and access rights.
    Init,
    /// Ready to receive: a responder.
    Rtr,
    /// Ready to send: a requester, too.
    Rts,
    /// Failed, or told to be: all that is posted is flushed.
    Err,
}

impl QpState {
    pub(super) fn raw(self) -> ibv_qp_state::Type {
        match self {
            Self::Reset => ibv_qp_state::IBV_QPS_RESET,
            Self::Init => ibv_qp_state::IBV_QPS_INIT,
            Self::Rtr => ibv_qp_state::IBV_QPS_RTR,
            Self::Rts => ibv_qp_state::IBV_QPS_RTS,
            Self::Err => ibv_qp_state::IBV_QPS_ERR,
        }
    }

    /// SQD and SQE, of which nothing is asked here, count as failed: only a reset leads out of them.
    pub(super) fn from_raw(state: ibv_qp_state::Type) -> Self {
        match state {
            ibv_qp_state::IBV_QPS_RESET => Self::Reset,
            ibv_qp_state::IBV_QPS_INIT => Self::Init,
            ibv_qp_state::IBV_QPS_RTR => Self::Rtr,
            ibv_qp_state::IBV_QPS_RTS => Self::Rts,
            _ => Self::Err,
        }
    }
}

impl fmt::Display for QpState {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Reset => "RESET",
            Self::Init => "INIT",
            Self::Rtr => "RTR",
            Self::Rts => "RTS",
            Self::Err => "ERR",
        })
    }
}

/// A set of attribute bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttrMask(pub u32);

impl AttrMask {
    pub(super) const STATE: Self = Self(bit::IBV_QP_STATE.0);
    pub(super) const ACCESS_FLAGS: Self = Self(bit::IBV_QP_ACCESS_FLAGS.0);
    pub(super) const PKEY_INDEX: Self = Self(bit::IBV_QP_PKEY_INDEX.0);
    pub(super) const PORT: Self = Self(bit::IBV_QP_PORT.0);
    pub(super) const AV: Self = Self(bit::IBV_QP_AV.0);
    pub(super) const PATH_MTU: Self = Self(bit::IBV_QP_PATH_MTU.0);
    pub(super) const TIMEOUT: Self = Self(bit::IBV_QP_TIMEOUT.0);
    pub(super) const RETRY_CNT: Self = Self(bit::IBV_QP_RETRY_CNT.0);
    pub(super) const RNR_RETRY: Self = Self(bit::IBV_QP_RNR_RETRY.0);
    pub(super) const RQ_PSN: Self = Self(bit::IBV_QP_RQ_PSN.0);
    pub(super) const MAX_QP_RD_ATOMIC: Self = Self(bit::IBV_QP_MAX_QP_RD_ATOMIC.0);
    pub(super) const MIN_RNR_TIMER: Self = Self(bit::IBV_QP_MIN_RNR_TIMER.0);
    pub(super) const SQ_PSN: Self = Self(bit::IBV_QP_SQ_PSN.0);
    pub(super) const MAX_DEST_RD_ATOMIC: Self = Self(bit::IBV_QP_MAX_DEST_RD_ATOMIC.0);
    pub(super) const DEST_QPN: Self = Self(bit::IBV_QP_DEST_QPN.0);

    const NAMES: [(Self, &'static str); 15] = [
        (Self::STATE, "STATE"),
        (Self::ACCESS_FLAGS, "ACCESS_FLAGS"),
        (Self::PKEY_INDEX, "PKEY_INDEX"),
        (Self::PORT, "PORT"),
        (Self::AV, "AV"),
        (Self::PATH_MTU, "PATH_MTU"),
        (Self::TIMEOUT, "TIMEOUT"),
        (Self::RETRY_CNT, "RETRY_CNT"),
        (Self::RNR_RETRY, "RNR_RETRY"),
        (Self::RQ_PSN, "RQ_PSN"),
        (Self::MAX_QP_RD_ATOMIC, "MAX_QP_RD_ATOMIC"),
        (Self::MIN_RNR_TIMER, "MIN_RNR_TIMER"),
        (Self::SQ_PSN, "SQ_PSN"),
        (Self::MAX_DEST_RD_ATOMIC, "MAX_DEST_RD_ATOMIC"),
        (Self::DEST_QPN, "DEST_QPN"),
    ];

    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for AttrMask {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Self::NAMES.iter().filter(|(mask, _)| self.has(*mask));
        let mut rest = *self;
        for (at, (mask, name)) in known.enumerate() {
            rest = rest.without(*mask);
            write!(out, "{}{name}", if at == 0 { "" } else { "|" })?;
        }
        if !rest.is_empty() {
            let named = rest != *self;
            write!(out, "{}{:#x}", if named { "|" } else { "" }, rest.0)?;
        }
        Ok(())
    }
}

/// A state change that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransitionError {
    /// What the QP is.
    pub kind: QpKind,
    /// Its state.
    pub from: QpState,
    /// What was asked for.
    pub to: QpState,
    /// What is wrong.
    pub fault: TransitionFault,
}

/// What is wrong with a state change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransitionFault {
    /// A QP of this kind never goes there from here.
    NoSuchWay,
    /// Attributes that are needed and were not given.
    Missing(AttrMask),
    /// Attributes that were given and must not be.
    Surplus(AttrMask),
}

impl fmt::Display for TransitionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "modify_qp {}->{} of {}: ", self.from, self.to, self.kind)?;
        match self.fault {
            TransitionFault::NoSuchWay => out.write_str("there is no such transition"),
            TransitionFault::Missing(mask) => write!(out, "missing {mask}"),
            TransitionFault::Surplus(mask) => write!(out, "surplus {mask}"),
        }
    }
}

impl std::error::Error for TransitionError {}

const fn all(masks: &[AttrMask]) -> AttrMask {
    let mut union = AttrMask::STATE;
    let mut at = 0;
    while at < masks.len() {
        union = union.with(masks[at]);
        at += 1;
    }
    union
}

/// What a change needs, and what it may have beside.
fn rule(kind: QpKind, from: QpState, to: QpState) -> Option<(AttrMask, AttrMask)> {
    use AttrMask as M;
    use QpKind::{Dci, Dct, IwarpRc, Rc};
    use QpState::{Err, Init, Reset, Rtr, Rts};
    const NONE: AttrMask = AttrMask(0);
    Some(match (kind, from, to) {
        (Dct, Reset, Init) => (all(&[M::PKEY_INDEX, M::PORT, M::ACCESS_FLAGS]), NONE),
        (Dct, Init, Rtr) => (all(&[M::MIN_RNR_TIMER, M::AV, M::PATH_MTU]), NONE),
        (Dct, ..) => return None,

        (_, Reset, Err) => return None,
        (_, _, Reset | Err) => (M::STATE, NONE),

        (Rc, Reset, Init) => (all(&[M::PKEY_INDEX, M::PORT, M::ACCESS_FLAGS]), NONE),
        (Rc, Init, Init) => (M::STATE, all(&[M::PKEY_INDEX, M::PORT, M::ACCESS_FLAGS])),
        (Rc, Init, Rtr) => (
            all(&[
                M::AV,
                M::PATH_MTU,
                M::DEST_QPN,
                M::RQ_PSN,
                M::MAX_DEST_RD_ATOMIC,
                M::MIN_RNR_TIMER,
            ]),
            M::ACCESS_FLAGS.with(M::PKEY_INDEX),
        ),
        (Rc, Rtr, Rts) => (
            all(&[M::TIMEOUT, M::RETRY_CNT, M::RNR_RETRY, M::SQ_PSN, M::MAX_QP_RD_ATOMIC]),
            M::ACCESS_FLAGS.with(M::MIN_RNR_TIMER),
        ),

        (Dci, Reset, Init) => (all(&[M::PKEY_INDEX, M::PORT]), NONE),
        (Dci, Init, Rtr) => (all(&[M::PATH_MTU, M::AV]), M::PKEY_INDEX),
        (Dci, Rtr, Rts) => (
            all(&[M::TIMEOUT, M::RETRY_CNT, M::RNR_RETRY, M::SQ_PSN, M::MAX_QP_RD_ATOMIC]),
            M::MIN_RNR_TIMER,
        ),

        // The connection manager names the port, which the device knows anyway.
        (IwarpRc, Reset, Init) => (M::STATE, M::ACCESS_FLAGS.with(M::PORT)),
        (IwarpRc, Init, Init | Rtr) | (IwarpRc, Rtr, Rts) => (M::STATE, M::ACCESS_FLAGS),
        _ => return None,
    })
}

/// Whether a QP of this kind may go so with these attributes.
pub(super) fn allow(
    kind: QpKind,
    from: QpState,
    to: QpState,
    given: AttrMask,
) -> Result<(), TransitionError> {
    let refuse = |fault| Err(TransitionError { kind, from, to, fault });
    let Some((needed, optional)) = rule(kind, from, to) else {
        return refuse(TransitionFault::NoSuchWay);
    };
    let missing = needed.without(given);
    if !missing.is_empty() {
        return refuse(TransitionFault::Missing(missing));
    }
    let surplus = given.without(needed.with(optional));
    if !surplus.is_empty() {
        return refuse(TransitionFault::Surplus(surplus));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::QpKind::{Dci, Dct, IwarpRc, Rc};
    use super::QpState::{Err, Init, Reset, Rtr, Rts};
    use super::*;

    const KINDS: [QpKind; 4] = [Rc, IwarpRc, Dct, Dci];
    const STATES: [QpState; 5] = [Reset, Init, Rtr, Rts, Err];

    #[test]
    fn a_missing_bit_is_named() {
        let given = AttrMask::STATE.with(AttrMask::PATH_MTU);
        let error = allow(Dci, Init, Rtr, given).unwrap_err();
        assert_eq!(error.to_string(), "modify_qp INIT->RTR of a DCI: missing AV");
        let error = allow(Rc, Rtr, Rts, AttrMask::STATE.with(AttrMask::TIMEOUT)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "modify_qp RTR->RTS of an RC QP: missing RETRY_CNT|RNR_RETRY|MAX_QP_RD_ATOMIC|SQ_PSN"
        );
    }

    #[test]
    fn a_surplus_bit_is_named_known_or_not() {
        let exact = all(&[AttrMask::PKEY_INDEX, AttrMask::PORT]);
        let given = exact.with(AttrMask::ACCESS_FLAGS).with(AttrMask(1 << 25));
        let error = allow(Dci, Reset, Init, given).unwrap_err();
        assert_eq!(
            error.to_string(),
            "modify_qp RESET->INIT of a DCI: surplus ACCESS_FLAGS|0x2000000"
        );
    }

    #[test]
    fn a_dct_goes_to_rtr_and_nowhere_else() {
        for from in STATES {
            for to in STATES {
                let way = rule(Dct, from, to).is_some();
                assert_eq!(way, matches!((from, to), (Reset, Init) | (Init, Rtr)), "{from}->{to}");
            }
        }
        let error = allow(Dct, Rtr, Rts, AttrMask::STATE).unwrap_err();
        assert_eq!(error.to_string(), "modify_qp RTR->RTS of a DCT: there is no such transition");
    }

    #[test]
    fn an_iwarp_qp_takes_what_the_connection_manager_gives_and_no_path() {
        let given = all(&[AttrMask::ACCESS_FLAGS, AttrMask::PORT]);
        assert_eq!(allow(IwarpRc, Reset, Init, given), Ok(()));
        let error = allow(IwarpRc, Reset, Init, given.with(AttrMask::PKEY_INDEX)).unwrap_err();
        let text = "modify_qp RESET->INIT of an iWARP QP: surplus PKEY_INDEX";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn every_rule_takes_exactly_what_it_needs_and_misses_each_bit_by_name() {
        for kind in KINDS {
            for (from, to) in STATES.into_iter().flat_map(|from| STATES.map(|to| (from, to))) {
                let Some((needed, optional)) = rule(kind, from, to) else { continue };
                assert_eq!(allow(kind, from, to, needed), Ok(()));
                assert_eq!(allow(kind, from, to, needed.with(optional)), Ok(()));
                for (mask, name) in
                    AttrMask::NAMES.into_iter().filter(|(mask, _)| needed.has(*mask))
                {
                    let error = allow(kind, from, to, needed.without(mask)).unwrap_err();
                    assert!(error.to_string().ends_with(&format!("missing {name}")), "{error}");
                }
            }
        }
    }

    #[test]
    fn all_but_a_dct_can_be_reset_and_failed() {
        for kind in [Rc, IwarpRc, Dci] {
            for from in STATES {
                assert_eq!(allow(kind, from, Reset, AttrMask::STATE), Ok(()));
                assert_eq!(allow(kind, from, Err, AttrMask::STATE).is_ok(), from != Reset);
            }
        }
    }
}
