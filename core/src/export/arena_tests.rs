use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::*;
use crate::export::stand_in::{StandIn, expected};
use crate::export::{ArenaState, Exports, ProcessExport};
use crate::id::{ReadKey, SeedId};

/// A card whose slabs are files, so that a test can read what another host would.
#[derive(Debug, Default)]
struct FileCard {
    known: Known,
    next: AtomicU64,
    /// Filling waits for it.
    gate: Arc<Mutex<()>>,
}

/// Registered slabs, by iova.
type Known = Arc<Mutex<BTreeMap<u64, Arc<FileSlab>>>>;

#[derive(Debug)]
struct FileSlab(File, Arc<Mutex<()>>);

#[derive(Debug)]
struct FileMr {
    known: Known,
    iova: u64,
}

impl Card for FileCard {
    fn slab(&self, bytes: u64) -> Result<RegisteredSlab, CardError> {
        assert_eq!(bytes, SLAB_BYTES);
        let memory = Arc::new(FileSlab(tempfile::tempfile().unwrap(), self.gate.clone()));
        let iova = (1 + self.next.fetch_add(1, Ordering::Relaxed)) << 32;
        self.known.lock().insert(iova, memory.clone());
        let registration = Box::new(FileMr { known: self.known.clone(), iova });
        Ok(RegisteredSlab { registration, memory })
    }
}

impl SlabMemory for FileSlab {
    fn fill(&self, range: Range<usize>, file: &File, from: u64) -> io::Result<()> {
        let mut bytes = vec![0; range.len()];
        file.read_exact_at(&mut bytes, from)?;
        let half = bytes.len() / 2;
        self.0.write_all_at(&bytes[..half], range.start as u64)?;
        drop(self.1.lock());
        self.0.write_all_at(&bytes[half..], (range.start + half) as u64)
    }
    fn read(&self, from: usize, into: &mut [u8]) {
        self.0.read_exact_at(into, from as u64).unwrap();
    }
    fn send(&self, range: Range<usize>, mut socket: &TcpStream) -> io::Result<usize> {
        let mut bytes = vec![0; range.len()];
        self.0.read_exact_at(&mut bytes, range.start as u64)?;
        io::Write::write(&mut socket, &bytes)
    }
}

impl Registration for FileMr {
    fn rkey(&self) -> u32 {
        u32::try_from(self.iova >> 32).unwrap()
    }
    fn iova(&self) -> u64 {
        self.iova
    }
}

impl Drop for FileMr {
    fn drop(&mut self) {
        self.known.lock().remove(&self.iova);
    }
}

/// An arena of these limits, in slabs, and what its card knows.
fn arena(ready: u64, most: u64) -> (Arena, Known) {
    let card = FileCard::default();
    let known = card.known.clone();
    let limits = ArenaLimits { ready: ready * SLAB_BYTES, most: most * SLAB_BYTES };
    (Arena::start(Arc::new(card), limits).unwrap(), known)
}

fn export(
    exports: &Arc<Exports>,
    seed: &StandIn,
    arena: &Arena,
    readable: Vec<SeedRange>,
) -> (SeedId, ArenaMap) {
    let (id, read_key) = (SeedId::random(), ReadKey::random());
    let copy = arena.lay(readable.clone());
    let map = copy.map();
    exports.add(id, ProcessExport { mem: seed.mem(), readable, read_key, arena: Some(copy) });
    (id, map)
}

/// The news until nothing more follows: all slabs, and what is filled.
fn told(exports: &Exports, seed: SeedId, map: &ArenaMap) -> (Vec<Slab>, u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let (mut slabs, mut filled) = (map.slabs.clone(), 0);
    loop {
        let state = exports.arena_news(seed, slabs.len(), filled);
        let has_news = state.news.is_some();
        if let Some(news) = state.news {
            slabs.extend(news.slabs);
            assert!(news.filled > filled);
            filled = news.filled;
        }
        if state.is_done && !has_news {
            return (slabs, filled);
        }
        assert!(Instant::now() < deadline, "the arena is not filled");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a card reads in the arena.
fn bytes_at(known: &Known, slabs: &[Slab], mut at: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let slab = slabs[usize::try_from(at / SLAB_BYTES).unwrap()];
        let inside = at % SLAB_BYTES;
        let take = (len - bytes.len()).min(usize::try_from(SLAB_BYTES - inside).unwrap());
        let mut part = vec![0; take];
        known.lock()[&slab.iova].0.read_exact_at(&mut part, inside).unwrap();
        bytes.extend(part);
        at += take as u64;
    }
    bytes
}

#[test]
fn a_seed_is_filled_over_slabs_and_gaps_and_its_slabs_are_its_own() {
    let exports = Exports::new();
    let seed = StandIn::start(2 * SLAB_BYTES + 8192);
    let base = seed.range().start.0;
    // A gap of a page: what stands behind it moves up in the arena.
    let readable = vec![
        SeedRange::new(base, base + 4096),
        SeedRange::new(base + 8192, base + 2 * SLAB_BYTES + 8192),
    ];
    let (arena, known) = arena(1, 8);
    let (id, map) = export(&exports, &seed, &arena, readable);
    assert_eq!(map.slabs.len(), 1);
    let (slabs, filled) = told(&exports, id, &map);
    assert_eq!((slabs.len(), filled), (3, 2 * SLAB_BYTES + 4096));
    assert_eq!(bytes_at(&known, &slabs, 0, 4096), expected(0, 4096));
    let (at, len) = (SLAB_BYTES - 5000, 10_000);
    assert_eq!(bytes_at(&known, &slabs, at, len), expected(at + 4096, len));
    assert_eq!(bytes_at(&known, &slabs, filled - 100, 100), expected(filled + 4096 - 100, 100));
    let rkeys: BTreeSet<u32> = slabs.iter().map(|slab| slab.rkey).collect();
    assert_eq!(rkeys.len(), 3);

    exports.revoke(id);
    let left = known.lock();
    assert!(
        slabs.iter().all(|slab| !left.contains_key(&slab.iova)),
        "a revoked slab is registered"
    );
    drop(left);
    assert_eq!(exports.arena_news(id, 0, 0), ArenaState { news: None, is_done: true });
}

#[test]
fn beyond_the_limit_a_seed_is_filled_in_part_and_what_ends_makes_room() {
    let exports = Exports::new();
    let seed = StandIn::start(3 * SLAB_BYTES);
    let (arena, _) = arena(0, 2);
    let (first, map) = export(&exports, &seed, &arena, vec![seed.range()]);
    assert_eq!(told(&exports, first, &map).1, 2 * SLAB_BYTES);
    let (second, map) = export(&exports, &seed, &arena, vec![seed.range()]);
    assert_eq!(told(&exports, second, &map), (vec![], 0));
    exports.remove(first);
    exports.remove(second);
    let (third, map) = export(&exports, &seed, &arena, vec![seed.range()]);
    assert_eq!(told(&exports, third, &map).1, 2 * SLAB_BYTES);
    assert_eq!(arena.bytes(), 2 * SLAB_BYTES);
}

/// At the limit a seed lies there whole; one page past it that page is left to the page service.
#[test]
fn the_limit_is_exact() {
    let exports = Exports::new();
    let seed = StandIn::start(2 * SLAB_BYTES + 4096);
    let (arena, _) = arena(0, 2);
    let start = seed.range().start.0;
    for (bytes, lies_there) in
        [(2 * SLAB_BYTES, 2 * SLAB_BYTES), (2 * SLAB_BYTES + 4096, 2 * SLAB_BYTES)]
    {
        let (id, map) = export(&exports, &seed, &arena, vec![SeedRange::new(start, start + bytes)]);
        assert_eq!(told(&exports, id, &map).1, lies_there, "of {bytes} bytes");
        assert_eq!(arena.bytes(), 2 * SLAB_BYTES);
        exports.remove(id);
        assert_eq!(arena.bytes(), 0);
    }
}

/// What is told to others is whole: not a byte of a step that is still being copied, nor a slab of which
/// nothing is in place.
#[test]
fn what_is_not_whole_is_not_told() {
    let exports = Exports::new();
    let seed = StandIn::start(4 * STEP_BYTES);
    let card = FileCard::default();
    let gate = card.gate.clone();
    let known = card.known.clone();
    let limits = ArenaLimits { ready: 0, most: SLAB_BYTES };
    let arena = Arena::start(Arc::new(card), limits).unwrap();
    let closed = gate.lock();
    let (id, map) = export(&exports, &seed, &arena, vec![seed.range()]);
    assert_eq!(map.slabs, [], "nothing is told before something is there");
    // The filling thread stands in the middle of its first step.
    let deadline = Instant::now() + Duration::from_secs(20);
    while known.lock().is_empty() {
        assert!(Instant::now() < deadline, "no slab is made");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(exports.arena_news(id, 0, 0), ArenaState { news: None, is_done: false });
    drop(closed);
    let (slabs, filled) = told(&exports, id, &map);
    assert_eq!((slabs.len(), filled), (1, 4 * STEP_BYTES));
    let len = usize::try_from(filled).unwrap();
    assert_eq!(bytes_at(&known, &slabs, 0, len), expected(0, len));
}

/// A process that is not frozen has no arena: `lay` gives out memory of the agent's own, and what fills it is
/// the mem file of the export that it is added with. What the seed's parent writes afterwards is not seen.
#[test]
fn what_was_copied_does_not_change() {
    let exports = Exports::new();
    let mut seed = StandIn::start(SLAB_BYTES);
    let (arena, known) = arena(0, 2);
    let (id, map) = export(&exports, &seed, &arena, vec![seed.range()]);
    let (slabs, filled) = told(&exports, id, &map);
    let len = usize::try_from(filled).unwrap();
    seed.kill();
    assert_eq!(bytes_at(&known, &slabs, 0, len), expected(0, len), "it is a copy");
    let iovas: BTreeSet<u64> = slabs.iter().map(|slab| slab.iova).collect();
    exports.remove(id);
    // The memory is never given to another seed under the same key.
    let second = StandIn::start(SLAB_BYTES);
    let (id, map) = export(&exports, &second, &arena, vec![second.range()]);
    let (slabs, _) = told(&exports, id, &map);
    assert!(slabs.iter().all(|slab| !iovas.contains(&slab.iova)));
}

#[test]
fn a_seed_that_ends_while_it_is_copied_is_told_as_far_as_it_came() {
    let exports = Exports::new();
    let mut seed = StandIn::start(4 * SLAB_BYTES);
    let (arena, _) = arena(1, 8);
    seed.kill();
    let gone = vec![SeedRange::new(0x1000, 0x2000)];
    let copy = arena.lay(gone.clone());
    let map = copy.map();
    let id = SeedId::random();
    let mem = tempfile::tempfile().unwrap();
    let read_key = ReadKey::random();
    exports.add(id, ProcessExport { mem, readable: gone, read_key, arena: Some(copy) });
    assert_eq!(told(&exports, id, &map).1, 0);
}

#[test]
fn slabs_are_ready_again_after_they_were_given_out() {
    let (arena, known) = arena(2, 8);
    assert_eq!(known.lock().len(), 2);
    let exports = Exports::new();
    let seed = StandIn::start(SLAB_BYTES);
    let (id, map) = export(&exports, &seed, &arena, vec![seed.range()]);
    assert_eq!(map.slabs.len(), 1);
    told(&exports, id, &map);
    let deadline = Instant::now() + Duration::from_secs(20);
    while known.lock().len() < 3 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    exports.remove(id);
    assert_eq!(known.lock().len(), 2);
}

/// A card without a device: memory as the agent's, registered with nobody.
#[derive(Debug)]
struct NoCard;

#[derive(Debug)]
struct NoMr(u64);

impl Card for NoCard {
    fn slab(&self, bytes: u64) -> Result<RegisteredSlab, CardError> {
        let memory = crate::verbs::Region::new(usize::try_from(bytes).unwrap()).unwrap();
        Ok(RegisteredSlab { registration: Box::new(NoMr(memory.address())), memory })
    }
}

impl Registration for NoMr {
    fn rkey(&self) -> u32 {
        1
    }
    fn iova(&self) -> u64 {
        self.0
    }
}

/// Time and memory that the copy of a seed takes; what a card's driver adds for each registration is not in it.
#[test]
#[ignore = "a measurement: run it with --release --nocapture"]
fn the_cost_of_a_gibibyte() {
    const GIB: u64 = 1 << 30;
    const ROUNDS: usize = 5;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    let exports = Exports::new();
    let seed = StandIn::start(GIB);
    let limits = ArenaLimits { ready: 0, most: 2 * GIB };
    let arena = Arena::start(Arc::new(NoCard), limits).unwrap();
    let mut times = Vec::new();
    let mut grown = Vec::new();
    for _ in 0..ROUNDS {
        let before = resident();
        let begun = Instant::now();
        let (id, map) = export(&exports, &seed, &arena, vec![seed.range()]);
        assert_eq!(told(&exports, id, &map).1, GIB);
        times.push(begun.elapsed());
        grown.push(resident() - before);
        exports.remove(id);
    }
    times.sort_unstable();
    grown.sort_unstable();
    println!(
        "arena: 1 GiB copied in {:?} (median of {ROUNDS}, {:?} .. {:?}), memory of the agent grown by {} MiB",
        times[ROUNDS / 2],
        times[0],
        times[ROUNDS - 1],
        grown[ROUNDS / 2]
    );
}
