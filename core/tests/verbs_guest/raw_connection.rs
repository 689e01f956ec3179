//! An RC connection that no manager makes: each side tells its QP's number and GID and takes its own QP
//! through all states.

use mitosis::verbs::{Change, Gid, LinkLayer, Mtu, Path, Patience, QpState, RcQp};

/// READs at a time.
const DEPTH: u8 = 16;
const PSN: u32 = 0x1234;

/// The GID of the network interface's address: RoCE v2, not link-local.
pub fn own_gid(context: &mitosis::verbs::Context) -> (u8, Gid) {
    let gids = context.gids(1).expect("a GID table");
    let entry = gids
        .iter()
        .find(|entry| entry.kind == mitosis::verbs::GidKind::RoceV2 && !entry.gid.is_link_local())
        .unwrap_or_else(|| panic!("no RoCE v2 GID in {gids:?}"));
    (u8::try_from(entry.index).expect("a small table"), entry.gid)
}

/// From RESET to RTS.
pub fn connect(qp: &mut RcQp, gid_index: u8, peer: (u32, Gid), patience: Patience) {
    let path = Path::from(1, LinkLayer::Ethernet, gid_index).to(peer.1, 0);
    qp.modify(&Change::to(QpState::Init).port(1).remote_reads(true)).expect("INIT");
    let ready = Change::to(QpState::Rtr)
        .path(&path, Mtu::B1024)
        .peer(peer.0, PSN)
        .reads_answered(DEPTH)
        .rnr_timer();
    qp.modify(&ready).expect("RTR");
    qp.modify(&Change::to(QpState::Rts).requester(PSN, DEPTH, patience)).expect("RTS");
    assert_eq!(qp.query_state().expect("a state"), QpState::Rts);
}

/// As two numbers.
pub fn gid_words(gid: Gid) -> (u64, u64) {
    let number = u128::from_be_bytes(gid.0);
    let half = |number: u128| u64::try_from(number & u128::from(u64::MAX)).expect("64 bits");
    (half(number >> 64), half(number))
}

/// Back from [`gid_words`].
pub fn gid_of(high: u64, low: u64) -> Gid {
    Gid((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}
