//! Small C programs, each of which sets up one state, is forked to the other host and checks itself there.
//!
//! `cargo test -p mitosis-agent --test process_suite [-- WORD...]` runs those whose name holds one of the
//! words, or all: each plainly, in fork mode and in whole-process mode, between two hosts that they share.
//! What is expected of each stands in `docs/what-crosses.md`, state by state, and nowhere else: a program that
//! is not in that table, a name in it that is no test, and an outcome that it does not tell are failures.
//!
//! What this machine cannot have (AMX, protection keys, calls of newer kernels) is `absent` in the
//! results, and no failure where `machine.rs` has it in its list. Huge pages are lent to the machine for the run.
//!
//! Needs root, /dev/fuse, a C and a C++ compiler, and fails without them.
#![allow(missing_docs)]

mod compile;
mod machine;
mod outcome;
#[allow(dead_code, reason = "shared with two_hosts, which uses all of it")]
#[path = "../two_hosts/process.rs"]
mod process;
mod run;
mod table;
#[allow(dead_code, reason = "shared with two_hosts, which uses all of it")]
#[path = "../two_hosts/world.rs"]
mod world;

use std::process::ExitCode;

use machine::Machine;
use outcome::{Outcome, Way};
use run::{Kernels, Suite};
use table::{Row, Table};

/// Programs that call the vDSO, look at it, or have a child of their own that does: they run between hosts that take each
/// other's kernel for another one, too.
const CALLING_THE_KERNELS_CODE: [&str; 6] = [
    "clocks/",
    "children/generations",
    "libc/arc4random",
    "proc/auxv",
    "proc/maps",
    "libc/dlopen_later",
];

fn main() -> ExitCode {
    // What cargo hands on to test targets that know options; none of them changes what is run here.
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let table = Table::read();
    let mut failures = table.differences(&compile::names());
    let rows: Vec<&Row> = table.rows.iter().filter(|row| row.program().is_some()).collect();
    let is_asked_for = |row: &&Row| {
        let name = row.program().unwrap_or_default();
        words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
    };
    let rows: Vec<&Row> = rows.into_iter().filter(is_asked_for).collect();
    if rows.is_empty() {
        failures.push(format!("no program has {} in its name", words.join(" or ")));
    }
    if !rows.is_empty() && failures.is_empty() {
        let machine = Machine::lent();
        failures.extend(run(&rows, Kernels::Equal, &machine));
        let calls_it = |row: &&Row| {
            let name = row.program().unwrap_or_default();
            CALLING_THE_KERNELS_CODE.iter().any(|word| name.starts_with(word))
        };
        let rows: Vec<&Row> = rows.iter().copied().filter(calls_it).collect();
        if !rows.is_empty() {
            println!("between hosts of different kernels:");
            failures.extend(run(&rows, Kernels::Other, &machine));
        }
    }
    for failure in &failures {
        println!("FAILED {failure}");
    }
    println!("process suite: {} programs, {} failures", rows.len(), failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs them, and gives what is not as the document tells.
fn run(rows: &[&Row], kernels: Kernels, machine: &Machine) -> Vec<String> {
    let names: Vec<&str> = rows.iter().filter_map(|row| row.program()).collect();
    let suite = Suite::start(compile::compile(&names), kernels);
    let outcomes = suite.run_all(&names);
    let failures = judge(rows, &outcomes, machine);
    suite.finish();
    failures
}

/// Prints the table of results, and gives what is not as the document tells.
fn judge(rows: &[&Row], outcomes: &[[Outcome; 3]], machine: &Machine) -> Vec<String> {
    let mut failures = Vec::new();
    println!(
        "{:<24} {:<56} {:<10} {:<10} {:<10} seconds",
        "program", "state", "plain", "fork", "whole"
    );
    for (row, outcomes) in rows.iter().zip(outcomes) {
        let name = row.program().unwrap_or_default();
        let state: String = row.state.chars().take(56).collect();
        let [plain, fork, whole] = outcomes.each_ref().map(Outcome::word);
        let took: f64 = outcomes.iter().map(|outcome| outcome.took.as_secs_f64()).sum();
        println!("{name:<24} {state:<56} {plain:<10} {fork:<10} {whole:<10} {took:.2}");
        let is_absent = outcomes.iter().any(|outcome| outcome.word() == "absent");
        if is_absent && !machine.may_lack(name) {
            failures.push(format!("{name}: {} is no machine's to lack", outcomes[0]));
        }
        for (way, outcome) in Way::ALL.into_iter().zip(outcomes) {
            let expected = row.expected(way);
            if let Err(why) = expected.judge(&row.state, outcome) {
                failures.push(format!("{name}, {}: {why}", way.word()));
            }
        }
    }
    failures
}
