//! Guests: up when asked for, down when dropped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::emulator::Emulator;
use crate::image::Image;
use crate::job::Job;
use crate::line::{Line, Waited};

/// A quiet machine takes 7 s, one that builds beside it three times as long.
const BOOT_LIMIT: Duration = Duration::from_secs(90);

/// A link of two ends is all that the emulators' datagram sockets make.
pub(crate) const GUESTS_MAX: u32 = 2;

/// An interpreter and its library are held in memory, twice while the guest boots.
const PYTHON_MIB: u32 = 512;

/// Where guests have the software DC of tests/dc_provider: libraries that a job finds in place of
/// rdma-core's own if its LD_LIBRARY_PATH is this.
pub const DC_LIBRARIES: &str = "/lib/dc_provider";

/// What guests are made with.
#[derive(Debug, Clone)]
pub struct Config {
    /// What their directory under `target/rxe/run/` is called; it stays until the next run of this
    /// name.
    pub name: String,
    /// How many: 1 or 2.
    pub nodes: u32,
    /// Memory of each.
    pub memory_mib: u32,
    /// Of the link. An RDMA port has the largest power of two that fits, 4096 or 1024.
    pub mtu: u32,
    /// Variables for all jobs.
    pub env: Vec<(String, String)>,
    /// Whether all jobs have the software DC.
    pub dc: bool,
    /// The interpreter of a venv with numpy and mitosis, which host-a has at the same path, and host-b
    /// has not.
    pub python: Option<PathBuf>,
}

impl Config {
    /// Two guests.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            nodes: 2,
            memory_mib: 512,
            mtu: 9000,
            env: Vec::new(),
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
}

/// One of them.
#[derive(Debug)]
pub struct Guest {
    node: u32,
    nodes: u32,
    env: Vec<(String, String)>,
    share: PathBuf,
    line: Line,
    emulator: Emulator,
    next_job: AtomicU32,
}

impl Guests {
    /// Boots them, and makes what they boot from if it is not there.
    ///
    /// # Errors
    /// The image cannot be made, or a guest does not come up; the console's end is in the error.
    pub fn up(config: &Config) -> Result<Self> {
        if !(1..=GUESTS_MAX).contains(&config.nodes) {
            bail!("{} guests asked for; 1 or {GUESTS_MAX} can be had", config.nodes);
        }
        let image = Image::ready(config.python.as_deref())?;
        let directory = run_directory(&image.runs(), &config.name)?;
        let share = directory.join("share");
        fs::create_dir_all(share.join("jobs")).context("cannot make the shared folder")?;
        copy(&image.dc_provider(), &share.join("dc_provider"))?;
        let mut guests = Vec::new();
        for node in 1..=config.nodes {
            guests.push(Arc::new(Guest::start(config, &image, &directory, node)?));
        }
        for guest in &guests {
            guest.await_ready()?;
        }
        Ok(Self { guests, directory })
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
    fn start(config: &Config, image: &Image, directory: &Path, node: u32) -> Result<Self> {
        let line = Line::listen(directory, &format!("line.{node}"))?;
        let console = format!("console.{node}");
        let mut command = image.emulator();
        // One CPU each: more of them crash this kernel in the emulator of Debian 12, and are no
        // faster. KVM is never tried: where it is a nested one, this kernel dies in it.
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-M", "pc", "-smp", "1"]);
        let has_python = node == 1 && config.python.is_some();
        let memory_mib = config.memory_mib + if has_python { PYTHON_MIB } else { 0 };
        command.args(["-m", &memory_mib.to_string(), "-nodefaults", "-no-user-config"]);
        command.args(["-no-reboot", "-display", "none", "-monitor", "none"]);
        command.args(["-serial", &format!("file:{console}")]);
        command.args(["-chardev", &format!("socket,id=line,path=line.{node}")]);
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=line"]);
        command.arg("-kernel").arg(image.kernel()).arg("-initrd");
        command.arg(if has_python { image.initrd_with_python() } else { image.initrd() });
        let variables = format!("node={node} nodes={} mtu={}", config.nodes, config.mtu);
        // A guest that oopses ends, and with it the test, instead of limping on.
        let boot = format!("console=ttyS0 quiet panic=-1 oops=panic {variables}");
        command.args(["-append", &boot]);
        let other = GUESTS_MAX + 1 - node;
        let ends = format!(
            "local.type=unix,local.path=net.{node},remote.type=unix,remote.path=net.{other}"
        );
        command.args(["-netdev", &format!("dgram,id=net,{ends}")]);
        let card = format!("mac=52:54:00:00:00:{node:02x},host_mtu={},romfile=", config.mtu);
        command.args(["-device", &format!("virtio-net-pci,netdev=net,{card}")]);
        command.args(["-fsdev", "local,id=share,path=share,security_model=none"]);
        command.args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]);
        let emulator = Emulator::start(command, directory, &console, &format!("emulator.{node}"))?;
        Ok(Self {
            node,
            nodes: config.nodes,
            env: environment(config),
            share: directory.join("share"),
            line,
            emulator,
            next_job: AtomicU32::new(1),
        })
    }

    fn await_ready(&self) -> Result<()> {
        let why = match self.line.ready(BOOT_LIMIT) {
            Waited::For(Ok(())) => return Ok(()),
            Waited::For(Err(why)) => why,
            Waited::TooLong => format!("it is not ready after {BOOT_LIMIT:?}"),
            Waited::MachineEnded => "its kernel or the emulator has ended".to_owned(),
        };
        bail!("{} did not come up: {why}\n{}", self.name(), self.tail())
    }

    /// Its host name.
    pub fn name(&self) -> &'static str {
        if self.node == 1 { "host-a" } else { "host-b" }
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
        // Apart from those of the other guest, which has the same folder.
        let id = self.next_job.fetch_add(1, Ordering::Relaxed) * (GUESTS_MAX + 1) + self.node;
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
            ("PEER", format!("10.77.0.{}", GUESTS_MAX + 1 - self.node)),
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
        self.emulator.kill();
    }

    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    pub(crate) fn tail(&self) -> String {
        self.emulator.tail()
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
