//! Children cloned ahead of the next resume: after each start, once this host has had a moment's rest.
//!
//! A start in a burst is a clone of the template as it always was; the one after a rest finds its child
//! waiting.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::hosted::Hosted;
use crate::id::SeedId;

/// Without a start for so long nothing is disturbed: a child's own start takes about as long.
const REST: Duration = Duration::from_millis(1);
/// What a start and a clone that is warmed take longer for each page that the child touches first. Of a seed with many
/// the clone would take the processors from the child that was just started.
const REST_A_PAGE: Duration = Duration::from_micros(10);
/// Pages that are within `REST`.
const FEW_PAGES: u64 = 1000;
/// On a host that never rests, seeds whose starts are rare are served all the same.
const MAX_WAIT: Duration = Duration::from_millis(50);
/// Starts that are noted at a time; one that finds no room is noted by the next.
const MAX_NOTED: usize = 1024;

/// Children of one seed that are cloned ahead, unless told otherwise.
pub const CLONES_AHEAD: usize = 1;
/// And at most: each has the memory of a child.
pub const MAX_CLONES_AHEAD: usize = 64;

/// Clones children ahead, on a thread of its own.
#[derive(Debug)]
pub(super) struct Ahead {
    started: Sender<Weak<Hosted>>,
    notes: Receiver<Weak<Hosted>>,
}

impl Default for Ahead {
    fn default() -> Self {
        let (started, notes) = crossbeam_channel::bounded(MAX_NOTED);
        Ahead { started, notes }
    }
}

impl Ahead {
    /// A child of this seed was started: there may be more.
    pub(super) fn note(&self, hosted: &Arc<Hosted>) {
        if hosted.may_have_more() {
            let _ = self.started.try_send(Arc::downgrade(hosted));
        }
    }

    /// Keeps `count` children of each seed ahead. Does not return.
    pub(super) fn run(&self, count: usize) {
        while let Ok(first) = self.notes.recv() {
            for hosted in self.rest(first).into_values() {
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

    /// Waits until nothing was started for a while; what was, each seed once.
    fn rest(&self, first: Weak<Hosted>) -> HashMap<SeedId, Weak<Hosted>> {
        let begun = Instant::now();
        let mut noted = HashMap::new();
        let mut rest = REST;
        let mut next = Some(first);
        while let Some(hosted) = next {
            if let Some((seed, pages)) = hosted.upgrade().map(|it| (it.seed, it.warm_pages)) {
                rest = rest.max(rest_of(pages));
                noted.insert(seed, hosted);
            }
            if begun.elapsed() >= MAX_WAIT.max(2 * rest) {
                break;
            }
            next = self.notes.recv_timeout(rest).ok();
        }
        noted
    }
}

fn rest_of(warm_pages: u64) -> Duration {
    let many = u32::try_from(warm_pages.saturating_sub(FEW_PAGES)).unwrap_or(u32::MAX);
    REST + REST_A_PAGE * many.min(10_000)
}
