//! The side of DC that is READ from: a target (DCT) for each seed, out of a pool that is made ahead.
//!
//! ```text
//!   thread: make --pause--> ready --take--> a seed's own --revoke, drop--> destroyed, at once
//!              ^              |
//!              `-- too few ---'     none ready: that seed is READ by rc and tcp
//! ```
//! A DCT cannot be given another key, so each serves one seed and ends with it; its key is random. All of a
//! seed's memory is behind one: what is revoked is a whole seed. They share a CQ and an SRQ, which READs do
//! not use and without which none is made. Whoever prepares does not wait: making one is several commands to
//! the card, and firmware is known to stall where many come at once, so a thread makes them, with pauses.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::arena::{CardError, Door};
use crate::descriptor::DcTarget;
use crate::id::DcKey;
use crate::verbs::{self, Cq, Dct, Error, Gid, Mtu, Path, Pd, Srq};

/// Targets that are kept ready: a burst of as many prepares is served without a pause.
pub const READY_TARGETS: usize = 32;
/// From one target to the next: at most 100 a second.
const PAUSE: Duration = Duration::from_millis(10);
/// From a failure to the next attempt; it doubles with each further one.
const PAUSE_FAILED: Duration = Duration::from_millis(100);
/// That pause grows no longer.
const PAUSE_LAST: Duration = Duration::from_secs(10);

/// What makes targets: a card's port, or what stands in for one.
pub trait TargetMaker: Send + Sync + std::fmt::Debug {
    /// A new one, with a key of its own.
    ///
    /// # Errors
    /// The card's.
    fn make(&self) -> Result<SeedTarget, CardError>;
}

/// One seed's target. Dropped, it is gone.
#[derive(Debug)]
pub struct SeedTarget {
    /// What READs of it are told.
    pub told: DcTarget,
    /// The target itself.
    pub door: Box<dyn Door>,
}

/// The pool. Dropped, no more are made; those that seeds have stay theirs.
#[derive(Debug)]
pub struct DcTargets {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    maker: Box<dyn TargetMaker>,
    state: Mutex<State>,
    taken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<SeedTarget>,
    is_ending: bool,
}

impl DcTargets {
    /// Makes the first target, and starts the thread that makes the others.
    ///
    /// # Errors
    /// The first cannot be made, or there is no thread.
    pub fn start(maker: Box<dyn TargetMaker>) -> Result<Self, CardError> {
        let state = Mutex::new(State { ready: vec![maker.make()?], is_ending: false });
        let shared = Arc::new(Shared { maker, state, taken: Condvar::new() });
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("dc-targets".to_owned());
        let started = thread.spawn(move || own.keep_ready());
        started.map_err(|error| CardError(format!("no thread to make DC targets ({error})")))?;
        Ok(DcTargets { shared })
    }

    /// A target for a seed, if one is ready.
    pub fn take(&self) -> Option<SeedTarget> {
        let taken = self.shared.state.lock().ready.pop();
        self.shared.taken.notify_one();
        taken
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.shared.state.lock().ready.len()
    }
}

impl Drop for DcTargets {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_ending = true;
        let ready = std::mem::take(&mut state.ready);
        drop(state);
        self.shared.taken.notify_one();
        drop(ready);
    }
}

impl Shared {
    fn keep_ready(&self) {
        let mut failed = None;
        while self.wait_for_need() {
            let pause = match self.maker.make() {
                Ok(target) => {
                    failed = None;
                    self.state.lock().ready.push(target);
                    PAUSE
                }
                Err(error) => {
                    let pause = failed.map_or(PAUSE_FAILED, |last: Duration| last * 2);
                    if failed.is_none() {
                        tracing::warn!(%error, "no further DC target; new seeds may be READ by rc or tcp");
                    }
                    failed = Some(pause.min(PAUSE_LAST));
                    pause.min(PAUSE_LAST)
                }
            };
            std::thread::sleep(pause);
        }
    }

    /// Returns when a target is to be made; false at the pool's end.
    fn wait_for_need(&self) -> bool {
        let mut state = self.state.lock();
        while state.ready.len() >= READY_TARGETS && !state.is_ending {
            self.taken.wait(&mut state);
        }
        !state.is_ending
    }
}

/// A card's port, from which targets are made.
#[derive(Debug)]
pub struct TargetPort {
    pd: Arc<Pd>,
    cq: Arc<Cq>,
    srq: Arc<Srq>,
    path: Path,
    mtu: Mtu,
    place: (Gid, u16),
}

impl TargetPort {
    /// The port that `path` leaves by, whose GID and LID peers are told.
    ///
    /// # Errors
    /// The card has no further CQ or SRQ.
    pub fn new(pd: &Arc<Pd>, path: Path, mtu: Mtu, place: (Gid, u16)) -> Result<Self, Error> {
        // Nothing completes there.
        let (cq, srq) = (Cq::new(pd.context(), 1)?, Srq::new(pd)?);
        Ok(TargetPort { pd: pd.clone(), cq, srq, path, mtu, place })
    }
}

impl TargetMaker for TargetPort {
    fn make(&self) -> Result<SeedTarget, CardError> {
        let dc_key = DcKey::random();
        let key = verbs::DcKey(u64::from_be_bytes(dc_key.0));
        let dct = Dct::new(&self.pd, &self.cq, &self.srq, key, &self.path, self.mtu);
        let dct = dct.map_err(|error| CardError(error.to_string()))?;
        let (gid, lid) = (self.place.0.0, self.place.1);
        let told = DcTarget { gid, lid, dctn: dct.dctn().number(), dc_key };
        Ok(SeedTarget { told, door: Box::new(dct) })
    }
}

impl Door for Dct {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Instant;

    use super::*;

    /// Numbers its targets, and knows which of them are there.
    #[derive(Clone, Debug, Default)]
    struct StandIn {
        made: Arc<AtomicU32>,
        there: Arc<Mutex<Vec<u32>>>,
        broken: Arc<Mutex<bool>>,
    }

    #[derive(Debug)]
    struct StandInDoor(u32, Arc<Mutex<Vec<u32>>>);

    impl Door for StandInDoor {}

    impl Drop for StandInDoor {
        fn drop(&mut self) {
            self.1.lock().retain(|dctn| *dctn != self.0);
        }
    }

    impl TargetMaker for StandIn {
        fn make(&self) -> Result<SeedTarget, CardError> {
            let dctn = self.made.fetch_add(1, Ordering::SeqCst);
            if *self.broken.lock() {
                return Err(CardError("out of targets".to_owned()));
            }
            self.there.lock().push(dctn);
            let told = DcTarget { gid: [1; 16], lid: 0, dctn, dc_key: DcKey::random() };
            Ok(SeedTarget { told, door: Box::new(StandInDoor(dctn, self.there.clone())) })
        }
    }

    fn until(mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn targets_are_made_ahead_at_a_limited_rate_and_no_more_than_shall_be_ready() {
        let maker = StandIn::default();
        let begun = Instant::now();
        let targets = DcTargets::start(Box::new(maker.clone())).unwrap();
        assert!(targets.ready() >= 1, "the first is there at once");
        until(|| targets.ready() == READY_TARGETS);
        let pauses = u32::try_from(READY_TARGETS).unwrap() - 2;
        assert!(begun.elapsed() >= PAUSE * pauses, "{:?}", begun.elapsed());
        std::thread::sleep(PAUSE * 3);
        assert_eq!(maker.there.lock().len(), READY_TARGETS);
    }

    #[test]
    fn a_burst_takes_what_is_there_and_then_nothing_and_waits_for_nobody() {
        let maker = StandIn::default();
        let targets = DcTargets::start(Box::new(maker.clone())).unwrap();
        until(|| targets.ready() == READY_TARGETS);
        let begun = Instant::now();
        let burst: Vec<_> = std::iter::from_fn(|| targets.take()).take(1000).collect();
        assert!(burst.len() >= READY_TARGETS && burst.len() < 1000, "{}", burst.len());
        assert!(begun.elapsed() < Duration::from_secs(1));
        let keys: Vec<_> = burst.iter().map(|target| target.told.dc_key.0).collect();
        assert!((1..keys.len()).all(|at| !keys[..at].contains(&keys[at])), "a key twice");
        until(|| targets.ready() == READY_TARGETS);
    }

    #[test]
    fn a_target_ends_with_its_seed_alone() {
        let maker = StandIn::default();
        let targets = DcTargets::start(Box::new(maker.clone())).unwrap();
        until(|| targets.ready() >= 2);
        let (first, second) = (targets.take().unwrap(), targets.take().unwrap());
        let number = first.told.dctn;
        drop(first);
        assert!(!maker.there.lock().contains(&number));
        assert!(maker.there.lock().contains(&second.told.dctn));
        drop(targets);
        assert!(maker.there.lock().contains(&second.told.dctn), "it outlives the pool");
    }

    #[test]
    fn a_card_that_has_no_more_is_not_asked_without_pause() {
        let maker = StandIn::default();
        let targets = DcTargets::start(Box::new(maker.clone())).unwrap();
        until(|| targets.ready() == READY_TARGETS);
        *maker.broken.lock() = true;
        let before = maker.made.load(Ordering::SeqCst);
        drop(targets.take());
        std::thread::sleep(Duration::from_millis(350));
        let tries = maker.made.load(Ordering::SeqCst) - before;
        assert!((1..=3).contains(&tries), "{tries} tries");
        *maker.broken.lock() = false;
        until(|| targets.ready() == READY_TARGETS);
        *maker.broken.lock() = true;
        let first = DcTargets::start(Box::new(maker)).unwrap_err();
        assert_eq!(first.0, "out of targets");
    }
}
