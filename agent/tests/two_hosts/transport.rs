//! What moves between the hosts, by how many connections, and that the seed's process has no part in it.

use std::fs;

use mitosis::fabric::tcp::Limits;

use crate::process::{Process, within};
use crate::world::{Plan, SOON, World, program};

/// All that the scheduler knows of a process's time: ns on a CPU, ns in a queue, turns; and its switches.
fn turns(pid: i32) -> String {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let status = read("status");
    let switches: Vec<&str> = status.lines().filter(|line| line.contains("ctxt")).collect();
    format!("{} {switches:?}", read("schedstat").trim())
}

/// Its memory is read from outside: whoever reads all of it, it does not run.
#[test]
fn a_seed_runs_no_line_for_its_readers() {
    let world = World::new();
    let seed = world.seed();
    let pid = world.a.process(seed.pid).unwrap().pid;
    // It is asleep once it is published, and its rehearsal over.
    assert_eq!(world.children(&seed.handle, "exit 7").end().code, Some(7));
    let before = turns(pid);
    assert!(before.contains("ctxt"), "{before}");
    let hosts = ["host-b", "host-a", "host-b", "host-a", "host-b"];
    for host in hosts {
        let all =
            ["resume", &seed.handle, "--on", host, "--payload", "scatter 64;read 0 all;exit 7"];
        assert_eq!(world.on_a(&all).code, Some(7), "{host}");
    }
    assert!(world.stats_of_b()["pages_pulled"].as_u64().unwrap() >= 2048);
    assert_eq!(turns(pid), before);
    world.finish();
}

/// When the push, which goes on beside the first child, has ended.
fn moved(world: &World) -> u64 {
    let count = || {
        let stats = world.stats_of_b();
        ["pages_pulled", "pages_pushed"].iter().map(|name| stats[*name].as_u64().unwrap()).sum()
    };
    let mut before: u64 = count();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let now = count();
        if now == before {
            return now;
        }
        before = now;
    }
}

/// A child on host-b that waits, after it has run code of its program.
fn waiting(world: &World, handle: &str) -> (Process, i32) {
    let mut child = world.children(handle, "who;pid;await /tmp/test-go;exit 7");
    child.line();
    let pid: u32 = child.line().strip_prefix("pid ").unwrap().parse().unwrap();
    assert_eq!(child.line(), "waiting");
    (child, world.b.process(pid).unwrap().pid)
}

fn maps(pid: i32, path: &str) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().any(|line| line.ends_with(path))
}

/// A file that host-b has, byte for byte, is mapped from there and nothing of it moves; one that differs, be it
/// by its last byte, is the seed's.
#[test]
fn files_that_are_identical_are_not_sent_and_others_are_carried() {
    let told = program("suite-told");
    let name = told.display().to_string();
    let mut counts = Vec::new();
    for is_changed in [false, true] {
        let world = World::with(Plan { programs_on_b: true, ..Plan::default() });
        if is_changed {
            let mut bytes = fs::read(&told).unwrap();
            bytes.push(0);
            fs::write(world.pair.b().outside(&name), bytes).unwrap();
        }
        let seed = world.seed();
        let (child, pid) = waiting(&world, &seed.handle);
        assert_eq!(maps(pid, &name), !is_changed);
        let from_files = world.stats_of_b()["pages_from_files"].as_u64().unwrap();
        counts.push((moved(&world), from_files));
        world.signal(&world.b, "/tmp/test-go");
        assert_eq!(child.end().code, Some(7));
        world.finish();
    }
    let [(identical, from_files), (differing, _)] = counts[..] else { panic!("{counts:?}") };
    // Code that holds calls that lead to the stub is the image's, with its bytes from the file here.
    assert!(from_files > 0, "{counts:?}");
    assert!(identical < differing, "{counts:?}");
}

/// Connections of host-b to the port of host-a's agent.
fn connections(world: &World) -> usize {
    const ESTABLISHED: &str = "01";
    let port = format!(":{:04X}", 7370);
    let pid = world.pair.b().record().init_pid;
    let tables = ["tcp", "tcp6"].map(|file| fs::read_to_string(format!("/proc/{pid}/net/{file}")));
    let lines = tables.iter().flatten().flat_map(|table| table.lines().skip(1));
    let fields = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[2].ends_with(&port) && fields[3] == ESTABLISHED).count()
}

/// Streams belong to the pair of hosts: a child more is no connection more.
#[test]
fn children_share_the_streams_between_their_hosts() {
    /// The seed's lease, and connections that are kept for the next request.
    const CONTROL: usize = 1 + 4;
    const CHILDREN: usize = 40;
    let world = World::new();
    let seed = world.seed();
    let count = CHILDREN.to_string();
    let all = "scatter 512;read 0 all;await /tmp/test-go;exit 7";
    let mut caller = world.mitosis(
        &world.a,
        &["resume", &seed.handle, "--on", "host-b", "-n", &count, "--payload", all],
    );
    let (mut most, mut waiting) = (0, 0);
    while waiting < CHILDREN {
        most = most.max(connections(&world));
        waiting += usize::from(caller.line() == "waiting");
    }
    most = most.max(connections(&world));
    let limit = Limits::default().connections_per_peer + CONTROL;
    assert!((1..=limit).contains(&most), "{most} connections, {limit} allowed");
    assert!(limit < CHILDREN);
    world.signal(&world.b, "/tmp/test-go");
    assert_eq!(caller.end().code, Some(7));
    within(SOON, "all have ended", || world.stats_of_b()["children_started"] == CHILDREN);
    world.finish();
}
