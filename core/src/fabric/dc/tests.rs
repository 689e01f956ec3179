//! Queues over initiators that stand in for a card's: lanes, batches, and what becomes of READs when one fails.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::card::{DcCard, Initiator};
use super::link::Target;
use super::*;
use crate::descriptor::{ArenaMap, ArenaNews, SeedAddr, SeedRange, Slab};
use crate::fabric::landings::Landings;
use crate::fabric::local::always_readable;
use crate::fabric::{Buffer, Completion, Read, RemoteArena};
use crate::id::{DcKey, SeedId};
use crate::verbs::stand_in::{StandInQp, buffers};
use crate::verbs::{Destroyed, DmaPool, Error, PostError, Wc, WcStatus};

const PAGE: u32 = 4096;
/// Nothing here takes as long; what does hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A network of targets that answer, are silent or refuse, and what it has seen.
#[derive(Debug, Default)]
struct Net {
    /// How READs of a target end, if not well; `None`: never.
    ends: HashMap<u32, Option<WcStatus>>,
    /// Each doorbell: the initiator, and target and stream of each READ.
    doorbells: Vec<(u32, Vec<(u32, u16)>)>,
    /// Each initiator that was mended, with the streams that had failed.
    mended: Vec<(u32, Vec<u16>)>,
    destroyed: Vec<u32>,
    made: usize,
    streams: u16,
    /// READs are answered.
    answers: bool,
}

#[derive(Clone, Debug)]
struct StandInCard(Arc<Mutex<Net>>);

#[derive(Debug)]
struct StandInInitiator {
    net: Arc<Mutex<Net>>,
    qp: StandInQp,
    /// The target and the stream of each READ that is posted, the oldest first.
    goals: Vec<(u32, u16)>,
    /// What has failed: this stream, or all.
    failed: BTreeSet<u16>,
    ready: UnixStream,
}

impl DcCard for StandInCard {
    type Initiator = StandInInitiator;

    fn initiator(&self) -> Result<StandInInitiator, Error> {
        self.0.lock().made += 1;
        Ok(StandInInitiator {
            net: self.0.clone(),
            qp: StandInQp::new(),
            goals: Vec::new(),
            failed: BTreeSet::new(),
            ready: always_readable().unwrap(),
        })
    }

    fn way(&self, to: Place) -> Result<u8, Error> {
        Ok(to.gid[15])
    }

    fn streams(&self) -> u16 {
        self.0.lock().streams
    }
}

impl Initiator for StandInInitiator {
    type Way = u8;

    fn post(&mut self, landings: &mut Landings<Target<u8>>) -> Result<usize, PostError> {
        let mut goals = Vec::new();
        let posted = self.qp.post(|batch| {
            landings.add_all(|id, from, target, landing, range| {
                assert_eq!(target.place.gid[15], target.way);
                goals.push((target.dctn.number(), target.stream));
                batch.read(id, from, landing, &range)
            })
        })?;
        self.goals.extend(&goals);
        self.net.lock().doorbells.push((self.qp.number(), goals));
        Ok(posted)
    }

    /// As a card does: in order, and behind a failure all is flushed that is not on another stream.
    fn take<'wcs>(&mut self, wcs: &'wcs mut [Wc]) -> Result<&'wcs [Wc], Error> {
        let net = self.net.lock();
        while net.answers && self.qp.outstanding() > 0 {
            let (dctn, stream) = self.goals[0];
            let status = match net.ends.get(&dctn) {
                _ if self.failed.contains(&stream) => WcStatus::FLUSHED,
                _ if net.streams == 0 && !self.failed.is_empty() => WcStatus::FLUSHED,
                None => WcStatus::SUCCESS,
                Some(None) => break,
                Some(Some(status)) => {
                    self.failed.insert(stream);
                    *status
                }
            };
            self.goals.remove(0);
            self.qp.complete(status);
        }
        Ok(self.qp.take(wcs))
    }

    fn poll_fd(&self) -> RawFd {
        self.ready.as_raw_fd()
    }

    fn mend(&mut self, wounds: super::streams::Wounds) -> Result<(), Error> {
        assert_eq!(self.qp.outstanding(), 0, "it is drained first");
        let streams: Vec<u16> = wounds.streams().collect();
        assert_eq!(streams, Vec::from_iter(std::mem::take(&mut self.failed)));
        self.net.lock().mended.push((self.qp.number(), streams));
        Ok(())
    }

    fn destroy(self) -> Option<Destroyed> {
        self.net.lock().destroyed.push(self.qp.number());
        Some(self.qp.destroy())
    }
}

/// A fabric on a stand-in, and seeds to READ by it.
struct World {
    net: Arc<Mutex<Net>>,
    pool: Arc<Pool<DciMaker<StandInCard>>>,
    buffers: Arc<DmaPool>,
    arenas: HashMap<u32, Arc<RemoteArena>>,
}

impl World {
    fn new(streams: u16) -> World {
        let net = Arc::new(Mutex::new(Net { streams, answers: true, ..Net::default() }));
        let maker = DciMaker::new(StandInCard(net.clone())).unwrap();
        let limits = Limits { connections_per_peer: INITIATORS_PER_LANE, ..Limits::default() };
        let pool = Pool::with_hand(maker, limits).unwrap();
        STOCK.iter().for_each(|lane| pool.stock(&(*lane).into()).unwrap());
        World { net, pool, buffers: buffers(256, PAGE as usize), arenas: HashMap::new() }
    }

    fn queue(&self) -> Box<dyn ReadQueue> {
        Box::new(Queue::<DcLink<StandInCard>>::new(self.pool.clone()))
    }

    /// A page of the seed behind this target.
    fn read(&mut self, dctn: u32) -> Read {
        let arena = self.arenas.entry(dctn).or_insert_with(|| {
            let slab = Slab { rkey: dctn, iova: 1 << 32, len: 1 << 20 };
            let extents = vec![SeedRange::new(0x1000, 0x10_1000)];
            let arena = RemoteArena::new(&ArenaMap { extents, slabs: vec![slab] });
            arena.tell(&ArenaNews { slabs: Vec::new(), filled: 1 << 20 }).unwrap();
            Arc::new(arena)
        });
        let mut gid = [0; 16];
        gid[15] = u8::try_from(dctn % 5).unwrap();
        let target = DcTarget { gid, lid: 0, dctn, dc_key: DcKey([1; 8]) };
        Read {
            tag: u64::from(dctn),
            seed: SeedId(u64::from(dctn)),
            export: Export::Dc(target),
            arena: Some(arena.clone()),
            ranges: vec![(SeedAddr(0x1000), PAGE)],
            buffer: Buffer::from(self.buffers.take().unwrap()),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// Posts a READ that can be.
    fn post(&mut self, queue: &mut dyn ReadQueue, dctn: u32) {
        let begun = Instant::now();
        while let Err(refused) = queue.post(self.read(dctn)) {
            assert_eq!(refused.error, ReadError::NotYet);
            assert!(begun.elapsed() < PATIENCE, "the way to {dctn} is never found");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What is said at once of a READ that cannot be.
    fn refused(&mut self, queue: &mut dyn ReadQueue, dctn: u32) -> ReadError {
        queue.post(self.read(dctn)).expect_err("it cannot be").error
    }

    fn mended(&self, count: usize) {
        let begun = Instant::now();
        while self.net.lock().mended.len() < count {
            assert!(begun.elapsed() < PATIENCE, "{:?}", self.net.lock().mended);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The next completions, by tag.
fn ends(queue: &mut dyn ReadQueue, count: usize) -> Vec<(u64, Result<(), ReadError>)> {
    let begun = Instant::now();
    let mut ended = Vec::new();
    while ended.len() < count {
        queue.reap(&mut |Completion { tag, buffer, result }| {
            assert_eq!(buffer.len(), PAGE as usize, "the buffer comes back");
            ended.push((tag, result));
        });
        assert!(begun.elapsed() < PATIENCE, "only {ended:?}");
    }
    ended
}

fn is_silent(end: &Result<(), ReadError>) -> bool {
    matches!(end, Err(ReadError::Unreachable(text)) if text.contains("RETRY_EXC_ERR"))
}

#[test]
fn a_batch_is_one_doorbell_and_sorted_by_target() {
    let mut world = World::new(0);
    let mut queue = world.queue();
    world.net.lock().answers = false;
    for dctn in [9, 4, 9, 5, 4, 9] {
        world.post(&mut *queue, dctn);
    }
    queue.flush();
    world.net.lock().answers = true;
    ends(&mut *queue, 6);
    let doorbells = &world.net.lock().doorbells;
    let order: Vec<u32> = doorbells[0].1.iter().map(|(dctn, _)| *dctn).collect();
    // By host, then by target: 5 is on host 0, 4 and 9 are on host 4.
    assert_eq!((doorbells.len(), &order[..]), (1, &[5, 4, 4, 9, 9, 9][..]));
    let counted = world.pool.connector().counters().doorbells.posted();
    assert_eq!(counted, Posted { reads: 6, doorbells: 1 });
}

#[test]
fn a_hundred_seeds_of_five_hosts_need_the_same_initiators_as_one() {
    let mut world = World::new(0);
    let mut queues: Vec<_> = (0..20).map(|_| world.queue()).collect();
    for round in 0..5 {
        for (at, queue) in queues.iter_mut().enumerate() {
            for seed in 0..5 {
                let dctn = 1 + u32::try_from(round * 20 + at).unwrap() * 5 + seed;
                world.post(&mut **queue, dctn);
            }
            ends(&mut **queue, 5);
            queue.reap(&mut |_| {});
        }
    }
    assert_eq!(world.net.lock().made, STOCK.len());
    assert_eq!(world.pool.connector().book().known(), 5);
    assert_eq!(world.net.lock().doorbells.iter().map(|(_, reads)| reads.len()).sum::<usize>(), 500);
}

#[test]
fn queues_beyond_the_initiators_take_turns() {
    let mut world = World::new(0);
    let mut queues: Vec<_> = (0..30).map(|_| world.queue()).collect();
    world.net.lock().answers = false;
    let mut refused = 0;
    let mut posted = Vec::new();
    for (at, queue) in queues.iter_mut().enumerate() {
        let begun = Instant::now();
        loop {
            match queue.post(world.read(3)) {
                Ok(()) => break posted.push(at),
                Err(_) if begun.elapsed() > Duration::from_millis(50) => break refused += 1,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
    assert_eq!((posted.len(), refused), (INITIATORS_PER_LANE, 30 - INITIATORS_PER_LANE));
    world.net.lock().answers = true;
    for at in posted {
        ends(&mut *queues[at], 1);
        queues[at].reap(&mut |_| {});
    }
    // Those who wait have had theirs; so can each of them.
    for queue in &mut queues[..] {
        world.post(&mut **queue, 3);
        ends(&mut **queue, 1);
        queue.reap(&mut |_| {});
    }
    assert!(world.net.lock().made <= MAX_INITIATORS);
}

#[test]
fn a_silent_target_flushes_its_neighbours_once_and_is_read_apart_from_then_on() {
    let mut world = World::new(0);
    let mut queue = world.queue();
    world.net.lock().ends.insert(6, Some(WcStatus::RETRY_EXCEEDED));
    for dctn in [1, 6, 11] {
        world.post(&mut *queue, dctn);
    }
    let first = ends(&mut *queue, 3);
    assert_eq!(first[0], (1, Ok(())));
    assert!(first[1].0 == 6 && is_silent(&first[1].1), "{first:?}");
    assert_eq!(first[2], (11, Err(ReadError::Flushed)));
    // The neighbour is posted again, by another initiator or the same; the target rests.
    world.post(&mut *queue, 11);
    assert_eq!(ends(&mut *queue, 1), [(11, Ok(()))]);
    assert_eq!(world.refused(&mut *queue, 6), ReadError::NotYet);
    world.mended(1);
    let failed_on = world.net.lock().mended[0].0;
    assert_eq!(world.net.lock().made, STOCK.len());
    assert_eq!(world.net.lock().destroyed, []);
    assert_eq!(world.pool.connector().counters().flushed.load(Ordering::Relaxed), 1);

    // It is probed, and nobody else is on that initiator.
    world.net.lock().doorbells.clear();
    world.post(&mut *queue, 6);
    world.post(&mut *queue, 11);
    let mut second = ends(&mut *queue, 2);
    second.sort_by_key(|(tag, _)| *tag);
    assert!(is_silent(&second[0].1), "{second:?}");
    assert_eq!(second[1], (11, Ok(())), "it was not flushed");
    let doorbells = world.net.lock().doorbells.clone();
    let of = |dctn| doorbells.iter().find(|(_, reads)| reads[0].0 == dctn).unwrap().0;
    assert!(of(6) != of(11) && of(6) != failed_on, "{doorbells:?}");

    // It answers again, and is as good as any.
    world.net.lock().ends.clear();
    world.mended(2);
    world.post(&mut *queue, 6);
    assert_eq!(ends(&mut *queue, 1), [(6, Ok(()))]);
    world.post(&mut *queue, 6);
    assert_eq!(ends(&mut *queue, 1), [(6, Ok(()))]);
}

#[test]
fn a_seed_that_is_refused_is_not_read_by_the_card_again_and_others_are() {
    let mut world = World::new(0);
    let mut queue = world.queue();
    world.net.lock().ends.insert(2, Some(WcStatus::REMOTE_ACCESS));
    for dctn in [2, 7, 2] {
        world.post(&mut *queue, dctn);
    }
    let mut first = ends(&mut *queue, 3);
    first.sort_by_key(|(tag, _)| *tag);
    let refusals = first.iter().filter(|(_, end)| matches!(end, Err(ReadError::Revoked(_))));
    assert_eq!(refusals.count(), 1);
    assert_eq!(first[2], (7, Err(ReadError::Flushed)));
    assert_eq!(world.refused(&mut *queue, 2), ReadError::NotYet);
    for _ in 0..3 {
        world.post(&mut *queue, 7);
        assert_eq!(ends(&mut *queue, 1), [(7, Ok(()))]);
    }
    world.mended(1);
    assert_eq!(world.net.lock().mended.len(), 1, "one failure, one reset");
}

#[test]
fn where_streams_are_isolated_neighbours_are_not_flushed_and_the_stream_alone_is_reset() {
    let mut world = World::new(64);
    let mut queue = world.queue();
    world.net.lock().ends.insert(6, Some(WcStatus::RETRY_EXCEEDED));
    for dctn in [1, 6, 11, 6, 3] {
        world.post(&mut *queue, dctn);
    }
    let mut first = ends(&mut *queue, 5);
    first.sort_by_key(|(tag, _)| *tag);
    for (tag, end) in &first {
        match tag {
            6 => assert!(is_silent(end) || *end == Err(ReadError::Flushed)),
            _ => assert_eq!(*end, Ok(())),
        }
    }
    let reads = world.net.lock().doorbells[0].1.clone();
    let stream = |dctn| reads.iter().find(|(own, _)| *own == dctn).unwrap().1;
    let streams: BTreeSet<u16> = [1, 3, 6, 11].map(stream).into();
    assert_eq!(streams.len(), 4, "a stream a target: {reads:?}");
    assert!(reads.iter().filter(|(dctn, _)| *dctn == 6).all(|(_, own)| *own == stream(6)));
    world.mended(1);
    assert_eq!(world.net.lock().mended[0].1, [stream(6)]);
}

#[test]
fn a_read_past_its_deadline_ends_and_its_initiator_is_replaced() {
    let mut world = World::new(0);
    let mut queue = world.queue();
    world.net.lock().ends.insert(8, None);
    world.post(&mut *queue, 8);
    queue.reap(&mut |_| panic!("it has no answer"));
    let mut late = world.read(8);
    late.deadline = Instant::now() + Duration::from_millis(20);
    queue.post(late).unwrap();
    let mut both = ends(&mut *queue, 2);
    both.sort_by_key(|(_, end)| matches!(end, Err(ReadError::Flushed)));
    assert!(
        matches!(&both[0].1, Err(ReadError::Unreachable(text)) if text.contains("deadline")),
        "{both:?}"
    );
    assert_eq!(both[1], (8, Err(ReadError::Flushed)));
    assert_eq!(world.net.lock().destroyed.len(), 1, "nothing can land any more");
    let begun = Instant::now();
    while world.net.lock().made == STOCK.len() {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(world.refused(&mut *queue, 8), ReadError::NotYet, "it is a suspect now");
    world.post(&mut *queue, 1);
    assert_eq!(ends(&mut *queue, 1), [(1, Ok(()))]);
}

#[test]
fn a_peer_to_whom_no_way_is_known_is_not_waited_for() {
    let mut world = World::new(0);
    let mut queue = world.queue();
    assert_eq!(world.refused(&mut *queue, 1), ReadError::NotYet);
    world.post(&mut *queue, 1);
    assert_eq!(ends(&mut *queue, 1), [(1, Ok(()))]);
}

#[test]
fn a_buffer_that_no_card_knows_and_an_arena_that_is_not_there_are_not_read() {
    let mut world = World::new(0);
    let mut queue = world.queue();
    world.post(&mut *queue, 1);
    ends(&mut *queue, 1);
    let mut plain = world.read(1);
    plain.buffer = Buffer::unregistered(vec![0; PAGE as usize].into());
    let mut nowhere = world.read(1);
    nowhere.arena = None;
    let mut beyond = world.read(1);
    beyond.ranges = vec![(SeedAddr(0x10_1000), PAGE)];
    for read in [plain, nowhere, beyond] {
        assert_eq!(queue.post(read).unwrap_err().error, ReadError::NotYet);
    }
}
