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

mod cases;
mod duel;
mod op;
mod player;
mod registers;
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
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("MITOSIS_MEMORY_SEED");
    if let Some(seed) = seed {
        return random_calls(seed..seed + 1);
    }
    println!("running {} tests", cases::ALL.len() + 1);
    let mut failed = 0;
    for (name, test) in cases::ALL {
        let done = std::panic::catch_unwind(test);
        println!("test {name} ... {}", if done.is_ok() { "ok" } else { "FAILED" });
        failed += u32::from(done.is_err());
    }
    random_calls(1..1 + number("MITOSIS_MEMORY_RUNS").unwrap_or(RUNS));
    assert_eq!(failed, 0, "tests failed");
    println!("test result: ok. {} passed", cases::ALL.len() + 1);
}

fn random_calls(seeds: std::ops::Range<u64>) {
    let begun = Instant::now();
    let mut sum = Tally::default();
    let mut failed = 0;
    for seed in seeds.clone() {
        let text = seed % 2 == 0;
        match duel::random(seed, OPS, text, false) {
            Ok(tally) => sum.add(tally),
            Err(difference) => {
                println!("MITOSIS_MEMORY_SEED={seed}: {difference}");
                // Looking touches memory, so that this may not fail; if it does, it tells more.
                if let Err(closer) = duel::random(seed, OPS, text, true) {
                    println!("looking after every op: {closer}");
                }
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 0, "of {} seeds a child differed from a plain process", seeds.count());
    if seeds.end - seeds.start > 1 {
        assert!(sum.cleared > 0 && sum.moved > 0, "the stub had nothing to do: {sum:?}");
        // A refusal of the plain kernel's own is not compared: few may be.
        assert!(sum.in_pieces * 20 < sum.ops, "too little was compared: {sum:?}");
    }
    println!("test random_calls ... ok ({sum:?} in {:?})", begun.elapsed());
}
