//! DC from a port to itself: what a DCI is told of READs that can and cannot be.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mitosis::sys::poll;
use mitosis::verbs::{
    self, AddressHandle, Cq, DcKey, DcTarget, Dci, Dct, Dctn, DmaPool, Mr, Patience, Region,
    Remote, Srq, Wc, WcStatus,
};

use crate::here::Tally;
use crate::{Bench, IOVA, OWNED, PAGE, dc_fabric_here, pattern};

/// READs that a DCI has room for.
const DEPTH: u32 = 16;
/// Nothing takes as long; a card that says nothing for so long says nothing.
const SILENCE: Duration = Duration::from_secs(30);

struct Loop<'bench> {
    bench: &'bench Bench,
    cq: Arc<Cq>,
    srq: Arc<Srq>,
    dci: Dci,
    rd_atomic: u8,
    handle: Arc<AddressHandle>,
    pool: Arc<DmaPool>,
    region: Arc<Region>,
}

/// All cases, where the port serves DC.
pub fn run(bench: &Bench, tally: &mut Tally) {
    assert!(Dctn::new(Dctn::MAX).is_ok() && Dctn::new(Dctn::MAX + 1).is_err());
    if bench.port.gid.is_none() {
        return tally.skip("dc", "iWARP has no DC");
    }
    let caps = match verbs::try_dc(&bench.context, &bench.path(), bench.port.mtu) {
        Ok(caps) => caps,
        Err(error) => return tally.skip("dc", &error.to_string()),
    };
    let cq = Cq::new(&bench.context, DEPTH).expect("a CQ");
    let dci = Dci::new(&bench.pd, &cq, DEPTH, None).expect("a DCI");
    let to_self = bench.path().to(bench.gid().1, bench.port.lid);
    let region = Region::new(OWNED).expect("memory");
    region.write(0, &(0..OWNED).map(pattern).collect::<Vec<u8>>());
    let mut this = Loop {
        bench,
        cq,
        srq: Srq::new(&bench.pd).expect("an SRQ"),
        dci,
        rd_atomic: caps.max_rd_atomic.clamp(1, 16),
        handle: AddressHandle::new(&bench.pd, &to_self).expect("a way to this port"),
        pool: DmaPool::new(&bench.pd, 4, 16 * PAGE).expect("a pool"),
        region,
    };
    this.make_ready();
    this.bytes_are_right_and_take_their_time(tally);
    this.a_registration_that_is_gone_is_refused(tally);
    this.a_wrong_rkey_is_refused_and_flushes_its_neighbour(tally);
    this.a_wrong_dc_key_fails(tally);
    this.a_destroyed_target_is_noticed(tally);
    drop(this);
    dc_fabric_here::run(bench, caps, tally);
}

impl Loop<'_> {
    fn make_ready(&mut self) {
        let (path, mtu) = (self.bench.path(), self.bench.port.mtu);
        self.dci.make_ready(&path, mtu, self.rd_atomic, Patience::PAGER).expect("RTS");
    }

    /// After a failure.
    fn recover(&mut self) {
        self.dci.reset().expect("RESET");
        self.make_ready();
    }

    fn target(&self) -> Dct {
        let key = DcKey::random().expect("a key");
        let (pd, path, mtu) = (&self.bench.pd, self.bench.path(), self.bench.port.mtu);
        Dct::new(pd, &self.cq, &self.srq, key, &path, mtu).expect("a DCT")
    }

    fn registration(&self) -> Mr {
        Mr::readable(&self.bench.pd, &self.region, 0..OWNED, IOVA).expect("a registration")
    }

    /// READs a page for each rkey with one doorbell; how they ended, in order, and after how long all.
    fn read(&mut self, dctn: Dctn, key: DcKey, rkeys: &[u32]) -> (Vec<WcStatus>, Duration) {
        let mut landing = self.pool.take().expect("a buffer").lend();
        let handle = self.handle.clone();
        let target = DcTarget { handle: &handle, dctn, key, stream: 0 };
        let began = Instant::now();
        let posted = self.dci.post(|batch| {
            for (at, rkey) in rkeys.iter().enumerate() {
                let remote = Remote { rkey: *rkey, address: IOVA + (at * PAGE) as u64 };
                batch.read(at as u64, &target, remote, &mut landing, at * PAGE..(at + 1) * PAGE)?;
            }
            Ok(())
        });
        assert_eq!(posted, Ok(rkeys.len()));
        let mut ended: Vec<Option<WcStatus>> = vec![None; rkeys.len()];
        let mut room = [Wc::empty(); 8];
        while ended.iter().any(Option::is_none) {
            self.cq.arm().expect("to arm");
            let got = self.cq.poll(&mut room).expect("to poll").to_vec();
            for wc in &got {
                assert!(landing.completed(wc), "{wc:?}");
                ended[usize::try_from(wc.wr_id()).expect("small")] = Some(wc.status());
            }
            if got.is_empty() {
                let came = poll::readable(&[self.cq.fd()], Some(SILENCE)).expect("poll");
                assert!(came, "no completion within {SILENCE:?}");
                self.cq.drain_events().expect("events");
            }
        }
        let took = began.elapsed();
        let buffer = landing.take_back().expect("nothing pending");
        for (at, _) in ended.iter().enumerate().filter(|(_, s)| **s == Some(WcStatus::SUCCESS)) {
            let range = at * PAGE..(at + 1) * PAGE;
            assert!(range.clone().all(|offset| buffer[offset] == pattern(offset)), "{range:?}");
        }
        (ended.into_iter().flatten().collect(), took)
    }

    fn bytes_are_right_and_take_their_time(&mut self, tally: &mut Tally) {
        const READS: usize = 200;
        let (dct, mr) = (self.target(), self.registration());
        let mut took = Vec::with_capacity(READS);
        for _ in 0..READS {
            let (ended, time) = self.read(dct.dctn(), dct.key(), &[mr.rkey()]);
            assert_eq!(ended, [WcStatus::SUCCESS]);
            took.push(time);
        }
        took.sort_unstable();
        println!("   READ of 4 KiB by DC, asleep: median {:?}", took[READS / 2]);
        tally.pass("dc_bytes_are_right_and_take_their_time");
    }

    fn a_registration_that_is_gone_is_refused(&mut self, tally: &mut Tally) {
        let (dct, mr) = (self.target(), self.registration());
        let rkey = mr.rkey();
        mr.deregister().expect("deregistration");
        let (ended, took) = self.read(dct.dctn(), dct.key(), &[rkey]);
        assert_eq!(ended, [WcStatus::REMOTE_ACCESS]);
        println!("   deregistered: {}, after {took:?}", ended[0]);
        self.recover();
        tally.pass("dc_a_registration_that_is_gone_is_refused");
    }

    fn a_wrong_rkey_is_refused_and_flushes_its_neighbour(&mut self, tally: &mut Tally) {
        let (dct, mr) = (self.target(), self.registration());
        let rkeys = [mr.rkey() ^ 0x5500, mr.rkey()];
        let (ended, _) = self.read(dct.dctn(), dct.key(), &rkeys);
        assert_eq!(ended, [WcStatus::REMOTE_ACCESS, WcStatus::FLUSHED]);
        self.recover();
        let (ended, _) = self.read(dct.dctn(), dct.key(), &rkeys[1..]);
        assert_eq!(ended, [WcStatus::SUCCESS]);
        tally.pass("dc_a_wrong_rkey_is_refused_and_flushes_its_neighbour");
    }

    /// With which status is written nowhere: it is printed. That it fails is what counts.
    fn a_wrong_dc_key_fails(&mut self, tally: &mut Tally) {
        let (dct, mr) = (self.target(), self.registration());
        let wrong = DcKey(dct.key().0 ^ 1);
        let (ended, took) = self.read(dct.dctn(), wrong, &[mr.rkey()]);
        println!("   wrong DC key: {}, after {took:?}", ended[0]);
        assert!(!ended[0].is_success());
        self.recover();
        tally.pass("dc_a_wrong_dc_key_fails");
    }

    fn a_destroyed_target_is_noticed(&mut self, tally: &mut Tally) {
        let (dct, mr) = (self.target(), self.registration());
        let (dctn, key) = (dct.dctn(), dct.key());
        dct.destroy().expect("an end");
        let (ended, took) = self.read(dctn, key, &[mr.rkey()]);
        let earliest = Patience::PAGER.time_to_notice();
        println!("   destroyed DCT: {}, after {took:?}; by the arithmetic {earliest:?}", ended[0]);
        assert_eq!(ended, [WcStatus::RETRY_EXCEEDED]);
        self.recover();
        let (dct, mr) = (self.target(), self.registration());
        assert_eq!(self.read(dct.dctn(), dct.key(), &[mr.rkey()]).0, [WcStatus::SUCCESS]);
        tally.pass("dc_a_destroyed_target_is_noticed");
    }
}
