//! The command line: each verb, for people and with `--json`.

use serde_json::Value;

use crate::world::{MITOSIS, Plan, World};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_handle_is_taken_from_a_file_and_from_standard_input() {
    let world = World::new();
    let seed = world.seed();
    let file = world.directory.path().join("handle");
    std::fs::write(&file, format!("  {}\n", seed.handle)).unwrap();
    let at_file = format!("@{}", file.display());
    assert_eq!(
        world.on_a(&["resume", &at_file, "--on", "host-b", "--payload", "exit 3"]).code,
        Some(3)
    );
    let mut resume =
        world.mitosis(&world.a, &["resume", "-", "--on", "host-b", "--payload", "exit 4"]);
    resume.tell(&format!("{}\n", seed.handle));
    assert_eq!(resume.end().code, Some(4));
    world.on_a(&["resume", "@/no/such", "--on", "host-b"]).refused(&["/no/such"]);
    world.on_a(&["resume", "-"]).refused(&["no handle"]);
    // The key stands in no process list of an agent, and no text shows it.
    let key = seed.handle.split_once('#').unwrap().1;
    for verb in
        [&["ls"][..], &["ls", "--json"], &["inspect", seed.id()], &["inspect", seed.id(), "--json"]]
    {
        assert!(!world.on_a(verb).ok().contains(key), "{verb:?} shows the key");
    }
    world.finish();
}

#[test]
fn resume_tells_in_json() {
    let world = World::new();
    let seed = world.seed();
    let said = world.on_a(&[
        "resume",
        "--json",
        "-n",
        "2",
        &seed.handle,
        "--on",
        "host-b",
        "--payload",
        "exit 8",
    ]);
    assert_eq!(said.code, Some(8), "{said:?}");
    let lines: Vec<Value> = said.out.lines().map(json).collect();
    assert_eq!(lines.len(), 4, "{said:?}");
    for line in &lines[..2] {
        assert_eq!(line["host"], "host-b");
        assert!(line["pid"].as_u64().unwrap() > 1);
        assert!(line["descriptor_bytes"].as_u64().unwrap() > 1000);
        assert!(line["pages_total"].as_u64().unwrap() > 2048);
        assert!(line["started_at_ns"].as_u64() >= line["requested_at_ns"].as_u64());
        assert_eq!(line["new_template"], true);
    }
    for line in &lines[2..] {
        assert_eq!(line["end"]["exited"], 8);
    }
    assert_eq!(lines[0]["child"], lines[2]["child"]);
    let said =
        world.on_a(&["resume", "--json", &seed.handle, "--on", "host-b", "--payload", "signal 9"]);
    assert_eq!(json(said.out.lines().nth(1).unwrap())["end"]["signalled"], 9);
    world.finish();
}

#[test]
fn ls_inspect_drop_and_stats() {
    let world = World::new();
    let seed = world.seed();
    let mut child = world.children(&seed.handle, "pid;await /tmp/test-go");
    let pid = child.line().strip_prefix("pid ").unwrap().to_owned();
    let seeds = json(&world.on_a(&["ls", "--json"]).ok());
    assert_eq!(seeds["seeds"][0]["seed"], seed.id());
    assert_eq!(seeds["seeds"][0]["pid"], seed.pid);
    assert_eq!(seeds["seeds"][0]["state"], "published");
    assert_eq!(seeds["seeds"][0]["holders"], 1);
    assert!(seeds["seeds"][0]["exe"].as_str().unwrap().ends_with("suite-told"));
    let children = json(&world.on_b(&["ls", "--json"]).ok());
    assert_eq!(children["children"][0]["pid"].to_string(), pid);
    assert_eq!(children["children"][0]["seed"], seed.id());
    assert_eq!(children["seeds"].as_array().unwrap().len(), 0);
    assert!(world.on_a(&["ls"]).ok().contains(seed.id()));
    assert!(world.on_b(&["ls"]).ok().contains(&pid));

    let of_handle = json(&world.on_b(&["inspect", "--json", &seed.handle]).ok());
    let of_id = json(&world.on_a(&["inspect", "--json", seed.id()]).ok());
    assert_eq!(of_handle, of_id);
    assert_eq!(of_id["seed"], seed.id());
    assert_eq!(of_id["owners"][0]["exports"][0], "tcp host-a:7370");
    let text = world.on_a(&["inspect", seed.id()]).ok();
    assert!(text.contains("suite-told") && text.contains("[stack]"), "{text}");
    for (machine, which) in [(&world.b, seed.handle.as_str()), (&world.a, seed.id())] {
        let program = world.mitosis(machine, &["inspect", "--program", which]).end().ok();
        assert!(program.contains("munmap") && program.contains("mmap"), "{program}");
    }
    let stats = json(&world.on_a(&["stats", "--json"]).ok());
    assert_eq!(stats["seeds_published"], 1);
    assert!(stats["bytes_served"].as_u64().unwrap() > 4096);
    assert!(world.on_b(&["stats"]).ok().contains("children_started   1"));

    // Dropped, it takes no new children; the one that runs goes on.
    let dropped = json(&world.on_a(&["drop", "--json", seed.id()]).ok());
    assert_eq!(
        (dropped["dropped"].as_str(), dropped["revoked"].as_bool()),
        (Some(seed.id()), Some(false))
    );
    assert_eq!(json(&world.on_a(&["ls", "--json"]).ok())["seeds"][0]["state"], "dropping");
    world.children(&seed.handle, "exit 0").end().refused(&["no seed", "dropped"]);
    assert_eq!(child.line(), "waiting");
    world.signal(&world.b, "/tmp/test-go");
    assert_eq!(child.end().code, Some(0));
    world.settled(&world.a);
    world.settled(&world.b);
    world.on_a(&["drop", seed.id()]).refused(&[seed.id(), "no seed"]);
    world.finish();
}

#[test]
fn verbs_without_an_agent_say_where_they_looked() {
    let world = World::without_agents(crate::world::Plan::default());
    for verb in [&["ls"][..], &["stats"], &["drop", "0123456789abcdef"], &["shutdown"]] {
        world.on_b(verb).refused(&["/run/mitosis/agent.sock", "mitosis agent"]);
    }
    world.on_b(&["ls", "--socket", "/run/other.sock"]).refused(&["/run/other.sock"]);
    world.on_b(&["drop", "xyz"]).refused(&["not a handle"]);
    world.finish();
}

/// As for the library: shells and service files leave variables empty that they do not mean.
#[test]
fn an_empty_variable_is_none() {
    let world = World::without_agents(Plan::default());
    let names = ["AGENT", "LISTEN", "ADVERTISE", "SECRET_FILE", "PAGER_CPUS", "LOG"];
    let numbers = ["MISS_DEADLINE_MS", "PEER_DEADLINE_MS", "LINGER_S", "RDMA_SILENCE_MS"];
    let variables: Vec<String> =
        names.iter().chain(&numbers).map(|name| format!("MITOSIS_{name}=")).collect();
    let with = |verb: &'static str| {
        let mut command = vec!["/usr/bin/env"];
        command.extend(variables.iter().map(String::as_str));
        command.extend([MITOSIS, verb]);
        world.run(&world.a, &command)
    };
    let mut agent = with("agent");
    assert_eq!(agent.line(), "mitosis agent ready on /run/mitosis/agent.sock");
    with("ls").end().ok();
    with("shutdown").end().ok();
    let agent = agent.end();
    assert_eq!((agent.code, agent.err.as_str()), (Some(0), ""), "{agent:?}");
    world.finish();
}
