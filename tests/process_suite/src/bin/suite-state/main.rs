//! Changes all that the kernel keeps for a process and that few programs change, is forked, and looks in each child
//! what differs from what its parent saw.
//!
//! `suite-state fork|whole|plain`. Says `ok` with the number of states that were compared; what differs is said on
//! standard error, with exit status 3. `plain` forks nothing.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod pending;
mod seen;
mod tiles;

use std::collections::BTreeMap;

use mitosis::prepare::{PrepareOptions, Threads};
use mitosis_process_suite::{fail, prepare_and_hold_with, say};

use seen::State;

fn main() {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let threads = match &*mode {
        "fork" | "plain" => Threads::Caller,
        "whole" => Threads::All,
        _ => fail(&"fork, whole or plain"),
    };
    seen::change(threads == Threads::All);
    let pending = pending::send();
    // On the alternative stack that Rust gives it, with room for the kernel's frame and for next to nothing else.
    let tiles = (threads == Threads::All).then(|| tiles::Holder::start(|| {})).flatten();
    let before = seen::all();
    let heap = seen::heap_end();
    if mode != "plain" {
        // Frozen while all of it is as it was seen.
        drop(prepare_and_hold_with(&PrepareOptions { threads, ..PrepareOptions::default() }));
    }
    let mut wrong = differences(&before, &seen::all(), mode != "plain");
    wrong.extend(seen::heap_grows_from(heap));
    wrong.extend(pending.look(mode != "fork"));
    wrong.extend(tiles.and_then(tiles::Holder::look));
    if !wrong.is_empty() {
        fail(&wrong.join("\n"));
    }
    say(&format!("ok {} states", before.len()));
}

/// What differs, but for what is new in a child by intention.
fn differences(before: &State, now: &State, is_child: bool) -> Vec<String> {
    let mut wanted: BTreeMap<&str, String> =
        before.iter().map(|(name, value)| (*name, value.clone())).collect();
    if is_child {
        // A child ends with its host's agent.
        wanted.insert("parent-death signal", "9".to_owned());
    }
    let differs = |(name, value): (&&'static str, &String)| {
        let wanted = wanted.get(*name).map_or("nothing", String::as_str);
        (wanted != value).then(|| format!("{name} is {value}, not {wanted}"))
    };
    now.iter().filter_map(differs).collect()
}
