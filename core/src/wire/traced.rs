//! What a trace of an image tells: each miss, and each page that came unasked.

use serde::{Deserialize, Serialize};

use crate::descriptor::SeedRange;
use crate::id::{ChildId, Handle};

/// What one trace holds; what happens later is counted and not kept. 3 MiB of an agent's memory, and a quarter of a frame.
pub const MAX_TRACED: usize = 64 << 10;
/// Traces of one host at a time, for the memory that each takes.
pub const MAX_TRACES: usize = 16;

/// Whose image is traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TraceOf {
    /// The image of this seed on this host, from its first page on if it is not here yet.
    Seed(Handle),
    /// The image of a child of this host.
    Child(ChildId),
}

/// A trace that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// CLOCK_REALTIME ns when it began.
    pub began_at_ns: u64,
    /// In the order in which they were answered.
    pub events: Vec<TracedPages>,
    /// Events beyond [`MAX_TRACED`].
    pub left_out: u64,
    /// The VMAs in which they lie, ascending.
    pub vmas: Vec<TracedVma>,
}

/// Neighbouring pages that came in one way at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedPages {
    /// Since the trace began.
    pub at_ns: u64,
    /// From the arrival of the miss to its answer; 0 where nobody waited.
    pub took_ns: u64,
    /// Which.
    pub range: SeedRange,
    /// The thread that waited, as this host's agent sees it; 0: nobody.
    pub pid: u32,
    /// How they came.
    pub way: Way,
}

/// How pages came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Way {
    /// Unasked, behind the descriptor.
    Push,
    /// Read before anybody missed them.
    Ahead,
    /// Missed, and read ahead already or on their way.
    Hit,
    /// Missed, and READ of their owner.
    Read,
    /// Missed, and taken from an identical file of this host.
    File,
    /// Missed, and all zero.
    Zero,
    /// Missed, and not to be had: SIGBUS.
    Lost,
}

impl Way {
    /// All.
    pub const ALL: [Way; 7] =
        [Way::Push, Way::Ahead, Way::Hit, Way::Read, Way::File, Way::Zero, Way::Lost];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Way::Push => "push",
            Way::Ahead => "ahead",
            Way::Hit => "hit",
            Way::Read => "read",
            Way::File => "file",
            Way::Zero => "zero",
            Way::Lost => "lost",
        }
    }

    /// Whether a thread waited for it.
    pub fn is_miss(self) -> bool {
        !matches!(self, Way::Push | Way::Ahead)
    }
}

/// A VMA, by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedVma {
    /// Where it lies.
    pub range: SeedRange,
    /// A path, `[heap]`, `[stack]`, anonymous, ...
    pub name: String,
}
