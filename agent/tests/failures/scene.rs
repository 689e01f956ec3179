//! Two hosts on which cells of the table are run, one after another, and what must be there and not be there behind each.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::process::Process;
use crate::way::{TOLD_PORT, Way};
use crate::world::{Machine, PORT, Plan, SOON, Seed, World, within_or};

/// Deadlines of the agents: short, so that the runs are, and long enough for a loaded machine.
const AGENTS: [&str; 4] = ["--miss-deadline-ms", "3000", "--peer-deadline-ms", "3000"];
/// What an agent keeps for later, now more of it, now less: connections to another one (idle ones, streams of READs),
/// and ready mounts.
const KEPT: [(&str, usize); 3] = [("socket", 12), ("/dev/fuse", 2), ("/", 2)];
/// What the bystander's child waits for.
const GO: &str = "/tmp/test-bystander";
/// What it ends with if it has all that its parent had.
const RIGHT: i32 = 9;

/// One of the hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    A,
    B,
}

/// Two hosts and their agents.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) world: World,
    /// To either agent, if what they say to each other goes by a relay.
    pub(crate) ways: Option<[Way; 2]>,
    /// host-b, as a resume names it.
    pub(crate) host_b: String,
    /// What the agents had open behind the first cell since they were started.
    open: Option<[BTreeMap<String, usize>; 2]>,
}

/// A seed that has nothing to do with what fails, and a child of it that has not all its pages yet.
#[derive(Debug)]
pub(crate) struct Bystander {
    seed: Seed,
    child: Process,
}

impl Scene {
    pub(crate) fn new(by_ways: bool) -> Scene {
        let port = if by_ways { TOLD_PORT } else { PORT };
        let world = World::with(Plan {
            agents: AGENTS.to_vec(),
            told_port: Some(port),
            tools_on_b: vec!["/bin/mount", "/bin/dd"],
            ..Plan::default()
        });
        let ways = by_ways.then(|| [Way::to(world.pair.a()), Way::to(world.pair.b())]);
        Scene { world, ways, host_b: format!("host-b:{port}"), open: None }
    }

    pub(crate) fn machine(&self, place: Place) -> &Machine {
        match place {
            Place::A => &self.world.a,
            Place::B => &self.world.b,
        }
    }

    pub(crate) fn machine_mut(&mut self, place: Place) -> &mut Machine {
        match place {
            Place::A => &mut self.world.a,
            Place::B => &mut self.world.b,
        }
    }

    /// A new agent, where one has ended.
    pub(crate) fn start_agent(&mut self, place: Place) {
        self.machine(place).go_on();
        self.world.start_agent(usize::from(place == Place::B));
        self.open = None;
    }

    /// What agents have said that have ended.
    pub(crate) fn last_words(&mut self) -> String {
        let mut words = String::new();
        for place in [Place::A, Place::B] {
            let agent = &mut self.machine_mut(place).agent;
            if agent.as_mut().is_some_and(Process::has_ended) {
                let ended = agent.take().map(Process::end);
                words += &format!("; agent {place:?} has ended: {ended:?}");
            }
        }
        words
    }

    pub(crate) fn bystander(&self) -> Bystander {
        let seed = self.world.seed();
        let commands = format!("read 0 4;await {GO};read 0 all;exit {RIGHT}");
        let mut child =
            self.world.mitosis(&self.world.b, &["resume", &seed.handle, "--payload", &commands]);
        while child.line() != "waiting" {}
        Bystander { seed, child }
    }

    /// The bystander's child is right if it was spared; and so is a new one of its seed, or of a new seed.
    pub(crate) fn is_unharmed(&self, bystander: Bystander, is_spared: bool) {
        let Bystander { mut seed, child } = bystander;
        let world = &self.world;
        world.signal(&world.b, GO);
        if is_spared {
            let ended = child.end();
            assert_eq!(ended.code, Some(RIGHT), "the bystander: {ended:?}");
        } else {
            child.end();
        }
        world.remove(&world.b, &[GO]);
        if !world.on_a(&["ls"]).ok().contains(seed.id()) {
            assert!(!is_spared, "the bystander's seed is gone");
            seed = world.seed();
        }
        let after = format!("read 0 all;exit {RIGHT}");
        let after = world.mitosis(&world.b, &["resume", &seed.handle, "--payload", &after]).end();
        assert_eq!(after.code, Some(RIGHT), "another seed's child, afterwards: {after:?}");
        world.on_a(&["drop", seed.id()]).ok();
    }

    /// Of no seed and no child anything is left; what the agents have open is what they had.
    pub(crate) fn is_clean(&mut self) {
        let seeds = self.world.on_a(&["ls", "--json"]).ok();
        let seeds: serde_json::Value = serde_json::from_str(&seeds).unwrap();
        for seed in seeds["seeds"].as_array().unwrap() {
            // It may be ending by itself.
            self.world.on_a(&["drop", seed["seed"].as_str().unwrap()]);
        }
        let world = &self.world;
        world.settled(&world.a);
        world.settled(&world.b);
        for machine in [&world.a, &world.b] {
            let shared = fs::read_dir(world.host(machine).outside("/dev/shm")).unwrap();
            assert_eq!(shared.count(), 0, "/dev/shm of {}", machine.name);
        }
        let now = || [&world.a, &world.b].map(open_of);
        let Some(before) = &self.open else {
            self.open = Some(now());
            return;
        };
        let more = || -> Vec<String> {
            let now = now();
            let pairs = before.iter().zip(&now).zip(["host-a", "host-b"]);
            let more = pairs.flat_map(|((before, now), host)| {
                now.iter().filter_map(move |(kind, count)| {
                    let had = before.get(kind).copied().unwrap_or_default();
                    let kept = KEPT.iter().find(|(kept, _)| kept == kind).map_or(0, |kept| kept.1);
                    (*count > had + kept).then(|| format!("{host}: {kind}: {had}, then {count}"))
                })
            });
            more.collect()
        };
        within_or(SOON, || more().is_empty(), || format!("left open: {:?}", more()));
    }
}

/// What an agent has open, by kinds, and its threads.
fn open_of(machine: &Machine) -> BTreeMap<String, usize> {
    let mut open = BTreeMap::new();
    let Some(agent) = machine.agent_seen() else { return open };
    let files = fs::read_dir(format!("/proc/{}/fd", agent.pid)).into_iter().flatten().flatten();
    for link in files.filter_map(|file| fs::read_link(file.path()).ok()) {
        let text = link.display().to_string();
        let kind = text.split([':', ' ']).next().unwrap_or_default();
        // /proc/123/mem
        let kind: String = kind.chars().filter(|c| !c.is_ascii_digit()).collect();
        *open.entry(kind).or_default() += 1;
    }
    open
}

/// For what is told by time.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    text.strip_suffix(" s")?.parse().ok().map(Duration::from_secs)
}

impl Scene {
    /// A number that no other scene has.
    pub(crate) fn host_b_init(&self) -> i32 {
        self.world.pair.b().record().init_pid
    }
}
