//! What else a process was when it froze: state that the kernel keeps for it and that a template is given
//! again. Section 20, which is left out where all of it is as any new process has it.

use serde::{Deserialize, Serialize};

use super::thread::Sched;

/// PR_MCE_KILL_DEFAULT.
pub const MEMORY_FAILURE: u32 = 2;
/// coredump_filter of whoever has not set it.
pub const CORE_FILTER: u32 = 0x33;
/// PR_SET_TIMERSLACK of whoever has not set it.
pub const TIMER_SLACK_NS: u64 = 50_000;

/// Process state that few programs change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The clocks of the process when it froze.
    pub frozen_at: Clocks,
    /// PR_GET_DUMPABLE is not 1.
    pub is_undumpable: bool,
    /// PR_GET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// PR_GET_THP_DISABLE: 0, or 1 with its flags.
    pub thp_disable: u32,
    /// PR_GET_MDWE.
    pub deny_write_execute: u32,
    /// PR_GET_KEEPCAPS.
    pub keeps_capabilities: bool,
    /// PR_MCE_KILL_GET, if it is not PR_MCE_KILL_DEFAULT.
    pub memory_failure: Option<u32>,
    /// /proc/self/oom_score_adj.
    pub oom_score: i32,
    /// /proc/self/coredump_filter, if it is not the kernel's own.
    pub core_filter: Option<u32>,
    /// MEMBARRIER_CMD_REGISTER_* that have been made.
    pub membarrier: u32,
    /// Dynamic components of the vector state that arch_prctl(2) has permitted: bit 18 is AMX.
    pub vector_permits: u64,
    /// Of the one thread that is no whole process; those of a whole process stand in [`super::Whole`].
    pub sched: Sched,
    /// One for each of `Descriptor::threads`, in their order, or none: all are as any.
    pub threads: Vec<ThreadState>,
}

/// CLOCK_MONOTONIC and CLOCK_BOOTTIME, or a difference of them, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// CLOCK_MONOTONIC.
    pub monotonic_ns: i64,
    /// CLOCK_BOOTTIME.
    pub boottime_ns: i64,
}

impl Clocks {
    /// How far `self` is ahead of `other`.
    pub fn ahead_of(self, other: Clocks) -> Clocks {
        Clocks {
            monotonic_ns: self.monotonic_ns.wrapping_sub(other.monotonic_ns),
            boottime_ns: self.boottime_ns.wrapping_sub(other.boottime_ns),
        }
    }

    /// Both, moved by `offset`.
    pub fn moved_by(self, offset: Clocks) -> Clocks {
        Clocks {
            monotonic_ns: self.monotonic_ns.wrapping_add(offset.monotonic_ns),
            boottime_ns: self.boottime_ns.wrapping_add(offset.boottime_ns),
        }
    }
}

/// A thread's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadState {
    /// ioprio_get(2); 0: it follows from how the thread is scheduled.
    pub io_priority: u32,
    /// PR_GET_TIMERSLACK.
    pub timer_slack_ns: u64,
    /// Its frame holds AMX tiles.
    pub has_tiles: bool,
}

impl Default for ThreadState {
    fn default() -> Self {
        ThreadState { io_priority: 0, timer_slack_ns: TIMER_SLACK_NS, has_tiles: false }
    }
}
