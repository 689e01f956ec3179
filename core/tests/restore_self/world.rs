//! What the tests run in: a seed, its image, a keeper.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, PipeReader};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mitosis::describe::{SeedFiles, SeedIdentity, SiteScanner, TextSource, describe};
use mitosis::descriptor::{
    CallSite, Clocks, Descriptor, ImageOffset, MappedFile, Owner, SeedAddr, Source, VmaKind,
};
use mitosis::id::{ChildId, SeedId};
use mitosis::keeper::{Client, Exit};
use mitosis::prepare::{ROLE_CHILD, report};
use mitosis::resume::{
    ChildSpec, HostFacts, NewProcess, Placement, ResumeError, Template, TemplateSpec, Vdso,
};
use mitosis::sys::credentials;

use super::threads;

pub(crate) const ENVIRONMENT: &[u8] = b"B=2\0";
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) keeper: Client,
    seed: Child,
    desc: Descriptor,
    image: File,
    files: HashMap<u16, File>,
    ends: HashMap<u32, i32>,
    /// Its children get new ids, though nobody wants that.
    pub(crate) is_refused: bool,
}

#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) pid: u32,
    pub(crate) init: Option<u32>,
    pub(crate) id: ChildId,
    output: PipeReader,
}

impl World {
    pub(crate) fn new() -> World {
        World::of_seed(false)
    }

    /// With a seed of several threads.
    pub(crate) fn whole() -> World {
        World::of_seed(true)
    }

    fn of_seed(is_whole: bool) -> World {
        let program = std::env::current_exe().expect("this program has a path");
        let directory = tempfile::tempdir().expect("a directory");
        let seed = Command::new(&program)
            .args(["seed".as_ref(), directory.path()])
            .args(is_whole.then_some("whole"))
            .env_clear()
            .env("A", "1")
            .stdin(Stdio::null())
            .spawn()
            .expect("the seed starts");
        let report = directory.path().join("report");
        let begun = Instant::now();
        while !report.exists() {
            assert!(begun.elapsed() < DEADLINE, "the seed does not report");
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut report =
            report::parse(&fs::read(report).expect("a report")).expect("a sound report");
        let whole = threads::add(directory.path(), &mut report);
        let mut desc = descriptor(seed.id(), report);
        desc.whole = whole;
        let image = image(seed.id(), &desc);
        let files = (0..).zip(&desc.files);
        let files = files.filter_map(|(i, file)| Some((i, File::open(&file.path).ok()?))).collect();
        let keeper = Client::spawn(&program, None).expect("the keeper starts");
        World { keeper, seed, desc, image, files, ends: HashMap::new(), is_refused: false }
    }

    pub(crate) fn template(&self) -> Template {
        self.template_with(Clocks::default(), |_| {}).expect("a template")
    }

    pub(crate) fn template_with(
        &self,
        clock_offset: Clocks,
        change: impl FnOnce(&mut Descriptor),
    ) -> Result<Template, ResumeError> {
        let mut desc = self.desc.clone();
        change(&mut desc);
        let host = HostFacts::of_keeper(self.keeper.pid())?;
        let placement = Placement::choose(&desc, &host.avoid())?;
        let spec = TemplateSpec {
            descriptor: &desc,
            placement: &placement,
            offset_of: &|addr| Some(ImageOffset(addr.0)),
            image: self.image.as_fd(),
            local_files: &self.files,
            shared_files: &[],
            trampolines: &[],
            vdso: &Vdso::Moved,
            stub_table: &[],
            clock_offset,
        };
        if std::env::var_os("PRINT_PROGRAM").is_some() {
            println!("{placement:x?}\n{}", spec.program(&host, None)?.0);
        }
        Template::start(&self.keeper, &spec)
    }

    pub(crate) fn child(&self, template: &Template, index: u32, payload: &[u8]) -> Started {
        self.start(template, index, payload).expect("a child")
    }

    pub(crate) fn try_child(
        &self,
        template: &Template,
        payload: &[u8],
    ) -> Result<Started, ResumeError> {
        self.start(template, 0, payload)
    }

    /// What an agent is that will be killed: tells the pids of all that it keeps.
    pub(crate) fn hold_a_child(&self) -> ! {
        let template = self.template();
        let child = self.child(&template, 0, b"wait");
        println!("{} {} {}", self.keeper.pid(), template.pid(), child.pid);
        loop {
            std::thread::sleep(DEADLINE);
        }
    }

    fn start(
        &self,
        template: &Template,
        index: u32,
        payload: &[u8],
    ) -> Result<Started, ResumeError> {
        let (output, input) = std::io::pipe().expect("a pipe");
        let null = File::open("/dev/null").expect("/dev/null");
        let errors = std::io::stderr();
        let id = ChildId::random();
        let spec = ChildSpec {
            role: ROLE_CHILD,
            index,
            generation: 1,
            seed: self.desc.seed,
            child: id,
            payload,
            environment: ENVIRONMENT,
            stdio: [null.as_fd(), input.as_fd(), errors.as_fd()],
            listeners: &[],
            extra_clone_flags: 0,
            new_ids: payload == b"renumbered",
            cwd: None,
            hostname: None,
            argv: &[],
            id_map: &[],
            enters: mitosis::resume::Enters::default(),
        };
        let process = template.child(&spec)?;
        let NewProcess { pid, init, renumbered, .. } = process;
        assert_eq!(renumbered.is_some(), self.is_refused, "{renumbered:?}");
        Ok(Started { pid, init, id, output })
    }

    /// The seed's process id.
    pub(crate) fn seed_pid(&self) -> u32 {
        self.seed.id()
    }

    /// The wait(2) status of a child.
    pub(crate) fn end_of(&mut self, pid: u32) -> i32 {
        loop {
            if let Some(status) = self.ends.remove(&pid) {
                return status;
            }
            let Exit { pid, status } =
                self.keeper.exits().recv_timeout(DEADLINE).expect("the child ends");
            self.ends.insert(pid, status);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.seed.kill();
        let _ = self.seed.wait();
    }
}

impl Started {
    /// All that it and its descendants say.
    pub(crate) fn read_lines(&self) -> Vec<String> {
        BufReader::new(&self.output).lines().map(|line| line.expect("text")).collect()
    }

    pub(crate) fn read_line(&self) -> String {
        let mut line = String::new();
        BufReader::new(&self.output).read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

struct NoSites;

impl SiteScanner for NoSites {
    fn scan(
        &mut self,
        _: &MappedFile,
        _: u64,
        _: SeedAddr,
        _: &dyn TextSource,
    ) -> std::io::Result<Vec<CallSite>> {
        Ok(Vec::new())
    }
}

fn descriptor(pid: u32, report: report::Report) -> Descriptor {
    let open = |name: &str| File::open(format!("/proc/{pid}/{name}")).expect("root can open it");
    let files = SeedFiles { mem: open("mem"), pagemap: open("pagemap"), smaps: open("smaps") };
    // It reports by hand, and nothing of these.
    let credentials = Some(credentials::of(pid).expect("root can read them"));
    let report = report::Report { credentials, ..report };
    let seed = SeedId::random();
    let owner = Owner { seed, epoch: 0, exports: Vec::new(), arena: None };
    describe(
        SeedIdentity { seed, pid: 0, owner, stub: None, not_carried: None, inherited: None },
        report,
        &files,
        &mut NoSites,
    )
    .expect("it can be described")
    .descriptor
}

/// The seed's memory at its own addresses, in place of an image.
fn image(pid: u32, desc: &Descriptor) -> File {
    let mem = File::open(format!("/proc/{pid}/mem")).expect("root can open it");
    let image = tempfile::tempfile_in("/dev/shm").expect("shared memory");
    image.set_len(1 << 47).expect("a sparse file");
    let special =
        |vma: &&mitosis::descriptor::Vma| !matches!(vma.kind, VmaKind::Vvar | VmaKind::Vdso);
    for vma in desc.vmas.iter().filter(special) {
        for run in desc.page_table.overlapping(vma.range) {
            if run.source != Source::Zero {
                let mut bytes = vec![0; usize::try_from(run.range.len()).expect("fits")];
                if mem.read_exact_at(&mut bytes, run.range.start.0).is_ok() {
                    image.write_all_at(&bytes, run.range.start.0).expect("room");
                }
            }
        }
    }
    image
}

pub(crate) fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is written during the call alone.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).expect("below a second"))
}

/// Neither gone nor a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub(crate) fn kill(pid: u32) {
    // SAFETY: no memory is passed.
    unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
}

/// This program as an agent of its own.
pub(crate) struct AgentProcess(Child);

pub(crate) fn spawn_agent() -> AgentProcess {
    let program = std::env::current_exe().expect("this program has a path");
    let agent = Command::new(program).arg("agent").stdout(Stdio::piped()).spawn();
    AgentProcess(agent.expect("the agent starts"))
}

impl AgentProcess {
    pub(crate) fn pids(&mut self) -> Vec<u32> {
        let mut line = String::new();
        let output = self.0.stdout.as_mut().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("a line");
        line.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
    }

    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
