//! Hosts for a test: up when asked for, down when dropped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::spec::{BIN_ENV, FileSpec, HostRecord, Hosts, TIME_OFFSET_S};
use crate::{link, ns};

/// How long the supervisor may take to end its hosts: its own limit and then some, so that its
/// message is heard.
const DOWN_TIMEOUT: Duration = Duration::from_secs(15);

const BIN_NAME: &str = "mitosis-hosts";

/// What a [`Pair`] is made with.
#[derive(Debug, Clone)]
pub struct PairConfig {
    /// Files for `host-b`, where there are no others but the libraries that they need.
    pub files: Vec<FileSpec>,
    /// How far CLOCK_MONOTONIC and CLOCK_BOOTTIME of `host-b` are ahead.
    pub time_offset_s: i64,
    /// The `mitosis-hosts` binary. None: the one that `MITOSIS_HOSTS_BIN` names, or that stands in
    /// a directory above the running program, where cargo puts it.
    pub bin: Option<PathBuf>,
}

impl Default for PairConfig {
    fn default() -> Self {
        Self { files: Vec::new(), time_offset_s: TIME_OFFSET_S, bin: None }
    }
}

impl PairConfig {
    /// Adds a file at the path that it has here.
    pub fn file(mut self, path: impl AsRef<Path>) -> Result<Self> {
        self.files.push(FileSpec::same(path)?);
        Ok(self)
    }

    fn binary(&self) -> Result<PathBuf> {
        if let Some(bin) = &self.bin {
            return Ok(bin.clone());
        }
        if let Some(bin) = std::env::var_os(BIN_ENV) {
            return Ok(bin.into());
        }
        let own = std::env::current_exe().context("cannot name the running program")?;
        let found = own.ancestors().skip(1).map(|d| d.join(BIN_NAME)).find(|p| p.is_file());
        found.with_context(|| {
            format!("no {BIN_NAME} beside {}; build it (cargo build -p {BIN_NAME})", own.display())
        })
    }
}

/// How a command runs on a host.
#[derive(Debug, Clone, Default)]
pub struct ExecOptions {
    /// Its environment, besides PATH, HOME and LANG.
    pub env: Vec<(String, String)>,
    /// The only CPU that it may run on.
    pub cpu: Option<usize>,
    /// Where it starts; `/` if None.
    pub cwd: Option<PathBuf>,
}

/// Two sealed hosts. Needs root. They end when it is dropped, and also when this process ends in
/// whatever way.
///
/// ```no_run
/// # fn main() -> anyhow::Result<()> {
/// use mitosis_hosts::{Pair, PairConfig};
///
/// let pair = Pair::up(PairConfig::default().file("/bin/cat")?)?;
/// let said = pair.b().command(["/bin/cat", "/etc/hostname"]).output()?;
/// assert_eq!(said.stdout, b"host-b\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Pair {
    a: Host,
    b: Host,
    /// None once it is down.
    supervisor: Option<Child>,
}

/// One of the two hosts.
#[derive(Debug, Clone)]
pub struct Host {
    record: HostRecord,
    bin: PathBuf,
}

impl Pair {
    /// Builds both hosts; they can be used when it returns.
    pub fn up(config: PairConfig) -> Result<Self> {
        let bin = config.binary()?;
        let mut command = Command::new(&bin);
        command.args(["up", "--hosts", "2", "--owner", &std::process::id().to_string()]);
        command.args(["--b-time-offset-s", &config.time_offset_s.to_string()]);
        for file in &config.files {
            let mut argument = file.source.clone().into_os_string();
            argument.push(":");
            argument.push(&file.destination);
            command.arg("--file").arg(argument);
        }
        let mut supervisor = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", bin.display()))?;
        let mut line = String::new();
        let stdout = supervisor.stdout.take().context("no pipe from the supervisor")?;
        BufReader::new(stdout).read_line(&mut line).context("cannot hear of the hosts")?;
        if line.is_empty() {
            let error = finish(supervisor).err();
            bail!("{}", error.map_or_else(|| "the hosts are gone".into(), |e| format!("{e:#}")));
        }
        let hosts: Hosts = serde_json::from_str(&line).context("not a record of hosts")?;
        let host = |name| anyhow::Ok(Host { record: hosts.named(name)?.clone(), bin: bin.clone() });
        Ok(Self { a: host("a")?, b: host("b")?, supervisor: Some(supervisor) })
    }

    /// `host-a`, with this machine's root file system.
    pub fn a(&self) -> &Host {
        &self.a
    }

    /// `host-b`, with a tree of its own in memory and other clocks.
    pub fn b(&self) -> &Host {
        &self.b
    }

    /// Cuts the link as a pulled cable in a far-off switch would: what either side sends is lost,
    /// and neither is told.
    pub fn cut_link(&self) -> Result<()> {
        self.each_end(link::cut).context("cannot cut the link")
    }

    /// Holds every packet back by `delay_ms`, in each direction. Needs a kernel with sch_netem.
    pub fn delay_link(&self, delay_ms: u32) -> Result<()> {
        self.each_end(|init, there| link::delay(init, there, delay_ms))
            .context("cannot delay the link")
    }

    /// Loses so many of a thousand packets, in each direction, by chance; 0 ends it. Needs a kernel with cls_bpf.
    pub fn lose_packets(&self, per_mille: u32) -> Result<()> {
        self.each_end(|init, there| link::lose(init, there, per_mille))
            .context("cannot have the link lose packets")
    }

    /// Ends what [`Pair::cut_link`] or [`Pair::delay_link`] began.
    pub fn restore_link(&self) -> Result<()> {
        self.each_end(link::restore).context("cannot restore the link")
    }

    fn each_end(&self, change: impl Fn(i32, char) -> Result<()>) -> Result<()> {
        change(self.a.record.init_pid, 'b')?;
        change(self.b.record.init_pid, 'a')
    }

    /// Ends both hosts and all that runs on them; an error if something is left. Dropping does the
    /// same, and panics on an error.
    pub fn down(mut self) -> Result<()> {
        self.supervisor.take().map_or(Ok(()), finish)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let Some(Err(error)) = self.supervisor.take().map(finish) else {
            return;
        };
        if std::thread::panicking() {
            eprintln!("mitosis-hosts: {error:#}");
        } else {
            panic!("{error:#}");
        }
    }
}

/// Asks the supervisor to end and waits for it; its own message is the error.
fn finish(mut supervisor: Child) -> Result<()> {
    drop(supervisor.stdin.take());
    let deadline = Instant::now() + DOWN_TIMEOUT;
    let status = loop {
        if let Some(status) = supervisor.try_wait().context("cannot wait for the supervisor")? {
            break status;
        }
        if Instant::now() >= deadline {
            // Its hosts die with it, but something in them did not want to.
            supervisor.kill()?;
            bail!("the hosts did not end within {} s; killed", DOWN_TIMEOUT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(mut stderr) = supervisor.stderr.take() {
        stderr.read_to_string(&mut said).context("cannot read what the supervisor said")?;
    }
    bail!("hosts failed ({status}): {}", said.trim())
}

impl Host {
    /// Its name, pid 1, address and root.
    pub fn record(&self) -> &HostRecord {
        &self.record
    }

    /// The path by which a file of this host is reached from outside.
    pub fn outside(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.record.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// What `work`, which runs on a thread of its own, gives in this host's network: sockets that it makes stay there.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let net = File::open(format!("/proc/{}/ns/net", self.record.init_pid))
            .context("the host has ended")?;
        ns::on_thread_in_net(net.as_fd(), work).context("cannot enter the host's network")
    }

    /// A command that runs on this host. Its environment is fresh: what is set with
    /// [`Command::env`] does not reach it, see [`Host::command_with`]. Killing the spawned process
    /// kills the command; other signals are passed on to it.
    pub fn command<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Command {
        self.command_with(&ExecOptions::default(), argv)
    }

    /// [`Host::command`] with an environment, CPU or directory.
    pub fn command_with<S: AsRef<OsStr>>(
        &self,
        options: &ExecOptions,
        argv: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(&self.bin);
        command.args(["exec", "--pid", &self.record.init_pid.to_string()]);
        for (key, value) in &options.env {
            command.arg("--env").arg(format!("{key}={value}"));
        }
        if let Some(cpu) = options.cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        if let Some(directory) = &options.cwd {
            command.args([OsString::from("--cwd").as_os_str(), directory.as_os_str()]);
        }
        command.arg("--").args(argv);
        command
    }
}
