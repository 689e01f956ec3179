//! What a whole process is beside its memory and threads.

use serde::{Deserialize, Serialize};

use super::addr::SeedAddr;

/// Number of signals the kernel knows (`_NSIG`).
pub const SIGNALS: usize = 64;
/// Number of resource limits (`RLIM_NLIMITS`).
pub const RESOURCE_LIMITS: usize = 16;

/// Process-wide state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id of the parent of the fork, on its host.
    pub parent_pid: u32,
    /// The fields of prctl(2) PR_SET_MM_MAP.
    pub layout: MmLayout,
    /// The auxiliary vector, raw (pairs of u64).
    pub auxv: Vec<u8>,
    /// rt_sigaction(2) of signals 1..=64.
    pub signal_actions: Vec<SignalAction>,
    /// Working directory.
    pub cwd: String,
    /// /proc/self/exe.
    pub exe: String,
    /// umask(2).
    pub umask: u32,
    /// personality(2).
    pub personality: u32,
    /// prlimit(2) soft and hard, by resource number.
    pub limits: Vec<(u64, u64)>,
    /// setitimer(2) ITIMER_REAL, VIRTUAL, PROF of the parent: interval s, us; value s, us. Those of a
    /// whole process run on in its children; any other child has none, as after fork(2).
    pub timers: Vec<[u64; 4]>,
}

/// struct prctl_mm_map, addresses alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmLayout {
    /// Code segment.
    pub code: (u64, u64),
    /// Data segment.
    pub data: (u64, u64),
    /// Heap: start and present end of brk(2).
    pub brk: (u64, u64),
    /// Initial stack pointer.
    pub stack: u64,
    /// argv strings.
    pub args: (u64, u64),
    /// environment strings.
    pub env: (u64, u64),
}

/// One kernel `struct sigaction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalAction {
    /// SIG_DFL (0), SIG_IGN (1) or an address.
    pub handler: u64,
    /// SA_* bits.
    pub flags: u64,
    /// The restorer's address.
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: u64,
}

/// One open file descriptor of the parent at prepare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFile {
    /// The number.
    pub fd: u32,
    /// open(2) flags, from fdinfo; O_CLOEXEC included.
    pub flags: u32,
    /// File offset.
    pub position: u64,
    /// What /proc/self/fd/N links to.
    pub link: String,
}

/// Where libmitosis in the child looks for what it has become; see `prepare::ResumeInfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeArea {
    /// Address of the `ResumeInfo`.
    pub addr: SeedAddr,
}
