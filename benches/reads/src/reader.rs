//! The side that READs, as a pager does: its own queue, buffers that the fabric can fill.
//!
//! ```text
//!   serial SIZE COUNT spin|sleep [same]  {"us": [each]}         one READ at a time; `same`: of the same bytes
//!   window SIZE COUNT DEPTH spin|sleep   {"seconds": s}         DEPTH READs at a time
//!   push                                 {"seconds": s}         all of the memory, unasked, over tcp
//!   setup COUNT                          {"us": [each]}         from asking for a connection to having it
//!   hold COUNT                           {"held": COUNT}        as many connections more, kept open
//!   ways COUNT                           {"held": COUNT}        as many ways to a peer of dc more (AHs)
//!                                        {"lost": why}          the transport gave up on a READ: ask again
//! ```
//! `spin` reaps in a loop; `sleep` waits in poll(2), as a pager that has nothing else to do. Bytes are compared
//! outside of what is timed: a window's once in the whole, before it; of READs of the same bytes each tenth's, for
//! their peers look at none, and both sides' machines fall asleep while somebody looks.

use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mitosis::descriptor::{DcTarget, Export, RcEndpoint, SeedAddr};
use mitosis::fabric::dc::DcFabric;
use mitosis::fabric::rc::{RcFabric, RcSettings};
use mitosis::fabric::tcp::{Limits, TcpFabric};
use mitosis::fabric::{
    Buffer, Completion, Fabric, MAX_READ_BYTES, Read, ReadError, ReadQueue, RemoteArena,
};
use mitosis::id::{ReadKey, SeedId};
use mitosis::sys::poll;
use mitosis::verbs::{AddressHandle, DmaPool, Gid, Patience, Pd};

use crate::device::{self, DcPort};
use crate::side::{About, Rc, Side};
use crate::{FabricName, memory};

/// What ends a READ that is lost: no emulator takes so long.
const DEADLINE: Duration = Duration::from_secs(20);
/// READs at a time at most, and so buffers.
const DEPTH_MAX: usize = 16;
/// Of READs of the same bytes, one in as many is looked at.
const LOOK_EACH: usize = 10;
/// Between two tries to post, while there is no connection.
const RETRY: Duration = Duration::from_micros(50);

/// How a completion is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Spin,
    Sleep,
}

/// What READs are made with.
enum Card {
    No,
    Rc(Arc<Pd>, RcSettings),
    Dc(Box<DcPort>, DcTarget),
}

struct Reader {
    about: About,
    export: Export,
    arena: Option<Arc<RemoteArena>>,
    side: Arc<Side>,
    /// What pushes come by.
    tcp: Option<Arc<TcpFabric>>,
    card: Card,
    _pool: Option<Arc<DmaPool>>,
    buffers: Vec<Buffer>,
    /// Where the next READ begins.
    at: usize,
    /// It is where the last one began.
    stays: bool,
}

pub(crate) fn run(fabric: FabricName, side: &str, source: Option<IpAddr>) -> Result<()> {
    let mut reader = Reader::new(fabric, side, source)?;
    let fabric = reader.fabric()?;
    let mut queue = fabric.queue();
    let mut held = Vec::new();
    let mut ways = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match *words {
            ["serial", size, count, wait, ref option @ ..] => {
                let (size, count, wait) = (number(size)?, number(count)?, how(wait)?);
                reader.stays = *option == ["same"];
                let took = reader.serial(&mut *queue, size, count, wait);
                reader.or_lost(&mut *queue, took)?
            }
            ["window", size, count, depth, wait] => {
                let (size, count, depth) = (number(size)?, number(count)?, number(depth)?);
                let took = reader.window(&mut *queue, size, count, depth, how(wait)?);
                reader.or_lost(&mut *queue, took)?
            }
            ["push"] => reader.push()?,
            ["setup", count] => {
                let took = reader.setup(number(count)?);
                reader.or_lost(&mut *queue, took)?
            }
            ["hold", count] => {
                for _ in 0..number(count)? {
                    held.push(reader.connected()?);
                }
                format!("{{\"held\": {}}}", held.len())
            }
            ["ways", count] => {
                for _ in 0..number(count)? {
                    ways.push(reader.way()?);
                }
                format!("{{\"held\": {}}}", ways.len())
            }
            _ => bail!("'{line}' is no command"),
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn number(text: &str) -> Result<usize> {
    text.parse().with_context(|| format!("{text} is no number"))
}

fn how(text: &str) -> Result<Wait> {
    match text {
        "spin" => Ok(Wait::Spin),
        "sleep" => Ok(Wait::Sleep),
        _ => bail!("{text} is no way to wait: spin, sleep"),
    }
}

fn list(us: &[f64]) -> String {
    let us: Vec<String> = us.iter().map(|us| format!("{us:.3}")).collect();
    format!("{{\"us\": [{}]}}", us.join(", "))
}

impl Reader {
    fn new(fabric: FabricName, side: &str, source: Option<IpAddr>) -> Result<Self> {
        let side = Arc::new(Side::connect(side)?);
        let about: About = side.ask("about")?;
        let agent = about.tcp.to_string();
        let mut reader = Reader {
            export: Export::Tcp { agent: Some(agent.clone()), read_key: ReadKey(about.read_key) },
            about,
            arena: None,
            side,
            tcp: None,
            card: Card::No,
            _pool: None,
            buffers: Vec::new(),
            at: 0,
            stays: false,
        };
        match fabric {
            FabricName::Tcp => {
                // Written to: memory that was never touched is slow the first time.
                let fresh = || Buffer::unregistered(vec![1; MAX_READ_BYTES].into());
                reader.buffers = (0..DEPTH_MAX).map(|_| fresh()).collect();
            }
            FabricName::Rc => {
                let (pd, caps) = device::open()?;
                let rc = reader.read_card(&pd)?;
                reader.export = Export::Rc(RcEndpoint::new(&agent, rc.listener));
                let outstanding = device::outstanding(caps);
                let settings = RcSettings { source, outstanding, patience: Patience::PAGER };
                reader.card = Card::Rc(pd, settings);
            }
            FabricName::Dc => {
                let port = DcPort::open()?;
                let target = reader.read_card(&port.pd)?.target.context("the owner has no DC")?;
                reader.export = Export::Dc(target.clone());
                reader.card = Card::Dc(Box::new(port), target);
            }
        }
        Ok(reader)
    }

    /// Where the owner's bytes lie for cards, and buffers that this one fills.
    fn read_card(&mut self, pd: &Arc<Pd>) -> Result<Rc> {
        let rc = self.about.rc.clone().context("the owner has no card")?;
        let arena = RemoteArena::new(&rc.map);
        arena.tell(&rc.news)?;
        let pool = DmaPool::new(pd, DEPTH_MAX, MAX_READ_BYTES)?;
        self.buffers = (0..DEPTH_MAX).filter_map(|_| pool.take()).map(Buffer::from).collect();
        self.arena = Some(Arc::new(arena));
        self._pool = Some(pool);
        Ok(rc)
    }

    /// A fabric with a pool of its own.
    fn fabric(&self) -> Result<Arc<dyn Fabric>> {
        Ok(match &self.card {
            Card::No => TcpFabric::new(self.side.clone(), Limits::default()),
            Card::Rc(pd, settings) => {
                RcFabric::new(pd.clone(), *settings, self.side.clone(), None)?
            }
            Card::Dc(port, _) => {
                DcFabric::new(port.pd.clone(), port.settings(), port.port.address())?
            }
        })
    }

    /// All that dc keeps for a peer.
    fn way(&self) -> Result<Arc<AddressHandle>> {
        let Card::Dc(port, target) = &self.card else { bail!("ways are dc's") };
        let path = port.port.path().to(Gid(target.gid), target.lid);
        Ok(AddressHandle::new(&port.pd, &path)?)
    }

    /// A READ of the next `size` bytes; its tag is where they lie.
    fn next(&mut self, size: usize) -> Result<Read> {
        if self.at + size > self.about.bytes {
            self.at = 0;
        }
        let at = self.at;
        self.at += if self.stays { 0 } else { size };
        let buffer = self.buffers.pop().context("no buffer is left")?;
        Ok(Read {
            tag: at as u64,
            seed: SeedId(self.about.seed),
            export: self.export.clone(),
            arena: self.arena.clone(),
            ranges: vec![(SeedAddr(self.about.start + at as u64), u32::try_from(size)?)],
            buffer,
            deadline: Instant::now() + DEADLINE,
        })
    }

    /// Takes a buffer back, with the right bytes in it if `size` is given.
    fn take(&mut self, ended: Completion, size: Option<usize>) -> Result<()> {
        let Completion { tag, buffer, result } = ended;
        let is_right = match size {
            Some(size) if result.is_ok() => {
                memory::is_right(&buffer[..size], usize::try_from(tag)?)
            }
            _ => true,
        };
        self.buffers.push(buffer);
        result?;
        if !is_right {
            bail!("the READ of {size:?} bytes at {tag} brought other bytes");
        }
        Ok(())
    }

    /// A sample in which the transport has given up is told, not an end: a pager asks again, and so does who
    /// measures.
    fn or_lost(&mut self, queue: &mut dyn ReadQueue, took: Result<String>) -> Result<String> {
        match took {
            Err(error) if error.is::<ReadError>() => {
                self.settle(queue)?;
                Ok(format!("{{\"lost\": {:?}}}", error.to_string()))
            }
            took => took,
        }
    }

    /// Takes back what is in flight behind a READ that was lost.
    fn settle(&mut self, queue: &mut dyn ReadQueue) -> Result<()> {
        let until = Instant::now() + DEADLINE;
        while queue.in_flight() > 0 && Instant::now() < until {
            queue.reap(&mut |completion| self.buffers.push(completion.buffer));
        }
        match self.buffers.len() {
            DEPTH_MAX => Ok(()),
            left => bail!("{left} of {DEPTH_MAX} buffers have come back"),
        }
    }

    fn serial(
        &mut self,
        queue: &mut dyn ReadQueue,
        size: usize,
        count: usize,
        wait: Wait,
    ) -> Result<String> {
        let mut us = Vec::with_capacity(count);
        let mut fds = Vec::new();
        for at in 0..count {
            let is_looked_at = !self.stays || at % LOOK_EACH == 0;
            let mut read = self.next(size)?;
            if self.stays && is_looked_at {
                // The bytes of the READ before would be right, too.
                read.buffer[..size].fill(0);
            }
            let begun = Instant::now();
            post(queue, read)?;
            let ended = one(queue, wait, &mut fds)?;
            us.push(begun.elapsed().as_secs_f64() * 1e6);
            self.take(ended, is_looked_at.then_some(size))?;
        }
        Ok(list(&us))
    }

    fn window(
        &mut self,
        queue: &mut dyn ReadQueue,
        size: usize,
        count: usize,
        depth: usize,
        wait: Wait,
    ) -> Result<String> {
        self.run_window(queue, size, depth, depth, wait, Some(size))?;
        let begun = Instant::now();
        self.run_window(queue, size, count, depth, wait, None)?;
        Ok(format!("{{\"seconds\": {:.9}}}", begun.elapsed().as_secs_f64()))
    }

    fn run_window(
        &mut self,
        queue: &mut dyn ReadQueue,
        size: usize,
        count: usize,
        depth: usize,
        wait: Wait,
        check: Option<usize>,
    ) -> Result<()> {
        let (mut posted, mut done) = (0, 0);
        let mut fds = Vec::new();
        let mut ended = Vec::with_capacity(DEPTH_MAX);
        while done < count {
            while posted < count && posted - done < depth.min(DEPTH_MAX) {
                post(queue, self.next(size)?)?;
                posted += 1;
            }
            some(queue, wait, &mut fds, &mut ended)?;
            done += ended.len();
            let mut taken = Ok(());
            for completion in ended.drain(..) {
                taken = taken.and(self.take(completion, check));
            }
            taken?;
        }
        Ok(())
    }

    /// By a fabric of tcp that is kept, whose connection is there from the second time on.
    fn push(&mut self) -> Result<String> {
        let tcp =
            self.tcp.get_or_insert_with(|| TcpFabric::new(self.side.clone(), Limits::default()));
        let key = ReadKey(self.about.read_key);
        let agent = self.about.tcp.to_string();
        let mut bytes = 0;
        let mut store = |_, pages: &[u8]| {
            bytes += std::hint::black_box(pages).len();
            ControlFlow::Continue(())
        };
        let report = tcp.push(&agent, SeedId(self.about.seed), &key, &[], &mut store)?;
        if bytes != self.about.bytes {
            bail!("{bytes} of {} bytes were pushed", self.about.bytes);
        }
        Ok(format!("{{\"seconds\": {:.9}}}", report.took.as_secs_f64()))
    }

    /// A queue that has its connection, and its fabric.
    fn connected(&mut self) -> Result<(Arc<dyn Fabric>, Box<dyn ReadQueue>)> {
        let fabric = self.fabric()?;
        let mut queue = fabric.clone().queue();
        self.serial(&mut *queue, memory::PAGE, 1, Wait::Sleep)?;
        Ok((fabric, queue))
    }

    /// Each by a fabric that knows no peer yet: until its first READ has ended, less what a READ takes.
    fn setup(&mut self, count: usize) -> Result<String> {
        let mut us = Vec::with_capacity(count);
        for _ in 0..count {
            let fabric = self.fabric()?;
            let mut queue = fabric.queue();
            let mut fds = Vec::new();
            let read = self.next(memory::PAGE)?;
            let begun = Instant::now();
            post(&mut *queue, read)?;
            let ended = one(&mut *queue, Wait::Sleep, &mut fds)?;
            let first = begun.elapsed();
            self.take(ended, Some(memory::PAGE))?;
            let read = self.next(memory::PAGE)?;
            let begun = Instant::now();
            post(&mut *queue, read)?;
            let ended = one(&mut *queue, Wait::Sleep, &mut fds)?;
            us.push(first.saturating_sub(begun.elapsed()).as_secs_f64() * 1e6);
            self.take(ended, Some(memory::PAGE))?;
        }
        Ok(list(&us))
    }
}

/// Posts; where READs do not wait for a connection, this does.
fn post(queue: &mut dyn ReadQueue, mut read: Read) -> Result<()> {
    let until = Instant::now() + DEADLINE;
    loop {
        match queue.post(read) {
            Ok(()) => return Ok(()),
            Err(refused) if refused.error == ReadError::NotYet && Instant::now() < until => {
                read = refused.read;
                std::thread::sleep(RETRY);
            }
            Err(refused) => return Err(refused.error.into()),
        }
    }
}

fn one(queue: &mut dyn ReadQueue, wait: Wait, fds: &mut Vec<i32>) -> Result<Completion> {
    let mut ended = None;
    loop {
        queue.reap(&mut |completion| ended = Some(completion));
        if let Some(ended) = ended {
            return Ok(ended);
        }
        rest(queue, wait, fds)?;
    }
}

fn some(
    queue: &mut dyn ReadQueue,
    wait: Wait,
    fds: &mut Vec<i32>,
    ended: &mut Vec<Completion>,
) -> Result<()> {
    loop {
        queue.reap(&mut |completion| ended.push(completion));
        if !ended.is_empty() {
            return Ok(());
        }
        rest(queue, wait, fds)?;
    }
}

fn rest(queue: &dyn ReadQueue, wait: Wait, fds: &mut Vec<i32>) -> Result<()> {
    if wait == Wait::Sleep {
        fds.clear();
        queue.poll_fds(fds);
        poll::readable(fds, Some(DEADLINE))?;
    }
    Ok(())
}
