//! The agent: a host's seeds, exports, images, templates and children, and the protocols by which it is
//! asked for them.
//!
//! ```text
//!  unix socket --> local --+--> seeds, publish (describe, rehearse)
//!                          +--> starting --> hosting --> resume, image --> keeper
//!  tcp port ----> remote --+--> relay
//!                          \--> export::PageService (READ streams)
//!  peers: this agent as another's client
//! ```
//!
//! One thread a connection, blocking; tables under short locks, never held across a system call that
//! can wait. Nothing here is on the miss path.

mod adoption;
pub mod ahead;
mod building;
mod callers;
mod card_events;
mod children;
pub mod config;
pub mod connections;
mod counters;
mod failure;
mod files;
mod fit;
mod holding;
mod hosted;
mod hosting;
mod kept;
mod lease;
pub mod limits;
mod listeners;
mod local;
mod peers;
mod publish;
pub mod rdma;
mod rehearsal;
mod relay;
mod remote;
mod requests;
mod seed_pid;
mod seeds;
mod shared_files;
mod starting;
mod surroundings;
mod traces;

use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

pub use config::Config;
#[doc(hidden)]
pub use local::read_request;

use crate::export::arena::{Arena, ArenaLimits};
use crate::export::{Exports, HostMemory, PageService};
use crate::fabric::local::LocalFabric;
use crate::fabric::tcp::{Limits, TcpFabric};
use crate::fabric::{Buffers, Fabric};
use crate::image::{Mounts, PageLost, await_told};
use crate::keeper;
use crate::tally::Tally;
use crate::wire::local::{Failure, FailureKind, Stats};
use crate::wire::seal::Encryption;
use failure::fail;

/// A page of this architecture.
const PAGE: u64 = 4096;
/// Mounts made ahead: a resume of a new seed takes one without waiting.
const READY_MOUNTS: usize = 2;
/// How often images without children are looked for.
const SWEEP_TICK: Duration = Duration::from_millis(250);
/// How long the end of a child that died by SIGBUS waits for what is known of its cause.
const LOSS_PATIENCE: Duration = Duration::from_millis(100);
/// An agent at rest has some 25 descriptors; a seed and a child are up to ten more each, an image as many.
const MIN_OPEN_FILES: u64 = 64;
/// A peer that says nothing is asked whether it lives after this many seconds.
const KEEP_ALIVE_S: i32 = 5;
/// Both ends of a lease give it up after this: the time that keep-alive takes.
const LEASE_SILENCE_MS: i32 = 8000;

/// A host's agent.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    exports: Arc<Exports>,
    pages: Arc<PageService>,
    rdma: Option<rdma::Rdma>,
    /// Where seeds are copied to if no card has them.
    copies: Option<Arena>,
    buffers: Arc<Buffers>,
    tcp: Arc<TcpFabric>,
    local: Arc<LocalFabric>,
    peers: Arc<peers::Peers>,
    /// Connections that others have to this agent.
    peers_here: Arc<Tally<IpAddr>>,
    /// Connections of which it is not known yet whose they are.
    strangers: Arc<Tally<IpAddr>>,
    /// Images that others have had made here.
    images_of_peers: Arc<Tally<IpAddr>>,
    seeds: Arc<seeds::Seeds>,
    hosting: hosting::Hosting,
    ahead: ahead::Ahead,
    children: Arc<children::Children>,
    requests: requests::Requests,
    traces: traces::Traces,
    digests: files::Digests,
    shared_files: shared_files::SharedFiles,
    scanned: publish::ScannedTexts,
    keeper: keeper::Client,
    mounts: OnceLock<Result<Mounts, Failure>>,
    counters: counters::Counters,
    ending: (Sender<()>, Receiver<()>),
    /// The end is a restart.
    leaves_seeds: AtomicBool,
}

/// The sockets of an agent that is about to run.
#[derive(Debug)]
pub struct Listeners {
    local: UnixListener,
    remote: Option<TcpListener>,
}

impl Agent {
    /// Binds the sockets, starts the keeper, makes the tables.
    ///
    /// # Errors
    /// A socket is taken, a listener has no secret, or the keeper does not start.
    pub fn start(config: Config) -> Result<(Arc<Self>, Listeners), Failure> {
        if config.listen.is_some() && config.secrets.is_empty() {
            let text = "a remote listener needs the cluster secret: give --secret-file FILE (32 random bytes, the \
                        same file on every host, mode 0600)";
            return Err(fail(FailureKind::Secret, text));
        }
        check_open_files()?;
        let ahead = ahead::Ahead::new().map_err(|error| {
            fail(FailureKind::Limit, format!("no descriptor left for an alarm: {error}"))
        })?;
        // The socket last of the two: an agent that does not start leaves none behind.
        let remote = listen(&config)?;
        let listeners =
            Listeners { local: local::bind(&config.socket, config.socket_group)?, remote };
        let spawned = keeper::Client::spawn(&config.program, config.own_directory.as_deref());
        let keeper = spawned.map_err(|error| {
            let _ = std::fs::remove_file(&config.socket);
            fail(FailureKind::Missing, format!("the keeper process could not be started: {error}"))
        })?;
        let exports = Exports::new();
        let peers = peers::Peers::new(config.secrets.clone(), config.peer_deadline);
        let pages = PageService::bounded(
            exports.clone(),
            config.busy_poll,
            config.limits.readers(),
            config.encryption,
        );
        let (rdma, fallbacks) = start_rdma(&config, &pages, &peers).inspect_err(|_| {
            let _ = std::fs::remove_file(&config.socket);
        })?;
        let copies = copies(&config, rdma.as_ref());
        let agent = Arc::new(Agent {
            pages,
            tcp: TcpFabric::encrypting(peers.clone(), Limits::default(), config.encryption),
            local: LocalFabric::new(exports.clone()),
            exports,
            buffers: rdma.as_ref().map_or_else(Buffers::new, |rdma| rdma.buffers.clone()),
            rdma,
            copies,
            peers,
            peers_here: Arc::default(),
            strangers: Arc::default(),
            images_of_peers: Arc::default(),
            seeds: Arc::default(),
            hosting: hosting::Hosting::default(),
            ahead,
            children: Arc::default(),
            requests: requests::Requests::default(),
            traces: traces::Traces::default(),
            digests: files::Digests::default(),
            shared_files: shared_files::SharedFiles::default(),
            scanned: publish::ScannedTexts::default(),
            keeper,
            mounts: OnceLock::new(),
            counters: counters::Counters::new(fallbacks),
            ending: crossbeam_channel::bounded(1),
            leaves_seeds: AtomicBool::new(false),
            config,
        });
        if let Some(own) = &agent.config.advertise {
            agent.local.set_own_address(own.clone());
        }
        // FUSE is looked for now, so that the first resume does not pay for it and the log says early
        // what this host cannot do; an agent without it still keeps seeds.
        if let Err(failure) = agent.mounts() {
            tracing::warn!(%failure, "no child can be resumed on this host");
        }
        // Before anybody is answered: who READs a seed meanwhile waits, and is not told that it is gone.
        agent.adopt_and_outlive();
        Ok((agent, listeners))
    }

    /// Serves until [`Self::shut_down`] is called.
    pub fn run(self: &Arc<Self>, listeners: Listeners) {
        let Listeners { local, remote } = listeners;
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(work) {
                tracing::error!(name, %error, "a thread could not be started");
                self.shut_down();
            }
        };
        let agent = self.clone();
        spawn("local-socket", Box::new(move || local::serve(&agent, &local)));
        if let Some(listener) = remote {
            let agent = self.clone();
            spawn("port", Box::new(move || remote::serve(&agent, &listener)));
        }
        let agent = self.clone();
        spawn("digests", Box::new(move || agent.digest_own_libraries()));
        if self.config.clones_ahead > 0 {
            let agent = self.clone();
            spawn("ahead", Box::new(move || agent.ahead.run(agent.config.clones_ahead)));
        }
        let agent = self.clone();
        spawn("exits", Box::new(move || agent.take_exits()));
        let ending = self.ending.1.clone();
        while ending.recv_timeout(SWEEP_TICK).is_err() {
            self.hosting.sweep(self.config.linger);
        }
        if !self.leaves_seeds.load(Ordering::Acquire) {
            self.leave_nothing();
        }
        self.children.kill_all();
        self.hosting.sweep(Duration::ZERO);
        let _ = std::fs::remove_file(&self.config.socket);
    }

    /// Ends the agent: children are killed, seeds end with their connections.
    pub fn shut_down(&self) {
        let _ = self.ending.0.try_send(());
    }

    /// Ends the agent for another one to follow at once: children are killed, seeds wait for it.
    pub fn hand_over(&self) {
        self.leaves_seeds.store(true, Ordering::Release);
        self.shut_down();
    }

    fn take_exits(&self) {
        for exit in self.keeper.exits() {
            if libc::WIFSIGNALED(exit.status) && libc::WTERMSIG(exit.status) == libc::SIGBUS {
                // Its cause, if that is a page, is on its way by another thread.
                await_told(LOSS_PATIENCE);
            }
            self.children.ended(exit.pid, exit.status);
            self.hosting.sweep(self.config.linger);
        }
        tracing::error!("the keeper is gone, and with it all children of this host");
        self.shut_down();
    }

    /// Whether a handle's agent is this one.
    fn is_own(&self, agent: Option<&str>) -> bool {
        agent.is_none() || agent == self.config.advertise.as_deref()
    }

    fn fabrics(&self) -> Vec<Arc<dyn Fabric>> {
        let mut fabrics: Vec<Arc<dyn Fabric>> = vec![self.local.clone()];
        fabrics.extend(self.rdma.iter().flat_map(|rdma| rdma.fabrics.iter().cloned()));
        fabrics.push(self.tcp.clone());
        fabrics
    }

    fn mounts(&self) -> Result<&Mounts, Failure> {
        let made = self.mounts.get_or_init(|| {
            Mounts::new(READY_MOUNTS).map_err(|error| fail(FailureKind::Missing, error.to_string()))
        });
        made.as_ref().map_err(Clone::clone)
    }

    fn lost_page_sink(&self) -> Arc<dyn Fn(PageLost) + Send + Sync> {
        let children = self.children.clone();
        Arc::new(move |lost| {
            let text = hosted::lost_page_text(&lost);
            tracing::error!(pid = lost.pid, "{text}");
            children.page_lost(lost.pid, &text);
        })
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let (children, bytes_private) = self.children.count_with_private_bytes();
        let (seeds, leases_given) = self.seeds.count_with_leases();
        Stats {
            children,
            seeds,
            leases_given,
            leases_held: self.hosting.leases(),
            bytes_private,
            ..self.counters.stats(&self.pages, self.rdma.as_ref())
        }
    }
}

/// Where seeds are copied to on a host that others reach by tcp alone; `None`: they are read as they are.
fn copies(config: &Config, rdma: Option<&rdma::Rdma>) -> Option<Arena> {
    let has_arena = rdma.is_some_and(|rdma| rdma.served.is_some());
    let limits = ArenaLimits { ready: 0, most: config.rdma.arena.most };
    if has_arena || config.advertise.is_none() || limits.most == 0 {
        return None;
    }
    Arena::start(Arc::new(HostMemory), limits)
        .inspect_err(|error| tracing::warn!(%error, "seeds are read as they are, not copied"))
        .ok()
}

/// Whether there is room for descriptors beyond those of an agent at rest.
fn check_open_files() -> Result<(), Failure> {
    let limits = crate::sys::limits::of(std::process::id());
    let limits = limits.map_err(|error| fail(FailureKind::Missing, error.to_string()))?;
    let (soft, _) = limits[libc::RLIMIT_NOFILE as usize];
    if soft >= MIN_OPEN_FILES {
        return Ok(());
    }
    let text = format!(
        "this agent may have only {soft} files open and needs {MIN_OPEN_FILES}: raise the limit (ulimit -n) of \
         whoever starts it"
    );
    Err(fail(FailureKind::Limit, text))
}

/// The card, if one is wanted and there is one, and the number of fall-backs on the way to what is used.
fn start_rdma(
    config: &Config,
    pages: &Arc<PageService>,
    peers: &Arc<peers::Peers>,
) -> Result<(Option<rdma::Rdma>, u64), Failure> {
    // An agent of this host alone has nobody to READ from; what a card READs is not encrypted.
    if config.secrets.is_empty() || config.encryption == Encryption::Demanded {
        return Ok((None, 0));
    }
    rdma::Rdma::start(config, pages, peers.clone()).map_err(|reason| {
        fail(FailureKind::Missing, format!("RDMA is required and cannot be used: {reason}"))
    })
}

fn listen(config: &Config) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = config.listen else { return Ok(None) };
    TcpListener::bind(address).map(Some).map_err(|error| {
        let text = format!(
            "the agent cannot listen on {address}: {error}; give another one with --listen"
        );
        fail(FailureKind::Missing, text)
    })
}

/// Lets the silent, dead peer of a lease be noticed, also while something is on its way to it.
fn keep_lease_alive(stream: &TcpStream) {
    keep_alive(stream);
    if let Err(error) = crate::sys::socket::give_up_after(stream, LEASE_SILENCE_MS) {
        tracing::debug!(%error, "a limit of a lease's silence could not be set");
    }
}

/// Lets a silent, dead peer be noticed.
fn keep_alive(stream: &TcpStream) {
    if let Err(error) = crate::sys::socket::keep_alive(stream, KEEP_ALIVE_S) {
        tracing::debug!(%error, "keep-alive could not be set");
    }
}
