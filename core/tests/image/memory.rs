//! An in-memory fabric whose answers a test scripts: late, never, refused, flushed.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mitosis::descriptor::{Export, SeedAddr};
use mitosis::fabric::{Completion, Fabric, PostError, Read, ReadError, ReadQueue};
use parking_lot::Mutex;

/// How READs end, from now on.
#[derive(Clone, Debug)]
pub(crate) enum Mood {
    /// With their bytes, after a while.
    Answers(Duration),
    /// With `Unreachable`, at their deadline.
    Silent,
    /// Never; not even at their deadline.
    Dead,
    /// With a defect of the fabric.
    Panics,
    /// With this, at once.
    Fails(ReadError),
}

/// Serves exports of `agent`; the bytes at each address are [`byte_at`].
#[derive(Debug)]
pub(crate) struct Memory {
    agent: &'static str,
    mood: Mutex<Mood>,
    /// READs to be flushed before the mood counts.
    pub(crate) flushes: AtomicU64,
    /// READs of at least this many bytes fail with `Unreachable`, at once.
    pub(crate) too_large: AtomicU64,
    /// READs posted.
    pub(crate) reads: AtomicU64,
}

/// The byte that every owner's memory holds at `addr`.
pub(crate) fn byte_at(addr: u64) -> u8 {
    let word = (addr >> 3).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word.to_le_bytes()[(addr & 7) as usize]
}

pub(crate) fn bytes_at(addr: u64, into: &mut [u8]) {
    for (word, bytes) in (addr >> 3..).zip(into.chunks_exact_mut(8)) {
        let word = word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

impl Memory {
    pub(crate) fn new(agent: &'static str) -> Arc<Memory> {
        Arc::new(Memory {
            agent,
            mood: Mutex::new(Mood::Answers(Duration::ZERO)),
            flushes: AtomicU64::new(0),
            too_large: AtomicU64::new(u64::MAX),
            reads: AtomicU64::new(0),
        })
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }
}

impl Fabric for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn serves(&self, export: &Export) -> bool {
        export.tcp().is_some_and(|(agent, _)| agent == Some(self.agent))
    }

    fn queue(self: Arc<Self>) -> Box<dyn ReadQueue> {
        // SAFETY: no memory is passed; the descriptor is new.
        let timer = unsafe {
            let fd = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC);
            assert!(fd >= 0);
            OwnedFd::from_raw_fd(fd)
        };
        Box::new(Queue { memory: self, timer, flying: Vec::new() })
    }
}

#[derive(Debug)]
struct Queue {
    memory: Arc<Memory>,
    timer: OwnedFd,
    flying: Vec<(Instant, Result<(), ReadError>, Read)>,
}

impl ReadQueue for Queue {
    fn post(&mut self, read: Read) -> Result<(), PostError> {
        self.memory.reads.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        let flush = |left: u64| left.checked_sub(1);
        let silence = || ReadError::Unreachable("it is silent".to_owned());
        let bytes: u64 = read.ranges.iter().map(|&(_, len)| u64::from(len)).sum();
        let (due, result) = if self
            .memory
            .flushes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, flush)
            .is_ok()
        {
            (now, Err(ReadError::Flushed))
        } else if bytes >= self.memory.too_large.load(Ordering::Relaxed) {
            (now, Err(silence()))
        } else {
            match &*self.memory.mood.lock() {
                Mood::Answers(after) => (now + *after, Ok(())),
                Mood::Silent => (read.deadline, Err(silence())),
                Mood::Dead => (now + Duration::from_secs(3600), Ok(())),
                Mood::Panics => panic!("as the test asked for"),
                Mood::Fails(error) => (now, Err(error.clone())),
            }
        };
        self.flying.push((due, result, read));
        self.arm();
        Ok(())
    }

    fn reap(&mut self, done: &mut dyn FnMut(Completion)) {
        let now = Instant::now();
        for index in (0..self.flying.len()).rev() {
            if self.flying[index].0 <= now {
                let (_, result, mut read) = self.flying.swap_remove(index);
                let mut rest = &mut read.buffer[..];
                if result.is_ok() {
                    for &(SeedAddr(addr), len) in &read.ranges {
                        let (now, behind) = rest.split_at_mut(len as usize);
                        bytes_at(addr, now);
                        rest = behind;
                    }
                }
                done(Completion { tag: read.tag, buffer: read.buffer, result });
            }
        }
        self.arm();
    }

    fn poll_fds(&self, fds: &mut Vec<RawFd>) {
        fds.push(self.timer.as_raw_fd());
    }

    fn in_flight(&self) -> usize {
        self.flying.len()
    }
}

impl Queue {
    /// Makes the timer readable when the next READ is due.
    fn arm(&self) {
        let next = self.flying.iter().map(|flying| flying.0).min();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        let left = left.map_or(Duration::ZERO, |left| left.max(Duration::from_nanos(1)));
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let value = libc::timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let spec = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: `spec` lives through the call.
        let result = unsafe {
            libc::timerfd_settime(self.timer.as_raw_fd(), 0, &raw const spec, std::ptr::null_mut())
        };
        assert_eq!(result, 0);
    }
}
