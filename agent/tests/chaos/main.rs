//! Two hosts under load, and parts of them killed, stopped and cut by chance: `make test-chaos SECONDS=300 SEED=7`.
//!
//! ```text
//!  while there is time:   an event by chance (children, a seed, a drop, a kill, a stop, a cut), a rest by chance
//!  all the while:         who has ended is looked at: right, or an error that docs/troubleshooting.md has
//!  then:                  all is made whole; who should live lives, all bytes are right, nothing is left
//! ```
//!
//! Each child compares every byte of its memory, but those that it has written itself, with what its parent wrote. The same seed chooses the same events; all are printed as
//! they happen.
#![allow(missing_docs)]

mod events;
mod judge;
#[allow(dead_code, reason = "shared with two_hosts, which uses all of it")]
#[path = "../two_hosts/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with two_hosts, which uses all of it")]
#[path = "../two_hosts/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use events::Chaos;

/// Where nothing is said.
const SECONDS: u64 = 20;

fn main() -> ExitCode {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("MITOSIS_TEST_CHAOS_SECONDS").unwrap_or(SECONDS);
    let by_time = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs());
    let seed = number("MITOSIS_TEST_CHAOS_SEED").unwrap_or_else(by_time);
    println!(
        "chaos: {seconds} s, seed {seed}; once more: make test-chaos SECONDS={seconds} SEED={seed}"
    );
    let run = catch_unwind(AssertUnwindSafe(|| {
        let mut chaos = Chaos::begin(seed);
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            chaos.happen();
        }
        chaos.end()
    }));
    let (said, failures) = match run {
        Ok((tally, failures)) => (tally, failures),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            ("broke off".to_owned(), vec![text])
        }
    };
    for failure in &failures {
        println!("FAILED {failure}");
    }
    println!("chaos: seed {seed}: {said}, {} failures", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
