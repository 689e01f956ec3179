//! Two hosts with an agent each, and looks at what is on them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mitosis::sys::scm;
use mitosis::wire::frame;
use mitosis::wire::local::LocalRequest;
use mitosis_hosts::{ExecOptions, FileSpec, Host, Pair, PairConfig};
use tempfile::TempDir;

use crate::process::{Ended, Process, within};

/// The real binary.
pub(crate) const MITOSIS: &str = env!("CARGO_BIN_EXE_mitosis");
/// Where it is on host-b.
const MITOSIS_ON_B: &str = "/bin/mitosis";
/// Where the secret is on host-b.
const SECRET_ON_B: &str = "/etc/mitosis.secret";
/// In whose folder of this name tests halt agents (`core/src/halt.rs`), in /tmp of host-b.
const HALTS_ON_B: &str = "/tmp/test-halts";
/// Where agents listen for each other.
pub(crate) const PORT: u16 = 7370;
/// Where an agent listens that is told nothing.
const SOCKET: &str = "/run/mitosis/agent.sock";
/// For what ends by itself but not at once.
pub(crate) const SOON: Duration = Duration::from_secs(8);
/// FUSE mounts that an agent keeps ready: two, and the next one in the hand of who makes them.
const READY_MOUNTS: usize = 3;

/// How the hosts are made.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// More arguments for both agents.
    pub(crate) agents: Vec<&'static str>,
    /// Host-b has the programs of the suite, at their paths.
    pub(crate) programs_on_b: bool,
    /// More files for host-b.
    pub(crate) tools_on_b: Vec<&'static str>,
    /// The port under which the agents tell others to reach them; none: the one that they listen on.
    pub(crate) told_port: Option<u16>,
}

/// Two hosts, an agent on each.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) a: Machine,
    pub(crate) b: Machine,
    pub(crate) pair: Pair,
    pub(crate) directory: TempDir,
    told_port: u16,
    mounts: [String; 2],
    /// In /tmp of host-b from the beginning.
    in_tmp: BTreeSet<OsString>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    pub(crate) agent: Option<Process>,
    mitosis: &'static str,
    secret: PathBuf,
    more: Vec<&'static str>,
    /// The folder of its halts, from outside.
    halts: PathBuf,
    options: ExecOptions,
    init: i32,
    root: PathBuf,
}

/// A process of a host, as seen from outside.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) pid: i32,
    /// Its number on its host.
    pub(crate) inner: u32,
    pub(crate) state: char,
    pub(crate) command: String,
}

/// A program of the suite.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = Path::new(MITOSIS).with_file_name(name);
    assert!(path.is_file(), "no {name}; build it: cargo build -p mitosis-process-suite");
    path
}

impl World {
    pub(crate) fn new() -> World {
        World::with(Plan::default())
    }

    pub(crate) fn with(plan: Plan) -> World {
        let mut world = World::without_agents(plan);
        for machine in [0, 1] {
            world.start_agent(machine);
        }
        world
    }

    pub(crate) fn without_agents(plan: Plan) -> World {
        let directory = tempfile::Builder::new().prefix("mitosis-test-").tempdir().unwrap();
        let secret = directory.path().join("secret");
        write_secret(&secret, 1);
        let mut config = PairConfig::default();
        config.files.push(FileSpec::new(MITOSIS, MITOSIS_ON_B).unwrap());
        config.files.push(FileSpec::new(&secret, SECRET_ON_B).unwrap());
        if plan.programs_on_b {
            for name in
                ["suite-told", "suite-memory", "suite-calls", "suite-kinds", "suite-threads"]
            {
                config = config.file(program(name)).unwrap();
            }
        }
        for tool in ["/bin/bash", "/bin/sleep"].into_iter().chain(plan.tools_on_b) {
            config = config.file(tool).unwrap();
        }
        let pair = Pair::up(config).expect("sealed hosts come up (they need root)");
        let temporary = directory.path().join("tmp");
        fs::create_dir(&temporary).unwrap();
        let halts = directory.path().join("halts");
        let env = |halts: &Path| ("MITOSIS_TEST_HALT".to_owned(), halts.display().to_string());
        let env_of_a = vec![("TMPDIR".to_owned(), temporary.display().to_string()), env(&halts)];
        let env_of_b = vec![env(Path::new(HALTS_ON_B))];
        let halts_of_b = pair.b().outside(HALTS_ON_B);
        for folder in [&halts, &halts_of_b] {
            fs::create_dir(folder).unwrap();
        }
        let machine = |host: &Host, name, mitosis, secret: &Path, env, halts: PathBuf| Machine {
            name,
            agent: None,
            mitosis,
            secret: secret.to_owned(),
            more: plan.agents.clone(),
            halts,
            options: ExecOptions { env, ..ExecOptions::default() },
            init: host.record().init_pid,
            root: host.record().root.clone(),
        };
        let mut world = World {
            a: machine(pair.a(), "host-a", MITOSIS, &secret, env_of_a, halts),
            b: machine(
                pair.b(),
                "host-b",
                MITOSIS_ON_B,
                Path::new(SECRET_ON_B),
                env_of_b,
                halts_of_b,
            ),
            pair,
            directory,
            told_port: plan.told_port.unwrap_or(PORT),
            mounts: Default::default(),
            in_tmp: BTreeSet::new(),
        };
        world.mounts = [world.a.mounts(), world.b.mounts()];
        world.in_tmp = names_in(&world.b.root.join("tmp"));
        world
    }

    fn machine(&mut self, index: usize) -> (&mut Machine, &Host) {
        match index {
            0 => (&mut self.a, self.pair.a()),
            _ => (&mut self.b, self.pair.b()),
        }
    }

    /// Starts the agent of host-a (0) or host-b (1), with remote listener.
    pub(crate) fn start_agent(&mut self, index: usize) {
        self.start_agent_with(index, &[]);
    }

    /// With flags of its own.
    pub(crate) fn start_agent_with(&mut self, index: usize, own: &[&str]) {
        let told_port = self.told_port;
        let (machine, host) = self.machine(index);
        let secret = machine.secret.display().to_string();
        let (listen, advertise) = (PORT.to_string(), format!("{}:{told_port}", machine.name));
        let mut arguments =
            vec!["--listen", &listen, "--advertise", &advertise, "--secret-file", &secret];
        arguments.extend(machine.more.iter().chain(own));
        let mut agent = machine.agent_with(host, &arguments);
        assert!(agent.line().starts_with("mitosis agent ready on "));
        machine.agent = Some(agent);
    }

    pub(crate) fn host(&self, machine: &Machine) -> &Host {
        if machine.init == self.a.init { self.pair.a() } else { self.pair.b() }
    }

    /// A program on a host.
    pub(crate) fn run(&self, machine: &Machine, arguments: &[&str]) -> Process {
        Process::start(self.host(machine).command_with(&machine.options, arguments))
    }

    /// `mitosis ARGUMENTS` on a host.
    pub(crate) fn mitosis(&self, machine: &Machine, arguments: &[&str]) -> Process {
        let mut command = vec![machine.mitosis];
        command.extend(arguments);
        self.run(machine, &command)
    }

    /// `mitosis ARGUMENTS` on host-a, to its end.
    pub(crate) fn on_a(&self, arguments: &[&str]) -> Ended {
        self.mitosis(&self.a, arguments).end()
    }

    /// `mitosis ARGUMENTS` on host-b, to its end.
    pub(crate) fn on_b(&self, arguments: &[&str]) -> Ended {
        self.mitosis(&self.b, arguments).end()
    }

    /// A request to a host's agent as it stands on the wire.
    pub(crate) fn say(
        &self,
        machine: &Machine,
        request: &LocalRequest,
        fds: &[BorrowedFd<'_>],
    ) -> UnixStream {
        let stream = UnixStream::connect(self.host(machine).outside(SOCKET)).unwrap();
        scm::send_all(stream.as_fd(), &frame::encode(request).unwrap(), fds).unwrap();
        stream
    }

    /// What the agent of host-b counts.
    pub(crate) fn stats_of_b(&self) -> serde_json::Value {
        serde_json::from_str(&self.on_b(&["stats", "--json"]).ok()).unwrap()
    }

    pub(crate) fn children_started_on_b(&self) -> u64 {
        self.stats_of_b()["children_started"].as_u64().unwrap()
    }

    /// Children of `handle` do `commands` on host-b for a caller on host-a.
    pub(crate) fn children(&self, handle: &str, commands: &str) -> Process {
        self.mitosis(&self.a, &["resume", handle, "--on", "host-b", "--payload", commands])
    }

    /// A seed of the array on host-a: its parent has ended when this returns.
    pub(crate) fn seed(&self) -> Seed {
        self.seed_of(&self.a, "suite-told", &[])
    }

    /// A seed of a program of the suite, whose parent ends.
    pub(crate) fn seed_of(&self, machine: &Machine, name: &str, arguments: &[&str]) -> Seed {
        let path = program(name).display().to_string();
        let mut command = vec![path.as_str()];
        command.extend(arguments);
        let mut parent = self.run(machine, &command);
        let mut before = Vec::new();
        loop {
            let line = parent.line();
            if let Some((handle, pid)) =
                line.rsplit_once(' ').filter(|(handle, _)| handle.starts_with("mitosis://"))
            {
                let (handle, pid) = (handle.to_owned(), pid.parse().unwrap());
                assert_eq!(parent.end().code, Some(0));
                return Seed { handle, pid, before };
            }
            before.push(line);
        }
    }

    /// A file that appears on a host: what children wait for.
    pub(crate) fn signal(&self, machine: &Machine, path: &str) {
        fs::write(self.host(machine).outside(path), "").unwrap();
    }

    /// Whether a file is there on a host.
    pub(crate) fn exists(&self, machine: &Machine, path: &str) -> bool {
        self.host(machine).outside(path).exists()
    }

    /// Takes files of a host away.
    pub(crate) fn remove(&self, machine: &Machine, paths: &[&str]) {
        for path in paths {
            fs::remove_file(self.host(machine).outside(path)).unwrap();
        }
    }

    /// Nothing of any seed or child is left on a host but the agents' own.
    pub(crate) fn settled(&self, machine: &Machine) {
        let left = || -> Vec<Seen> {
            machine.processes().into_iter().filter(|seen| !seen.is_standing()).collect()
        };
        within_or(SOON, || left().is_empty(), || format!("left on {}: {:?}", machine.name, left()));
        within_or(
            SOON,
            || machine.fuse_connections() <= READY_MOUNTS,
            || format!("{} FUSE connections on {}", machine.fuse_connections(), machine.name),
        );
        let index = usize::from(machine.init != self.a.init);
        assert_eq!(machine.mounts(), self.mounts[index], "mounts of {}", machine.name);
        let place = match index {
            0 => self.directory.path().join("tmp"),
            _ => machine.root.join("tmp"),
        };
        let is_ours = |name: &OsString| name.to_string_lossy().starts_with("test-");
        let left = || -> Vec<OsString> {
            let there = names_in(&place);
            there.difference(&self.in_tmp).filter(|name| !is_ours(name)).cloned().collect()
        };
        // A keeper may give a grace after its agent.
        let what = || format!("temporary files of {}: {:?}", machine.name, left());
        within_or(SOON, || left().is_empty(), what);
    }

    /// Removes a folder that a test has made on both hosts, while they are there: behind their end nothing leads to it.
    pub(crate) fn remove_folder(&self, folder: &Path) {
        let folders = [&self.a, &self.b].map(|machine| self.host(machine).outside(folder));
        for folder in folders.iter().filter(|folder| folder.exists()) {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }

    /// Ends the agents; then nothing at all is left.
    pub(crate) fn finish(mut self) {
        for index in [0, 1] {
            let (machine, _) = self.machine(index);
            let Some(agent) = machine.agent.take() else { continue };
            let (machine, _) = self.machine(index);
            let shutdown = machine.name;
            let machine = if index == 0 { &self.a } else { &self.b };
            self.mitosis(machine, &["shutdown"]).end().ok();
            let ended = agent.end();
            assert_eq!(ended.code, Some(0), "{shutdown}: {ended:?}");
            assert!(!ended.err.contains("panicked"), "{ended:?}");
        }
        for machine in [&self.a, &self.b] {
            let left = || -> Vec<Seen> {
                machine.processes().into_iter().filter(|seen| !seen.is_of_harness()).collect()
            };
            within_or(
                SOON,
                || left().is_empty(),
                || format!("left on {}: {:?}", machine.name, left()),
            );
            assert!(
                !machine.root.join(SOCKET.trim_start_matches('/')).exists(),
                "the socket of {}",
                machine.name
            );
            self.settled(machine);
        }
        self.pair.down().unwrap();
    }
}

/// A seed on a host.
#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) handle: String,
    /// Its number on its host.
    pub(crate) pid: u32,
    /// What its parent said before.
    pub(crate) before: Vec<String>,
}

impl Seed {
    pub(crate) fn id(&self) -> &str {
        self.handle.rsplit_once('/').unwrap().1.split('#').next().unwrap()
    }

    /// The handle with other characters in its key.
    pub(crate) fn with_wrong_key(&self) -> String {
        let (place, key) = self.handle.split_once('#').unwrap();
        let other: String = key.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
        format!("{place}#{other}")
    }
}

impl Machine {
    /// An agent with these arguments alone.
    pub(crate) fn agent_with(&self, host: &Host, arguments: &[&str]) -> Process {
        let mut command = vec![self.mitosis, "agent"];
        command.extend(arguments);
        Process::start(host.command_with(&self.options, command))
    }

    /// Kills the agent as the kernel would when memory is short.
    pub(crate) fn kill_agent(&mut self) {
        let is_agent = |seen: &Seen| seen.command.contains("mitosis agent");
        let agents: Vec<i32> =
            self.processes().into_iter().filter(is_agent).map(|seen| seen.pid).collect();
        self.agent.take().unwrap().kill();
        // A process that ends loses its command line first and its sockets last.
        within(SOON, "the agent is gone", || {
            agents.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        });
    }

    /// The agent's process.
    pub(crate) fn agent_seen(&self) -> Option<Seen> {
        self.processes().into_iter().find(|seen| seen.command.contains("mitosis agent"))
    }

    /// Whoever comes to this step from now on halts there (`core/src/halt.rs`).
    pub(crate) fn halt(&self, step: &str) {
        fs::write(self.halts.join(step), "").unwrap();
    }

    /// Whether somebody has come there.
    pub(crate) fn is_halted(&self, step: &str) -> bool {
        self.halts.join(step).with_extension("reached").exists()
    }

    /// All go on.
    pub(crate) fn go_on(&self) {
        for entry in fs::read_dir(&self.halts).unwrap().flatten() {
            fs::remove_file(entry.path()).unwrap();
        }
    }

    pub(crate) fn keeper(&self) -> Seen {
        let keeper =
            self.processes().into_iter().find(|seen| seen.command.contains("mitosis keeper"));
        keeper.expect("a keeper")
    }

    /// The host's numbers of its keeper's children: templates, children, and children that wait.
    pub(crate) fn on_keeper(&self) -> Vec<u32> {
        self.children_of_keeper().iter().map(|seen| seen.inner).collect()
    }

    pub(crate) fn children_of_keeper(&self) -> Vec<Seen> {
        let keeper = self.keeper();
        let all = self.processes().into_iter();
        all.filter(|seen| is_child_of(seen.pid, &keeper.pid)).collect()
    }

    /// All processes of the host, those in namespaces of their own among them.
    pub(crate) fn processes(&self) -> Vec<Seen> {
        let own = fs::read_link(format!("/proc/{}/ns/pid", self.init)).ok();
        let depth = numbers_of(self.init).len();
        let numbers = fs::read_dir("/proc").unwrap().flatten();
        let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let parents: Vec<(i32, i32)> =
            numbers.filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
        let is_in = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok() == own;
        let mut here: BTreeSet<i32> = parents
            .iter()
            .filter(|(pid, parent)| own.is_some() && (is_in(*pid) || *parent == self.init))
            .map(|(pid, _)| *pid)
            .collect();
        // What is in a namespace below has a parent here, or one whose parent is here.
        loop {
            let more = parents.iter().filter(|(_, parent)| here.contains(parent));
            let more: BTreeSet<i32> = more.map(|(pid, _)| *pid).collect();
            if more.is_subset(&here) {
                break;
            }
            here.extend(more);
        }
        here.into_iter().filter_map(|pid| Seen::look(pid, depth)).collect()
    }

    /// The process that the host knows by this number.
    pub(crate) fn process(&self, inner: u32) -> Option<Seen> {
        self.processes().into_iter().find(|seen| seen.inner == inner)
    }

    fn mounts(&self) -> String {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", self.init)).unwrap();
        let lines: BTreeSet<&str> = text.lines().collect();
        lines.into_iter().collect::<Vec<_>>().join("\n")
    }

    /// Connections to FUSE that the agent has.
    fn fuse_connections(&self) -> usize {
        let agents =
            self.processes().into_iter().filter(|seen| seen.command.contains("mitosis agent"));
        let links = agents.flat_map(|agent| {
            fs::read_dir(format!("/proc/{}/fd", agent.pid)).into_iter().flatten()
        });
        let links = links.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        links.filter(|link| link == Path::new("/dev/fuse")).count()
    }

    /// Threads of the agent.
    pub(crate) fn agent_threads(&self) -> usize {
        let agents =
            self.processes().into_iter().filter(|seen| seen.command.contains("mitosis agent"));
        agents
            .map(|agent| {
                fs::read_dir(format!("/proc/{}/task", agent.pid)).map_or(0, Iterator::count)
            })
            .sum()
    }
}

/// A zombie has no namespaces to be read any more, but a parent.
fn is_child_of(pid: i32, parent: &i32) -> bool {
    parent_of(pid).as_ref() == Some(parent)
}

fn parent_of(pid: i32) -> Option<i32> {
    status_of(pid, "PPid:")?.parse().ok()
}

/// The numbers of a process, from the outermost pid namespace to its own.
fn numbers_of(pid: i32) -> Vec<i32> {
    let numbers = status_of(pid, "NSpid:").unwrap_or_default();
    numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

fn status_of(pid: i32, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(field)).map(|text| text.trim().to_owned())
}

impl Seen {
    /// `depth`: of the host's pid namespace, counted from the one of /proc.
    fn look(pid: i32, depth: usize) -> Option<Seen> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let name = field("Name:")?;
        let command = if command.is_empty() { format!("[{name}]") } else { command };
        let command = if name.starts_with("hosts-") { name.to_owned() } else { command };
        Some(Seen {
            pid,
            inner: u32::try_from(*numbers_of(pid).get(depth.checked_sub(1)?)?).ok()?,
            state: field("State:")?.chars().next()?,
            command,
        })
    }

    fn is_of_harness(&self) -> bool {
        self.command.starts_with("hosts-")
    }

    /// Belongs to a host that runs an agent and nothing else.
    fn is_standing(&self) -> bool {
        let ours =
            self.command.contains("mitosis agent") || self.command.contains("mitosis keeper");
        self.is_of_harness() || ours && !matches!(self.state, 'Z' | 'D')
    }
}

/// Waits until `condition` holds; `what` says what is wrong if it does not.
pub(crate) fn within_or(limit: Duration, condition: impl Fn() -> bool, what: impl Fn() -> String) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < limit, "{}", what());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn names_in(directory: &Path) -> BTreeSet<OsString> {
    fs::read_dir(directory).unwrap().flatten().map(|entry| entry.file_name()).collect()
}

/// A cluster secret of one byte, over and over.
pub(crate) fn write_secret(path: &Path, byte: u8) {
    fs::write(path, [byte; 32]).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
