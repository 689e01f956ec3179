//! What is refused before anything runs: the text names cause and remedy, and nothing is left.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mitosis::id::{Handle, PrepareToken};
use mitosis::wire::frame::{self, FrameError};
use mitosis::wire::local::{ChildEnd, Clock, FailureKind, LocalReply, LocalRequest, ResumeRequest};
use mitosis_hosts::ExecOptions;

use crate::process::{Process, within};
use crate::world::{MITOSIS, Plan, SOON, Seed, World, program, write_secret};

#[test]
fn keys() {
    let world = World::new();
    let (seed, other) = (world.seed(), world.seed());
    world.children(&seed.with_wrong_key(), "exit 0").end().refused(&[
        "key",
        seed.id(),
        "copy the handle whole",
    ]);
    world.on_a(&["resume", &seed.with_wrong_key()]).refused(&["key", "copy the handle whole"]);
    let (place, key) = seed.handle.split_once('#').unwrap();
    world.children(place, "exit 0").end().refused(&["no key", "quote it"]);
    world
        .children(&format!("{place}#{}", &key[..60]), "exit 0")
        .end()
        .refused(&["64 hex digits", "copy it whole"]);
    // The key of one seed does not open another, also where its image is there already.
    assert_eq!(world.children(&seed.handle, "exit 0").end().code, Some(0));
    let mixed = format!("{}#{}", other.handle.split_once('#').unwrap().0, key);
    world.children(&mixed, "exit 0").end().refused(&["key", other.id()]);
    world.children(&seed.with_wrong_key(), "exit 0").end().refused(&["key", seed.id()]);
    world.mitosis(&world.b, &["inspect", &seed.with_wrong_key()]).end().refused(&["key"]);
    // Both are unharmed.
    for seed in [&seed, &other] {
        assert_eq!(world.children(&seed.handle, "read 0 all;exit 7").end().code, Some(7));
        world.on_a(&["drop", seed.id()]).ok();
    }
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn places() {
    let world = World::new();
    let seed = world.seed();
    let on = |host: &str| world.on_a(&["resume", &seed.handle, "--on", host]);
    on("host-z").refused(&["host-z:7370", "does not answer", "--listen"]);
    on("host-b:7399").refused(&["host-b:7399", "does not answer", "refused"]);
    for none in ["", "http://host-b", "host-b:99999", "host-b:abc"] {
        on(none).refused(&[&format!("'{none}' names no host"), "NAME:PORT"]);
    }
    world.on_a(&["resume", &seed.handle, "-n", "0"]).refused(&["1 to"]);
    world.on_a(&["resume", &seed.handle, "-n", "100001"]).refused(&["1 to"]);
    world.on_a(&["resume", &seed.handle, "--env", "=x"]).refused(&["names are not empty"]);
    world.on_a(&["drop", seed.id()]).ok();
    world.children(&seed.handle, "exit 0").end().refused(&["no seed", seed.id(), "dropped"]);
    world.on_a(&["resume", &seed.handle]).refused(&["no seed", seed.id()]);
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn no_remote_listener_without_a_secret() {
    let mut world = World::without_agents(Plan::default());
    let host = world.pair.b();
    let refused = world.b.agent_with(host, &["--listen", "7370"]).end();
    refused.refused(&["secret", "--secret-file", "0600"]);
    let refused =
        world.b.agent_with(host, &["--listen", "7370", "--secret-file", "/no/such"]).end();
    refused.refused(&["/no/such", "head -c 32"]);
    let secret = world.pair.b().outside("/etc/open.secret");
    write_secret(&secret, 1);
    set_mode(&secret, 0o644);
    let open = ["--listen", "7370", "--secret-file", "/etc/open.secret"];
    world.b.agent_with(host, &open).end().refused(&["others", "chmod 600"]);
    set_mode(&secret, 0o600);
    std::fs::write(&secret, "short").unwrap();
    world.b.agent_with(host, &open).end().refused(&["32 bytes", "64 hex"]);

    // Without any secret a host works alone: its handles are for itself.
    let mut agent = world.a.agent_with(world.pair.a(), &[]);
    agent.line();
    world.start_agent(1);
    let seed = world.seed();
    assert!(seed.handle.starts_with("mitosis://local/"), "{}", seed.handle);
    assert_eq!(
        world.on_a(&["resume", &seed.handle, "--payload", "read 0 all;exit 5"]).code,
        Some(5)
    );
    world.children(&seed.handle, "exit 0").end().refused(&[
        "no remote listener",
        "--listen",
        "--secret-file",
    ]);
    // Carried to another host by hand, too: it must not look as if the seed had ended.
    let refused = world.mitosis(&world.b, &["resume", &seed.handle]).end();
    refused.refused(&["--listen"]);
    world.a.agent = Some(agent);
    world.finish();
}

#[test]
fn secrets_that_differ_and_rotate() {
    let mut world = World::without_agents(Plan::default());
    world.start_agent(0);
    let other = world.pair.b().outside("/etc/other.secret");
    write_secret(&other, 2);
    let arguments =
        |secrets| ["--listen", "7370", "--advertise", "host-b:7370", "--secret-file", secrets];
    let mut agent = world.b.agent_with(world.pair.b(), &arguments("/etc/other.secret"));
    agent.line();
    let seed = world.seed();
    world.children(&seed.handle, "exit 0").end().refused(&[
        "host-b:7370",
        "secret differs",
        "--secret-file",
    ]);
    let on_b = world.mitosis(&world.b, &["resume", &seed.handle]).end();
    on_b.refused(&["host-a:7370", "secret differs"]);
    world.mitosis(&world.b, &["shutdown"]).end().ok();
    assert_eq!(agent.end().code, Some(0));
    // While the secret rotates, b shows the old one first and takes both.
    let mut agent =
        world.b.agent_with(world.pair.b(), &arguments("/etc/mitosis.secret,/etc/other.secret"));
    agent.line();
    assert_eq!(world.children(&seed.handle, "read 0 all;exit 7").end().code, Some(7));
    world.b.agent = Some(agent);
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.b);
    world.finish();
}

/// A world whose host-b is bounded.
fn with_limits_on_b(limits: &[&str]) -> World {
    let mut world = World::without_agents(Plan::default());
    world.start_agent(0);
    let secret = ["--secret-file", "/etc/mitosis.secret"];
    let reached = ["--listen", "7370", "--advertise", "host-b:7370"];
    let mut agent = world.b.agent_with(world.pair.b(), &[&reached[..], &secret, limits].concat());
    agent.line();
    world.b.agent = Some(agent);
    world
}

#[test]
fn more_children_than_a_seed_or_a_peer_may_have() {
    let world = with_limits_on_b(&["--max-children-of-seed", "2", "--max-children-of-peer", "3"]);
    let [first, second] = [world.seed(), world.seed()];
    let start = |seed: &Seed, count, payload| {
        let on_b = ["--on", "host-b", "-n", count, "--payload", payload];
        world.mitosis(&world.a, &[&["resume", &seed.handle][..], &on_b].concat())
    };
    let of_seed = "limit of 2 for one seed (max_children_of_seed)";
    start(&first, "3", "exit 0").end().refused(&[first.id(), "3 more children of seed", of_seed]);
    let mut waiting = start(&first, "2", "await /tmp/test-go");
    (0..2).for_each(|_| assert_eq!(waiting.line(), "waiting"));
    start(&first, "1", "exit 0").end().refused(&[first.id(), "1 more children of seed", of_seed]);
    let of_peer = "limit of 3 for one peer (max_children_of_peer)";
    start(&second, "2", "exit 0").end().refused(&["2 more children for 10.", of_peer]);
    assert_eq!(start(&second, "1", "exit 3").end().code, Some(3));
    // A caller of that host is no peer.
    let here = ["resume", &second.handle, "-n", "2", "--payload", "exit 4"];
    assert_eq!(world.mitosis(&world.b, &here).end().code, Some(4));
    world.signal(&world.b, "/tmp/test-go");
    assert_eq!(waiting.end().code, Some(0));
    // Their places are free as soon as their ends are told.
    assert_eq!(start(&first, "2", "exit 5").end().code, Some(5));
    for seed in [&first, &second] {
        world.on_a(&["drop", seed.id()]).ok();
    }
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn more_connections_than_a_peer_may_have() {
    let world = with_limits_on_b(&["--max-connections-of-peer", "1"]);
    let seed = world.seed();
    let mut waiting = world.children(&seed.handle, "pid;await /tmp/test-go");
    assert!(waiting.line().starts_with("pid "));
    world.children(&seed.handle, "exit 0").end().refused(&[
        "10.",
        "has as many connections to this agent as one peer may have, 1 (max_connections_of_peer)",
    ]);
    world.signal(&world.b, "/tmp/test-go");
    assert_eq!(waiting.end().code, Some(0));
    // Its connection closes behind its child's end.
    within(SOON, "a place for another connection", || {
        world.children(&seed.handle, "exit 6").end().code == Some(6)
    });
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn more_images_than_a_peer_may_have() {
    let world = with_limits_on_b(&["--max-images-of-peer", "1", "--linger-s", "0"]);
    let [first, second] = [world.seed(), world.seed()];
    let mut waiting = world.children(&first.handle, "pid;await /tmp/test-go");
    assert!(waiting.line().starts_with("pid "));
    world
        .children(&second.handle, "exit 0")
        .end()
        .refused(&["images for 10.", "as one peer may have, 1 (max_images_of_peer)"]);
    // More of what is there is no more images, and a caller of that host is no peer.
    assert_eq!(world.children(&first.handle, "exit 3").end().code, Some(3));
    let here = ["resume", &second.handle, "--payload", "exit 4"];
    assert_eq!(world.mitosis(&world.b, &here).end().code, Some(4));
    world.signal(&world.b, "/tmp/test-go");
    assert_eq!(waiting.end().code, Some(0));
    within(SOON, "a place for another image", || {
        world.children(&second.handle, "exit 6").end().code == Some(6)
    });
    for seed in [&first, &second] {
        world.on_a(&["drop", seed.id()]).ok();
    }
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn a_socket_or_port_that_is_taken() {
    let world = World::new();
    let host = world.pair.a();
    world.a.agent_with(host, &[]).end().refused(&[
        "/run/mitosis/agent.sock",
        "another agent",
        "--socket",
    ]);
    let secret = world.directory.path().join("secret").display().to_string();
    let taken = ["--listen", "7370", "--secret-file", &secret, "--socket", "/run/other.sock"];
    world.a.agent_with(host, &taken).end().refused(&["7370", "in use", "--listen"]);
    assert!(
        !host.outside("/run/other.sock").exists(),
        "an agent that did not start leaves no socket"
    );
    let seed = world.seed();
    assert_eq!(
        world.children(&seed.handle, "exit 7").end().code,
        Some(7),
        "the first agent is unharmed"
    );
    world.finish();
}

#[test]
fn a_host_without_fuse_keeps_seeds_and_runs_no_children() {
    let mut world = World::without_agents(Plan { programs_on_b: true, ..Plan::default() });
    std::fs::remove_file(world.pair.b().outside("/dev/fuse")).unwrap();
    world.start_agent(0);
    world.start_agent(1);
    let seed = world.seed();
    world.children(&seed.handle, "exit 0").end().refused(&[
        "/dev/fuse",
        "modprobe fuse",
        "--device",
    ]);
    // It prepares; the child runs where there is FUSE.
    let on_b = world.seed_of(&world.b, "suite-told", &[]);
    let here = world.mitosis(&world.b, &["resume", &on_b.handle]).end();
    here.refused(&["/dev/fuse", "modprobe fuse"]);
    let there = world
        .mitosis(
            &world.b,
            &["resume", &on_b.handle, "--on", "host-a", "--payload", "who;read 0 all"],
        )
        .end();
    assert_eq!(there.ok(), "index 0 generation 1 on host-a\nread 2048 pages\n");
    world.mitosis(&world.b, &["drop", on_b.id()]).end().ok();
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

/// `setpriv` to nobody, before a program.
const NOBODY: [&str; 4] = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

#[test]
fn not_root() {
    let plan = Plan {
        programs_on_b: true,
        tools_on_b: vec!["/usr/bin/setpriv", "/usr/bin/env"],
        ..Plan::default()
    };
    let world = World::with(plan);
    let told = program("suite-told").display().to_string();
    let nobody = |command: &[&str]| -> Process {
        let mut line = NOBODY.to_vec();
        line.extend(command);
        Process::start(world.pair.b().command_with(&ExecOptions::default(), line))
    };
    // The agent of the host is root's alone.
    nobody(&[&told]).end_as(3, &["/run/mitosis/agent.sock", "ermission denied"]);
    nobody(&["/bin/mitosis", "ls"]).end().refused(&["ermission denied"]);
    nobody(&["/bin/mitosis", "agent"]).end().refused(&["/run/mitosis/agent.sock", "--socket"]);
    // An agent of nobody's own keeps seeds; it says at once and at a resume why it can run no child.
    let socket = "/tmp/test-nobody.sock";
    let mut agent = nobody(&["/bin/mitosis", "agent", "--socket", socket]);
    agent.line();
    let mut parent = nobody(&["/usr/bin/env", &format!("MITOSIS_AGENT={socket}"), &told]);
    let handle = parent.line().split(' ').next().unwrap().to_owned();
    let refused = nobody(&["/bin/mitosis", "resume", "--socket", socket, &handle]).end();
    refused.refused(&["mounting is not allowed", "run the agent as root"]);
    parent.end().ok();
    nobody(&["/bin/mitosis", "shutdown", "--socket", socket]).end().ok();
    let agent = agent.end();
    assert!(
        agent.err.contains("no child can be resumed on this host") && agent.err.contains("root"),
        "{agent:?}"
    );
    world.settled(&world.b);
    world.finish();
}

#[test]
fn a_member_of_the_sockets_group_has_its_own_and_no_others() {
    let plan =
        Plan { programs_on_b: true, tools_on_b: vec!["/usr/bin/setpriv"], ..Plan::default() };
    let mut world = World::without_agents(plan);
    let mut agent = world.b.agent_with(world.pair.b(), &["--socket-group", "65534"]);
    agent.line();
    world.b.agent = Some(agent);
    let as_user = |who: &[&str], command: &[&str]| -> Process {
        let line = [who, command].concat();
        Process::start(world.pair.b().command_with(&ExecOptions::default(), line))
    };
    let nobody = |command: &[&str]| as_user(&NOBODY, command);
    let told = program("suite-told").display().to_string();
    let roots = world.seed_of(&world.b, "suite-told", &[]);
    let mut parent = nobody(&[&told]);
    let handle = parent.line().split(' ').next().unwrap().to_owned();
    let own = handle.parse::<Handle>().unwrap().seed.to_string();

    // Of its own all, by its own rights.
    let resume = ["/bin/mitosis", "resume", &handle];
    let mut child =
        nobody(&[&resume[..], &["--payload", "pid;await /tmp/test-go;exit 7"]].concat());
    let pid = child.line().split_once(' ').unwrap().1.to_owned();
    let seen = world.b.children_of_keeper();
    let users = seen.iter().filter_map(|seen| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", seen.pid)).ok()?;
        Some(status.contains("Uid:\t65534\t65534\t65534\t65534\n"))
    });
    assert!(users.into_iter().any(|is_nobodys| is_nobodys), "child {pid}: {seen:?}");
    let listed = nobody(&["/bin/mitosis", "ls"]).end().ok();
    assert!(listed.contains(&own) && !listed.contains(roots.id()), "{listed}");
    let all = world.mitosis(&world.b, &["ls"]).end().ok();
    assert!(all.contains(&own) && all.contains(roots.id()), "{all}");

    // Of others nothing, and nothing that takes the agent's rights.
    let lacks = "resume another user's seed, whose children have rights that it may lack";
    let others = nobody(&["/bin/mitosis", "resume", &roots.handle, "--payload", "exit 0"]).end();
    others.refused(&["user 65534 may not", lacks]);
    let dropped = nobody(&["/bin/mitosis", "drop", roots.id()]).end();
    dropped.refused(&["no seed", roots.id()]);
    nobody(&["/bin/mitosis", "inspect", roots.id()]).end().refused(&["no seed", roots.id()]);
    // Nor by its handle.
    for verb in ["drop", "inspect"] {
        let ended = nobody(&["/bin/mitosis", verb, &roots.handle]).end();
        ended.refused(&["no seed", roots.id()]);
    }
    let elsewhere = nobody(&[&resume[..], &["--cwd", "/tmp"]].concat()).end();
    elsewhere.refused(&["user 65534 may not choose the directory of children (--cwd)"]);
    let listens = nobody(&[&resume[..], &["--listen", "all"]].concat()).end();
    listens.refused(&["user 65534 may not have the agent bind sockets"]);
    let named = nobody(&[&resume[..], &["--hostname", "x"]].concat()).end();
    named.refused(&["user 65534 may not have children enter groups or namespaces"]);
    let there = nobody(&[&resume[..], &["--on", "host-a"]].concat()).end();
    there.refused(&["user 65534 may not resume across hosts"]);
    nobody(&["/bin/mitosis", "shutdown"]).end().refused(&["user 65534 may not end the agent"]);
    let mut roots_child = world.mitosis(
        &world.b,
        &["resume", &roots.handle, "--payload", "pid;await /tmp/test-go;exit 5"],
    );
    roots_child.line();
    let children = world.mitosis(&world.b, &["ls", "--json"]).end();
    let children: serde_json::Value = serde_json::from_str(&children.ok()).unwrap();
    let of_root = children["children"].as_array().unwrap().iter();
    let of_root = of_root.filter(|child| child["seed"] == roots.id()).map(|child| &child["child"]);
    let of_root: Vec<&str> = of_root.map(|child| child.as_str().unwrap()).collect();
    assert_eq!(of_root.len(), 1, "{children}");
    nobody(&["/bin/mitosis", "kill", of_root[0]]).end().refused(&["no child", of_root[0]]);
    // Who is in no such group does not reach it.
    let stranger = ["/usr/bin/setpriv", "--reuid=4321", "--regid=4321", "--clear-groups"];
    as_user(&stranger, &["/bin/mitosis", "ls"]).end().refused(&["ermission denied"]);

    world.signal(&world.b, "/tmp/test-go");
    assert_eq!((child.end().code, roots_child.end().code), (Some(7), Some(5)));
    parent.end().ok();
    nobody(&["/bin/mitosis", "drop", &own]).end().ok();
    world.mitosis(&world.b, &["drop", roots.id()]).end().ok();
    world.settled(&world.b);
    world.finish();
}

/// From the moment that a drop returns, also on a host that has all that a child needs.
#[test]
fn no_child_after_a_drop() {
    let world = World::new();
    for _ in 0..12 {
        let seed = world.seed();
        let resume = || world.mitosis(&world.b, &["resume", &seed.handle, "--payload", "exit 7"]);
        assert_eq!(resume().end().code, Some(7));
        let (dropped, begun) = (world.on_a(&["drop", seed.id()]), Instant::now());
        dropped.ok();
        resume().end().refused(&["no seed", seed.id()]);
        assert!(begun.elapsed() < Duration::from_secs(4), "nobody was waited for");
    }
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

/// Whatever made the caller ask twice.
#[test]
fn a_request_is_carried_out_once() {
    let world = World::new();
    let seed = world.seed();
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let request = LocalRequest::Resume(Box::new(ResumeRequest {
        handle: seed.handle.parse().unwrap(),
        host: Some("host-b".to_owned()),
        count: 1,
        payload: b"exit 7".to_vec(),
        environment: Vec::new(),
        seed_ends_with_children: false,
        listen: Vec::new(),
        request_id: 77,
        new_ids: false,
        clock: Clock::Live,
        cwd: None,
        hostname: None,
        cgroup: None,
        namespaces: Vec::new(),
        argv: Vec::new(),
        id_map: Vec::new(),
    }));
    let ask = || {
        let mut stream = world.say(&world.a, &request, &[null.as_fd(); 3]);
        let reply = frame::read::<LocalReply>(&mut stream).unwrap();
        (stream, reply)
    };
    let (mut first, reply) = ask();
    assert!(matches!(reply, LocalReply::Started { .. }), "{reply:?}");
    let (_, again) = ask();
    let LocalReply::Failed(failure) = again else { panic!("{again:?}") };
    assert!(failure.message.contains("was asked for before"), "{failure}");
    let ended = frame::read::<LocalReply>(&mut first).unwrap();
    assert!(matches!(ended, LocalReply::Exited { end: ChildEnd::Exited(7), .. }), "{ended:?}");
    assert_eq!(world.children_started_on_b(), 1);
    world.finish();
}

/// Its seed comes late, and it has given up.
#[test]
fn a_caller_that_has_gone_gets_no_children() {
    let world = World::new();
    let seed = world.seed();
    world.pair.cut_link().unwrap();
    let mut command = world.mitosis(&world.b, &["resume", &seed.handle, "--payload", "exit 7"]);
    std::thread::sleep(Duration::from_millis(500));
    assert!(!command.has_ended());
    command.kill();
    world.pair.restore_link().unwrap();
    // Its image is there: the request was carried on with, as far as it goes.
    within(SOON, "the seed has come", || world.stats_of_b()["pages_pushed"] != 0);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(world.children_started_on_b(), 0);
    let again = world.mitosis(&world.b, &["resume", &seed.handle, "--payload", "exit 7"]);
    assert_eq!(again.end().code, Some(7));
    assert_eq!(world.children_started_on_b(), 1);
    world.finish();
}

/// What a seed of another installation would say; its parent need not wait to learn of it.
#[test]
fn a_report_that_does_not_parse_is_told_to_the_parent() {
    let world = World::new();
    let null = std::fs::File::open("/dev/null").unwrap();
    for (report, fds, kind, word) in [
        (&b"MITOSEED\x09\0\0\0"[..], 3, FailureKind::Protocol, "another version"),
        (b"MITOSEED\x02\0\0\0\x02\0\0\0\x08\0\0\0", 3, FailureKind::Protocol, "is broken"),
        (b"MITOSEED\x02\0\0\0", 2, FailureKind::Protocol, "2 descriptors"),
    ] {
        let token = PrepareToken::random();
        let begun = Instant::now();
        let request = LocalRequest::Report { token, report: report.to_vec() };
        let seed = world.say(&world.a, &request, &vec![null.as_fd(); fds]);
        let mut parent = world.say(&world.a, &LocalRequest::Await { token }, &[]);
        let Ok(LocalReply::Failed(failure)) = frame::read(&mut parent) else { panic!("{word}") };
        assert_eq!(failure.kind, kind);
        assert!(failure.message.contains(word), "{failure}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(matches!(frame::read::<LocalReply>(&mut &seed), Err(FrameError::Closed)));
    }
    world.settled(&world.a);
    world.finish();
}

#[test]
fn bytes_that_are_no_greeting_harm_nobody() {
    let world = World::new();
    let seed = world.seed();
    let script = "for n in 1 2 3 4 5 6 7 8; do exec 3<>/dev/tcp/host-b/7370; printf 'GET / HTTP/1.1\\r\\n\\r\\n' >&3; \
        exec 3<>/dev/tcp/host-b/7370; printf 'MITOCTRL\\1\\0\\0\\0\\377\\377garbage' >&3; \
        exec 3<>/dev/tcp/host-b/7370; printf 'MITOCTRL\\11\\0\\0\\0' >&3; \
        exec 3<>/dev/tcp/host-b/7370; printf 'MITOREAD\\1\\0\\0\\0' >&3; \
        exec 3<>/dev/tcp/host-b/7370; head -c 4000 /dev/zero >&3; \
        exec 3<>/dev/tcp/host-b/7370; done";
    world.run(&world.a, &["/bin/bash", "-c", script]).end();
    assert_eq!(world.children(&seed.handle, "read 0 all;exit 7").end().code, Some(7));
    let _ = MITOSIS;
    world.finish();
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
