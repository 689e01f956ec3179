//! All settings, each once: its name in the file, its variable, its flag, what it is by default, who reads it, and what
//! it does. Flags, `--help`, checks, `mitosis info -c` and the warnings of unknown names come from here.

use std::net::{Ipv4Addr, SocketAddr};

use mitosis::agent::ahead::MAX_CLONES_AHEAD;
use mitosis::agent::limits::{MAX_CHILDREN, MAX_CONNECTIONS, MAX_HOSTED, MAX_SEEDS, MAX_STREAMS};
use mitosis::verbs::choice::Settings as RdmaSettings;

/// The longest silence of a card that can be asked for: longer than any sensible deadline of a miss.
const MAX_SILENCE_MS: u64 = 60_000;
/// A thread that looks for longer would not sleep between the READs of any reader.
const BUSY_POLL_MAX_US: u64 = 100_000;
/// More MiB than any host has, and few enough that their bytes are a number.
const MAX_MIB: u64 = u64::MAX >> 20;
/// With eight streams of a megabyte each on their way, none waits as long as a miss may.
const MIN_MIB_PER_S: u64 = 16;
/// A day: a longer wait is a mistake.
const MAX_WAIT_MS: u64 = 86_400_000;
/// Longer than any restart takes; hosts that hold a seed ask for it for longer.
const MAX_RESTART_GRACE_S: u64 = 60;
/// A year.
const MAX_LINGER_S: u64 = 31_536_000;

/// What values are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text; who reads it says what is wrong with it.
    Text,
    /// Texts with commas between, or the flag more than once.
    List,
    /// Whole numbers with commas between, or the flag more than once.
    Numbers,
    /// true or false; the flag alone is true.
    Switch,
    /// An address and a port; a port alone is this host's own.
    Address,
    /// A whole number, the least and the most.
    Number(u64, u64),
    /// What `mitosis::verbs::choice` reads.
    Rdma,
    /// What tracing's filter reads.
    Log,
}

/// Who reads a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// `mitosis agent`.
    Agent,
    /// All verbs of `mitosis`.
    Command,
    /// Another process: a variable alone, neither flag nor line in the file.
    Other(&'static str),
}

impl Reader {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Reader::Agent => "mitosis agent",
            Reader::Command => "mitosis, all verbs",
            Reader::Other(words) => words,
        }
    }
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// In the file.
    pub name: &'static str,
    /// In the environment.
    pub variable: &'static str,
    /// Without the dashes.
    pub flag: Option<&'static str>,
    /// What stands for the value in `--help`.
    pub value: &'static str,
    /// What values are taken.
    pub kind: Kind,
    /// If nobody sets it.
    pub default: Option<&'static str>,
    /// Who reads it.
    pub reader: Reader,
    /// What it does.
    pub doc: &'static str,
}

impl Setting {
    /// Whether the file may set it.
    pub fn is_in_file(&self) -> bool {
        !matches!(self.reader, Reader::Other(_)) && self.name != CONFIG
    }

    /// What is wrong with a value: what would be right.
    pub fn check(&self, text: &str) -> Result<(), String> {
        match self.kind {
            Kind::Text | Kind::List => Ok(()),
            Kind::Numbers => {
                let numbers = text.split(',').all(|part| part.trim().parse::<usize>().is_ok());
                numbers.then_some(()).ok_or_else(|| "give numbers, with commas between".to_owned())
            }
            Kind::Switch => parse_switch(text).map(drop),
            Kind::Address => parse_address(text).map(drop),
            Kind::Number(least, most) => match text.parse::<u64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(()),
                _ => Err(format!("give a whole number, {least} to {most}")),
            },
            Kind::Rdma => {
                let own = |name| (name == self.variable).then(|| text.to_owned());
                RdmaSettings::from_variables(own).map(drop).map_err(|error| error.fault)
            }
            Kind::Log => {
                let filter = tracing_subscriber::EnvFilter::try_new(text);
                filter.map(drop).map_err(|_| {
                    "give error, warn, info, debug or trace, or MODULE=LEVEL,...".to_owned()
                })
            }
        }
    }
}

/// As clap's switches, in words.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("give true or false".to_owned()),
    }
}

/// ADDR:PORT, or PORT for programs of this host alone.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let of_port = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let parsed = text.parse::<u16>().map(of_port).or_else(|_| text.parse::<SocketAddr>());
    parsed.map_err(|_| {
        "give ADDR:PORT, as 127.0.0.1:9464 or [::]:9464, or PORT for programs of this host"
            .to_owned()
    })
}

/// The setting that names the file.
pub const CONFIG: &str = "config";

const fn agent(
    name: &'static str,
    variable: &'static str,
    flag: &'static str,
    value: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    doc: &'static str,
) -> Setting {
    let flag = Some(flag);
    Setting { name, variable, flag, value, kind, default, reader: Reader::Agent, doc }
}

const fn other(
    name: &'static str,
    variable: &'static str,
    reader: &'static str,
    doc: &'static str,
) -> Setting {
    let reader = Reader::Other(reader);
    Setting { name, variable, flag: None, value: "", kind: Kind::Text, default: None, reader, doc }
}

const COMMANDS: [Setting; 2] = [
    Setting {
        name: "socket",
        variable: "MITOSIS_AGENT",
        flag: Some("socket"),
        value: "PATH",
        kind: Kind::Text,
        default: None,
        reader: Reader::Command,
        doc: "The local agent's unix socket; $XDG_RUNTIME_DIR/mitosis/agent.sock if it is there, else \
              /run/mitosis/agent.sock, if not given. Of programs with libmitosis in them, the variable alone",
    },
    Setting {
        name: CONFIG,
        variable: "MITOSIS_CONFIG",
        flag: Some(CONFIG),
        value: "PATH",
        kind: Kind::Text,
        default: Some(super::file::HOST_FILE),
        reader: Reader::Command,
        doc: "The file of settings; the default one need not be there",
    },
];

const AGENTS: [Setting; 30] = [
    agent(
        "socket_group",
        "MITOSIS_SOCKET_GROUP",
        "socket-group",
        "GROUP",
        Kind::Text,
        None,
        "A group, by name or number, that may use the agent, too. Each member can become the agent's user by it",
    ),
    agent(
        "listen",
        "MITOSIS_LISTEN",
        "listen",
        "ADDR[:PORT]",
        Kind::Text,
        None,
        "Listen for other agents here; a port alone means all addresses. Needs --secret-file",
    ),
    agent(
        "advertise",
        "MITOSIS_ADVERTISE",
        "advertise",
        "HOST:PORT",
        Kind::Text,
        None,
        "HOST:PORT under which other hosts reach this agent; this host's name and port if not given",
    ),
    agent(
        "metrics",
        "MITOSIS_METRICS",
        "metrics",
        "[ADDR:]PORT",
        Kind::Address,
        None,
        "Tell the counters to Prometheus at http://ADDR:PORT/metrics; a port alone means 127.0.0.1. Not told if not given",
    ),
    agent(
        "secret_file",
        "MITOSIS_SECRET_FILE",
        "secret-file",
        "FILE",
        Kind::List,
        None,
        "The cluster secret (32 bytes or 64 hex digits, mode 0600); a second one is accepted, too, while it rotates",
    ),
    agent(
        "encrypt_reads",
        "MITOSIS_ENCRYPT_READS",
        "encrypt-reads",
        "",
        Kind::Switch,
        Some("false"),
        "Open and serve no READ stream that is not encrypted, and use no RDMA card, whose READs are not. Without it those to \
         and from agents that have it are encrypted",
    ),
    agent(
        "pager_cpus",
        "MITOSIS_PAGER_CPUS",
        "pager-cpus",
        "CPU,...",
        Kind::Numbers,
        None,
        "CPUs that get a pager thread for each image",
    ),
    agent(
        "no_rehearsal",
        "MITOSIS_NO_REHEARSAL",
        "no-rehearsal",
        "",
        Kind::Switch,
        Some("false"),
        "Do not rehearse seeds: nothing is pushed, pages are pulled on touch alone",
    ),
    agent(
        "clones_ahead",
        "MITOSIS_CLONES_AHEAD",
        "clones-ahead",
        "N",
        Kind::Number(0, MAX_CLONES_AHEAD as u64),
        Some("1"),
        "Children of each seed that wait, cloned ahead, for the next resume here; 0: none",
    ),
    agent(
        "miss_deadline_ms",
        "MITOSIS_MISS_DEADLINE_MS",
        "miss-deadline-ms",
        "MS",
        Kind::Number(1, MAX_WAIT_MS),
        Some("5000"),
        "Milliseconds that a page may take before the child that waits for it gets SIGBUS",
    ),
    agent(
        "peer_deadline_ms",
        "MITOSIS_PEER_DEADLINE_MS",
        "peer-deadline-ms",
        "MS",
        Kind::Number(1, MAX_WAIT_MS),
        Some("5000"),
        "Milliseconds that another agent may take to answer",
    ),
    agent(
        "linger_s",
        "MITOSIS_LINGER_S",
        "linger-s",
        "S",
        Kind::Number(0, MAX_LINGER_S),
        Some("30"),
        "Seconds for which an image without children is kept for the next resume",
    ),
    agent(
        "restart_grace_s",
        "MITOSIS_RESTART_GRACE_S",
        "restart-grace-s",
        "S",
        Kind::Number(0, MAX_RESTART_GRACE_S),
        Some("30"),
        "Seconds for which seeds wait for the next agent when this one was killed or ends by SIGUSR2; 0: they end with it",
    ),
    agent(
        "max_children",
        "MITOSIS_MAX_CHILDREN",
        "max-children",
        "N",
        Kind::Number(1, MAX_CHILDREN as u64),
        Some("20000"),
        "Children that may run here at once",
    ),
    agent(
        "max_children_of_seed",
        "MITOSIS_MAX_CHILDREN_OF_SEED",
        "max-children-of-seed",
        "N",
        Kind::Number(1, MAX_CHILDREN as u64),
        Some("20000"),
        "Children of one seed that may run here at once",
    ),
    agent(
        "max_children_of_peer",
        "MITOSIS_MAX_CHILDREN_OF_PEER",
        "max-children-of-peer",
        "N",
        Kind::Number(1, MAX_CHILDREN as u64),
        Some("20000"),
        "Children that one other host may have running here at once",
    ),
    agent(
        "max_seeds",
        "MITOSIS_MAX_SEEDS",
        "max-seeds",
        "N",
        Kind::Number(1, MAX_SEEDS as u64),
        Some("1024"),
        "Seeds that may live here at once",
    ),
    agent(
        "max_connections_of_peer",
        "MITOSIS_MAX_CONNECTIONS_OF_PEER",
        "max-connections-of-peer",
        "N",
        Kind::Number(1, MAX_CONNECTIONS as u64),
        Some("4096"),
        "Connections that one other host may have to this agent at once: one for each of its seeds that it holds, and one \
         for each resume that runs",
    ),
    agent(
        "max_images_of_peer",
        "MITOSIS_MAX_IMAGES_OF_PEER",
        "max-images-of-peer",
        "N",
        Kind::Number(1, MAX_HOSTED as u64),
        Some("128"),
        "Images of seeds that one other host may have had made here at once, of 256 in all",
    ),
    agent(
        "max_streams_of_peer",
        "MITOSIS_MAX_STREAMS_OF_PEER",
        "max-streams-of-peer",
        "N",
        Kind::Number(1, MAX_STREAMS as u64),
        Some("64"),
        "READ streams that one other host may have to this agent at once, of 256 in all: an agent opens up to 8",
    ),
    agent(
        "max_mib_per_s_of_peer",
        "MITOSIS_MAX_MIB_PER_S_OF_PEER",
        "max-mib-per-s-of-peer",
        "MIB",
        Kind::Number(MIN_MIB_PER_S, MAX_MIB),
        None,
        "MiB of pages that one other host is sent in a second, over tcp; more is sent later. As fast as it takes them if not \
         given",
    ),
    agent(
        "busy_poll_us",
        "MITOSIS_BUSY_POLL_US",
        "busy-poll-us",
        "US",
        Kind::Number(0, BUSY_POLL_MAX_US),
        Some("0"),
        "Microseconds for which a thread that serves READs over tcp looks for the next one before it sleeps: it takes \
         a CPU for a reader that does not stop, and spares it the wake-up",
    ),
    agent(
        "arena_ready_mib",
        "MITOSIS_ARENA_READY_MIB",
        "arena-ready-mib",
        "MIB",
        Kind::Number(0, MAX_MIB),
        Some("64"),
        "MiB of seeds' memory that are registered with the RDMA card from the start",
    ),
    agent(
        "arena_max_mib",
        "MITOSIS_ARENA_MAX_MIB",
        "arena-max-mib",
        "MIB",
        Kind::Number(0, MAX_MIB),
        None,
        "MiB that copies of seeds may take in all, there or, without a card, in the agent's own memory; beyond, their \
         pages are read out of the seeds over tcp. A quarter of this host's memory if not given",
    ),
    agent(
        "rdma_silence_ms",
        "MITOSIS_RDMA_SILENCE_MS",
        "rdma-silence-ms",
        "MS",
        Kind::Number(1, MAX_SILENCE_MS),
        Some("67"),
        "Milliseconds after which an RDMA card that does not answer is given up; rounded up to what cards count in",
    ),
    agent(
        "fabric",
        "MITOSIS_FABRIC",
        "fabric",
        "NAME",
        Kind::Rdma,
        Some("auto"),
        "What READs go by: auto, dc, rc or tcp; ',require' behind it: fail rather than fall back",
    ),
    agent(
        "dev",
        "MITOSIS_DEV",
        "dev",
        "DEVICE[:PORT],...",
        Kind::Rdma,
        None,
        "RDMA devices or ports that may be used, the first that serves; ^ in front: all but these. All if not given",
    ),
    agent(
        "dev_deny",
        "MITOSIS_DEV_DENY",
        "dev-deny",
        "DEVICE[:PORT],...",
        Kind::Rdma,
        None,
        "RDMA devices or ports that are never used, whatever --dev says",
    ),
    agent(
        "gid_index",
        "MITOSIS_GID_INDEX",
        "gid-index",
        "N",
        Kind::Rdma,
        None,
        "The place in the port's GID table, 0 to 255; its best RoCE v2 address if not given",
    ),
    agent(
        "log",
        "MITOSIS_LOG",
        "log",
        "LEVEL",
        Kind::Log,
        Some("warn,mitosis::agent::rdma=info"),
        "What is told on standard error: error, warn, info, debug or trace, or MODULE=LEVEL,...",
    ),
];

const PRELOAD: &str = "libmitosis_preload.so";
const CHILDREN: &str = "children: Mitosis sets it there";

const OTHERS: [Setting; 11] = [
    other(
        "agent_bin",
        "MITOSIS_AGENT_BIN",
        "the libraries",
        "The program 'mitosis' from which a process starts an agent of its own",
    ),
    other(
        "preload",
        "MITOSIS_PRELOAD",
        "mitosis run, mitosis doctor",
        "The preload library; beside this program or where libraries are if not given",
    ),
    other(
        "prepare_when",
        "MITOSIS_PREPARE_WHEN",
        PRELOAD,
        "The moment at which the program is prepared: see docs/preload.md",
    ),
    other(
        "prepare_owner",
        "MITOSIS_PREPARE_OWNER",
        PRELOAD,
        "The process that waits for the handle; mitosis run sets it",
    ),
    other(
        "handle_file",
        "MITOSIS_HANDLE_FILE",
        PRELOAD,
        "Where the handle is written; standard error if not given",
    ),
    other(
        "signal",
        "MITOSIS_SIGNAL",
        PRELOAD,
        "The signal that asks a program to prepare, 34 to 64, where it uses the usual one itself",
    ),
    other(
        "allow_seccomp",
        "MITOSIS_ALLOW_SECCOMP",
        PRELOAD,
        "Take a program with a seccomp filter, which its children will not have",
    ),
    other(
        "node_addon",
        "MITOSIS_NODE_ADDON",
        "mitosis-fork for Node",
        "The addon's file, where it is not in the package",
    ),
    other("generation", "MITOSIS_GENERATION", CHILDREN, "How many forks lie above this process"),
    other("child_index", "MITOSIS_CHILD_INDEX", CHILDREN, "The child's place among its siblings"),
    other(
        "payload",
        "MITOSIS_PAYLOAD",
        CHILDREN,
        "What resume was given for the child, where it is text",
    ),
];

/// All of them, those for everybody first.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    COMMANDS.iter().chain(&AGENTS).chain(&OTHERS)
}
