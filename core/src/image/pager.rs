//! The loop that answers an image's misses; one thread for each CPU of its configuration.
//!
//! ```text
//!  /dev/fuse --READ--> recall a loss? --> streams (parked, or already here?)
//!                                              | fetch
//!                     waiting <-- no slot -- begin: plan, zeros, local files
//!                        |                     | owner's pages missing
//!                        `--- slot free --> post --> in flight --> accept --> answer
//!                                              ^         | error
//!                                              `- route -' -> no way left: -EIO, `lost`
//! ```
//! A thread has at most [`MAX_IN_FLIGHT_MISSES`] misses in flight, each with its buffer; later ones wait
//! in a queue, under the same deadline, which counts from their arrival. Nothing here waits for the
//! streamer (which may sleep in a store until a READ is answered here).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Shared;
use super::counters::count;
use super::interrupt::{self, MAX_INTERRUPTED};
use super::loss::PageLost;
use super::miss::{Fault, Miss};
use super::mount::answer_unread;
use super::prefetch::{Verdict, Wanted};
use crate::descriptor::{ImageOffset, SeedAddr, Source};
use crate::fabric::{Completion, Read, ReadError, ReadQueue};
use crate::sys::event::{Poller, Watch};
use crate::sys::fuse::{self, Parts, ReadRequest, Received, Request};
use crate::sys::sched;
use crate::wire::traced::Way;

/// Misses that one thread has in flight: each holds a buffer of [`super::plan::MAX_MISS_BYTES`].
pub(super) const MAX_IN_FLIGHT_MISSES: usize = 16;
/// Misses that one thread has taken from the kernel and not begun. Beyond, they wait in the kernel,
/// where no deadline watches over them: about as many as a host has children.
const MAX_WAITING: usize = 8192;

/// Messages of the kernel that are taken before READs that they made are sent, and answers looked for: as many
/// as there can be in flight.
const MAX_GATHERED: usize = MAX_IN_FLIGHT_MISSES;

/// What a thread that has just been refused a page of a silent owner may wait for the next one.
const LAST_PATIENCE: Duration = Duration::from_millis(100);

/// A pager thread's own state.
#[derive(Debug)]
pub(super) struct Pager {
    index: usize,
    queues: Vec<Box<dyn ReadQueue>>,
    /// Misses whose READ is in flight, by tag.
    busy: Vec<Option<Box<Miss>>>,
    in_flight: usize,
    /// One more than there are tags: the last one is for misses that need no READ.
    #[expect(clippy::vec_box, reason = "they move between here and `busy`: 2 KiB each")]
    free: Vec<Box<Miss>>,
    waiting: VecDeque<Wanted>,
    interrupted: Vec<(u64, u32)>,
    completions: Vec<Completion>,
    poller: Poller,
    /// Of the bell and the device: all that a pager with nothing to do waits for. `None`: the host is out
    /// of watches, and `poller` does it.
    watch: Option<Watch>,
    fds: Vec<RawFd>,
}

impl Pager {
    pub(super) fn new(image: &Shared, index: usize) -> Self {
        Pager {
            index,
            queues: image.fabrics.iter().map(|fabric| Arc::clone(fabric).queue()).collect(),
            busy: (0..MAX_IN_FLIGHT_MISSES).map(|_| None).collect(),
            in_flight: 0,
            free: (0..=MAX_IN_FLIGHT_MISSES).map(|_| Miss::new(image.buffers.take())).collect(),
            waiting: VecDeque::with_capacity(MAX_WAITING),
            interrupted: Vec::with_capacity(MAX_INTERRUPTED),
            completions: Vec::with_capacity(MAX_IN_FLIGHT_MISSES),
            poller: Poller::with_capacity(64),
            watch: Watch::new(&[image.bells[index].as_raw_fd(), image.device.as_fd().as_raw_fd()])
                .ok(),
            fds: Vec::with_capacity(64),
        }
    }

    /// Answers until the image ends.
    pub(super) fn run(mut self, image: &Shared) {
        if let Some(&cpu) = image.config.cpus.get(self.index) {
            // A CPU that has gone offline costs speed, nothing else.
            let _ = sched::pin(cpu);
        }
        let _ = sched::set_nice(super::NICE);
        let mut message = [0u8; fuse::REQUEST_BYTES];
        let mut gathered = 0;
        while !image.is_ending.load(Ordering::Acquire) {
            let received = match self.waiting.len() {
                MAX_WAITING.. => Ok(Received::Nothing),
                _ => image.device.receive(&mut message),
            };
            match received {
                Ok(Received::Message(len)) => {
                    // The first READ of a turn goes out at once. What came behind it is gathered: its READs
                    // share a doorbell.
                    let is_first = self.in_flight == 0;
                    self.serve(image, &message[..len]);
                    gathered += 1;
                    if !is_first && gathered < MAX_GATHERED {
                        continue;
                    }
                }
                Ok(Received::Nothing) => {
                    if self.rest(image).is_err() {
                        break;
                    }
                }
                Ok(Received::Ended) | Err(_) => break,
            }
            gathered = 0;
            if self.in_flight > 0 {
                self.reap(image);
            }
        }
        self.refuse_all(image);
    }

    fn serve(&mut self, image: &Shared, message: &[u8]) {
        match Request::parse(message) {
            Ok(Request::Read(request)) => {
                let wanted = Wanted { request, arrived: Instant::now() };
                count(&image.counters.misses, 1);
                self.miss(image, wanted);
            }
            Ok(Request::Interrupt { unique, target }) => self.interrupt(image, unique, target),
            Ok(other) => drop(answer_unread(&image.device, other)),
            Err(_) => {}
        }
    }

    fn miss(&mut self, image: &Shared, wanted: Wanted) {
        let ReadRequest { offset, size, .. } = wanted.request;
        if let Some(failed) = image.losses.recall(offset, offset + u64::from(size)) {
            tell(image, &wanted, failed.owner, &failed.reason);
            return image.refuse(&wanted);
        }
        if image.trace.is_on() {
            // A rehearsal wants to know each page that is touched: nothing is fetched ahead.
            image.trace.record(offset, size);
            return self.fetch(image, wanted);
        }
        let (verdict, has_work) =
            image.streams.lock().miss(wanted, |offset| image.ahead(ImageOffset(offset)));
        match verdict {
            Verdict::Fetch => self.fetch(image, wanted),
            Verdict::Parked => {}
            Verdict::Here { buffer, at } => {
                let mut parts = Parts::new();
                parts.push(&buffer[at..at + size as usize]);
                image.answer(&wanted, &parts);
                image.note_whole(&wanted, Way::Hit);
            }
        }
        if has_work {
            image.streamer_bell.ring();
        }
    }

    /// Begins a miss, or lets it wait for a buffer.
    fn fetch(&mut self, image: &Shared, wanted: Wanted) {
        let Some(mut miss) = self.free.pop() else {
            return line_up(&mut self.waiting, wanted);
        };
        if !miss.begin(image, wanted, image.config.miss_deadline) {
            let _ = image.device.refuse(wanted.request.unique, libc::EINVAL);
            return self.free.push(miss);
        }
        if miss.next_owner().is_some() && self.free.is_empty() {
            self.free.push(miss);
            return line_up(&mut self.waiting, wanted);
        }
        if let Some(owner) = miss.next_owner()
            && image.losses.has_waited(owner, wanted.request.pid)
        {
            miss.deadline = miss.deadline.min(Instant::now() + LAST_PATIENCE);
        }
        self.advance(image, miss);
    }

    /// Answers the miss, or posts its next READ, or gives it up.
    fn advance(&mut self, image: &Shared, mut miss: Box<Miss>) {
        while let Some(owner) = miss.next_owner() {
            let Some(read) = self.read(image, &mut miss, owner) else {
                give_up(image, &miss, owner);
                return self.free.push(miss);
            };
            let (tag, fabric) = (read.0, read.1);
            count(&image.counters.reads, 1);
            match self.queues[fabric].post(read.2) {
                Ok(()) => {
                    self.busy[tag] = Some(miss);
                    self.in_flight += 1;
                    return;
                }
                Err(refused) => {
                    miss.buffer = Some(refused.read.buffer);
                    self.set_back(image, &mut miss, owner, &refused.error);
                }
            }
        }
        let parts = miss.parts(image);
        image.answer(&miss.wanted, &parts);
        if image.recording.is_on() {
            image.note(&miss.wanted, miss.ways());
        }
        self.free.push(miss);
    }

    /// The next READ of a miss, with its tag and its fabric; `None`: there is no way, or no time, left.
    fn read(&self, image: &Shared, miss: &mut Miss, owner: usize) -> Option<(usize, usize, Read)> {
        let ways = image.owners.get(owner)?;
        let route = ways.routes.get(miss.route)?;
        let now = Instant::now();
        let left = miss.deadline.checked_duration_since(now)?;
        let ways_left = u32::try_from(ways.routes.len() - miss.route).unwrap_or(1);
        miss.read_deadline = now + left / ways_left;
        let tag = self.busy.iter().position(Option::is_none)?;
        let read = Read {
            tag: tag as u64,
            seed: ways.seed,
            export: route.export.clone(),
            arena: ways.arena.clone(),
            ranges: miss.ranges(owner),
            buffer: miss.buffer.take()?,
            deadline: miss.read_deadline,
        };
        Some((tag, route.fabric, read))
    }

    fn set_back(&self, image: &Shared, miss: &mut Miss, owner: usize, error: &ReadError) {
        let before = miss.route;
        miss.set_back(error);
        if matches!(error, ReadError::NotYet) {
            return;
        }
        count(&image.counters.reads_failed, 1);
        let has_more = image.owners.get(owner).is_some_and(|ways| miss.route < ways.routes.len());
        if miss.route > before && has_more {
            count(&image.counters.fallbacks, 1);
        }
    }

    fn reap(&mut self, image: &Shared) {
        let mut completions = std::mem::take(&mut self.completions);
        for queue in &mut self.queues {
            if queue.in_flight() > 0 {
                queue.reap(&mut |completion| completions.push(completion));
            }
        }
        for completion in completions.drain(..) {
            self.complete(image, completion);
        }
        self.completions = completions;
    }

    fn complete(&mut self, image: &Shared, completion: Completion) {
        let tag = usize::try_from(completion.tag).unwrap_or(usize::MAX);
        let Some(mut miss) = self.busy.get_mut(tag).and_then(Option::take) else { return };
        self.in_flight -= 1;
        miss.buffer = Some(completion.buffer);
        if miss.answered {
            self.free.push(miss);
        } else {
            match (&completion.result, miss.next_owner()) {
                (Err(error), Some(owner)) => self.set_back(image, &mut miss, owner, error),
                (Ok(()), Some(owner)) => {
                    let is_rdma = image.is_rdma(owner, miss.route);
                    miss.accept(image, is_rdma);
                }
                (_, None) => {}
            }
            self.advance(image, miss);
        }
        while self.free.len() > 1 {
            let Some(wanted) = self.waiting.pop_front() else { break };
            self.fetch(image, wanted);
        }
    }

    /// Nothing is to be read from the kernel: sees to what is late, then sleeps until something happens.
    fn rest(&mut self, image: &Shared) -> io::Result<()> {
        let mut wake = None;
        if self.in_flight > 0 || !self.waiting.is_empty() {
            wake = self.expire(image);
        }
        if !self.interrupted.is_empty() {
            self.recheck(image);
            let soon = Instant::now() + interrupt::RECHECK;
            wake = Some(wake.map_or(soon, |wake| wake.min(soon)));
        }
        self.fds.clear();
        for queue in &mut self.queues {
            if queue.in_flight() > 0 {
                queue.flush();
                queue.poll_fds(&mut self.fds);
            }
        }
        let is_rung = match &self.watch {
            Some(watch) if wake.is_none() && self.fds.is_empty() => watch.wait()? & 1 != 0,
            _ => self.poll(image, wake)?,
        };
        if is_rung {
            image.bells[self.index].hush();
            let returned = std::mem::take(&mut *image.returned.lock());
            returned.into_iter().for_each(|wanted| self.fetch(image, wanted));
        }
        Ok(())
    }

    /// Waits for whatever there is, until `wake`; tells whether the bell has rung.
    fn poll(&mut self, image: &Shared, wake: Option<Instant>) -> io::Result<bool> {
        self.poller.clear();
        self.poller.add(image.bells[self.index].as_raw_fd());
        if self.waiting.len() < MAX_WAITING {
            self.poller.add(image.device.as_fd().as_raw_fd());
        }
        self.fds.iter().for_each(|&fd| self.poller.add(fd));
        let limit = wake.map(|wake| wake.saturating_duration_since(Instant::now()));
        self.poller.wait(limit)?;
        Ok(self.poller.is_ready(0))
    }

    /// Gives up what is past its deadline; tells when the next one is.
    fn expire(&mut self, image: &Shared) -> Option<Instant> {
        let now = Instant::now();
        let mut next = None;
        for miss in self.busy.iter_mut().flatten().filter(|miss| !miss.answered) {
            if miss.deadline <= now {
                let owner = miss.next_owner().unwrap_or(0);
                give_up(image, miss, owner);
                miss.answered = true;
            } else {
                // A fabric that does not keep to its deadline is waited for until the miss's own.
                let due = if miss.read_deadline > now { miss.read_deadline } else { miss.deadline };
                next = Some(next.map_or(due, |next: Instant| next.min(due)));
            }
        }
        while let Some(wanted) = self.waiting.front().copied() {
            let deadline = wanted.arrived + image.config.miss_deadline;
            if deadline > now {
                next = Some(next.map_or(deadline, |next| next.min(deadline)));
                break;
            }
            self.waiting.pop_front();
            self.give_up_waiting(image, wanted);
        }
        // A fabric enforces deadlines when it is reaped: a little later than they are.
        next.map(|next| next + Duration::from_micros(100))
    }

    fn give_up_waiting(&mut self, image: &Shared, wanted: Wanted) {
        let Some(mut miss) = self.free.pop() else {
            return image.refuse(&wanted);
        };
        miss.begin(image, wanted, image.config.miss_deadline);
        let reason = "the READs before it have had no answer";
        miss.fault = Some(Fault { reason: reason.into(), is_silence: true });
        give_up(image, &miss, miss.next_owner().unwrap_or(0));
        self.free.push(miss);
    }

    fn interrupt(&mut self, image: &Shared, unique: u64, target: u64) {
        let busy = self.busy.iter().flatten().map(|miss| &miss.wanted);
        let mut known = busy.chain(&self.waiting).map(|wanted| &wanted.request);
        let pid = known.find(|request| request.unique == target).map(|request| request.pid);
        match pid.or_else(|| image.streams.lock().parked_pid(target)) {
            Some(pid) if interrupt::is_dying(pid) => {
                self.forget(target);
                let _ = image.device.refuse(target, libc::EINTR);
            }
            Some(pid) if self.interrupted.len() < MAX_INTERRUPTED => {
                self.interrupted.push((target, pid));
            }
            Some(_) => {}
            // Another thread has it, or it is answered: EAGAIN makes the kernel tell again if not.
            None if image.bells.len() > 1 => {
                let _ = image.device.refuse(unique, libc::EAGAIN);
            }
            None => {}
        }
    }

    /// Looks again at readers that got a signal which was not fatal then.
    fn recheck(&mut self, image: &Shared) {
        let mut interrupted = std::mem::take(&mut self.interrupted);
        interrupted.retain(|&(unique, pid)| {
            let waits = self
                .busy
                .iter()
                .flatten()
                .any(|miss| miss.wanted.request.unique == unique && !miss.answered)
                || self.waiting.iter().any(|wanted| wanted.request.unique == unique)
                || image.streams.lock().parked_pid(unique).is_some();
            if waits && interrupt::is_dying(pid) {
                self.forget(unique);
                let _ = image.device.refuse(unique, libc::EINTR);
                return false;
            }
            waits
        });
        self.interrupted = interrupted;
    }

    /// Nobody waits for `unique` any more. (A parked one is answered to nobody later.)
    fn forget(&mut self, unique: u64) {
        self.waiting.retain(|wanted| wanted.request.unique != unique);
        let mut busy = self.busy.iter_mut().flatten();
        if let Some(miss) = busy.find(|miss| miss.wanted.request.unique == unique) {
            miss.answered = true;
        }
    }

    fn refuse_all(&mut self, image: &Shared) {
        let busy = self.busy.iter().flatten().filter(|miss| !miss.answered);
        for wanted in busy.map(|miss| &miss.wanted).chain(&self.waiting) {
            image.refuse(wanted);
        }
    }
}

/// Puts a miss among those that wait, the oldest first: one that comes back from the streamer, or finds no
/// buffer again, has waited before, and the front is whose deadline is next.
fn line_up(waiting: &mut VecDeque<Wanted>, wanted: Wanted) {
    let at = waiting.partition_point(|other| other.arrived <= wanted.arrived);
    waiting.insert(at, wanted);
}

/// Answers -EIO; the child that touched the page gets SIGBUS.
fn give_up(image: &Shared, miss: &Miss, owner: usize) {
    let wanted = &miss.wanted;
    let fault = miss.fault.clone().unwrap_or_else(|| Fault {
        reason: match image.owners.get(owner) {
            Some(ways) if ways.routes.is_empty() => "no fabric of this host can READ it".into(),
            _ => "no answer by the deadline".into(),
        },
        is_silence: true,
    });
    if fault.is_silence {
        let base = wanted.request.offset;
        let of_owner = |source: &Source| match source {
            Source::Owner { owner: other, .. } => usize::from(other.0) == owner,
            _ => false,
        };
        for segment in miss.plan.segments().iter().filter(|segment| of_owner(&segment.source)) {
            let start = base + segment.at as u64;
            let end = start + segment.len as u64;
            let pid = wanted.request.pid;
            image.losses.remember((start, end), owner, pid, Arc::clone(&fault.reason));
        }
    }
    // Only then the refusal: the kernel asks again at once, perhaps another thread, and the child may be
    // dead before its loss is told.
    tell(image, wanted, owner, &fault.reason);
    image.refuse(wanted);
}

/// Tells of a lost page. A larger READ is read-ahead: the kernel asks once more for the page that was
/// really touched, if one was.
fn tell(image: &Shared, wanted: &Wanted, owner: usize, reason: &str) {
    let ReadRequest { offset, size, pid, .. } = wanted.request;
    if u64::from(size) != image.page_size || !image.losses.is_news(offset, pid) {
        return;
    }
    count(&image.counters.pages_lost, 1);
    let ways = image.owners.get(owner);
    image.listener.tell(PageLost {
        seed: ways.map_or(image.seed, |ways| ways.seed),
        owner_host: ways.map_or_else(String::new, |ways| ways.host.clone()),
        addr: image.layout.address_of(ImageOffset(offset)).unwrap_or(SeedAddr(0)),
        pid: interrupt::process_of(pid),
        reason: reason.to_owned(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_wait_in_the_order_of_their_arrival() {
        let begun = Instant::now();
        let mut waiting = VecDeque::new();
        for (unique, after_ms) in [(1, 10), (2, 30), (3, 20), (4, 0), (5, 30)] {
            let request = ReadRequest { unique, ..ReadRequest::default() };
            line_up(
                &mut waiting,
                Wanted { request, arrived: begun + Duration::from_millis(after_ms) },
            );
        }
        let order: Vec<u64> = waiting.iter().map(|wanted| wanted.request.unique).collect();
        assert_eq!(order, [4, 1, 3, 2, 5]);
    }
}
