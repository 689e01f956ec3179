//! The side that reads: a thread with its queues, as a pager has them, over all owners at once.
//!
//! ```text
//!   card --Flushed--> card again, a few times        tcp --Flushed--> tcp again
//!      \--NotYet, Unreachable, Revoked--> tcp            \--anything else--> lost
//! ```
//! An owner that was lost is read again when it has another seed. Output: `reading` once the card has READ
//! from each owner, `all had their turns` once each queue has been given a connection some times, `lost OWNER: REASON`,
//! `found OWNER again`, `OWNER by card again`, and at the end a line an owner ([`Tally`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mitosis::descriptor::{Export, RcEndpoint, SeedAddr};
use mitosis::fabric::rc::{RcFabric, RcSettings};
use mitosis::fabric::tcp::{Limits, TcpFabric, TokenSource};
use mitosis::fabric::{
    Buffer, Buffers, Completion, Fabric, Read, ReadError, ReadQueue, RemoteArena,
};
use mitosis::id::StreamToken;
use mitosis::sys::poll;
use mitosis::verbs::{Patience, Pd};
use mitosis_process_suite::{Chance, say};

use crate::control::{self, Described, PAGES_PORT};
use crate::{OUTSTANDING, open_card, owned_word};

/// Bytes of a READ: a miss with its readahead.
const READ_BYTES: u32 = 16 << 10;
/// For a READ by all ways together, half of it for the card.
const DEADLINE: Duration = Duration::from_secs(4);
/// How often a READ that was flushed is posted again on the same way.
const MAX_FLUSHED: u32 = 3;
/// How often UNTIL and an owner that was lost are looked for.
const LOOK: Duration = Duration::from_millis(100);
/// More than an agent has, for kernels that wait for a CPU of the machine: the card is given up after 537 ms.
const SILENCE: Duration = Duration::from_millis(300);
/// How often each queue is to be given a connection by each owner, after which all had their turns.
const TURNS: u64 = 3;
/// How long all owners may take to be READ from by the card.
const BEGIN_LIMIT: Duration = Duration::from_secs(20);

/// What became of the READs of one owner.
#[derive(Default)]
struct Tally {
    /// Done by the card, and by tcp.
    done: [u64; 2],
    /// By tcp, as they are not in the arena.
    beyond: u64,
    /// By the card: refused, without an answer, flushed by another's failure.
    refused: u64,
    silent: u64,
    flushed: u64,
    /// Times that the card was had, after a READ that it was not had for; the first one included.
    turns: u64,
    /// READs in a row, at the most, for which the card was not to be had.
    refused_in_a_row: u64,
    /// Given up by all ways.
    lost: u64,
    /// From the post of the first READ that had no answer to its end.
    noticed: Duration,
    /// The longest time in which no READ was done.
    longest: Duration,
    /// Connections of the card at a time.
    connections: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { done: [card, tcp], refused, silent, flushed, lost, .. } = self;
        let (noticed, longest) = (self.noticed.as_millis(), self.longest.as_millis());
        write!(out, "card {card} tcp {tcp} beyond {} ", self.beyond)?;
        write!(out, "refused {refused} silent {silent} flushed {flushed} ")?;
        write!(out, "turns {} in_a_row {} ", self.turns, self.refused_in_a_row)?;
        write!(out, "lost {lost} noticed_ms {noticed} longest_ms {longest} ")?;
        write!(out, "connections {}", self.connections)
    }
}

/// An owner, as one thread reads from it.
struct Goal {
    owner: IpAddr,
    /// `None`: lost.
    known: Option<Known>,
    in_flight: usize,
    /// READs since the last one that the card was had for.
    refused: u64,
    last_done: Instant,
    last_by_card: Instant,
    /// Found again, and not yet READ from by the card.
    is_returning: bool,
    tally: Tally,
}

#[derive(Clone)]
struct Known {
    described: Described,
    arena: Arc<RemoteArena>,
    /// By card, by tcp.
    exports: [Export; 2],
}

struct Flight {
    goal: usize,
    /// Word of the owner's memory.
    at: usize,
    /// 0: card, 1: tcp.
    route: usize,
    flushed: u32,
    posted: Instant,
    deadline: Instant,
}

/// Asks the owners' control.
struct Control;

impl TokenSource for Control {
    fn token(&self, agent: &str) -> Result<StreamToken, ReadError> {
        let owner: SocketAddr = agent.parse().expect("an owner's address");
        let none = || ReadError::Unreachable(format!("{agent} gives no token"));
        control::token(owner.ip()).ok_or_else(none)
    }
}

/// What all threads share.
struct Common {
    buffers: Arc<Buffers>,
    rc: Arc<RcFabric>,
    tcp: Arc<TcpFabric>,
    window: usize,
    is_over: AtomicBool,
    queues: usize,
    /// Queues that have READ from each owner by the card. None waits for the others: it would keep its connections.
    begun: AtomicUsize,
    /// Queues that had their turns since.
    had_turns: AtomicUsize,
}

pub fn run(own: IpAddr, owners: &[IpAddr], until: &Path, window: usize, queues: usize) {
    let context = open_card();
    let pd = Pd::new(&context).expect("a protection domain");
    let caps = context.caps().expect("its capabilities");
    let outstanding = OUTSTANDING.min(caps.max_qp_init_rd_atom).max(1);
    let settings =
        RcSettings { source: Some(own), outstanding, patience: Patience::of_at_least(SILENCE) };
    let common = Arc::new(Common {
        buffers: Buffers::registered(pd.clone()).expect("registered buffers"),
        rc: RcFabric::new(pd, settings, Arc::new(Control), None).expect("the fabric"),
        tcp: TcpFabric::new(Arc::new(Control), Limits::default()),
        window,
        is_over: AtomicBool::new(false),
        queues,
        begun: AtomicUsize::new(0),
        had_turns: AtomicUsize::new(0),
    });
    let threads: Vec<_> = (0..queues)
        .map(|queue| {
            let (common, owners) = (common.clone(), owners.to_vec());
            std::thread::spawn(move || Reader::new(common, &owners, queue).run())
        })
        .collect();
    let while_not_over = |goes_on: &dyn Fn() -> bool| {
        while goes_on() && !until.exists() {
            assert!(!threads.iter().any(JoinHandle::is_finished), "a queue has failed");
            std::thread::sleep(LOOK);
        }
    };
    while_not_over(&|| common.begun.load(Ordering::Relaxed) < queues);
    say("reading");
    if queues > 1 {
        while_not_over(&|| common.had_turns.load(Ordering::Relaxed) < queues);
        say("all had their turns");
    }
    while_not_over(&|| true);
    common.is_over.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a queue's end");
    }
}

struct Reader {
    common: Arc<Common>,
    queue: usize,
    queues: [Box<dyn ReadQueue>; 2],
    goals: Vec<Goal>,
    flights: Vec<Option<Flight>>,
    chance: Chance,
    /// Which goal was found again, from threads that look for owners.
    finder: Sender<(usize, Described)>,
    found: Receiver<(usize, Described)>,
    stage: Stage,
}

/// How far a queue has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Begins,
    /// It has READ from each owner by the card; others have not.
    HasBegun,
    /// All have.
    Reads,
    /// And this one had its turns.
    HadTurns,
}

impl Reader {
    fn new(common: Arc<Common>, owners: &[IpAddr], queue: usize) -> Self {
        let goal = |owner: &IpAddr| {
            let described = Described::ask(*owner).unwrap_or_else(|| panic!("no owner at {owner}"));
            let now = Instant::now();
            Goal {
                owner: *owner,
                known: Some(Known::new(*owner, described)),
                in_flight: 0,
                refused: 0,
                last_done: now,
                last_by_card: now,
                is_returning: false,
                tally: Tally::default(),
            }
        };
        let goals: Vec<Goal> = owners.iter().map(goal).collect();
        let queues = [common.rc.clone().queue(), common.tcp.clone().queue()];
        let flights = (0..owners.len() * common.window).map(|_| None).collect();
        let ((finder, found), chance) = (channel(), Chance(queue as u64));
        let stage = Stage::Begins;
        Reader { common, queue, queues, goals, flights, chance, finder, found, stage }
    }

    fn run(mut self) {
        let began = Instant::now();
        while !self.common.is_over.load(Ordering::Relaxed) {
            for goal in 0..self.goals.len() {
                while self.goals[goal].known.is_some()
                    && self.goals[goal].in_flight < self.common.window
                {
                    self.begin(goal);
                }
            }
            self.reap();
            self.look_for_the_lost();
            self.advance();
            let late = self.stage == Stage::Begins && began.elapsed() > BEGIN_LIMIT;
            assert!(!late, "the card does not read from all owners: {:?}", self.report());
        }
        self.report().iter().for_each(|line| say(line));
    }

    fn advance(&mut self) {
        let Common { queues, begun, had_turns, .. } = &*self.common;
        let mut goals = self.goals.iter();
        match self.stage {
            Stage::Begins if goals.all(|goal| goal.tally.done[0] > 0) => {
                begun.fetch_add(1, Ordering::Relaxed);
                self.stage = Stage::HasBegun;
            }
            Stage::HasBegun if begun.load(Ordering::Relaxed) == *queues => {
                self.goals.iter_mut().for_each(Goal::forget_the_beginning);
                self.stage = Stage::Reads;
            }
            Stage::Reads if goals.all(|goal| goal.tally.turns >= TURNS) => {
                had_turns.fetch_add(1, Ordering::Relaxed);
                self.stage = Stage::HadTurns;
            }
            _ => {}
        }
    }

    fn report(&self) -> Vec<String> {
        let line = |goal: &Goal| {
            let since = goal.last_by_card.elapsed().as_millis();
            format!("queue {} {} {} last_card_ms {since}", self.queue, goal.owner, goal.tally)
        };
        self.goals.iter().map(line).collect()
    }

    /// A READ of an owner, somewhere in its memory.
    fn begin(&mut self, goal: usize) {
        let Some(known) = &self.goals[goal].known else { return };
        let places = known.described.range.len() / u64::from(READ_BYTES);
        let place = usize::try_from(self.chance.below(places)).expect("64 bits");
        let now = Instant::now();
        let flight = Flight {
            goal,
            at: place * (READ_BYTES as usize / 8),
            route: 0,
            flushed: 0,
            posted: now,
            deadline: now + DEADLINE,
        };
        self.goals[goal].in_flight += 1;
        let buffer = self.common.buffers.take();
        self.post(flight, buffer);
    }

    /// Posts a READ on its way, or on the next one, or gives it up.
    fn post(&mut self, mut flight: Flight, mut buffer: Buffer) {
        let tag = self.flights.iter().position(Option::is_none).expect("a place for each");
        loop {
            let goal = &mut self.goals[flight.goal];
            let Some(known) = goal.known.clone().filter(|_| flight.route < 2) else {
                goal.in_flight -= 1;
                return;
            };
            flight.posted = Instant::now();
            let left = flight.deadline.saturating_duration_since(flight.posted);
            let start = known.described.range.start.0 + 8 * flight.at as u64;
            let read = Read {
                tag: tag as u64,
                seed: known.described.seed,
                export: known.exports[flight.route].clone(),
                arena: Some(known.arena.clone()),
                ranges: vec![(SeedAddr(start), READ_BYTES)],
                buffer,
                deadline: flight.posted + if flight.route == 0 { left / 2 } else { left },
            };
            match self.queues[flight.route].post(read) {
                Ok(()) => {
                    if flight.route == 0 && (goal.refused > 0 || goal.tally.turns == 0) {
                        (goal.refused, goal.tally.turns) = (0, goal.tally.turns + 1);
                    }
                    self.flights[tag] = Some(flight);
                    return;
                }
                Err(refused) => {
                    buffer = refused.read.buffer;
                    self.set_back(&mut flight, &refused.error);
                }
            }
        }
    }

    /// What a failed READ does next, and what it says of its owner.
    fn set_back(&mut self, flight: &mut Flight, error: &ReadError) {
        let goal = &mut self.goals[flight.goal];
        if flight.route == 0 {
            match error {
                ReadError::Revoked(_) => goal.tally.refused += 1,
                ReadError::Unreachable(_) => {
                    if goal.tally.silent == 0 {
                        goal.tally.noticed = flight.posted.elapsed();
                    }
                    goal.tally.silent += 1;
                }
                ReadError::Flushed => goal.tally.flushed += 1,
                ReadError::NotYet => {
                    goal.refused += 1;
                    goal.tally.refused_in_a_row = goal.tally.refused_in_a_row.max(goal.refused);
                }
                _ => {}
            }
        }
        if *error == ReadError::Flushed && flight.flushed < MAX_FLUSHED {
            flight.flushed += 1;
            return;
        }
        (flight.route, flight.flushed) = (flight.route + 1, 0);
        if flight.route == 2 {
            goal.tally.lost += 1;
            if let Some(known) = goal.known.take() {
                say(&format!("lost {}: {error}", goal.owner));
                self.search(flight.goal, known.described);
            }
        }
    }

    fn reap(&mut self) {
        let mut ended: Vec<Completion> = Vec::new();
        for queue in &mut self.queues {
            queue.reap(&mut |completion| ended.push(completion));
        }
        if ended.is_empty() {
            let mut fds = Vec::new();
            self.queues.iter().for_each(|queue| queue.poll_fds(&mut fds));
            poll::readable(&fds, Some(LOOK)).expect("to poll");
        }
        for completion in ended {
            let tag = usize::try_from(completion.tag).expect("a tag of ours");
            let mut flight = self.flights[tag].take().expect("a READ in flight");
            match completion.result {
                Ok(()) => self.done(&flight, &completion.buffer),
                Err(error) => {
                    self.set_back(&mut flight, &error);
                    self.post(flight, completion.buffer);
                }
            }
        }
    }

    fn done(&mut self, flight: &Flight, bytes: &Buffer) {
        let goal = &mut self.goals[flight.goal];
        let words = bytes[..READ_BYTES as usize].chunks_exact(8).enumerate();
        for (index, word) in words {
            let word = u64::from_le_bytes(word.try_into().expect("8 bytes"));
            let at = flight.at + index;
            assert_eq!(word, owned_word(goal.owner, at), "word {at} of {}", goal.owner);
        }
        goal.in_flight -= 1;
        goal.tally.done[flight.route] += 1;
        let end = 8 * flight.at as u64 + u64::from(READ_BYTES);
        if goal.known.as_ref().is_some_and(|known| end > known.arena.progress().0) {
            assert_eq!(flight.route, 1, "the card has READ what is not in the arena");
            goal.tally.beyond += 1;
        }
        goal.tally.longest = goal.tally.longest.max(goal.last_done.elapsed());
        goal.last_done = Instant::now();
        if flight.route == 0 {
            goal.last_by_card = goal.last_done;
            if std::mem::take(&mut goal.is_returning) {
                say(&format!("{} by card again", goal.owner));
            }
        }
        if let Some(Export::Rc(endpoint)) = goal.known.as_ref().map(|known| &known.exports[0]) {
            let now = self.common.rc.connections(endpoint.name());
            goal.tally.connections = goal.tally.connections.max(now);
        }
    }

    /// Looks for another seed of an owner, apart: asking takes its time.
    fn search(&self, goal: usize, before: Described) {
        let (common, owner) = (self.common.clone(), self.goals[goal].owner);
        let found = self.finder.clone();
        std::thread::spawn(move || {
            while !common.is_over.load(Ordering::Relaxed) {
                match Described::ask(owner) {
                    Some(now) if now.seed != before.seed => {
                        let _ = found.send((goal, now));
                        return;
                    }
                    _ => std::thread::sleep(LOOK),
                }
            }
        });
    }

    fn look_for_the_lost(&mut self) {
        while let Ok((goal, described)) = self.found.try_recv() {
            let goal = &mut self.goals[goal];
            goal.known = Some(Known::new(goal.owner, described));
            (goal.last_done, goal.is_returning) = (Instant::now(), true);
            say(&format!("found {} again", goal.owner));
        }
    }
}

impl Goal {
    /// What came before all were reading: connections were made.
    fn forget_the_beginning(&mut self) {
        self.last_done = Instant::now();
        self.tally = Tally::default();
    }
}

impl Known {
    fn new(owner: IpAddr, described: Described) -> Self {
        let arena = RemoteArena::new(&described.map());
        arena.tell(&described.news()).expect("sound news");
        let agent = SocketAddr::new(owner, PAGES_PORT).to_string();
        let card = Export::Rc(RcEndpoint::new(&agent, described.listener));
        let tcp = Export::Tcp { agent: Some(agent), read_key: described.key.clone() };
        Known { described, arena: Arc::new(arena), exports: [card, tcp] }
    }
}
