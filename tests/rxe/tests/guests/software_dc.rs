//! DC by the software provider: what it refuses, what it reads, how READs fail on it, and what it leaves
//! alone. Not a card's.

use std::path::PathBuf;

use mitosis_guests::{DC_LIBRARIES, Job, target};

use crate::forking;
use crate::world::{HOST_A, HOST_B, PATIENCE, RC_BESIDE_DC, World, machines, shared};

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
    let path = target().join("release/dc_guest");
    assert!(path.is_file(), "no {}; make test-rxe builds it", path.display());
    path
}
