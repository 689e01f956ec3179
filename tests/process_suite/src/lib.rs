//! What the programs of the suite share: the bytes that they fill memory with, and how a program is
//! prepared and says where its seed is.
//!
//! | program | what is looked at |
//! |---|---|
//! | `suite-told` | a child does as its payload says: output, ends, pages, processes |
//! | `suite-memory` | a random mixture of mappings arrives as it was |
//! | `suite-calls` | random memory calls do in a child what they do in a process that was never forked |
//! | `suite-kinds` | the same of memory of every kind, of kinds of calls that few programs make |
//! | `suite-files` | open files of each kind are what they were |
//! | `suite-threads` | states of threads, of processes that are forked with all of them |
//! | `suite-state` | what the kernel keeps for a process: limits, priorities, permissions, pending signals |
//! | `suite-clock` | clocks, and what timers have left |
//! | `suite-pause` | how long a process stands still for that (`benches/starts.py`) |
//! | `suite-waits` | the same in C, by a program that knows nothing of Mitosis: 200 threads in every kind of wait |
//! | `suite-impostor` | no child: an agent that answers with broken bytes |
//! | `suite-fabric` | no child: owners of memory and readers, on hosts with an RDMA device |
//!
//! Small C programs, one a state, are in `programs`; `agent/tests/process_suite` compiles and runs them.
//!
//! Each runs alone, too (`plain` in place of a fork), so that a difference is the fork's and not the
//! program's.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use mitosis::client::Seed;
use mitosis::prepare::{PrepareOptions, Prepared, Resumed, prepare};

/// The page size that the suite is written for.
pub const PAGE: usize = 4096;

/// splitmix64: the suite's only source of chance.
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }
}

/// What word `index` of a filled array holds.
pub fn word(index: usize) -> u64 {
    Chance(index as u64).number()
}

/// FNV-1a over words: allocates nothing.
pub fn digest(bytes: &[u8]) -> u64 {
    let words =
        bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or([0; 8])));
    words.fold(0xcbf2_9ce4_8422_2325, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3))
}

/// Prepares this process; the parent prints `handle` and the seed's process id, waits for the end of its
/// standard input and ends.
pub fn prepare_and_hold() -> Resumed {
    prepare_and_hold_with(&PrepareOptions::default())
}

/// The same, prepared as told.
pub fn prepare_and_hold_with(options: &PrepareOptions) -> Resumed {
    match prepare(options) {
        Ok(Prepared::Child(resumed)) => resumed,
        Ok(Prepared::Parent(seed)) => hold(&seed),
        Err(error) => fail(&error),
    }
}

/// Prints `handle` and the seed's process id, waits for the end of standard input and ends.
pub fn hold(seed: &Seed) -> ! {
    match seed.handle() {
        Ok(handle) => say(&format!("{} {}", handle.reveal(), seed.pid())),
        Err(error) => fail(&error),
    }
    let mut line = String::new();
    while std::io::stdin().lock().read_line(&mut line).is_ok_and(|got| got > 0) {}
    std::process::exit(0)
}

/// Says why and ends.
pub fn fail(error: &dyn std::fmt::Display) -> ! {
    eprintln!("{error}");
    std::process::exit(3)
}

/// One line on standard output, at once.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(4)
    }
}

/// Says `waiting` and goes on once `path` is there.
pub fn wait_for_file(path: &str) {
    /// A test that has gone away.
    const LIMIT: Duration = Duration::from_secs(60);
    say("waiting");
    let begun = Instant::now();
    while !std::path::Path::new(path).exists() {
        if begun.elapsed() > LIMIT {
            fail(&format!("{path} did not come"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
