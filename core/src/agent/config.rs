//! What an agent is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::ahead::CLONES_AHEAD;
use super::limits::Limits;
use crate::export::arena::ArenaLimits;
use crate::verbs::Patience;
use crate::verbs::choice::Settings;
use crate::wire::control::ClusterSecret;
use crate::wire::seal::Encryption;

/// An agent's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The unix socket for processes of this host.
    pub socket: PathBuf,
    /// A group that may connect to it, too. Its members can become the agent's user by that.
    pub socket_group: Option<u32>,
    /// Where other agents connect; `None`: no remote listener.
    pub listen: Option<SocketAddr>,
    /// `host:port` that handles and descriptors carry for this agent.
    pub advertise: Option<String>,
    /// The cluster secret, and the one before it while it rotates. Needed for anything remote.
    pub secrets: Vec<ClusterSecret>,
    /// This host's name, for people.
    pub host: String,
    /// CPUs that get a pager thread for each image, pinned; none: one thread that is not pinned.
    pub pager_cpus: Vec<usize>,
    /// Whether each seed is rehearsed, so that its hot pages are pushed.
    pub rehearse: bool,
    /// Children of each seed that are cloned ahead of the next resume, up to
    /// [`MAX_CLONES_AHEAD`](super::ahead::MAX_CLONES_AHEAD); 0: none.
    pub clones_ahead: usize,
    /// How long a page may take before the child that waits for it gets SIGBUS.
    pub miss_deadline: Duration,
    /// How long another agent may take to answer.
    pub peer_deadline: Duration,
    /// How long an image without children is kept for the next resume.
    pub linger: Duration,
    /// How long seeds wait for the next agent once this one has ended without having been told to; zero: not at all.
    pub restart_grace: Duration,
    /// How long a thread that serves READs looks for the next one before it sleeps.
    pub busy_poll: Duration,
    /// Whether READ streams, to other hosts and of theirs, are encrypted. If it is demanded no RDMA card is used.
    pub encryption: Encryption,
    /// Children call this kernel's vDSO by way of the seed's even where they are the same.
    pub proxy_vdso: bool,
    /// How much of this host others may take.
    pub limits: Limits,
    /// Which card, which fabric, and how much memory for it.
    pub rdma: RdmaConfig,
    /// The program to run as keeper: this one.
    pub program: PathBuf,
    /// A directory that was made for this agent alone. The keeper takes it away when the agent is gone,
    /// however it ended; who runs the agent may do so before.
    pub own_directory: Option<PathBuf>,
}

/// Settings for an RDMA card.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RdmaConfig {
    /// What the user asks for.
    pub settings: Settings,
    /// Bounds of the memory from which other hosts READ.
    pub arena: ArenaLimits,
    /// When a silent card is given up.
    pub patience: Patience,
}

impl Config {
    /// Settings for an agent that serves this host alone.
    pub fn local(socket: PathBuf, program: PathBuf) -> Self {
        Config {
            socket,
            socket_group: None,
            listen: None,
            advertise: None,
            secrets: Vec::new(),
            host: host_name(),
            pager_cpus: Vec::new(),
            rehearse: true,
            clones_ahead: CLONES_AHEAD,
            miss_deadline: Duration::from_secs(5),
            peer_deadline: Duration::from_secs(5),
            linger: Duration::from_secs(30),
            restart_grace: Duration::from_secs(30),
            busy_poll: Duration::ZERO,
            encryption: Encryption::Offered,
            proxy_vdso: false,
            limits: Limits::default(),
            rdma: RdmaConfig::default(),
            program,
            own_directory: None,
        }
    }
}

/// uname(2) nodename.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "localhost".to_owned())
}
