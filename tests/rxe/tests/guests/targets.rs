//! What DC alone has: a target for each seed, and a few initiators for all of them.

use std::time::{Duration, Instant};

use crate::world::{ARRAY_PAGES, HOST_A, HOST_B, MISS_DEADLINE, PATIENCE, Seed, World, shared};

/// 1 MiB: a machine has many of them.
const SMALL_WORDS: usize = 1 << 17;
const SMALL_PAGES: usize = 256;
const SEEDS: usize = 6;

/// A seed's target is destroyed in the middle of READs; what this flushes of another seed's is posted again.
#[test]
fn a_target_that_is_destroyed_does_no_harm_to_others() {
    let world = shared("dc");
    let (first, second) = (world.seed(), world.seed());
    let doomed = world.reader(&first, HOST_B);
    let commands = "read 0 4;read 0 all;exit 7";
    let argv = ["mitosis", "resume", &second.handle, "--on", "host-b", "--payload", commands];
    let mut healthy = world.guests.node(HOST_A).run(&argv).unwrap();
    assert_eq!(healthy.line(PATIENCE).unwrap(), "read 4 pages");
    revoke(&world, &first);
    let ended = healthy.end(PATIENCE).unwrap();
    assert_eq!((ended.status, ended.err.as_str()), (7, ""), "{ended:?}");
    assert!(ended.out.ends_with(&format!("read {ARRAY_PAGES} pages\n")), "{ended:?}");
    doomed.ends_lost(MISS_DEADLINE, &["page lost: seed", "host-a"]);
    // And a third, by initiators that have failed before.
    let third = world.seed();
    let before = world.count(HOST_B, "pages_rdma");
    assert_eq!(read(&world, &third, "read 0 all;exit 7"), 7);
    let came = world.count(HOST_B, "pages_rdma").saturating_sub(before);
    assert!(came > ARRAY_PAGES / 2, "{came} of {ARRAY_PAGES} pages came by the card");
    println!(
        "{} initiators mended, {} READs flushed",
        world.count(HOST_B, "dc_mended"),
        world.count(HOST_B, "dc_flushed")
    );
}

/// Seeds cost no further initiators; each takes a target, which is replaced.
#[test]
fn many_seeds_are_read_by_the_same_initiators() {
    let world = shared("dc");
    let commands = format!("read 0 {SMALL_PAGES};exit 7");
    assert_eq!(read(&world, &world.seed_of(SMALL_WORDS), &commands), 7);
    let initiators = world.count(HOST_B, "dc_initiators");
    assert!((1..=16).contains(&initiators), "{initiators}");
    let seeds: Vec<Seed> = (0..SEEDS).map(|_| world.seed_of(SMALL_WORDS)).collect();
    let mut came = 0;
    for seed in &seeds {
        // Images that are gone count no longer.
        let before = world.count(HOST_B, "pages_rdma");
        assert_eq!(read(&world, seed, &commands), 7);
        came += world.count(HOST_B, "pages_rdma").saturating_sub(before);
    }
    assert!(came > SEEDS * SMALL_PAGES / 4, "{came} pages came by the card");
    assert_eq!(world.count(HOST_B, "dc_initiators"), initiators, "after {SEEDS} seeds");
    assert_eq!(world.count(HOST_B, "dc_peers"), 1);
    println!("{SEEDS} seeds, {initiators} initiators, {came} pages by the card");
    seeds.iter().for_each(|seed| revoke(&world, seed));
    let begun = Instant::now();
    while world.count(HOST_A, "dc_targets_ready") < 2 * SEEDS {
        assert!(begun.elapsed() < PATIENCE, "targets are not made");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// How a child on host-b ends that does this.
fn read(world: &World, seed: &Seed, commands: &str) -> i32 {
    let argv = ["mitosis", "resume", &seed.handle, "--on", "host-b", "--payload", commands];
    world.run(HOST_A, &argv).status
}

fn revoke(world: &World, seed: &Seed) {
    world.run(HOST_A, &["mitosis", "drop", "--revoke", &seed.handle]).ok().unwrap();
}
