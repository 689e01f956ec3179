//! Pages before they are missed: who reads sequentially, and what to fetch ahead of him. Pure state,
//! shared by the pager threads (which report misses) and the streamer (which fetches).
//!
//! ```text
//!             seen           next                 wanted        run's end
//!   ..|=========|=============|.....................|...............|
//!      stored    pieces in flight  to be posted       not yet wanted
//!                or being stored
//! ```
//! After [`TRIGGER`] misses in a row a *stream* begins. What it wants doubles from [`FIRST_WINDOW`] up to
//! [`MAX_WINDOW`] ahead of what the reader has been seen to touch, never beyond its run. Pages that are
//! stored cause no miss, so one page of each extension is kept back, a *wire*: touching it is a miss,
//! answered from here, and tells that more is wanted.
//!
//! A READ that lies inside one piece in flight is *parked* and answered by the streamer when the piece
//! is there. One that reaches over a piece's border is not: the streamer may be asleep storing the one
//! half, waiting for the page lock of this very READ. Pieces of two streams may overlap, and so the rule
//! is: nothing that is being stored overlaps a parked READ.

use std::sync::Arc;
use std::time::Instant;

use crate::descriptor::SeedAddr;
use crate::fabric::Buffer;
use crate::sys::fuse::ReadRequest;

#[cfg(test)]
mod tests;

/// Bytes of one READ ahead.
pub(super) const PIECE: usize = 128 << 10;
/// Pieces of an image in flight or being stored.
pub(super) const MAX_PIECES: usize = 16;
const MAX_STREAMS: usize = 4;
/// READs that may wait for one piece.
const MAX_PARKED: usize = 32;
/// Misses in a row that make a sequential reader.
const TRIGGER: u32 = 2;
const FIRST_WINDOW: u64 = 64 << 10;
const MAX_WINDOW: u64 = 8 << 20;
/// Extensions below this have no wire: the reader is soon through anyway.
const WIRE_FROM: u64 = 512 << 10;
const WIRE_BYTES: usize = 4096;
const MAX_WIRES: usize = 4;
/// Readers that are told apart.
const MAX_READERS: usize = 16;

/// A READ, and since when it waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) request: ReadRequest,
    pub(super) arrived: Instant,
}

/// What an owner has from some offset on, without a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    /// Offset of its end.
    pub(super) end: u64,
    /// Index of the owner.
    pub(super) owner: usize,
    /// The owner's address of its first byte.
    pub(super) source: SeedAddr,
    /// The child's address of its first byte.
    pub(super) addr: SeedAddr,
}

/// Where the bytes of a miss are to come from.
#[derive(Debug)]
pub(super) enum Verdict {
    /// From its owner, by the pager.
    Fetch,
    /// The streamer will answer it.
    Parked,
    /// They are here: in `buffer` from `at` on.
    Here { buffer: Arc<Buffer>, at: usize },
}

/// Something to fetch ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) id: u64,
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) owner: usize,
    /// The owner's address.
    pub(super) source: SeedAddr,
    /// The child's address.
    pub(super) addr: SeedAddr,
}

impl Piece {
    fn end(&self) -> u64 {
        self.offset + self.len as u64
    }
}

/// Where a piece's bytes must not be stored: READs that were parked on it and wires.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) parked: Vec<Wanted>,
    pub(super) wires: Vec<u64>,
    /// Ranges of READs that wait for another piece and reach into this one.
    pub(super) locked: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct PieceState {
    piece: Piece,
    stream: u64,
    bytes: Option<Arc<Buffer>>,
    parked: Vec<Wanted>,
}

#[derive(Debug)]
struct Wire {
    offset: u64,
    page: Option<Arc<Buffer>>,
}

#[derive(Debug)]
struct Stream {
    id: u64,
    start: u64,
    seen: u64,
    next: u64,
    wanted: u64,
    window: u64,
    ahead: Ahead,
    wires: Vec<Wire>,
    used: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reader {
    end: u64,
    hits: u32,
    used: u64,
}

/// All streams of an image.
#[derive(Debug)]
pub(super) struct Streams {
    readers: [Reader; MAX_READERS],
    streams: Vec<Stream>,
    pieces: Vec<PieceState>,
    clock: u64,
    next_id: u64,
    closed: bool,
}

impl Streams {
    pub(super) fn new() -> Self {
        Streams {
            readers: [Reader::default(); MAX_READERS],
            streams: Vec::with_capacity(MAX_STREAMS),
            pieces: Vec::with_capacity(MAX_PIECES),
            clock: 0,
            next_id: 1,
            closed: false,
        }
    }

    /// Takes note of a miss. `ahead` tells what lies from an offset on. The second answer: whether there
    /// is something new to fetch.
    pub(super) fn miss(
        &mut self,
        wanted: Wanted,
        ahead: impl FnOnce(u64) -> Option<Ahead>,
    ) -> (Verdict, bool) {
        if self.closed {
            return (Verdict::Fetch, false);
        }
        self.clock += 1;
        let (offset, end) = range_of(&wanted);
        let verdict = self.verdict(wanted);
        if self.follow(offset, end) {
            return (verdict, self.has_work());
        }
        if !matches!(verdict, Verdict::Fetch) || !self.is_sequential(offset, end) {
            return (verdict, false);
        }
        if let Some(ahead) = ahead(end).filter(|ahead| ahead.end - end >= FIRST_WINDOW) {
            self.begin(end, ahead);
        }
        (verdict, self.has_work())
    }

    fn verdict(&mut self, wanted: Wanted) -> Verdict {
        let (offset, end) = range_of(&wanted);
        let wires = self.streams.iter_mut().flat_map(|stream| &mut stream.wires);
        for wire in wires.filter(|wire| wire.offset == offset && offset + WIRE_BYTES as u64 == end)
        {
            if let Some(page) = &wire.page {
                return Verdict::Here { buffer: Arc::clone(page), at: 0 };
            }
        }
        let inside = |piece: &Piece| piece.offset <= offset && end <= piece.end();
        let stored = || self.pieces.iter().filter(|state| state.bytes.is_some());
        if let Some(state) = stored().find(|state| inside(&state.piece))
            && let Some(bytes) = &state.bytes
        {
            let at = usize::try_from(offset - state.piece.offset).unwrap_or(usize::MAX);
            return Verdict::Here { buffer: Arc::clone(bytes), at };
        }
        if stored().any(|state| state.piece.offset < end && offset < state.piece.end()) {
            return Verdict::Fetch;
        }
        let Some(state) = self.pieces.iter_mut().find(|state| inside(&state.piece)) else {
            return Verdict::Fetch;
        };
        if state.parked.len() == MAX_PARKED {
            return Verdict::Fetch;
        }
        state.parked.push(wanted);
        Verdict::Parked
    }

    /// Whether the miss belongs to a stream; the stream then wants more.
    fn follow(&mut self, offset: u64, end: u64) -> bool {
        let clock = self.clock;
        let near = |stream: &&mut Stream| stream.start <= offset && offset <= stream.wanted;
        let Some(stream) = self.streams.iter_mut().find(near) else { return false };
        stream.used = clock;
        stream.seen = stream.seen.max(end);
        if stream.next < end && stream.next >= offset {
            stream.next = end.min(stream.ahead.end);
        }
        stream.wanted = stream.wanted.max(stream.next);
        if stream.wanted.saturating_sub(stream.seen) < stream.window / 2 {
            stream.extend();
        }
        true
    }

    fn is_sequential(&mut self, offset: u64, end: u64) -> bool {
        let clock = self.clock;
        if let Some(reader) =
            self.readers.iter_mut().find(|reader| reader.end == offset && reader.used > 0)
        {
            *reader = Reader { end, hits: reader.hits + 1, used: clock };
            return reader.hits >= TRIGGER;
        }
        if let Some(oldest) = self.readers.iter_mut().min_by_key(|reader| reader.used) {
            *oldest = Reader { end, hits: 1, used: clock };
        }
        false
    }

    fn begin(&mut self, start: u64, ahead: Ahead) {
        if self.streams.len() == MAX_STREAMS {
            let oldest = self.streams.iter().enumerate().min_by_key(|(_, stream)| stream.used);
            let oldest = oldest.map_or(0, |(index, _)| index);
            self.streams.swap_remove(oldest);
        }
        let id = self.fresh_id();
        let mut stream = Stream {
            id,
            start,
            seen: start,
            next: start,
            wanted: start,
            window: FIRST_WINDOW / 2,
            ahead,
            wires: Vec::with_capacity(MAX_WIRES),
            used: self.clock,
        };
        stream.extend();
        self.streams.push(stream);
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn has_work(&self) -> bool {
        self.pieces.len() < MAX_PIECES && self.streams.iter().any(|s| s.next < s.wanted)
    }

    /// The next piece to fetch; it is in flight from now on.
    pub(super) fn next_piece(&mut self) -> Option<Piece> {
        if self.closed || self.pieces.len() == MAX_PIECES {
            return None;
        }
        let id = self.fresh_id();
        let waiting = self.streams.iter_mut().filter(|stream| stream.next < stream.wanted);
        let stream = waiting.max_by_key(|stream| stream.used)?;
        let len = PIECE.min(usize::try_from(stream.wanted - stream.next).unwrap_or(PIECE));
        let further = stream.next - stream.start;
        let piece = Piece {
            id,
            offset: stream.next,
            len,
            owner: stream.ahead.owner,
            source: SeedAddr(stream.ahead.source.0 + further),
            addr: SeedAddr(stream.ahead.addr.0 + further),
        };
        stream.next += len as u64;
        let stream = stream.id;
        let parked = Vec::with_capacity(MAX_PARKED);
        self.pieces.push(PieceState { piece, stream, bytes: None, parked });
        Some(piece)
    }

    /// The piece's bytes are here: READs inside it are answered from `buffer` from now on.
    pub(super) fn arrived(&mut self, id: u64, buffer: &Arc<Buffer>) -> Arrival {
        let nothing = Arrival { parked: Vec::new(), wires: Vec::new(), locked: Vec::new() };
        let Some(state) = self.pieces.iter_mut().find(|state| state.piece.id == id) else {
            return nothing;
        };
        state.bytes = Some(Arc::clone(buffer));
        let mut arrival = Arrival { parked: std::mem::take(&mut state.parked), ..nothing };
        let (piece, stream) = (state.piece, state.stream);
        for other in &mut self.pieces {
            other.parked.retain(|wanted| {
                let (start, end) = range_of(wanted);
                if piece.offset <= start && end <= piece.end() {
                    arrival.parked.push(*wanted);
                    return false;
                }
                if start < piece.end() && piece.offset < end {
                    arrival.locked.push((start, end));
                }
                true
            });
        }
        let Some(stream) = self.streams.iter_mut().find(|other| other.id == stream) else {
            return arrival;
        };
        for wire in &mut stream.wires {
            let inside =
                piece.offset <= wire.offset && wire.offset + WIRE_BYTES as u64 <= piece.end();
            let answered = arrival
                .parked
                .iter()
                .map(range_of)
                .any(|(start, end)| start <= wire.offset && wire.offset < end);
            if inside && !answered && wire.page.is_none() {
                let at = usize::try_from(wire.offset - piece.offset).unwrap_or(0);
                let page = buffer[at..at + WIRE_BYTES].into();
                wire.page = Some(Arc::new(Buffer::unregistered(page)));
                arrival.wires.push(wire.offset);
            }
        }
        arrival
    }

    /// The piece is in the page cache, or given up: READs that are still parked on it come back.
    pub(super) fn done(&mut self, id: u64) -> Vec<Wanted> {
        match self.pieces.iter().position(|state| state.piece.id == id) {
            Some(index) => self.pieces.swap_remove(index).parked,
            None => Vec::new(),
        }
    }

    /// The piece cannot be had: its stream ends.
    pub(super) fn failed(&mut self, id: u64) -> Vec<Wanted> {
        if let Some(state) = self.pieces.iter().find(|state| state.piece.id == id) {
            let stream = state.stream;
            self.streams.retain(|other| other.id != stream);
        }
        self.done(id)
    }

    /// Ends all streams for good.
    pub(super) fn close(&mut self) -> Vec<Wanted> {
        self.closed = true;
        self.streams.clear();
        self.pieces.drain(..).flat_map(|state| state.parked).collect()
    }

    /// Who waits for the READ `unique`, if it is parked.
    pub(super) fn parked_pid(&self, unique: u64) -> Option<u32> {
        let mut parked = self.pieces.iter().flat_map(|state| &state.parked);
        parked.find(|wanted| wanted.request.unique == unique).map(|wanted| wanted.request.pid)
    }
}

impl Stream {
    fn extend(&mut self) {
        self.window = (self.window * 2).min(MAX_WINDOW);
        let to = (self.seen + self.window).min(self.ahead.end);
        if to <= self.wanted {
            return;
        }
        let seen = self.seen;
        self.wires.retain(|wire| wire.offset >= seen);
        if to - self.wanted >= WIRE_FROM && self.wires.len() < MAX_WIRES && to < self.ahead.end {
            self.wires.push(Wire { offset: self.wanted, page: None });
        }
        self.wanted = to;
    }
}

fn range_of(wanted: &Wanted) -> (u64, u64) {
    let start = wanted.request.offset;
    (start, start + u64::from(wanted.request.size))
}
