//! READ streams that one host or both want encrypted.

use crate::world::{Plan, World};

/// An agent's READ streams: in plain, and encrypted.
fn streams(stats: &serde_json::Value) -> [u64; 2] {
    ["streams_plain", "streams_encrypted"].map(|name| stats[name].as_u64().unwrap())
}

/// Host-a has the seed, host-b its children: each may be the one that wants it.
#[test]
fn reads_are_encrypted_if_either_host_demands_it() {
    for demands in [[false, false], [true, false], [false, true]] {
        let mut world = World::without_agents(Plan::default());
        for (machine, demands) in demands.into_iter().enumerate() {
            let more: &[&str] = if demands { &["--encrypt-reads"] } else { &[] };
            world.start_agent_with(machine, more);
        }
        let seed = world.seed();
        let read = world.children(&seed.handle, "scatter 64;read 0 all;exit 7").end();
        assert_eq!((read.code, read.err.as_str()), (Some(7), ""), "{demands:?}: {read:?}");
        let stats_of_a = serde_json::from_str(&world.on_a(&["stats", "--json"]).ok()).unwrap();
        let [plain, encrypted] = streams(&stats_of_a);
        match demands {
            [false, false] => assert!(plain > 0 && encrypted == 0, "{stats_of_a}"),
            _ => assert!(plain == 0 && encrypted > 0, "{demands:?}: {stats_of_a}"),
        }
        assert_eq!(stats_of_a["encrypt_reads"], u64::from(demands[0]));
        assert!(world.stats_of_b()["pages_pulled"].as_u64().unwrap() > 0);
        assert!(
            world.stats_of_b()["pages_pushed"].as_u64().unwrap() > 0,
            "a push comes by them, too"
        );
        let secret = world.directory.path().join("secret").display().to_string();
        let doctor = ["doctor", "--peer", "host-b", "--", "--secret-file", &secret];
        let told = world.on_a(&doctor).ok();
        let told =
            told.lines().find(|line| line.contains("READ streams there")).unwrap().to_owned();
        assert_eq!(told.ends_with(" encrypted"), demands[1], "{told}");
        world.finish();
    }
}

/// Nobody believes that his READs are encrypted while a card makes them in plain.
#[test]
fn a_card_that_is_asked_for_is_refused_where_reads_are_to_be_encrypted() {
    let world = World::without_agents(Plan::default());
    let secret = world.directory.path().join("secret").display().to_string();
    let agent = ["agent", "--secret-file", &secret, "--encrypt-reads", "--fabric", "rc"];
    let refused = world.on_a(&agent);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(
        refused.err.contains("--fabric rc: what an RDMA card READs is not encrypted"),
        "{refused:?}"
    );
    world.finish();
}
