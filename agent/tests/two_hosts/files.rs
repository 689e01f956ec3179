//! Open files of a seed in its children: what they find, and where they listen.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::process::{Process, within};
use crate::world::{Machine, SOON, Seed, World};

const TEXT: &str = "the file's text\n";
/// Arguments of `suite-files`: one thread, and all.
const MODES: [&[&str]; 2] = [&[], &["all"]];

/// A seed of `suite-files`, whose folder is on both hosts.
struct Opened {
    world: World,
    seed: Seed,
    folder: PathBuf,
}

impl Opened {
    fn with(more: &[&str]) -> Opened {
        let world = World::new();
        let name = world.directory.path().file_name().unwrap().to_string_lossy().into_owned();
        let folder = PathBuf::from(format!("/tmp/test-{name}"));
        for machine in [&world.a, &world.b] {
            fs::create_dir_all(world.host(machine).outside(&folder)).unwrap();
        }
        let arguments = [&[folder.to_str().unwrap()], more].concat();
        let seed = world.seed_of(&world.a, "suite-files", &arguments);
        let opened = Opened { world, seed, folder };
        opened.write_kept(&opened.world.b);
        opened
    }

    fn outside(&self, machine: &Machine, name: &str) -> PathBuf {
        self.world.host(machine).outside(self.folder.join(name))
    }

    fn write_kept(&self, machine: &Machine) {
        fs::write(self.outside(machine, "kept"), TEXT).unwrap();
    }

    /// Where the parent's socket listens.
    fn port(&self) -> &str {
        self.said("port ")
    }

    fn said(&self, what: &str) -> &str {
        let said = self.seed.before.iter().find_map(|line| line.strip_prefix(what));
        said.expect("its parent says it")
    }

    /// `mitosis resume` for host-b with more arguments.
    fn resume(&self, more: &[&str]) -> Process {
        let mut arguments = vec!["resume", &self.seed.handle, "--on", "host-b"];
        arguments.extend(more);
        self.world.mitosis(&self.world.a, &arguments)
    }

    fn finish(self) {
        self.world.remove_folder(&self.folder);
        self.world.finish();
    }
}

/// Says hello to whoever serves there.
fn greet(world: &World, port: &str) -> Process {
    let script = format!(
        "exec 5<>/dev/tcp/127.0.0.1/{port} && printf hello >&5 && read -r -n 5 -u 5 said && echo $said"
    );
    world.run(&world.b, &["/bin/bash", "-c", &script])
}

#[test]
fn files_of_each_kind_are_what_they_were() {
    files_are_what_they_were(&[]);
}

#[test]
fn files_of_a_whole_process_are_what_they_were() {
    files_are_what_they_were(&["all"]);
}

fn files_are_what_they_were(more: &[&str]) {
    let opened = Opened::with(more);
    // The first child is made at once, the others ahead of their start.
    for _ in 0..3 {
        opened.write_kept(&opened.world.b);
        let ended = opened.resume(&[]).end();
        assert_eq!((ended.code, &*ended.out), (Some(0), "by another number\nok\n"), "{ended:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let missing = &opened.world.stats_of_b()["files_missing"];
    // The folder's `gone` and `link`.
    assert_eq!(missing, 2, "it counts what is not there: {missing}");
    // A child on the seed's own host.
    opened.write_kept(&opened.world.a);
    fs::remove_file(opened.outside(&opened.world.a, "gone")).unwrap();
    let ended = opened.world.on_a(&["resume", &opened.seed.handle]);
    assert_eq!((ended.code, &*ended.out), (Some(0), "by another number\nok\n"), "{ended:?}");
    opened.finish();
}

#[test]
fn inspect_tells_what_becomes_of_each_number() {
    MODES.into_iter().for_each(inspect_tells);
}

fn inspect_tells(mode: &[&str]) {
    let opened = Opened::with(mode);
    let text = opened.world.on_a(&["inspect", &opened.seed.handle]).ok();
    let folder = opened.folder.to_str().unwrap();
    let port = opened.port();
    for (fd, becomes) in [
        (2, "the resumer's".to_owned()),
        (3, "a pipe from 4 with 11 bytes".to_owned()),
        (5, "a pipe that ends after 0 bytes: its writer is another process".to_owned()),
        (6, "a pipe that nobody reads (EPIPE): its reader is another process".to_owned()),
        (7, "connected to 8, with 12 bytes".to_owned()),
        (9, "a connection whose peer has gone (end of file, EPIPE)".to_owned()),
        (11, "an eventfd of 5".to_owned()),
        (13, "an epoll of 5 files".to_owned()),
        (18, format!("{folder}/kept of the child's host at 4; EBADF if it is not there")),
        (19, format!("the same as 18: {folder}/kept of the child's host")),
        (23, "a copy of its 9 bytes".to_owned()),
        (25, "the child's own 1".to_owned()),
        (26, "EBADF: a pidfd, whose process is not there".to_owned()),
        (32, "a pipe of its own, to read and to write, with 11 bytes".to_owned()),
        (33, "the master of a new pseudo-terminal".to_owned()),
        (34, "a pidfd of the child".to_owned()),
        (35, format!("is bound at 0.0.0.0:{}", opened.said("datagrams "))),
        (36, "; the lock on it is not carried".to_owned()),
        (63, "the slave of the pseudo-terminal of 33".to_owned()),
        (27, format!("listens at 127.0.0.1:{port} with 'resume --listen {port}'; without")),
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("{fd:<4} "))).unwrap();
        assert!(line.contains(&becomes), "{mode:?}, {fd}: {line}");
    }
    opened.finish();
}

#[test]
fn children_are_told_what_they_have_lost() {
    MODES.into_iter().for_each(children_are_told);
}

fn children_are_told(mode: &[&str]) {
    let opened = Opened::with(mode);
    let told = opened.resume(&["--payload", "lost"]).end().ok();
    let folder = opened.folder.to_str().unwrap();
    let port = opened.port();
    let lines: Vec<&str> = told.lines().collect();
    for wanted in [
        "pipes [5] pipe:[",
        "pipes [6] pipe:[",
        "connections [9] a unix socket",
        "connections [10] a connection from 127.0.0.1:",
        "processes [26] a pidfd of process ",
        &format!("locks [36] a lock on {folder}/kept"),
        &format!("locks [28] a lock on {folder}/kept"),
    ] {
        assert!(lines.iter().any(|line| line.starts_with(wanted)), "{mode:?}, {wanted}: {told}");
    }
    let connected = lines.iter().find(|line| line.starts_with("connections [10]")).unwrap();
    assert!(connected.ends_with(&format!("to 127.0.0.1:{port}")), "{connected}");
    // 18 is the same file once more, opened apart.
    let locks = lines.iter().filter(|line| line.starts_with("locks")).count();
    assert_eq!(locks, 2, "{told}");
    opened.finish();
}

#[test]
fn what_is_to_be_refused_is_named_with_its_holder() {
    MODES.into_iter().for_each(is_named_with_its_holder);
}

fn is_named_with_its_holder(mode: &[&str]) {
    let world = World::new();
    let folder = world.directory.path().join("files").display().to_string();
    fs::create_dir(&folder).unwrap();
    let path = crate::world::program("suite-files").display().to_string();
    for (kinds, named) in [
        ("pipes", vec!["descriptor 5, pipe:[", "held by 'sleep' (process "]),
        (
            "connections,locks",
            vec!["descriptor 9, a unix socket", "held by 'sleep'", "descriptor 10, "],
        ),
        ("processes", vec!["descriptor 26, a pidfd of process "]),
        ("locks", vec!["descriptor 36, a lock on ", "/kept (locks)", "locks: close"]),
    ] {
        let ended = world.run(&world.a, &[&[&*path, &*folder, kinds], mode].concat()).end();
        assert_eq!(ended.code, Some(3), "{mode:?}, {kinds}: {ended:?}");
        assert!(ended.err.contains("Close it before prepare"), "{mode:?}, {kinds}: {ended:?}");
        named.iter().for_each(|text| {
            assert!(ended.err.contains(text), "{mode:?}, {kinds}, {text}: {ended:?}")
        });
    }
    // What it has not got is no reason.
    let others = [&*folder, "devices,unnamed,watches,terminals"];
    let seed = world.seed_of(&world.a, "suite-files", &[&others, mode].concat());
    world.on_a(&["drop", seed.id()]).ok();
    world.settled(&world.a);
    world.finish();
}

/// What a process of a host has open: numbers, and what they lead to.
fn descriptors(pid: i32) -> Vec<(u32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut open: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, link.display().to_string()))
        })
        .collect();
    open.sort_unstable();
    open
}

#[test]
fn nothing_of_an_agent_or_a_template_is_open_in_a_child() {
    let world = World::new();
    let folder = world.directory.path().join("files").display().to_string();
    fs::create_dir(&folder).unwrap();
    for (program, arguments, payload) in [
        ("suite-told", &[][..], "sleep"),
        ("suite-files", &[folder.as_str()], "hold"),
        ("suite-files", &[folder.as_str(), "all"], "hold"),
    ] {
        let seed = world.seed_of(&world.a, program, arguments);
        // The first child, and others that were cloned ahead.
        for _ in 0..3 {
            let resume = ["resume", "--json", &seed.handle, "--on", "host-b", "--payload", payload];
            let mut child = world.mitosis(&world.a, &resume);
            // What the child says itself may come first.
            let mut line = child.line();
            while !line.starts_with('{') {
                line = child.line();
            }
            let json: serde_json::Value = serde_json::from_str(&line).unwrap();
            let inner = u32::try_from(json["pid"].as_u64().unwrap()).unwrap();
            let pid = world.b.process(inner).unwrap().pid;
            std::thread::sleep(Duration::from_millis(100));
            let open = descriptors(pid);
            assert!(open.iter().map(|(fd, _)| *fd).take(3).eq(0..3), "{open:?}");
            // Of the agent's there would be sockets, devices and images; of a template its command socket.
            let links = open.iter().skip(3).map(|(_, link)| link.as_str());
            let foreign: Vec<&str> = match arguments {
                [] => links.filter(|link| *link != "/dev/null").collect(),
                _ => {
                    links.filter(|link| link.contains("fuse") || link.contains("mitosis")).collect()
                }
            };
            assert!(foreign.is_empty(), "{program} {arguments:?}: {open:?}");
            world.on_b(&["kill", json["child"].as_str().unwrap()]).ok();
            let ended = child.end();
            assert!(ended.code != Some(0), "{ended:?}");
        }
        world.on_a(&["drop", seed.id()]).ok();
    }
    world.settled(&world.b);
    world.finish();
}

#[test]
fn a_socket_listens_where_it_is_told_to_and_nowhere_else() {
    for mode in MODES {
        let opened = Opened::with(mode);
        let port = opened.port().to_owned();
        // Without being told to, a child takes nobody's port.
        let mut silent = opened.resume(&["--payload", "serve"]);
        assert!(silent.line().starts_with("serves "));
        let refused = greet(&opened.world, &port).end();
        assert!(refused.code != Some(0) && refused.err.contains("refused"), "{refused:?}");
        drop(silent);
        for (choice, at) in [("all", &*port), (&*port, &*port), (&*format!("{port}=4711"), "4711")]
        {
            let mut child = opened.resume(&["--payload", "serve", "--listen", choice]);
            assert_eq!(child.line(), format!("serves {at}"), "{choice}");
            assert_eq!(greet(&opened.world, at).end().ok(), "hello\n", "{choice}");
            assert_eq!(child.line(), "served", "{choice}");
            assert_eq!(child.end().code, Some(0));
        }
        opened.finish();
    }
}

/// The kernel does not tell whether it has chosen this one's port.
#[test]
fn a_datagram_socket_is_told_where() {
    for mode in MODES {
        let opened = Opened::with(mode);
        let port = opened.said("datagrams ").to_owned();
        let bound = |choice: &str| {
            opened.resume(&["--payload", "datagrams", "--listen", choice]).end().ok()
        };
        assert_eq!(bound("all"), "datagrams 0\n");
        assert_eq!(bound(&port), format!("datagrams {port}\n"));
        assert_eq!(bound(&format!("{port}=4712")), "datagrams 4712\n");
        opened.finish();
    }
}

#[test]
fn a_port_that_is_taken_is_said_and_nothing_is_started() {
    for mode in MODES {
        let opened = Opened::with(mode);
        let port = opened.port().to_owned();
        let mut first = opened.resume(&["--payload", "serve", "--listen", "all"]);
        assert_eq!(first.line(), format!("serves {port}"));
        let started = opened.world.children_started_on_b();
        let taken = opened.resume(&["--payload", "serve", "--listen", "all"]).end();
        taken.refused(&[
            "no child was started",
            &format!("127.0.0.1:{port}"),
            "--listen PORT=PORT",
        ]);
        opened.resume(&["--listen", "1"]).end().refused(&["it listens at 127.0.0.1:"]);
        assert_eq!(opened.world.children_started_on_b(), started);
        assert_eq!(greet(&opened.world, &port).end().ok(), "hello\n");
        assert_eq!(first.end().code, Some(0));
        opened.finish();
    }
}

#[test]
fn children_of_one_resume_share_a_port() {
    for mode in MODES {
        let opened = Opened::with(mode);
        let port = opened.port().to_owned();
        let mut children = opened.resume(&["-n", "3", "--payload", "serve", "--listen", &port]);
        for _ in 0..3 {
            assert_eq!(children.line(), format!("serves {port}"));
        }
        // A connection goes to any of them that still listens.
        let mut served = 0;
        within(SOON, "three children serve", || {
            served += usize::from(greet(&opened.world, &port).end().out == "hello\n");
            served == 3
        });
        assert_eq!(children.end().code, Some(0));
        opened.finish();
    }
}

#[test]
fn a_seed_without_carried_files_cannot_listen() {
    let world = World::new();
    let seed = world.seed();
    let ended = world
        .mitosis(&world.a, &["resume", &seed.handle, "--on", "host-b", "--listen", "all"])
        .end();
    ended.refused(&["its files are not carried"]);
    let ended = world.on_a(&["resume", &seed.handle, "--listen", "nowhere"]);
    assert!(ended.code == Some(2) && ended.err.contains("PORT=PORT"), "{ended:?}");
    world.finish();
}
