//! A thread of a seed. Its registers, FPU state and signal mask are not here: they lie in the signal
//! frame on its own stack, put there by the kernel, and come back by `rt_sigreturn`.

use serde::{Deserialize, Serialize};

use super::addr::SeedAddr;

/// One parked thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Thread id in the parent.
    pub tid: u32,
    /// Where `rsp` must point for `rt_sigreturn`: the frame's first byte behind the return address.
    pub frame: SeedAddr,
    /// `set_tid_address(2)`: written by the kernel with the child's tid.
    pub tid_address: SeedAddr,
    /// The FS base: thread-local storage.
    pub fs_base: u64,
    /// The GS base.
    pub gs_base: u64,
    /// get_robust_list(2).
    pub robust_list: (SeedAddr, u64),
    /// The rseq(2) registration, if there was one.
    pub rseq: Option<Rseq>,
    /// sigaltstack(2): base, flags, size.
    pub alt_stack: (SeedAddr, u32, u64),
    /// PR_GET_NAME: up to 15 bytes.
    pub name: Vec<u8>,
}

/// An rseq(2) registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rseq {
    /// The area.
    pub addr: SeedAddr,
    /// Its length as registered.
    pub len: u32,
    /// The abort signature.
    pub signature: u32,
}

/// What a *whole process* adds to its threads: all of them live on in a child, where a child of fork mode
/// has its first one alone. Section 15.
///
/// In a child every thread but the first waits while the u32 at `gate` is 0, with its signals blocked;
/// whoever stores 1 there and wakes the futex lets them go on, each by `rt_sigreturn` on its frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    /// A u32 in the seed's memory that is 0 there, aligned.
    pub gate: SeedAddr,
    /// One for each of `Descriptor::threads`, in their order.
    pub sched: Vec<Sched>,
}

/// How the kernel schedules a thread: sched_getattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sched {
    /// SCHED_OTHER 0, FIFO 1, RR 2, BATCH 3, IDLE 5; a child runs a thread of DEADLINE as OTHER.
    pub policy: u32,
    /// Of FIFO and RR: 1 to 99.
    pub priority: u32,
    /// -20 to 19.
    pub nice: i32,
    /// SCHED_FLAG_*.
    pub flags: u64,
}
