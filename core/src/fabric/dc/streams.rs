//! Streams of a DCI, where a card isolates their failures: one for each target that has READs in flight, as long
//! as there are enough.

use super::link::{Goal, Target};
use crate::fabric::MAX_IN_FLIGHT;
use crate::fabric::landings::Landings;

/// log2 of the streams that an initiator is asked for: as many as a queue has READs in flight.
pub(super) const MAX_LOG_STREAMS: u8 = 6;

const _: () = assert!(1 << MAX_LOG_STREAMS >= MAX_IN_FLIGHT && 1 << MAX_LOG_STREAMS <= u64::BITS);

/// What has failed of an initiator: its streams, a bit each. Without streams the first stands for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wounds(u64);

impl Wounds {
    pub(super) fn add(&mut self, stream: u16) {
        self.0 |= 1u64.checked_shl(u32::from(stream)).unwrap_or(0);
    }

    pub(super) fn streams(self) -> impl Iterator<Item = u16> {
        (0..1 << MAX_LOG_STREAMS).filter(move |stream| self.0 & (1 << stream) != 0)
    }
}

/// Gives each READ that waits its stream, of `count`.
pub(super) fn assign<W>(landings: &mut Landings<Target<W>>, count: u16) {
    if count == 0 {
        return;
    }
    let (posted, waiting) = landings.aims();
    let in_use = |target: &Target<W>| (target.goal(), target.stream);
    let mut taken = posted.clone().fold(0, |taken, target| taken | 1u64 << target.stream);
    let mut last = None;
    for target in waiting {
        let goal = target.goal();
        target.stream = match last {
            Some((same, stream)) if same == goal => stream,
            _ => pick(goal, posted.clone().map(in_use), taken, count),
        };
        taken |= 1 << target.stream;
        last = Some((goal, target.stream));
    }
}

/// The stream that its goal has already, else one that is free, else one that it shares.
fn pick(goal: Goal, mut in_use: impl Iterator<Item = (Goal, u16)>, taken: u64, count: u16) -> u16 {
    let own = in_use.find(|(other, _)| *other == goal).map(|(_, stream)| stream);
    let free = || (0..count).find(|stream| taken & (1 << stream) == 0);
    let shared = || u16::try_from(goal.dctn.number() % u32::from(count)).unwrap_or(0);
    own.or_else(free).unwrap_or_else(shared)
}

#[cfg(test)]
mod tests {
    use super::super::address_book::Place;
    use super::*;
    use crate::verbs::Dctn;

    fn goal(dctn: u32) -> Goal {
        Goal { place: Place { gid: [1; 16], lid: 0 }, dctn: Dctn::new(dctn).unwrap() }
    }

    #[test]
    fn a_goal_keeps_its_stream_and_a_new_one_gets_one_that_is_free() {
        let in_use = [(goal(7), 0), (goal(9), 2)];
        assert_eq!(pick(goal(9), in_use.into_iter(), 0b101, 4), 2);
        assert_eq!(pick(goal(8), in_use.into_iter(), 0b101, 4), 1);
        // The same number on another host is another goal.
        let elsewhere = Goal { place: Place { gid: [2; 16], lid: 0 }, ..goal(9) };
        assert_eq!(pick(elsewhere, in_use.into_iter(), 0b111, 4), 3);
    }

    #[test]
    fn where_all_are_taken_one_is_shared() {
        let full = (0..4).map(|at| (goal(100 + u32::from(at)), at));
        assert_eq!(pick(goal(6), full, 0b1111, 4), 2);
    }

    #[test]
    fn wounds_name_the_streams_that_failed() {
        let mut wounds = Wounds::default();
        [3, 63, 3, 200].into_iter().for_each(|stream| wounds.add(stream));
        assert_eq!(wounds.streams().collect::<Vec<_>>(), [3, 63]);
    }
}
