//! Forks this program onto a host (`fork_here [HOST]`; without one onto this machine, with an agent of
//! its own if none runs) and checks in the child that the memory is there.
#![deny(unsafe_code)]

use std::process::ExitCode;

use anyhow::ensure;
use mitosis::client::{Forked, fork};
use mitosis::wire::local::ChildEnd;

const NUMBERS: u64 = 4 << 20;
const CHILD_STATUS: u8 = 7;

fn main() -> anyhow::Result<ExitCode> {
    let host = std::env::args().nth(1);
    // What takes long to make once, and is simply there in the child: 32 MiB of squares.
    let squares: Vec<u64> = (0..NUMBERS).map(|i| i * i).collect();
    match fork(host.as_deref())? {
        Forked::Child(resumed) => {
            let right = (0..NUMBERS).zip(&squares).all(|(i, square)| i * i == *square);
            println!(
                "child:  pid {}, generation {}, squares {}",
                std::process::id(),
                resumed.generation,
                if right { "right" } else { "WRONG" }
            );
            Ok(ExitCode::from(if right { CHILD_STATUS } else { 1 }))
        }
        Forked::Parent(child) => {
            let end = child.wait();
            println!("parent: child {} on {}: {end:?}", child.pid(), child.host());
            ensure!(end == ChildEnd::Exited(CHILD_STATUS.into()), "the child ended as {end:?}");
            Ok(ExitCode::SUCCESS)
        }
    }
}
