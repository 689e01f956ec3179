//! Descriptors as a hostile, damaged or newer agent may serve them: refused with a text, by a deadline, and
//! whoever was asked to run them goes on serving.

use crate::process::Process;
use crate::world::{Plan, Seed, World, program};

const PORT: &str = "7399";

/// An agent beside host-a's own that answers as `kind` says, and the seed's handle that leads to it.
fn impostor(world: &World, kind: &str, seed: &Seed) -> (Process, String) {
    let path = program("suite-impostor").display().to_string();
    let secret = world.directory.path().join("secret").display().to_string();
    let mut process = world.run(&world.a, &[&path, kind, &seed.handle, &secret, PORT]);
    assert_eq!(process.line(), "ready");
    (process, seed.handle.replace("host-a:7370", &format!("host-a:{PORT}")))
}

fn world() -> World {
    World::with(Plan { agents: vec!["--peer-deadline-ms", "1500"], ..Plan::default() })
}

#[test]
fn broken_descriptors_are_refused() {
    let world = world();
    let (seed, other) = (world.seed(), world.seed());
    let cases: [(&str, &[&str]); 10] = [
        ("truncated", &["descriptor", "cut off"]),
        ("a header's half", &["no mitosis descriptor"]),
        ("empty", &["no mitosis descriptor"]),
        ("padded", &["descriptor", "bytes behind its end"]),
        ("damaged", &["descriptor", "checksum", "damaged"]),
        ("oversized", &["descriptor", "exceeds the limit of 4194304"]),
        ("next major", &["format 2.0", "1.x", "same major version"]),
        ("critical section", &["section 999", "update this host"]),
        ("another seed", &["descriptor", "another seed first"]),
        ("out of turn", &["out of turn", "same version"]),
    ];
    for (kind, words) in cases {
        let (impostor, handle) = impostor(&world, kind, &seed);
        let threads = world.b.agent_threads();
        let refused = world.children(&handle, "exit 0").end();
        assert!(refused.took.as_secs() < 5, "{kind}: {refused:?}");
        refused.refused(words);
        world.mitosis(&world.b, &["inspect", &handle]).end().refused(words);
        impostor.kill();
        assert!(world.b.agent_threads() <= threads + 2, "{kind}: threads stay");
        // Host-b is unharmed and goes on serving.
        let fine = world.children(&other.handle, "read 0 4;exit 7").end();
        assert_eq!(fine.code, Some(7), "after {kind}: {fine:?}");
    }
    // The seed itself was never at fault.
    assert_eq!(world.children(&seed.handle, "read 0 all;exit 7").end().code, Some(7));
    for seed in [&seed, &other] {
        world.on_a(&["drop", seed.id()]).ok();
    }
    world.settled(&world.b);
    world.finish();
}

#[test]
fn broken_agents_are_given_up_by_a_deadline() {
    let world = world();
    let (seed, other) = (world.seed(), world.seed());
    let cases: [(&str, &[&str]); 5] = [
        ("silent", &["host-a:7399", "does not answer"]),
        ("hang up", &["host-a:7399", "does not answer"]),
        ("huge frame", &["host-a:7399", "4294967295 bytes"]),
        ("noise", &["host-a:7399", "same version"]),
        ("other protocol", &["host-a:7399", "does not answer"]),
    ];
    for (kind, words) in cases {
        let (impostor, handle) = impostor(&world, kind, &seed);
        let refused = world.children(&handle, "exit 0").end();
        assert!(refused.took.as_secs() < 5, "{kind}: {refused:?}");
        refused.refused(words);
        impostor.kill();
        let fine = world.children(&other.handle, "exit 7").end();
        assert_eq!(fine.code, Some(7), "after {kind}: {fine:?}");
    }
    // The seed itself was never at fault.
    assert_eq!(world.children(&seed.handle, "read 0 all;exit 7").end().code, Some(7));
    for seed in [&seed, &other] {
        world.on_a(&["drop", seed.id()]).ok();
    }
    world.settled(&world.b);
    world.finish();
}

/// Both hosts have one processor: the seed's is another one by what its descriptor says.
#[test]
fn a_larger_vector_state_than_the_hosts_is_refused() {
    let world = world();
    let seed = world.seed();
    for kind in ["another component", "a larger component"] {
        let (impostor, handle) = impostor(&world, kind, &seed);
        let words = ["cannot run on this host", "its vector state (XCR0 ", "is larger than"];
        world.children(&handle, "exit 0").end().refused(&words);
        assert_eq!(world.children_started_on_b(), 0);
        impostor.kill();
    }
    assert_eq!(world.children(&seed.handle, "read 0 64;exit 7").end().code, Some(7));
    world.finish();
}

#[test]
fn what_a_newer_minor_adds_is_passed_over() {
    let world = world();
    for kind in ["honest", "next minor"] {
        let seed = world.seed();
        let (impostor, handle) = impostor(&world, kind, &seed);
        let ended = world.children(&handle, "read 0 64;exit 7").end();
        assert_eq!(ended.code, Some(7), "{kind}: {ended:?}");
        impostor.kill();
    }
    world.finish();
}
