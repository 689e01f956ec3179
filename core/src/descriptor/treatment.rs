//! What a process has asked of the kernel for itself, and few processes do: section 27, which is left out where it has
//! asked for nothing.

use serde::{Deserialize, Serialize};

/// Kinds of speculation that prctl(2) knows: store bypass, indirect branches, flushes of the first cache.
pub const SPECULATIONS: usize = 3;
/// PR_SPEC_DISABLE, PR_SPEC_FORCE_DISABLE, PR_SPEC_DISABLE_NOEXEC.
const DISABLED: u32 = 1 << 2 | 1 << 3 | 1 << 4;
/// PR_SPEC_ENABLE, which is what a process asks for whose first cache is to be flushed (PR_SPEC_L1D_FLUSH).
const ENABLED: u32 = 1 << 1;
const L1D_FLUSH: usize = 2;

/// Of the thread that has called prepare, and in children of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Treatment {
    /// PR_GET_MEMORY_MERGE.
    pub merges_memory: bool,
    /// PR_GET_IO_FLUSHER.
    pub is_io_flusher: bool,
    /// How each kind of speculation has been disabled, or flushes enabled; 0: it is as the host has it.
    pub speculation: [u32; SPECULATIONS],
}

impl Treatment {
    /// What PR_GET_SPECULATION_CTRL says of a kind, if the process has decided that there is to be less of it.
    pub fn decided(kind: usize, answer: u64) -> u32 {
        const BY_PROCESS: u64 = 1;
        let answer = if answer & BY_PROCESS == 0 { 0 } else { answer };
        u32::try_from(answer).unwrap_or(0) & if kind == L1D_FLUSH { ENABLED } else { DISABLED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_process_has_decided_is_told() {
        // Enabled and disabled by the process; disabled by the host; not affected.
        for (answer, told) in [(3, 0), (5, 4), (9, 8), (17, 16), (4, 0), (0, 0), (u64::MAX, 0)] {
            assert_eq!(Treatment::decided(0, answer), told, "{answer}");
        }
        assert_eq!([3, 5, 2].map(|answer| Treatment::decided(2, answer)), [2, 0, 0]);
    }
}
