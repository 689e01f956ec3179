//! The thread that fetches ahead: takes pieces from [`Streams`](super::prefetch::Streams), READs them on
//! queues of its own, answers the READs that wait for them and stores the rest into the page cache.
//!
//! It runs at a higher priority than the children that it feeds: on one CPU it must get ahead of them,
//! or each of their misses is two switches.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::counters::count;
use super::miss::{MAX_FLUSHED, pages};
use super::prefetch::{Arrival, MAX_PIECES, Piece, Wanted};
use crate::fabric::{Buffer, Completion, PostError, Read, ReadError, ReadQueue};
use crate::sys::event::Poller;
use crate::sys::fuse::Parts;
use crate::sys::sched;
use crate::wire::traced::Way;

/// Reading ahead is worth a fast answer only: READs parked on it must have time left for another try.
const LONGEST_READ: Duration = Duration::from_secs(1);

/// The streamer's own state.
#[derive(Debug)]
pub(super) struct Streamer {
    queues: Vec<Box<dyn ReadQueue>>,
    in_flight: Vec<Flight>,
    buffers: Vec<Buffer>,
    /// Buffers that a pager is just answering from.
    lent: Vec<Arc<Buffer>>,
    completions: Vec<Completion>,
    poller: Poller,
    fds: Vec<RawFd>,
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    piece: Piece,
    flushed: u32,
    /// The owner's way that it takes.
    route: usize,
}

impl Streamer {
    pub(super) fn new(image: &Shared) -> Self {
        Streamer {
            queues: image.fabrics.iter().map(|fabric| Arc::clone(fabric).queue()).collect(),
            in_flight: Vec::with_capacity(MAX_PIECES),
            buffers: Vec::with_capacity(MAX_PIECES),
            lent: Vec::new(),
            completions: Vec::with_capacity(MAX_PIECES),
            poller: Poller::with_capacity(64),
            fds: Vec::with_capacity(64),
        }
    }

    /// Fetches until the image ends.
    pub(super) fn run(mut self, image: &Shared) {
        if let Some(&cpu) = image.config.cpus.first() {
            let _ = sched::pin(cpu);
        }
        let _ = sched::set_nice(super::NICE);
        while !image.is_streamer_ending.load(Ordering::Acquire) {
            let posted = self.post_all(image);
            if !self.reap(image) && !posted && self.rest(image).is_err() {
                break;
            }
        }
        let parked = image.streams.lock().close();
        image.give_back(parked);
    }

    fn post_all(&mut self, image: &Shared) -> bool {
        let mut posted = false;
        loop {
            let piece = image.streams.lock().next_piece();
            let Some(piece) = piece else { return posted };
            posted = true;
            let buffer = self.buffer(image);
            self.post(image, Flight { piece, flushed: 0, route: 0 }, buffer);
        }
    }

    fn buffer(&mut self, image: &Shared) -> Buffer {
        for index in (0..self.lent.len()).rev() {
            match Arc::try_unwrap(self.lent.swap_remove(index)) {
                Ok(buffer) => self.buffers.push(buffer),
                Err(still_lent) => self.lent.push(still_lent),
            }
        }
        self.buffers.pop().unwrap_or_else(|| image.buffers.take())
    }

    fn post(&mut self, image: &Shared, flight: Flight, buffer: Buffer) {
        let Flight { piece, .. } = flight;
        let ways = image.owners.get(piece.owner);
        let Some((ways, route)) = ways.and_then(|ways| Some((ways, ways.routes.first()?))) else {
            self.buffers.push(buffer);
            return fail(image, &piece);
        };
        count(&image.counters.reads, 1);
        let mut read = Read {
            tag: piece.id,
            seed: ways.seed,
            export: route.export.clone(),
            arena: ways.arena.clone(),
            ranges: vec![(piece.source, u32::try_from(piece.len).unwrap_or(u32::MAX))],
            buffer,
            deadline: Instant::now() + LONGEST_READ.min(image.config.miss_deadline / 2),
        };
        for (index, route) in ways.routes.iter().enumerate() {
            read.export = route.export.clone();
            match self.queues[route.fabric].post(read) {
                Ok(()) => return self.in_flight.push(Flight { route: index, ..flight }),
                Err(PostError { error: ReadError::NotYet, read: back }) => read = back,
                Err(refused) => {
                    count(&image.counters.reads_failed, 1);
                    self.buffers.push(refused.read.buffer);
                    return fail(image, &piece);
                }
            }
        }
        self.buffers.push(read.buffer);
        fail(image, &piece);
    }

    /// Handles all completions; tells whether there was one.
    fn reap(&mut self, image: &Shared) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        for queue in &mut self.queues {
            if queue.in_flight() > 0 {
                queue.reap(&mut |completion| completions.push(completion));
            }
        }
        let any = !completions.is_empty();
        for completion in completions.drain(..) {
            self.complete(image, completion);
        }
        self.completions = completions;
        any
    }

    fn complete(&mut self, image: &Shared, completion: Completion) {
        let Completion { tag, buffer, result } = completion;
        let Some(at) = self.in_flight.iter().position(|flight| flight.piece.id == tag) else {
            return self.buffers.push(buffer);
        };
        let flight = self.in_flight.swap_remove(at);
        match result {
            Ok(()) => {
                if image.is_rdma(flight.piece.owner, flight.route) {
                    count(&image.counters.pages_rdma, pages(flight.piece.len));
                }
                self.deliver(image, &flight.piece, buffer);
            }
            Err(ReadError::Flushed) if flight.flushed < MAX_FLUSHED => {
                count(&image.counters.reads_failed, 1);
                self.post(image, Flight { flushed: flight.flushed + 1, ..flight }, buffer);
            }
            Err(_) => {
                count(&image.counters.reads_failed, 1);
                self.buffers.push(buffer);
                fail(image, &flight.piece);
            }
        }
    }

    /// Answers those who wait, stores the rest. The next pieces are asked for first: the wire must not
    /// fall silent meanwhile.
    fn deliver(&mut self, image: &Shared, piece: &Piece, mut buffer: Buffer) {
        image.patch(piece.addr, &mut buffer[..piece.len]);
        count(&image.counters.pages_pulled, pages(piece.len));
        count(&image.counters.pages_prefetched, pages(piece.len));
        let buffer = Arc::new(buffer);
        let arrival = image.streams.lock().arrived(piece.id, &buffer);
        for wanted in &arrival.parked {
            let at = index(wanted.request.offset - piece.offset);
            let mut parts = Parts::new();
            parts.push(&buffer[at..at + wanted.request.size as usize]);
            image.answer(wanted, &parts);
            image.note_whole(wanted, Way::Hit);
        }
        for (start, end) in gaps(piece, &arrival) {
            let bytes = &buffer[index(start - piece.offset)..index(end - piece.offset)];
            if image.device.store(start, bytes).is_err() {
                break;
            }
            image.note_unasked(start, bytes.len(), Way::Ahead);
        }
        let parked = image.streams.lock().done(piece.id);
        image.give_back(parked);
        self.lent.push(buffer);
    }

    fn rest(&mut self, image: &Shared) -> std::io::Result<()> {
        self.fds.clear();
        self.queues.iter().filter(|queue| queue.in_flight() > 0).for_each(|queue| {
            queue.poll_fds(&mut self.fds);
        });
        self.poller.clear();
        self.poller.add(image.streamer_bell.as_raw_fd());
        self.fds.iter().for_each(|&fd| self.poller.add(fd));
        // Deadlines of READs are enforced when they are reaped.
        let limit = (!self.in_flight.is_empty()).then_some(Duration::from_millis(50));
        self.poller.wait(limit)?;
        if self.poller.is_ready(0) {
            image.streamer_bell.hush();
        }
        Ok(())
    }
}

fn fail(image: &Shared, piece: &Piece) {
    let parked = image.streams.lock().failed(piece.id);
    image.give_back(parked);
}

/// What of a piece is to be stored: all but the pages just answered and the wires.
fn gaps(piece: &Piece, arrival: &Arrival) -> Vec<(u64, u64)> {
    let answered = arrival
        .parked
        .iter()
        .map(|Wanted { request, .. }| (request.offset, request.offset + u64::from(request.size)));
    let wires = arrival.wires.iter().map(|&wire| (wire, wire + 4096));
    let mut left_out: Vec<(u64, u64)> =
        answered.chain(wires).chain(arrival.locked.iter().copied()).collect();
    left_out.sort_unstable();
    let end = piece.offset + piece.len as u64;
    let mut gaps = Vec::with_capacity(left_out.len() + 1);
    let mut at = piece.offset;
    for (start, behind) in left_out.into_iter().chain([(end, end)]) {
        if at < start.min(end) {
            gaps.push((at, start.min(end)));
        }
        at = at.max(behind);
    }
    gaps
}

fn index(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}
