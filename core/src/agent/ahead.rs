//! Children cloned ahead of the next resume: after each start, once this host has had a moment's rest.
//!
//! A start in a burst is a clone of the template as it always was; the one after a rest finds its child
//! waiting.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::hosted::Hosted;
use crate::descriptor::Descriptor;
use crate::id::SeedId;
use crate::sys::event::Alarm;

/// Without a start for so long nothing is disturbed: a child's own start takes about as long.
const REST: Duration = Duration::from_millis(1);
/// What a start and a clone that is warmed take longer for each page that the child touches first. Of a seed with many
/// the clone would take the processors from the child that was just started.
const REST_A_PAGE: Duration = Duration::from_micros(10);
/// And for each thread beside the first: all of them run before the child's own code goes on.
const REST_A_THREAD: Duration = Duration::from_micros(200);
/// Pages that are within `REST`.
const FEW_PAGES: u64 = 1000;
/// More of either make no difference: a rest is at most some tenth of a second.
const MANY_PAGES: u32 = 10_000;
const MANY_THREADS: u32 = 50;
/// On a host that never rests, seeds whose starts are rare are served all the same: after this, or two of their rests.
const MAX_WAIT: Duration = Duration::from_millis(50);
/// Seeds that are noted at a time; one that finds no room is noted by its next start.
const MAX_NOTED: usize = 1024;

/// Children of one seed that are cloned ahead, unless told otherwise.
pub const CLONES_AHEAD: usize = 1;
/// And at most: each has the memory of a child.
pub const MAX_CLONES_AHEAD: usize = 64;

/// Clones children ahead, on a thread of its own.
///
/// A start only sets the alarm that this thread sleeps by: woken, it would take a processor from the child.
#[derive(Debug)]
pub(super) struct Ahead {
    alarm: Alarm,
    noted: Mutex<Noted>,
}

/// Seeds of which a child was started since the last rest.
#[derive(Debug, Default)]
struct Noted {
    seeds: HashMap<SeedId, Weak<Hosted>>,
    /// When the first one was, and how long a rest they want.
    since: Option<Instant>,
    rest: Duration,
}

impl Ahead {
    /// # Errors
    /// No descriptor is left.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Ahead { alarm: Alarm::new()?, noted: Mutex::default() })
    }

    /// A child of this seed was started: there may be more.
    pub(super) fn note(&self, hosted: &Arc<Hosted>) {
        if !hosted.may_have_more() {
            return;
        }
        let mut noted = self.noted.lock();
        if noted.seeds.len() < MAX_NOTED || noted.seeds.contains_key(&hosted.seed) {
            noted.seeds.insert(hosted.seed, Arc::downgrade(hosted));
            self.alarm.set(noted.rest_from(Instant::now(), hosted.rest));
        }
    }

    /// Keeps `count` children of each seed ahead. Returns only if it cannot sleep.
    pub(super) fn run(&self, count: usize) {
        while let Ok(()) = self.alarm.sleep() {
            let noted = std::mem::take(&mut *self.noted.lock());
            for hosted in noted.seeds.into_values() {
                let Some(hosted) = hosted.upgrade().filter(|hosted| hosted.may_have_more()) else {
                    continue;
                };
                if hosted.is_pushing.load(Ordering::Acquire) {
                    self.note(&hosted);
                    continue;
                }
                if let Err(error) = hosted.clone_ahead(count) {
                    tracing::debug!(seed = %hosted.seed, %error, "no child was cloned ahead");
                }
            }
        }
    }
}

impl Noted {
    /// How long this host is to rest from `now` on, where a child was started whose seed wants `rest`.
    fn rest_from(&mut self, now: Instant, rest: Duration) -> Duration {
        self.rest = self.rest.max(rest);
        let since = *self.since.get_or_insert(now);
        let rested = now.saturating_duration_since(since);
        self.rest.min(MAX_WAIT.max(2 * self.rest).saturating_sub(rested))
    }
}

/// How long children of a seed are left alone after their start.
pub(super) fn rest_of(descriptor: &Descriptor) -> Duration {
    let (read, copied) = descriptor.warm.pages(descriptor.page_size());
    rest(read + copied, descriptor.threads.len())
}

fn rest(warm_pages: u64, threads: usize) -> Duration {
    let many = u32::try_from(warm_pages.saturating_sub(FEW_PAGES)).unwrap_or(u32::MAX);
    let others = u32::try_from(threads.saturating_sub(1)).unwrap_or(u32::MAX);
    REST + REST_A_PAGE * many.min(MANY_PAGES) + REST_A_THREAD * others.min(MANY_THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_puts_the_rest_off_until_that_has_been_waited_for_long_enough() {
        let mut noted = Noted::default();
        let begun = Instant::now();
        assert_eq!(noted.rest_from(begun, REST), REST);
        let longer = rest(FEW_PAGES + 100, 1);
        assert_eq!(longer, 2 * REST);
        assert_eq!(rest(FEW_PAGES, 11), 3 * REST, "threads are started, too");
        assert_eq!(noted.rest_from(begun + REST, longer), longer);
        // The longest that any of them wants.
        assert_eq!(noted.rest_from(begun + REST, REST), longer);
        assert_eq!(noted.rest_from(begun + MAX_WAIT - REST, REST), REST);
        assert_eq!(noted.rest_from(begun + 2 * MAX_WAIT, REST), Duration::ZERO);
    }
}
