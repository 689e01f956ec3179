//! The clock of a template's children.

use crate::descriptor::Clocks;
use crate::sys::clock;

/// What children have for a clock.
#[derive(Debug)]
pub(super) struct ChildClock {
    /// The seed's when it froze.
    pub(super) frozen_at: Clocks,
    /// How far theirs is to be ahead of this host's.
    pub(super) offset: Clocks,
    /// Why it is this host's instead.
    pub(super) refused: Option<String>,
}

impl ChildClock {
    /// What has passed since the freeze on the clock that they are to have, ns.
    pub(super) fn passed_ns(&self) -> u64 {
        // A descriptor that does not tell.
        if self.frozen_at == Clocks::default() {
            return 0;
        }
        let passed = clock::now().moved_by(self.offset).ahead_of(self.frozen_at);
        u64::try_from(passed.monotonic_ns).unwrap_or(0)
    }

    /// What the clock has jumped by, seen from a child.
    pub(super) fn delta_ns(&self) -> i64 {
        if self.refused.is_some() { self.offset.monotonic_ns.wrapping_neg() } else { 0 }
    }
}
