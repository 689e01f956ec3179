//! `mitosis agent`: settings, logs, the life of the process.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use mitosis::agent::config::{self, Config, RdmaConfig};
use mitosis::agent::limits::Limits;
use mitosis::agent::{Agent, Listeners};
use mitosis::client::{AgentAddress, leave_nothing};
use mitosis::export::arena::ArenaLimits;
use mitosis::host::{DEFAULT_PORT, HostAddress};
use mitosis::keeper;
use mitosis::sys::{poll, sched, signal, socket};
use mitosis::verbs::Patience;
use mitosis::wire::control::ClusterSecret;
use mitosis::wire::seal::Encryption;
use serde_json::{Value, json};

use crate::settings::Settled;
use crate::{metrics, notify};

/// A secret's file: exactly 32 bytes, or 64 hex digits.
const SECRET_BYTES: usize = 32;

/// Ends the agent for another one to follow: its seeds wait for that. SIGTERM cannot say so, for it means the end of
/// all; SIGHUP comes from a terminal that closes.
const RESTART: i32 = libc::SIGUSR2;

/// How to run the agent, beside what the table of settings has.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Take every seed for one of another kernel: for tests.
    #[arg(long, hide = true)]
    proxy_vdso: bool,
    /// End when standard input does: for the program that starts an agent of its own. The host's file of settings
    /// is not read.
    #[arg(long)]
    pub embedded: bool,
}

/// Runs the agent until it is told to end.
pub fn run(args: &AgentArgs, settled: &Settled, as_json: bool) -> anyhow::Result<ExitCode> {
    let embedded = args.embedded;
    let socket = settled.text("socket").map(PathBuf::from);
    let own = socket.as_deref().and_then(Path::parent).filter(|_| embedded).map(OwnDirectory);
    let started = start(args, settled, socket.clone(), own.as_ref());
    let Started { agent, listeners, metrics, termination, ready } = match started {
        Ok(started) => started,
        Err(error) => {
            // Who started this agent reads there why it did not come to be, and takes it away then.
            if let Some(own) = own {
                own.leave_to_starter();
            }
            return Err(error);
        }
    };
    let ended_by_signal = agent.clone();
    termination.each(move |signal| match signal {
        RESTART => ended_by_signal.hand_over(),
        _ => ended_by_signal.shut_down(),
    })?;
    if embedded {
        let agent = agent.clone();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            agent.shut_down();
        });
    }
    if let Some(Err(error)) = metrics.map(|metrics| metrics::serve(&agent, metrics)) {
        tracing::error!(%error, "the counters are not told over HTTP");
    }
    // Whoever starts an agent waits for this line.
    println!("{}", if as_json { ready.as_value().to_string() } else { ready.to_string() });
    std::io::stdout().flush()?;
    notify::ready();
    agent.run(listeners);
    Ok(ExitCode::SUCCESS)
}

/// An agent that is about to run.
struct Started {
    agent: Arc<Agent>,
    listeners: Listeners,
    metrics: Option<TcpListener>,
    termination: signal::Blocked,
    ready: Ready,
}

/// Everything up to the line that says so.
fn start(
    args: &AgentArgs,
    settled: &Settled,
    socket: Option<PathBuf>,
    own: Option<&OwnDirectory<'_>>,
) -> anyhow::Result<Started> {
    settled.check(true)?;
    start_log(settled)?;
    settled.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let mut config = configure(args, settled, socket)?;
    config.own_directory = own.map(|own| own.0.to_owned());
    let address = config.advertise.clone().filter(|_| config.listen.is_some());
    // Before the agent, which leaves a socket and a keeper if this fails behind it.
    let metrics = settled.address("metrics").map(metrics::bind).transpose()?;
    let told_at = metrics.as_ref().map(TcpListener::local_addr).transpose()?;
    let ready = Ready { socket: config.socket.clone(), address, metrics: told_at };
    let termination = signal::block(&[libc::SIGTERM, libc::SIGINT, RESTART])?;
    let (agent, listeners) =
        Agent::start(config).map_err(|failure| anyhow::anyhow!(failure.message))?;
    Ok(Started { agent, listeners, metrics, termination, ready })
}

/// Where an agent can be reached.
struct Ready {
    socket: PathBuf,
    /// Of its remote listener.
    address: Option<String>,
    /// Where the counters are told.
    metrics: Option<SocketAddr>,
}

impl Ready {
    fn as_value(&self) -> Value {
        let socket = self.socket.display().to_string();
        let metrics = self.metrics.map(|address| address.to_string());
        json!({ "ready": { "socket": socket, "address": self.address, "metrics": metrics } })
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mitosis agent ready on {}", self.socket.display())?;
        self.address.as_ref().map_or(Ok(()), |address| write!(f, " and {address}"))?;
        self.metrics.map_or(Ok(()), |address| write!(f, "; counters at http://{address}/metrics"))
    }
}

/// What the program that started this agent made for it: goes with the agent, however `run` is left.
struct OwnDirectory<'a>(&'a Path);

impl OwnDirectory<'_> {
    fn leave_to_starter(self) {
        // Its end of standard input is open for as long as it is there, and never written to.
        if matches!(poll::is_readable(libc::STDIN_FILENO), Ok(false)) {
            std::mem::forget(self);
        }
    }
}

impl Drop for OwnDirectory<'_> {
    fn drop(&mut self) {
        leave_nothing(self.0);
    }
}

/// `mitosis keeper --fd N`.
pub fn keeper(fd: i32, clear: Option<&Path>) -> anyhow::Result<ExitCode> {
    let socket = socket::inherited(fd)
        .context("the keeper is started by the agent; there is no use in starting it by hand")?;
    keeper::run(socket, clear)
}

fn configure(
    args: &AgentArgs,
    settled: &Settled,
    socket: Option<PathBuf>,
) -> anyhow::Result<Config> {
    let program = std::env::current_exe().context("this program's own path cannot be read")?;
    let socket = match socket {
        Some(path) => path,
        None => AgentAddress::find().0,
    };
    let defaults = Config::local(socket, program);
    let listen = settled.text("listen").map(parse_listen).transpose()?;
    let advertise = advertised(settled, listen)?;
    let secrets = settled.list("secret_file").into_iter().map(|path| read_secret(path.as_ref()));
    let secrets = secrets.collect::<Result<_, _>>()?;
    let pager_cpus = settled.list("pager_cpus").into_iter().map(str::parse::<usize>);
    let pager_cpus = pager_cpus.collect::<Result<Vec<_>, _>>()?;
    pager_cpus.iter().try_for_each(|cpu| check_cpu(*cpu))?;
    let number = |name| settled.number(name).with_context(|| format!("{name} has no value"));
    let socket_group = settled.text("socket_group").map(group_named).transpose()?;
    Ok(Config {
        socket_group,
        listen,
        advertise,
        secrets,
        pager_cpus,
        rehearse: !settled.switch("no_rehearsal"),
        clones_ahead: usize::try_from(number("clones_ahead")?)?,
        miss_deadline: Duration::from_millis(number("miss_deadline_ms")?),
        peer_deadline: Duration::from_millis(number("peer_deadline_ms")?),
        linger: Duration::from_secs(number("linger_s")?),
        restart_grace: Duration::from_secs(number("restart_grace_s")?),
        busy_poll: Duration::from_micros(number("busy_poll_us")?),
        encryption: match settled.switch("encrypt_reads") {
            true => Encryption::Demanded,
            false => Encryption::Offered,
        },
        proxy_vdso: args.proxy_vdso,
        limits: Limits {
            children: usize::try_from(number("max_children")?)?,
            children_of_seed: usize::try_from(number("max_children_of_seed")?)?,
            children_of_peer: usize::try_from(number("max_children_of_peer")?)?,
            seeds: usize::try_from(number("max_seeds")?)?,
            connections_of_peer: usize::try_from(number("max_connections_of_peer")?)?,
            images_of_peer: usize::try_from(number("max_images_of_peer")?)?,
            streams_of_peer: usize::try_from(number("max_streams_of_peer")?)?,
            bytes_per_s_of_peer: settled.number("max_mib_per_s_of_peer").map(|mib| mib << 20),
        },
        rdma: RdmaConfig {
            settings: settled.rdma()?,
            arena: ArenaLimits {
                ready: number("arena_ready_mib")? << 20,
                most: settled
                    .number("arena_max_mib")
                    .map_or_else(|| memory_bytes() / 4, |mib| mib << 20),
            },
            patience: Patience::of_at_least(Duration::from_millis(number("rdma_silence_ms")?)),
        },
        ..defaults
    })
}

/// This host's memory.
fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The name and port that other hosts are told: those that are set, else this host's with the port that it listens on.
fn advertised(settled: &Settled, listen: Option<SocketAddr>) -> anyhow::Result<Option<String>> {
    let address = match (settled.text("advertise"), listen) {
        (Some(text), _) => text.parse::<HostAddress>().context("--advertise")?,
        (None, Some(address)) => {
            let own = format!("{}:{}", config::host_name(), address.port());
            let told = "this host's name cannot be told to others; give another with --advertise";
            own.parse::<HostAddress>().context(told)?
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(address.to_string()))
}

/// The address under which other hosts would reach an agent of these settings.
pub fn own_address(settled: &Settled) -> Option<IpAddr> {
    let listen = settled.text("listen").and_then(|text| parse_listen(text).ok());
    let advertised = advertised(settled, listen).ok()??;
    advertised.to_socket_addrs().ok()?.next().map(|address| address.ip())
}

/// Whether a thread may run there.
fn check_cpu(cpu: usize) -> anyhow::Result<()> {
    let pinned = std::thread::spawn(move || sched::pin(cpu)).join();
    let pinned = pinned.map_err(|_| anyhow::anyhow!("a thread ended"))?;
    pinned.with_context(|| {
        format!(
            "--pager-cpus {cpu}: this agent may not run there; 'taskset -pc $$' tells where it may"
        )
    })
}

fn parse_listen(text: &str) -> anyhow::Result<SocketAddr> {
    let with_port = match text.parse::<u16>() {
        Ok(port) => format!("0.0.0.0:{port}"),
        Err(_) if text.parse::<SocketAddr>().is_ok() => text.to_owned(),
        Err(_)
            if text.contains(':') && !text.starts_with('[') && text.matches(':').count() == 1 =>
        {
            text.to_owned()
        }
        Err(_) => format!("{text}:{DEFAULT_PORT}"),
    };
    let mut addresses = with_port
        .to_socket_addrs()
        .with_context(|| format!("--listen {text}: give ADDR, ADDR:PORT or PORT"))?;
    addresses.next().with_context(|| format!("--listen {text}: the name has no address"))
}

/// A group's number, or its name in /etc/group.
fn group_named(text: &str) -> anyhow::Result<u32> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let mut fields = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.find(|fields| fields.first() == Some(&text));
    let number = found.and_then(|fields| fields.get(2)?.parse().ok());
    number.with_context(|| format!("there is no group '{text}' in /etc/group (socket_group)"))
}

/// The secret of a file that only its owner can read.
pub fn read_secret(path: &Path) -> anyhow::Result<ClusterSecret> {
    let shown = path.display();
    let remedy = "make one with: head -c 32 /dev/urandom > FILE; chmod 600 FILE";
    let meta = fs::metadata(path).with_context(|| format!("secret file {shown}; {remedy}"))?;
    if meta.permissions().mode() & 0o077 != 0 {
        bail!("secret file {shown} can be read by others: chmod 600 {shown}");
    }
    let bytes = fs::read(path).with_context(|| format!("secret file {shown}"))?;
    if let Ok(secret) = <[u8; SECRET_BYTES]>::try_from(bytes.as_slice()) {
        return Ok(ClusterSecret(secret));
    }
    let hex = std::str::from_utf8(&bytes).unwrap_or("").trim();
    let mut secret = [0u8; SECRET_BYTES];
    let is_hex = hex.len() == 2 * SECRET_BYTES && hex.is_ascii();
    let parsed = is_hex
        && secret.iter_mut().enumerate().all(|(i, byte)| {
            u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).map(|v| *byte = v).is_ok()
        });
    if !parsed {
        bail!("secret file {shown} holds neither 32 bytes nor 64 hex digits; {remedy}");
    }
    Ok(ClusterSecret(secret))
}

fn start_log(settled: &Settled) -> anyhow::Result<()> {
    let filter = settled.text("log").unwrap_or_default();
    let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_as_documented() {
        let local = Ready { socket: "/a".into(), address: None, metrics: None };
        let metrics = Some(SocketAddr::from(([127, 0, 0, 1], 9464)));
        let all = Ready { socket: "/a".into(), address: Some("host-a:7370".to_owned()), metrics };
        crate::json_tests::assert_documented("agent", &[local.as_value(), all.as_value()]);
    }
}
