//! NODE 2: READs, and what becomes of READs that cannot be.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mitosis::sys::poll;
use mitosis::verbs::{
    self, AsyncEvent, Change, CmEventKind, CmId, Dctn, DmaPool, EventChannel, Landing, Patience,
    PortState, PostFault, QpState, RcQp, Remote, Transport, Wc, WcStatus,
};

use crate::owner::DEPTHS;
use crate::raw_connection::{End, connect};
use crate::side_channel::{SideChannel, numbers};
use crate::{Bench, IOVA, OWNED, PAGE, pattern};

const PATIENCE: Duration = Duration::from_secs(60);
/// READs of a batch.
const BATCH: usize = 16;

/// A connection of ours to the owner, and the key of its memory.
struct Connection {
    qp: RcQp,
    id: CmId,
    rkey: u32,
}

struct Reader {
    bench: Bench,
    pool: Arc<DmaPool>,
    channel: Arc<EventChannel>,
    own: IpAddr,
    peer: SocketAddr,
    side: SideChannel,
    passed: u32,
}

/// Where both ends are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On machines that were made for this: links may be taken down.
    TwoMachines,
    /// On a host that others use.
    Here,
}

/// Runs all cases; their number.
pub fn run(own: IpAddr, peer: IpAddr, place: Place) -> u32 {
    let bench = Bench::open();
    let mut side = SideChannel::connect(peer);
    let port = side.ask("port").parse().expect("a port");
    let pool = DmaPool::new(&bench.pd, 20, 1 << 20).expect("a pool");
    let channel = EventChannel::new().expect("an event channel");
    let peer = SocketAddr::new(peer, port);
    let mut reader = Reader { bench, pool, channel, own, peer, side, passed: 0 };
    reader.the_device_tells_what_it_is();
    reader.dc_is_there_or_refused_with_a_reason();
    let mut connection = reader.connect();
    reader.a_batch_is_one_doorbell_and_every_byte_is_right(&mut connection);
    reader.a_mebibyte_is_one_read(&mut connection);
    reader.a_read_takes_its_time(&mut connection);
    reader.a_completion_wakes_a_poller(&mut connection);
    reader.a_full_queue_is_told_and_nothing_is_lost(&mut connection);
    reader.a_wrong_key_fails_and_flushes_its_neighbours(connection);
    reader.beyond_the_end_fails();
    reader.a_taken_back_registration_fails();
    reader.an_end_is_heard_of();
    if reader.bench.context.transport() == Transport::Ib {
        reader.a_qp_comes_back_from_err();
        reader.a_silent_peer_is_noticed_in_time();
    }
    reader.side.say("bye");
    if place == Place::TwoMachines {
        reader.a_port_that_goes_down_is_told();
    }
    reader.passed
}

/// The next event; panics if none comes.
pub fn next_event(channel: &Arc<EventChannel>) -> CmEventKind {
    loop {
        if let Some(event) = channel.next().expect("an event") {
            return event.kind;
        }
        assert!(poll::readable(&[channel.fd()], Some(PATIENCE)).expect("poll"), "no event came");
    }
}

impl Reader {
    fn passed(&mut self, name: &str) {
        self.passed += 1;
        println!("ok {name}");
    }

    /// A connection by the manager.
    fn connect(&mut self) -> Connection {
        self.side.say("accept");
        let id = CmId::new(&self.channel).expect("an id");
        id.resolve_address(Some(self.own), self.peer, PATIENCE).expect("to resolve");
        self.expect(|kind| matches!(kind, CmEventKind::AddressResolved));
        id.resolve_route(PATIENCE).expect("a route");
        self.expect(|kind| matches!(kind, CmEventKind::RouteResolved));
        assert_eq!(id.device_name().as_deref(), Some(self.bench.context.name()));
        let mut qp = RcQp::new(&self.bench.pd, &self.bench.cq, 32).expect("a QP");
        id.prepare(&mut qp, false).expect("INIT");
        id.connect(&qp, b"reader", DEPTHS).expect("to connect");
        let event = self.expect(|kind| {
            matches!(kind, CmEventKind::ConnectResponse(_) | CmEventKind::Established(_))
        });
        id.make_ready(&mut qp, false, DEPTHS, Patience::PAGER).expect("RTS");
        let data = match event {
            CmEventKind::ConnectResponse(data) => {
                id.establish().expect("to establish");
                data
            }
            CmEventKind::Established(data) => data,
            _ => unreachable!("expected above"),
        };
        assert_eq!(self.side.hear().as_deref(), Some("accepted"));
        let rkey = u32::from_be_bytes(data[..4].try_into().expect("a key"));
        Connection { qp, id, rkey }
    }

    /// The next event that is no echo of an older connection.
    fn expect(&self, wanted: impl Fn(&CmEventKind) -> bool) -> CmEventKind {
        loop {
            match next_event(&self.channel) {
                CmEventKind::Disconnected | CmEventKind::TimewaitOver => {}
                kind if wanted(&kind) => return kind,
                kind => panic!("{kind:?}"),
            }
        }
    }

    fn landing(&self) -> Landing {
        self.pool.take().expect("a buffer").lend()
    }

    /// Waits, asleep, until `count` completions are there.
    fn completions(&self, count: usize) -> BTreeMap<u64, Wc> {
        let cq = &self.bench.cq;
        let (mut found, mut room) = (BTreeMap::new(), [Wc::empty(); 8]);
        while found.len() < count {
            cq.arm().expect("to arm");
            let batch = cq.poll(&mut room).expect("to poll");
            found.extend(batch.iter().map(|wc| (wc.wr_id(), *wc)));
            if batch.is_empty() {
                assert!(poll::readable(&[cq.fd()], Some(PATIENCE)).expect("poll"), "{found:?}");
                cq.drain_events().expect("events");
            }
        }
        found
    }

    /// READs one page, `at` bytes into what is owned under `rkey`; how it ended, after how long.
    fn read_page(&self, qp: &mut RcQp, rkey: u32, at: usize) -> (WcStatus, Duration) {
        let mut landing = self.landing();
        let remote = Remote { rkey, address: IOVA + at as u64 };
        let began = Instant::now();
        qp.post(|batch| batch.read(1, remote, &mut landing, 0..PAGE)).expect("to post");
        let wc = self.completions(1)[&1];
        let took = began.elapsed();
        assert!(landing.completed(&wc));
        let buffer = landing.take_back().expect("nothing pending");
        if wc.status().is_success() {
            assert!((0..PAGE).all(|offset| buffer[offset] == pattern(at + offset)));
        }
        (wc.status(), took)
    }

    fn the_device_tells_what_it_is(&mut self) {
        let caps = self.bench.context.caps().expect("its capabilities");
        assert!(caps.max_qp > 0 && caps.max_qp_init_rd_atom > 0 && caps.ports > 0, "{caps:?}");
        let gids = self.bench.context.gids(self.bench.port.port).expect("GIDs");
        assert!(gids.contains(self.bench.port.gid.as_ref().expect("a GID")), "{gids:?}");
        let missing = self.bench.context.port(caps.ports + 8).unwrap_err();
        assert_eq!(missing.errno(), Some(libc::EINVAL), "{missing}");
        self.passed("the_device_tells_what_it_is");
    }

    fn dc_is_there_or_refused_with_a_reason(&mut self) {
        assert!(Dctn::new(1 << 24).is_err());
        match verbs::try_dc(&self.bench.context, &self.bench.path(), verbs::Mtu::B1024) {
            Ok(caps) => println!("   not refused: {caps:?}"),
            Err(error) => {
                assert_eq!(error.errno(), Some(libc::EOPNOTSUPP), "{error}");
                println!("   {error}");
            }
        }
        self.passed("dc_is_there_or_refused_with_a_reason");
    }

    fn a_batch_is_one_doorbell_and_every_byte_is_right(&mut self, connection: &mut Connection) {
        let mut landing = self.landing();
        let rkey = connection.rkey;
        // Backwards: what lands where is told by the READ alone.
        let place = |at: usize| (BATCH - 1 - at) * 7 * PAGE;
        let count = connection.qp.post(|batch| {
            for at in 0..BATCH {
                let remote = Remote { rkey, address: IOVA + place(at) as u64 };
                batch.read(at as u64, remote, &mut landing, at * PAGE..(at + 1) * PAGE)?;
            }
            Ok(())
        });
        assert_eq!(count, Ok(BATCH));
        assert_eq!(landing.pending(), 16);
        let mut landing = landing.take_back().unwrap_err();
        for wc in self.completions(BATCH).values() {
            assert!(wc.status().is_success(), "{wc:?}");
            assert!(landing.completed(wc));
        }
        let buffer = landing.take_back().expect("nothing pending");
        for at in 0..BATCH {
            let page = &buffer[at * PAGE..(at + 1) * PAGE];
            assert!(page.iter().enumerate().all(|(i, byte)| *byte == pattern(place(at) + i)));
        }
        self.passed("a_batch_is_one_doorbell_and_every_byte_is_right");
    }

    fn a_mebibyte_is_one_read(&mut self, connection: &mut Connection) {
        let mut landing = self.landing();
        let remote = Remote { rkey: connection.rkey, address: IOVA + PAGE as u64 };
        connection.qp.post(|batch| batch.read(5, remote, &mut landing, 0..1 << 20)).unwrap();
        let wc = self.completions(1)[&5];
        assert!(wc.status().is_success() && landing.completed(&wc), "{wc:?}");
        let buffer = landing.take_back().expect("nothing pending");
        assert!(buffer.iter().enumerate().all(|(at, byte)| *byte == pattern(PAGE + at)));
        self.passed("a_mebibyte_is_one_read");
    }

    /// Figures, for whoever has a card: of READs one at a time, asleep until each completes.
    fn a_read_takes_its_time(&mut self, connection: &mut Connection) {
        const READS: usize = 200;
        let mut took: Vec<Duration> = Vec::with_capacity(READS);
        for at in 0..READS {
            let place = (at * 7 % (OWNED / PAGE)) * PAGE;
            let (status, time) = self.read_page(&mut connection.qp, connection.rkey, place);
            assert_eq!(status, WcStatus::SUCCESS);
            took.push(time);
        }
        took.sort_unstable();
        let (median, high) = (took[READS / 2], took[READS * 99 / 100]);
        println!("   READ of 4 KiB, asleep: median {median:?}, 99th percentile {high:?}");
        assert!(median < PATIENCE / 100, "{median:?}");
        self.passed("a_read_takes_its_time");
    }

    fn a_completion_wakes_a_poller(&mut self, connection: &mut Connection) {
        let cq = self.bench.cq.clone();
        while cq.drain_events().expect("events") {}
        assert!(!poll::readable(&[cq.fd()], Some(Duration::ZERO)).expect("poll"));
        cq.arm().expect("to arm");
        let mut landing = self.landing();
        let remote = Remote { rkey: connection.rkey, address: IOVA };
        connection.qp.post(|batch| batch.read(6, remote, &mut landing, 0..8)).unwrap();
        assert!(poll::readable(&[cq.fd()], Some(PATIENCE)).expect("poll"), "it slept on");
        assert!(cq.drain_events().expect("events"));
        assert!(!cq.drain_events().expect("events"), "an event came twice");
        let wc = self.completions(1)[&6];
        assert!(landing.completed(&wc) && landing.take_back().is_ok());
        self.passed("a_completion_wakes_a_poller");
    }

    fn a_full_queue_is_told_and_nothing_is_lost(&mut self, connection: &mut Connection) {
        let mut landing = self.landing();
        let remote = Remote { rkey: connection.rkey, address: IOVA };
        let error = connection
            .qp
            .post(|batch| {
                // The device may have given more room than the 32 that were asked for.
                (0..4096).try_for_each(|at| batch.read(at, remote, &mut landing, 0..8))
            })
            .unwrap_err();
        assert_eq!(error.fault, PostFault::Full, "{error}");
        landing.not_posted(&error);
        assert_eq!(landing.pending(), 0);
        assert!(landing.take_back().is_ok());
        assert!(self.bench.cq.poll(&mut [Wc::empty(); 4]).expect("to poll").is_empty());
        let (status, _) = self.read_page(&mut connection.qp, connection.rkey, PAGE);
        assert_eq!(status, WcStatus::SUCCESS);
        self.passed("a_full_queue_is_told_and_nothing_is_lost");
    }

    fn a_wrong_key_fails_and_flushes_its_neighbours(&mut self, mut connection: Connection) {
        let rkey = connection.rkey;
        let mut landing = self.landing();
        connection
            .qp
            .post(|batch| {
                let bad = Remote { rkey: rkey ^ 0x5500, address: IOVA };
                batch.read(1, bad, &mut landing, 0..PAGE)?;
                for at in 2..5 {
                    let good = Remote { rkey, address: IOVA };
                    batch.read(at, good, &mut landing, 0..PAGE)?;
                }
                Ok(())
            })
            .expect("to post");
        let found = self.completions(4);
        assert_eq!(found[&1].status(), WcStatus::REMOTE_ACCESS);
        for at in 2..5 {
            assert_eq!(found[&at].status(), WcStatus::FLUSHED);
        }
        assert!(found.values().all(|wc| landing.completed(wc)));
        assert!(landing.take_back().is_ok());
        assert_eq!(connection.qp.state(), QpState::Rts);
        assert_eq!(connection.qp.query_state().expect("a state"), QpState::Err);
        // The device flushes what is posted on a QP in ERR; it does not swallow it.
        assert_eq!(self.read_page(&mut connection.qp, rkey, 0).0, WcStatus::FLUSHED);
        self.passed("a_wrong_key_fails_and_flushes_its_neighbours");
    }

    fn beyond_the_end_fails(&mut self) {
        let mut connection = self.connect();
        let rkey = connection.rkey;
        let last = self.read_page(&mut connection.qp, rkey, OWNED - PAGE).0;
        assert_eq!(last, WcStatus::SUCCESS);
        let beyond = self.read_page(&mut connection.qp, rkey, OWNED - PAGE + 1).0;
        assert_eq!(beyond, WcStatus::REMOTE_ACCESS);
        self.passed("beyond_the_end_fails");
    }

    fn a_taken_back_registration_fails(&mut self) {
        let mut connection = self.connect();
        let rkey = connection.rkey;
        assert_eq!(self.read_page(&mut connection.qp, rkey, 0).0, WcStatus::SUCCESS);
        assert_eq!(self.side.ask("deregister"), "deregistered");
        assert_eq!(self.read_page(&mut connection.qp, rkey, 0).0, WcStatus::REMOTE_ACCESS);
        assert_eq!(self.side.ask("register"), "registered");
        self.passed("a_taken_back_registration_fails");
    }

    fn an_end_is_heard_of(&mut self) {
        let connection = self.connect();
        connection.id.disconnect().expect("to disconnect");
        assert_eq!(self.side.ask("disconnected"), "true");
        self.passed("an_end_is_heard_of");
    }

    /// Connects a QP in RESET with the owner's, without the manager; the key.
    fn connect_raw(&mut self, qp: &mut RcQp) -> u32 {
        let own = End::own(&self.bench, qp);
        let answer = numbers(&self.side.ask(&format!("raw {}", own.words())));
        connect(&self.bench, qp, End::from_words(&answer), Patience::PAGER);
        u32::try_from(answer[4]).expect("a key")
    }

    fn a_qp_comes_back_from_err(&mut self) {
        let mut qp = RcQp::new(&self.bench.pd, &self.bench.cq, 16).expect("a QP");
        let port = self.bench.port.port;
        let short = qp.modify(&Change::to(QpState::Init).port(port)).unwrap_err();
        assert_eq!(short.to_string(), "modify_qp RESET->INIT of an RC QP: missing ACCESS_FLAGS");
        let rkey = self.connect_raw(&mut qp);
        for round in 0..3 {
            assert_eq!(self.read_page(&mut qp, rkey, PAGE).0, WcStatus::SUCCESS, "round {round}");
            let refused = self.read_page(&mut qp, rkey ^ 0x5500, PAGE).0;
            assert_eq!(refused, WcStatus::REMOTE_ACCESS);
            qp.reset().expect("RESET");
            self.connect_raw(&mut qp);
        }
        assert_eq!(self.read_page(&mut qp, rkey, PAGE).0, WcStatus::SUCCESS);
        self.passed("a_qp_comes_back_from_err");
    }

    fn a_silent_peer_is_noticed_in_time(&mut self) {
        let mut qp = RcQp::new(&self.bench.pd, &self.bench.cq, 16).expect("a QP");
        let rkey = self.connect_raw(&mut qp);
        assert_eq!(self.side.ask("drop-raw"), "dropped");
        let (status, took) = self.read_page(&mut qp, rkey, 0);
        assert_eq!(status, WcStatus::RETRY_EXCEEDED, "{status}");
        let earliest = Patience::PAGER.time_to_notice();
        println!("   noticed after {took:?}; by the arithmetic {earliest:?}");
        assert!(took >= earliest && took < earliest * 20, "{took:?}");
        // What is destroyed with READs outstanding gives its buffers back all the same.
        let mut landing = self.landing();
        let remote = Remote { rkey, address: IOVA };
        let mut qp = RcQp::new(&self.bench.pd, &self.bench.cq, 16).expect("a QP");
        self.connect_raw(&mut qp);
        assert_eq!(self.side.ask("drop-raw"), "dropped");
        qp.post(|batch| batch.read(1, remote, &mut landing, 0..PAGE)).expect("to post");
        let mut landing = landing.take_back().unwrap_err();
        landing.qp_gone(&qp.destroy().expect("an end"));
        assert!(landing.take_back().is_ok());
        self.passed("a_silent_peer_is_noticed_in_time");
    }

    /// The last: the link is down after it.
    fn a_port_that_goes_down_is_told(&mut self) {
        let context = self.bench.context.clone();
        while context.next_event().expect("events").is_some() {}
        let run = Command::new("/bin/ip").args(["link", "set", "eth0", "down"]).status();
        assert!(run.expect("ip").success());
        let fd = context.event_fd();
        let began = Instant::now();
        loop {
            match context.next_event().expect("events") {
                Some(AsyncEvent::PortDown(_)) => break,
                Some(_) => {}
                None => assert!(poll::readable(&[fd], Some(PATIENCE)).expect("poll"), "no event"),
            }
            assert!(began.elapsed() < PATIENCE);
        }
        let port = context.port(self.bench.port.port).expect("the port");
        assert_ne!(port.state, PortState::Active);
        self.passed("a_port_that_goes_down_is_told");
    }
}
