//! Cards, links and owners that fail while pages are READ: who is told, and who goes on.

use std::time::{Duration, Instant};

use mitosis_guests::Job;

use crate::world::{ARRAY_PAGES, HOST_A, HOST_B, PATIENCE, Seed, World, shared};

/// How long the link stays down: less than a page may take, with what tcp waits before it tries again.
const OUTAGE_US: u32 = 600_000;

/// A child on host-b in the middle of reading the whole array in order, of which 64 pages are read; it ends
/// with 7.
fn sweep(world: &World, seed: &Seed) -> Job {
    let commands = "read 0 64;read 64 256;read 0 all;exit 7";
    let argv = ["mitosis", "resume", &seed.handle, "--on", "host-b", "--payload", commands];
    let mut caller = world.guests.node(HOST_A).run(&argv).unwrap();
    for line in ["read 64 pages", "read 256 pages"] {
        assert_eq!(caller.line(PATIENCE).unwrap(), line);
    }
    caller
}

fn ends_whole(caller: Job) {
    let ended = caller.end(PATIENCE).unwrap();
    assert_eq!((ended.status, ended.err.as_str()), (7, ""), "{ended:?}");
    assert!(ended.out.ends_with(&format!("read {ARRAY_PAGES} pages\n")), "{ended:?}");
}

fn seed_id(seed: &Seed) -> &str {
    let behind = seed.handle.rsplit_once('/').expect("a handle").1;
    behind.split_once('#').expect("a key").0
}

/// `drop --revoke` while children of two seeds READ: the owner's card refuses those of the one, its child
/// loses its next page at once and is told so; the other's child reads on, to the end.
#[test]
fn a_seed_is_revoked_while_it_is_read() {
    let mut world = shared("rc");
    world.await_the_card();
    let (revoked, other) = (world.seed(), world.seed());
    let going_on = sweep(&world, &other);
    let reader = world.reader(&revoked, HOST_A);
    let begun = Instant::now();
    world.run(HOST_A, &["mitosis", "drop", "--revoke", seed_id(&revoked)]).ok().unwrap();
    let pid = reader.pid.clone();
    reader.ends_lost(Duration::ZERO, &["page lost: seed", seed_id(&revoked), "host-a"]);
    println!("lost {:?} after the drop was asked for", begun.elapsed());
    ends_whole(going_on);
    world.assert_gone(&pid);
    world.await_log(HOST_B, &["the owner's card refuses READs", seed_id(&revoked)]);
}

/// The port of the seed's machine is down for a while: nothing is lost, and its card is READ again afterwards.
/// (Not the child's: when that had been down among READs, connections from there were answered no more on this
/// kernel, not those of a fresh process either, until the device was made anew.)
#[test]
fn a_port_goes_down_among_reads_and_comes_back() {
    let mut world = shared("rc");
    world.await_the_card();
    let held = world.held_at_rest();
    let seed = world.seed();
    let failed = world.count(HOST_B, "reads_failed");
    let reading = sweep(&world, &seed);
    let outage = format!("ip link set eth0 down; usleep {OUTAGE_US}; ip link set eth0 up");
    world.run_script(HOST_A, &outage).ok().unwrap();
    ends_whole(reading);
    assert!(world.count(HOST_B, "reads_failed") > failed, "no READ was under way");
    world.await_log(HOST_A, &["rxe0: port 1 is down"]);
    world.await_log(HOST_A, &["rxe0: port 1 is ACTIVE again"]);
    // The first pages come over tcp, until there is a connection.
    world.await_the_card();
    world.drop_seeds();
    world.hold_no_more(&held);
}

/// The device of the child's machine goes: pages come over tcp, nothing is lost, and the agent says so. The
/// kernel's own part of the device stays until the agent ends: Soft-RoCE cannot take it from a process.
#[test]
fn a_device_vanishes_among_reads() {
    let mut world = shared("rc");
    world.await_the_card();
    let seed = world.seed();
    let reading = sweep(&world, &seed);
    let delete = world.guests.node(HOST_B).run(&["rdma", "link", "delete", "rxe0"]).unwrap();
    world.await_log(HOST_B, &["rxe0 is gone: pages are read over tcp"]);
    ends_whole(reading);
    assert_eq!(world.read_small(), 0);
    world.stop_agent(HOST_B);
    let deleted = delete.end(PATIENCE).unwrap();
    assert_eq!(deleted.status, 0, "{deleted:?}");
    // An agent that finds no device falls back, and says so; with the device there is the card again.
    world.start_agent(HOST_B);
    world.await_log(HOST_B, &["fabric tcp: MITOSIS_FABRIC=rc, but "]);
    assert_eq!(world.count(HOST_B, "fabric_fallbacks"), 1);
    assert_eq!(world.read_small(), 0);
    world.stop_agent(HOST_B);
    world.run_script(HOST_B, "rdma link add rxe0 type rxe netdev eth0").ok().unwrap();
    world.start_agent(HOST_B);
    world.await_the_card();
}
