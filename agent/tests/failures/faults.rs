//! What fails: the rows of the table. Each happens to the real parts, from outside.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::process::within;
use crate::scene::{Place, Scene};
use crate::steps::{Begun, Step};
use crate::way::Weather;
use crate::world::{SOON, Seen};

/// A reply that is late comes within the peers' deadline.
const LATE: Duration = Duration::from_secs(1);
/// One way, of a slow link; a packet of a hundred is lost.
const SLOW: Duration = Duration::from_millis(100);
const LOST_OF_1000: u32 = 10;

/// The rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    SeedKilled,
    AgentKilled(Place),
    /// The seed's: killed, and another one started at once.
    AgentRestarted,
    AgentStopped(Place),
    /// That of the children's host; at the first step, where a rehearsal is next, the seed's.
    KeeperKilled,
    LinkCut,
    LinkSlow,
    Garbage,
    Duplicates,
    Late,
    DiskFull,
    DescriptorsFull,
    ProcessesFull,
}

/// What is to be undone.
#[derive(Debug)]
pub(crate) enum Undo {
    Nothing,
    Start(Place),
    Continue(i32),
    /// Reaped, then a new one.
    Ended(Place),
    Restore,
    Fair,
    /// The disk's size.
    Size(String),
    /// A limit: process, option of prlimit(1), value.
    Limit(i32, &'static str, String),
    /// A control group, and where its processes were.
    Group(PathBuf),
}

impl Fault {
    pub(crate) const ALL: [Fault; 15] = [
        Fault::SeedKilled,
        Fault::AgentKilled(Place::A),
        Fault::AgentKilled(Place::B),
        Fault::AgentRestarted,
        Fault::AgentStopped(Place::A),
        Fault::AgentStopped(Place::B),
        Fault::KeeperKilled,
        Fault::LinkCut,
        Fault::LinkSlow,
        Fault::Garbage,
        Fault::Duplicates,
        Fault::Late,
        Fault::DiskFull,
        Fault::DescriptorsFull,
        Fault::ProcessesFull,
    ];

    /// As the document has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Fault::SeedKilled => "seed killed",
            Fault::AgentKilled(Place::A) => "agent A killed",
            Fault::AgentKilled(Place::B) => "agent B killed",
            Fault::AgentRestarted => "agent A restarted",
            Fault::AgentStopped(Place::A) => "agent A stopped",
            Fault::AgentStopped(Place::B) => "agent B stopped",
            Fault::KeeperKilled => "keeper killed",
            Fault::LinkCut => "link cut",
            Fault::LinkSlow => "link slow",
            Fault::Garbage => "garbage",
            Fault::Duplicates => "duplicates",
            Fault::Late => "late replies",
            Fault::DiskFull => "disk full",
            Fault::DescriptorsFull => "no descriptors",
            Fault::ProcessesFull => "no processes",
        }
    }

    /// Whether what the agents say to each other goes by a relay.
    pub(crate) fn needs_ways(self) -> bool {
        matches!(self, Fault::LinkSlow | Fault::Garbage | Fault::Duplicates)
    }

    /// Whether streams that all of an agent's seeds share may have bytes in them afterwards that nobody awaits.
    pub(crate) fn spoils_streams(self) -> bool {
        matches!(self, Fault::Garbage | Fault::Duplicates)
    }

    /// Whether all others live on.
    pub(crate) fn spares_others(self) -> bool {
        !matches!(self, Fault::AgentKilled(_) | Fault::KeeperKilled)
    }

    /// Happens, to a step that has been begun.
    pub(crate) fn happen(self, scene: &mut Scene, step: Step, begun: &Begun) -> Undo {
        let place = step.place();
        match self {
            Fault::SeedKilled => {
                let seed = seed_of(scene, begun);
                kill(seed.pid, "KILL");
                // Its parent, if that is there, reaps it later.
                let is_over = |seen: Seen| seen.state == 'Z';
                within(SOON, "the seed is gone", || {
                    scene.world.a.process(seed.inner).is_none_or(is_over)
                });
                Undo::Nothing
            }
            Fault::AgentKilled(place) => {
                scene.machine_mut(place).kill_agent();
                Undo::Start(place)
            }
            Fault::AgentRestarted => {
                scene.machine_mut(Place::A).kill_agent();
                scene.start_agent(Place::A);
                Undo::Nothing
            }
            Fault::AgentStopped(place) => {
                let agent = agent_of(scene, place);
                stop(agent);
                Undo::Continue(agent)
            }
            Fault::Late => {
                let agent = agent_of(scene, place);
                stop(agent);
                std::thread::spawn(move || {
                    std::thread::sleep(LATE);
                    kill(agent, "CONT");
                });
                Undo::Continue(agent)
            }
            Fault::KeeperKilled => {
                let place = if step == Step::Publish { Place::A } else { Place::B };
                kill(scene.machine(place).keeper().pid, "KILL");
                within(SOON, "the agent ends, too", || scene.machine(place).agent_seen().is_none());
                Undo::Ended(place)
            }
            Fault::LinkCut => {
                scene.world.pair.cut_link().unwrap();
                Undo::Restore
            }
            Fault::LinkSlow => {
                scene.world.pair.lose_packets(LOST_OF_1000).unwrap();
                set_weather(scene, Weather::Slow(SLOW))
            }
            Fault::Garbage => set_weather(scene, Weather::Garbled),
            Fault::Duplicates => set_weather(scene, Weather::Doubled),
            Fault::DiskFull => fill_disk(scene),
            Fault::DescriptorsFull => {
                let agent = agent_of(scene, place);
                let open = fs::read_dir(format!("/proc/{agent}/fd")).unwrap().flatten();
                let numbers = open.filter_map(|file| file.file_name().to_str()?.parse().ok());
                let open: BTreeSet<u32> = numbers.collect();
                // A number below the limit that is free would be given away.
                let free = (0..).find(|number| !open.contains(number)).unwrap_or_default();
                limit(agent, "--nofile", &free.to_string())
            }
            Fault::ProcessesFull => no_more_processes(scene, place),
        }
    }
}

impl Undo {
    pub(crate) fn undo(self, scene: &mut Scene) {
        match self {
            Undo::Nothing => {}
            Undo::Start(place) => scene.start_agent(place),
            Undo::Continue(agent) => kill(agent, "CONT"),
            Undo::Ended(place) => {
                let ended = scene.machine_mut(place).agent.take().unwrap().end();
                assert!(ended.err.contains("keeper is gone"), "{ended:?}");
                scene.start_agent(place);
            }
            Undo::Restore => scene.world.pair.restore_link().unwrap(),
            Undo::Fair => {
                scene.ways.iter().flatten().for_each(|way| way.set(Weather::Fair));
                scene.world.pair.lose_packets(0).unwrap();
            }
            Undo::Size(size) => {
                scene.world.remove(&scene.world.b, &["/tmp/test-filler"]);
                resize(scene, &size);
            }
            Undo::Limit(pid, option, value) => set_limit(pid, option, &value),
            Undo::Group(group) => {
                let all = group.parent().unwrap().join("cgroup.procs");
                for pid in fs::read_to_string(group.join("cgroup.procs")).unwrap().lines() {
                    let _ = fs::write(&all, pid);
                }
                within(SOON, "the control group is empty", || fs::remove_dir(&group).is_ok());
            }
        }
    }
}

fn agent_of(scene: &Scene, place: Place) -> i32 {
    scene.machine(place).agent_seen().expect("an agent").pid
}

/// Of one that is being published nobody knows the number yet: it is the newest of its program's.
fn seed_of(scene: &Scene, begun: &Begun) -> Seen {
    let machine = &scene.world.a;
    if let Some(seed) = &begun.seed {
        return machine.process(seed.pid).expect("the seed");
    }
    let all = machine.processes().into_iter().filter(|seen| seen.command.contains("suite-told"));
    all.max_by_key(|seen| seen.inner).expect("the seed")
}

fn set_weather(scene: &Scene, weather: Weather) -> Undo {
    scene.ways.as_ref().expect("ways").iter().for_each(|way| way.set(weather));
    Undo::Fair
}

/// The disk of host-b is as large as what lies on it.
fn fill_disk(scene: &Scene) -> Undo {
    let root = scene.world.pair.b().outside("/");
    let told = Command::new("stat").args(["-f", "-c", "%b %f %S"]).arg(&root).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let numbers: Vec<u64> = told.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [blocks, free, size] = numbers[..] else { panic!("{told}") };
    resize(scene, &((blocks - free + 16) * size).to_string());
    let fill = ["/bin/dd", "if=/dev/zero", "of=/tmp/test-filler", "bs=4096"];
    let filled = scene.world.run(&scene.world.b, &fill).end();
    assert!(filled.err.contains("No space left"), "{filled:?}");
    Undo::Size((blocks * size).to_string())
}

fn resize(scene: &Scene, bytes: &str) {
    let options = format!("remount,size={bytes}");
    scene.world.run(&scene.world.b, &["/bin/mount", "-o", &options, "/"]).end().ok();
}

fn limit(pid: i32, option: &'static str, value: &str) -> Undo {
    let said = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), option, "--raw", "--noheadings", "--output", "SOFT"])
        .output()
        .unwrap();
    let before = String::from_utf8(said.stdout).unwrap().trim().to_owned();
    set_limit(pid, option, value);
    Undo::Limit(pid, option, before)
}

/// The soft limit alone.
fn set_limit(pid: i32, option: &str, value: &str) {
    let change = format!("{option}={value}:");
    let set = Command::new("prlimit").args(["--pid", &pid.to_string(), &change]).output().unwrap();
    // The agent may have ended by it.
    assert!(set.status.success() || !PathBuf::from(format!("/proc/{pid}")).exists(), "{set:?}");
}

/// The agent and its keeper can have no more processes and threads than they have.
fn no_more_processes(scene: &Scene, place: Place) -> Undo {
    let group =
        groups().join(format!("mitosis-test-{}-{}", std::process::id(), scene.host_b_init()));
    fs::create_dir(&group).unwrap();
    let machine = scene.machine(place);
    let mut pids = vec![agent_of(scene, place), machine.keeper().pid];
    pids.extend(machine.children_of_keeper().iter().map(|seen| seen.pid));
    for pid in pids {
        // A child may have ended since.
        if let Err(error) = fs::write(group.join("cgroup.procs"), pid.to_string()) {
            assert_eq!(error.raw_os_error(), Some(libc::ESRCH), "{pid}: {error}");
        }
    }
    // Below what there is: a place that somebody leaves is nobody's.
    fs::write(group.join("pids.max"), "1").unwrap();
    Undo::Group(group)
}

/// Where control groups that count processes are made; none where the machine has none that can be.
pub(crate) fn groups() -> PathBuf {
    let first = PathBuf::from("/sys/fs/cgroup/pids");
    if first.is_dir() { first } else { PathBuf::from("/sys/fs/cgroup") }
}

/// Whether [`Fault::ProcessesFull`] can happen here.
pub(crate) fn can_count_processes() -> bool {
    let probe = groups().join(format!("mitosis-probe-{}", std::process::id()));
    let is_made = fs::create_dir(&probe).is_ok();
    let counts = probe.join("pids.max").exists();
    let _ = fs::remove_dir(&probe);
    is_made && counts
}

/// Each of its threads stands behind this: one that is on a processor when the signal is sent goes on until it leaves it.
fn stop(pid: i32) {
    kill(pid, "STOP");
    within(SOON, "all threads stand", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.flatten().all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let state = status.lines().find_map(|line| line.strip_prefix("State:\t"));
            state.is_none_or(|state| state.starts_with('T'))
        })
    });
}

pub(crate) fn kill(pid: i32, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(sent.unwrap().success() || signal == "CONT", "kill -{signal} {pid}");
}
