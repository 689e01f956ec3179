//! The rc fabric from this host to itself: an owner's arena, its listener, and READs of it as a pager makes
//! them; owners that lie, revoke and vanish; answers that come too late.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mitosis::descriptor::{Export, RcEndpoint, SeedAddr};
use mitosis::export::PageService;
use mitosis::export::rc::RcService;
use mitosis::fabric::rc::{RcFabric, RcSettings};
use mitosis::fabric::tcp::TokenSource;
use mitosis::fabric::{Buffer, Buffers, Fabric, Read, ReadError, ReadQueue};
use mitosis::id::StreamToken;
use mitosis::verbs::Patience;

use crate::here::Tally;
use crate::seeds::{Owner, PATIENCE, SEED_BYTES, Seed, assert_is, lie, reap};
use crate::{Bench, PAGE};

/// READs that are outstanding at a time.
const OUTSTANDING: u8 = 16;
/// The agent that the tokens are of; nobody connects to it.
const AGENT: &str = "owner:7370";

/// An owner and its reader.
struct World {
    owner: Owner,
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
        let owner = Owner::new(&bench.pd);
        let pages = PageService::new(owner.exports.clone());
        let service = listen(bench, own, &pages);
        let endpoint = RcEndpoint::new(AGENT, service.address());
        let tokens = Arc::new(Tokens { pages, are_wrong: AtomicBool::new(false) });
        let settings =
            RcSettings { source: Some(own), outstanding: OUTSTANDING, patience: Patience::PAGER };
        let source: Arc<dyn TokenSource> = tokens.clone();
        let fabric = RcFabric::new(bench.pd.clone(), settings, source, None).expect("a fabric");
        let buffers = Buffers::registered(bench.pd.clone()).expect("buffers");
        let said = Said::listen();
        World { owner, service: Some(service), endpoint, tokens, fabric, buffers, said }
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
        let seed = self.owner.seed(1);
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
        let seed = self.owner.seed(13);
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
        let (liar, honest) = (self.owner.seed(2), self.owner.seed(3));
        let mut queue = self.connected(&honest);
        let lying = lie(&liar, |slab| slab.rkey ^= 0x5500);
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
        let (liar, honest) = (self.owner.seed(4), self.owner.seed(5));
        let mut queue = self.connected(&honest);
        // A slab further than the one it has.
        let beyond = lie(&liar, |slab| slab.iova += slab.len);
        // And one whose last byte is the last but one's neighbour: the range ends outside.
        let across = lie(&liar, |slab| slab.iova += slab.len - 8);
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
        let (revoked, honest) = (self.owner.seed(6), self.owner.seed(7));
        let mut queue = self.connected(&revoked);
        let began = Instant::now();
        self.owner.exports.revoke(revoked.id);
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
        let (revoked, honest) = (self.owner.seed(8), self.owner.seed(9));
        let mut queue = self.connected(&honest);
        let len = 64 << 10;
        for tag in 0..32 {
            let seed = if tag % 2 == 0 { &revoked } else { &honest };
            let at = usize::try_from(tag).expect("small") * len % SEED_BYTES;
            queue.post(self.read(tag, seed, at, len)).expect("to post");
        }
        self.owner.exports.revoke(revoked.id);
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
        let seed = self.owner.seed(10);
        let mut queue = self.connected(&seed);
        let len = 128 << 10;
        let mut late: Vec<Buffer> = Vec::new();
        let began = Instant::now();
        while late.is_empty() {
            assert!(began.elapsed() < PATIENCE, "all answers came in no time");
            for tag in 0..12 {
                let at = usize::try_from(tag).expect("small") * len % SEED_BYTES;
                let mut read = self.read(tag, &seed, at, len);
                read.buffer[..len].fill(0);
                read.deadline = Instant::now();
                queue.post(read).expect("to post");
            }
            let ended = reap(&mut *queue, 12);
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
        }
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
        let seed = self.owner.seed(11);
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
        let seed = self.owner.seed(12);
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
