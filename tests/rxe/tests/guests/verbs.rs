//! The crate's verbs on a device: what `core/tests/verbs_guest` says of it.

use crate::world::{HOST_A, HOST_B, PATIENCE, shared};

/// Each status that the fabrics tell apart, between two machines; then a port that goes down.
#[test]
fn between_two_machines() {
    let world = shared("tcp");
    let owner = world.guests.node(HOST_A).run(&["verbs_guest"]).unwrap();
    let reader = world.guests.node(HOST_B).run(&["verbs_guest"]).unwrap();
    let said = reader.end(PATIENCE).unwrap().ok().unwrap();
    print!("{said}");
    assert_eq!(said.lines().last(), Some("14 passed"), "{said}");
    // See faults.rs: the device may be of no use after that.
    let mend =
        "ip link set eth0 up; rdma link delete rxe0; rdma link add rxe0 type rxe netdev eth0";
    world.run_script(HOST_B, mend).ok().unwrap();
    // What the reader said last may have waited for the link.
    owner.end(PATIENCE).unwrap().ok().unwrap();
}

/// What `make test-hw` runs where there is a card, on Soft-RoCE.
#[test]
fn on_one_host() {
    let world = shared("tcp");
    let said = world.run(HOST_A, &["verbs_guest", "here"]).ok().unwrap();
    print!("{said}");
    for words in ["found rxe0: ", "used: rxe0:1, GID ", "skipped: dc: "] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert_eq!(said.lines().last(), Some("22 passed, 1 skipped"), "{said}");
}

/// And where there is none.
#[test]
fn without_a_device_it_is_skipped_with_the_reason() {
    let world = shared("tcp");
    let argv = ["env", "MITOSIS_DEV_DENY=rxe0", "verbs_guest", "here"];
    let said = world.run(HOST_B, &argv).ok().unwrap();
    assert!(said.contains("skipped: all: MITOSIS_FABRIC=auto, but MITOSIS_DEV and"), "{said}");
    assert_eq!(said.lines().last(), Some("0 passed, 1 skipped"), "{said}");
}
