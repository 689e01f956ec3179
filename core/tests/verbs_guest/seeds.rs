//! Seeds whose memory is this process's own, in an arena on the card; and how READs of them end.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mitosis::descriptor::{ArenaMap, ArenaNews, SeedRange, Slab};
use mitosis::export::arena::{Arena, ArenaCopy, ArenaLimits, Door, SLAB_BYTES};
use mitosis::export::{Exports, ProcessExport};
use mitosis::fabric::{Buffer, ReadError, ReadQueue, RemoteArena};
use mitosis::id::{ReadKey, SeedId};
use mitosis::sys::poll;
use mitosis::verbs::{Pd, Region};

use crate::PAGE;

/// Nothing here takes as long.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a seed: less than a slab, more than READs at a time.
pub const SEED_BYTES: usize = 2 << 20;

/// Who has seeds.
pub struct Owner {
    pub exports: Arc<Exports>,
    arena: Arena,
}

/// A seed whose memory is this process's own. Dropped, it makes room in the arena.
pub struct Seed {
    exports: Arc<Exports>,
    pub id: SeedId,
    salt: usize,
    pub range: SeedRange,
    map: ArenaMap,
    pub remote: Arc<RemoteArena>,
    _memory: Arc<Region>,
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.exports.remove(self.id);
    }
}

pub type Ended = BTreeMap<u64, (Result<(), ReadError>, Buffer)>;

impl Owner {
    pub fn new(pd: &Arc<Pd>) -> Self {
        let limits = ArenaLimits { ready: SLAB_BYTES, most: 8 * SLAB_BYTES };
        let arena = Arena::start(Arc::new(pd.clone()), limits).expect("an arena");
        Owner { exports: Exports::new(), arena }
    }

    /// A seed that lies in the arena whole.
    pub fn seed(&self, salt: usize) -> Seed {
        self.seed_behind(salt, None)
    }

    /// One that is READ by a door, which closes when it is revoked.
    pub fn seed_behind(&self, salt: usize, door: Option<Box<dyn Door>>) -> Seed {
        let memory = Region::new(SEED_BYTES).expect("memory");
        memory.write(0, &(0..SEED_BYTES).map(|at| byte(salt, at)).collect::<Vec<u8>>());
        let start = memory.address();
        let range = SeedRange::new(start, start + SEED_BYTES as u64);
        let (id, read_key) = (SeedId::random(), ReadKey::random());
        let copy = self.arena.lay(vec![range]);
        let copy = door.into_iter().fold(copy, ArenaCopy::behind);
        let map = copy.map();
        let mem = File::open("/proc/self/mem").expect("this process's memory");
        let export = ProcessExport { mem, readable: vec![range], read_key, arena: Some(copy) };
        self.exports.add(id, export);
        let remote = Arc::new(RemoteArena::new(&map));
        let began = Instant::now();
        let (mut known, mut filled) = (map.slabs.clone(), 0);
        while filled < SEED_BYTES as u64 {
            assert!(began.elapsed() < PATIENCE, "the arena is not filled");
            if let Some(news) = self.exports.arena_news(id, known.len(), filled).news {
                remote.tell(&news).expect("news");
                known.extend(news.slabs);
                filled = news.filled;
            }
        }
        let map = ArenaMap { slabs: known, ..map };
        let exports = self.exports.clone();
        Seed { exports, id, salt, range, map, remote, _memory: memory }
    }
}

/// What a peer would know of `seed` if its owner had told it this of each slab.
pub fn lie(seed: &Seed, of: impl Fn(&mut Slab)) -> Arc<RemoteArena> {
    let mut map = seed.map.clone();
    map.slabs.iter_mut().for_each(of);
    let arena = RemoteArena::new(&map);
    let filled = SEED_BYTES as u64;
    arena.tell(&ArenaNews { slabs: vec![], filled }).expect("news");
    Arc::new(arena)
}

/// Byte `at` of a seed's memory.
fn byte(salt: usize, at: usize) -> u8 {
    u8::try_from((at / PAGE * 7 + at + salt * 19) % 253).expect("below 253")
}

pub fn assert_is(seed: &Seed, at: usize, bytes: &[u8]) {
    let wrong = bytes.iter().enumerate().find(|(i, got)| **got != byte(seed.salt, at + i));
    assert_eq!(wrong, None, "in {} bytes at {at}", bytes.len());
}

/// Waits, asleep, until `count` READs have ended.
pub fn reap(queue: &mut dyn ReadQueue, count: usize) -> Ended {
    let began = Instant::now();
    let mut ended = Ended::new();
    loop {
        queue.reap(&mut |done| {
            ended.insert(done.tag, (done.result, done.buffer));
        });
        if ended.len() >= count {
            return ended;
        }
        assert!(began.elapsed() < PATIENCE, "{} of {count} have ended", ended.len());
        let mut fds = Vec::new();
        queue.poll_fds(&mut fds);
        poll::readable(&fds, Some(Duration::from_millis(20))).expect("poll");
    }
}
