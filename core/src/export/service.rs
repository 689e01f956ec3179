//! The page service: the server's side of READ streams (`wire::read`) and of the push.
//!
//! One thread a stream, blocking I/O, at most [`MAX_STREAMS`]; the thread is the caller's. A stream is
//! opened by a token that control has handed out and that is good once. Its greeting says whether it is encrypted.
//!
//! ```text
//!   greeting (token, or its id) --> welcome --> { READ --> answer | PUSH --> runs.. end }* --> end of stream
//!          \-- anything that breaks the protocol: a status, and the stream is closed
//! ```
//!
//! An answer is read from the seed whole before its header goes out, or all of it lies in the seed's copy: a
//! seed that dies or is revoked in between is a status and never a half answer.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::peers::{Pace, PeerLimits};
use super::tokens::Tokens;
use super::{ExportError, Exports};
use crate::descriptor::{SeedAddr, SeedRange};
use crate::fabric::MAX_READ_BYTES;
use crate::halt;
use crate::id::{ReadKey, SeedId, StreamToken};
use crate::sys::socket;
use crate::tally::Tally;
use crate::wire::read::{self, Ask, Malformed, Request, Status};
use crate::wire::read_stream::ReadStream;
use crate::wire::seal::Encryption;

mod greeting;

use greeting::Slot;

/// Streams served at a time: as many threads, each with a buffer of 1 MiB. 32 hosts with a full pool.
pub const MAX_STREAMS: usize = 256;
/// How long a peer may take for its greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stream may be silent before its thread is given back; the peer's pool opens another.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a peer may take none of an answer's bytes before its thread is given back.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Pushed bytes that are gathered for one write: many short runs go out in one segment train.
const PUSH_BATCH: usize = 256 << 10;
/// Where an answer's pages begin in its buffer: page-aligned, the header right in front of them, so
/// that both go out in one write.
const PAGES_AT: usize = 4096;
/// Bytes from which on an answer goes out of the seed's copy as it lies there; a shorter one is copied behind its
/// header sooner than it is sent by a call of its own.
const UNREAD_BYTES: usize = 32 << 10;
/// Requests are small and come in bunches.
const REQUEST_BUFFER: usize = 16 << 10;

const _: () = assert!(REQUEST_BUFFER >= read::MAX_REQUEST_LEN);
const _: () = assert!(PUSH_BATCH + PUSH_RUN_LEN <= PAGES_AT + MAX_READ_BYTES);

/// Bytes of one run of a push, all in all, at most.
const PUSH_RUN_LEN: usize = read::ANSWER_LEN + read::PUSH_ADDR_LEN + read::MAX_PUSH_BYTES;

/// Serves the seeds of this host to other hosts.
#[derive(Debug)]
pub struct PageService {
    exports: Arc<Exports>,
    tokens: Tokens,
    streams: AtomicUsize,
    encrypted: AtomicUsize,
    streams_of_peers: Arc<Tally<IpAddr>>,
    limits: PeerLimits,
    encryption: Encryption,
    pace: Pace,
    counters: ServiceCounters,
    busy_poll: Duration,
}

/// What a page service has done; the numbers only grow.
#[derive(Debug, Default)]
pub struct ServiceCounters {
    /// READs answered with their bytes.
    pub reads_served: AtomicU64,
    /// Bytes of pages sent, pushed ones included.
    pub bytes_served: AtomicU64,
}

impl ServiceCounters {
    /// A READ was answered with so many bytes.
    fn served(&self, bytes: usize) {
        self.reads_served.fetch_add(1, Ordering::Relaxed);
        self.bytes_served.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl PageService {
    /// A service for `exports`.
    pub fn new(exports: Arc<Exports>) -> Arc<Self> {
        PageService::with_busy_poll(exports, Duration::ZERO)
    }

    /// A service whose threads look for the next request for so long before they sleep: on hosts where a
    /// CPU costs less than a wake-up's time.
    pub fn with_busy_poll(exports: Arc<Exports>, busy_poll: Duration) -> Arc<Self> {
        PageService::bounded(exports, busy_poll, PeerLimits::default(), Encryption::default())
    }

    /// A service of which each peer may take so much, and whose streams are encrypted if it or the peer demands it.
    pub fn bounded(
        exports: Arc<Exports>,
        busy_poll: Duration,
        limits: PeerLimits,
        encryption: Encryption,
    ) -> Arc<Self> {
        Arc::new(PageService {
            exports,
            tokens: Tokens::default(),
            streams: AtomicUsize::new(0),
            encrypted: AtomicUsize::new(0),
            streams_of_peers: Arc::default(),
            limits,
            encryption,
            pace: Pace::default(),
            counters: ServiceCounters::default(),
            busy_poll,
        })
    }

    /// A token that opens one stream within [`TOKEN_LIFE`](super::tokens::TOKEN_LIFE), for whoever has it.
    pub fn issue_token(&self) -> StreamToken {
        self.tokens.issue(None)
    }

    /// A token that opens one stream within [`TOKEN_LIFE`](super::tokens::TOKEN_LIFE) from the address `peer` and from no other.
    pub fn issue_token_to(&self, peer: IpAddr) -> StreamToken {
        self.tokens.issue(Some(peer))
    }

    /// What was done so far.
    pub fn counters(&self) -> &ServiceCounters {
        &self.counters
    }

    /// Streams that are open now.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whether it serves encrypted streams alone.
    pub fn encryption(&self) -> Encryption {
        self.encryption
    }

    /// Of these, encrypted ones.
    pub fn encrypted_streams(&self) -> usize {
        self.encrypted.load(Ordering::Relaxed)
    }

    /// Serves `stream`, of which nothing is consumed yet (peeking is fine), on the calling thread, and
    /// returns when it has ended.
    pub fn serve(self: &Arc<Self>, stream: TcpStream) {
        match self.welcome(stream) {
            Ok(Some((stream, slot))) => {
                let mut session = Session::new(self, stream, &slot);
                if let Err(error) = session.run() {
                    tracing::debug!(%error, "a READ stream has ended");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "a READ stream was not opened"),
        }
    }

    /// See [`Tokens::redeem`].
    pub(super) fn redeem(
        &self,
        token: &StreamToken,
        from: Option<IpAddr>,
    ) -> Result<(), &'static str> {
        self.tokens.redeem(token, from)
    }
}

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("the peer breaks the protocol: {0}")]
    Malformed(#[from] Malformed),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// One stream behind its welcome.
struct Session<'a> {
    service: &'a PageService,
    slot: &'a Slot,
    stream: ReadStream,
    requests: Box<[u8]>,
    /// What is received and not yet parsed: `requests[at..end]`.
    at: usize,
    end: usize,
    answer: Box<[u8]>,
}

impl<'a> Session<'a> {
    fn new(service: &'a PageService, stream: ReadStream, slot: &'a Slot) -> Self {
        Session {
            service,
            slot,
            stream,
            requests: vec![0; REQUEST_BUFFER].into(),
            at: 0,
            end: 0,
            answer: vec![0; PAGES_AT + MAX_READ_BYTES].into(),
        }
    }

    fn run(&mut self) -> Result<(), SessionError> {
        loop {
            match self.next() {
                Ok(Some(Request { tag, seed, key, ask: Ask::Read(ranges) })) => {
                    halt::at(halt::Step::Miss);
                    self.read(tag, seed, &key, &ranges)?;
                }
                Ok(Some(Request { tag, seed, key, ask: Ask::Push(holes) })) => {
                    halt::at(halt::Step::Push);
                    self.push(tag, seed, &key, &holes)?;
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    let end = read::encode_answer(0, Status::Protocol, 0);
                    // The peer may be gone already; the stream ends either way.
                    let _ = self.stream.send_all(&end);
                    return Err(error);
                }
            }
        }
    }

    /// The next request; `None` at the stream's end.
    fn next(&mut self) -> Result<Option<Request>, SessionError> {
        loop {
            if let Some((request, used)) = read::parse_request(&self.requests[self.at..self.end])? {
                self.at += used;
                return Ok(Some(request));
            }
            self.requests.copy_within(self.at..self.end, 0);
            self.end -= self.at;
            self.at = 0;
            match self.receive() {
                Ok(0) => return Ok(None),
                Ok(got) => self.end += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Bytes of requests; sleeps if none come while it looks for them.
    fn receive(&mut self) -> io::Result<usize> {
        if !self.service.busy_poll.is_zero() {
            let until = Instant::now() + self.service.busy_poll;
            while Instant::now() < until {
                match self.stream.receive_by(&mut self.requests[self.end..], socket::receive_now) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    received => return received,
                }
            }
        }
        self.stream.receive(&mut self.requests[self.end..])
    }

    fn read(
        &mut self,
        tag: u32,
        seed: SeedId,
        key: &ReadKey,
        ranges: &read::Ranges,
    ) -> io::Result<()> {
        let bytes = ranges.bytes();
        let status = match self.service.exports.open(seed, key) {
            Ok(exported) => {
                self.wait_for_turn(bytes);
                if exported.is_revoked() {
                    return self.answer_read(tag, bytes, Err(ExportError::Refused(seed)));
                }
                if bytes >= UNREAD_BYTES && !self.stream.is_encrypted() {
                    let header = read::encode_answer(tag, Status::Ok, bytes);
                    if exported.send(ranges.list(), &header, self.stream.tcp())? {
                        self.service.counters.served(bytes);
                        return Ok(());
                    }
                }
                self.fill(ranges, |at, into| exported.read(at, into))
            }
            Err(error) => Err(error),
        };
        self.answer_read(tag, bytes, status)
    }

    /// Waits until the peer may have so many bytes more.
    fn wait_for_turn(&self, bytes: usize) {
        let (Some(rate), Some(peer)) = (self.service.limits.bytes_per_s, self.slot.from) else {
            return;
        };
        let wait = self.service.pace.take(peer, bytes as u64, rate, Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }

    /// Puts the bytes of `ranges` where an answer's pages stand.
    fn fill(
        &mut self,
        ranges: &read::Ranges,
        read: impl Fn(SeedAddr, &mut [u8]) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let mut at = PAGES_AT;
        for &(addr, len) in ranges.list() {
            let len = len as usize;
            read(addr, &mut self.answer[at..at + len])?;
            at += len;
        }
        Ok(())
    }

    fn answer_read(
        &mut self,
        tag: u32,
        bytes: usize,
        status: Result<(), ExportError>,
    ) -> io::Result<()> {
        let (status, len) = match status {
            Ok(()) => (Status::Ok, bytes),
            Err(error) => (refusal(&error), 0),
        };
        let from = PAGES_AT - read::ANSWER_LEN;
        self.answer[from..PAGES_AT].copy_from_slice(&read::encode_answer(tag, status, len));
        if status == Status::Ok {
            self.service.counters.served(len);
        }
        self.stream.send_all(&self.answer[from..PAGES_AT + len])
    }

    /// Sends the hot pages of a seed, run by run.
    fn push(
        &mut self,
        tag: u32,
        seed: SeedId,
        key: &ReadKey,
        holes: &[SeedRange],
    ) -> io::Result<()> {
        let mut used = 0;
        let status = match self.service.exports.open(seed, key) {
            Err(error) => refusal(&error),
            Ok(exported) => {
                let mut status = Status::Ok;
                let hot = exported.hot();
                'runs: for run in hot.iter().flat_map(|run| without(*run, holes)) {
                    let mut addr = run.start;
                    while addr < run.end {
                        if used + PUSH_RUN_LEN > PUSH_BATCH {
                            self.wait_for_turn(used);
                            if exported.is_revoked() {
                                (status, used) = (refusal(&ExportError::Refused(seed)), 0);
                                break 'runs;
                            }
                            self.stream.send_all(&self.answer[..used])?;
                            used = 0;
                        }
                        let left = run.end.0 - addr.0;
                        let len = usize::try_from(left).unwrap_or(usize::MAX);
                        let len = len.min(read::MAX_PUSH_BYTES);
                        let pages = used + read::ANSWER_LEN + read::PUSH_ADDR_LEN;
                        if let Err(error) =
                            exported.read(addr, &mut self.answer[pages..pages + len])
                        {
                            status = refusal(&error);
                            break 'runs;
                        }
                        self.put_run(used, tag, addr, len);
                        used = pages + len;
                        addr = SeedAddr(addr.0 + len as u64);
                    }
                }
                status
            }
        };
        let end = read::encode_answer(tag, status, 0);
        self.answer[used..used + read::ANSWER_LEN].copy_from_slice(&end);
        self.wait_for_turn(used);
        self.stream.send_all(&self.answer[..used + read::ANSWER_LEN])
    }

    /// Writes the header of a run whose pages stand behind it.
    fn put_run(&mut self, at: usize, tag: u32, addr: SeedAddr, len: usize) {
        let header = read::encode_answer(tag, Status::Pushed, read::PUSH_ADDR_LEN + len);
        let addr_at = at + read::ANSWER_LEN;
        self.answer[at..addr_at].copy_from_slice(&header);
        self.answer[addr_at..addr_at + read::PUSH_ADDR_LEN].copy_from_slice(&addr.0.to_le_bytes());
        self.service.counters.bytes_served.fetch_add(len as u64, Ordering::Relaxed);
    }
}

/// The parts of a run that lie in none of the holes, ascending.
fn without(run: SeedRange, holes: &[SeedRange]) -> Vec<SeedRange> {
    let mut parts = vec![run];
    for hole in holes.iter().filter(|hole| hole.start < run.end && run.start < hole.end) {
        let cut = |part: SeedRange| {
            let before = SeedRange { start: part.start, end: part.end.min(hole.start) };
            let behind = SeedRange { start: part.start.max(hole.end), end: part.end };
            [before, behind].into_iter().filter(|part| part.start < part.end)
        };
        parts = parts.into_iter().flat_map(cut).collect();
    }
    parts
}

fn refusal(error: &ExportError) -> Status {
    match error {
        ExportError::Refused(_) => Status::Revoked,
        ExportError::Ended(_) => Status::Ended,
        ExportError::NotExported { .. } | ExportError::Unreadable { .. } => Status::BadRange,
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::listen as listen_for_tests;
