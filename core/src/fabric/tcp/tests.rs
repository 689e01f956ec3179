use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::descriptor::{SeedAddr, SeedRange};
use crate::export::service::listen_for_tests as listen;
use crate::export::stand_in::{StandIn, expected};
use crate::export::{Exports, PageService, PeerLimits};
use crate::fabric::{
    Buffer, Completion, MAX_IN_FLIGHT, MAX_RANGES, MAX_READ_BYTES, Read, ReadError,
};
use crate::id::{ReadKey, SeedId, StreamToken};
use crate::wire::seal::Encryption;

mod encrypted;
mod failures;

const PAGE: u64 = 4096;

/// Tokens of a service in this process; counts them.
struct Issued(Option<Arc<PageService>>, AtomicUsize);

impl TokenSource for Issued {
    fn token(&self, _agent: &str) -> Result<StreamToken, ReadError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(self.0.as_ref().map_or_else(StreamToken::random, |service| service.issue_token()))
    }
}

pub(super) struct Host {
    stand_in: StandIn,
    exports: Arc<Exports>,
    tokens: Arc<Issued>,
    fabric: Arc<TcpFabric>,
    agent: String,
    seed: SeedId,
    key: ReadKey,
}

impl Host {
    pub(super) fn start(bytes: u64, limits: Limits) -> Host {
        Host::between(bytes, limits, [Encryption::Offered; 2])
    }

    /// With what its owner and its reader want.
    fn between(bytes: u64, limits: Limits, [owner, reader]: [Encryption; 2]) -> Host {
        let exports = Exports::new();
        let stand_in = StandIn::start(bytes);
        let (seed, key) = stand_in.export(&exports);
        let peers = PeerLimits::default();
        let service = PageService::bounded(Arc::clone(&exports), Duration::ZERO, peers, owner);
        let agent = listen(&service).to_string();
        let tokens = Arc::new(Issued(Some(service), AtomicUsize::new(0)));
        let source = Arc::clone(&tokens) as Arc<dyn TokenSource>;
        let fabric = TcpFabric::encrypting(source, limits, reader);
        Host { stand_in, exports, tokens, fabric, agent, seed, key }
    }

    pub(super) fn queue(&self) -> Box<dyn ReadQueue> {
        Arc::clone(&self.fabric).queue()
    }

    pub(super) fn memory(&self) -> (std::fs::File, u64) {
        (self.stand_in.mem(), self.stand_in.range().start.0)
    }

    pub(super) fn read(&self, tag: u64, offset: u64, len: usize) -> Read {
        let addr = self.stand_in.range().start.0 + offset;
        let mut read = read_of(&self.agent, self.seed, &self.key, tag);
        read.ranges = vec![(SeedAddr(addr), u32::try_from(len).unwrap())];
        read.buffer = Buffer::unregistered(vec![0xee; len].into());
        read
    }
}

fn read_of(agent: &str, seed: SeedId, key: &ReadKey, tag: u64) -> Read {
    Read {
        tag,
        seed,
        export: Export::Tcp { agent: Some(agent.to_owned()), read_key: key.clone() },
        arena: None,
        ranges: vec![(SeedAddr(PAGE), 4096)],
        buffer: Buffer::unregistered(vec![0xee; 4096].into()),
        deadline: Instant::now() + Duration::from_secs(10),
    }
}

/// Reaps until `count` READs have ended, sleeping on the queue's descriptors only.
fn reap(queue: &mut dyn ReadQueue, count: usize) -> Vec<Completion> {
    let mut ended = Vec::new();
    let until = Instant::now() + Duration::from_secs(20);
    while ended.len() < count {
        assert!(Instant::now() < until, "{} of {count} READs have ended", ended.len());
        queue.reap(&mut |completion| ended.push(completion));
        if ended.len() < count {
            wait(queue, 10);
        }
    }
    ended
}

pub(super) fn wait(queue: &dyn ReadQueue, timeout_ms: u64) -> bool {
    let mut fds = Vec::new();
    queue.poll_fds(&mut fds);
    crate::sys::poll::readable(&fds, Some(Duration::from_millis(timeout_ms))).unwrap()
}

fn results(ended: &[Completion]) -> Vec<(u64, Result<(), ReadError>)> {
    let mut results: Vec<_> = ended.iter().map(|c| (c.tag, c.result.clone())).collect();
    results.sort_by_key(|(tag, _)| *tag);
    results
}

#[test]
fn many_reads_at_once_bring_the_seeds_bytes() {
    let host = Host::start(64 << 20, Limits::default());
    let mut queue = host.queue();
    for tag in 0..MAX_IN_FLIGHT as u64 {
        queue.post(host.read(tag, tag << 20, MAX_READ_BYTES)).unwrap();
    }
    assert!(queue.post(host.read(99, 0, 1)).is_err());
    assert_eq!(queue.in_flight(), MAX_IN_FLIGHT);
    for completion in reap(&mut *queue, MAX_IN_FLIGHT) {
        assert_eq!(completion.result, Ok(()));
        assert!(completion.buffer[..] == expected(completion.tag << 20, MAX_READ_BYTES)[..]);
    }
    assert_eq!((queue.in_flight(), host.fabric.connections(&host.agent)), (0, 1));
}

#[test]
fn ranges_stand_one_behind_the_other_up_to_the_limit() {
    let host = Host::start(64 * PAGE, Limits::default());
    let base = host.stand_in.range().start.0;
    let mut queue = host.queue();
    // 64 requests of 1 KiB exceed the window: the rest follows as answers come.
    for tag in 0..MAX_IN_FLIGHT as u64 {
        let mut read = host.read(tag, 0, 64 * 64);
        read.ranges =
            (0..MAX_RANGES as u64).rev().map(|i| (SeedAddr(base + i * PAGE + tag), 64)).collect();
        queue.post(read).unwrap();
    }
    for completion in reap(&mut *queue, MAX_IN_FLIGHT) {
        assert_eq!(completion.result, Ok(()));
        for (bytes, i) in completion.buffer.chunks(64).zip((0..MAX_RANGES as u64).rev()) {
            assert_eq!(bytes, expected(i * PAGE + completion.tag, 64));
        }
    }
    let mut read = host.read(1, 0, 4096);
    read.ranges = vec![(SeedAddr(base), 1); MAX_RANGES + 1];
    assert!(matches!(queue.post(read).unwrap_err().error, ReadError::Local(_)));
    let mut read = host.read(1, 0, 4096);
    read.buffer = Buffer::unregistered(vec![0; 4095].into());
    assert!(matches!(queue.post(read).unwrap_err().error, ReadError::Local(_)));
}

#[test]
fn refusals_end_one_read_and_leave_the_connection() {
    let mut host = Host::start(4 * PAGE, Limits::default());
    let mut queue = host.queue();
    let mut wrong_key = host.read(1, 0, 4096);
    let Export::Tcp { read_key, .. } = &mut wrong_key.export else { unreachable!() };
    *read_key = ReadKey::random();
    queue.post(host.read(0, 0, 4096)).unwrap();
    queue.post(wrong_key).unwrap();
    queue.post(host.read(2, 4 * PAGE, 4096)).unwrap();
    queue.post(host.read(3, PAGE, 4096)).unwrap();
    let ended = reap(&mut *queue, 4);
    let results = results(&ended);
    assert_eq!((&results[0].1, &results[3].1), (&Ok(()), &Ok(())));
    assert!(matches!(&results[1].1, Err(ReadError::Revoked(text)) if text.contains("read key")));
    assert!(matches!(&results[2].1, Err(ReadError::Revoked(text)) if text.contains("range")));
    assert!(ended[3].buffer[..] == expected(PAGE, 4096)[..]);
    host.stand_in.kill();
    queue.post(host.read(4, 0, 4096)).unwrap();
    let ended = reap(&mut *queue, 1);
    assert!(
        matches!(&ended[0].result, Err(ReadError::Revoked(text)) if text.contains("has ended"))
    );
    assert_eq!(host.tokens.1.load(Ordering::SeqCst), 1, "one connection served all");
}

#[test]
fn revoke_takes_hold_of_an_open_stream() {
    let host = Host::start(64 << 20, Limits::default());
    let mut queue = host.queue();
    queue.post(host.read(0, 0, 4096)).unwrap();
    reap(&mut *queue, 1);
    // More than the sockets hold: as nobody receives, the server is stopped in the middle.
    for tag in 0..MAX_IN_FLIGHT as u64 {
        queue.post(host.read(tag, tag << 20, MAX_READ_BYTES)).unwrap();
    }
    host.exports.revoke(host.seed);
    let ended = reap(&mut *queue, MAX_IN_FLIGHT);
    let refused = |c: &&Completion| matches!(c.result, Err(ReadError::Revoked(_)));
    assert!(ended.iter().filter(refused).count() > 0, "READs behind the revoke are refused");
    for completion in ended.iter().filter(|c| !refused(c)) {
        assert_eq!(completion.result, Ok(()));
        assert!(completion.buffer[..] == expected(completion.tag << 20, MAX_READ_BYTES)[..]);
    }
    queue.post(host.read(99, 0, 4096)).unwrap();
    assert!(matches!(reap(&mut *queue, 1)[0].result, Err(ReadError::Revoked(_))));
}

#[test]
fn queues_share_the_pool() {
    let host = Host::start(16 * PAGE, Limits::default());
    let (mut one, mut two) = (host.queue(), host.queue());
    for round in 0..20 {
        for queue in [&mut one, &mut two] {
            queue.post(host.read(round, 0, 4096)).unwrap();
            assert_eq!(reap(&mut **queue, 1)[0].result, Ok(()));
        }
    }
    assert_eq!(host.fabric.connections(&host.agent), 1, "they read one after the other");
    one.post(host.read(0, 0, 4096)).unwrap();
    two.post(host.read(0, 0, 4096)).unwrap();
    assert_eq!(reap(&mut *one, 1)[0].result, Ok(()));
    assert_eq!(reap(&mut *two, 1)[0].result, Ok(()));
    assert!(host.fabric.connections(&host.agent) <= 2);
}

#[test]
fn connections_beyond_the_bound_of_idle_ones_are_closed() {
    let host = Host::start(PAGE, Limits { idle: 0, ..Limits::default() });
    let mut queue = host.queue();
    for round in 0..3 {
        queue.post(host.read(round, 0, 4096)).unwrap();
        assert_eq!(reap(&mut *queue, 1)[0].result, Ok(()));
        assert_eq!(host.fabric.connections(&host.agent), 0);
    }
    assert_eq!(host.tokens.1.load(Ordering::SeqCst), 3, "a token for each connection");
}

#[test]
fn queues_beyond_the_pools_bound_take_turns() {
    let limits = Limits { connections_per_peer: 1, ..Limits::default() };
    let host = Host::start(16 * PAGE, limits);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut queue = host.queue();
                let (mut posted, mut ended) = (0, 0);
                // Each keeps READs in flight all the time: only giving way lets the others go on.
                while ended < 500 {
                    while posted < 500 && queue.in_flight() < 8 {
                        queue.post(host.read(posted, 0, 4096)).unwrap();
                        posted += 1;
                    }
                    queue.reap(&mut |completion| {
                        assert_eq!(completion.result, Ok(()));
                        ended += 1;
                    });
                    wait(&*queue, 10);
                }
            });
        }
    });
    assert_eq!(host.fabric.connections(&host.agent), 1);
    assert_eq!(host.tokens.1.load(Ordering::SeqCst), 1);
}

#[test]
fn a_queue_that_is_dropped_with_reads_in_flight_closes_its_connection() {
    let host = Host::start(8 << 20, Limits::default());
    let mut queue = host.queue();
    queue.post(host.read(0, 0, 4096)).unwrap();
    reap(&mut *queue, 1);
    queue.post(host.read(1, 0, MAX_READ_BYTES)).unwrap();
    drop(queue);
    assert_eq!(host.fabric.connections(&host.agent), 0);
    let mut queue = host.queue();
    queue.post(host.read(2, 0, 4096)).unwrap();
    let ended = reap(&mut *queue, 1);
    assert!(ended[0].buffer[..] == expected(0, 4096)[..]);
}

#[test]
fn a_push_stores_the_hot_pages_and_warms_the_pool() {
    let host = Host::start(1024 * PAGE, Limits::default());
    let base = host.stand_in.range().start.0;
    let pages = |from: u64, to: u64| SeedRange::new(base + from * PAGE, base + to * PAGE);
    let mut hot: Vec<_> = (0..200).map(|i| pages(5 * i, 5 * i + 1 + i % 4)).collect();
    hot.insert(0, pages(1000, 1024));
    host.exports.set_hot(host.seed, hot.clone());
    let mut stored = Vec::new();
    let report = host
        .fabric
        .push(&host.agent, host.seed, &host.key, &[], &mut |addr, bytes| {
            assert_eq!(bytes, expected(addr.0 - base, bytes.len()));
            stored.push((addr, bytes.len() as u64));
            ControlFlow::Continue(())
        })
        .unwrap();
    let order: Vec<_> = stored.iter().map(|(addr, _)| *addr).collect();
    assert_eq!(order.first(), Some(&hot[0].start));
    let bytes: u64 = hot.iter().map(|range| range.len()).sum();
    assert_eq!((report.bytes, report.runs), (bytes, stored.len() as u64));
    let mut queue = host.queue();
    queue.post(host.read(0, 0, 4096)).unwrap();
    assert_eq!(reap(&mut *queue, 1)[0].result, Ok(()));
    assert_eq!(host.tokens.1.load(Ordering::SeqCst), 1);
    // Nothing is received that nobody keeps.
    let mut kept = 0;
    let report = host.fabric.push(&host.agent, host.seed, &host.key, &[], &mut |_, _| {
        kept += 1;
        ControlFlow::Break(())
    });
    assert_eq!((report.unwrap().runs, kept), (0, 1));
}
