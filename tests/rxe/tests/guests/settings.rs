//! What an agent's settings ask for and cannot be had: it says why, falls back and counts that, or ends where
//! RDMA is required. And who has RDMA's libraries in memory at all.

use crate::world::{HOST_A, HOST_B, PATIENCE, World, machines, number_of, python, shared, until};

const SOCKET: &str = "/tmp/second.sock";

/// A second agent on this machine, with these variables.
pub(crate) fn agent(
    world: &World,
    node: u32,
    before: &[&str],
    variables: &[&str],
) -> mitosis_guests::Job {
    let command = ["mitosis", "agent", "--socket", SOCKET, "--listen", "7371"];
    let secret = ["--secret-file", "/host/files/secret"];
    let argv = [before, &["env"], variables, &command, &secret].concat();
    world.guests.node(node).run(&argv).unwrap()
}

/// What it logs; it runs, and has fallen back so often.
pub(crate) fn falls_back(
    world: &World,
    node: u32,
    before: &[&str],
    variables: &[&str],
    times: usize,
) -> String {
    let held = world.held_at_rest();
    let mut agent = agent(world, node, before, variables);
    agent.line(PATIENCE).unwrap();
    if agent.errors().contains("fabric tcp: ") {
        // Of what it had made of the card until then nothing is left.
        until("the card is let go", || {
            let pairs = world.held().into_iter().zip(&held);
            pairs.into_iter().all(|(now, then)| now.has_no_more_objects_than(then))
        });
    }
    let json = world.run(node, &["mitosis", "stats", "--json", "--socket", SOCKET]).ok().unwrap();
    assert_eq!(number_of(&json, "fabric_fallbacks"), times, "{variables:?}");
    world.run(node, &["mitosis", "shutdown", "--socket", SOCKET]).ok().unwrap();
    let ended = agent.end(PATIENCE).unwrap();
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.err.contains("WARN"), "{ended:?}");
    ended.err
}

/// Without `,require` a warning, with it the end; each with these words.
fn cannot_be_had(world: &World, node: u32, before: &[&str], variable: &str, words: &[&str]) {
    let text = falls_back(world, node, before, &["MITOSIS_FABRIC=rc", variable], 1);
    for word in [&["fabric tcp: "], words].concat() {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let required = agent(world, node, before, &["MITOSIS_FABRIC=rc,require", variable]);
    let ended = required.end(PATIENCE).unwrap();
    assert_eq!(ended.status, 1, "{ended:?}");
    assert!(ended.out.is_empty(), "it was never ready: {ended:?}");
    for word in [&["RDMA is required and cannot be used: "], words].concat() {
        assert!(ended.err.contains(word), "no {word:?} in {ended:?}");
    }
}

#[test]
fn a_gid_that_is_not_there() {
    let words = ["MITOSIS_GID_INDEX=200: rxe0:1 has no such GID; it has: ", "10.77.0.2 (RoCE v2"];
    cannot_be_had(&machines(), HOST_B, &[], "MITOSIS_GID_INDEX=200", &words);
}

#[test]
fn a_device_that_is_not_there() {
    let words = ["MITOSIS_DEV names mlx5_7, which is not there; there are: rxe0:1 (ACTIVE)"];
    cannot_be_had(&machines(), HOST_B, &[], "MITOSIS_DEV=mlx5_7", &words);
}

#[test]
fn a_device_that_is_denied() {
    let words = ["MITOSIS_DEV and MITOSIS_DEV_DENY leave no port; there are: rxe0:1 (ACTIVE)"];
    cannot_be_had(&machines(), HOST_B, &[], "MITOSIS_DEV_DENY=rxe0", &words);
}

#[test]
fn info_and_doctor_show_what_is_there() {
    let world = machines();
    let info = world.run(HOST_B, &["mitosis", "info"]).ok().unwrap();
    for words in [
        "rc on rxe0:1, GID 1 (RoCE v2, 10.77.0.2) (MITOSIS_FABRIC=auto; the only ACTIVE port; rxe0:1 has no DC: ",
        "memlock: 75497472 bytes needed, ",
        "DC        none: no mlx5 device, or no libmlx5",
        "ODP       none",
        "port 1    ACTIVE, Ethernet, MTU 4096, LID 0",
        "GID   1  ::ffff:10.77.0.2  RoCE v2  eth0",
    ] {
        assert!(info.contains(words), "no {words:?} in {info}");
    }
    let doctor = world.run(HOST_B, &["mitosis", "doctor"]).out;
    for (standing, subject) in [
        ("fine", "rxe0:1"),
        ("fine", "rxe0:1 GIDs"),
        ("fine", "rdma connections"),
        ("fine", "pinned memory"),
        ("lacking", "rxe0 DC"),
    ] {
        let line = format!("{standing:8} {subject:24} ");
        assert!(doctor.contains(&line), "no {line:?} in {doctor}");
    }
    assert!(doctor.contains("remedy: rc serves as well"), "{doctor}");
}

/// A setting that cannot be read ends the agent, whatever is required.
#[test]
fn a_setting_that_makes_no_sense() {
    let world = machines();
    let ended = agent(&world, HOST_B, &[], &["MITOSIS_FABRIC=ib"]).end(PATIENCE).unwrap();
    assert_eq!(ended.status, 1, "{ended:?}");
    assert!(ended.err.contains("MITOSIS_FABRIC=ib: give auto, dc, rc or tcp"), "{ended:?}");
}

/// Root without CAP_IPC_LOCK, and as much that may be pinned as the arena alone takes at the start.
#[test]
fn too_little_memory_that_may_be_pinned() {
    const LIMIT: &str = "\
import ctypes, os, resource, sys
CAP_IPC_LOCK, PR_CAPBSET_DROP = 14, 24
assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) == 0
resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 20, 64 << 20))
os.execvp(sys.argv[1], sys.argv[1:])
";
    let world = machines();
    let python = python();
    let before = [python.to_str().unwrap(), "-c", LIMIT];
    let words = ["registering ", " bytes on rxe0: ", "67108864 allowed", "ulimit -l unlimited"];
    cannot_be_had(&world, HOST_A, &before, "MITOSIS_DEV=rxe0", &words);
    // And the doctor knows before.
    let doctor = world.run(HOST_A, &[&before[..], &["mitosis", "doctor"]].concat());
    assert_eq!(doctor.status, 1, "{doctor:?}");
    let line = doctor.out.lines().find(|line| line.contains("pinned memory")).expect("a line");
    assert!(line.starts_with("MISSING") && line.contains("67108864 allowed"), "{line}");
}

/// Agents alone have libibverbs in memory: no process that is forked, no keeper, and not `mitosis ls`.
#[test]
fn no_process_but_the_agent_loads_verbs() {
    // Parent and child say so, and wait.
    const STORY: &str = "\
import time, mitosis
child = mitosis.fork('host-b')
print('here', flush=True)
time.sleep(1000)
";
    let mut world = shared("rc");
    let python = python();
    let argv = [python.to_str().unwrap(), "-c", STORY];
    let mut story = world.guests.node(HOST_A).run(&argv).unwrap();
    assert_eq!([story.line(PATIENCE).unwrap(), story.line(PATIENCE).unwrap()], ["here", "here"]);
    for node in [HOST_A, HOST_B] {
        let look = "grep -lE 'libibverbs|libmlx5|librdmacm' /proc/[0-9]*/maps | wc -l; \
                    cat /proc/[0-9]*/comm | grep -c '^mitosis'";
        let said = world.run_script(node, look);
        let counts: Vec<usize> = said.out.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(counts[0], 1, "the agent alone: {said:?}");
        assert!(counts[1] >= 2, "agent and keeper: {said:?}");
    }
    story.signal(9).unwrap();
    let opened = |verb: &str| world.run(HOST_B, &["env", "LD_DEBUG=files", "mitosis", verb]).err;
    assert!(opened("info").contains("libibverbs.so.1"), "the way to look sees it");
    let listed = opened("ls");
    assert!(listed.contains("libc.so.6") && !listed.contains("libibverbs"), "{listed}");
    drop(story);
    world.stop_agent(HOST_B);
    world.start_agent(HOST_B);
}
