//! DC between two machines: a program that both run, NODE 1 as the owner of memory behind DCTs and NODE 2
//! as its reader by DCIs. `PEER` is the other's address.
//!
//! Made for tests/dc_provider, a software DC over Soft-RoCE that LD_LIBRARY_PATH finds; what a card does
//! alike passes on it, too. Each case prints `ok NAME`, the last line is their number; one that fails panics.
#![allow(missing_docs)]

mod initiator;
mod owner;
mod reader;
#[path = "../verbs_guest/side_channel.rs"]
mod side_channel;
mod streams;

use std::net::IpAddr;
use std::sync::Arc;

use mitosis::verbs::{self, Context, Cq, Gid, GidKind, LinkLayer, Mtu, Path, Pd, PortState};

/// What the owner's memory is READ under: not where it lies there.
pub const IOVA: u64 = 0x7f12_3456_7000;
/// Bytes of the owner's memory.
pub const OWNED: usize = 1 << 20;
pub const PAGE: usize = 4096;

fn main() {
    let address = |name: &str| -> IpAddr {
        let text = std::env::var(name).unwrap_or_else(|_| panic!("{name} names no address"));
        text.parse().unwrap_or_else(|_| panic!("{name}={text} is no address"))
    };
    let mut arguments = std::env::args().skip(1);
    match (std::env::var("NODE").as_deref(), arguments.next().as_deref()) {
        (Ok("1"), None) => owner::run(address("SELF")),
        (Ok("1"), Some("victim")) => owner::victim(),
        (Ok("2"), None) => reader::run(address("PEER")),
        (Ok("2"), Some("keys")) => reader::keys(address("PEER")),
        (Ok("2"), Some("streams")) => streams::run(address("PEER")),
        (Ok("2"), Some("second")) => reader::second(&arguments.collect::<Vec<_>>()),
        other => panic!("{other:?}: this program runs in two guests, as tests/rxe starts it"),
    }
}

/// Byte `at` of the owner's memory.
pub fn pattern(at: usize) -> u8 {
    u8::try_from((at / PAGE + at * 31) % 251).expect("below 251")
}

/// An open device with what every case needs.
#[derive(Debug)]
pub struct Bench {
    pub context: Arc<Context>,
    pub pd: Arc<Pd>,
    pub cq: Arc<Cq>,
    /// The way out of its port, to nobody yet.
    pub path: Path,
    pub gid: Gid,
}

/// The path MTU of all that is connected here.
pub const MTU: Mtu = Mtu::B1024;

impl Bench {
    /// On the first device that has DC.
    pub fn open() -> Self {
        let devices = verbs::devices().expect("a device list");
        let device = devices.iter().find(|device| verbs::is_mlx5(device)).expect("an mlx5 device");
        let context = device.open().expect("an open device");
        assert_eq!(context.port(1).expect("port 1").state, PortState::Active);
        let gids = context.gids(1).expect("GIDs");
        let entry = gids
            .iter()
            .find(|entry| entry.kind == GidKind::RoceV2 && !entry.gid.is_link_local())
            .expect("a RoCE v2 GID");
        let index = u8::try_from(entry.index).expect("a small table");
        let path = Path::from(1, LinkLayer::Ethernet, index);
        let pd = Pd::new(&context).expect("a protection domain");
        let cq = Cq::new(&context, 512).expect("a completion queue");
        Self { context, pd, cq, path, gid: entry.gid }
    }
}
