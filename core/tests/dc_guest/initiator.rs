//! What a reader has: a DCI, buffers, the ways to its targets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mitosis::sys::poll;
use mitosis::verbs::{
    AddressHandle, DcKey, DcTarget, Dci, Dctn, DmaPool, Gid, Landing, Patience, Remote, Streams,
    Wc, WcStatus,
};

use crate::side_channel::{SideChannel, numbers};
use crate::{Bench, IOVA, MTU, PAGE, pattern};

pub const PATIENCE: Duration = Duration::from_secs(30);
/// READs that a DCI has room for.
pub const DEPTH: u32 = 128;
/// READs that it has outstanding at the device.
const RD_ATOMIC: u8 = 16;

/// A target as the owner tells it.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// How the owner calls it.
    pub name: u64,
    pub dctn: Dctn,
    pub key: DcKey,
}

impl Target {
    pub fn from_words(words: &[u64]) -> Self {
        let number = u32::try_from(words[1]).expect("a number");
        Self { name: words[0], dctn: Dctn::new(number).expect("24 bits"), key: DcKey(words[2]) }
    }

    /// The same with another key.
    pub fn with_key(self, key: u64) -> Self {
        Self { key: DcKey(key), ..self }
    }
}

/// One READ of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub target: Target,
    pub rkey: u32,
    pub address: u64,
    pub stream: u16,
}

impl Read {
    /// Of byte `at` of what the owner has.
    pub fn of(target: Target, rkey: u32, at: usize) -> Self {
        Self { target, rkey, address: IOVA + at as u64, stream: 0 }
    }

    pub fn by(self, stream: u16) -> Self {
        Self { stream, ..self }
    }
}

pub struct Initiator {
    pub bench: Bench,
    pool: Arc<DmaPool>,
    pub dci: Dci,
    handle: Arc<AddressHandle>,
}

impl Initiator {
    pub fn new(owner: IpAddr, streams: Option<Streams>) -> Self {
        let bench = Bench::open();
        let pool = DmaPool::new(&bench.pd, 4, 128 * PAGE).expect("a pool");
        let mut dci = Dci::new(&bench.pd, &bench.cq, DEPTH, streams).expect("a DCI");
        dci.make_ready(&bench.path, MTU, RD_ATOMIC, Patience::PAGER).expect("RTS");
        let way = bench.path.to(Gid::from(owner), 0);
        let handle = AddressHandle::new(&bench.pd, &way).expect("an address handle");
        Self { bench, pool, dci, handle }
    }

    /// Back to RTS.
    pub fn reset(&mut self) {
        self.dci.reset().expect("RESET");
        self.dci.make_ready(&self.bench.path, MTU, RD_ATOMIC, Patience::PAGER).expect("RTS");
    }

    /// Posts with one doorbell; wr_ids are the places in `reads`.
    pub fn post(&mut self, reads: &[Read]) -> Landing {
        let mut landing = self.pool.take().expect("a buffer").lend();
        let handle = &self.handle;
        let posted = self.dci.post(|batch| {
            reads.iter().enumerate().try_for_each(|(at, read)| {
                let Read { target, rkey, address, stream } = *read;
                let target = DcTarget { handle, dctn: target.dctn, key: target.key, stream };
                let range = at * PAGE..(at + 1) * PAGE;
                batch.read(at as u64, &target, Remote { rkey, address }, &mut landing, range)
            })
        });
        assert_eq!(posted, Ok(reads.len()));
        landing
    }

    /// Waits, asleep, until `count` completions are there; in the order in which they came.
    pub fn completions(&self, count: usize) -> Vec<Wc> {
        let cq = &self.bench.cq;
        let (mut found, mut room) = (Vec::new(), [Wc::empty(); 8]);
        while found.len() < count {
            cq.arm().expect("to arm");
            let batch = cq.poll(&mut room).expect("to poll");
            found.extend_from_slice(batch);
            if batch.is_empty() {
                assert!(poll::readable(&[cq.fd()], Some(PATIENCE)).expect("poll"), "{found:?}");
                cq.drain_events().expect("events");
            }
        }
        found
    }

    /// Posts and waits for all; each one's status, by its place. Without streams they come in order.
    /// What succeeded has the right bytes.
    pub fn read(&mut self, reads: &[Read]) -> (Vec<WcStatus>, Duration) {
        let began = Instant::now();
        let mut landing = self.post(reads);
        let found = self.completions(reads.len());
        let took = began.elapsed();
        assert!(found.iter().all(|wc| landing.completed(wc)));
        let buffer = landing.take_back().expect("nothing pending");
        let by_place: BTreeMap<u64, WcStatus> =
            found.iter().map(|wc| (wc.wr_id(), wc.status())).collect();
        if reads.iter().all(|read| read.stream == 0) {
            assert!(found.iter().map(Wc::wr_id).eq(0..reads.len() as u64), "{found:?}");
        }
        assert!(found.iter().all(|wc| wc.qp_num() == self.dci.number()), "{found:?}");
        for (at, read) in reads.iter().enumerate() {
            if by_place[&(at as u64)].is_success() {
                let from = usize::try_from(read.address - IOVA).expect("an offset");
                let page = &buffer[at * PAGE..(at + 1) * PAGE];
                assert!(page.iter().enumerate().all(|(i, byte)| *byte == pattern(from + i)));
            }
        }
        (by_place.into_values().collect(), took)
    }

    pub fn read_one(&mut self, read: Read) -> (WcStatus, Duration) {
        let (statuses, took) = self.read(&[read]);
        (statuses[0], took)
    }
}

/// Asks the owner for a target.
pub fn new_target(side: &mut SideChannel) -> Target {
    Target::from_words(&numbers(&side.ask("target")))
}
