//! What ends in the middle of reading, and who is told.

use std::time::Duration;

use crate::world::{HOST_A, HOST_B, MISS_DEADLINE, Seed, World, boot_others, shared};

/// Machines in the place of those that lose their power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    BootMeanwhile,
    None,
}

/// The agent on the child's machine; its socket closes, and that is noticed at once.
pub(crate) fn the_childs_agent_is_killed(fabric: &'static str) {
    let mut world = shared(fabric);
    let seed = world.seed();
    let reader = world.reader(&seed, HOST_A);
    let pid = reader.pid.clone();
    world.kill_agent(HOST_B);
    reader.ends_lost(Duration::ZERO, &["host-b", "gone"]);
    world.assert_gone(&pid);
    world.start_agent(HOST_B);
    reads_all(&world, &seed);
}

/// The agent on the seed's machine: what the child misses is lost by the deadline.
pub(crate) fn the_seeds_agent_is_killed(fabric: &'static str) {
    let mut world = shared(fabric);
    let seed = world.seed();
    let reader = world.reader(&seed, HOST_B);
    let pid = reader.pid.clone();
    world.kill_agent(HOST_A);
    reader.ends_lost(MISS_DEADLINE, &["page lost: seed", "host-a"]);
    world.assert_gone(&pid);
    world.start_agent(HOST_A);
    reads_all(&world, &world.seed());
}

/// The seed's machine, which closes nothing and answers nobody. Its `others` are for the test behind.
pub(crate) fn the_seeds_machine_is_killed(fabric: &'static str, others: Others) {
    let world = shared(fabric);
    let seed = world.seed();
    let reader = world.reader(&seed, HOST_B);
    let pid = reader.pid.clone();
    world.guests.node(HOST_A).kill();
    reader.ends_lost(MISS_DEADLINE, &["page lost: seed", "host-a"]);
    world.assert_gone(&pid);
    // That host-a does not answer is known when a connection has had its time.
    let others = (others == Others::BootMeanwhile).then(boot_others);
    // The other machine's agent is unharmed.
    let refused = world.run(HOST_B, &["mitosis", "inspect", &seed.handle]);
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.err.contains("host-a:7370 does not answer"), "{refused:?}");
    world.end(others);
}

fn reads_all(world: &World, seed: &Seed) {
    let argv =
        ["mitosis", "resume", &seed.handle, "--on", "host-b", "--payload", "read 0 all;exit 7"];
    let ended = world.run(HOST_A, &argv);
    assert_eq!(ended.status, 7, "{ended:?}");
}
