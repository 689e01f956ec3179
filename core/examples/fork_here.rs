//! Forks this process onto a host (this one if none is named) and lets the child speak.
use mitosis::client::{Forked, fork};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = std::env::args().nth(1);
    let data: Vec<u64> = (0..1_000_000).collect();
    match fork(host.as_deref())? {
        Forked::Child(resumed) => {
            println!("child {}: the sum is {}", std::process::id(), data.iter().sum::<u64>());
            println!("generation {}", resumed.generation);
            std::process::exit(7);
        }
        Forked::Parent(child) => {
            println!("parent {}: child {} on {}", std::process::id(), child.pid(), child.host());
            println!("it ended: {:?}", child.wait());
        }
    }
    Ok(())
}
