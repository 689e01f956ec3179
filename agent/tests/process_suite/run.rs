//! Two hosts, and programs on them, some at a time.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mitosis_hosts::{ExecOptions, Host};

use crate::compile::Built;
use crate::outcome::{Outcome, Way};
use crate::world::{Plan, World};

/// At a time: most of their time they wait for answers of the hosts.
const RUNNERS: usize = 4;
/// A program that takes as long hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// In `kept` of a program's folder, on either host.
const KEPT: &str = "the file's text\n";
/// One child a seed: a rehearsal would be a second one, and nobody would gain by it.
const AGENTS: [&str; 1] = ["--no-rehearsal"];
/// Each host takes the other's kernel for another one.
const OTHER_KERNELS: [&str; 2] = ["--no-rehearsal", "--proxy-vdso"];
/// What children start on host-b.
const TOOLS_ON_B: [&str; 3] = ["/bin/sh", "/bin/cat", "/bin/true"];

/// What hosts take each other's kernel for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernels {
    Equal,
    Other,
}

/// Two hosts and the programs.
#[derive(Debug)]
pub(crate) struct Suite {
    world: World,
    built: Built,
    folder: PathBuf,
}

/// What threads share of it.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    hosts: [&'a Host; 2],
    built: &'a Built,
    folder: &'a Path,
}

impl Suite {
    pub(crate) fn start(built: Built, kernels: Kernels) -> Suite {
        let plugin = built.plugin().display().to_string();
        let mut tools_on_b: Vec<&'static str> = TOOLS_ON_B.to_vec();
        // As long as this process, which starts one suite.
        tools_on_b.push(String::leak(plugin));
        let agents = match kernels {
            Kernels::Equal => AGENTS.to_vec(),
            Kernels::Other => OTHER_KERNELS.to_vec(),
        };
        let world = World::with(Plan { tools_on_b, agents, ..Plan::default() });
        let name = world.directory.path().file_name().unwrap().to_string_lossy().into_owned();
        let folder = PathBuf::from(format!("/tmp/test-{name}"));
        Suite { world, built, folder }
    }

    /// Every program in every way, in the order of `names`.
    pub(crate) fn run_all(&self, names: &[&str]) -> Vec<[Outcome; 3]> {
        let jobs: Vec<(&str, Way)> =
            names.iter().flat_map(|name| Way::ALL.map(|way| (*name, way))).collect();
        let hosts = [&self.world.a, &self.world.b].map(|machine| self.world.host(machine));
        let place = Place { hosts, built: &self.built, folder: &self.folder };
        let next = AtomicUsize::new(0);
        let done: Mutex<Vec<Option<Outcome>>> = Mutex::new(vec![None; jobs.len()]);
        std::thread::scope(|scope| {
            for _ in 0..RUNNERS {
                scope.spawn(|| {
                    while let Some((at, (name, way))) = {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        jobs.get(at).map(|job| (at, *job))
                    } {
                        let outcome = place.run(name, way);
                        done.lock().unwrap()[at] = Some(outcome);
                    }
                });
            }
        });
        let done: Vec<Outcome> = done.into_inner().unwrap().into_iter().flatten().collect();
        assert_eq!(done.len(), jobs.len());
        let mut done = done.into_iter();
        names.iter().map(|_| [(); 3].map(|()| done.next().unwrap())).collect()
    }

    /// Ends the hosts: nothing of any program is left.
    pub(crate) fn finish(self) {
        self.world.remove_folder(&self.folder);
        self.world.finish();
    }
}

impl Place<'_> {
    fn run(&self, name: &str, way: Way) -> Outcome {
        let folder = self.folder.join(format!("{}-{}", name.replace('/', "-"), way.word()));
        let folders = self.hosts.map(|host| host.outside(&folder));
        for folder in &folders {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("kept"), KEPT).unwrap();
        }
        let env = |name: &str, value: String| (name.to_owned(), value);
        let options = ExecOptions {
            env: vec![
                env("SUITE_WAY", way.word().to_owned()),
                env("SUITE_HOST", "host-b".to_owned()),
                env("SUITE_FOLDER", folder.display().to_string()),
                env("SUITE_PLUGIN", self.built.plugin().display().to_string()),
            ],
            ..ExecOptions::default()
        };
        let outcome = wait_for(self.hosts[0].command_with(&options, [self.built.program(name)]));
        for folder in folders {
            fs::remove_dir_all(folder).unwrap();
        }
        outcome
    }
}

fn wait_for(mut command: std::process::Command) -> Outcome {
    let begun = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reading = std::thread::spawn(move || {
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let _ = out.read_to_end(&mut said);
        let _ = err.read_to_end(&mut complained);
        [said, complained].map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    });
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if begun.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(3)),
        }
    };
    let [said, err] = reading.join().unwrap();
    let line = match (status, said.lines().last()) {
        (None, last) => format!("differs: 0: hangs; it said {last:?}"),
        (Some(_), Some(last)) => last.to_owned(),
        (Some(status), None) => format!("differs: 0: {status}, and it said nothing"),
    };
    let success = status.is_some_and(|status| status.success());
    Outcome { line, success, err, took: begun.elapsed() }
}
