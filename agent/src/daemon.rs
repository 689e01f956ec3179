//! `mitosis agent`: settings, logs, the life of the process.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, value_parser};
use mitosis::agent::ahead::{CLONES_AHEAD, MAX_CLONES_AHEAD};
use mitosis::agent::config::{self, Config, RdmaConfig};
use mitosis::agent::{Agent, Listeners};
use mitosis::client::{AgentAddress, leave_nothing};
use mitosis::export::arena::ArenaLimits;
use mitosis::host::{DEFAULT_PORT, HostAddress};
use mitosis::keeper;
use mitosis::sys::{poll, sched, signal, socket};
use mitosis::verbs::Patience;
use mitosis::verbs::choice::Settings;
use mitosis::wire::control::ClusterSecret;
use serde_json::json;

/// A secret's file: exactly 32 bytes, or 64 hex digits.
const SECRET_BYTES: usize = 32;
/// The longest silence of a card that can be asked for: longer than any sensible deadline of a miss.
const MAX_SILENCE_MS: u64 = 60_000;
/// A thread that looks for longer would not sleep between the READs of any reader.
const BUSY_POLL_MAX_US: u64 = 100_000;

/// MiB that are registered with an RDMA card from the start: several CPythons' worth.
pub const ARENA_READY_MIB: u64 = 64;

/// How to run the agent.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Listen for other agents here; a port alone means all addresses. Needs --secret-file.
    #[arg(long, value_name = "ADDR[:PORT]", env = "MITOSIS_LISTEN")]
    listen: Option<String>,
    /// HOST:PORT under which other hosts reach this agent; this host's name and port if not given.
    #[arg(long, value_name = "HOST:PORT", env = "MITOSIS_ADVERTISE")]
    advertise: Option<String>,
    /// The cluster secret (32 bytes or 64 hex digits, mode 0600); a second one is accepted, too, while
    /// it rotates.
    #[arg(long, value_name = "FILE", env = "MITOSIS_SECRET_FILE", value_delimiter = ',')]
    secret_file: Vec<PathBuf>,
    /// CPUs that get a pager thread for each image.
    #[arg(long, value_name = "CPU,...", env = "MITOSIS_PAGER_CPUS", value_delimiter = ',')]
    pager_cpus: Vec<usize>,
    /// Do not rehearse seeds: nothing is pushed, pages are pulled on touch alone.
    #[arg(long)]
    no_rehearsal: bool,
    /// Children of each seed that wait, cloned ahead, for the next resume here; 0: none.
    #[arg(long, value_name = "N", env = "MITOSIS_CLONES_AHEAD", default_value_t = CLONES_AHEAD as u64,
        value_parser = value_parser!(u64).range(..=MAX_CLONES_AHEAD as u64))]
    clones_ahead: u64,
    /// Milliseconds that a page may take before the child that waits for it gets SIGBUS.
    #[arg(long, value_name = "MS", env = "MITOSIS_MISS_DEADLINE_MS", default_value_t = 5000,
        value_parser = value_parser!(u64).range(1..))]
    miss_deadline_ms: u64,
    /// Milliseconds that another agent may take to answer.
    #[arg(long, value_name = "MS", env = "MITOSIS_PEER_DEADLINE_MS", default_value_t = 5000,
        value_parser = value_parser!(u64).range(1..))]
    peer_deadline_ms: u64,
    /// Seconds for which an image without children is kept for the next resume.
    #[arg(long, value_name = "S", env = "MITOSIS_LINGER_S", default_value_t = 30)]
    linger_s: u64,
    /// Microseconds for which a thread that serves READs over tcp looks for the next one before it sleeps: it
    /// takes a CPU for a reader that does not stop, and spares it the wake-up.
    #[arg(long, value_name = "US", env = "MITOSIS_BUSY_POLL_US", default_value_t = 0)]
    busy_poll_us: u64,
    /// MiB of seeds' memory that are registered with the RDMA card from the start.
    #[arg(long, value_name = "MIB", env = "MITOSIS_ARENA_READY_MIB", default_value_t = ARENA_READY_MIB)]
    arena_ready_mib: u64,
    /// MiB that copies of seeds may take in all, there or, without a card, in the agent's own memory; beyond,
    /// their pages are read out of the seeds over tcp. A quarter of this host's memory if not given.
    #[arg(long, value_name = "MIB", env = "MITOSIS_ARENA_MAX_MIB")]
    arena_max_mib: Option<u64>,
    /// Milliseconds after which an RDMA card that does not answer is given up; rounded up to what cards count in.
    #[arg(long, value_name = "MS", env = "MITOSIS_RDMA_SILENCE_MS", default_value_t = 67,
          value_parser = clap::value_parser!(u64).range(1..=MAX_SILENCE_MS))]
    rdma_silence_ms: u64,
    /// Take every seed for one of another kernel: for tests.
    #[arg(long, hide = true)]
    proxy_vdso: bool,
    /// End when standard input does: for the program that starts an agent of its own.
    #[arg(long)]
    embedded: bool,
}

/// Runs the agent until it is told to end.
pub fn run(args: AgentArgs, socket: Option<PathBuf>, as_json: bool) -> anyhow::Result<ExitCode> {
    let embedded = args.embedded;
    let own = socket.as_deref().and_then(Path::parent).filter(|_| embedded).map(OwnDirectory);
    let started = start(args, socket.clone(), own.as_ref());
    let (agent, listeners, termination, ready) = match started {
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
    termination.then(move || ended_by_signal.shut_down())?;
    if embedded {
        let agent = agent.clone();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            agent.shut_down();
        });
    }
    // Whoever starts an agent waits for this line.
    println!("{}", if as_json { ready.json() } else { ready.to_string() });
    std::io::stdout().flush()?;
    agent.run(listeners);
    Ok(ExitCode::SUCCESS)
}

/// Everything up to the line that says so.
fn start(
    args: AgentArgs,
    socket: Option<PathBuf>,
    own: Option<&OwnDirectory<'_>>,
) -> anyhow::Result<(Arc<Agent>, Listeners, signal::Blocked, Ready)> {
    start_log()?;
    let mut config = configure(args, socket)?;
    config.own_directory = own.map(|own| own.0.to_owned());
    let address = config.advertise.clone().filter(|_| config.listen.is_some());
    let ready = Ready { socket: config.socket.clone(), address };
    let termination = signal::block(&[libc::SIGTERM, libc::SIGINT])?;
    let (agent, listeners) =
        Agent::start(config).map_err(|failure| anyhow::anyhow!(failure.message))?;
    Ok((agent, listeners, termination, ready))
}

/// Where an agent can be reached.
struct Ready {
    socket: PathBuf,
    /// Of its remote listener.
    address: Option<String>,
}

impl Ready {
    fn json(&self) -> String {
        let socket = self.socket.display().to_string();
        json!({ "ready": { "socket": socket, "address": self.address } }).to_string()
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mitosis agent ready on {}", self.socket.display())?;
        self.address.as_ref().map_or(Ok(()), |address| write!(f, " and {address}"))
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

fn configure(args: AgentArgs, socket: Option<PathBuf>) -> anyhow::Result<Config> {
    let program = std::env::current_exe().context("this program's own path cannot be read")?;
    let socket = match socket {
        Some(path) => path,
        None => AgentAddress::find().0,
    };
    let defaults = Config::local(socket, program);
    let listen = args.listen.as_deref().map(parse_listen).transpose()?;
    let advertise = args.advertise.as_deref().map(parse_advertise).transpose()?;
    let advertise = match (advertise, listen) {
        (None, Some(address)) => {
            let own = format!("{}:{}", config::host_name(), address.port());
            let told = "this host's name cannot be told to others; give another with --advertise";
            Some(own.parse::<HostAddress>().context(told)?.to_string())
        }
        (advertise, _) => advertise,
    };
    let secrets =
        args.secret_file.iter().map(|path| read_secret(path)).collect::<Result<_, _>>()?;
    args.pager_cpus.iter().try_for_each(|cpu| check_cpu(*cpu))?;
    let pager_cpus = if args.pager_cpus.is_empty() { defaults.pager_cpus } else { args.pager_cpus };
    Ok(Config {
        listen,
        advertise,
        secrets,
        pager_cpus,
        rehearse: !args.no_rehearsal,
        clones_ahead: usize::try_from(args.clones_ahead)?,
        miss_deadline: Duration::from_millis(args.miss_deadline_ms),
        peer_deadline: Duration::from_millis(args.peer_deadline_ms),
        linger: Duration::from_secs(args.linger_s),
        busy_poll: Duration::from_micros(args.busy_poll_us.min(BUSY_POLL_MAX_US)),
        proxy_vdso: args.proxy_vdso,
        rdma: rdma_config(args.arena_ready_mib, args.arena_max_mib, args.rdma_silence_ms)?,
        ..defaults
    })
}

fn rdma_config(
    ready_mib: u64,
    max_mib: Option<u64>,
    silence_ms: u64,
) -> anyhow::Result<RdmaConfig> {
    let most = max_mib.map_or_else(|| memory_bytes() / 4, |mib| mib << 20);
    let arena = ArenaLimits { ready: ready_mib << 20, most };
    let patience = Patience::of_at_least(Duration::from_millis(silence_ms));
    Ok(RdmaConfig { settings: Settings::from_environment()?, arena, patience })
}

/// This host's memory.
fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

fn parse_advertise(text: &str) -> anyhow::Result<String> {
    let address = text.parse::<HostAddress>().context("--advertise")?;
    Ok(address.to_string())
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

fn read_secret(path: &Path) -> anyhow::Result<ClusterSecret> {
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

/// Warnings, and which fabric was chosen.
const LOGGED: &str = "warn,mitosis::agent::rdma=info";

fn start_log() -> anyhow::Result<()> {
    let told = std::env::var("MITOSIS_LOG").ok().filter(|told| !told.is_empty());
    let told = told.unwrap_or_else(|| LOGGED.to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&told).with_context(|| {
        format!("MITOSIS_LOG={told}: give error, warn, info, debug or trace, or MODULE=LEVEL,...")
    })?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    Ok(())
}
