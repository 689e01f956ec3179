//! Memory of every kind, and random calls of every sort on it: a line for what each did, the result and a digest of
//! every byte. The lines of a child must be those of a process that was never forked.
//!
//! `suite-kinds SEED FILE` prepares, with `all` behind it with all threads; `plain` and `plain all` go on at once, with
//! what a fork does to memory by its own definition: locks are gone, memory marked to be wiped is wiped, and memory that
//! is kept from forks is not there (of a whole process it is). FILE is made, and is on the first host alone. Half way a child
//! is forked once more, to its own host, and its child goes on.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod calls;
mod others;
mod slots;

use mitosis::client::{ForkError, Forked, fork_by};
use mitosis::prepare::{PrepareOptions, Threads, prepare};
use mitosis::wire::local::ChildEnd;
use mitosis_process_suite::{Chance, fail, prepare_and_hold_with, say};
use slots::Slots;

const CALLS: usize = 240;
/// After so many calls every byte is looked at: looking touches, so it is not done after each.
const LOOK_EVERY: usize = 24;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == others::EXECUTED) {
        std::process::exit(others::IS_EXECUTED);
    }
    let [seed, file, rest @ ..] = arguments.as_slice() else { fail(&"SEED FILE [plain] [all]") };
    let seed: u64 = seed.parse().unwrap_or_else(|_| fail(&"SEED is a number"));
    let has = |word: &str| rest.iter().any(|known| known == word);
    let mut chance = Chance(seed);
    let mut slots = Slots::new(&mut chance, file);
    let (is_plain, is_whole) = (has("plain"), has("all"));
    let threads = if is_whole { Threads::All } else { Threads::Caller };
    if is_plain {
        slots.as_after_a_fork(is_whole);
    } else {
        prepare_and_hold_with(&PrepareOptions { threads, ..PrepareOptions::default() });
        slots.are_forked(is_whole);
    }
    for number in 0..CALLS {
        if number == CALLS / 2 && is_plain {
            slots.as_after_a_fork(is_whole);
        } else if number == CALLS / 2 {
            fork_again(threads);
            slots.are_forked(is_whole);
        }
        let (name, result) = calls::make(&mut slots, &mut chance);
        say(&format!("{number} {name} {result}"));
        if number % LOOK_EVERY == LOOK_EVERY - 1 {
            slots.each(|slot, bytes| say(&format!("{number} {:?} {bytes:x}", slot.kind)));
        }
    }
    slots.each(|slot, _| say(&format!("{:?} {}", slot.kind, slot.rights())));
    std::process::exit(0)
}

/// Returns in a child alone, which says the rest; this process ends as it does.
fn fork_again(threads: Threads) {
    let prepares = |options: &PrepareOptions| {
        prepare(&PrepareOptions { threads, ..options.clone() }).map_err(ForkError::from)
    };
    match fork_by(None, prepares) {
        Ok(Forked::Child(_)) => {}
        Ok(Forked::Parent(child)) => {
            let end = child.wait();
            if end != ChildEnd::Exited(0) {
                fail(&format!("the child's child: {end:?}"));
            }
            std::process::exit(0)
        }
        Err(error) => fail(&error),
    }
}
