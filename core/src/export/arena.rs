//! Seeds' bytes where an RDMA card can READ them: memory that is registered once, in slabs, and filled with
//! copies of frozen seeds.
//!
//! ```text
//!   ready slabs --lay--> a seed's own --fill (this module's thread)--> readable up to `filled`
//!       ^                      \--revoke, drop--> registration ended: the card refuses from here on
//!       `---- registered anew, under another rkey <----/
//! ```
//! `prepare` pays nothing for it: slabs that are ready are given out as they are, further ones are registered
//! by the thread that fills them, and what is not filled yet is served by the page service. No slab is shared
//! by two seeds, so ending its registration takes the bytes from readers of one seed alone.
//!
//! What a card can READ is frozen and whole: a slab's bytes are told to others when they are in place, and
//! never change after.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{ExportError, Exported};
use crate::descriptor::{ArenaMap, ArenaNews, SeedAddr, SeedRange, Slab};
use crate::sys::sched;

/// Bytes of a slab. A seed wastes half of one on average; a registration of this size takes milliseconds.
pub const SLAB_BYTES: u64 = 16 << 20;
/// Bytes that are copied before others are looked after.
const STEP_BYTES: u64 = 1 << 20;
/// And where the copy is for this host's page service alone: a kernel that preempts no system call lets nobody else have that
/// processor for as long, some 0.1 ms.
const SMALL_STEP_BYTES: u64 = 128 << 10;
/// So long after its seed is exported such a copy begins: who has prepared starts children, as a rule at once, and whatever
/// the filling thread's priority is, a kernel that shares processors among sessions gives it its agent's share.
pub(super) const REST: Duration = Duration::from_millis(250);
/// The filling thread gives way to whoever works for somebody that waits.
const NICE: i32 = 10;

/// A card, as an arena sees it.
pub trait Card: Send + Sync + std::fmt::Debug {
    /// `bytes` of memory that other hosts may READ, and no more than read, until the registration is
    /// dropped.
    ///
    /// # Errors
    /// The card's, with its remedy.
    fn slab(&self, bytes: u64) -> Result<RegisteredSlab, CardError>;

    /// Whether other hosts READ its slabs themselves; if not, they are for the page service alone.
    fn is_read_by_others(&self) -> bool {
        true
    }
}

/// What the card knows a slab by (an MR). Dropped, READs of the slab are refused.
pub trait Registration: Send + Sync + std::fmt::Debug {
    /// What READs show.
    fn rkey(&self) -> u32;
    /// The address of its first byte, as READs name it.
    fn iova(&self) -> u64;
}

/// The memory of a slab; it may outlive its registration.
pub trait SlabMemory: Send + Sync + std::fmt::Debug {
    /// Fills `range` with the bytes of `file` from `from` on. The kernel copies: a card may read meanwhile.
    ///
    /// # Errors
    /// pread(2)'s; `UnexpectedEof` where the file ends before.
    fn fill(&self, range: Range<usize>, file: &File, from: u64) -> io::Result<()>;

    /// Copies bytes that were filled, from the place `from` on.
    fn read(&self, from: usize, into: &mut [u8]);

    /// Sends bytes of `range`, which were filled, from its start on; gives how many.
    ///
    /// # Errors
    /// send(2)'s.
    fn send(&self, range: Range<usize>, socket: &TcpStream) -> io::Result<usize>;
}

/// Something that a card knows of one seed beside its slabs: a way in to all of them (a DCT). Dropped, nobody
/// comes in by it any more.
pub trait Door: Send + Sync + std::fmt::Debug {}

/// Why a card gives no slab.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CardError(pub String);

/// A slab, known to the card.
#[derive(Debug)]
pub struct RegisteredSlab {
    /// Ends with its drop.
    pub registration: Box<dyn Registration>,
    /// Its bytes.
    pub memory: Arc<dyn SlabMemory>,
}

/// Bounds of an arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaLimits {
    /// Bytes that are registered from the start, and kept so.
    pub ready: u64,
    /// Bytes that all seeds together may take. What a seed has beyond is served by the page service.
    pub most: u64,
}

/// The host's arena. Dropped, nothing more is filled; what seeds have of it stays theirs.
#[derive(Debug)]
pub struct Arena {
    shared: Arc<Shared>,
}

/// What the filling thread and the seeds' copies need of it.
#[derive(Debug)]
struct Shared {
    card: Arc<dyn Card>,
    limits: ArenaLimits,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<RegisteredSlab>,
    /// Bytes of slabs that exist, ready ones included.
    bytes: u64,
    /// Each not before its moment.
    copies: VecDeque<(Instant, Arc<Copy>)>,
    is_ending: bool,
}

/// One seed's bytes in the arena. Dropped, the card refuses them.
#[derive(Debug)]
pub struct ArenaCopy {
    copy: Arc<Copy>,
    arena: Arc<Shared>,
    door: Mutex<Option<Box<dyn Door>>>,
}

#[derive(Debug)]
struct Copy {
    extents: Vec<SeedRange>,
    /// Where each extent begins in the copy.
    places: Vec<u64>,
    bytes: u64,
    /// The memory of each slab, once it has bytes: whoever reads takes no lock that the filling thread, which
    /// may rest for long, could hold.
    memory: Vec<OnceLock<Arc<dyn SlabMemory>>>,
    slabs: Mutex<Slabs>,
    filled: AtomicU64,
}

#[derive(Debug, Default)]
struct Slabs {
    list: Vec<RegisteredSlab>,
    /// Nothing is laid or filled any more.
    is_over: bool,
    /// Whose bytes are copied; set when filling begins.
    from: Option<Arc<Exported>>,
}

/// What filling one step led to.
enum Step {
    More,
    Whole,
    /// No more of this seed, for the reason.
    Over(String),
}

impl Arena {
    /// Registers the slabs that are kept ready, and starts the thread that fills.
    ///
    /// # Errors
    /// The card cannot register them, for instance as memlock is too small; or there is no thread.
    pub fn start(card: Arc<dyn Card>, limits: ArenaLimits) -> Result<Self, CardError> {
        let (state, work) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { card, limits, state, work });
        shared.make_ready()?;
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("arena".to_owned());
        let started = thread.spawn(move || fill_all(&own));
        started.map_err(|error| CardError(format!("no thread to fill the arena ({error})")))?;
        Ok(Arena { shared })
    }

    /// Takes slabs for a seed whose bytes are `extents` (ascending, disjoint), as far as some are ready.
    pub fn lay(&self, extents: Vec<SeedRange>) -> ArenaCopy {
        let wanted = slabs_of(extents.iter().map(|extent| extent.len()).sum());
        let mut state = self.shared.state.lock();
        let left = state.ready.len().saturating_sub(wanted);
        let list = state.ready.split_off(left);
        drop(state);
        let slabs = Mutex::new(Slabs { list, is_over: false, from: None });
        let copy = Copy::new(extents, slabs);
        ArenaCopy { copy: Arc::new(copy), arena: self.shared.clone(), door: Mutex::default() }
    }

    /// Bytes of slabs that exist.
    pub fn bytes(&self) -> u64 {
        self.shared.state.lock().bytes
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.shared.state.lock().is_ending = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    /// The next copy to work on, after the last one has had its turn; `None` at the arena's end.
    fn next(&self) -> Option<Arc<Copy>> {
        let mut state = self.state.lock();
        loop {
            if state.is_ending {
                return None;
            }
            let now = Instant::now();
            let due = state.copies.iter().position(|(when, _)| *when <= now);
            if let Some((_, copy)) = due.and_then(|at| state.copies.remove(at)) {
                return Some(copy);
            }
            match state.copies.iter().map(|(when, _)| *when).min() {
                Some(soonest) => drop(self.work.wait_until(&mut state, soonest)),
                None => self.work.wait(&mut state),
            }
        }
    }

    /// Copies the next bytes of one seed.
    fn step(&self, copy: &Copy) -> Step {
        let filled = copy.filled.load(Ordering::Relaxed);
        if filled == copy.bytes {
            return Step::Whole;
        }
        let index = usize::try_from(filled / SLAB_BYTES).unwrap_or(usize::MAX);
        let (memory, from) = {
            let mut slabs = copy.slabs.lock();
            if slabs.is_over {
                return Step::Over("it is no longer exported".to_owned());
            }
            if slabs.list.len() <= index {
                drop(slabs);
                let slab = match self.one_more() {
                    Ok(slab) => slab,
                    Err(error) => return Step::Over(error.0),
                };
                slabs = copy.slabs.lock();
                if slabs.is_over {
                    self.state.lock().ready.push(slab);
                    return Step::Over("it is no longer exported".to_owned());
                }
                slabs.list.push(slab);
            }
            let Some(from) = slabs.from.clone() else {
                return Step::Over("it is no longer exported".to_owned());
            };
            let memory = copy.memory[index].get_or_init(|| slabs.list[index].memory.clone());
            (memory.clone(), from)
        };
        match copy.fill(filled, self.step_bytes(), &*memory, &from) {
            Ok(filled) => {
                copy.filled.store(filled, Ordering::Release);
                Step::More
            }
            Err(error) => Step::Over(error.to_string()),
        }
    }

    fn step_bytes(&self) -> u64 {
        if self.card.is_read_by_others() { STEP_BYTES } else { SMALL_STEP_BYTES }
    }

    /// When a copy begins that is asked for now.
    fn beginning(&self) -> Instant {
        let rest = if self.card.is_read_by_others() { Duration::ZERO } else { REST };
        Instant::now() + rest
    }

    /// A slab more, within the limit.
    fn one_more(&self) -> Result<RegisteredSlab, CardError> {
        let mut state = self.state.lock();
        if let Some(slab) = state.ready.pop() {
            return Ok(slab);
        }
        if state.bytes + SLAB_BYTES > self.limits.most {
            let most = self.limits.most;
            return Err(CardError(format!("the arena has all of its {most} bytes in use")));
        }
        state.bytes += SLAB_BYTES;
        drop(state);
        self.card.slab(SLAB_BYTES).inspect_err(|_| self.state.lock().bytes -= SLAB_BYTES)
    }

    /// Registers slabs until as many are ready as shall be.
    fn make_ready(&self) -> Result<(), CardError> {
        let wanted = usize::try_from(self.limits.ready.min(self.limits.most) / SLAB_BYTES);
        loop {
            {
                let mut state = self.state.lock();
                let enough = state.ready.len() >= wanted.unwrap_or(0);
                if enough || state.bytes + SLAB_BYTES > self.limits.most || state.is_ending {
                    return Ok(());
                }
                state.bytes += SLAB_BYTES;
            }
            let slab = self.card.slab(SLAB_BYTES);
            let slab = slab.inspect_err(|_| self.state.lock().bytes -= SLAB_BYTES)?;
            self.state.lock().ready.push(slab);
        }
    }
}

impl ArenaCopy {
    /// Begins to copy the bytes of `exported`, whose extents these are.
    pub(super) fn fill_from(&self, exported: Arc<Exported>) {
        self.copy.slabs.lock().from = Some(exported);
        let begins = self.arena.beginning();
        self.arena.state.lock().copies.push_back((begins, self.copy.clone()));
        self.arena.work.notify_one();
    }

    /// Closes `door` when these bytes are revoked.
    #[must_use]
    pub fn behind(self, door: Box<dyn Door>) -> Self {
        *self.door.lock() = Some(door);
        self
    }

    /// Whether cards of other hosts READ it; else it is the page service's alone, and nobody is told of it.
    pub fn is_read_by_others(&self) -> bool {
        self.arena.card.is_read_by_others()
    }

    /// What a descriptor says of it: the slabs that it has now.
    pub fn map(&self) -> ArenaMap {
        let slabs = self.copy.slabs.lock().list.iter().map(RegisteredSlab::told).collect();
        ArenaMap { extents: self.copy.extents.clone(), slabs }
    }

    /// What is new to somebody who knows `slabs` slabs and `filled` bytes; `None`: nothing.
    pub fn news(&self, slabs: usize, filled: u64) -> Option<ArenaNews> {
        // In this order: what is filled lies in slabs that are in the list.
        let now = self.copy.filled.load(Ordering::Acquire);
        let list = self.copy.slabs.lock();
        if list.is_over || now <= filled {
            return None;
        }
        let more = list.list.iter().skip(slabs).map(RegisteredSlab::told).collect();
        Some(ArenaNews { slabs: more, filled: now })
    }

    /// Bytes that are in place, and bytes in all.
    pub fn progress(&self) -> (u64, u64) {
        (self.copy.filled.load(Ordering::Acquire), self.copy.bytes)
    }

    /// Whether there will be no more than there is.
    pub fn is_done(&self) -> bool {
        let slabs = self.copy.slabs.lock();
        slabs.is_over || slabs.from.is_none()
    }

    /// Where `len` bytes of the seed from `addr` on lie, which are its own; `None`: not here, or not yet.
    pub(super) fn place(&self, addr: SeedAddr, len: usize) -> Option<u64> {
        let copy = &*self.copy;
        let extent = copy.extents.partition_point(|extent| extent.end <= addr);
        let start = copy.extents.get(extent).filter(|extent| extent.start <= addr)?.start;
        // Extents that touch lie one behind the other in the copy, too.
        let place = copy.places[extent] + (addr.0 - start.0);
        (place + len as u64 <= copy.filled.load(Ordering::Acquire)).then_some(place)
    }

    /// Copies what lies at `place` on.
    pub(super) fn read(&self, place: u64, into: &mut [u8]) {
        let mut at = 0;
        for (memory, range) in self.copy.pieces(place, into.len()) {
            let len = range.len();
            memory.read(range.start, &mut into[at..at + len]);
            at += len;
        }
    }

    /// Sends `len` bytes from `place` on, all of them.
    ///
    /// # Errors
    /// The socket's; `WriteZero` if it takes nothing any more.
    pub(super) fn send(&self, place: u64, len: usize, socket: &TcpStream) -> io::Result<()> {
        for (memory, mut range) in self.copy.pieces(place, len) {
            while !range.is_empty() {
                match memory.send(range.clone(), socket) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(sent) => range.start += sent,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Ends the registrations: from now on the card refuses these bytes, to everybody. The door first: that is
    /// one command to the card, however many slabs there are.
    pub fn revoke(&self) {
        let door = self.door.lock().take();
        drop(door);
        let list = {
            let mut slabs = self.copy.slabs.lock();
            slabs.is_over = true;
            slabs.from = None;
            std::mem::take(&mut slabs.list)
        };
        let bytes = SLAB_BYTES * list.len() as u64;
        drop(list);
        self.arena.state.lock().bytes -= bytes;
    }
}

impl Drop for ArenaCopy {
    fn drop(&mut self) {
        self.revoke();
    }
}

impl Copy {
    fn new(extents: Vec<SeedRange>, slabs: Mutex<Slabs>) -> Self {
        let mut bytes = 0;
        let mut places = Vec::with_capacity(extents.len());
        for extent in &extents {
            places.push(bytes);
            bytes += extent.len();
        }
        let memory = (0..slabs_of(bytes)).map(|_| OnceLock::new()).collect();
        Copy { extents, places, bytes, memory, slabs, filled: AtomicU64::new(0) }
    }

    /// The slabs of `len` filled bytes from `place` on, and where in them they lie.
    fn pieces(
        &self,
        place: u64,
        len: usize,
    ) -> impl Iterator<Item = (&Arc<dyn SlabMemory>, Range<usize>)> {
        let end = place + len as u64;
        let first = place / SLAB_BYTES;
        let slabs =
            self.memory.iter().enumerate().skip(usize::try_from(first).unwrap_or(usize::MAX));
        slabs.map_while(move |(index, memory)| {
            let start = SLAB_BYTES * index as u64;
            let from = place.max(start);
            let until = end.min(start + SLAB_BYTES);
            let inside = |place: u64| usize::try_from(place - start).unwrap_or(usize::MAX);
            if from >= until {
                return None;
            }
            Some((memory.get()?, inside(from)..inside(until)))
        })
    }

    /// Copies up to `step` bytes from the place `filled` on into the slab that it lies in; tells the new
    /// place.
    fn fill(
        &self,
        filled: u64,
        step: u64,
        memory: &dyn SlabMemory,
        from: &Exported,
    ) -> Result<u64, ExportError> {
        let slab_start = filled - filled % SLAB_BYTES;
        let end = (filled + step).min(slab_start + SLAB_BYTES).min(self.bytes);
        let mut at = 0;
        let mut filled = filled;
        for extent in &self.extents {
            let behind = at + extent.len();
            while filled < behind.min(end) {
                let addr = SeedAddr(extent.start.0 + (filled - at));
                let len = usize::try_from(behind.min(end) - filled).unwrap_or(usize::MAX);
                let place = usize::try_from(filled - slab_start).unwrap_or(usize::MAX);
                from.copy_into(memory, place..place + len, addr)?;
                filled += len as u64;
            }
            at = behind;
            if filled >= end {
                break;
            }
        }
        Ok(filled)
    }
}

impl RegisteredSlab {
    fn told(&self) -> Slab {
        let (rkey, iova) = (self.registration.rkey(), self.registration.iova());
        Slab { rkey, iova, len: SLAB_BYTES }
    }
}

/// Slabs that so many bytes take.
fn slabs_of(bytes: u64) -> usize {
    usize::try_from(bytes.div_ceil(SLAB_BYTES)).unwrap_or(usize::MAX)
}

/// The thread that fills: one step of each seed in turn, so that a large one does not hold up a small one.
fn fill_all(arena: &Shared) {
    let _ = match arena.card.is_read_by_others() {
        true => sched::set_nice(NICE),
        // The seed serves as well itself: a copy is worth time that nobody else wants.
        false => sched::run_when_idle(),
    };
    while let Some(copy) = arena.next() {
        let bytes = copy.bytes;
        match arena.step(&copy) {
            Step::More => arena.state.lock().copies.push_back((Instant::now(), copy)),
            Step::Whole => {
                copy.slabs.lock().from = None;
                tracing::debug!(bytes, "a seed lies in the arena");
            }
            Step::Over(reason) => {
                copy.slabs.lock().from = None;
                let filled = copy.filled.load(Ordering::Relaxed);
                tracing::debug!(filled, bytes, %reason, "a seed lies in the arena in part");
            }
        }
        if let Err(error) = arena.make_ready() {
            tracing::warn!(%error, "fewer slabs of the arena are ready than shall be");
        }
    }
}

#[cfg(test)]
#[path = "arena_tests.rs"]
mod tests;
