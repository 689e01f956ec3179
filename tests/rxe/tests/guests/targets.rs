//! What DC alone has: a target for each seed, and a few initiators for all of them.

use std::time::{Duration, Instant};

use crate::world::{ARRAY_PAGES, HOST_A, HOST_B, MISS_DEADLINE, PATIENCE, Seed, World, shared};

/// 1 MiB: a machine has many of them.
const SMALL_WORDS: &str = "131072";
const SMALL_PAGES: usize = 256;
/// Seeds that are READ one after the other and beside each other.
const SEEDS: usize = 12;

/// The card refuses at once, the agent says why, and no page is zero.
#[test]
fn a_seed_is_revoked_while_its_child_reads() {
    let world = shared("dc");
    let seed = world.seed();
    let reader = world.reader(&seed, HOST_B);
    by_card(&world);
    revoke(&world, &seed);
    reader.ends_lost(MISS_DEADLINE, &["page lost: seed", "host-a"]);
    let refused = world.run(HOST_A, &["mitosis", "resume", &seed.handle, "--on", "host-b"]);
    assert_ne!(refused.status, 0, "{refused:?}");
}

/// A seed's target is destroyed in the middle of READs; what this flushes of another seed's is posted again.
#[test]
fn a_target_that_is_destroyed_does_no_harm_to_others() {
    let world = shared("dc");
    let (first, second) = (world.seed(), world.seed());
    let doomed = world.reader(&first, HOST_B);
    let argv = ["mitosis", "resume", &second.handle, "--on", "host-b", "--payload"];
    let commands = "read 0 4;read 0 all;exit 7";
    let mut healthy = world.guests.node(HOST_A).run(&[&argv[..], &[commands]].concat()).unwrap();
    assert_eq!(healthy.line(PATIENCE).unwrap(), "read 4 pages");
    revoke(&world, &first);
    let ended = healthy.end(PATIENCE).unwrap();
    assert_eq!((ended.status, ended.out.trim()), (7, &*format!("read {ARRAY_PAGES} pages")));
    doomed.ends_lost(MISS_DEADLINE, &["page lost: seed", "host-a"]);
    // And a third, by initiators that have failed before.
    let third = world.seed();
    let before = by_card(&world);
    let argv =
        ["mitosis", "resume", &third.handle, "--on", "host-b", "--payload", "read 0 all;exit 7"];
    assert_eq!(world.run(HOST_A, &argv).status, 7);
    assert!(by_card(&world) > before + ARRAY_PAGES / 2);
}

/// Seeds cost no further initiators; each takes a target, and gives it back.
#[test]
fn many_seeds_are_read_by_the_same_initiators() {
    let world = shared("dc");
    let read = |seed: &Seed| {
        let commands = format!("read 0 {SMALL_PAGES};exit 7");
        let argv = ["mitosis", "resume", &seed.handle, "--on", "host-b", "--payload", &commands];
        assert_eq!(world.run(HOST_A, &argv).status, 7);
    };
    read(&small(&world));
    let initiators = count(&world, HOST_B, "dc_initiators");
    assert!((1..=16).contains(&initiators), "{initiators}");
    let before = by_card(&world);
    let seeds: Vec<Seed> = (0..SEEDS).map(|_| small(&world)).collect();
    // In the arena by then: READs are the card's.
    std::thread::sleep(Duration::from_secs(1));
    seeds.iter().for_each(read);
    assert!(by_card(&world) > before + SEEDS * SMALL_PAGES / 2, "few pages came by the card");
    assert_eq!(count(&world, HOST_B, "dc_initiators"), initiators, "after {SEEDS} seeds");
    assert_eq!(count(&world, HOST_B, "dc_peers"), 1);
    seeds.iter().for_each(|seed| revoke(&world, seed));
    // Targets for as many more are made ahead.
    let begun = Instant::now();
    while count(&world, HOST_A, "dc_targets_ready") < 2 * SEEDS {
        assert!(begun.elapsed() < PATIENCE, "targets are not made");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn small(world: &World) -> Seed {
    let said = world.run(HOST_A, &["suite-told", SMALL_WORDS]).ok().unwrap();
    let handles = said.lines().filter_map(|line| line.split_once(' '));
    let handle = handles.map(|(handle, _)| handle).find(|text| text.starts_with("mitosis://"));
    Seed { handle: handle.expect("a handle").to_owned() }
}

fn revoke(world: &World, seed: &Seed) {
    world.run(HOST_A, &["mitosis", "drop", "--revoke", &seed.handle]).ok().unwrap();
}

/// Pages that the card has READ, of the images that host-b has.
fn by_card(world: &World) -> usize {
    count(world, HOST_B, "pages_rdma")
}

fn count(world: &World, node: u32, name: &str) -> usize {
    let json = world.run(node, &["mitosis", "stats", "--json"]).ok().unwrap();
    let number = json.split_once(&format!("\"{name}\":")).expect("a counter").1;
    let number = number.trim_start().split(|c: char| !c.is_ascii_digit()).next();
    number.unwrap().parse().unwrap()
}
