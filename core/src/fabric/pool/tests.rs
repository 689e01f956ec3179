//! Queues of one thread that share a pool: what each is given depends on nothing but what it and the others ask.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::*;
use crate::descriptor::{Export, SeedAddr};
use crate::fabric::local::always_readable;
use crate::fabric::queue::{Broken, Link, Queue};
use crate::fabric::{Buffer, Completion, Read, ReadQueue};
use crate::id::{ReadKey, SeedId};

const PEER: &str = "peer";
const CONNECTIONS: usize = 8;
const QUEUES: usize = 12;
/// READs that a queue has in flight.
const WINDOW: usize = 2;

/// Makes connections at once.
#[derive(Debug)]
struct AtOnce;

impl Connector for AtOnce {
    type Connection = UnixStream;

    const IS_SPARED: bool = true;

    fn connect(&self, _peer: &str) -> Result<UnixStream, ReadError> {
        Ok(always_readable().unwrap())
    }
}

/// READs that are answered when they are looked after.
#[derive(Debug, Default)]
struct Answered(Vec<Read>);

impl Link for Answered {
    type Connector = AtOnce;
    type Aim = ();
    const WAITS: bool = false;

    fn new() -> Self {
        Answered::default()
    }
    fn aim<'read>(_: &AtOnce, _: &'read Read) -> Result<(&'read str, ()), ReadError> {
        Ok((PEER, ()))
    }
    fn is_idle(&self) -> bool {
        self.0.is_empty()
    }
    fn has_room(&self, _: &Read) -> bool {
        self.0.len() < WINDOW
    }
    fn push(&mut self, read: Read, (): ()) {
        self.0.push(read);
    }
    fn flush(&mut self, _: &mut UnixStream) -> Result<(), Broken> {
        Ok(())
    }
    /// The oldest one: a queue that posts another in its place is never without.
    fn receive(
        &mut self,
        _: &mut UnixStream,
        done: &mut dyn FnMut(Completion),
    ) -> Result<(), Broken> {
        let Read { tag, buffer, .. } = self.0.remove(0);
        done(Completion { tag, buffer, result: Ok(()) });
        Ok(())
    }
    fn is_late(&self, _: Instant) -> bool {
        false
    }
    fn abandon(&mut self, _: &mut UnixStream) -> Vec<Read> {
        std::mem::take(&mut self.0)
    }
    fn poll_fd(&self, connection: &UnixStream) -> RawFd {
        connection.as_raw_fd()
    }
}

fn read() -> Read {
    Read {
        tag: 0,
        seed: SeedId(1),
        export: Export::Tcp { agent: None, read_key: ReadKey::random() },
        arena: None,
        ranges: vec![(SeedAddr(0x1000), 4096)],
        buffer: Buffer::unregistered(vec![0; 4096].into()),
        deadline: Instant::now() + Duration::from_secs(3600),
    }
}

/// A pool with all the connections that there may be, on whose clock no wish grows old.
fn pool() -> Arc<Pool<AtOnce>> {
    let keeps_place = Duration::from_secs(3600);
    let limits = Limits { connections_per_peer: CONNECTIONS, keeps_place, ..Limits::default() };
    let pool = Pool::new(AtOnce, limits);
    (0..CONNECTIONS).for_each(|_| pool.stock(&PEER.into()).unwrap());
    pool
}

/// A queue and what it has had.
struct Reader {
    queue: Queue<Answered>,
    card: usize,
    /// What was refused since it last read by the card.
    other: usize,
}

impl Reader {
    fn new(pool: &Arc<Pool<AtOnce>>) -> Self {
        Reader { queue: Queue::new(pool.clone()), card: 0, other: 0 }
    }

    /// Fills its window, as far as it is let, and takes what has ended.
    fn step(&mut self) {
        while self.queue.in_flight() < WINDOW {
            match self.queue.post(read()) {
                Ok(()) => self.other = 0,
                Err(refused) => {
                    assert_eq!(refused.error, ReadError::NotYet);
                    self.other += 1;
                    break;
                }
            }
        }
        self.queue.reap(&mut |completion| {
            assert_eq!(completion.result, Ok(()));
            self.card += 1;
        });
    }
}

/// Twelve queues of eight connections: however much faster eight of them ask, each of the others is given one before
/// as many turns have ended as there are queues.
#[test]
fn who_asks_seldom_has_its_turn_as_well() {
    const STEPS: usize = 40 * TURN_READS as usize;
    for hasty in [1, 8, TURN_READS as usize] {
        let pool = pool();
        let mut readers: Vec<Reader> = (0..QUEUES).map(|_| Reader::new(&pool)).collect();
        let refused_at_most = QUEUES * TURN_READS as usize / hasty;
        for _ in 0..STEPS {
            for reader in &mut readers[..CONNECTIONS] {
                (0..hasty).for_each(|_| reader.step());
            }
            for reader in &mut readers[CONNECTIONS..] {
                reader.step();
                assert!(reader.other <= refused_at_most, "{} in a row, {hasty}", reader.other);
            }
        }
        for (index, reader) in readers.iter().enumerate() {
            assert!(reader.card > STEPS / 2, "queue {index}: {}, {hasty}", reader.card);
        }
        assert_eq!(pool.open(PEER), CONNECTIONS);
    }
}

/// A queue that goes takes its wish along: nothing is kept for it.
#[test]
fn nothing_is_kept_for_a_queue_that_is_gone() {
    let pool = pool();
    let mut readers: Vec<Reader> = (0..=CONNECTIONS).map(|_| Reader::new(&pool)).collect();
    readers.iter_mut().for_each(Reader::step);
    let mut last = readers.pop().unwrap();
    assert_eq!((last.card, last.other), (0, 1), "all connections are taken");
    last.step();
    drop(last);
    for _ in 0..4 * TURN_READS {
        readers.iter_mut().for_each(Reader::step);
        assert!(readers.iter().all(|reader| reader.other == 0), "no turn ends for nobody");
    }
}

/// One READ at a time: a connection is given back behind each, and a turn is as long all the same.
#[test]
fn turns_are_counted_over_those_who_share_a_connection() {
    let peer: Arc<str> = PEER.into();
    let pool = pool();
    let [hasty, seldom] = [pool.queue(), pool.queue()];
    // All but one are in use.
    let held: Vec<_> = (1..CONNECTIONS).map(|_| pool.grab(&peer, hasty).unwrap()).collect();
    let mut taken = pool.grab(&peer, hasty);
    assert!(pool.grab(&peer, seldom).is_none());
    let mut reads = 0;
    while reads <= TURN_READS
        && let Some(mut connection) = taken
    {
        connection.count_read();
        reads += 1;
        pool.checkin(&peer, connection);
        taken = pool.grab(&peer, hasty);
    }
    assert_eq!(reads, TURN_READS, "then it is the other's turn");
    assert!(pool.grab(&peer, hasty).is_none());
    let connection = pool.grab(&peer, seldom).expect("its turn");
    assert!(!connection.is_turn_over());
    assert_eq!(held.len(), CONNECTIONS - 1);
}
