//! Whose turn it is among queues that have another way: they do not wait for a connection, and nobody wakes
//! them.
//!
//! ```text
//!   refused --> [eldest wish, ..., youngest]      one a queue, in the order in which they came
//!   a turn ends --> one idle connection is kept for the eldest; others find it taken
//!                        |--its queue asks again--> has it
//!                        '--does not for so long--> kept for the next one, at last for whoever asks
//! ```
//! Whoever has had a turn stands behind those who wished meanwhile. A queue that reads on is served after as
//! many turns as there are wishes before its own, however fast others ask. At most one connection of a peer lies
//! idle for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Wishes that are remembered; who is refused beyond has no place until there is one.
const MAX_WISHES: usize = 64;

/// A queue, among all of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fabric) struct QueueId(pub(super) u64);

/// Wishes for a connection to one peer.
#[derive(Debug)]
pub(super) struct Wishes {
    /// The eldest first.
    list: VecDeque<Wish>,
    /// How long each is good behind its queue's last question.
    keeps_place: Duration,
    /// One idle connection is for the eldest.
    keeps: bool,
}

#[derive(Debug)]
struct Wish {
    queue: QueueId,
    asked: Instant,
}

impl Wishes {
    pub(super) fn new(keeps_place: Duration) -> Self {
        Wishes { list: VecDeque::new(), keeps_place, keeps: false }
    }

    /// Whether `queue` may have one of `idle` connections, and has no wish any more; if not, it has one.
    pub(super) fn grant(&mut self, queue: QueueId, idle: usize, now: Instant) -> bool {
        self.expire(idle, now);
        let is_eldest = self.list.front().is_some_and(|eldest| eldest.queue == queue);
        let kept = usize::from(self.keeps && !is_eldest);
        let place = self.list.iter().position(|wish| wish.queue == queue);
        if idle > kept {
            self.keeps &= !is_eldest;
            if let Some(place) = place {
                self.list.remove(place);
            }
            return true;
        }
        match place {
            Some(place) => self.list[place].asked = now,
            None if self.list.len() < MAX_WISHES => self.list.push_back(Wish { queue, asked: now }),
            None => {}
        }
        false
    }

    /// Whether a turn that ends now would be another queue's gain.
    pub(super) fn want_a_turn(&mut self, idle: usize, now: Instant) -> bool {
        self.expire(idle, now);
        idle == 0 && !self.list.is_empty()
    }

    /// A turn has ended: of the `idle` connections one is kept, if anybody wishes for it.
    pub(super) fn keep_one(&mut self, idle: usize, now: Instant) {
        self.keeps = true;
        self.expire(idle, now);
    }

    /// `queue` asks no more.
    pub(super) fn withdraw(&mut self, queue: QueueId) {
        self.list.retain(|wish| wish.queue != queue);
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.keeps = false;
    }

    fn expire(&mut self, idle: usize, now: Instant) {
        self.list.retain(|wish| now.saturating_duration_since(wish.asked) < self.keeps_place);
        self.keeps &= idle > 0 && !self.list.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: QueueId = QueueId(1);
    const B: QueueId = QueueId(2);
    const C: QueueId = QueueId(3);
    const LONG: Duration = Duration::from_millis(100);
    const SOON: Duration = Duration::from_millis(99);

    #[test]
    fn what_is_idle_is_anyones_until_a_turn_ends() {
        let (mut wishes, now) = (Wishes::new(LONG), Instant::now());
        assert!(wishes.grant(A, 1, now), "there is one");
        assert!(!wishes.grant(B, 0, now));
        assert!(wishes.grant(C, 1, now), "it came back in the middle of a turn");
        assert!(wishes.want_a_turn(0, now));
        assert!(!wishes.want_a_turn(1, now), "there is one that B finds");
    }

    #[test]
    fn the_eldest_has_what_a_turn_leaves_and_who_had_one_is_the_last() {
        let (mut wishes, now) = (Wishes::new(LONG), Instant::now());
        assert!(!wishes.grant(B, 0, now) && !wishes.grant(C, 0, now));
        assert!(!wishes.grant(B, 0, now), "to ask again does not cost the place");
        wishes.keep_one(1, now);
        // A's turn has ended, and it asks at once, and faster than all.
        assert!(!wishes.grant(A, 1, now) && !wishes.grant(C, 1, now) && !wishes.grant(A, 1, now));
        assert!(!wishes.want_a_turn(1, now), "one is kept, no other is given back for it");
        assert!(wishes.grant(B, 1, now));
        wishes.keep_one(1, now);
        assert!(!wishes.grant(B, 1, now) && !wishes.grant(A, 1, now));
        assert!(wishes.grant(C, 1, now));
        wishes.keep_one(1, now);
        assert!(!wishes.grant(B, 1, now));
        assert!(wishes.grant(A, 1, now));
    }

    #[test]
    fn one_is_kept_and_all_others_are_free() {
        let (mut wishes, now) = (Wishes::new(LONG), Instant::now());
        assert!(!wishes.grant(A, 0, now) && !wishes.grant(B, 0, now));
        wishes.keep_one(1, now);
        assert!(wishes.grant(C, 2, now));
        assert!(wishes.grant(B, 2, now));
        assert!(!wishes.grant(C, 1, now));
        assert!(wishes.grant(A, 1, now));
    }

    #[test]
    fn a_wish_is_good_as_long_as_its_queue_reads_on() {
        let (mut wishes, begun) = (Wishes::new(LONG), Instant::now());
        assert!(!wishes.grant(A, 0, begun));
        let mut now = begun + SOON;
        assert!(!wishes.grant(A, 0, now) && !wishes.grant(B, 0, now));
        wishes.keep_one(1, now);
        now += SOON;
        assert!(!wishes.grant(B, 1, now), "A asks each 99 ms");
        now += SOON;
        assert!(wishes.grant(B, 1, now), "A does not any more, so it is B's turn");
        assert!(wishes.grant(C, 1, now), "nobody is left whom it would be kept for");
        assert!(!wishes.want_a_turn(0, now));
    }

    #[test]
    fn what_was_kept_may_be_lost_and_who_goes_is_forgotten() {
        let (mut wishes, now) = (Wishes::new(LONG), Instant::now());
        assert!(!wishes.grant(A, 0, now) && !wishes.grant(B, 0, now));
        wishes.keep_one(1, now);
        assert!(!wishes.grant(A, 0, now), "idle connections went with one that failed");
        assert!(wishes.grant(C, 1, now), "a new one is nobody's");
        wishes.keep_one(1, now);
        wishes.withdraw(A);
        assert!(!wishes.grant(C, 1, now));
        assert!(wishes.grant(B, 1, now));
        wishes.clear();
        wishes.keep_one(1, now);
        assert!(wishes.grant(A, 1, now));
    }

    #[test]
    fn no_more_wishes_are_remembered_than_there_may_be() {
        let (mut wishes, now) = (Wishes::new(LONG), Instant::now());
        let all = || (0..=MAX_WISHES as u64).map(QueueId);
        assert!(all().all(|queue| !wishes.grant(queue, 0, now)));
        assert_eq!(wishes.list.len(), MAX_WISHES);
        for queue in all() {
            wishes.keep_one(1, now);
            assert!(wishes.grant(queue, 1, now), "{queue:?}");
        }
        assert!(wishes.list.is_empty());
    }
}
