//! DC by the software provider: what it refuses, what it reads, how READs fail on it, and what it leaves
//! alone. Not a card's.

use std::path::PathBuf;

use mitosis_guests::{DC_LIBRARIES, Job, target};

use crate::forking;
use crate::revocation::what_is_read_after_the_drop_fails;
use crate::settings::{agent, falls_back};
use crate::world::{DC_STREAMS, HOST_A, HOST_B, PATIENCE, RC_BESIDE_DC, World, machines, shared};

const SIGKILL: i32 = 9;

#[test]
fn what_it_refuses() {
    let world = machines();
    for (offers, passed) in [("dc", "8 passed"), ("mlx5", "1 passed"), ("nothing", "1 passed")] {
        let offers = format!("DC_PROVIDER_OFFERS={offers}");
        let program = format!("{DC_LIBRARIES}/refusals");
        let said = world.run(HOST_A, &with_dc(&[&offers, &program])).ok().unwrap();
        assert_eq!(said.lines().last(), Some(passed), "{said}");
    }
}

#[test]
fn reads_and_how_they_fail() {
    let world = machines();
    let owner = owner(&world);
    let said = reader(&world, &[], &[]);
    print!("{said}");
    assert_eq!(said.lines().last(), Some("12 passed"), "{said}");
    // Its status is a setting, as no source tells a card's.
    let said = reader(&world, &["DC_PROVIDER_WRONG_KEY=10"], &["keys"]);
    assert_eq!(said.lines().last(), Some("2 passed"), "{said}");
    // Firmware without isolation, and with it.
    for (streams, isolates) in [("6,0", "fails_all_streams"), ("6,6", "stays_in_its_stream")] {
        let variable = format!("DC_PROVIDER_STREAMS={streams}");
        let said = reader(&world, &[&variable], &["streams"]);
        assert!(said.contains(isolates) && said.ends_with("3 passed\n"), "{said}");
    }
    owner.signal(SIGKILL).unwrap();
    owner.end(PATIENCE).unwrap();
}

#[test]
fn rc_is_as_without_it() {
    forking::every_page_arrives(RC_BESIDE_DC);
    let world = shared(RC_BESIDE_DC);
    for node in [HOST_A, HOST_B] {
        // The keeper has the agent's name, and none of its libraries.
        let agent = "for pid in $(pidof mitosis); do cat /proc/$pid/maps; done |
            grep -q dc_provider/libibverbs.so.1";
        let looked = world.run_script(node, agent);
        assert_eq!(looked.status, 0, "the agent has the software DC: {looked:?}");
    }
}

/// Agents on a card that isolates the failures of streams.
#[test]
fn streams_that_fail_alone() {
    what_is_read_after_the_drop_fails(DC_STREAMS);
    let world = shared(DC_STREAMS);
    let [mended, flushed] = world.counts(HOST_B, ["dc_mended", "dc_flushed"]);
    assert!(mended > 0, "a stream was reset");
    assert_eq!(flushed, 0, "and no READ of another flushed");
}

/// DC is chosen where a target can be made; if it cannot be set up for all that, rc is taken, and tcp where that
/// cannot be had either. Each step is told with its reason, and counted.
#[test]
fn what_cannot_be_set_up_falls_to_rc_and_then_to_tcp() {
    const NO_INITIATORS: &str = "DC_PROVIDER_INITIATORS=no";
    const LIBRARIES: &str = "LD_LIBRARY_PATH=/lib/dc_provider";
    // A librdmacm that cannot be loaded is found before the right one.
    const NO_CONNECTIONS: &str = "LD_LIBRARY_PATH=/tmp/no_rdmacm:/lib/dc_provider";
    const REASON: &str = "dc on rxe0:1, GID 1 (RoCE v2, 10.77.0.2) was chosen and cannot be used: no DC initiator could be made: ";
    let world = machines();
    let has = |log: &str, words: &[&str]| {
        log.lines().any(|line| words.iter().all(|word| line.contains(word)))
    };
    let log = falls_back(&world, HOST_B, &[], &[LIBRARIES, NO_INITIATORS], 1);
    assert!(has(&log, &["WARN", "fabric rc: ", REASON, "out of memory"]), "{log}");
    assert!(has(&log, &["INFO", "fabric rc on rxe0:1, ", "MITOSIS_FABRIC=auto"]), "{log}");
    world
        .run_script(HOST_B, "mkdir -p /tmp/no_rdmacm && : >/tmp/no_rdmacm/librdmacm.so.1")
        .ok()
        .unwrap();
    for wish in ["auto", "dc"] {
        let fabric = format!("MITOSIS_FABRIC={wish}");
        let log = falls_back(&world, HOST_B, &[], &[NO_CONNECTIONS, NO_INITIATORS, &fabric], 2);
        assert!(has(&log, &["WARN", "fabric rc: ", REASON]), "{log}");
        assert!(has(&log, &["WARN", "fabric tcp: rc on rxe0:1", "librdmacm.so.1"]), "{log}");
        assert!(!log.contains("INFO"), "{log}");
    }
    // What is required by its name is it or nothing; some RDMA or nothing may be rc.
    for (libraries, wish, reason) in [
        (LIBRARIES, "dc,require", "no DC initiator could be made: "),
        (NO_CONNECTIONS, "auto,require", "librdmacm.so.1"),
    ] {
        let fabric = format!("MITOSIS_FABRIC={wish}");
        let ended = agent(&world, HOST_B, &[], &[libraries, NO_INITIATORS, &fabric]);
        let ended = ended.end(PATIENCE).unwrap();
        assert_eq!(ended.status, 1, "{ended:?}");
        let words = ["RDMA is required and cannot be used: ", reason];
        assert!(has(&ended.err, &words), "{ended:?}");
    }
}

/// What `make test-hw` runs on a card with DC, on one host; and on one that isolates the failures of streams.
#[test]
fn what_a_card_would_be_asked() {
    let world = machines();
    let jobs = [(HOST_A, "6,0"), (HOST_B, "6,6")].map(|(node, streams)| {
        let variable = format!("DC_PROVIDER_STREAMS={streams}");
        let argv = with_dc(&[&variable, "verbs_guest", "here", "dc"]);
        world.guests.node(node).run(&argv).unwrap()
    });
    for job in jobs {
        // Fourteen tests, some of which wait for what never comes.
        let said = job.end(4 * PATIENCE).unwrap().ok().unwrap();
        print!("{said}");
        assert_eq!(said.lines().last(), Some("14 passed, 0 skipped"), "{said}");
    }
}

/// A command with the software DC; variables come first.
fn with_dc<'a>(argv: &[&'a str]) -> Vec<&'a str> {
    const LIBRARIES: &str = "LD_LIBRARY_PATH=/lib/dc_provider";
    assert!(LIBRARIES.ends_with(DC_LIBRARIES));
    [&["env", LIBRARIES], argv].concat()
}

fn owner(world: &World) -> Job {
    world.guests.give(&dc_guest(), "dc_guest").unwrap();
    for node in [HOST_A, HOST_B] {
        // From the shared folder a process takes seconds to start, and some of them start others.
        world.run(node, &["cp", "/host/files/dc_guest", "/bin/"]).ok().unwrap();
    }
    world.guests.node(HOST_A).run(&with_dc(&["dc_guest"])).unwrap()
}

fn reader(world: &World, variables: &[&str], arguments: &[&str]) -> String {
    let command = [variables, &["dc_guest"], arguments].concat();
    world.run(HOST_B, &with_dc(&command)).ok().unwrap()
}

/// The program of core/tests/dc_guest.
fn dc_guest() -> PathBuf {
    let path = target().join("debug/dc_guest");
    assert!(path.is_file(), "no {}; make test-rxe builds it", path.display());
    path
}
