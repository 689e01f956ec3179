//! Children on another host: what they say, how they end, what they are given.

use crate::process::within;
use crate::world::{Plan, SOON, World, program};

#[test]
fn output_comes_in_order_and_before_the_end() {
    let world = World::new();
    let seed = world.seed();
    let ended = world.children(&seed.handle, "say 500;exit 42").end();
    let lines = |word: &str| (0..500).map(|line| format!("{word} {line}\n")).collect::<String>();
    assert_eq!((ended.code, ended.out), (Some(42), lines("out")));
    assert_eq!(ended.err, lines("err"));
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn ends_are_told_as_a_shell_tells_them() {
    let world = World::new();
    let seed = world.seed();
    for (commands, code) in
        [("exit 0", 0), ("exit 255", 255), ("signal 9", 137), ("signal 15", 143), ("signal 6", 134)]
    {
        let ended = world.children(&seed.handle, commands).end();
        assert_eq!(ended.code, Some(code), "{commands}: {ended:?}");
        if code > 128 && code < 255 {
            assert!(ended.err.contains(&format!("killed by signal {}", code - 128)), "{ended:?}");
        }
    }
    world.finish();
}

#[test]
fn large_output_is_whole() {
    let world = World::new();
    let seed = world.seed();
    const BYTES: usize = 24 << 20;
    let ended = world.children(&seed.handle, &format!("flood {BYTES}")).end();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let out = ended.out.trim_end_matches('\n');
    assert_eq!(out.len(), BYTES);
    assert!(out.bytes().zip((b'a'..=b'z').cycle()).all(|(got, sent)| got == sent));
    world.finish();
}

#[test]
fn the_array_is_there_and_each_child_has_its_own() {
    let world = World::new();
    let seed = world.seed();
    let both = "read 0 all;write 5 40;who";
    let ended = world.children(&seed.handle, both).end();
    assert_eq!(
        ended.out, "read 2048 pages\nwrote 40 pages\nindex 0 generation 1 on host-b\n",
        "{ended:?}"
    );
    // What the first one wrote, the second one does not see.
    let ended = world.children(&seed.handle, both).end();
    assert_eq!(
        ended.out, "read 2048 pages\nwrote 40 pages\nindex 0 generation 1 on host-b\n",
        "{ended:?}"
    );
    let here = world.on_a(&["resume", &seed.handle, "--payload", both]);
    assert_eq!(
        here.out, "read 2048 pages\nwrote 40 pages\nindex 0 generation 1 on host-a\n",
        "{here:?}"
    );
    let stats = world.on_b(&["stats", "--json"]).ok();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let pulled = stats["pages_pulled"].as_u64().unwrap();
    assert!((2048..4000).contains(&pulled), "pages are pulled once for all children: {stats}");
    assert_eq!(stats["children_started"], 2);
    assert_eq!(stats["pages_lost"], 0);
    world.finish();
}

#[test]
fn twenty_children_of_one_seed() {
    let world = World::new();
    let seed = world.seed();
    let commands = "who;read 100 64";
    let arguments = ["resume", "-n", "20", "--on", "host-b", "--payload", commands, &seed.handle];
    let mut out: Vec<String> = world.on_a(&arguments).ok().lines().map(str::to_owned).collect();
    out.sort();
    let mut expected: Vec<String> = (0..20)
        .flat_map(|index| {
            [format!("index {index} generation 1 on host-b"), "read 64 pages".to_owned()]
        })
        .collect();
    expected.sort();
    assert_eq!(out, expected);
    // One of them fails: its status is the caller's.
    let failing = ["resume", "-n", "3", "--on", "host-b", "--payload", "exit 6", &seed.handle];
    assert_eq!(world.on_a(&failing).code, Some(6));
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn payload_and_environment_arrive() {
    let world = World::new();
    let seed = world.seed();
    let commands = "env GREETING;env HOME;env TMPDIR";
    let arguments = [
        "resume",
        &seed.handle,
        "--on",
        "host-b",
        "--payload",
        commands,
        "--env",
        "GREETING=a=b c",
        "--env",
        "HOME",
    ];
    let said = world.on_a(&arguments).ok();
    let tmpdir = world.directory.path().join("tmp").display().to_string();
    assert_eq!(said, format!("GREETING=Some(\"a=b c\")\nHOME=None\nTMPDIR=Some({tmpdir:?})\n"));
    world.finish();
}

#[test]
fn the_paved_path_forks_and_leaves_no_seed() {
    let world = World::new();
    let told = program("suite-told").display().to_string();
    let said = world.run(&world.a, &[&told, "fork", "host-b"]).end().ok();
    assert!(said.contains("index 0 generation 1 on host-b\nread 2048 pages\n"), "{said}");
    assert!(said.contains("parent: Exited(9) on host-b"), "{said}");
    let here = world.run(&world.a, &[&told, "fork"]).end().ok();
    assert!(here.contains("index 0 generation 1 on host-a\n"), "{here}");
    world.settled(&world.a);
    world.settled(&world.b);
    let failed = world.run(&world.a, &[&told, "fork", "host-c"]).end();
    assert_eq!(failed.code, Some(3), "{failed:?}");
    assert!(failed.err.contains("host-c"), "{failed:?}");
    world.settled(&world.a);
    world.finish();
}

#[test]
fn without_any_agent_a_fork_starts_its_own() {
    let world = World::without_agents(Plan::default());
    let told = program("suite-told").display().to_string();
    let path = format!("MITOSIS_AGENT_BIN={}", crate::world::MITOSIS);
    let said = world.run(&world.a, &["/usr/bin/env", &path, &told, "fork"]).end().ok();
    assert!(said.contains("read 2048 pages\n") && said.contains("Exited(9) on host-a"), "{said}");
    world.settled(&world.a);
    world.finish();
}

#[test]
fn a_child_forks_and_execs() {
    let world = World::with(Plan { programs_on_b: true, ..Plan::default() });
    let seed = world.seed();
    let said = world.children(&seed.handle, "fork;spawn;exec").end().ok();
    let expected = "read 2048 pages\nwrote 16 pages\nread 32 pages\nforked 0\nexec'd beside\nspawned Some(0) None\n\
                    exec'd in place\n";
    assert_eq!(said, expected);
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.b);
    world.finish();
}

/// What a child has forked lives on the child's memory, on either host, also once the seed was dropped; the
/// seed goes with the last of them.
#[test]
fn a_process_that_a_child_forked_outlives_it() {
    let world = World::new();
    for machine in [&world.b, &world.a] {
        let seed = world.seed();
        let commands = "read 0 8;daemon /tmp/test-go 100 400;exit 4";
        let arguments = ["resume", &seed.handle, "--on", machine.name, "--payload", commands];
        let ended = world.on_a(&arguments);
        assert_eq!(ended.code, Some(4), "{ended:?}");
        let daemon = ended.out.lines().find_map(|line| line.strip_prefix("daemon "));
        let daemon: u32 = daemon.unwrap_or_else(|| panic!("{ended:?}")).parse().unwrap();
        world.on_a(&["drop", seed.id()]).ok();
        // Longer than an agent takes to look for images that nobody needs.
        std::thread::sleep(std::time::Duration::from_millis(800));
        assert!(world.on_a(&["ls"]).ok().contains(seed.id()), "the seed is still there");
        world.signal(machine, "/tmp/test-go");
        within(SOON, "it has read", || world.exists(machine, "/tmp/test-go.done"));
        within(SOON, "it has ended", || machine.process(daemon).is_none());
        within(SOON, "the seed ends", || !world.on_a(&["ls"]).ok().contains(seed.id()));
        world.remove(machine, &["/tmp/test-go", "/tmp/test-go.done", "/tmp/test-go.said"]);
        world.settled(machine);
    }
    world.finish();
}

/// A page that it cannot have ends it: it is never given another.
#[test]
fn a_process_that_a_child_forked_ends_at_a_lost_page() {
    let world = World::new();
    let seed = world.seed();
    let commands = "read 0 8;daemon /tmp/test-go 100 400;exit 4";
    let mut caller = world.children(&seed.handle, commands);
    let daemon = std::iter::repeat_with(|| caller.line())
        .find_map(|line| line.strip_prefix("daemon ").map(str::to_owned));
    let daemon: u32 = daemon.unwrap().parse().unwrap();
    assert_eq!(caller.end().code, Some(4));
    world.on_a(&["drop", "--revoke", seed.id()]).ok();
    world.signal(&world.b, "/tmp/test-go");
    within(SOON, "it has ended", || world.b.process(daemon).is_none());
    assert!(!world.exists(&world.b, "/tmp/test-go.done"));
    world.finish();
}

/// The next child of a seed is there before it is asked for, and goes with the seed if it never is.
#[test]
fn a_child_waits_to_be_started() {
    let world = World::new();
    let seed = world.seed();
    let mut waiting = Vec::new();
    for turn in 0..4 {
        let said = world.children(&seed.handle, "pid;read 0 8;exit 0").end().ok();
        let pid: u32 = said.lines().next().unwrap().strip_prefix("pid ").unwrap().parse().unwrap();
        assert!(turn == 0 || waiting.contains(&pid), "{pid} is none of {waiting:?}");
        // The template, and the one that waits.
        within(SOON, "one more waits", || {
            waiting = world.b.on_keeper();
            waiting.len() == 2
        });
    }
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.b);
    world.settled(&world.a);
    world.finish();
}

#[test]
fn a_child_is_prepared_again() {
    let world = World::with(Plan { programs_on_b: true, ..Plan::default() });
    let seed = world.seed();
    // It has read some pages and written others; the grandchild reads those, and those of the ancestor.
    for (host, name) in [("-", "host-b"), ("host-a", "host-a")] {
        let commands = format!(
            "read 0 8;write 16 8;again {host} who,read 0 16,read 24 400,write 16 8,read 16 8,exit 5"
        );
        let said = world.children(&seed.handle, &commands).end().ok();
        let expected = format!("index 0 generation 2 on {name}\nread 16 pages\nread 400 pages\n");
        assert!(said.contains(&expected), "{said}");
        assert!(said.contains("after generation 1: [Exited(5)]"), "{said}");
    }
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

/// What a seed of a second generation has not touched is the first one's, which therefore stays.
#[test]
fn a_seed_of_a_child_outlives_the_child() {
    let world = World::with(Plan { agents: vec!["--linger-s", "0"], ..Plan::default() });
    let seed = world.seed();
    let handle = world.children(&seed.handle, "read 0 8;leave").end().ok();
    let handle = handle.lines().last().unwrap();
    assert!(handle.starts_with("mitosis://host-b:7370/"), "{handle}");
    world.on_a(&["drop", seed.id()]).ok();
    // Longer than an agent takes to look for images that nobody needs.
    std::thread::sleep(std::time::Duration::from_millis(800));
    for host in ["host-b", "host-a"] {
        let ended = world.on_a(&["resume", handle, "--on", host, "--payload", "who;read 0 all"]);
        let expected = format!("index 0 generation 2 on {host}\nread 2048 pages\n");
        assert_eq!((ended.out.as_str(), ended.code), (expected.as_str(), Some(0)), "{ended:?}");
    }
    let id = handle.rsplit_once('/').unwrap().1.split('#').next().unwrap();
    world.on_b(&["drop", id]).ok();
    world.settled(&world.b);
    world.settled(&world.a);
    world.finish();
}

#[test]
fn a_caller_that_goes_away_leaves_its_children_alone() {
    let world = World::new();
    let seed = world.seed();
    let mut caller = world.children(&seed.handle, "pid;await /tmp/test-go;read 0 64;exit 0");
    let pid: u32 = caller.line().strip_prefix("pid ").unwrap().parse().unwrap();
    assert_eq!(caller.line(), "waiting");
    caller.kill();
    // Its output has nowhere to go; the child itself goes on.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(world.b.process(pid).is_some(), "the child goes on");
    world.signal(&world.b, "/tmp/test-go");
    within(SOON, "the child has ended", || world.b.process(pid).is_none());
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}
