//! Two guests, an agent on each.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mitosis_guests::{Config, DC_LIBRARIES, Ended, Guests, Job, target};

/// Nothing here takes as long, in an emulator on a busy machine; what does hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a page may take, as the agents are told: short, so that the tests are, and long enough
/// for an emulator.
pub(crate) const MISS_DEADLINE: Duration = Duration::from_secs(4);
/// What an emulated machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(6);
/// Exit status of a `resume` whose child's end is not known or that lost a page.
pub(crate) const LOST: i32 = 125;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

pub(crate) const HOST_A: u32 = 1;
pub(crate) const HOST_B: u32 = 2;
/// 32 MiB: more than an emulator moves between the first page and the fault that a test makes, which is some
/// 100 ms later; and each test reads all of it, at 10 to 20 MiB/s.
const ARRAY_WORDS: usize = 4 << 20;
pub(crate) const ARRAY_PAGES: usize = ARRAY_WORDS / 512;

/// The fabric rc with the libraries of the software DC, which must leave it as it is.
pub(crate) const RC_BESIDE_DC: &str = "rc_beside_dc";

/// Over tcp, between machines of two kernels.
pub(crate) const TWO_KERNELS: &str = "tcp_of_two_kernels";

/// Likewise, and nothing is rehearsed: one child a seed.
pub(crate) const SUITE_OF_TWO_KERNELS: &str = "suite_of_two_kernels";

/// The fabric dc where the card isolates the failures of streams.
pub(crate) const DC_STREAMS: &str = "dc_streams";

/// Guests with the programs of Mitosis, and Python on host-a.
pub(crate) struct World {
    pub(crate) guests: Guests,
    kernels_differ: bool,
    fabric: &'static str,
    agents: [Option<Job>; 2],
}

/// A seed of the array, whose parent has ended.
pub(crate) struct Seed {
    pub(crate) handle: String,
}

/// Whether both machines have one kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernels {
    Equal,
    Differ,
}

/// A counter in what `mitosis stats --json` says.
pub(crate) fn number_of(json: &str, name: &str) -> usize {
    let number = json.split_once(&format!("\"{name}\":")).expect("a counter").1;
    let number = number.trim_start().split(|c: char| !c.is_ascii_digit()).next();
    number.unwrap().parse().unwrap()
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited for in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// That a host has to a peer at the most.
const CONNECTIONS: usize = 8;
/// Its completions, its events, and one to spare.
const FILES_OF_A_CONNECTION: usize = 3;

/// What the agents of a machine have of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Objects of the device, by the kernel's words.
    objects: Vec<(String, usize)>,
    /// Descriptors of agents and keepers.
    files: usize,
}

impl Held {
    /// From a line of `rdma resource show`, and one with a number.
    fn of(said: &str) -> Held {
        let (resources, files) = said.trim_end().rsplit_once('\n').expect("two lines");
        let words: Vec<&str> = resources.split_whitespace().skip(2).collect();
        let pairs = words.chunks_exact(2);
        let objects = pairs.map(|pair| (pair[0].to_owned(), pair[1].parse().unwrap()));
        let held = Held { objects: objects.collect(), files: files.parse().unwrap() };
        let is_told = |kind: &&str| held.objects.iter().any(|(name, _)| name == kind);
        assert!(["qp", "cq", "mr", "pd"].iter().all(is_told), "{said}");
        held
    }

    pub(crate) fn has_no_more_objects_than(&self, other: &Held) -> bool {
        self.objects.iter().zip(&other.objects).all(|(own, other)| own.1 <= other.1)
    }

    /// But for what a pool keeps for its largest need so far: connections, and so many slabs of buffers.
    fn is_no_more_than(&self, before: &Held, slabs: usize) -> bool {
        let more = |kind: &str| match kind {
            "pd" | "ctx" => 0,
            "mr" => slabs,
            _ => CONNECTIONS,
        };
        let pairs = self.objects.iter().zip(&before.objects);
        pairs.into_iter().all(|(own, before)| own.1 <= before.1 + more(&own.0))
            && self.files <= before.files + CONNECTIONS * FILES_OF_A_CONNECTION
    }
}

/// The interpreter that host-a has.
pub(crate) fn python() -> PathBuf {
    target().join("venv/bin/python")
}

/// The guests that the tests share, one after the other.
pub(crate) struct Shared(MutexGuard<'static, Option<World>>);

/// These guests, with agents that use this fabric.
pub(crate) fn shared(fabric: &'static str) -> Shared {
    if [TWO_KERNELS, SUITE_OF_TWO_KERNELS].contains(&fabric) {
        return of_two_kernels(fabric);
    }
    let mut world = machines();
    world.settle(fabric);
    world
}

/// These guests, for a test that has no use for agents: they are as the last one has left them.
pub(crate) fn machines() -> Shared {
    static SHARED: Mutex<Option<World>> = Mutex::new(None);
    // A test that has failed leaves the machines as they are; agents are looked at by `settle`.
    let mut world = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    world.get_or_insert_with(|| World::boot("shared", Kernels::Equal));
    Shared(world)
}

/// Such of kernels of two series, with agents that use this fabric.
pub(crate) fn of_two_kernels(fabric: &'static str) -> Shared {
    let mut world = machines();
    if !world.kernels_differ {
        world.end(Some(boot_others()));
        world = machines();
    }
    world.settle(fabric);
    world
}

/// Has these guests boot meanwhile.
pub(crate) fn boot_ahead() {
    std::thread::spawn(|| drop(machines()));
}

/// Has guests boot meanwhile that are to take the place of these, of two kernels.
pub(crate) fn boot_others() -> JoinHandle<World> {
    std::thread::spawn(|| World::boot("others", Kernels::Differ))
}

impl Shared {
    /// Powers them off: whoever is next has these others, or new ones.
    pub(crate) fn end(mut self, others: Option<JoinHandle<World>>) {
        drop(self.0.take());
        *self.0 = others.map(|others| others.join().expect("guests"));
    }
}

impl Deref for Shared {
    type Target = World;

    fn deref(&self) -> &World {
        self.0.as_ref().expect("machines")
    }
}

impl DerefMut for Shared {
    fn deref_mut(&mut self) -> &mut World {
        self.0.as_mut().expect("machines")
    }
}

impl World {
    fn boot(name: &str, kernels: Kernels) -> World {
        let mut config = Config::named(name);
        config.kernels_differ = kernels == Kernels::Differ;
        config.python = Some(python());
        let programs = ["release/mitosis", "debug/suite-told", "debug/verbs_guest"];
        let programs = programs.map(|path| target().join(path));
        for path in &programs {
            assert!(path.is_file(), "no {}; make test-rxe builds it", path.display());
        }
        let guests = Guests::up(&config).expect("guests come up");
        for path in &programs {
            guests.give(path, path.file_name().and_then(|name| name.to_str()).unwrap()).unwrap();
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/story.py");
        guests.give(&source, "story.py").unwrap();
        let source = source.with_file_name("clocks.py");
        guests.give(&source, "clocks.py").unwrap();
        let secret = guests.share().join("files/secret");
        fs::write(&secret, [7; 32]).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let kernels_differ = config.kernels_differ;
        let world = World { guests, kernels_differ, fabric: "", agents: [None, None] };
        for node in [HOST_A, HOST_B] {
            // From the shared folder each page of them would be asked of this machine.
            let copies = "cd /host/files && cp mitosis suite-told verbs_guest /bin/";
            world.run_script(node, copies).ok().unwrap();
        }
        world
    }

    /// Agents of this fabric run on both, and there is no seed of an earlier test.
    fn settle(&mut self, fabric: &'static str) {
        for node in [HOST_A, HOST_B] {
            let agent = self.agent(node);
            if agent.as_ref().is_some_and(Job::has_ended) {
                *agent = None;
            }
            if self.fabric != fabric {
                self.stop_agent(node);
            }
        }
        self.fabric = fabric;
        for node in [HOST_A, HOST_B] {
            if self.agent(node).is_none() {
                self.start_agent(node);
            }
        }
        self.drop_seeds();
    }

    /// Their pages would take the arena's room.
    pub(crate) fn drop_seeds(&self) {
        let listing = self.run(HOST_A, &["mitosis", "ls", "--json"]).ok().unwrap();
        let seeds = listing.split_once("\"seeds\":").expect("seeds").1;
        for entry in seeds.split("\"seed\":").skip(1) {
            let id: String = entry.chars().filter(char::is_ascii_hexdigit).take(16).collect();
            // One that has ended meanwhile is as good.
            self.run(HOST_A, &["mitosis", "drop", "--revoke", &id]);
        }
    }

    fn agent(&mut self, node: u32) -> &mut Option<Job> {
        &mut self.agents[if node == HOST_A { 0 } else { 1 }]
    }

    pub(crate) fn start_agent(&mut self, node: u32) {
        let guest = self.guests.node(node);
        let advertise = format!("{}:7370", guest.name());
        let deadline = MISS_DEADLINE.as_millis().to_string();
        let (fabric, software_dc) = match self.fabric {
            "dc" => ("dc", true),
            RC_BESIDE_DC => ("rc", true),
            DC_STREAMS => ("dc", true),
            TWO_KERNELS | SUITE_OF_TWO_KERNELS => ("tcp", false),
            fabric => (fabric, false),
        };
        let fabric = format!("MITOSIS_FABRIC={fabric}");
        let libraries = format!("LD_LIBRARY_PATH={}", if software_dc { DC_LIBRARIES } else { "" });
        let isolation = if self.fabric == DC_STREAMS { "6,6" } else { "6,0" };
        let streams = format!("DC_PROVIDER_STREAMS={isolation}");
        let no_rehearsal = self.fabric == SUITE_OF_TWO_KERNELS;
        let no_rehearsal = format!("MITOSIS_NO_REHEARSAL={no_rehearsal}");
        let variables = ["env", &fabric, &libraries, &streams, &no_rehearsal];
        let command = ["mitosis", "agent", "--listen", "7370"];
        let options = ["--advertise", &advertise, "--secret-file", "/host/files/secret"];
        let more = ["--miss-deadline-ms", &deadline];
        let mut agent = guest.run(&[&variables[..], &command, &options, &more].concat()).unwrap();
        let line = agent.line(PATIENCE).unwrap();
        assert!(line.starts_with("mitosis agent ready on "), "{line}");
        *self.agent(node) = Some(agent);
    }

    /// What the agent has logged so far.
    pub(crate) fn log(&mut self, node: u32) -> String {
        self.agent(node).as_ref().expect("an agent").errors()
    }

    /// Waits until the agent has logged a line that holds all of `words`.
    pub(crate) fn await_log(&mut self, node: u32, words: &[&str]) {
        let begun = Instant::now();
        loop {
            let log = self.log(node);
            if log.lines().any(|line| words.iter().all(|word| line.contains(word))) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "no line with {words:?} in {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A counter of the agent's.
    pub(crate) fn count(&self, node: u32, name: &str) -> usize {
        self.counts(node, [name])[0]
    }

    /// Some of them, at one time.
    pub(crate) fn counts<const N: usize>(&self, node: u32, names: [&str; N]) -> [usize; N] {
        let json = self.run(node, &["mitosis", "stats", "--json"]).ok().unwrap();
        names.map(|name| number_of(&json, name))
    }

    pub(crate) fn stop_agent(&mut self, node: u32) {
        if let Some(agent) = self.agent(node).take() {
            agent.signal(SIGTERM).unwrap();
            agent.end(PATIENCE).unwrap();
        }
    }

    /// Kills an agent as the kernel would when memory is short.
    pub(crate) fn kill_agent(&mut self, node: u32) {
        let agent = self.agent(node).take().expect("an agent");
        agent.signal(SIGKILL).unwrap();
        assert_eq!(agent.end(PATIENCE).unwrap().status, 128 + SIGKILL);
    }

    /// A program to its end.
    pub(crate) fn run(&self, node: u32, argv: &[&str]) -> Ended {
        self.guests.node(node).run(argv).and_then(|job| job.end(PATIENCE)).unwrap()
    }

    /// A script of the guest's sh to its end.
    pub(crate) fn run_script(&self, node: u32, text: &str) -> Ended {
        self.guests.node(node).script(text, text).and_then(|job| job.end(PATIENCE)).unwrap()
    }

    /// What is held now, on both.
    pub(crate) fn held(&self) -> [Held; 2] {
        let look = "rdma resource show | grep rxe0; \
                    for pid in $(pidof mitosis); do ls /proc/$pid/fd; done | wc -l";
        let start = |node| self.guests.node(node).script(look, "held").unwrap();
        [HOST_A, HOST_B].map(start).map(|job| Held::of(&job.end(PATIENCE).unwrap().ok().unwrap()))
    }

    /// The same, when it does not change any more.
    pub(crate) fn held_at_rest(&self) -> [Held; 2] {
        let mut held = self.held();
        until("nothing is made or ended", || {
            let last = std::mem::replace(&mut held, self.held());
            last == held
        });
        held
    }

    /// Waits until no more is held than before.
    pub(crate) fn hold_no_more(&self, before: &[Held; 2]) {
        let begun = Instant::now();
        loop {
            let now = self.held();
            // Host-b READs; on host-a each seed that were left would have a slab.
            let pairs = now.iter().zip(before).zip([0, 1]);
            if pairs.into_iter().all(|((now, before), slabs)| now.is_no_more_than(before, slabs)) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "more is left: {before:?}, {now:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn seed(&self) -> Seed {
        self.seed_of(ARRAY_WORDS)
    }

    /// A seed of an array of so many words.
    pub(crate) fn seed_of(&self, words: usize) -> Seed {
        let said = self.run(HOST_A, &["suite-told", &words.to_string()]).ok().unwrap();
        let handles = said.lines().filter_map(|line| line.split_once(' '));
        let handle = handles.map(|(handle, _)| handle).find(|text| text.starts_with("mitosis://"));
        Seed { handle: handle.unwrap_or_else(|| panic!("no handle in {said}")).to_owned() }
    }

    /// A new seed of 1 MiB is read on host-b, and dropped; gives how many pages came by the card: never all, as
    /// the first ones come before it is known where that of the seed's host is.
    pub(crate) fn read_small(&self) -> usize {
        const WORDS: usize = 1 << 17;
        let before = self.count(HOST_B, "pages_rdma");
        let seed = self.seed_of(WORDS);
        let argv =
            ["mitosis", "resume", &seed.handle, "--on", "host-b", "--payload", "read 0 all;exit 7"];
        let ended = self.run(HOST_A, &argv);
        assert_eq!((ended.status, ended.err.as_str()), (7, ""), "{ended:?}");
        self.run(HOST_A, &["mitosis", "drop", &seed.handle]).ok().unwrap();
        self.count(HOST_B, "pages_rdma") - before
    }

    /// Seeds of host-a are read by the card of host-b, from some time on.
    pub(crate) fn await_the_card(&self) {
        until("seeds are read by the card", || self.read_small() > 0);
    }

    /// A child on host-b, for a caller on `node`, in the middle of reading pages in random order.
    pub(crate) fn reader(&self, seed: &Seed, node: u32) -> Reader {
        let commands = "pid;read 0 4;await /tmp/test-go;read 4 64;scatter 100000";
        let argv = ["mitosis", "resume", &seed.handle, "--on", "host-b", "--payload", commands];
        self.run(HOST_B, &["rm", "-f", "/tmp/test-go"]).ok().unwrap();
        let mut caller = self.guests.node(node).run(&argv).unwrap();
        let mut line = || caller.line(PATIENCE).unwrap();
        let pid = line().strip_prefix("pid ").expect("the child's pid").to_owned();
        assert_eq!([line(), line()], ["read 4 pages", "waiting"]);
        self.run(HOST_B, &["touch", "/tmp/test-go"]).ok().unwrap();
        assert_eq!(line(), "read 64 pages");
        Reader { caller, pid }
    }
}

/// A child on host-b that reads.
pub(crate) struct Reader {
    caller: Job,
    /// Its number there.
    pub(crate) pid: String,
}

impl Reader {
    /// It was lost, and its caller is told so in time, in a line that holds all of `words`.
    pub(crate) fn ends_lost(self, limit: Duration, words: &[&str]) {
        let ended = self.caller.end(limit + SLACK).unwrap();
        assert_eq!(ended.status, LOST, "{ended:?}");
        assert!(!ended.out.contains("scattered"), "it was in the middle of reading: {ended:?}");
        let is_told = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(ended.err.lines().any(is_told), "no line with {words:?} in {ended:?}");
    }
}

impl World {
    /// Nothing is left of a child.
    pub(crate) fn assert_gone(&self, pid: &str) {
        let text = format!(
            "for i in $(seq 50); do [ -d /proc/{pid} ] || exit 0; usleep 100000; done; exit 1"
        );
        let ended = self.run_script(HOST_B, &text);
        assert_eq!(ended.status, 0, "child {pid} is still there");
    }
}
