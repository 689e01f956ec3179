//! Many readers, and what fails under them.

use std::time::Duration;

use mitosis_guests::Device;

use crate::hosts::{Hosts, PATIENCE, Said};

/// After which a READ of a host that is gone ends: (retry_cnt + 1) x 4.096 us x 2^timeout.
const NOTICED_MS: u64 = 537;
/// What a guest's clock, which ticks each 10 ms, may take from the four waits of it; a kernel that had no processor for a
/// while makes up for its ticks.
const TICKS_MS: u64 = 120;
/// What two CPUs for eight kernels may add to it, or keep one from reading.
const SLACK_MS: u64 = 3000;
/// What the card has of a READ's deadline; over iWARP there is no earlier end.
const CARD_DEADLINE_MS: u64 = 2000;
/// Of a READ, as `suite-fabric` has it.
const DEADLINE: Duration = Duration::from_secs(4);
/// How long readers read undisturbed.
const A_WHILE: Duration = Duration::from_secs(1);
/// READs that a reader does at least in a while.
const SOME: u64 = 20;

/// Owners 1 and 2: all others read both, 2 reads 1.
const SEVEN_READ: [(u32, &[u32]); 7] =
    [(2, &[1]), (3, &[1, 2]), (4, &[1, 2]), (5, &[1, 2]), (6, &[1, 2]), (7, &[1, 2]), (8, &[1, 2])];

pub(crate) fn seven_hosts_read_one(device: Device) {
    let hosts = Hosts::boot("seven", device, 8);
    let _owner = hosts.owner(1);
    let reads: Vec<(u32, &[u32])> = (2..=8).map(|reader| (reader, &[1][..])).collect();
    let readers = hosts.readers(&reads, 4, 1);
    std::thread::sleep(A_WHILE);
    let said = hosts.end(readers, &reads);
    assert_eq!(said.tallies.len(), 7);
    all_went_well(&said, 1);
}

pub(crate) fn a_host_is_killed_in_mid_read(device: Device) {
    let hosts = Hosts::boot("killed", device, 8);
    let _owners = [1, 2].map(|node| hosts.owner(node));
    let reads: Vec<(u32, &[u32])> = (3..=8).map(|reader| (reader, &[1, 2][..])).collect();
    let readers = hosts.readers(&reads, 4, 1);
    std::thread::sleep(A_WHILE);
    hosts.guests.node(1).kill();
    std::thread::sleep(DEADLINE + A_WHILE);
    let said = hosts.end(readers, &reads);
    for tally in said.of(1) {
        assert!(tally.number("silent") > 0 && tally.number("refused") == 0, "{tally:?}");
        let noticed = tally.number("noticed_ms");
        let (earliest, latest) = match device {
            Device::SoftRoce => (NOTICED_MS - TICKS_MS, NOTICED_MS + SLACK_MS),
            // A READ has no retry of its own there: TCP's take minutes, the deadline is first.
            Device::SoftIwarp => (CARD_DEADLINE_MS, CARD_DEADLINE_MS + SLACK_MS),
        };
        assert!((earliest..latest).contains(&noticed), "noticed after {noticed} ms: {tally:?}");
        assert!(tally.number("lost") > 0, "given up by all ways: {tally:?}");
    }
    assert_eq!(said.lines_with(&["lost 10.77.0.1", "does not answer"]), 6, "{said}");
    all_went_well(&said, 2);
}

pub(crate) fn a_seed_is_revoked_under_seven_readers(device: Device) {
    let hosts = Hosts::boot("revoked", device, 8);
    let _owners = [1, 2].map(|node| hosts.owner(node));
    let readers = hosts.readers(&SEVEN_READ, 4, 1);
    std::thread::sleep(A_WHILE);
    hosts.revoke(1);
    std::thread::sleep(A_WHILE);
    let said = hosts.end(readers, &SEVEN_READ);
    assert_eq!(said.of(1).count(), 7);
    for tally in said.of(1) {
        match device {
            // One at least; those behind it are flushed, and then the arena is known to refuse. A reader whose
            // connection the slow kernels had just broken was reading over tcp.
            Device::SoftRoce => {
                assert!(tally.number("refused") + tally.number("silent") > 0, "{tally:?}");
            }
            // Soft-iWARP ends the connection, and tells none of its READs why.
            Device::SoftIwarp => assert!(tally.number("flushed") > 0, "{tally:?}"),
        }
        assert!(tally.number("lost") > 0, "{tally:?}");
    }
    if device == Device::SoftRoce {
        let refused = said.of(1).filter(|tally| tally.number("refused") > 0).count();
        assert!(refused > 7 / 2, "most are refused by the card: {said}");
    }
    assert_eq!(said.lines_with(&["lost 10.77.0.1", "refuses the READ"]), 7, "{said}");
    all_went_well(&said, 2);
}

pub(crate) fn an_owner_restarts(device: Device) {
    const SIGKILL: i32 = 9;
    let hosts = Hosts::boot("restarts", device, 4);
    let owners = [1, 2].map(|node| hosts.owner(node));
    let reads: [(u32, &[u32]); 2] = [(3, &[1, 2]), (4, &[1, 2])];
    let mut readers = hosts.readers(&reads, 4, 1);
    let [first, _second] = owners;
    first.signal(SIGKILL).unwrap();
    first.end(PATIENCE).unwrap();
    for reader in &mut readers {
        assert!(reader.line(PATIENCE).unwrap().starts_with("lost 10.77.0.1: "));
    }
    let _again = hosts.owner(1);
    for reader in &mut readers {
        assert_eq!(reader.line(PATIENCE).unwrap(), "found 10.77.0.1 again");
    }
    let mut before = Vec::new();
    for reader in &mut readers {
        before.push(reader.line(PATIENCE).unwrap());
    }
    assert!(before.iter().all(|line| line == "10.77.0.1 by card again"), "{before:?}");
    std::thread::sleep(A_WHILE);
    all_went_well(&hosts.end(readers, &reads), 2);
}

pub(crate) fn a_link_flaps(device: Device) {
    const FLAPS: u32 = 4;
    /// Longer than the card is patient.
    const DOWN: Duration = Duration::from_millis(1000);
    const UP: Duration = Duration::from_millis(1200);
    let hosts = Hosts::boot("flaps", device, 4);
    let _owners = [1, 2].map(|node| hosts.owner(node));
    let reads: [(u32, &[u32]); 2] = [(3, &[1, 2]), (4, &[1, 2])];
    let readers = hosts.readers(&reads, 4, 1);
    for _ in 0..FLAPS {
        hosts.guests.plug(1, false);
        std::thread::sleep(DOWN);
        hosts.guests.plug(1, true);
        std::thread::sleep(UP);
    }
    std::thread::sleep(A_WHILE);
    let said = hosts.end(readers, &reads);
    for tally in said.of(1) {
        assert_eq!(tally.number("lost"), 0, "{tally:?}");
        let longest = tally.number("longest_ms");
        assert!(longest >= 100, "it was noticed: {tally:?}");
        if device == Device::SoftRoce {
            assert!(tally.number("silent") > 0, "{tally:?}");
        }
        assert!(tally.number("last_card_ms") < SLACK_MS, "the card is used again: {tally:?}");
    }
    all_went_well(&said, 2);
}

/// Each is served by the card again and again, however few connections there are. The test ends when each has had
/// some turns: on a busy machine that takes longer, and is no failure.
pub(crate) fn more_queues_than_connections(device: Device) {
    const QUEUES: u32 = 12;
    const CONNECTIONS: u64 = 8;
    /// After which `suite-fabric` says so.
    const TURNS: u64 = 3;
    /// Of one queue, while another has those.
    const MOST_TURNS: u64 = 64;
    let hosts = Hosts::boot("queues", device, 2);
    let _owner = hosts.owner(1);
    let reads: [(u32, &[u32]); 1] = [(2, &[1])];
    let mut readers = hosts.readers(&reads, 2, QUEUES);
    assert_eq!(readers[0].line(PATIENCE).unwrap(), "all had their turns");
    let said = hosts.end(readers, &reads);
    assert_eq!(said.tallies.len(), 12);
    for tally in said.of(1) {
        assert!((TURNS..MOST_TURNS).contains(&tally.number("turns")), "{tally:?}");
        assert!(tally.number("refused") == 0 && tally.number("lost") == 0, "{tally:?}");
        assert!(tally.number("connections") <= CONNECTIONS, "{tally:?}");
    }
    let most = said.of(1).map(|tally| tally.number("connections")).max();
    assert!(most > Some(CONNECTIONS / 2), "more than a few connections are used: {said}");
}

/// What the arena has no room for is read over tcp, and nothing of it by the card.
pub(crate) fn a_seed_above_the_arenas_bound(device: Device) {
    let hosts = Hosts::boot("bound", device, 2);
    let _owner = hosts.owner_of_too_much(1);
    let reads: [(u32, &[u32]); 1] = [(2, &[1])];
    let readers = hosts.readers(&reads, 4, 1);
    std::thread::sleep(A_WHILE);
    let said = hosts.end(readers, &reads);
    for tally in said.of(1) {
        let [card, tcp, beyond] = ["card", "tcp", "beyond"].map(|name| tally.number(name));
        // A fifth of its bytes; the reader says so if the card has READ any.
        assert!(card >= SOME && beyond >= SOME / 5 && tcp >= beyond, "{tally:?}");
        assert!(card > tcp - beyond, "what is below the bound goes by the card: {tally:?}");
        assert!(tally.number("refused") == 0 && tally.number("lost") == 0, "{tally:?}");
    }
}

/// An owner was read from all the time, by the card but for what seven kernels on few CPUs made it miss.
fn all_went_well(said: &Said, owner: u32) {
    for tally in said.of(owner) {
        let (card, tcp) = (tally.number("card"), tally.number("tcp"));
        assert!(card >= SOME && card > 4 * tcp, "{tally:?}");
        assert!(tally.number("refused") == 0 && tally.number("lost") == 0, "{tally:?}");
        assert!(tally.number("longest_ms") < SLACK_MS, "{tally:?}");
    }
}
