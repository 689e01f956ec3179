//! What the kernel keeps for a process, and its clocks, in children on the other host.

use std::time::Duration;

use crate::process::{Process, within};
use crate::world::{Plan, SOON, Seen, World};

const UNSHARE: &str = "/usr/bin/unshare";
/// Of an agent in a user namespace.
const USERS_SOCKET: &str = "/tmp/test-agent.sock";
/// In that namespace and those below.
const NO_TIME_NAMESPACE: &str = "echo 0 >/proc/sys/user/max_time_namespaces; exec \"$0\" \"$@\"";

/// Host-b's agent in a user namespace of its own, which whoever `made_by` is makes, started there by `inside`.
fn agent_in_user_namespace(world: &World, made_by: &[&str], inside: &[&str]) -> Process {
    let as_root_there = [UNSHARE, "--user", "--map-root-user", "--mount"];
    let agent = ["/bin/mitosis", "agent", "--socket", USERS_SOCKET, "--listen", "7370"];
    let known = ["--advertise", "host-b:7370", "--secret-file", "/etc/mitosis.secret"];
    let command = [made_by, &as_root_there, inside, &agent, &known].concat();
    let mut agent = world.run(&world.b, &command);
    assert!(agent.line().starts_with("mitosis agent ready on "));
    agent
}

/// What has passed when `suite-clock` is resumed.
const PAUSE: Duration = Duration::from_millis(2100);

fn state_crosses(mode: &str) {
    let world = World::new();
    let seed = world.seed_of(&world.a, "suite-state", &[mode]);
    // The first child is made at once, the second one ahead of its start; the third is on its parent's host.
    for host in ["host-b", "host-b", "host-a"] {
        let ended = world.on_a(&["resume", &seed.handle, "--on", host]);
        let said = ended.out.starts_with("ok ") && ended.out.ends_with(" states\n");
        assert!(ended.code == Some(0) && said, "{host}: {ended:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    world.finish();
}

#[test]
fn state_crosses_in_fork_mode() {
    state_crosses("fork");
}

#[test]
fn state_crosses_with_all_threads() {
    state_crosses("whole");
}

/// Host-b's clocks are days ahead of host-a's.
fn clocks(mode: &str) {
    let world = World::new();
    let seed = world.seed_of(&world.a, "suite-clock", &[mode]);
    std::thread::sleep(PAUSE);
    for host in ["host-b", "host-a"] {
        for clock in ["live", "frozen", "live", "frozen"] {
            let choice =
                ["resume", &seed.handle, "--on", host, "--clock", clock, "--payload", clock];
            let ended = world.on_a(&choice);
            assert_eq!(
                (ended.code, &*ended.out),
                (Some(0), &*format!("ok {clock}\n")),
                "{ended:?}"
            );
        }
    }
    world.finish();
}

#[test]
fn clocks_go_on_live_or_frozen_in_fork_mode() {
    clocks("fork");
}

#[test]
fn clocks_go_on_live_or_frozen_with_all_threads() {
    clocks("whole");
}

/// Host-b's agent is in a user namespace that may have no time namespace: its children have its clocks, days ahead of
/// host-a's, and are told.
fn a_clock_that_jumps_is_told(mode: &str) {
    let mut world = World::without_agents(Plan { tools_on_b: vec![UNSHARE], ..Plan::default() });
    world.start_agent(0);
    let agent = agent_in_user_namespace(&world, &[], &["/bin/bash", "-c", NO_TIME_NAMESPACE]);
    let seed = world.seed_of(&world.a, "suite-clock", &[mode]);
    std::thread::sleep(PAUSE);
    for clock in ["live", "frozen", "live", "frozen"] {
        let told = format!("{clock} told");
        let choice = ["resume", &seed.handle, "--on", "host-b", "--clock", clock];
        let ended = world.on_a(&[&choice[..], &["--payload", &told]].concat());
        assert_eq!((ended.code, &*ended.out), (Some(0), &*format!("ok {told}\n")), "{ended:?}");
    }
    world.on_a(&["drop", seed.id()]).ok();
    world.mitosis(&world.b, &["shutdown", "--socket", USERS_SOCKET]).end().ok();
    let ended = agent.end();
    assert!(ended.err.contains("no time namespace is to be had"), "{ended:?}");
    assert_eq!(ended.code, Some(0));
    world.finish();
}

#[test]
fn a_clock_that_jumps_is_told_in_fork_mode() {
    a_clock_that_jumps_is_told("fork");
}

#[test]
fn a_clock_that_jumps_is_told_with_all_threads() {
    a_clock_that_jumps_is_told("whole");
}

#[test]
fn a_batch_on_a_frozen_clock_fails_and_ends_as_any() {
    let world = World::new();
    let seed = world.seed();
    let resume = ["resume", &seed.handle, "--on", "host-b", "--clock", "frozen"];
    let ended = world.on_a(&[&resume[..], &["-n", "3", "--payload", "exit 7"]].concat());
    assert_eq!(ended.code, Some(7), "{ended:?}");
    let ended = world.on_a(&[&resume[..resume.len() - 1], &["broken"]].concat());
    assert!(ended.code == Some(2) && ended.err.contains("live or frozen"), "{ended:?}");
    world.on_a(&["drop", seed.id()]).ok();
    // Templates of batches have gone with their last children.
    world.settled(&world.b);
    world.finish();
}

const BATCH_LIMIT: Duration = Duration::from_secs(60);
/// Batches of which none has more children than its template lives to make, most likely.
const KILLED_BATCHES: usize = 5;

#[test]
fn a_batch_on_a_frozen_clock_dies_alone() {
    let world = World::new();
    let seed = world.seed();
    let live = ["resume", "--json", &seed.handle, "--on", "host-b", "--payload", "exit 0"];
    let new_template = |said: &str| said.contains("\"new_template\":true");
    assert!(new_template(&world.on_a(&live).ok()));
    let mut others = Vec::new();
    within(SOON, "the template, and the child that waits", || {
        others = world.b.on_keeper();
        others.len() == 2
    });
    let frozen = ["resume", "-n", "1000", &seed.handle, "--on", "host-b", "--clock", "frozen"];
    // What the keeper is the parent of is killed, until the batch has ended; but for what was there before.
    let killed = (0..KILLED_BATCHES).any(|_| {
        let mut batch = world.mitosis(&world.a, &frozen);
        within(BATCH_LIMIT, "the batch ends", || {
            for seen in world.b.children_of_keeper() {
                if !others.contains(&seen.inner) {
                    let pid = seen.pid.to_string();
                    let _ = std::process::Command::new("kill").args(["-KILL", &pid]).output();
                }
            }
            batch.has_ended()
        });
        let ended = batch.end();
        assert_ne!(ended.code, Some(0), "{ended:?}");
        ended.err.contains("could not be started") && ended.err.contains("is gone")
    });
    assert!(killed, "no template was killed between its children");
    let said = world.on_a(&live).ok();
    assert!(!new_template(&said), "the seed's own template was given up: {said}");
    world.finish();
}

#[test]
fn a_child_is_where_its_resumer_says() {
    let world = World::new();
    for mode in [&[][..], &["whole"]] {
        is_where_its_resumer_says(&world, mode);
    }
    world.finish();
}

fn is_where_its_resumer_says(world: &World, mode: &[&str]) {
    let seed = world.seed_of(&world.a, "suite-told", mode);
    let resume = ["resume", &seed.handle, "--on", "host-b", "--payload", "where"];
    let plain = world.on_a(&resume).ok();
    assert!(plain.ends_with(" host-b\n"), "{plain}");
    let told = world.on_a(&[&resume[..], &["--cwd", "/etc", "--hostname", "other"]].concat());
    assert_eq!(told.ok(), "/etc other\n");
    let named = [&resume[..4], &["--payload", "cmdline", "--", "worker", "--blue"]].concat();
    assert_eq!(world.on_a(&named).ok(), "worker|--blue|\n");
    // exec(2) takes less than that of one text.
    let large = "x".repeat(64 << 10);
    let large = world.on_a(&[&resume[..], &["--", &large, &large]].concat());
    large.refused(&["argv has 131074 bytes, above the limit of 131072"]);
    // It is the child's name alone.
    assert_eq!(world.on_a(&resume).ok(), plain);
    let missing = world.on_a(&[&resume[..], &["--cwd", "/not/there"]].concat());
    missing.refused(&["no directory /not/there is on this host", "--cwd"]);
    let relative = world.on_a(&[&resume[..], &["--cwd", "etc"]].concat());
    relative.refused(&["give an absolute path"]);
    world.on_a(&["drop", seed.id()]).ok();
}

/// The agent's own, which its keeper hands on, is another; 0 is a value like any.
#[test]
fn a_child_has_its_parents_oom_score_adj_and_not_the_agents() {
    let world = World::new();
    let path = |pid: i32| format!("/proc/{pid}/oom_score_adj");
    let own = std::fs::read_to_string(path(i32::try_from(std::process::id()).unwrap())).unwrap();
    let other = own.trim().parse::<i32>().unwrap() + 123;
    std::fs::write(path(world.b.keeper().pid), other.min(1000).to_string()).unwrap();
    for mode in [&[][..], &["whole"]] {
        let seed = world.seed_of(&world.a, "suite-told", mode);
        let resume = ["resume", "--json", &seed.handle, "--on", "host-b", "--payload", "sleep"];
        let mut child = world.mitosis(&world.a, &resume);
        let json: serde_json::Value = serde_json::from_str(&child.line()).unwrap();
        let inner = u32::try_from(json["pid"].as_u64().unwrap()).unwrap();
        let pid = world.b.process(inner).unwrap().pid;
        assert_eq!(std::fs::read_to_string(path(pid)).unwrap(), own, "{mode:?}");
        world.on_b(&["kill", json["child"].as_str().unwrap()]).ok();
        child.end();
        world.on_a(&["drop", seed.id()]).ok();
    }
    world.finish();
}

fn a_child_enters_what_its_resumer_says(mode: &'static [&'static str]) {
    let world = World::new();
    let seed = world.seed_of(&world.a, "suite-told", mode);
    let commands = "namespace net;namespace ipc;namespace uts;namespace mnt;where";
    let resume = ["resume", &seed.handle, "--payload", commands];
    let plain = world.on_a(&resume).ok();

    let script = "hostname joined; cd /proc/self/ns; readlink net ipc uts mnt; exec sleep 100000";
    let unshare = ["/usr/bin/unshare", "--net", "--ipc", "--uts", "--mount", "/bin/bash", "-c"];
    let mut there = world.run(&world.a, &[&unshare[..], &[&format!("echo $$; {script}")]].concat());
    let pid = there.line();
    let links: Vec<String> = (0..4).map(|_| there.line()).collect();
    let join = |kind: &str| format!("{kind}=/proc/{pid}/ns/{kind}");
    let all: Vec<String> = ["uts", "mnt", "net", "ipc"].iter().map(|kind| join(kind)).collect();
    let joins: Vec<&str> = all.iter().flat_map(|one| ["--ns", one]).collect();
    let joined = world.on_a(&[&resume[..], &joins, &["--cwd", "/usr"]].concat()).ok();
    assert_eq!(joined, format!("{}\n/usr joined\n", links.join("\n")));
    // Without another one, the working directory is the seed's.
    let some = world.on_a(&[&resume[..], &["--ns", &join("mnt")]].concat()).ok();
    let parts = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (some, plain) = (parts(&some), parts(&plain));
    assert_eq!((&some[..3], &some[3], &some[4]), (&plain[..3], &links[3], &plain[4]));

    for (wrong, words) in [
        (&["--ns", "net=/proc/self/ns/ipc"][..], &["net=/proc/self/ns/ipc", "another kind"][..]),
        (&["--ns", "net=/not/there"], &["net=/not/there", "No such file"]),
        (&["--ns", "pid=/proc/1/ns/pid"], &["names no namespace to join"]),
        (&["--ns", &all[0], "--ns", &all[0]], &["two namespaces of the kind uts"]),
        (&["--ns", &all[0], "--hostname", "x"], &["give that or one to join"]),
        (&["--ns", &all[1], "--cwd", "/not/there"], &["chdir", "No such file"]),
        (&["--ns", &all[2], "--listen", "all"], &["leave out --listen"]),
        (&["--cgroup", "/proc/self"], &["the control group /proc/self"]),
        (&["--cgroup", "relative"], &["absolute path"]),
    ] {
        let ended = world.on_a(&[&resume[..], wrong].concat());
        assert_ne!(ended.code, Some(0), "{ended:?}");
        assert!(words.iter().all(|word| ended.err.contains(word)), "{ended:?}");
    }
    there.kill();
    // The others have what they had; one with ids of its own has mounts of its own.
    let again = parts(&world.on_a(&resume).ok());
    assert_eq!((&again[..3], &again[4]), (&plain[..3], &plain[4]));
    assert_eq!(again[3] == plain[3], mode.is_empty(), "{again:?} {plain:?}");
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.a);
    world.finish();
}

#[test]
fn a_child_enters_what_its_resumer_says_by_fork() {
    a_child_enters_what_its_resumer_says(&[]);
}

#[test]
fn a_child_enters_what_its_resumer_says_with_all_threads() {
    a_child_enters_what_its_resumer_says(&["whole"]);
}

/// The group is a real one, made here and removed.
#[test]
fn a_child_enters_a_control_group() {
    let world = World::new();
    let name = format!("mitosis-test-{}", std::process::id());
    let bash = |script: &str| world.run(&world.a, &["/bin/bash", "-ec", script]).end();
    let make = format!(
        "cd $TMPDIR; mkdir groups; mount -t cgroup2 none groups; mkdir groups/{name}; echo $PWD/groups"
    );
    let groups = bash(&make).ok();
    let groups = groups.trim();
    let group = format!("{groups}/{name}");
    for mode in [&[][..], &["whole"]] {
        let seed = world.seed_of(&world.a, "suite-told", mode);
        let resume = ["resume", &seed.handle, "--payload", "groups"];
        let inside = world.on_a(&[&resume[..], &["--cgroup", &group]].concat()).ok();
        assert!(inside.contains(&format!("0::/{name}\n")), "{mode:?}: {inside}");
        assert!(!world.on_a(&resume).ok().contains(&name), "{mode:?}");
        world.on_a(&["drop", seed.id()]).ok();
    }
    within(SOON, "the group is left", || bash(&format!("rmdir {group}")).code == Some(0));
    bash(&format!("umount {groups}; rmdir {groups}")).ok();
    world.settled(&world.a);
    world.finish();
}

/// Ids are mapped by the user namespace that the agent of the children's host runs in, here one that a user without
/// any right has made.
#[test]
fn ids_are_mapped_by_the_agents_user_namespace() {
    const USER: u32 = 4321;
    let tools_on_b = vec!["/usr/bin/setpriv", UNSHARE];
    let mut world = World::without_agents(Plan { tools_on_b, ..Plan::default() });
    world.start_agent(0);
    for path in ["/etc/mitosis.secret", "/dev/fuse"] {
        let path = world.pair.b().outside(path);
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    }
    let user = USER.to_string();
    let without_rights = ["/usr/bin/setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
    let agent = agent_in_user_namespace(&world, &without_rights, &[]);

    for mode in [&[][..], &["whole"]] {
        let seed = world.seed_of(&world.a, "suite-told", mode);
        let mut child = world.children(&seed.handle, "read 0 all;await /tmp/test-go;exit 7");
        child.line();
        assert_eq!(child.line(), "waiting");
        // The child, what it is a clone of, and what stands ready to be the next one.
        let look = |seen: &Seen, file: &str| {
            std::fs::read_to_string(format!("/proc/{}/{file}", seen.pid)).unwrap_or_default()
        };
        // What is of the seed before may be ending.
        let ours = world.b.children_of_keeper().into_iter().filter(|seen| seen.state != 'Z');
        let ours = ours.map(|seen| (look(&seen, "status"), look(&seen, "uid_map"), seen));
        let ours: Vec<_> = ours.filter(|(_, map, _)| !map.is_empty()).collect();
        assert!(!ours.is_empty());
        for (status, map, seen) in ours {
            for kind in ["Uid", "Gid"] {
                let ids = format!("{kind}:\t{USER}\t{USER}\t{USER}\t{USER}\n");
                assert!(status.contains(&ids), "{seen:?}: {status}");
            }
            assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &user, "1"]);
        }
        world.signal(&world.b, "/tmp/test-go");
        assert_eq!(child.end().code, Some(7));
        world.remove(&world.b, &["/tmp/test-go"]);
        world.on_a(&["drop", seed.id()]).ok();
    }
    world.mitosis(&world.b, &["shutdown", "--socket", USERS_SOCKET]).end().ok();
    assert_eq!(agent.end().code, Some(0));
    world.finish();
}
