//! Whole processes: `suite-threads` is forked with all of its threads, case by case; its parent and its
//! children check themselves. And what becomes of such children when something ends.

use std::time::Duration;

use crate::process::{Process, within};
use crate::world::{Plan, SOON, Seed, World, program};

/// On both hosts; the case of file locks is given it.
const FILE: &str = "/tmp/test-threads-file";
/// Exit status of a `resume` whose child's end is not known.
const LOST: i32 = 125;

/// Who a thread is.
const IDENTITY: [&str; 8] =
    ["tls", "keys", "segments", "names", "scheduling", "affinity", "ids", "rseq"];
const SIGNALS: [&str; 9] = [
    "masks",
    "pending",
    "sigwait",
    "kill",
    "setxid",
    "setxid_twice",
    "altstacks",
    "on_altstack",
    "deep_stacks",
];
const LOCKS: [&str; 9] = [
    "mutexes",
    "robust",
    "pi",
    "conditions",
    "semaphores",
    "barriers",
    "rwlocks",
    "futexes",
    "futex_times",
];
const WAITS: [&str; 8] =
    ["sleeps", "timers", "polls", "epolls", "reads", "writes", "file_locks", "messages"];
const LIVES: [&str; 9] = [
    "joins",
    "detached",
    "creation",
    "cancellation",
    "many",
    "registers",
    "spinning",
    "made_code",
    "heap",
];

/// Its parent has found everything in order when this returns.
fn seed(world: &World, case: &str) -> Seed {
    let more: &[&str] = if case == "file_locks" { &[case, FILE] } else { &[case] };
    let seed = world.seed_of(&world.a, "suite-threads", more);
    assert_eq!(seed.before, [format!("ok {case}")], "the parent of {case}");
    seed
}

/// Each case from host-a to host-b and onto host-a itself; what is wrong, of all of them together.
fn family(cases: &[&str]) {
    let world = World::new();
    // Host-a shares its /tmp with whoever runs other families.
    let wants_file = cases.contains(&"file_locks");
    for machine in [&world.a, &world.b].into_iter().filter(|_| wants_file) {
        world.signal(machine, FILE);
    }
    let mut wrong = Vec::new();
    for case in cases {
        let seed = seed(&world, case);
        for host in ["host-b", "host-a"] {
            // A queue of messages is there for a child on its parent's host, and nothing comes.
            if *case == "messages" && host == "host-a" {
                continue;
            }
            let ended = world.on_a(&["resume", &seed.handle, "--on", host]);
            let wanted = format!("ok {case} generation 1 on {host}\n");
            if (ended.code, &ended.out) != (Some(0), &wanted) {
                wrong.push(format!("{case} on {host}: {ended:?}"));
            }
        }
        world.on_a(&["drop", seed.id()]).ok();
    }
    for machine in [&world.a, &world.b].into_iter().filter(|_| wants_file) {
        world.remove(machine, &[FILE]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn threads_are_who_they_were() {
    family(&IDENTITY);
}

#[test]
fn signals_of_threads() {
    family(&SIGNALS);
}

#[test]
fn locks_of_threads() {
    family(&LOCKS);
}

#[test]
fn waits_of_threads() {
    family(&WAITS);
}

#[test]
fn lives_of_threads() {
    family(&LIVES);
}

#[test]
fn every_case_has_a_family() {
    let listed = std::process::Command::new(program("suite-threads")).arg("list").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut listed: Vec<&str> = listed.lines().collect();
    let mut all = [&IDENTITY[..], &SIGNALS, &LOCKS, &WAITS, &LIVES].concat();
    listed.sort_unstable();
    all.sort_unstable();
    assert_eq!(listed, all);
}

#[test]
fn a_thread_that_cannot_be_parked_is_named() {
    let world = World::new();
    let seed = world.seed_of(&world.a, "suite-threads", &["stuck"]);
    let [refused, ok] = &seed.before[..] else { panic!("{:?}", seed.before) };
    let (tid, text) = refused.strip_prefix("refused: ").unwrap().split_once(' ').unwrap();
    for word in [tid, "stuck for a bit", "clone"] {
        assert!(text.contains(word), "no '{word}' in: {text}");
    }
    assert_eq!(ok, "ok stuck");
    // Afterwards it can be.
    let ended = world.children(&seed.handle, "").end();
    assert_eq!(ended.out, "ok stuck generation 1 on host-b\n", "{ended:?}");
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn many_children_with_all_threads() {
    let world = World::new();
    let seeds = [seed(&world, "many"), seed(&world, "mutexes")];
    let callers = ["many", "mutexes"].map(|case| {
        let handle = &seeds[usize::from(case == "mutexes")].handle;
        let arguments = ["resume", "-n", "12", "--on", "host-b", handle];
        (case, world.mitosis(&world.a, &arguments))
    });
    for (case, caller) in callers {
        let said = caller.end().ok();
        assert_eq!(said, format!("ok {case} generation 1 on host-b\n").repeat(12));
    }
    let stats = world.stats_of_b();
    assert_eq!(
        (&stats["children_started"], &stats["pages_lost"]),
        (&24.into(), &0.into()),
        "{stats}"
    );
    for seed in &seeds {
        world.on_a(&["drop", seed.id()]).ok();
    }
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn ends_of_whole_processes_are_told() {
    let world = World::new();
    let seed = seed(&world, "tls");
    for (payload, code) in [("exit 0", 0), ("exit 77", 77), ("signal 9", 137), ("signal 15", 143)] {
        let ended = world.children(&seed.handle, payload).end();
        assert_eq!(ended.code, Some(code), "{payload}: {ended:?}");
        assert_eq!(ended.out, "ok tls generation 1 on host-b\n", "{payload}");
    }
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.b);
    world.finish();
}

/// A child that has found everything in order, and stays.
fn staying(world: &World, seed: &Seed) -> Process {
    let mut caller = world.children(&seed.handle, "stay");
    assert!(caller.line().starts_with("ok "));
    caller
}

/// By the verb, which signals the child and not its reaper; and by anybody who sees the process on its host.
#[test]
fn whole_processes_are_killed() {
    let world = World::new();
    let seed = seed(&world, "many");
    for signal in ["15", "9"] {
        let caller = staying(&world, &seed);
        let listed: serde_json::Value =
            serde_json::from_str(&world.on_b(&["ls", "--json"]).ok()).unwrap();
        let child = listed["children"][0]["child"].as_str().unwrap();
        world.on_a(&["kill", child, "--on", "host-b", "--signal", signal]).ok();
        assert_eq!(caller.end().code, Some(128 + signal.parse::<i32>().unwrap()));
    }
    let callers = [(); 2].map(|()| staying(&world, &seed));
    let standing: Vec<i32> = world
        .b
        .processes()
        .into_iter()
        .filter(|seen| seen.command.contains("suite-threads") && seen.state == 'S')
        .map(|seen| seen.pid)
        .collect();
    // The other one's threads, and a child that waits to be started, are none of anybody's business.
    assert!(standing.len() >= 2, "{:?}", world.b.processes());
    for pid in standing {
        let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).output();
        let killed = killed.expect("a program 'kill' is there (tests/setup.sh)");
        // One that ends takes others with it: its namespace's first process, or all of that namespace.
        let has_gone = String::from_utf8_lossy(&killed.stderr).contains("No such process");
        assert!(killed.status.success() || has_gone, "kill -9 {pid}: {killed:?}");
    }
    for caller in callers {
        assert_eq!(caller.end().code, Some(137));
    }
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.b);
    world.settled(&world.a);
    world.finish();
}

/// A child has its parent's number in a pid namespace of its own; with `--new-ids` its host's next one, in the
/// host's namespace. That was asked for, and is not counted as a host's refusal.
#[test]
fn a_whole_process_gets_new_ids_if_that_is_asked_for() {
    let world = World::new();
    let seed = seed(&world, "tls");
    let mut numbers = [const { Vec::new() }; 2];
    for (numbers, more) in numbers.iter_mut().zip([&[][..], &["--new-ids"]]) {
        let resume = ["resume", &seed.handle, "--on", "host-b", "--payload", "stay"];
        let mut caller = world.mitosis(&world.a, &[&resume[..], more].concat());
        assert_eq!(caller.line(), "ok tls generation 1 on host-b");
        let listed: serde_json::Value =
            serde_json::from_str(&world.on_b(&["ls", "--json"]).ok()).unwrap();
        let [child] = &listed["children"].as_array().unwrap()[..] else { panic!("{listed}") };
        let inner = u32::try_from(child["pid"].as_u64().unwrap()).unwrap();
        let seen = world.b.process(inner).unwrap();
        let status = std::fs::read_to_string(format!("/proc/{}/status", seen.pid)).unwrap();
        let own = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        // From this machine's namespace down to the child's own.
        numbers.extend(own.split_whitespace().map(|number| number.parse::<u32>().unwrap()));
        assert!(numbers.contains(&inner), "{inner} of {numbers:?}");
        world.on_a(&["kill", child["child"].as_str().unwrap(), "--on", "host-b"]).ok();
        assert_eq!(caller.end().code, Some(143));
    }
    let [kept, new] = numbers;
    assert_eq!(kept.len(), new.len() + 1, "{kept:?} {new:?}: a namespace more, of the child's own");
    assert_ne!(kept.last(), new.last());
    assert_eq!(world.stats_of_b()["children_renumbered"], 0);
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

#[test]
fn whole_processes_end_with_their_agent() {
    let mut world = World::new();
    let seed = seed(&world, "many");
    let callers = [(); 2].map(|()| staying(&world, &seed));
    world.b.kill_agent();
    for caller in callers {
        assert_eq!(caller.end().code, Some(LOST));
    }
    within(SOON, "children, their reapers and the keeper end", || {
        world.b.processes().iter().all(|seen| seen.command.starts_with("hosts-"))
    });
    world.start_agent(1);
    let ended = world.children(&seed.handle, "exit 5").end();
    assert_eq!(ended.code, Some(5), "{ended:?}");
    world.finish();
}

#[test]
fn whole_processes_end_at_shutdown() {
    let mut world = World::new();
    let seed = seed(&world, "tls");
    let caller = staying(&world, &seed);
    world.on_b(&["shutdown"]).ok();
    // The agent kills its children as it goes: it tells of that, or is gone before it can.
    let ended = caller.end();
    assert!([Some(128 + libc::SIGKILL), Some(LOST)].contains(&ended.code), "{ended:?}");
    assert_eq!(world.b.agent.take().unwrap().end().code, Some(0));
    within(Duration::from_secs(3), "nothing is left", || {
        world.b.processes().iter().all(|seen| seen.command.starts_with("hosts-"))
    });
    world.start_agent(1);
    world.finish();
}

/// The child of a whole process is one itself, and is forked like any; its clock goes on, too, on any host.
#[test]
fn a_whole_child_is_prepared_again() {
    let world = World::with(Plan { programs_on_b: true, ..Plan::default() });
    for case in ["tls", "mutexes", "epolls", "many"] {
        let seed = seed(&world, case);
        for host in ["host-a", "host-b"] {
            let ended = world.children(&seed.handle, &format!("again {host}")).end();
            let wanted =
                format!("ok {case} generation 2 on {host}\nok {case} generation 1 on host-b\n");
            assert_eq!((ended.code, &ended.out), (Some(0), &wanted), "{ended:?}");
        }
        world.on_a(&["drop", seed.id()]).ok();
    }
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}
