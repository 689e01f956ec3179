use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::descriptor::SeedRange;
use crate::export::stand_in::{StandIn, expected};
use crate::fabric::MAX_RANGES;
use crate::id::{ReadKey, SeedId};
use crate::wire::read::{ANSWER_LEN, Answer, MAX_PUSH_BYTES, PUSH_ADDR_LEN};

mod copy;

const PAGE: u64 = 4096;

/// Serves on loopback for the rest of the test program.
pub(crate) fn listen(service: &Arc<PageService>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let service = Arc::clone(service);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let service = Arc::clone(&service);
            thread::spawn(move || service.serve(stream.unwrap()));
        }
    });
    address
}

struct Client(TcpStream);

impl Client {
    fn open(address: SocketAddr, token: &StreamToken) -> Result<Client, Status> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(&read::encode_greeting(token)).unwrap();
        let mut welcome = [0; read::WELCOME_LEN];
        stream.read_exact(&mut welcome).unwrap();
        match read::parse_welcome(welcome).unwrap() {
            Status::Ok => Ok(Client(stream)),
            refused => Err(refused),
        }
    }

    fn ask(&mut self, tag: u32, seed: SeedId, key: &ReadKey, ranges: &[(SeedAddr, u32)]) {
        let mut request = Vec::new();
        read::encode_read(&mut request, tag, seed, key, ranges);
        self.0.write_all(&request).unwrap();
    }

    fn answer(&mut self) -> (Answer, Vec<u8>) {
        let mut header = [0; ANSWER_LEN];
        self.0.read_exact(&mut header).unwrap();
        let answer = read::parse_answer(&header).unwrap();
        let mut body = vec![0; answer.len];
        self.0.read_exact(&mut body).unwrap();
        (answer, body)
    }

    fn is_closed(&mut self) -> bool {
        // Closed with requests unread, the connection may be reset instead of ended.
        !matches!(self.0.read(&mut [0; 1]), Ok(1))
    }
}

struct Served {
    stand_in: StandIn,
    exports: Arc<Exports>,
    service: Arc<PageService>,
    address: SocketAddr,
    seed: SeedId,
    key: ReadKey,
}

impl Served {
    fn start(pages: u64) -> Served {
        let exports = Exports::new();
        let stand_in = StandIn::start(pages * PAGE);
        let (seed, key) = stand_in.export(&exports);
        let service = PageService::new(Arc::clone(&exports));
        let address = listen(&service);
        Served { stand_in, exports, service, address, seed, key }
    }

    fn client(&self) -> Client {
        Client::open(self.address, &self.service.issue_token()).ok().unwrap()
    }

    fn addr(&self, offset: u64) -> SeedAddr {
        SeedAddr(self.stand_in.range().start.0 + offset)
    }
}

impl Served {
    /// Waits for the count: a READ may be counted behind its answer.
    fn has_served(&self, reads: u64) {
        let until = Instant::now() + Duration::from_secs(5);
        let served = || self.service.counters().reads_served.load(Ordering::Relaxed);
        while served() < reads && Instant::now() < until {
            thread::yield_now();
        }
        assert_eq!(served(), reads);
    }
}

#[test]
fn reads_are_answered_in_order_and_counted() {
    let served = Served::start(64);
    let mut client = served.client();
    for tag in 0..8u32 {
        let offset = u64::from(tag) * PAGE;
        client.ask(tag, served.seed, &served.key, &[(served.addr(offset), 4096)]);
    }
    for tag in 0..8u32 {
        let (answer, body) = client.answer();
        assert_eq!((answer.tag, answer.status), (tag, Status::Ok));
        assert_eq!(body, expected(u64::from(tag) * PAGE, 4096));
    }
    let many: Vec<_> =
        (0..MAX_RANGES as u64).rev().map(|page| (served.addr(page * PAGE + 8), 100)).collect();
    client.ask(9, served.seed, &served.key, &many);
    let (answer, body) = client.answer();
    assert_eq!((answer.status, answer.len), (Status::Ok, MAX_RANGES * 100));
    for (range, page) in body.chunks(100).zip((0..MAX_RANGES as u64).rev()) {
        assert_eq!(range, expected(page * PAGE + 8, 100));
    }
    served.has_served(9);
    let counters = served.service.counters();
    assert_eq!(counters.bytes_served.load(Ordering::Relaxed), 8 * 4096 + 6400);
}

#[test]
fn a_long_answer_is_its_ranges_whole() {
    let served = Served::start(300);
    let mut client = served.client();
    // Below and above what is read directly, at any alignment.
    let ranges = [(8, 100_001), (40_960, 3), (200_000, 700_000), (4096, 65_536)];
    let asked = ranges.map(|(offset, len)| (served.addr(offset), len));
    for tag in 0..3 {
        client.ask(tag, served.seed, &served.key, &asked);
        let (answer, body) = client.answer();
        assert_eq!((answer.tag, answer.status, answer.len), (tag, Status::Ok, 865_540));
        let right: Vec<u8> =
            ranges.iter().flat_map(|&(at, len)| expected(at, len as usize)).collect();
        assert!(body == right);
    }
}

#[test]
fn a_thread_that_looks_for_requests_sleeps_and_wakes_as_any() {
    let exports = Exports::new();
    let stand_in = StandIn::start(4 * PAGE);
    let (seed, key) = stand_in.export(&exports);
    let service = PageService::with_busy_poll(exports, Duration::from_millis(2));
    let mut client = Client::open(listen(&service), &service.issue_token()).ok().unwrap();
    for (tag, pause_ms) in [(1, 0), (2, 0), (3, 20), (4, 0)] {
        thread::sleep(Duration::from_millis(pause_ms));
        client.ask(tag, seed, &key, &[(stand_in.range().start, 4096)]);
        let (answer, body) = client.answer();
        assert_eq!((answer.tag, body), (tag, expected(0, 4096)));
    }
}

#[test]
fn a_refused_read_leaves_the_stream_open() {
    let mut served = Served::start(4);
    let mut client = served.client();
    let ask = |client: &mut Client, key: &ReadKey, addr| {
        client.ask(1, served.seed, key, &[(addr, 4096)]);
        client.answer().0.status
    };
    let first = SeedAddr(served.stand_in.range().start.0);
    assert_eq!(ask(&mut client, &ReadKey::random(), first), Status::Revoked);
    assert_eq!(ask(&mut client, &served.key, SeedAddr(first.0 + 4 * PAGE)), Status::BadRange);
    assert_eq!(ask(&mut client, &served.key, first), Status::Ok);
    served.stand_in.kill();
    assert_eq!(ask(&mut client, &served.key, first), Status::Ended);
    served.exports.revoke(served.seed);
    assert_eq!(ask(&mut client, &served.key, first), Status::Revoked);
}

#[test]
fn a_token_opens_one_stream() {
    let served = Served::start(1);
    let token = served.service.issue_token();
    assert!(Client::open(served.address, &token).is_ok());
    assert_eq!(Client::open(served.address, &token).err(), Some(Status::Revoked));
    let made_up = StreamToken::random();
    assert_eq!(Client::open(served.address, &made_up).err(), Some(Status::Revoked));
}

#[test]
fn a_token_is_good_from_the_address_that_it_was_issued_to_alone() {
    let served = Served::start(1);
    let here = IpAddr::from([127, 0, 0, 1]);
    let of_another = served.service.issue_token_to([10, 0, 0, 1].into());
    assert_eq!(Client::open(served.address, &of_another).err(), Some(Status::Revoked));
    // Whoever has taken it has made it worthless.
    assert!(served.service.redeem(&of_another, Some([10, 0, 0, 1].into())).is_err());
    assert!(Client::open(served.address, &served.service.issue_token_to(here)).is_ok());
}

#[test]
fn a_peer_has_so_many_streams_and_others_have_theirs() {
    let limits = PeerLimits { streams: 2, bytes_per_s: None };
    let service = PageService::bounded(Exports::new(), Duration::ZERO, limits, Encryption::Offered);
    let slot = |last: u8| service.slot(Some([10, 0, 0, last].into()));
    let (first, second) = (slot(1), slot(1));
    assert!(slot(1).unwrap_err().contains("(max_streams_of_peer)"));
    assert_eq!(service.streams(), 2, "who is refused takes no place");
    assert!(slot(2).is_ok());
    drop(first);
    assert!(slot(1).is_ok());
    drop(second);
    let address = listen(&service);
    let here: Vec<Client> =
        (0..2).map(|_| Client::open(address, &service.issue_token()).ok().unwrap()).collect();
    let third = Client::open(address, &service.issue_token());
    assert_eq!(third.err(), Some(Status::Busy));
    drop(here);
}

#[test]
fn a_peer_is_sent_so_many_bytes_a_second() {
    const RATE: u64 = 4 << 20;
    let exports = Exports::new();
    let stand_in = StandIn::start(256 * PAGE);
    let (seed, key) = stand_in.export(&exports);
    let limits = PeerLimits { streams: 8, bytes_per_s: Some(RATE) };
    let service = PageService::bounded(exports, Duration::ZERO, limits, Encryption::Offered);
    let address = listen(&service);
    let begun = Instant::now();
    let mut clients: Vec<Client> =
        (0..2).map(|_| Client::open(address, &service.issue_token()).ok().unwrap()).collect();
    for client in &mut clients {
        client.ask(1, seed, &key, &[(stand_in.range().start, 1 << 20)]);
    }
    for client in &mut clients {
        assert_eq!(client.answer().1.len(), 1 << 20);
    }
    // Two of them, at a quarter of a second each, less what a peer may have at once.
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
}

#[test]
fn an_expired_token_is_refused() {
    let served = Served::start(1);
    let token = served.service.issue_token();
    served.service.tokens.age();
    assert_eq!(Client::open(served.address, &token).err(), Some(Status::Revoked));
}

#[test]
fn streams_are_bounded() {
    let served = Served::start(1);
    let mut open: Vec<Client> = (0..MAX_STREAMS).map(|_| served.client()).collect();
    let token = served.service.issue_token();
    assert_eq!(Client::open(served.address, &token).err(), Some(Status::Busy));
    open.pop();
    let until = Instant::now() + Duration::from_secs(5);
    while Client::open(served.address, &served.service.issue_token()).is_err() {
        assert!(Instant::now() < until, "a closed stream gives its place back");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn another_protocol_and_another_version_are_refused() {
    let served = Served::start(1);
    let mut wrong_magic = read::encode_greeting(&served.service.issue_token());
    let mut wrong_major = wrong_magic;
    wrong_magic[0] = b'G';
    wrong_major[8] = 9;
    for greeting in [wrong_magic, wrong_major] {
        let mut stream = TcpStream::connect(served.address).unwrap();
        stream.write_all(&greeting).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, read::encode_welcome(Status::Protocol));
    }
    // Cut short: the stream ends without an answer, and its thread with it.
    let mut stream = TcpStream::connect(served.address).unwrap();
    stream.write_all(b"MITO").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn garbage_and_oversized_requests_close_the_stream() {
    let served = Served::start(1);
    let mut good = Vec::new();
    read::encode_read(&mut good, 1, served.seed, &served.key, &[(served.addr(0), 4096)]);
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    let past = u16::try_from(MAX_RANGES + 1).unwrap().to_le_bytes();
    let cases = [
        vec![0xff; 4096],
        with(2, &past),
        with(2, &u16::MAX.to_le_bytes()),
        with(40, &u32::MAX.to_le_bytes()),
        with(40, &0u32.to_le_bytes()),
        with(32, &u64::MAX.to_le_bytes()),
    ];
    for bad in cases {
        let mut client = served.client();
        client.0.write_all(&bad).unwrap();
        assert_eq!(client.answer().0.status, Status::Protocol);
        assert!(client.is_closed());
    }
    let mut client = served.client();
    client.0.write_all(&good[..good.len() - 1]).unwrap();
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.is_closed());
}

#[test]
fn a_push_sends_the_hot_pages_in_their_order() {
    let served = Served::start(100);
    let base = served.stand_in.range().start.0;
    let pages = |from: u64, to: u64| SeedRange::new(base + from * PAGE, base + to * PAGE);
    let hot = [pages(50, 51), pages(0, 40), pages(99, 100)];
    served.exports.set_hot(served.seed, hot.to_vec());
    let mut client = served.client();
    assert_eq!(push(&served, &mut client, &[]), hot);
    // The stream goes on after a push.
    client.ask(6, served.seed, &served.key, &[(served.addr(0), 8)]);
    assert_eq!(client.answer().1, expected(0, 8));
}

/// A run may have parts that are there already, in front and behind: its other parts are sent all the same.
#[test]
fn a_push_leaves_out_what_lies_in_a_hole_and_nothing_else() {
    let served = Served::start(100);
    let base = served.stand_in.range().start.0;
    let pages = |from: u64, to: u64| SeedRange::new(base + from * PAGE, base + to * PAGE);
    served.exports.set_hot(served.seed, vec![pages(10, 20), pages(30, 40), pages(50, 52)]);
    let holes = [pages(36, 38), pages(5, 12), pages(15, 16), pages(50, 60), pages(20, 30)];
    let mut client = served.client();
    let sent = push(&served, &mut client, &holes);
    assert_eq!(sent, [pages(12, 15), pages(16, 20), pages(30, 36), pages(38, 40)]);
}

/// What a push brings, runs that touch as one.
fn push(served: &Served, client: &mut Client, holes: &[SeedRange]) -> Vec<SeedRange> {
    let base = served.stand_in.range().start.0;
    let mut request = Vec::new();
    read::encode_push(&mut request, 5, served.seed, &served.key, holes);
    client.0.write_all(&request).unwrap();
    let mut got: Vec<SeedRange> = Vec::new();
    loop {
        let (answer, body) = client.answer();
        assert_eq!(answer.tag, 5);
        if answer.status == Status::Ok {
            return got;
        }
        let (addr, pages) = body.split_first_chunk::<PUSH_ADDR_LEN>().unwrap();
        let addr = u64::from_le_bytes(*addr);
        assert!(pages.len() <= MAX_PUSH_BYTES);
        assert_eq!(pages, expected(addr - base, pages.len()));
        let end = addr + pages.len() as u64;
        match got.last_mut() {
            Some(last) if last.end.0 == addr => last.end.0 = end,
            _ => got.push(SeedRange::new(addr, end)),
        }
    }
}

#[test]
fn a_push_of_a_dead_seed_says_so() {
    let mut served = Served::start(4);
    served.exports.set_hot(served.seed, vec![served.stand_in.range()]);
    served.stand_in.kill();
    let mut client = served.client();
    let mut request = Vec::new();
    read::encode_push(&mut request, 5, served.seed, &served.key, &[]);
    client.0.write_all(&request).unwrap();
    assert_eq!(client.answer().0.status, Status::Ended);
}
