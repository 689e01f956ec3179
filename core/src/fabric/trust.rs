//! How far a seed's DC target is trusted by this host.
//!
//! ```text
//!             silent               probed without an answer: the pause doubles
//!   Healthy ----------> Suspect ---.------------------.
//!      ^                  |  ^     |                  |
//!      `----- answered ---'  `-----+---- the pause ---'     meanwhile it is resting: tcp has its pages
//! ```
//! One READ of a target that is gone stops all that stand behind it on its initiator, for as long as a card
//! is patient, and then flushes them. So a target that has failed once is READ apart from the others, one
//! READ in each pause, until it answers.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// From a first failure to the next READ: long enough that a target which is gone costs little, short enough
/// that a link which was down for a moment is used again soon.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
/// The pause grows no longer.
const PAUSE_LAST: Duration = Duration::from_secs(8);

/// See the module's comment.
#[derive(Debug, Default)]
pub(super) struct Trust(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    /// When it may be READ again; none: at any time.
    not_before: Option<Instant>,
}

/// How a target may be READ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Beside all others.
    Healthy,
    /// By this one READ, apart from those that are healthy.
    Suspect,
    /// Not now.
    Resting,
}

impl Trust {
    /// How it may be READ now. `Suspect` is said once in each pause.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let mut state = self.0.lock();
        match state.not_before {
            None => Standing::Healthy,
            Some(then) if then > now => Standing::Resting,
            Some(_) => {
                state.not_before = Some(now + pause(state.failures));
                Standing::Suspect
            }
        }
    }

    /// A READ of it had no answer. READs that were under way together count as one failure.
    pub(super) fn failed(&self, now: Instant, was_probe: bool) {
        let mut state = self.0.lock();
        if was_probe || state.failures == 0 {
            state.failures = state.failures.saturating_add(1);
            state.not_before = Some(now + pause(state.failures));
        }
    }

    /// A READ of it was answered.
    pub(super) fn answered(&self) {
        let mut state = self.0.lock();
        if state.failures > 0 {
            *state = State::default();
        }
    }
}

fn pause(failures: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(PAUSE_LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_failed_is_probed_once_in_each_pause_and_pauses_end_growing() {
        let trust = Trust::default();
        let mut now = Instant::now();
        assert_eq!(trust.standing(now), Standing::Healthy);
        // Three READs were under way: one failure.
        (0..3).for_each(|_| trust.failed(now, false));
        for pause_ms in [250, 500, 1000, 2000, 4000, 8000, 8000, 8000] {
            let pause = Duration::from_millis(pause_ms);
            assert_eq!(trust.standing(now + pause - Duration::from_nanos(1)), Standing::Resting);
            now += pause;
            assert_eq!(trust.standing(now), Standing::Suspect, "{pause_ms} ms");
            assert_eq!(trust.standing(now), Standing::Resting);
            trust.failed(now, true);
        }
    }

    #[test]
    fn an_answer_makes_it_as_good_as_new() {
        let trust = Trust::default();
        let now = Instant::now();
        (0..9).for_each(|_| trust.failed(now, true));
        trust.answered();
        assert_eq!(trust.standing(now), Standing::Healthy);
        trust.failed(now, false);
        assert_eq!(trust.standing(now + PAUSE_FIRST), Standing::Suspect);
    }

    #[test]
    fn a_probe_that_never_comes_back_is_followed_by_another() {
        let trust = Trust::default();
        let now = Instant::now();
        trust.failed(now, false);
        assert_eq!(trust.standing(now + PAUSE_FIRST), Standing::Suspect);
        assert_eq!(trust.standing(now + PAUSE_FIRST * 2), Standing::Suspect);
    }
}
