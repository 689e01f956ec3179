//! Open files of a seed in its children: what they find, and where they listen.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::process::{Process, within};
use crate::world::{Machine, SOON, Seed, World};

const TEXT: &str = "the file's text\n";

/// A seed of `suite-files`, whose folder is on both hosts.
struct Opened {
    world: World,
    seed: Seed,
    folder: PathBuf,
}

impl Opened {
    fn new() -> Opened {
        let world = World::new();
        let name = world.directory.path().file_name().unwrap().to_string_lossy().into_owned();
        let folder = PathBuf::from(format!("/tmp/test-{name}"));
        for machine in [&world.a, &world.b] {
            fs::create_dir_all(world.host(machine).outside(&folder)).unwrap();
        }
        let seed = world.seed_of(&world.a, "suite-files", &[folder.to_str().unwrap()]);
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
        let said = self.seed.before.iter().find_map(|line| line.strip_prefix("port "));
        said.expect("its parent says it")
    }

    /// `mitosis resume` for host-b with more arguments.
    fn resume(&self, more: &[&str]) -> Process {
        let mut arguments = vec!["resume", &self.seed.handle, "--on", "host-b"];
        arguments.extend(more);
        self.world.mitosis(&self.world.a, &arguments)
    }

    fn finish(self) {
        let folders =
            [&self.world.a, &self.world.b].map(|host| self.world.host(host).outside(&self.folder));
        self.world.finish();
        for folder in folders {
            // That of host-b has gone with it.
            let _ = fs::remove_dir_all(folder);
        }
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
    let opened = Opened::new();
    // The first child is made at once, the others ahead of their start.
    for _ in 0..3 {
        opened.write_kept(&opened.world.b);
        let ended = opened.resume(&[]).end();
        assert_eq!((ended.code, &*ended.out), (Some(0), "by another number\nok\n"), "{ended:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let missing = &opened.world.stats_of_b()["files_missing"];
    assert_eq!(missing, 1, "it counts what is not there: {missing}");
    // A child on the seed's own host.
    opened.write_kept(&opened.world.a);
    fs::remove_file(opened.outside(&opened.world.a, "gone")).unwrap();
    let ended = opened.world.on_a(&["resume", &opened.seed.handle]);
    assert_eq!((ended.code, &*ended.out), (Some(0), "by another number\nok\n"), "{ended:?}");
    opened.finish();
}

#[test]
fn inspect_tells_what_becomes_of_each_number() {
    let opened = Opened::new();
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
        (27, format!("listens at 127.0.0.1:{port} with 'resume --listen {port}'; without")),
    ] {
        let line = text.lines().find(|line| line.starts_with(&format!("{fd:<4} "))).unwrap();
        assert!(line.contains(&becomes), "{fd}: {line}");
    }
    opened.finish();
}

#[test]
fn a_socket_listens_where_it_is_told_to_and_nowhere_else() {
    let opened = Opened::new();
    let port = opened.port().to_owned();
    // Without being told to, a child takes nobody's port.
    let mut silent = opened.resume(&["--payload", "serve"]);
    assert!(silent.line().starts_with("serves "));
    let refused = greet(&opened.world, &port).end();
    assert!(refused.code != Some(0) && refused.err.contains("refused"), "{refused:?}");
    drop(silent);
    for (choice, at) in [("all", &*port), (&*port, &*port), (&*format!("{port}=4711"), "4711")] {
        let mut child = opened.resume(&["--payload", "serve", "--listen", choice]);
        assert_eq!(child.line(), format!("serves {at}"), "{choice}");
        assert_eq!(greet(&opened.world, at).end().ok(), "hello\n", "{choice}");
        assert_eq!(child.line(), "served", "{choice}");
        assert_eq!(child.end().code, Some(0));
    }
    opened.finish();
}

#[test]
fn a_port_that_is_taken_is_said_and_nothing_is_started() {
    let opened = Opened::new();
    let port = opened.port().to_owned();
    let mut first = opened.resume(&["--payload", "serve", "--listen", "all"]);
    assert_eq!(first.line(), format!("serves {port}"));
    let started = opened.world.children_started_on_b();
    let taken = opened.resume(&["--payload", "serve", "--listen", "all"]).end();
    taken.refused(&["no child was started", &format!("127.0.0.1:{port}"), "--listen PORT=PORT"]);
    opened.resume(&["--listen", "1"]).end().refused(&["it listens at 127.0.0.1:"]);
    assert_eq!(opened.world.children_started_on_b(), started);
    assert_eq!(greet(&opened.world, &port).end().ok(), "hello\n");
    assert_eq!(first.end().code, Some(0));
    opened.finish();
}

#[test]
fn children_of_one_resume_share_a_port() {
    let opened = Opened::new();
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
