//! The rc fabric from this host to itself: an owner's arena, its listener, and READs of it as a pager makes
//! them; owners that lie, revoke and vanish; answers that come too late.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mitosis::descriptor::{ArenaMap, Export, RcEndpoint, SeedAddr, SeedRange};
use mitosis::export::arena::{Arena, ArenaLimits, SLAB_BYTES};
use mitosis::export::rc::RcService;
use mitosis::export::{Exports, PageService, ProcessExport};
use mitosis::fabric::rc::{RcFabric, RcSettings};
use mitosis::fabric::tcp::TokenSource;
use mitosis::fabric::{Buffer, Buffers, Fabric, Read, ReadError, ReadQueue, RemoteArena};
use mitosis::id::{ReadKey, SeedId, StreamToken};
use mitosis::sys::poll;
use mitosis::verbs::{Patience, Region};

use crate::here::Tally;
use crate::{Bench, PAGE};

/// Nothing here takes as long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a seed: less than a slab, more than READs at a time.
const SEED_BYTES: usize = 2 << 20;
/// READs that are outstanding at a time.
const OUTSTANDING: u8 = 16;
/// The agent that the tokens are of; nobody connects to it.
const AGENT: &str = "owner:7370";

/// An owner and its reader.
struct World {
    exports: Arc<Exports>,
    arena: Arena,
    service: Option<RcService>,
    endpoint: RcEndpoint,
    tokens: Arc<Tokens>,
    fabric: Arc<RcFabric>,
    buffers: Arc<Buffers>,
    said: Said,
}

/// Tokens of the owner's page service, or such as are none.
struct Tokens {
    pages: Arc<PageService>,
    are_wrong: AtomicBool,
}

impl TokenSource for Tokens {
    fn token(&self, agent: &str) -> Result<StreamToken, ReadError> {
        assert_eq!(agent, AGENT);
        match self.are_wrong.load(Ordering::SeqCst) {
            true => Ok(StreamToken::random()),
            false => Ok(self.pages.issue_token()),
        }
    }
}

/// A seed whose memory is this process's own. Dropped, it makes room in the arena.
struct Seed {
    exports: Arc<Exports>,
    id: SeedId,
    salt: usize,
    range: SeedRange,
    map: ArenaMap,
    remote: Arc<RemoteArena>,
    _memory: Arc<Region>,
}

impl Drop for Seed {
    fn drop(&mut self) {
        self.exports.remove(self.id);
    }
}

type Ended = BTreeMap<u64, (Result<(), ReadError>, Buffer)>;

/// All cases; what they leave behind is gone when this returns.
pub fn run(bench: &Bench, own: IpAddr, tally: &mut Tally) {
    let mut world = World::new(bench, own);
    world.bytes_come_by_the_card(tally);
    world.connections_are_shared_and_few(tally);
    world.a_wrong_key_is_refused_and_other_seeds_go_on(tally);
    world.a_range_that_is_not_the_owners_is_refused(tally);
    world.a_revoked_seed_is_refused_at_the_card(tally);
    world.a_seed_that_is_revoked_among_reads_takes_none_along(tally);
    world.an_answer_that_comes_late_finds_no_buffer(tally);
    world.an_owner_that_vanishes_and_comes_back(bench, own, tally);
    world.refusals_are_told_once_each(bench, own, tally);
}

impl World {
    fn new(bench: &Bench, own: IpAddr) -> Self {
        let exports = Exports::new();
        let pages = PageService::new(exports.clone());
        let limits = ArenaLimits { ready: SLAB_BYTES, most: 8 * SLAB_BYTES };
        let arena = Arena::start(Arc::new(bench.pd.clone()), limits).expect("an arena");
        let service = listen(bench, own, &pages);
        let endpoint = RcEndpoint::new(AGENT, service.address());
        let tokens = Arc::new(Tokens { pages, are_wrong: AtomicBool::new(false) });
        let settings =
            RcSettings { source: Some(own), outstanding: OUTSTANDING, patience: Patience::PAGER };
        let source: Arc<dyn TokenSource> = tokens.clone();
        let fabric = RcFabric::new(bench.pd.clone(), settings, source, None).expect("a fabric");
        let buffers = Buffers::registered(bench.pd.clone()).expect("buffers");
        let said = Said::listen();
        World { exports, arena, service: Some(service), endpoint, tokens, fabric, buffers, said }
    }

    /// A seed that lies in the arena whole.
    fn seed(&self, salt: usize) -> Seed {
        let memory = Region::new(SEED_BYTES).expect("memory");
        memory.write(0, &(0..SEED_BYTES).map(|at| byte(salt, at)).collect::<Vec<u8>>());
        let start = memory.address();
        let range = SeedRange::new(start, start + SEED_BYTES as u64);
        let (id, read_key) = (SeedId::random(), ReadKey::random());
        let copy = self.arena.lay(vec![range]);
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

    /// What a peer would know of `seed` if its owner had told it this of each slab.
    fn lie(&self, seed: &Seed, of: impl Fn(&mut mitosis::descriptor::Slab)) -> Arc<RemoteArena> {
        let mut map = seed.map.clone();
        map.slabs.iter_mut().for_each(of);
        let arena = RemoteArena::new(&map);
        let filled = SEED_BYTES as u64;
        arena.tell(&mitosis::descriptor::ArenaNews { slabs: vec![], filled }).expect("news");
        Arc::new(arena)
    }

    fn read(&self, tag: u64, seed: &Seed, at: usize, len: usize) -> Read {
        let addr = SeedAddr(seed.range.start.0 + at as u64);
        Read {
            tag,
            seed: seed.id,
            export: Export::Rc(self.endpoint.clone()),
            arena: Some(seed.remote.clone()),
            ranges: vec![(addr, u32::try_from(len).expect("small"))],
            buffer: self.buffers.take(),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// A queue that has a connection.
    fn connected(&self, seed: &Seed) -> Box<dyn ReadQueue> {
        let mut queue = Fabric::queue(self.fabric.clone());
        let began = Instant::now();
        while let Err(refused) = queue.post(self.read(0, seed, 0, PAGE)) {
            assert_eq!(refused.error, ReadError::NotYet);
            assert!(began.elapsed() < PATIENCE, "no connection; {:?}", self.said.all());
            queue.reap(&mut |_| {});
            std::thread::sleep(Duration::from_millis(2));
        }
        let ended = reap(&mut *queue, 1);
        assert_eq!(ended[&0].0, Ok(()));
        queue
    }

    /// READs a page until it is there: what another READ has flushed is posted again, as a pager does.
    fn reads_again(&self, queue: &mut dyn ReadQueue, seed: &Seed) {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "its pages do not come; {:?}", self.said.all());
            match queue.post(self.read(9, seed, PAGE, PAGE)) {
                Ok(()) => match &reap(queue, 1)[&9] {
                    (Ok(()), buffer) => return assert_is(seed, PAGE, &buffer[..PAGE]),
                    (Err(ReadError::Flushed | ReadError::Unreachable(_)), _) => {}
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

    fn bytes_come_by_the_card(&mut self, tally: &mut Tally) {
        let seed = self.seed(1);
        let mut queue = self.connected(&seed);
        for (at, len) in [(0, PAGE), (PAGE + 8, 128 << 10), (SEED_BYTES - 1, 1)] {
            queue.post(self.read(7, &seed, at, len)).expect("to post");
            let ended = reap(&mut *queue, 1);
            let (result, buffer) = &ended[&7];
            assert_eq!(*result, Ok(()));
            assert_is(&seed, at, &buffer[..len]);
        }
        // Beyond its end nothing is asked of the card.
        let beyond = queue.post(self.read(8, &seed, SEED_BYTES, PAGE)).unwrap_err();
        assert_eq!(beyond.error, ReadError::NotYet);
        tally.pass("bytes_come_by_the_card");
    }

    /// More pagers than a peer has connections: they take turns.
    fn connections_are_shared_and_few(&mut self, tally: &mut Tally) {
        const QUEUES: usize = 12;
        const READS: usize = 4;
        let seed = self.seed(13);
        let fabric = || Fabric::queue(self.fabric.clone());
        let mut queues: Vec<_> = (0..QUEUES).map(|_| (fabric(), 0, 0)).collect();
        let (began, mut most) = (Instant::now(), 0);
        while queues.iter().any(|(_, _, done)| *done < READS) {
            assert!(began.elapsed() < PATIENCE, "some pagers get no turn");
            for (queue, posted, done) in &mut queues {
                if *posted < READS && queue.post(self.read(0, &seed, 0, 32 << 10)).is_ok() {
                    *posted += 1;
                }
                queue.reap(&mut |ended| {
                    assert_eq!(ended.result, Ok(()));
                    assert_is(&seed, 0, &ended.buffer[..32 << 10]);
                    *done += 1;
                });
            }
            most = most.max(self.fabric.connections(self.endpoint.name()));
        }
        println!("   {QUEUES} pagers over {most} connections");
        assert!((1..=8).contains(&most), "{most}");
        tally.pass("connections_are_shared_and_few");
    }

    /// On one connection, so that what fails takes the others with it.
    fn a_wrong_key_is_refused_and_other_seeds_go_on(&mut self, tally: &mut Tally) {
        let (liar, honest) = (self.seed(2), self.seed(3));
        let mut queue = self.connected(&honest);
        let lying = self.lie(&liar, |slab| slab.rkey ^= 0x5500);
        let mut lie = self.read(1, &liar, 0, PAGE);
        lie.arena = Some(lying.clone());
        queue.post(lie).expect("to post");
        for tag in 2..6 {
            queue.post(self.read(tag, &honest, 0, PAGE)).expect("to post");
        }
        let ended = reap(&mut *queue, 5);
        let refused = ended[&1].0.clone().unwrap_err();
        assert!(
            matches!(&refused, ReadError::Revoked(text) if text.contains("its keys are not its own")),
            "{refused}"
        );
        for tag in 2..6 {
            assert!(
                matches!(ended[&tag].0, Ok(()) | Err(ReadError::Flushed)),
                "{:?}",
                ended[&tag].0
            );
        }
        self.reads_again(&mut *queue, &honest);
        // The liar is not asked again: that would flush the others each time.
        let mut again = self.read(1, &liar, 0, PAGE);
        again.arena = Some(lying);
        assert_eq!(queue.post(again).unwrap_err().error, ReadError::NotYet);
        let told = self.said.with(&["the owner's card refuses READs", &liar.id.to_string()]);
        assert_eq!(told, 1, "{:?}", self.said.all());
        tally.pass("a_wrong_key_is_refused_and_other_seeds_go_on");
    }

    fn a_range_that_is_not_the_owners_is_refused(&mut self, tally: &mut Tally) {
        let (liar, honest) = (self.seed(4), self.seed(5));
        let mut queue = self.connected(&honest);
        // A slab further than the one it has.
        let beyond = self.lie(&liar, |slab| slab.iova += slab.len);
        // And one whose last byte is the last but one's neighbour: the range ends outside.
        let across = self.lie(&liar, |slab| slab.iova += slab.len - 8);
        for (tag, arena) in [(1, beyond), (2, across)] {
            let mut read = self.read(tag, &liar, 0, PAGE);
            read.arena = Some(arena);
            queue.post(read).expect("to post");
            let ended = reap(&mut *queue, 1);
            assert!(matches!(ended[&tag].0, Err(ReadError::Revoked(_))), "{:?}", ended[&tag].0);
            self.reads_again(&mut *queue, &honest);
        }
        tally.pass("a_range_that_is_not_the_owners_is_refused");
    }

    fn a_revoked_seed_is_refused_at_the_card(&mut self, tally: &mut Tally) {
        let (revoked, honest) = (self.seed(6), self.seed(7));
        let mut queue = self.connected(&revoked);
        let began = Instant::now();
        self.exports.revoke(revoked.id);
        let took = began.elapsed();
        queue.post(self.read(1, &revoked, 0, PAGE)).expect("to post");
        let ended = reap(&mut *queue, 1);
        println!("   revoked in {took:?}, refused {:?} after it", began.elapsed());
        assert!(matches!(ended[&1].0, Err(ReadError::Revoked(_))), "{:?}", ended[&1].0);
        self.reads_again(&mut *queue, &honest);
        tally.pass("a_revoked_seed_is_refused_at_the_card");
    }

    /// Revoked while READs of it and of another are on their way: each ends, none with bytes that are wrong.
    fn a_seed_that_is_revoked_among_reads_takes_none_along(&mut self, tally: &mut Tally) {
        let (revoked, honest) = (self.seed(8), self.seed(9));
        let mut queue = self.connected(&honest);
        let len = 64 << 10;
        for tag in 0..32 {
            let seed = if tag % 2 == 0 { &revoked } else { &honest };
            let at = usize::try_from(tag).expect("small") * len % SEED_BYTES;
            queue.post(self.read(tag, seed, at, len)).expect("to post");
        }
        self.exports.revoke(revoked.id);
        let ended = reap(&mut *queue, 32);
        for (tag, (result, buffer)) in &ended {
            let seed = if tag % 2 == 0 { &revoked } else { &honest };
            match result {
                Ok(()) => {
                    let at = usize::try_from(*tag).expect("small") * len % SEED_BYTES;
                    assert_is(seed, at, &buffer[..len]);
                }
                Err(ReadError::Revoked(_)) => assert_eq!(seed.id, revoked.id, "READ {tag}"),
                Err(ReadError::Flushed) => {}
                Err(other) => panic!("READ {tag}: {other}"),
            }
        }
        self.reads_again(&mut *queue, &honest);
        tally.pass("a_seed_that_is_revoked_among_reads_takes_none_along");
    }

    /// A READ is given up while its answer is on the way: its buffer is the owner's of something else then.
    fn an_answer_that_comes_late_finds_no_buffer(&mut self, tally: &mut Tally) {
        const MARK: u8 = 0xfd;
        let seed = self.seed(10);
        let mut queue = self.connected(&seed);
        let len = 128 << 10;
        for tag in 0..12 {
            let at = usize::try_from(tag).expect("small") * len % SEED_BYTES;
            let mut read = self.read(tag, &seed, at, len);
            read.buffer[..len].fill(0);
            read.deadline = Instant::now();
            queue.post(read).expect("to post");
        }
        let ended = reap(&mut *queue, 12);
        let mut late: Vec<Buffer> = Vec::new();
        for (tag, (result, buffer)) in ended {
            match result {
                Ok(()) => {}
                Err(ReadError::Unreachable(text)) => {
                    assert!(text.contains("by the READ's deadline"), "{text}");
                    late.push(buffer);
                }
                Err(other) => panic!("READ {tag}: {other}"),
            }
        }
        assert!(!late.is_empty(), "all answers came in no time");
        println!("   {} READs of 12 were late", late.len());
        late.iter_mut().for_each(|buffer| buffer.fill(MARK));
        std::thread::sleep(Duration::from_millis(500));
        for buffer in &late {
            assert!(buffer.iter().all(|byte| *byte == MARK), "an answer came after the deadline");
        }
        drop(late);
        self.reads_again(&mut *queue, &seed);
        tally.pass("an_answer_that_comes_late_finds_no_buffer");
    }

    fn an_owner_that_vanishes_and_comes_back(
        &mut self,
        bench: &Bench,
        own: IpAddr,
        tally: &mut Tally,
    ) {
        let seed = self.seed(11);
        let mut queue = self.connected(&seed);
        for tag in 0..16 {
            queue.post(self.read(tag, &seed, 0, 128 << 10)).expect("to post");
        }
        self.service = None;
        for (tag, (result, buffer)) in reap(&mut *queue, 16) {
            match result {
                Ok(()) => assert_is(&seed, 0, &buffer[..128 << 10]),
                Err(ReadError::Flushed | ReadError::Unreachable(_)) => {}
                Err(other) => panic!("READ {tag}: {other}"),
            }
        }
        assert_eq!(queue.in_flight(), 0);
        let service = listen(bench, own, &self.tokens.pages);
        self.endpoint = RcEndpoint::new(AGENT, service.address());
        self.service = Some(service);
        self.reads_again(&mut *queue, &seed);
        tally.pass("an_owner_that_vanishes_and_comes_back");
    }

    fn refusals_are_told_once_each(&mut self, bench: &Bench, own: IpAddr, tally: &mut Tally) {
        let seed = self.seed(12);
        // Port 9 (discard) is nobody's, in rdma-cm's space.
        let nobody = RcEndpoint::new(AGENT, SocketAddr::new(own, 9));
        let good = std::mem::replace(&mut self.endpoint, nobody);
        self.is_told(&seed, &["no RC connection to", ":9", "the peer refuses, reason 8"]);
        // Another listener, as a peer whose connections have worked is not connected to anew.
        let service = listen(bench, own, &self.tokens.pages);
        self.endpoint = RcEndpoint::new(AGENT, service.address());
        self.tokens.are_wrong.store(true, Ordering::SeqCst);
        let text = "the peer has refused the connection's token";
        self.is_told(&seed, &["no RC connection to", text]);
        self.tokens.are_wrong.store(false, Ordering::SeqCst);
        self.endpoint = good;
        tally.pass("refusals_are_told_once_each");
    }

    /// READs find no connection, and one warning says why.
    fn is_told(&self, seed: &Seed, words: &[&str]) {
        let mut queue = Fabric::queue(self.fabric.clone());
        let began = Instant::now();
        while self.said.with(words) == 0 {
            let refused = queue.post(self.read(0, seed, 0, PAGE)).unwrap_err();
            assert_eq!(refused.error, ReadError::NotYet);
            assert!(began.elapsed() < PATIENCE, "no {words:?} in {:?}", self.said.all());
            queue.reap(&mut |_| {});
            std::thread::sleep(Duration::from_millis(2));
        }
        // Further attempts are not told again.
        for _ in 0..50 {
            let _ = queue.post(self.read(0, seed, 0, PAGE));
            queue.reap(&mut |_| {});
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(self.said.with(words), 1, "{:?}", self.said.all());
        assert!(!self.said.all().iter().any(|text| text.contains('\0')), "{:?}", self.said.all());
    }
}

fn listen(bench: &Bench, own: IpAddr, pages: &Arc<PageService>) -> RcService {
    let address = SocketAddr::new(own, 0);
    RcService::start(bench.pd.clone(), address, OUTSTANDING, pages.clone()).expect("a listener")
}

/// Byte `at` of a seed's memory.
fn byte(salt: usize, at: usize) -> u8 {
    u8::try_from((at / PAGE * 7 + at + salt * 19) % 253).expect("below 253")
}

fn assert_is(seed: &Seed, at: usize, bytes: &[u8]) {
    let wrong = bytes.iter().enumerate().find(|(i, got)| **got != byte(seed.salt, at + i));
    assert_eq!(wrong, None, "in {} bytes at {at}", bytes.len());
}

/// Waits, asleep, until `count` READs have ended.
fn reap(queue: &mut dyn ReadQueue, count: usize) -> Ended {
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

/// Warnings of the crate, kept.
#[derive(Clone)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn listen() -> Self {
        let said = Said(Arc::default());
        tracing::subscriber::set_global_default(said.clone()).expect("the only subscriber");
        said
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many hold all of `words`.
    fn with(&self, words: &[&str]) -> usize {
        let has = |text: &&String| words.iter().all(|word| text.contains(word));
        self.all().iter().filter(has).count()
    }
}

impl tracing::Subscriber for Said {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(words.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Words(String);

impl tracing::field::Visit for Words {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}
