//! Signals that wait for a process or its threads to let them in. Section 25.

use serde::{Deserialize, Serialize};

use super::addr::SeedAddr;

/// Signals that a seed can have pending. The kernel finds each by counting from the first, so that many more would take
/// it long to tell of, while all threads stand.
pub const MAX_PENDING: usize = 4096;
/// Bytes of the kernel's siginfo_t.
pub const SIGNAL_INFO_BYTES: u64 = 128;

/// One queue of them, in the seed's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingSignals {
    /// Whose: of one of `Descriptor::threads`, by its id in the parent, or of the process: 0.
    pub tid: u32,
    /// The first one's siginfo_t; the others' lie behind it, in their order.
    pub at: SeedAddr,
    /// How many.
    pub count: u32,
}

/// Whether `queues` are those that a process can have, whose threads have such ids.
pub(super) fn check(
    queues: &[PendingSignals],
    is_thread: impl Fn(u32) -> bool,
) -> Result<(), &'static str> {
    let count: u64 = queues.iter().map(|queue| u64::from(queue.count)).sum();
    if count > MAX_PENDING as u64 {
        return Err("it has more signals than any seed has pending");
    }
    let mut owners: Vec<u32> = queues.iter().map(|queue| queue.tid).collect();
    owners.sort_unstable();
    if owners.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("a thread has two queues of signals");
    }
    if !owners.into_iter().all(|tid| tid == 0 || is_thread(tid)) {
        return Err("signals wait for a thread that is not there");
    }
    Ok(())
}
