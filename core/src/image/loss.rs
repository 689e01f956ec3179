//! Pages that could not be had: what is remembered of them, and who is told.
//!
//! The kernel asks a failing READ twice: as read-ahead, then, for the very page that was touched, once
//! more. The first failure is remembered for [`MEMORY`], so that the second ask does not wait a whole
//! deadline again; only the second one, which names the page, is told as a loss.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;

use crate::descriptor::SeedAddr;
use crate::id::SeedId;

/// How long pages of a silent owner are refused at once.
const MEMORY: Duration = Duration::from_secs(1);
/// Failed ranges that are remembered.
const MAX_FAILED: usize = 256;
/// Losses that are remembered as told.
const MAX_TOLD: usize = 256;
/// Losses waiting to be told; beyond, they are counted only.
const MAX_UNTOLD: usize = 1024;

/// A page that a child touched and that could not be had: the child gets SIGBUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageLost {
    /// Whose page, as the owner that should have had it.
    pub seed: SeedId,
    /// The owner's agent.
    pub owner_host: String,
    /// The page's address in the child.
    pub addr: SeedAddr,
    /// The thread that touched it; 0: unknown.
    pub pid: u32,
    /// Why.
    pub reason: String,
}

/// A range of an image that could not be had just now.
#[derive(Clone, Debug)]
pub(super) struct Failed {
    start: u64,
    end: u64,
    until: Instant,
    /// Who waited for it.
    pid: u32,
    /// Index of the owner.
    pub(super) owner: usize,
    pub(super) reason: Arc<str>,
}

#[derive(Debug, Default)]
pub(super) struct Losses {
    remembered: AtomicUsize,
    failed: Mutex<VecDeque<Failed>>,
    told: Mutex<VecDeque<(u64, u32)>>,
}

impl Losses {
    pub(super) fn remember(
        &self,
        (start, end): (u64, u64),
        owner: usize,
        pid: u32,
        reason: Arc<str>,
    ) {
        let mut failed = self.failed.lock();
        if failed.len() == MAX_FAILED {
            failed.pop_front();
        }
        failed.push_back(Failed { start, end, until: Instant::now() + MEMORY, pid, owner, reason });
        self.remembered.store(failed.len(), Ordering::Release);
    }

    /// The failure that a READ of this range would meet again.
    pub(super) fn recall(&self, start: u64, end: u64) -> Option<Failed> {
        self.find(|failed| failed.start < end && start < failed.end)
    }

    /// Whether this thread has just waited a whole deadline for this owner, in vain: it dies, and the pages
    /// of its signal handler need not take as long again.
    pub(super) fn has_waited(&self, owner: usize, pid: u32) -> bool {
        self.find(|failed| failed.owner == owner && failed.pid == pid).is_some()
    }

    fn find(&self, is_it: impl Fn(&Failed) -> bool) -> Option<Failed> {
        if self.remembered.load(Ordering::Acquire) == 0 {
            return None;
        }
        let now = Instant::now();
        let mut failed = self.failed.lock();
        while failed.front().is_some_and(|oldest| oldest.until <= now) {
            failed.pop_front();
        }
        self.remembered.store(failed.len(), Ordering::Release);
        failed.iter().find(|failed| is_it(failed)).cloned()
    }

    /// Whether this loss has not been told yet; it counts as told from then on.
    pub(super) fn is_news(&self, page: u64, pid: u32) -> bool {
        let mut told = self.told.lock();
        if told.contains(&(page, pid)) {
            return false;
        }
        if told.len() == MAX_TOLD {
            told.pop_front();
        }
        told.push_back((page, pid));
        true
    }
}

/// Whom losses are told.
#[derive(Clone)]
pub(super) struct Listener(pub(super) Arc<dyn Fn(PageLost) + Send + Sync>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

impl Listener {
    /// Tells a loss from a thread of its own: a pager waits for nobody.
    pub(super) fn tell(&self, lost: PageLost) {
        if let Some(herald) = herald() {
            let _ = herald.try_send(Word::Lost(self.clone(), lost));
        }
    }
}

/// What the herald is given.
enum Word {
    Lost(Listener, PageLost),
    /// Whoever waits until all before has been told.
    Asked(Sender<()>),
}

fn herald() -> Option<&'static Sender<Word>> {
    static HERALD: OnceLock<Option<Sender<Word>>> = OnceLock::new();
    let herald = HERALD.get_or_init(|| {
        let (sender, receiver) = bounded::<Word>(MAX_UNTOLD);
        let work = move || {
            for word in receiver {
                match word {
                    Word::Lost(listener, lost) => (listener.0)(lost),
                    Word::Asked(asker) => drop(asker.try_send(())),
                }
            }
        };
        let thread = std::thread::Builder::new().name("mitosis-lost".to_owned()).spawn(work);
        thread.ok().map(|_| sender)
    });
    herald.as_ref()
}

/// Waits until every loss that was met before this call has been told, `limit` at most. A loss is met before
/// its child can die of it.
pub fn await_told(limit: Duration) {
    let (asker, answer) = bounded(1);
    if let Some(herald) = herald()
        && herald.try_send(Word::Asked(asker)).is_ok()
    {
        let _ = answer.recv_timeout(limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_recalled_for_each_of_its_pages_and_no_other() {
        let losses = Losses::default();
        assert!(losses.recall(0, u64::MAX).is_none());
        losses.remember((0x4000, 0x8000), 3, 7, "silent".into());
        assert!(losses.recall(0x3000, 0x4000).is_none());
        assert!(losses.recall(0x8000, 0x9000).is_none());
        assert_eq!(losses.recall(0x7000, 0x8000).unwrap().owner, 3);
        assert!(losses.has_waited(3, 7) && !losses.has_waited(3, 8) && !losses.has_waited(0, 7));
        for i in 0..MAX_FAILED as u64 {
            losses.remember((0x10_0000 + i, 0x10_0001 + i), 0, 8, "silent".into());
        }
        assert!(losses.recall(0x7000, 0x8000).is_none(), "the oldest is forgotten at the limit");
    }

    #[test]
    fn a_loss_is_news_once_for_each_page_and_thread() {
        let losses = Losses::default();
        assert!(losses.is_news(0x1000, 7));
        assert!(!losses.is_news(0x1000, 7));
        assert!(losses.is_news(0x1000, 8));
        assert!(losses.is_news(0x2000, 7));
    }
}
