//! What becomes of children when something they live on goes away: a text, a deadline, nothing left behind.

use std::time::{Duration, Instant};

use crate::process::{Process, within};
use crate::world::{Plan, SOON, World};

/// Short, so that the tests are.
const DEADLINE: Duration = Duration::from_millis(1500);
const DEADLINES: [&str; 2] = ["--miss-deadline-ms", "1500"];
/// Exit status of a `resume` whose child's end is not known or that lost a page.
const LOST: i32 = 125;
/// What the machine may add to a deadline under load.
const SLACK: Duration = Duration::from_millis(1500);

fn world() -> World {
    World::with(Plan { agents: DEADLINES.to_vec(), ..Plan::default() })
}

/// A child on host-b that has read some pages and waits for `/tmp/test-go` to read all others; its caller is
/// on host-b, too, so that it outlives host-a.
fn reader(world: &World, handle: &str) -> Process {
    let commands = "read 0 4;await /tmp/test-go;scatter 3000;exit 0";
    let mut caller = world.mitosis(&world.b, &["resume", handle, "--payload", commands]);
    assert_eq!(caller.line(), "read 4 pages");
    assert_eq!(caller.line(), "waiting");
    caller
}

/// The child has lost a page: its line on its standard error, and the waiter's.
fn assert_lost(world: &World, caller: Process, seed: &str, words: &[&str]) {
    let ended = caller.end();
    assert_eq!(ended.code, Some(LOST), "{ended:?}");
    let line = format!("mitosis: page lost: seed {seed} on host host-a:7370, address 0x");
    let own: Vec<&str> = ended.err.lines().filter(|text| text.starts_with(&line)).collect();
    assert_eq!(own.len(), 1, "one line from the child: {ended:?}");
    let told = ended
        .err
        .lines()
        .filter(|text| text.contains("mitosis: child") && text.contains("page lost"));
    assert_eq!(told.count(), 1, "and one from the waiter: {ended:?}");
    for word in words {
        assert!(ended.err.contains(word), "no '{word}' in {ended:?}");
    }
    assert!(ended.took < DEADLINE + SLACK, "{:?}", ended.took);
    assert!(!ended.out.contains("scattered"), "{ended:?}");
    world.settled(&world.b);
}

#[test]
fn the_seeds_agent_is_killed() {
    let agents = [&DEADLINES[..], &["--restart-grace-s", "0"]].concat();
    let mut world = World::with(Plan { agents, ..Plan::default() });
    let seed = world.seed();
    let caller = reader(&world, &seed.handle);
    world.a.kill_agent();
    within(SOON, "the seed ends with its agent", || world.a.process(seed.pid).is_none());
    world.signal(&world.b, "/tmp/test-go");
    assert_lost(&world, caller, seed.id(), &[]);
    // Nothing of its keeper is left, and a new agent takes its place.
    within(SOON, "the keeper ends", || {
        !world.a.processes().iter().any(|seen| seen.command.contains("keeper"))
    });
    world.start_agent(0);
    let seed = world.seed();
    assert_eq!(world.children(&seed.handle, "read 0 all;exit 7").end().code, Some(7));
    world.finish();
}

#[test]
fn the_childrens_agent_is_killed() {
    let mut world = world();
    let seed = world.seed();
    let mut caller = world.children(&seed.handle, "pid;sleep");
    let pid: u32 = caller.line().strip_prefix("pid ").unwrap().parse().unwrap();
    world.b.kill_agent();
    let killed = Instant::now();
    let ended = caller.end();
    assert!(killed.elapsed() < SOON);
    assert_eq!(ended.code, Some(LOST), "{ended:?}");
    assert!(ended.err.contains("host-b") && ended.err.contains("gone"), "{ended:?}");
    within(SOON, "the child ends with its agent", || world.b.process(pid).is_none());
    within(SOON, "the keeper, too", || {
        world.b.processes().iter().all(|seen| seen.command.starts_with("hosts-"))
    });
    // The seed is unharmed; a new agent on host-b finds it.
    world.start_agent(1);
    assert_eq!(world.children(&seed.handle, "read 0 all;exit 7").end().code, Some(7));
    world.finish();
}

#[test]
fn the_callers_own_agent_is_killed() {
    let mut world = world();
    let seed = world.seed();
    let mut caller = world.children(&seed.handle, "pid;sleep");
    caller.line();
    world.a.kill_agent();
    let ended = caller.end();
    assert_eq!(ended.code, Some(LOST), "{ended:?}");
    assert!(ended.err.contains("agent of this host has ended"), "{ended:?}");
    // A new agent takes the socket that the killed one has left.
    world.start_agent(0);
    world.finish();
}

/// It holds files of its own file systems: at no moment may its end wait for an answer of its own.
#[test]
fn an_agent_that_is_killed_at_any_moment_is_gone() {
    let world = World::without_agents(Plan::default());
    for delay in 0..60 {
        let agent = world.a.agent_with(world.pair.a(), &[]);
        std::thread::sleep(Duration::from_micros(3000 + delay * 300));
        agent.kill();
        let left = || world.a.processes().iter().any(|seen| !seen.command.starts_with("hosts-"));
        within(SOON, "the agent is gone", || !left());
    }
    std::fs::remove_file(world.pair.a().outside("/run/mitosis/agent.sock")).unwrap();
    world.finish();
}

#[test]
fn the_keeper_is_killed() {
    let mut world = world();
    let seed = world.seed();
    let mut caller = world.children(&seed.handle, "pid;sleep");
    let pid: u32 = caller.line().strip_prefix("pid ").unwrap().parse().unwrap();
    kill(world.b.keeper().pid, "KILL");
    let ended = caller.end();
    assert!(ended.code != Some(0) && ended.code.is_some(), "{ended:?}");
    assert!(ended.err.contains("host-b"), "{ended:?}");
    within(SOON, "the child ends with its keeper", || world.b.process(pid).is_none());
    let agent = world.b.agent.take().unwrap().end();
    assert!(agent.err.contains("keeper is gone"), "{agent:?}");
    world.start_agent(1);
    assert_eq!(world.children(&seed.handle, "read 0 all;exit 7").end().code, Some(7));
    world.finish();
}

#[test]
fn the_link_is_cut_and_comes_back_in_time() {
    let world = World::with(Plan { agents: vec!["--miss-deadline-ms", "8000"], ..Plan::default() });
    let seed = world.seed();
    let caller = reader(&world, &seed.handle);
    world.pair.cut_link().unwrap();
    world.signal(&world.b, "/tmp/test-go");
    std::thread::sleep(Duration::from_millis(700));
    world.pair.restore_link().unwrap();
    let ended = caller.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("scattered 3000 pages"), "{ended:?}");
    assert_eq!(ended.err, "", "{ended:?}");
    world.finish();
}

#[test]
fn the_link_is_cut_for_good() {
    let world = world();
    let seed = world.seed();
    let caller = reader(&world, &seed.handle);
    let mut other = world.mitosis(
        &world.b,
        &["resume", &seed.handle, "--payload", "read 0 4;await /tmp/test-2;read 0 4"],
    );
    other.line();
    other.line();
    world.pair.cut_link().unwrap();
    world.signal(&world.b, "/tmp/test-go");
    let ended = caller.end();
    assert_eq!(ended.code, Some(LOST), "{ended:?}");
    assert!(ended.took < DEADLINE + SLACK, "{:?}", ended.took);
    assert!(ended.took > DEADLINE / 2, "not before the deadline: {:?}", ended.took);
    assert!(ended.err.contains("page lost: seed"), "{ended:?}");
    // A child that needs no page that is not here goes on.
    assert!(!other.has_ended());
    // Host-a cannot be asked; the answer comes by a deadline, and says so.
    let refused = world.mitosis(&world.b, &["inspect", &seed.handle]).end();
    refused.refused(&["host-a:7370 does not answer", "--listen"]);
    world.pair.restore_link().unwrap();
    let again =
        || world.mitosis(&world.b, &["resume", &seed.handle, "--payload", "read 0 all"]).end().code;
    within(SOON, "all is well again", || again() == Some(0));
    world.signal(&world.b, "/tmp/test-2");
    assert_eq!(other.end().code, Some(0));
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.b);
    world.finish();
}

#[test]
fn a_caller_is_told_that_the_other_host_is_silent() {
    let world = world();
    let seed = world.seed();
    let mut caller = world.children(&seed.handle, "pid;sleep");
    caller.line();
    world.pair.cut_link().unwrap();
    let ended = caller.end_within(Duration::from_secs(45));
    assert_eq!(ended.code, Some(LOST), "{ended:?}");
    assert!(ended.err.contains("host-b") && ended.err.contains("gone"), "{ended:?}");
    world.pair.restore_link().unwrap();
    world.finish();
}

/// A host that holds an image does not start children of a seed whose host it has not heard of for long.
#[test]
fn a_silent_owner_is_noticed_by_who_holds_its_seed() {
    const NOTICED: Duration = Duration::from_secs(9);
    let world = World::with(Plan { agents: vec!["--peer-deadline-ms", "500"], ..Plan::default() });
    let seed = world.seed();
    let mut caller = world.mitosis(
        &world.b,
        &["resume", &seed.handle, "--payload", "read 0 4;await /tmp/test-go;read 0 4;exit 7"],
    );
    assert_eq!(caller.line(), "read 4 pages");
    let again = || world.mitosis(&world.b, &["resume", &seed.handle, "--payload", "exit 0"]).end();
    assert_eq!(again().code, Some(0), "what it touches is here then");
    world.pair.cut_link().unwrap();
    assert_eq!(again().code, Some(0), "until then it goes on");
    std::thread::sleep(NOTICED);
    again().refused(&["host-a:7370 does not answer"]);
    // Who runs already goes on, and all is well once the owner can be asked.
    world.pair.restore_link().unwrap();
    within(SOON, "the owner answers again", || again().code == Some(0));
    world.signal(&world.b, "/tmp/test-go");
    assert_eq!(caller.end().code, Some(7));
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn a_seed_is_killed() {
    let world = world();
    let (seed, other) = (world.seed(), world.seed());
    let caller = reader(&world, &seed.handle);
    kill(world.a.process(seed.pid).unwrap().pid, "KILL");
    within(SOON, "the seed is gone", || world.a.process(seed.pid).is_none());
    world.signal(&world.b, "/tmp/test-go");
    // Whether its agent has noticed already or not.
    assert_lost(&world, caller, seed.id(), &["refuses the READ: the seed ", "; prepare a new one"]);
    within(SOON, "it is forgotten", || !world.on_a(&["ls"]).ok().contains(seed.id()));
    world.children(&seed.handle, "exit 0").end().refused(&["no seed", seed.id()]);
    // The other one is unharmed.
    assert_eq!(world.children(&other.handle, "read 0 all;exit 7").end().code, Some(7));
    world.on_a(&["drop", other.id()]).ok();
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn a_seed_is_revoked() {
    let world = world();
    let (seed, other) = (world.seed(), world.seed());
    let caller = reader(&world, &seed.handle);
    let bystander = world.mitosis(
        &world.b,
        &["resume", &other.handle, "--payload", "await /tmp/test-go;read 0 all"],
    );
    world.on_a(&["drop", "--revoke", seed.id()]).ok();
    world.signal(&world.b, "/tmp/test-go");
    assert_eq!(bystander.end().code, Some(0), "another seed's child goes on");
    world.on_a(&["drop", other.id()]).ok();
    assert_lost(&world, caller, seed.id(), &[]);
    world.children(&seed.handle, "exit 0").end().refused(&["no seed"]);
    world.settled(&world.a);
    world.finish();
}

/// Many children wait for pages that do not come; each is told its own loss.
#[test]
fn many_children_lose_pages_at_once() {
    let world = world();
    let seed = world.seed();
    let commands = "await /tmp/test-go;scatter 3000";
    let arguments = ["resume", "--json", "-n", "12", &seed.handle, "--payload", commands];
    let mut caller = world.mitosis(&world.b, &arguments);
    let lines: Vec<String> = (0..24).map(|_| caller.line()).collect();
    assert_eq!(lines.iter().filter(|line| *line == "waiting").count(), 12, "{lines:?}");
    world.on_a(&["drop", "--revoke", seed.id()]).ok();
    world.signal(&world.b, "/tmp/test-go");
    let ended = caller.end();
    let lost = ended.out.lines().filter(|line| line.contains("page_lost")).count();
    assert_eq!((lost, ended.code), (12, Some(LOST)), "{ended:?}");
    world.settled(&world.b);
    world.finish();
}

/// A child whose READ hangs can be killed, and is gone at once.
#[test]
fn a_kill_does_not_wait_for_a_page() {
    const LIMIT: Duration = Duration::from_millis(50);
    let world =
        World::with(Plan { agents: vec!["--miss-deadline-ms", "15000"], ..Plan::default() });
    let seed = world.seed();
    let mut times = Vec::new();
    let callers: Vec<(Process, u32)> = (0..7)
        .map(|index| {
            let commands = format!("pid;await /tmp/test-go;read {} 1", 200 + index * 200);
            let mut caller =
                world.mitosis(&world.b, &["resume", &seed.handle, "--payload", &commands]);
            let pid = caller.line().strip_prefix("pid ").unwrap().parse().unwrap();
            assert_eq!(caller.line(), "waiting");
            (caller, pid)
        })
        .collect();
    world.pair.cut_link().unwrap();
    world.signal(&world.b, "/tmp/test-go");
    for (caller, inner) in callers {
        let pid = world.b.process(inner).unwrap().pid;
        within(SOON, "the child waits for a page", || is_blocked(pid));
        std::thread::sleep(Duration::from_millis(20));
        assert!(is_blocked(pid), "it still does");
        let path = std::path::PathBuf::from(format!("/proc/{pid}"));
        let begun = Instant::now();
        kill(pid, "KILL");
        while path.exists() && begun.elapsed() < SOON {
            std::thread::sleep(Duration::from_micros(200));
        }
        times.push(begun.elapsed());
        assert_eq!(caller.end().code, Some(137));
    }
    times.sort();
    println!("a child whose READ hangs is gone after {times:?}");
    // The machine may be busy with other tests; most kills are not late.
    assert!(times[times.len() / 2] < LIMIT, "{times:?}");
    world.pair.restore_link().unwrap();
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.b);
    world.finish();
}

/// Whether a process sleeps in a page fault that FUSE has to answer.
fn is_blocked(pid: i32) -> bool {
    let stack = std::fs::read_to_string(format!("/proc/{pid}/stack")).unwrap_or_default();
    let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    stack.contains("fuse")
        || stack.contains("folio")
        || wchan.contains("fuse")
        || wchan.contains("folio")
}

pub(crate) fn kill(pid: i32, signal: &str) {
    let status =
        std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(status.unwrap().success());
}
