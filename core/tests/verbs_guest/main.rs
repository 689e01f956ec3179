//! Verbs on a device: a program that finds out what a card does with READs that can and cannot be.
//!
//! | started as | does |
//! |---|---|
//! | `NODE=1` or `NODE=2`, `SELF`, `PEER` | two machines: 1 owns memory, 2 READs it (`tests/rxe`) |
//! | `verbs_guest here` | one host: both ends on the port that `MITOSIS_DEV` and its kin choose (`make test-hw`) |
//! | `verbs_guest here dc` | of these, what is of DC |
//!
//! Each case prints `ok NAME`; the last line is their number. A case that fails panics. Without a device
//! `here` prints why, and that all was skipped.
#![allow(missing_docs)]

mod dc_fabric_here;
mod dc_here;
mod fabric_here;
mod here;
mod owner;
mod raw_connection;
mod reader;
mod seeds;
mod side_channel;

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;

use mitosis::verbs::choice::{ChosenPort, Settings, choose};
use mitosis::verbs::{self, Context, Cq, Gid, Path, Pd, Surveyed};

/// What the owner's memory is READ under: not where it lies there.
pub const IOVA: u64 = 0x7f12_3456_7000;
/// Bytes of the owner's memory.
pub const OWNED: usize = 2 << 20;
pub const PAGE: usize = 4096;

fn main() -> ExitCode {
    let address = |name: &str| -> IpAddr {
        let text = std::env::var(name).unwrap_or_else(|_| panic!("{name} names no address"));
        text.parse().unwrap_or_else(|_| panic!("{name}={text} is no address"))
    };
    assert!(verbs::mapped_libraries().unwrap().is_empty(), "a library was opened unasked");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {}
        ["here"] => return here::run(true),
        ["here", "dc"] => return here::run(false),
        _ => panic!("{arguments:?}: 'here', 'here dc' or nothing"),
    }
    match std::env::var("NODE").as_deref() {
        Ok("1") => owner::run(address("SELF")),
        Ok("2") => {
            let passed = reader::run(address("SELF"), address("PEER"), reader::Place::TwoMachines);
            println!("{passed} passed");
        }
        other => {
            panic!("NODE is {other:?}: this program runs in two guests, as tests/rxe starts it")
        }
    }
    ExitCode::SUCCESS
}

/// Byte `at` of the owner's memory.
pub fn pattern(at: usize) -> u8 {
    u8::try_from((at / PAGE + at * 31) % 251).expect("below 251")
}

/// An open device with what every case needs.
#[derive(Debug)]
pub struct Bench {
    pub context: Arc<Context>,
    pub port: ChosenPort,
    pub pd: Arc<Pd>,
    pub cq: Arc<Cq>,
}

impl Bench {
    /// On the port that the settings choose.
    pub fn open() -> Self {
        let surveyed = verbs::survey().expect("a device list");
        let port = chosen(&surveyed).expect("a port");
        Self::on(&surveyed, port)
    }

    /// On this one.
    pub fn on(surveyed: &[Surveyed], port: ChosenPort) -> Self {
        let context = verbs::open_chosen(surveyed, &port).expect("an open device");
        let pd = Pd::new(&context).expect("a protection domain");
        let cq = Cq::new(&context, 256).expect("a completion queue");
        Self { context, port, pd, cq }
    }

    /// The port's GID: its place in the table, and itself.
    pub fn gid(&self) -> (u8, Gid) {
        let entry = self.port.gid.as_ref().expect("a GID: iWARP has no raw connections");
        (u8::try_from(entry.index).expect("a small table"), entry.gid)
    }

    /// From the port to nobody yet.
    pub fn path(&self) -> Path {
        Path::from(self.port.port, self.port.link, self.gid().0)
    }
}

/// What the settings choose; or why nothing.
pub fn chosen(surveyed: &[Surveyed]) -> Result<ChosenPort, String> {
    let settings = Settings::from_environment().map_err(|error| error.to_string())?;
    let facts: Vec<_> = surveyed.iter().map(|one| one.facts.clone()).collect();
    let not_asked = |_: &ChosenPort| Err("it is tried below".to_owned());
    let choice = choose(&settings, Ok(&facts), None, not_asked).map_err(|e| e.to_string())?;
    choice.port.ok_or(choice.reason)
}
