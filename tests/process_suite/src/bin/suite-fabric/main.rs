//! The `rc` fabric between hosts, without a process that is forked: an owner of memory with its page service,
//! arena and listener, and readers that go by card and by tcp as an agent's pager does.
//!
//! ```text
//! suite-fabric own MIB [ARENA_MIB]                         until it is killed
//! suite-fabric read OWNER,... UNTIL [WINDOW [QUEUES]]      until the file UNTIL is there
//! suite-fabric tell OWNER revoke
//! ```
//! An owner is named by its address; `SELF` is this host's own. Each byte that is read is compared with what
//! its owner has there; a wrong one is a panic.

mod control;
mod owner;
mod reader;

use std::net::IpAddr;
use std::sync::Arc;

use mitosis::verbs::{self, Context, PortState};

fn main() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false);
    log.with_env_filter(filter).init();
    // Whichever thread fails, the program has failed.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::exit(101);
    }));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let own: IpAddr = address(&std::env::var("SELF").expect("SELF, this host's address"));
    match arguments[..] {
        ["own", mib] => owner::run(own, mib.parse().expect("MiB"), None),
        ["own", mib, arena] => {
            owner::run(own, mib.parse().expect("MiB"), Some(arena.parse().expect("MiB")));
        }
        ["read", owners, until, ref more @ ..] => {
            let number = |at: usize, default: usize| {
                more.get(at).map_or(default, |text: &&str| text.parse().expect("a number"))
            };
            let owners: Vec<IpAddr> = owners.split(',').map(address).collect();
            reader::run(own, &owners, until.as_ref(), number(0, 4), number(1, 1));
        }
        ["tell", owner, what] => {
            println!("{}", control::ask(address(owner), what).expect("an answer"));
        }
        _ => panic!("own, read or tell, and not {arguments:?}; see the program's first lines"),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

/// The first device whose port is ACTIVE.
pub fn open_card() -> Arc<Context> {
    let devices = verbs::devices().expect("a device list");
    let active = devices.iter().find_map(|device| {
        let context = device.open().expect("an open device");
        let port = context.port(1).expect("port 1");
        (port.state == PortState::Active).then_some(context)
    });
    active.expect("an ACTIVE port")
}

/// READs of one connection at a time, as agents have them.
pub const OUTSTANDING: u8 = 16;

/// Word `index` of an owner's memory.
pub fn owned_word(owner: IpAddr, index: usize) -> u64 {
    let owner = match owner {
        IpAddr::V4(address) => usize::from(address.octets()[3]),
        IpAddr::V6(address) => usize::from(address.octets()[15]),
    };
    mitosis_process_suite::word(index + (owner << 40))
}
