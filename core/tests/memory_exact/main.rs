//! A child's memory is exact: what the stub does is compared, call by call and byte by byte, with what the
//! kernel does for a process that was never forked.
//!
//! Two processes make the same random calls through the same libc; one has its memory from an image, and the
//! call sites of its libc patched. `MITOSIS_MEMORY_SEED=N` plays that seed alone;
//! `MITOSIS_MEMORY_RUNS=N` plays more of them.
//!
//! No test harness: forks of a process with one thread may go on, and its stack is one that grows.
#![allow(
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod duel;
mod op;
mod player;
mod stand_in;

use std::time::Instant;

use duel::Tally;

const RUNS: u64 = 100;
const OPS: u64 = 80;

/// Gives malloc room enough, so that it never moves the break while players do.
fn settle_the_heap() {
    const ROOM: libc::c_int = 32 << 20;
    // SAFETY: settings of malloc.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX);
        libc::mallopt(libc::M_TOP_PAD, ROOM);
    }
    // More than lies free at the heap's end, so that it is extended now.
    let larger: Vec<Vec<u8>> = (0..8).map(|_| Vec::with_capacity(64 << 10)).collect();
    drop(std::hint::black_box(larger));
}

fn main() {
    settle_the_heap();
    let begun = Instant::now();
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("MITOSIS_MEMORY_SEED");
    let seeds = match seed {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("MITOSIS_MEMORY_RUNS").unwrap_or(RUNS),
    };
    let mut sum = Tally::default();
    let mut failures = 0;
    for run in seeds {
        let text = run % 2 == 0;
        match duel::random(run, OPS, text, false) {
            Ok(tally) => sum.add(tally),
            Err(difference) => {
                println!("MITOSIS_MEMORY_SEED={run}: {difference}");
                // Looking touches memory, so that this may not fail; if it does, it tells more.
                if let Err(closer) = duel::random(run, OPS, text, true) {
                    println!("looking after every op: {closer}");
                }
                failures += 1;
            }
        }
    }
    println!("{sum:?} in {:?}, {failures} failures", begun.elapsed());
    assert_eq!(failures, 0);
}
