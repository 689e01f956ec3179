//! Verbs on a device, between two machines: a program that both run, NODE 1 as the owner of memory and
//! NODE 2 as its reader. `PEER` is the other's address.
//!
//! Each case prints `ok NAME`; the last line is their number. A case that fails panics.
#![allow(missing_docs)]

mod owner;
mod raw_connection;
mod reader;
mod side_channel;

use std::net::IpAddr;
use std::sync::Arc;

use mitosis::verbs::{self, Context, Cq, Pd, PortState};

/// What the owner's memory is READ under: not where it lies there.
pub const IOVA: u64 = 0x7f12_3456_7000;
/// Bytes of the owner's memory.
pub const OWNED: usize = 2 << 20;
pub const PAGE: usize = 4096;

fn main() {
    let address = |name: &str| -> IpAddr {
        let text = std::env::var(name).unwrap_or_else(|_| panic!("{name} names no address"));
        text.parse().unwrap_or_else(|_| panic!("{name}={text} is no address"))
    };
    match std::env::var("NODE").as_deref() {
        Ok("1") => owner::run(address("SELF")),
        Ok("2") => reader::run(address("SELF"), address("PEER")),
        other => {
            panic!("NODE is {other:?}: this program runs in two guests, as tests/rxe starts it")
        }
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
}

impl Bench {
    /// On the first device whose port 1 is ACTIVE.
    pub fn open() -> Self {
        assert!(verbs::mapped_libraries().unwrap().is_empty(), "a library was opened unasked");
        let devices = verbs::devices().expect("a device list");
        let open = |device: &verbs::Device| {
            let context = device.open().expect("an open device");
            let port = context.port(1).expect("port 1");
            (port.state == PortState::Active).then_some(context)
        };
        let context = devices.iter().find_map(open).expect("an ACTIVE port");
        // The list may go before what was opened from it.
        drop(devices);
        let pd = Pd::new(&context).expect("a protection domain");
        let cq = Cq::new(&context, 256).expect("a completion queue");
        Self { context, pd, cq }
    }
}
