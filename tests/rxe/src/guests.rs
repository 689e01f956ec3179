//! Guests: up when asked for, down when dropped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::image::Image;
use crate::job::Job;
use crate::line::{Line, Waited};
use crate::machine::Machine;
use crate::switch::Switch;
use crate::{emulated, user_mode};

/// A quiet machine takes 7 s, one that builds beside it three times as long.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// The guests' names, in the order of their numbers, as /etc/hosts has them there.
const NAMES: [&str; 8] =
    ["host-a", "host-b", "host-c", "host-d", "host-e", "host-f", "host-g", "host-h"];

/// An interpreter and its library are held in memory, twice while the guest boots.
const PYTHON_MIB: u32 = 512;

/// Where guests have the software DC of tests/dc_provider: libraries that a job finds in place of
/// rdma-core's own if its LD_LIBRARY_PATH is this.
pub const DC_LIBRARIES: &str = "/lib/dc_provider";

/// Between the numbers of a guest's jobs: more than there are guests.
const JOBS_APART: u32 = 10;

/// What guests are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Machines that QEMU emulates, with Debian's own kernel: all that a host has, slowly. At most 2.
    Emulated,
    /// Kernels that are processes of this machine (User-Mode Linux), built once: many, and fast. They
    /// have neither syscall user dispatch nor time namespaces, so nothing is forked from or to them.
    /// At most 8.
    UserMode,
}

impl Kind {
    /// How many there can be.
    pub(crate) const fn guests_max(self) -> u32 {
        match self {
            // A link of two ends is all that the emulators' datagram sockets make.
            Kind::Emulated => 2,
            Kind::UserMode => 8,
        }
    }
}

/// The RDMA device that guests have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// Soft-RoCE, `rxe0`.
    SoftRoce,
    /// Soft-iWARP, `siw0`: guests in user mode only, as no kernel of Debian has it.
    SoftIwarp,
}

impl Device {
    /// As `rdma link add` calls its type.
    pub(crate) const fn kind(self) -> &'static str {
        match self {
            Device::SoftRoce => "rxe",
            Device::SoftIwarp => "siw",
        }
    }
}

/// What guests are made with.
#[derive(Debug, Clone)]
pub struct Config {
    /// What their directory under `target/rxe/run/` is called; it stays until the next run of this
    /// name.
    pub name: String,
    /// What they are.
    pub kind: Kind,
    /// What RDMA device they have.
    pub device: Device,
    /// How many, from 1 on.
    pub nodes: u32,
    /// Memory of each.
    pub memory_mib: u32,
    /// Of the link. An RDMA port has the largest power of two that fits, 4096 or 1024.
    pub mtu: u32,
    /// Variables for all jobs.
    pub env: Vec<(String, String)>,
    /// Whether host-b has a kernel of another series than host-a, both of Debian's.
    pub kernels_differ: bool,
    /// Whether all jobs have the software DC.
    pub dc: bool,
    /// The interpreter of a venv with numpy and mitosis, which host-a has at the same path, and host-b
    /// has not.
    pub python: Option<PathBuf>,
}

impl Config {
    fn check(&self) -> Result<()> {
        let most = self.kind.guests_max();
        if !(1..=most).contains(&self.nodes) {
            bail!("{} guests asked for; 1 to {most} of this kind can be had", self.nodes);
        }
        if self.kind == Kind::Emulated && self.device == Device::SoftIwarp {
            bail!("no kernel of Debian has Soft-iWARP; guests in user mode have it");
        }
        if self.kernels_differ && (self.kind, self.nodes) != (Kind::Emulated, 2) {
            bail!("two kernels are for two emulated guests");
        }
        Ok(())
    }

    /// Memory of one of them.
    pub(crate) fn memory_mib_of(&self, node: u32) -> u32 {
        self.memory_mib + if self.has_python(node) { PYTHON_MIB } else { 0 }
    }

    /// Whether it has the interpreter.
    pub(crate) fn has_python(&self, node: u32) -> bool {
        node == 1 && self.python.is_some()
    }

    /// What a guest's /init is told, as variables of its kernel's command line.
    pub(crate) fn variables(&self, node: u32) -> String {
        let machine = match self.kind {
            Kind::Emulated => "emulated",
            Kind::UserMode => "user-mode",
        };
        let (nodes, mtu, rdma) = (self.nodes, self.mtu, self.device.kind());
        format!("machine={machine} rdma={rdma} node={node} nodes={nodes} mtu={mtu}")
    }

    /// Two emulated guests with Soft-RoCE.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: Kind::Emulated,
            device: Device::SoftRoce,
            nodes: 2,
            memory_mib: 512,
            mtu: 9000,
            env: Vec::new(),
            kernels_differ: false,
            dc: false,
            python: None,
        }
    }
}

/// Guests that are up. They end when it is dropped, and also when this process ends in whatever
/// way.
#[derive(Debug)]
pub struct Guests {
    guests: Vec<Arc<Guest>>,
    directory: PathBuf,
    /// Between guests in user mode; emulated ones have a link.
    switch: Option<Switch>,
}

/// One of them.
#[derive(Debug)]
pub struct Guest {
    node: u32,
    nodes: u32,
    env: Vec<(String, String)>,
    share: PathBuf,
    line: Line,
    machine: Machine,
    next_job: AtomicU32,
}

impl Guests {
    /// Boots them, and makes what they boot from if it is not there.
    ///
    /// # Errors
    /// The image cannot be made, or a guest does not come up; the console's end is in the error.
    pub fn up(config: &Config) -> Result<Self> {
        config.check()?;
        let image = Image::ready(config.python.as_deref())?;
        let directory = run_directory(&image.runs(), &config.name)?;
        let share = directory.join("share");
        fs::create_dir_all(share.join("jobs")).context("cannot make the shared folder")?;
        copy(&image.dc_provider(), &share.join("dc_provider"))?;
        let (switch, machines) = match config.kind {
            Kind::Emulated => {
                let other = config.kernels_differ.then(|| image.of_another_kernel()).transpose()?;
                (None, emulated::start(config, &image, other.as_ref(), &directory)?)
            }
            Kind::UserMode => {
                let (switch, machines) = user_mode::start(config, &image, &directory)?;
                (Some(switch), machines)
            }
        };
        let guest = |(node, (line, machine))| {
            let (env, share) = (environment(config), share.clone());
            let next_job = AtomicU32::new(1);
            Arc::new(Guest { node, nodes: config.nodes, env, share, line, machine, next_job })
        };
        let guests: Vec<Arc<Guest>> = (1..).zip(machines).map(guest).collect();
        for guest in &guests {
            guest.await_ready()?;
        }
        Ok(Self { guests, directory, switch })
    }

    /// The guest with this number, from 1 on.
    ///
    /// # Panics
    /// There is none.
    pub fn node(&self, node: u32) -> &Arc<Guest> {
        self.guests.iter().find(|guest| guest.node == node).expect("a guest of this number")
    }

    /// All of them.
    pub fn all(&self) -> &[Arc<Guest>] {
        &self.guests
    }

    /// Pulls a guest's cable, or puts it back; its interface does not notice.
    ///
    /// # Panics
    /// They are not guests in user mode: an emulated link has no switch.
    pub fn plug(&self, node: u32, is_plugged: bool) {
        self.switch.as_ref().expect("guests in user mode").plug(node, is_plugged);
    }

    /// The folder that is /host in all guests.
    pub fn share(&self) -> PathBuf {
        self.directory.join("share")
    }

    /// Copies a file or a directory to /host/files/NAME of all guests.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn give(&self, source: &Path, name: &str) -> Result<()> {
        let destination = self.share().join("files").join(name);
        let parent = destination.parent().context("a name within the folder is needed")?;
        fs::create_dir_all(parent).context("cannot make a folder for files")?;
        copy(source, &destination)
    }
}

/// A file or a directory; a link as what it leads to.
fn copy(source: &Path, destination: &Path) -> Result<()> {
    let copied = std::process::Command::new("cp")
        .args(["-RL", "--reflink=auto", "--"])
        .args([source, destination])
        .status();
    match copied {
        Ok(status) if status.success() => Ok(()),
        _ => bail!("cannot copy {} to the guests", source.display()),
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        // Jobs may hold them.
        self.guests.iter().for_each(|guest| guest.kill());
    }
}

impl Guest {
    fn await_ready(&self) -> Result<()> {
        let why = match self.line.ready(BOOT_LIMIT) {
            Waited::For(Ok(())) => return Ok(()),
            Waited::For(Err(why)) => why,
            Waited::TooLong => format!("it is not ready after {BOOT_LIMIT:?}"),
            Waited::MachineEnded => "its kernel or what runs it has ended".to_owned(),
        };
        bail!("{} did not come up: {why}\n{}", self.name(), self.tail())
    }

    /// Its host name.
    pub fn name(&self) -> &'static str {
        NAMES[usize::try_from(self.node - 1).unwrap_or(0)]
    }

    /// Its address on the link.
    pub fn address(&self) -> String {
        format!("10.77.0.{}", self.node)
    }

    /// Starts a program.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn run(self: &Arc<Self>, argv: &[&str]) -> Result<Job> {
        let quoted: Vec<String> = argv.iter().map(|word| quoted(word)).collect();
        self.script(&format!("exec {}", quoted.join(" ")), &argv.join(" "))
    }

    /// Starts a script of the guest's sh; `what` names it in errors.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn script(self: &Arc<Self>, text: &str, what: &str) -> Result<Job> {
        self.start_job(&[], what, |path| fs::write(path, format!("#!/bin/sh\n{text}\n")))
    }

    /// Starts a copy of an executable of this machine: a program or a script.
    ///
    /// # Errors
    /// It cannot be read, or the guest has ended.
    pub fn executable(self: &Arc<Self>, path: &Path, arguments: &[&str]) -> Result<Job> {
        let what = path.display().to_string();
        self.start_job(arguments, &what, |job| fs::copy(path, job).map(drop))
    }

    fn start_job(
        self: &Arc<Self>,
        arguments: &[&str],
        what: &str,
        write: impl FnOnce(&Path) -> std::io::Result<()>,
    ) -> Result<Job> {
        // Apart from those of the other guests, which have the same folder.
        let id = self.next_job.fetch_add(1, Ordering::Relaxed) * JOBS_APART + self.node;
        let directory = self.share.join("jobs").join(id.to_string());
        fs::create_dir_all(&directory).context("cannot make a job's directory")?;
        let job = directory.join("job");
        write(&job).with_context(|| format!("cannot copy {what} to the guest"))?;
        fs::set_permissions(&job, fs::Permissions::from_mode(0o755))
            .and_then(|()| fs::write(directory.join("env"), self.environment(arguments)))
            .context("cannot write a job")?;
        self.line.tell(&format!("run {id}"))?;
        Ok(Job { guest: Arc::clone(self), id, what: what.to_owned(), directory, lines_taken: 0 })
    }

    /// What a job's shell reads first.
    fn environment(&self, arguments: &[&str]) -> String {
        let own = [
            ("NODE", self.node.to_string()),
            ("NODES", self.nodes.to_string()),
            ("SELF", self.address()),
            ("PEER", format!("10.77.0.{}", if self.node == 1 { 2 } else { 1 })),
        ];
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        let given = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut text: String = own
            .chain(given)
            .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
            .collect();
        let arguments: Vec<String> = arguments.iter().map(|word| quoted(word)).collect();
        text += &format!("set -- {}\n", arguments.join(" "));
        text
    }

    /// Takes its power away.
    pub fn kill(&self) {
        self.machine.kill();
    }

    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    pub(crate) fn tail(&self) -> String {
        self.machine.tail()
    }
}

/// Variables of the caller's, and what the software DC needs.
fn environment(config: &Config) -> Vec<(String, String)> {
    let libraries = ("LD_LIBRARY_PATH".to_owned(), DC_LIBRARIES.to_owned());
    let dc = config.dc.then_some(libraries);
    config.env.iter().cloned().chain(dc).collect()
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A new directory for a run of this name; those of runs that have ended go.
fn run_directory(runs: &Path, name: &str) -> Result<PathBuf> {
    if name.is_empty() || name.contains(['/', '.', ',']) {
        bail!("{name:?} cannot name a run: no '/', '.' or ',' can be in it");
    }
    fs::create_dir_all(runs).context("cannot make the directory of runs")?;
    for entry in fs::read_dir(runs).context("cannot read the directory of runs")?.flatten() {
        let old = entry.file_name();
        let of_this_name = old.to_str().and_then(|old| old.split_once('.'));
        let Some((_, pid)) = of_this_name.filter(|(old, _)| *old == name) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            fs::remove_dir_all(entry.path()).context("cannot remove an earlier run")?;
        }
    }
    let directory = runs.join(format!("{name}.{}", std::process::id()));
    fs::remove_dir_all(&directory).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    fs::create_dir(&directory).context("cannot make the directory of the run")?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        let words = ["plain", "with space", "it's", "$HOME", ""];
        let line: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        let script = format!("printf '%s|' {}", line.join(" "));
        let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap(), words.join("|") + "|");
    }

    #[test]
    fn the_last_run_of_a_name_stays_until_the_next() {
        let runs = tempfile::tempdir().unwrap();
        // No process has this number: it is above the kernel's largest, 2^22.
        for old in ["name.4194305", "other.4194305"] {
            fs::create_dir(runs.path().join(old)).unwrap();
        }
        let new = run_directory(runs.path(), "name").unwrap();
        assert!(new.is_dir() && !runs.path().join("name.4194305").exists());
        assert!(runs.path().join("other.4194305").exists());
        for bad in ["", "a/b", "a.b", "a,b"] {
            run_directory(runs.path(), bad).unwrap_err();
        }
    }
}
