//! The dc fabric from this host to itself: seeds behind targets, and READs of them as a pager makes them; each
//! fault that an owner or its card may have, and that the seeds beside it are READ on.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mitosis::descriptor::SeedAddr;
use mitosis::descriptor::{DcTarget, Export};
use mitosis::export::arena::Door;
use mitosis::export::dc::{DcTargets, TargetPort};
use mitosis::fabric::dc::{DcFabric, DcSettings};
use mitosis::fabric::{Buffer, Buffers, Fabric, Read, ReadError, ReadQueue, RemoteArena};
use mitosis::verbs::{DcCaps, Dctn, Gid, Patience};

use crate::here::Tally;
use crate::seeds::{Ended, Owner, PATIENCE, SEED_BYTES, Seed, assert_is, lie, reap};
use crate::{Bench, PAGE};

/// READs of another seed that stand behind the one that fails.
const NEIGHBOURS: u64 = 4;

struct World {
    owner: Owner,
    targets: DcTargets,
    fabric: Arc<DcFabric>,
    buffers: Arc<Buffers>,
    /// A failure leaves the READs of other targets alone.
    isolates: bool,
    /// READs that stood behind one that failed, and were flushed with it: of all that were refused, and of all
    /// that nobody answered.
    flushed: [Cell<u64>; 2],
}

/// A seed, and what a peer is told of its target.
struct Told {
    seed: Seed,
    target: DcTarget,
}

/// All cases, on a port that has DC.
pub fn run(bench: &Bench, caps: DcCaps, tally: &mut Tally) {
    let world = World::new(bench, caps);
    world.bytes_come_by_dc(tally);
    world.a_wrong_rkey_is_refused(tally);
    world.a_range_that_is_not_the_owners_is_refused(tally);
    world.a_registration_that_is_gone_is_refused(tally);
    world.a_wrong_dc_key_is_silence(tally);
    world.a_destroyed_target_is_silence(tally);
    world.a_dctn_of_more_than_24_bits_is_not_read(tally);
    world.a_revoked_seed_is_not_read_after_it(tally);
    world.an_answer_that_comes_late_finds_no_buffer(tally);
    for flushed in &world.flushed {
        assert_eq!(flushed.get() > 0, !world.isolates, "{} were flushed", flushed.get());
    }
}

impl World {
    fn new(bench: &Bench, caps: DcCaps) -> Self {
        let (path, mtu) = (bench.path(), bench.port.mtu);
        let streams = DcSettings::streams_of(caps.log_streams, caps.log_failed_streams);
        let settings = DcSettings {
            path,
            mtu,
            outstanding: caps.max_rd_atomic.clamp(1, 16),
            patience: Patience::PAGER,
            streams,
        };
        // Nobody's own place: what is READ here is this port's.
        let nowhere = (Gid::default(), 0);
        let fabric = DcFabric::new(bench.pd.clone(), settings, nowhere).expect("a fabric");
        let port = TargetPort::new(&bench.pd, path, mtu, bench.port.address());
        let targets = DcTargets::start(Box::new(port.expect("a port"))).expect("targets");
        let buffers = Buffers::registered(bench.pd.clone()).expect("buffers");
        let owner = Owner::new(&bench.pd);
        World {
            owner,
            targets,
            fabric,
            buffers,
            isolates: streams.is_some(),
            flushed: Default::default(),
        }
    }

    /// A target as a seed takes one; they are made with pauses.
    fn target(&self) -> (DcTarget, Box<dyn Door>) {
        let began = Instant::now();
        loop {
            if let Some(taken) = self.targets.take() {
                return (taken.told, taken.door);
            }
            assert!(began.elapsed() < PATIENCE, "no targets are made");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn seed(&self, salt: usize) -> Told {
        let (target, door) = self.target();
        Told { seed: self.owner.seed_behind(salt, Some(door)), target }
    }

    fn read(&self, tag: u64, told: &Told, at: usize, len: usize) -> Read {
        let addr = SeedAddr(told.seed.range.start.0 + at as u64);
        Read {
            tag,
            seed: told.seed.id,
            export: Export::Dc(told.target.clone()),
            arena: Some(told.seed.remote.clone()),
            ranges: vec![(addr, u32::try_from(len).expect("small"))],
            buffer: self.buffers.take(),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// READs a page until it is there: a pager posts again what was flushed, and takes another way while no
    /// initiator is ready.
    fn reads(&self, queue: &mut dyn ReadQueue, told: &Told) {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "its pages do not come");
            match queue.post(self.read(9, told, PAGE, PAGE)) {
                Ok(()) => match &reap(queue, 1)[&9] {
                    (Ok(()), buffer) => return assert_is(&told.seed, PAGE, &buffer[..PAGE]),
                    (Err(ReadError::Flushed), _) => {}
                    (Err(other), _) => panic!("{other}"),
                },
                Err(refused) => {
                    assert_eq!(refused.error, ReadError::NotYet);
                    queue.reap(&mut |_| {});
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    /// One READ that fails, with READs of a seed behind it that is well; how it fails, and after how long. What
    /// it flushes is posted again and comes, by an initiator of the same few. A READ that is posted when it has
    /// failed already, as on a loaded machine, has another initiator, and nothing is flushed.
    fn fails(&self, bad: Read, beside: &Told) -> (ReadError, Duration) {
        let mut queue = Fabric::queue(self.fabric.clone());
        self.reads(&mut *queue, beside);
        let (flushed, mended) = (self.fabric.numbers().flushed, self.fabric.numbers().mended);
        let (tag, began) = (bad.tag, Instant::now());
        assert!(tag < 2, "the neighbours have the numbers behind it");
        queue.post(bad).expect("to post");
        queue.flush();
        for tag in 2..2 + NEIGHBOURS {
            queue.post(self.read(tag, beside, 0, PAGE)).expect("to post");
        }
        let mut ended: Ended = reap(&mut *queue, 1 + usize::try_from(NEIGHBOURS).expect("small"));
        let took = began.elapsed();
        let (result, _) = ended.remove(&tag).expect("it has ended");
        let mut with_it = 0;
        for (tag, (result, buffer)) in &ended {
            match result {
                Ok(()) => assert_is(&beside.seed, 0, &buffer[..PAGE]),
                Err(ReadError::Flushed) => with_it += 1,
                Err(other) => panic!("neighbour {tag}: {other}"),
            }
        }
        assert_eq!(self.fabric.numbers().flushed - flushed, with_it);
        self.reads(&mut *queue, beside);
        let began = Instant::now();
        while self.fabric.numbers().mended == mended {
            assert!(began.elapsed() < PATIENCE, "the initiator is not mended");
            std::thread::sleep(Duration::from_millis(2));
        }
        let error = result.expect_err("it cannot be READ");
        self.flushed[usize::from(is_silence(&error))].update(|all| all + with_it);
        (error, took)
    }

    /// The card is not asked for this seed again: that would cost the others an initiator each time.
    fn is_not_asked_again(&self, told: &Told, arena: Option<&Arc<RemoteArena>>) {
        let mut again = self.read(1, told, 0, PAGE);
        again.arena = arena.cloned().or(again.arena);
        let mut queue = Fabric::queue(self.fabric.clone());
        assert_eq!(queue.post(again).unwrap_err().error, ReadError::NotYet);
    }

    fn bytes_come_by_dc(&self, tally: &mut Tally) {
        let (one, other) = (self.seed(1), self.seed(2));
        let mut queue = Fabric::queue(self.fabric.clone());
        self.reads(&mut *queue, &one);
        for (at, len) in [(0, PAGE), (PAGE + 8, 128 << 10), (SEED_BYTES - 1, 1)] {
            for (tag, told) in [(1, &one), (2, &other)] {
                queue.post(self.read(tag, told, at, len)).expect("to post");
            }
            let ended = reap(&mut *queue, 2);
            for (tag, told) in [(1, &one), (2, &other)] {
                assert_eq!(ended[&tag].0, Ok(()));
                assert_is(&told.seed, at, &ended[&tag].1[..len]);
            }
        }
        let numbers = self.fabric.numbers();
        assert!(numbers.ways == 1 && numbers.initiators <= 3, "{numbers:?}");
        tally.pass("dc_fabric_bytes_come_by_dc");
    }

    fn a_wrong_rkey_is_refused(&self, tally: &mut Tally) {
        let (liar, honest) = (self.seed(3), self.seed(4));
        let lying = lie(&liar.seed, |slab| slab.rkey ^= 0x5500);
        let mut bad = self.read(1, &liar, 0, PAGE);
        bad.arena = Some(lying.clone());
        let (error, _) = self.fails(bad, &honest);
        assert!(is_refusal(&error), "{error}");
        self.is_not_asked_again(&liar, Some(&lying));
        tally.pass("dc_fabric_a_wrong_rkey_is_refused");
    }

    fn a_range_that_is_not_the_owners_is_refused(&self, tally: &mut Tally) {
        let (liar, honest) = (self.seed(5), self.seed(6));
        // A slab further than the one it has; and the range ends outside.
        for shift in [0, 8] {
            let lying = lie(&liar.seed, |slab| slab.iova += slab.len - shift);
            let mut bad = self.read(1, &liar, 0, PAGE);
            bad.arena = Some(lying);
            let (error, _) = self.fails(bad, &honest);
            assert!(is_refusal(&error), "{error}");
        }
        tally.pass("dc_fabric_a_range_that_is_not_the_owners_is_refused");
    }

    /// The target outlives the memory behind it.
    fn a_registration_that_is_gone_is_refused(&self, tally: &mut Tally) {
        let honest = self.seed(7);
        let (target, _door) = self.target();
        let gone = Told { seed: self.owner.seed(8), target };
        self.owner.exports.revoke(gone.seed.id);
        let (error, took) = self.fails(self.read(1, &gone, 0, PAGE), &honest);
        assert!(is_refusal(&error), "{error}");
        println!("   registration gone: refused after {took:?}");
        self.is_not_asked_again(&gone, None);
        tally.pass("dc_fabric_a_registration_that_is_gone_is_refused");
    }

    /// A card may refuse it instead: no source says.
    fn a_wrong_dc_key_is_silence(&self, tally: &mut Tally) {
        let (mut liar, honest) = (self.seed(9), self.seed(10));
        liar.target.dc_key.0[7] ^= 1;
        let (error, took) = self.fails(self.read(1, &liar, 0, PAGE), &honest);
        println!("   wrong DC key: {error}, after {took:?}");
        assert!(is_silence(&error) || is_refusal(&error), "{error}");
        self.is_not_asked_again(&liar, None);
        tally.pass("dc_fabric_a_wrong_dc_key_is_silence");
    }

    fn a_destroyed_target_is_silence(&self, tally: &mut Tally) {
        let honest = self.seed(11);
        let (target, door) = self.target();
        let gone = Told { seed: self.owner.seed(12), target };
        drop(door);
        let (error, took) = self.fails(self.read(1, &gone, 0, PAGE), &honest);
        assert!(is_silence(&error), "{error}");
        let earliest = Patience::PAGER.time_to_notice();
        println!("   target gone: after {took:?}, by the arithmetic {earliest:?}");
        assert!(took >= earliest, "given up before its time");
        self.is_not_asked_again(&gone, None);
        tally.pass("dc_fabric_a_destroyed_target_is_silence");
    }

    fn a_dctn_of_more_than_24_bits_is_not_read(&self, tally: &mut Tally) {
        let mut wide = self.seed(13);
        wide.target.dctn = Dctn::MAX + 1;
        let mut queue = Fabric::queue(self.fabric.clone());
        let refused = queue.post(self.read(1, &wide, 0, PAGE)).unwrap_err();
        assert!(
            matches!(&refused.error, ReadError::Local(text) if text.contains("dctn")),
            "{}",
            refused.error
        );
        tally.pass("dc_fabric_a_dctn_of_more_than_24_bits_is_not_read");
    }

    /// As `drop --revoke` does it, target first: what is posted after it brings nothing.
    fn a_revoked_seed_is_not_read_after_it(&self, tally: &mut Tally) {
        let (revoked, honest) = (self.seed(14), self.seed(15));
        self.reads(&mut *Fabric::queue(self.fabric.clone()), &revoked);
        let began = Instant::now();
        self.owner.exports.revoke(revoked.seed.id);
        let revoked_after = began.elapsed();
        let (error, took) = self.fails(self.read(1, &revoked, 0, PAGE), &honest);
        assert!(is_silence(&error) || is_refusal(&error), "{error}");
        println!("   revoked in {revoked_after:?}; the READ behind it failed after {took:?}");
        tally.pass("dc_fabric_a_revoked_seed_is_not_read_after_it");
    }

    /// A READ is given up while its answer is on the way: its buffer is the owner's of something else then.
    fn an_answer_that_comes_late_finds_no_buffer(&self, tally: &mut Tally) {
        const MARK: u8 = 0xfd;
        const READS: u64 = 12;
        let told = self.seed(16);
        let mut queue = Fabric::queue(self.fabric.clone());
        self.reads(&mut *queue, &told);
        let len = 128 << 10;
        let is_late = |(result, buffer): (Result<(), ReadError>, Buffer)| match result {
            Err(ReadError::Unreachable(text)) if text.contains("deadline") => Some(buffer),
            Ok(()) => None,
            Err(other) => panic!("{other}"),
        };
        let mut late: Vec<Buffer> = Vec::new();
        let began = Instant::now();
        while late.is_empty() {
            assert!(began.elapsed() < PATIENCE, "all answers came in no time");
            for tag in 0..READS {
                let mut read = self.read(tag, &told, 0, len);
                read.deadline = Instant::now();
                queue.post(read).expect("to post");
            }
            let ended = reap(&mut *queue, usize::try_from(READS).expect("small"));
            late = ended.into_values().filter_map(is_late).collect();
        }
        late.iter_mut().for_each(|buffer| buffer.fill(MARK));
        std::thread::sleep(Duration::from_millis(300));
        let is_marked = |buffer: &Buffer| buffer.iter().all(|byte| *byte == MARK);
        assert!(late.iter().all(is_marked), "an answer came after the deadline");
        drop(late);
        // A READ that was late makes its target a suspect; another seed's is none.
        self.reads(&mut *Fabric::queue(self.fabric.clone()), &self.seed(17));
        tally.pass("dc_fabric_an_answer_that_comes_late_finds_no_buffer");
    }
}

fn is_refusal(error: &ReadError) -> bool {
    matches!(error, ReadError::Revoked(_))
}

fn is_silence(error: &ReadError) -> bool {
    matches!(error, ReadError::Unreachable(_))
}
