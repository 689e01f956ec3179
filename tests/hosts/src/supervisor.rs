//! The process that hosts belong to: builds them, keeps them while they are wanted, takes them
//! down and looks that nothing is left.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::init::{self, Blueprint, READY};
use crate::inventory::Inventory;
use crate::run::{self, Ended};
use crate::spec::{BIN_ENV, FileSpec, HOSTS_ENV, HostPlan, HostRecord, Hosts};
use crate::{link, ns};

/// How long the kernel may take to end all processes of the hosts: a process that is in the middle
/// of a write to a slow disk cannot be hurried.
const TAKE_DOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Namespaces by which a process that outlives its host is told.
const WATCHED_NAMESPACES: [&str; 3] = ["pid", "net", "mnt"];

/// What is asked of a supervisor.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) files: Vec<FileSpec>,
    pub(crate) hosts: usize,
    pub(crate) time_offset_s: i64,
    /// The process with which the hosts end, besides the supervisor itself.
    pub(crate) owner: Option<i32>,
}

/// Hosts that are up.
#[derive(Debug)]
pub(crate) struct Supervisor {
    hosts: Hosts,
    inits: Vec<Init>,
    lifeline: Option<File>,
    signals: OwnedFd,
    owner: Option<OwnedFd>,
}

#[derive(Debug)]
struct Init {
    name: String,
    pid: i32,
    pidfd: OwnedFd,
    /// Its [`WATCHED_NAMESPACES`]: inode number and descriptor. While one is open its number is not
    /// given to a namespace of other hosts.
    namespaces: Vec<(u64, File)>,
}

/// What ended [`Supervisor::hold`].
enum Event {
    Command(Ended),
    InitLost(String),
    NotWanted,
}

impl Supervisor {
    pub(crate) fn up(wanted: &Wanted) -> Result<Self> {
        if !ns::is_root() {
            bail!("sealed hosts need root, to make namespaces and links; run this with sudo");
        }
        let owner = wanted.owner.map(|pid| ns::pidfd_open(pid).context("the owner has ended"));
        let owner = owner.transpose()?;
        let signals = ns::signals_as_fd().context("cannot block signals")?;
        let mesh = HostPlan::mesh(wanted.hosts, wanted.time_offset_s)?;
        let inventory = Inventory::collect(&wanted.files)?;
        let hosts_file = HostPlan::hosts_file(&mesh);
        let (lifeline_end, lifeline) = ns::pipe().context("cannot make a pipe")?;

        let mut supervisor = Self {
            hosts: Hosts { hosts: Vec::new() },
            inits: Vec::new(),
            lifeline: Some(lifeline),
            signals,
            owner,
        };
        let mut reports = Vec::new();
        for (index, plan) in mesh.iter().enumerate() {
            let inventory = (index > 0).then_some(&inventory);
            let blueprint = Blueprint { plan, hosts_file: &hosts_file, inventory };
            reports.push(supervisor.start_init(&blueprint, lifeline_end.as_fd())?);
        }
        // The links need the namespaces alone, which are there by now; the inits go on meanwhile.
        let pids: Vec<_> = supervisor.inits.iter().map(|init| init.pid).collect();
        let joined = link::join(&mesh, &pids);
        for (init, mut report) in supervisor.inits.iter().zip(reports) {
            let said = hear(&mut report)?;
            if said != READY {
                bail!("{} did not come up: {said}", init.name);
            }
        }
        joined?;
        Ok(supervisor)
    }

    fn start_init(
        &mut self,
        blueprint: &Blueprint<'_>,
        lifeline_end: std::os::fd::BorrowedFd<'_>,
    ) -> Result<File> {
        let plan = blueprint.plan;
        let (mut report, reporter) = ns::pipe().context("cannot make a pipe")?;
        let mut reporter = Some(reporter);
        let lifeline = &mut self.lifeline;
        let pid = ns::fork_into(ns::HOST_NAMESPACES, || {
            // With a copy of its own the init would never see the lifeline end.
            drop(lifeline.take());
            let reporter = reporter.take().expect("taken nowhere else");
            init::main(blueprint, lifeline_end, reporter)
        })
        .with_context(|| format!("cannot make the namespaces of {}", plan.name))?;
        drop(reporter);
        let Ok((pidfd, namespaces)) = identify(pid) else {
            // It has failed already, and had nothing to wait for but to say why.
            bail!("{} did not come up: {}", plan.name, hear(&mut report)?);
        };
        self.inits.push(Init { name: plan.name.clone(), pid, pidfd, namespaces });
        self.hosts.hosts.push(HostRecord {
            name: plan.name.clone(),
            init_pid: pid,
            address: plan.address.clone(),
            root: PathBuf::from(format!("/proc/{pid}/root")),
            time_offset_s: plan.time_offset_s,
        });
        Ok(report)
    }

    pub(crate) fn json(&self) -> Result<String> {
        serde_json::to_string(&self.hosts).context("cannot write the record of the hosts")
    }

    /// Runs `argv` outside of the hosts, with [`HOSTS_ENV`] set, for as long as they are up.
    pub(crate) fn run(&self, argv: &[std::ffi::OsString]) -> Result<Ended> {
        let [program, arguments @ ..] = argv else { bail!("no command is given") };
        let mut command = Command::new(program);
        command.args(arguments).env(HOSTS_ENV, self.json()?);
        command.env(BIN_ENV, std::env::current_exe().context("cannot name this program")?);
        let pid = run::start(command, None)?;
        match self.wait(Some(pid))? {
            Event::Command(ended) => return Ok(ended),
            Event::NotWanted => {}
            Event::InitLost(name) => eprintln!("mitosis-hosts: {name} has ended before its time"),
        }
        let _ = ns::kill(pid, libc::SIGKILL);
        bail!("the hosts ended before the command did; it was killed")
    }

    /// Waits until stdin is at its end, the owner ends or a signal comes.
    pub(crate) fn hold(&self) -> Result<()> {
        match self.wait(None)? {
            Event::InitLost(name) => bail!("{name} has ended before its time"),
            Event::Command(_) | Event::NotWanted => Ok(()),
        }
    }

    /// Waits for the first thing that ends the hosts. With a command, stdin and signals are its.
    fn wait(&self, command: Option<i32>) -> Result<Event> {
        let stdin = io::stdin();
        loop {
            while let Some((pid, status)) = ns::reap() {
                if Some(pid) == command {
                    return Ok(Event::Command(Ended::from_wait_status(status)));
                }
                if let Some(init) = self.inits.iter().find(|init| init.pid == pid) {
                    return Ok(Event::InitLost(init.name.clone()));
                }
            }
            let listened = command.is_none().then(|| stdin.as_fd());
            let owner = self.owner.as_ref().map(AsFd::as_fd);
            let [signal, input, owner_gone] =
                ns::poll([Some(self.signals.as_fd()), listened, owner], -1)?;
            if owner_gone || (input && at_end(&stdin)) {
                return Ok(Event::NotWanted);
            }
            match command {
                Some(pid) => run::forward(&self.signals, pid),
                None if signal && self.told_to_end() => return Ok(Event::NotWanted),
                None => {}
            }
        }
    }

    fn told_to_end(&self) -> bool {
        let endings = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
        std::iter::from_fn(|| ns::next_signal(&self.signals)).any(|s| endings.contains(&s.number))
    }

    /// Ends the hosts and all that runs in them, and looks that it has ended.
    pub(crate) fn down(mut self) -> Result<()> {
        let deadline = Instant::now() + TAKE_DOWN_TIMEOUT;
        self.kill_inits();
        for init in &self.inits {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            let left = i32::try_from(left).unwrap_or(i32::MAX);
            let [ended] = ns::poll([Some(init.pidfd.as_fd())], left)?;
            if !ended {
                bail!("{} does not end; {}", init.name, still_there(&self.remaining()));
            }
        }
        while ns::reap().is_some() {}
        loop {
            let remaining = self.remaining();
            if remaining.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("hosts are down, but {}", still_there(&remaining));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn kill_inits(&mut self) {
        self.lifeline = None;
        for init in &self.inits {
            // An init that has been reaped already leaves a pid that may be another's by now.
            if matches!(ns::poll([Some(init.pidfd.as_fd())], 0), Ok([false])) {
                let _ = ns::kill(init.pid, libc::SIGKILL);
            }
        }
    }

    /// Processes that are in a namespace of a host.
    fn remaining(&self) -> Vec<PathBuf> {
        let Ok(processes) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        let ours = |process: &Path| {
            WATCHED_NAMESPACES.iter().enumerate().any(|(i, name)| {
                // No metadata: the process has ended, or is a zombie, which holds no namespace.
                fs::metadata(process.join("ns").join(name)).is_ok_and(|namespace| {
                    self.inits.iter().any(|init| init.namespaces[i].0 == namespace.ino())
                })
            })
        };
        processes.flatten().map(|entry| entry.path()).filter(|path| ours(path)).collect()
    }
}

impl Drop for Supervisor {
    /// For hosts that failed to come up; [`Supervisor::down`] leaves nothing to do here.
    fn drop(&mut self) {
        self.kill_inits();
    }
}

/// A descriptor for a new init, and its [`WATCHED_NAMESPACES`].
fn identify(pid: i32) -> io::Result<(OwnedFd, Vec<(u64, File)>)> {
    let watched = |name| {
        let namespace = File::open(format!("/proc/{pid}/ns/{name}"))?;
        Ok((namespace.metadata()?.ino(), namespace))
    };
    let namespaces = WATCHED_NAMESPACES.into_iter().map(watched).collect::<io::Result<_>>()?;
    Ok((ns::pidfd_open(pid)?, namespaces))
}

/// What an init says of its host.
fn hear(report: &mut File) -> Result<String> {
    let mut said = String::new();
    report.read_to_string(&mut said).context("cannot hear of a host")?;
    Ok(if said.is_empty() { "its init was killed".to_owned() } else { said })
}

fn still_there(processes: &[PathBuf]) -> String {
    let name = |process: &PathBuf| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let pid = process.file_name().unwrap_or_default().to_string_lossy();
        format!("{pid} ({})", name.trim())
    };
    let names: Vec<_> = processes.iter().map(name).collect();
    format!("these processes are still in them: {}", names.join(", "))
}

/// Reads what has come on `stdin`; true at its end.
fn at_end(stdin: &io::Stdin) -> bool {
    let Ok(copy) = stdin.as_fd().try_clone_to_owned() else {
        return true;
    };
    let mut scratch = [0; 4096];
    matches!(File::from(copy).read(&mut scratch), Ok(0) | Err(_))
}
