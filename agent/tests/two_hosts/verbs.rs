//! The command line: each verb, for people and with `--json`.

use std::process::Command;

use serde_json::Value;

use crate::process::{Process, within};
use crate::world::{MITOSIS, Plan, SOON, Seen, World, program};

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
        let (_, tail) = program.split_once("each child:\n").unwrap();
        assert!(tail.contains("getppid") && tail.contains("rt_sigreturn"), "{program}");
    }
    let stats = json(&world.on_a(&["stats", "--json"]).ok());
    assert_eq!(stats["seeds_published"], 1);
    assert!(stats["bytes_served"].as_u64().unwrap() > 4096);
    let now = |stats: &Value| {
        ["seeds", "leases_given", "children", "leases_held"]
            .map(|name| stats[name].as_u64().unwrap())
    };
    assert_eq!(now(&stats), [1, 1, 0, 0]);
    let of_b = world.stats_of_b();
    assert_eq!(now(&of_b), [0, 0, 1, 1]);
    // It has not touched the array of 8 MiB, and has written to its stack at least.
    assert!(of_b["bytes_remote"].as_u64().unwrap() > 4 << 20, "{of_b}");
    assert!(of_b["bytes_shared"].as_u64().unwrap() > 0, "{of_b}");
    assert!(of_b["bytes_private"].as_u64().unwrap() >= 4096, "{of_b}");
    let timed = of_b["miss_times"]["count"].as_u64().unwrap();
    assert!((1..=of_b["misses"].as_u64().unwrap()).contains(&timed), "{of_b}");
    let percentiles = ["miss_p50_ns", "miss_p99_ns"].map(|name| of_b[name].as_u64().unwrap());
    assert!(0 < percentiles[0] && percentiles[0] <= percentiles[1], "{of_b}");
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

/// Whoever shows a handle must have the right one.
#[test]
fn a_handle_drops_the_seed_that_it_is_of() {
    let world = World::new();
    let seed = world.seed();
    world.on_a(&["drop", &seed.with_wrong_key()]).refused(&["key", "copy the handle whole"]);
    let elsewhere = ["run 'mitosis drop' on that host", "host-a:7370"];
    world.on_b(&["drop", &seed.handle]).refused(&elsewhere);
    let of_b = seed.handle.replace("host-a:", "host-b:");
    world.on_a(&["drop", &of_b]).refused(&["host-b:7370", "run 'mitosis drop' on that host"]);
    let mut child = world.children(&seed.handle, "await /tmp/test-go");
    child.line();
    world.on_a(&["drop", &seed.handle]).ok();
    // While its last child runs, too.
    world.on_a(&["drop", "--revoke", &seed.handle]).ok();
    world.signal(&world.b, "/tmp/test-go");
    child.end();
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

/// As from a terminal: whoever runs the tests may have them ignore SIGINT.
const AT_A_TERMINAL: [&str; 2] = ["/usr/bin/env", "--default-signal=INT,HUP,TERM"];

/// A seed whose children do `before` with SIGINT: the shell's words.
fn seed_at_a_terminal(world: &World, before: &str) -> String {
    let [env, default] = AT_A_TERMINAL;
    let told = program("suite-told").display().to_string();
    let script = format!("{before} exec {told}");
    let mut parent = world.run(&world.a, &[env, default, "/bin/bash", "-c", &script]);
    let handle = parent.line().split(' ').next().unwrap().to_owned();
    parent.end().ok();
    handle
}

/// A child that sleeps, its caller in the foreground, and its number on host-b.
fn sleeping(world: &World, handle: &str) -> (Process, u32) {
    let [env, default] = AT_A_TERMINAL;
    let resume = ["resume", handle, "--on", "host-b", "--payload", "pid;sleep"];
    let mut line = vec![env, default, MITOSIS];
    line.extend(resume);
    let mut caller = world.run(&world.a, &line);
    let pid = caller.line().strip_prefix("pid ").unwrap().parse().unwrap();
    (caller, pid)
}

/// The caller of `mitosis resume`, told by a signal.
fn tell(world: &World, signal: &str) {
    let seen = world.a.processes();
    let is_caller = |seen: &&Seen| {
        seen.command.contains("mitosis resume") && !seen.command.contains("--default-signal")
    };
    let callers: Vec<i32> = seen.iter().filter(is_caller).map(|seen| seen.pid).collect();
    assert_eq!(callers.len(), 1, "{seen:?}");
    let pid = callers[0].to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

#[test]
fn signals_to_a_resume_reach_its_children() {
    let world = World::new();
    let handle = seed_at_a_terminal(&world, "");
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        let (caller, _) = sleeping(&world, &handle);
        tell(&world, signal);
        let ended = caller.end();
        assert_eq!(ended.code, Some(code), "{signal}: {ended:?}");
        within(SOON, "the child has ended", || {
            json(&world.on_b(&["ls", "--json"]).ok())["children"].as_array().unwrap().is_empty()
        });
    }
    world.finish();
}

#[test]
fn a_second_interrupt_leaves_children_that_ignore_it() {
    let world = World::new();
    let handle = seed_at_a_terminal(&world, "trap '' INT;");
    let (mut resume, pid) = sleeping(&world, &handle);
    tell(&world, "-INT");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!resume.has_ended());
    tell(&world, "-INT");
    within(SOON, "the caller has left", || resume.has_ended());
    assert!(world.b.process(pid).is_some(), "the child goes on");
    // It is ended by its name.
    let children = json(&world.on_b(&["ls", "--json"]).ok());
    let child = children["children"][0]["child"].as_str().unwrap();
    world.on_a(&["kill", child, "--on", "host-b", "--signal", "loud"]).refused(&["--signal loud"]);
    world.on_a(&["kill", "12", "--on", "host-b"]).refused(&["'12' is not a child id"]);
    world.on_a(&["kill", child]).refused(&[child]);
    let killed = json(&world.on_a(&["kill", "--json", child, "--on", "host-b"]).ok());
    assert_eq!((killed["child"].as_str(), killed["signal"].as_i64()), (Some(child), Some(15)));
    within(SOON, "the child has ended", || world.b.process(pid).is_none());
    let ended = resume.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.err.contains("a second one leaves them running"), "{ended:?}");
    world.finish();
}

#[test]
fn every_line_is_json_if_that_is_wanted() {
    let mut world = World::without_agents(Plan::default());
    let mut agent = world.b.agent_with(world.pair.b(), &["--json"]);
    let ready = json(&agent.line());
    assert_eq!(ready["ready"]["socket"], "/run/mitosis/agent.sock");
    assert!(ready["ready"]["address"].is_null());
    let refused = world.on_b(&["drop", "--json", "0123456789abcdef"]);
    assert_eq!(refused.code, Some(1));
    assert!(json(&refused.err)["error"].as_str().unwrap().contains("no seed"), "{refused:?}");
    let ended = json(&world.on_b(&["shutdown", "--json"]).ok());
    assert_eq!(ended["shutdown"], "/run/mitosis/agent.sock");
    assert_eq!(agent.end().code, Some(0));
    world.start_agent(0);
    world.finish();
}

#[test]
fn settings_that_cannot_be_right_are_refused() {
    let world = World::without_agents(Plan::default());
    let agent = |arguments: &[&str]| world.b.agent_with(world.pair.b(), arguments).end();
    agent(&["--advertise", "http://b"]).refused(&["--advertise", "'http://b' names no host"]);
    agent(&["--pager-cpus", "1023"]).refused(&["--pager-cpus 1023", "may not run there"]);
    for deadline in ["--miss-deadline-ms", "--peer-deadline-ms"] {
        agent(&[deadline, "0"]).refused(&[deadline, "give a whole number"]);
    }
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

/// Checks of `mitosis doctor --peer` by name, each its standing and its remedy.
fn peer_checks(world: &World, peer: &str, flags: &[&str]) -> (Option<i32>, Value) {
    let mut line = vec!["doctor", "--json", "--peer", peer, "--"];
    line.extend(flags);
    let ended = world.on_a(&line);
    (ended.code, json(&ended.out)["checks"].clone())
}

/// The check of that name: its standing and its remedy.
#[track_caller]
fn check<'a>(checks: &'a Value, name: &str) -> (&'a str, &'a str) {
    let own = checks.as_array().unwrap().iter().find(|check| check["name"] == name);
    let own = own.unwrap_or_else(|| panic!("no {name} in {checks}"));
    (own["standing"].as_str().unwrap(), own["remedy"].as_str().unwrap_or(""))
}

#[test]
fn doctor_looks_at_a_peer() {
    let mut world = World::without_agents(Plan::default());
    let secret = world.directory.path().join("secret").display().to_string();
    let known = ["--secret-file", secret.as_str()];
    let (code, checks) = peer_checks(&world, "host-b", &known);
    let (standing, remedy) = check(&checks, "its port");
    assert_eq!((code, standing), (Some(1), "missing"), "{checks}");
    assert!(remedy.contains("mitosis agent --listen"), "{remedy}");

    world.start_agent(0);
    world.start_agent(1);
    let (code, checks) = peer_checks(&world, "host-b", &known);
    assert_eq!(code, Some(0), "{checks}");
    for name in ["its port", "the secret", "its agent", "pages come by"] {
        assert_eq!(check(&checks, name).0, "fine", "{checks}");
    }
    // A machine may be slow.
    check(&checks, "the way there");
    // Those two hosts are one machine, whose clock of the day they share.
    assert_eq!(check(&checks, "its clock").0, "fine", "{checks}");

    let other = world.directory.path().join("other").display().to_string();
    std::fs::write(&other, [7; 32]).unwrap();
    std::fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (code, checks) = peer_checks(&world, "host-b:7370", &["--secret-file", &other]);
    assert_eq!((code, check(&checks, "the secret").0), (Some(1), "missing"), "{checks}");
    let (code, checks) = peer_checks(&world, "host-b:7370", &[]);
    assert_eq!((code, check(&checks, "the secret").0), (Some(1), "missing"), "{checks}");
    assert!(check(&checks, "the secret").1.contains("--secret-file"), "{checks}");
    for (name, remedy) in [("no-such-host.invalid", "/etc/hosts"), ("no/host", "NAME:PORT")] {
        let (code, checks) = peer_checks(&world, name, &known);
        assert_eq!(code, Some(1), "{checks}");
        assert!(check(&checks, "its port").1.contains(remedy), "{checks}");
    }
    world.finish();
}

/// Runs its arguments with a terminal as standard error alone, and prints what came there.
const AT_STDERR: &str = r#"
import os, pty, subprocess, sys
ours, theirs = pty.openpty()
run = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs)
os.close(theirs)
said = b""
while True:
    try:
        got = os.read(ours, 4096)
    except OSError:
        break
    if not got:
        break
    said += got
sys.stdout.write(said.decode())
sys.exit(run.wait())
"#;

#[test]
fn several_children_have_a_bar_on_a_terminal_alone() {
    let world = World::new();
    let seed = world.seed();
    let resume = |n: &'static str, commands: &'static str| {
        [MITOSIS, "resume", &seed.handle, "-n", n, "--on", "host-b", "--payload", commands]
            .map(str::to_owned)
    };
    let at_terminal = |line: &[String]| {
        let mut all = vec!["python3", "-c", AT_STDERR];
        all.extend(line.iter().map(String::as_str));
        world.run(&world.a, &all).end()
    };
    let shown = at_terminal(&resume("3", "exit 0"));
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.out.contains("of 3 children have ended\x1b[K"), "{shown:?}");
    assert!(shown.out.trim_end_matches('\n').ends_with("\r\x1b[K"), "{shown:?}");
    let alone = at_terminal(&resume("1", "exit 0"));
    assert_eq!((alone.code, alone.out.as_str()), (Some(0), ""), "{alone:?}");
    let line = resume("3", "exit 0");
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let quiet = world.run(&world.a, &line).end();
    assert_eq!((quiet.code, quiet.err.as_str()), (Some(0), ""), "{quiet:?}");
    world.finish();
}
