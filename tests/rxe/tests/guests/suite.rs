//! The programs of tests/process_suite between two kernels, over tcp: half of them are forked from the one machine, half
//! from the other, at one time.
//!
//! Each is forked one way once, in fork mode or with all of its threads: both ways in both modes would take an emulator a
//! quarter of an hour. What is to come of it says docs/what-crosses.md, as between the sealed hosts.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use mitosis_guests::Job;

use crate::compile::{self, PLUGIN};
use crate::outcome::{Outcome, Way};
use crate::table::Table;
use crate::world::{HOST_A, HOST_B, SUITE_OF_TWO_KERNELS, World, shared};

/// What is the C library's own affair, and the same under any kernel.
const FAMILIES_LEFT_OUT: [&str; 1] = ["libc/"];
/// What these machines, or the older of their kernels, are no place for: programs and a family.
const LEFT_OUT: [&str; 16] = [
    // Linux 6.1 has not what the state is made of: MAP_DROPPABLE is of 6.11, mseal(2) of 6.10, PR_SET_MDWE of 6.3.
    "memory/droppable",
    "memory/sealed",
    "process/memory_deny_exec_own",
    // PR_SET_MEMORY_MERGE is of 6.4.
    "process/merges",
    // Its kernel does not tell which calls are dispatched: from Linux 6.4 on.
    "process/dispatch",
    // Nor which eventfd is a semaphore: docs/files.md.
    "files/eventfd",
    // An emulator is slow, and each has a clock of its own.
    CLOCKS,
    "files/timerfd",
    "signals/restarts",
    "threads/condition_later",
    "threads/hooks_registered",
    // A thread whose time is reserved does not come to stand within a second.
    "process/deadline_",
    // Both machines have all programs.
    "proc/exe_missing",
    "proc/image_names",
    // A write goes through there that a key forbids: why is not known. A division by zero does as well.
    "registers/protection_keys",
    "registers/trapping",
];
const CLOCKS: &str = "clocks/";
/// A program takes about a second of an emulator's.
const SUITE_PATIENCE: Duration = Duration::from_secs(900);

/// Copies the programs, and makes each a folder with a file, on both machines for both.
const LAY_OUT: &str = r#"
rm -rf /tmp/suite /tmp/suite-of-* && cp -r /host/files/suite /tmp/suite || exit 1
for node in 1 2; do
    while read -r name way; do
        folder=/tmp/suite-of-$node/$(echo "$name" | tr / -)
        mkdir -p "$folder" && echo "the file's text" >"$folder/kept" || exit 1
    done <"/host/files/suite-of-$node"
done
"#;

/// A line for each: exit status, name, and the last line that it said.
const RUN: &str = r#"
export LD_LIBRARY_PATH=/tmp/suite SUITE_PLUGIN=/tmp/suite/plugin.so
SUITE_HOST=host-b
[ "$NODE" = 2 ] && SUITE_HOST=host-a
export SUITE_HOST
while read -r name way; do
    export SUITE_WAY=$way SUITE_FOLDER=/tmp/suite-of-$NODE/$(echo "$name" | tr / -)
    said=$(timeout 30 "/tmp/suite/$name" </dev/null)
    status=$?
    echo "$status $name $(echo "$said" | tail -n 1)"
done <"/host/files/suite-of-$NODE"
"#;

pub(crate) fn programs_cross_both_ways() {
    let world = shared(SUITE_OF_TWO_KERNELS);
    let names = compile::names();
    let is_left_out = |name: &&str| FAMILIES_LEFT_OUT.iter().any(|family| name.starts_with(family));
    let names: Vec<&str> =
        names.iter().map(String::as_str).filter(|name| !is_left_out(name)).collect();
    let runs = runs(&names);
    let names: Vec<&str> = runs.iter().map(|run| run.0).collect();
    give(&world, &names);
    for node in [HOST_A, HOST_B] {
        let mut list = String::new();
        for (name, way, _) in runs.iter().filter(|run| run.2 == node) {
            writeln!(list, "{name} {}", way.word()).unwrap();
        }
        fs::write(world.guests.share().join(format!("files/suite-of-{node}")), list).unwrap();
    }
    for node in [HOST_A, HOST_B] {
        world.run_script(node, LAY_OUT).ok().unwrap();
    }
    let jobs = [HOST_A, HOST_B].map(|node| world.guests.node(node).script(RUN, "suite").unwrap());
    let mut outcomes: HashMap<String, Outcome> = HashMap::new();
    for ended in jobs.map(|job: Job| job.end(SUITE_PATIENCE).unwrap()) {
        outcomes.extend(ended.out.lines().filter_map(outcome));
    }
    for node in [HOST_A, HOST_B] {
        world.run_script(node, "rm -rf /tmp/suite /tmp/suite-of-*").ok().unwrap();
    }
    let failures = judge(&runs, &outcomes);
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), runs.len(), failures.join("\n"));
}

/// Copies them to where the machines see them.
fn give(world: &World, names: &[&str]) {
    let built = compile::compile(names);
    for name in names.iter().chain(&[PLUGIN, "libmitosis.so.0"]) {
        world.guests.give(&built.program(name), &format!("suite/{name}")).unwrap();
    }
}

/// Each program, how it is forked, and from where: a quarter of them in each mode each way. Where one goes its name decides
/// alone, so that a new one moves no other.
fn runs<'a>(names: &[&'a str]) -> Vec<(&'a str, Way, u32)> {
    let run = |name: &&'a str| {
        // FNV-1a.
        let hash = name
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let way = if hash & 2 == 0 { Way::Whole } else { Way::Fork };
        (*name, way, if hash & 1 == 0 { HOST_A } else { HOST_B })
    };
    let runs = names.iter().map(run);
    runs.filter(|(name, ..)| !LEFT_OUT.iter().any(|left_out| name.starts_with(left_out))).collect()
}

/// Of a line that [`RUN`] wrote.
fn outcome(line: &str) -> Option<(String, Outcome)> {
    let mut parts = line.splitn(3, ' ');
    let success = parts.next()? == "0";
    let name = parts.next()?.to_owned();
    let line = parts.next().unwrap_or("").to_owned();
    Some((name, Outcome { line, success, err: String::new(), took: Duration::ZERO }))
}

/// What is not as the document tells.
fn judge(runs: &[(&str, Way, u32)], outcomes: &HashMap<String, Outcome>) -> Vec<String> {
    let table = Table::read();
    let mut failures = Vec::new();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for (name, way, node) in runs {
        let row = table.rows.iter().find(|row| row.program() == Some(name)).expect("a row");
        let judged = match outcomes.get(*name) {
            Some(outcome) => {
                *counts.entry(outcome.word()).or_default() += 1;
                row.expected(*way).judge(&row.state, outcome)
            }
            None => Err("was not run".to_owned()),
        };
        if let Err(why) = judged {
            failures.push(format!("{name}, {}, from host {node}: {why}", way.word()));
        }
    }
    println!("{} programs between two kernels: {counts:?}", runs.len());
    failures
}
