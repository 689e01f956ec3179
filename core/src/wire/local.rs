//! What a process says to the agent of its host, over a unix stream socket.
//!
//! Each message is one frame (see `frame`); descriptors ride on its first byte by SCM_RIGHTS. A connection
//! carries one request, its answer and, after `Resume`, the events of the children that it started, until
//! either side closes it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::id_map::IdMap;
use super::listen::Listen;
use super::namespaces::Namespace;
use super::traced::{TraceOf, Traced};
use crate::id::{ChildId, Handle, PrepareToken, SeedId};
use crate::times::Times;

/// A request to the local agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LocalRequest {
    /// From a frozen seed. Descriptors: its /proc/self/{mem, pagemap, smaps}. The connection stays open:
    /// when the agent closes it, the seed ends.
    Report {
        /// Shared with the parent.
        token: PrepareToken,
        /// `prepare::report` bytes.
        report: Vec<u8>,
    },
    /// From the parent: blocks until the seed of this token is published. Answer: `Published`.
    Await {
        /// Given to `prepare`.
        token: PrepareToken,
    },
    /// Start children. Descriptors: stdin, stdout, stderr for them. Answer: `Started`, then `Exited` for
    /// each child. Closing the connection leaves the children alone.
    Resume(Box<ResumeRequest>),
    /// Send a signal to a child. Answer: `Done`.
    Kill {
        /// Which.
        child: ChildId,
        /// Where it runs; `None` is here.
        host: Option<String>,
        /// signal(7) number.
        signal: i32,
    },
    /// End a seed. Answer: `Done`.
    Drop {
        /// Which.
        seed: SeedId,
        /// How.
        how: DropMode,
    },
    /// End the seed of a prepare call. Answer: `Done`.
    DropPrepared {
        /// Given to `prepare`.
        token: PrepareToken,
    },
    /// All seeds and children here. Answer: `Listing`.
    List,
    /// The descriptor of a seed. Answer: `Inspected`.
    Inspect {
        /// A seed of any host.
        handle: Option<Handle>,
        /// A seed of this host.
        seed: Option<SeedId>,
    },
    /// The agent's counters. Answer: `Stats`.
    Stats,
    /// End the agent, its seeds and children. Answer: `Done`.
    Shutdown,
    /// End the seed of a handle, if it is this agent's and the key is right. Answer: `Done`.
    DropByHandle {
        /// Whose.
        handle: Handle,
        /// How.
        how: DropMode,
    },
    /// Record what an image does. Answer: `Tracing`, and `Traced` once the caller has shut down its sending half; one that
    /// closes the connection ends the record.
    Trace(TraceOf),
}

/// Children that one request may ask for: half of what one host takes.
pub const MAX_COUNT: u32 = 10_000;

/// What to start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResumeRequest {
    /// Of which seed.
    pub handle: Handle,
    /// On which host: `None` is the agent's own, else "host" or "host:port".
    pub host: Option<String>,
    /// How many.
    pub count: u32,
    /// For `Resumed::payload`.
    pub payload: Vec<u8>,
    /// Environment changes; `None` unsets.
    pub environment: Vec<(String, Option<String>)>,
    /// The seed ends with the last of these children (`fork`).
    pub seed_ends_with_children: bool,
    /// Asked twice with one id, the children are started once.
    pub request_id: u64,
    /// Children of a whole process get new process and thread ids instead of those that it had.
    pub new_ids: bool,
    /// Where sockets listen that the seed's did; others are there, and no connection comes.
    pub listen: Vec<Listen>,
    /// What their CLOCK_MONOTONIC and CLOCK_BOOTTIME tell.
    pub clock: Clock,
    /// Their working directory, on their host; `None` is the seed's, if that is there.
    pub cwd: Option<String>,
    /// What they find as their host's name; `None` is the host's own.
    pub hostname: Option<String>,
    /// The control group that they enter, a directory of their host; `None` is the agent's.
    pub cgroup: Option<String>,
    /// Namespaces of their host that they join; of other kinds they are in the agent's.
    pub namespaces: Vec<Namespace>,
    /// What /proc/self/cmdline tells in them, its first word included; empty: as in the seed.
    pub argv: Vec<String>,
    /// Ids of a user namespace that they are in; empty: their agent's.
    pub id_map: Vec<IdMap>,
}

/// What clocks tell in children: CLOCK_MONOTONIC and CLOCK_BOOTTIME, and all timers by them. CLOCK_REALTIME is their
/// host's, whatever is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Clock {
    /// What they tell in their parent now: time has passed since prepare, and what was to happen meanwhile happens at
    /// once.
    #[default]
    Live,
    /// They go on from what they told at prepare: every timer has left what it had left then. Each resume makes a
    /// template for it.
    Frozen,
}

/// A name of a clock that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no choice of a clock: live or frozen")]
pub struct ClockError(pub String);

impl FromStr for Clock {
    type Err = ClockError;

    fn from_str(text: &str) -> Result<Self, ClockError> {
        match text {
            "live" => Ok(Clock::Live),
            "frozen" => Ok(Clock::Frozen),
            other => Err(ClockError(other.to_owned())),
        }
    }
}

/// Bytes that a child's argv may have, each of its texts with a zero byte: execve(2) takes as much of one of them.
pub const MAX_ARGV_BYTES: usize = 128 << 10;

/// As it lies in a child's memory.
///
/// # Errors
/// It cannot be one; the text says why.
pub fn argv_bytes(argv: &[String]) -> Result<Vec<u8>, String> {
    if argv.iter().any(|text| text.contains('\0')) {
        return Err("a text of argv holds a zero byte, which ends it".to_owned());
    }
    let bytes: Vec<u8> = argv.iter().flat_map(|text| text.bytes().chain([0])).collect();
    match bytes.len() {
        0..=MAX_ARGV_BYTES => Ok(bytes),
        len => Err(format!(
            "argv has {len} bytes, above the limit of {MAX_ARGV_BYTES}: pass what is large as the payload"
        )),
    }
}

/// A host's name is no longer (HOST_NAME_MAX).
pub const MAX_HOSTNAME_BYTES: usize = 64;

/// How a seed ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropMode {
    /// No new children; ends after the last one.
    AfterChildren,
    /// READs fail from now on; children that touch a missing page die with SIGBUS.
    Revoke,
}

/// What the agent answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LocalReply {
    /// The seed can be resumed.
    Published {
        /// Its handle.
        handle: Handle,
    },
    /// The children run.
    Started {
        /// In order.
        children: Vec<StartedChild>,
        /// How this resume went.
        report: StartReport,
    },
    /// A child has ended.
    Exited {
        /// Which.
        child: ChildId,
        /// Its end.
        end: ChildEnd,
    },
    /// The request is carried out.
    Done,
    /// Answer to `List`.
    Listing(Listing),
    /// Answer to `Inspect`: `descriptor::codec` bytes.
    Inspected {
        /// The descriptor.
        descriptor: Vec<u8>,
    },
    /// Answer to `Stats`.
    Stats(Box<Stats>),
    /// The request failed.
    Failed(Failure),
    /// The record has begun.
    Tracing {
        /// The image was here before: what had come by then is not among the misses.
        was_here: bool,
    },
    /// The record.
    Traced(Traced),
}

/// A child that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedChild {
    /// Its name.
    pub child: ChildId,
    /// Its process id, as its host's agent sees it.
    pub pid: u32,
}

/// How a resume went, for people and benchmarks. Times are CLOCK_REALTIME ns of the child's host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartReport {
    /// The host that runs the children.
    pub host: String,
    /// When the request reached that host's agent.
    pub requested_at_ns: u64,
    /// When the last child was cloned.
    pub started_at_ns: u64,
    /// Bytes of the descriptor; 0 if it was there already.
    pub descriptor_bytes: u64,
    /// Pages of the seed in all.
    pub pages_total: u64,
    /// Whether this resume made the template.
    pub new_template: bool,
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChildEnd {
    /// exit(3) status.
    Exited(i32),
    /// Killed by a signal.
    Signalled(i32),
    /// A page could not be had; the text says which seed, host and address. The child got SIGBUS.
    PageLost(String),
    /// Its host's agent is gone; nothing is known.
    HostLost(String),
}

/// A failure with a fixed kind: SDKs map kinds to exceptions and codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Kind.
    pub kind: FailureKind,
    /// What failed, on what, and what the user can do.
    pub message: String,
}

/// Kinds of failure; the order is part of the protocol, new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FailureKind {
    /// No such seed: dropped, ended or never there.
    SeedGone,
    /// The fork key is wrong or missing.
    KeyRefused,
    /// The process cannot be a seed.
    NotForkable,
    /// This host cannot run the seed.
    HostUnfit,
    /// The other host does not answer.
    Unreachable,
    /// The cluster secret is missing or differs.
    Secret,
    /// Bytes that break the protocol or the format, or another version.
    Protocol,
    /// A bad argument.
    Argument,
    /// A limit is reached.
    Limit,
    /// The host lacks FUSE, a capability or a kernel feature.
    Missing,
    /// No such child.
    ChildGone,
    /// Something else; the message tells.
    Internal,
}

/// Seeds and children of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Seeds that live here.
    pub seeds: Vec<SeedLine>,
    /// Children that run here.
    pub children: Vec<ChildLine>,
}

/// A seed, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedLine {
    /// Its id.
    pub seed: SeedId,
    /// Its process id.
    pub pid: u32,
    /// Its parent's process id.
    pub parent_pid: u32,
    /// The parent's program.
    pub exe: String,
    /// Generation of its children.
    pub generation: u64,
    /// Pages that it owns.
    pub pages: u64,
    /// `published`, `dropping` or `publishing`.
    pub state: String,
    /// Hosts that hold it (children alive there).
    pub holders: u32,
    /// Seconds since prepare.
    pub age_s: u64,
}

/// A child, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildLine {
    /// Its id.
    pub child: ChildId,
    /// Its process id.
    pub pid: u32,
    /// Its seed.
    pub seed: SeedId,
    /// Seconds since its start.
    pub age_s: u64,
}

/// Counters of an agent since its start, and at their end what there is now. Images that rehearsals had count nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// FUSE read requests answered.
    pub misses: u64,
    /// Pages pulled by READs.
    pub pages_pulled: u64,
    /// Of these, pages pulled by an RDMA card.
    pub pages_rdma: u64,
    /// READs that were posted to the card.
    pub rdma_reads: u64,
    /// Doorbells that took them there: what is posted at once shares one.
    pub rdma_doorbells: u64,
    /// Pages pushed into images here.
    pub pages_pushed: u64,
    /// Pages taken from identical local files.
    pub pages_from_files: u64,
    /// READs posted.
    pub reads: u64,
    /// READs that failed.
    pub reads_failed: u64,
    /// Times that a second way to bytes was taken: another route, or the owner where a local file failed.
    pub fallbacks: u64,
    /// 1 if the agent has another fabric than it was told to prefer.
    pub fabric_fallbacks: u64,
    /// Misses that ended as SIGBUS.
    pub pages_lost: u64,
    /// Children started.
    pub children_started: u64,
    /// Of these, whole processes that got new ids because this host refused them theirs.
    pub children_renumbered: u64,
    /// Open files of seeds with a path that was not there when a seed came to live here: their numbers answer EBADF.
    pub files_missing: u64,
    /// Seeds published.
    pub seeds_published: u64,
    /// READs served to others.
    pub reads_served: u64,
    /// Bytes served to others.
    pub bytes_served: u64,
    /// 1 if READ streams are encrypted whatever other hosts want.
    pub encrypt_reads: u64,
    /// READ streams that other hosts have to this one, in plain.
    pub streams_plain: u64,
    /// Encrypted ones.
    pub streams_encrypted: u64,
    /// DC initiators (DCIs) of this host, for whatever number of seeds and peers.
    pub dc_initiators: u64,
    /// Peers to which DC READs have a way (address handles).
    pub dc_peers: u64,
    /// READs over DC that another's failure has flushed, and that were posted again.
    pub dc_flushed: u64,
    /// Times that a DC initiator was taken from a failure back into use.
    pub dc_mended: u64,
    /// DC targets (DCTs) that are ready for new seeds.
    pub dc_targets_ready: u64,
    /// Images that are held now.
    pub images: u64,
    /// Children that run here.
    pub children: u64,
    /// Seeds that live here.
    pub seeds: u64,
    /// Leases that other hosts have of these.
    pub leases_given: u64,
    /// Leases of other hosts' seeds.
    pub leases_held: u64,
    /// Bytes of images that have come here, once for all children.
    pub bytes_shared: u64,
    /// Bytes that children have to themselves.
    pub bytes_private: u64,
    /// Bytes of images that are with their seeds alone.
    pub bytes_remote: u64,
    /// From the arrival of each miss to its answer.
    pub miss_times: Times,
}

impl Stats {
    /// Each number with its name: the counters, and two percentiles of [`Stats::miss_times`].
    pub fn by_name(&self) -> Vec<(&'static str, u64)> {
        let percentile = |percent| self.miss_times.percentile_ns(percent);
        let percentiles = [("miss_p50_ns", percentile(50)), ("miss_p99_ns", percentile(99))];
        self.counters().into_iter().chain(percentiles).collect()
    }

    /// Each counter with its name, in the order above. One that is missing here does not compile.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        macro_rules! listed {
            ($($name:ident)*) => {{
                let Stats { miss_times: _, $($name),* } = self;
                vec![$((stringify!($name), *$name)),*]
            }};
        }
        listed! {
            misses pages_pulled pages_rdma rdma_reads rdma_doorbells pages_pushed
            pages_from_files reads reads_failed fallbacks fabric_fallbacks pages_lost
            children_started children_renumbered files_missing seeds_published reads_served
            bytes_served encrypt_reads streams_plain streams_encrypted dc_initiators dc_peers
            dc_flushed dc_mended dc_targets_ready images children seeds leases_given leases_held
            bytes_shared bytes_private bytes_remote
        }
    }
}
