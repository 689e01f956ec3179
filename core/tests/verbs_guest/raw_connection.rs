//! An RC connection that no manager makes: each side tells its QP's number and GID and takes its own QP
//! through all states.

use mitosis::verbs::{Change, Gid, Mtu, Patience, QpState, RcQp};

use crate::Bench;

/// READs at a time.
const DEPTH: u8 = 16;
const PSN: u32 = 0x1234;

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub number: u32,
    pub gid: Gid,
    /// 0 where the port is no InfiniBand.
    pub lid: u16,
}

impl End {
    /// This side's.
    pub fn own(bench: &Bench, qp: &RcQp) -> Self {
        Self { number: qp.number(), gid: bench.gid().1, lid: bench.port.lid }
    }

    /// Back from [`Self::words`].
    pub fn from_words(words: &[u64]) -> Self {
        let number = u32::try_from(words[0]).expect("a QP number");
        let lid = u16::try_from(words[3]).expect("a LID");
        Self { number, gid: gid_of(words[1], words[2]), lid }
    }

    /// As a line's numbers.
    pub fn words(&self) -> String {
        let (high, low) = gid_words(self.gid);
        format!("{} {high} {low} {}", self.number, self.lid)
    }
}

/// From RESET to RTS.
pub fn connect(bench: &Bench, qp: &mut RcQp, peer: End, patience: Patience) {
    let path = bench.path().to(peer.gid, peer.lid);
    let init = Change::to(QpState::Init).port(bench.port.port).remote_reads(true);
    qp.modify(&init).expect("INIT");
    let ready = Change::to(QpState::Rtr)
        .path(&path, Mtu::B1024)
        .peer(peer.number, PSN)
        .reads_answered(DEPTH)
        .rnr_timer();
    qp.modify(&ready).expect("RTR");
    qp.modify(&Change::to(QpState::Rts).requester(PSN, DEPTH, patience)).expect("RTS");
    assert_eq!(qp.query_state().expect("a state"), QpState::Rts);
}

/// As two numbers.
fn gid_words(gid: Gid) -> (u64, u64) {
    let number = u128::from_be_bytes(gid.0);
    let half = |number: u128| u64::try_from(number & u128::from(u64::MAX)).expect("64 bits");
    (half(number >> 64), half(number))
}

/// Back from [`gid_words`].
fn gid_of(high: u64, low: u64) -> Gid {
    Gid((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}
