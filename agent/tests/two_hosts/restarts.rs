//! An agent ends and another one follows: seeds go on, and children of them on other hosts.

use std::time::Duration;

use crate::losses::kill;
use crate::process::{Process, within};
use crate::world::{Plan, SOON, Seed, World, program};

/// What outlives an agent asks for its successor there.
const KEPT: &str = "/run/mitosis/agent.sock.kept";
const GO: &str = "/tmp/test-go";
/// Longer than a restart takes on a machine that is busy.
const PATIENT: [&str; 4] = ["--miss-deadline-ms", "60000", "--peer-deadline-ms", "20000"];
/// Hosts that held a seed have 10 s to say so again.
const RETURNED: Duration = Duration::from_secs(20);

fn world_with(more: &[&'static str]) -> World {
    World::with(Plan { agents: [&PATIENT[..], more].concat(), ..Plan::default() })
}

/// A child on host-b that has read some pages and waits to read all others; its caller is on host-b, too.
fn reader(world: &World, handle: &str) -> Process {
    let commands = format!("read 0 4;await {GO};read 0 all;exit 7");
    let mut caller = world.mitosis(&world.b, &["resume", handle, "--payload", &commands]);
    assert_eq!(caller.line(), "read 4 pages");
    assert_eq!(caller.line(), "waiting");
    caller
}

fn leases_given(world: &World) -> u64 {
    let stats: serde_json::Value =
        serde_json::from_str(&world.on_a(&["stats", "--json"]).ok()).unwrap();
    stats["leases_given"].as_u64().unwrap()
}

fn lives(world: &World, seed: &Seed) -> bool {
    world.a.process(seed.pid).is_some_and(|seen| seen.state != 'Z')
}

/// A new child on either host has every byte of the seed.
fn is_resumable(world: &World, seed: &Seed) {
    for machine in [&world.a, &world.b] {
        let arguments = ["resume", &seed.handle, "--payload", "read 0 all;exit 7"];
        let ended = world.mitosis(machine, &arguments).end();
        assert_eq!(ended.code, Some(7), "{ended:?}");
    }
}

/// Dropped, the seed ends, and of nothing anything is left.
fn is_cleaned_by_drop(world: &World, seed: &Seed) {
    world.on_a(&["drop", seed.id()]).ok();
    within(SOON, "the dropped seed ends", || !lives(world, seed));
    world.settled(&world.a);
    world.settled(&world.b);
}

#[test]
fn seeds_of_a_killed_agent_are_the_next_ones() {
    let mut world = world_with(&[]);
    let seed = world.seed();
    let caller = reader(&world, &seed.handle);
    for _ in 0..3 {
        world.a.kill_agent();
        assert!(lives(&world, &seed));
        world.start_agent(0);
        let listed = world.on_a(&["ls", "--json"]).ok();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let listed = &listed["seeds"][0];
        assert_eq!((&listed["seed"], &listed["pid"]), (&seed.id().into(), &seed.pid.into()));
        within(SOON, "host-b holds it again", || leases_given(&world) == 1);
        world.children(&seed.with_wrong_key(), "exit 0").end().refused(&["is wrong"]);
        is_resumable(&world, &seed);
    }
    world.signal(&world.b, GO);
    assert_eq!(caller.end().code, Some(7));
    is_cleaned_by_drop(&world, &seed);
    world.finish();
}

/// What it reads while its owner's agent is away it waits for, and has.
#[test]
fn a_child_that_misses_meanwhile_waits() {
    let mut world = world_with(&[]);
    let seed = world.seed();
    let mut caller = reader(&world, &seed.handle);
    world.a.kill_agent();
    world.signal(&world.b, GO);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!caller.has_ended(), "it waits");
    world.start_agent(0);
    let ended = caller.end();
    assert_eq!(ended.code, Some(7), "{ended:?}");
    is_cleaned_by_drop(&world, &seed);
    world.finish();
}

/// A seed that was dropped lives as long as the child that holds it, over a restart, too.
#[test]
fn a_dropped_seed_waits_for_who_holds_it() {
    let mut world = world_with(&[]);
    let seed = world.seed();
    let caller = reader(&world, &seed.handle);
    world.on_a(&["drop", seed.id()]).ok();
    world.a.kill_agent();
    world.start_agent(0);
    world.children(&seed.handle, "exit 0").end().refused(&["no seed"]);
    within(SOON, "host-b holds it again", || leases_given(&world) == 1);
    // Behind the time that holders have to return.
    std::thread::sleep(Duration::from_secs(11));
    assert!(lives(&world, &seed));
    world.signal(&world.b, GO);
    assert_eq!(caller.end().code, Some(7));
    within(SOON, "the seed ends with its last child", || !lives(&world, &seed));
    world.settled(&world.a);
    world.finish();
}

/// The host that held it is gone, too: it is not waited for without end.
#[test]
fn a_dropped_seed_does_not_wait_for_who_is_gone() {
    let mut world = world_with(&[]);
    let seed = world.seed();
    let caller = reader(&world, &seed.handle);
    world.on_a(&["drop", seed.id()]).ok();
    world.a.kill_agent();
    world.b.kill_agent();
    assert!(caller.end().err.contains("agent of this host has ended"));
    world.start_agent(0);
    assert!(lives(&world, &seed));
    within(RETURNED, "the seed ends", || !lives(&world, &seed));
    world.start_agent(1);
    world.settled(&world.a);
    world.finish();
}

#[test]
fn without_a_next_agent_nothing_is_left_behind_the_grace() {
    let mut world = world_with(&["--restart-grace-s", "2"]);
    let seed = world.seed();
    world.a.kill_agent();
    assert!(lives(&world, &seed));
    assert!(world.exists(&world.a, KEPT));
    within(SOON, "the seed ends", || !lives(&world, &seed));
    within(SOON, "nobody waits any more", || {
        world.a.processes().iter().all(|seen| seen.command.starts_with("hosts-"))
    });
    assert!(!world.exists(&world.a, KEPT));
    world.start_agent(0);
    assert!(!world.on_a(&["ls"]).ok().contains(seed.id()));
    world.finish();
}

/// SIGTERM is the end of all, at once; SIGUSR2 a restart.
#[test]
fn the_signal_says_whether_seeds_stay() {
    let mut world = world_with(&[]);
    let (seed, other) = (world.seed(), world.seed());
    let end = |world: &mut World, signal| {
        kill(world.a.agent_seen().unwrap().pid, signal);
        let ended = world.a.agent.take().unwrap().end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    };
    end(&mut world, "USR2");
    assert!(lives(&world, &seed) && lives(&world, &other));
    world.on_a(&["ls"]).refused(&["agent"]);
    world.start_agent(0);
    is_resumable(&world, &seed);
    is_resumable(&world, &other);
    end(&mut world, "TERM");
    within(SOON, "all end with the agent", || {
        world.a.processes().iter().all(|seen| seen.command.starts_with("hosts-"))
    });
    assert!(!world.exists(&world.a, KEPT));
    world.start_agent(0);
    assert!(!world.on_a(&["ls"]).ok().contains("published"));
    world.finish();
}

/// Its caller's agent is gone, and with it who heard what it writes; it is not ended by that.
#[test]
fn a_child_goes_on_without_its_caller() {
    let mut world = world_with(&[]);
    let seed = world.seed();
    let commands = format!("pid;await {GO};say 3000;read 0 all;sleep");
    let mut caller = world.children(&seed.handle, &commands);
    let pid: u32 = caller.line().strip_prefix("pid ").unwrap().parse().unwrap();
    assert_eq!(caller.line(), "waiting");
    world.a.kill_agent();
    let ended = caller.end();
    assert!(ended.err.contains("the mitosis agent of this host has ended"), "{ended:?}");
    world.start_agent(0);
    world.signal(&world.b, GO);
    within(SOON, "it has written, and read all", || {
        world.stats_of_b()["pages_pulled"].as_u64().unwrap() >= 2048
    });
    kill(world.b.process(pid).expect("the child").pid, "KILL");
    is_cleaned_by_drop(&world, &seed);
    world.finish();
}

/// Nobody has the handle of a seed whose fork() has failed.
#[test]
fn a_fork_that_fails_while_no_agent_is_there_leaves_no_seed() {
    let mut world = world_with(&[]);
    world.b.halt("template");
    let told = program("suite-told").display().to_string();
    let parent = world.run(&world.a, &[&told, "fork", "host-b"]);
    within(SOON, "host-b is at it", || world.b.is_halted("template"));
    world.a.kill_agent();
    let ended = parent.end();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    within(SOON, "the seed ends", || {
        !world.a.processes().iter().any(|seen| seen.command.contains("suite-told"))
    });
    world.b.go_on();
    world.start_agent(0);
    within(SOON, "it is forgotten", || !world.on_a(&["ls"]).ok().contains("suite-told"));
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

/// Children start and read all the while; the owner's agent is killed whenever it happens to be.
#[test]
fn an_agent_is_killed_again_and_again_under_load() {
    let mut world = world_with(&[]);
    let seed = world.seed();
    let waits = reader(&world, &seed.handle);
    for round in 0..6u64 {
        let arguments = ["resume", "-n", "3", &seed.handle, "--payload", "scatter 3000;exit 0"];
        let readers: Vec<Process> = (0..2).map(|_| world.mitosis(&world.b, &arguments)).collect();
        // Before, while and after they fetch the descriptor, are pushed to and miss.
        std::thread::sleep(Duration::from_millis(round * 37 % 110));
        world.a.kill_agent();
        world.start_agent(0);
        for reader in readers {
            let ended = reader.end();
            // Who asked for a child while nobody was there is told so; whose child has started has all.
            let is_told = ended.err.contains("host-a:7370") && ended.out.is_empty();
            assert!(ended.code == Some(0) || is_told, "round {round}: {ended:?}");
            assert!(!ended.err.contains("page lost"), "round {round}: {ended:?}");
        }
        is_resumable(&world, &seed);
    }
    world.signal(&world.b, GO);
    assert_eq!(waits.end().code, Some(7));
    is_cleaned_by_drop(&world, &seed);
    world.finish();
}
