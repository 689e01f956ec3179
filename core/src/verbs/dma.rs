//! Buffers that READs land in: slots of one registered region.
//!
//! ```text
//!  DmaPool::take --> DmaBuffer (a slice, exclusive) --lend--> Landing (the device's) --read()--> pending
//!                        ^------------- take_back, when all its READs have completed -----------'
//! ```
//! A [`Landing`] that is dropped while READs of it are pending keeps its slot for ever: the device may
//! still write there.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError};

use super::completion::Wc;
use super::error::Error;
use super::memory::{Mr, Pd, Region};
use super::post::{BatchId, PostError, PostFault};
use super::qp::Destroyed;

/// Registered memory in slots of one size.
#[derive(Debug)]
pub struct DmaPool {
    memory: Memory,
    slot_bytes: usize,
    free: Mutex<Vec<usize>>,
}

impl DmaPool {
    /// `slots` buffers of `slot_bytes` bytes each, registered in one piece.
    ///
    /// # Errors
    /// [`Error::Pin`] where the limit on pinned memory is too low; [`Error::Call`] if there is no such
    /// much memory.
    pub fn new(pd: &Arc<Pd>, slots: usize, slot_bytes: usize) -> Result<Arc<Self>, Error> {
        let bytes = slots.saturating_mul(slot_bytes);
        let region = Region::new(bytes).map_err(|error| {
            Error::returned("mmap", format!("{bytes} bytes"), error.raw_os_error().unwrap_or(0))
        })?;
        let memory = Memory::Registered(Mr::local(pd, &region)?);
        Ok(Self::over(memory, slots, slot_bytes))
    }

    pub(super) fn over(memory: Memory, slots: usize, slot_bytes: usize) -> Arc<Self> {
        let free = Mutex::new((0..slots).rev().collect());
        Arc::new(Self { memory, slot_bytes, free })
    }

    /// A buffer; none if all are in use. Its bytes are those that its last use left.
    pub fn take(self: &Arc<Self>) -> Option<DmaBuffer> {
        let slot = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(DmaBuffer { pool: self.clone(), slot })
    }

    /// Bytes in each buffer.
    pub fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    fn range(&self, slot: usize) -> Range<usize> {
        slot * self.slot_bytes..(slot + 1) * self.slot_bytes
    }
}

/// What buffers are slots of.
#[derive(Debug)]
pub(super) enum Memory {
    Registered(Mr),
    /// For tests of what stands above a device.
    #[cfg(test)]
    StandIn(Arc<Region>),
}

impl Memory {
    fn region(&self) -> &Arc<Region> {
        match self {
            Memory::Registered(mr) => mr.region(),
            #[cfg(test)]
            Memory::StandIn(region) => region,
        }
    }

    /// Its key, and the address of its first byte, for work requests.
    fn local(&self) -> (u32, u64) {
        match self {
            Memory::Registered(mr) => (mr.lkey(), mr.iova()),
            #[cfg(test)]
            Memory::StandIn(region) => (0, region.address()),
        }
    }
}

/// One buffer, exclusively; goes back to its pool when dropped.
pub struct DmaBuffer {
    pool: Arc<DmaPool>,
    slot: usize,
}

impl DmaBuffer {
    /// Gives it to the device, for READs to land in.
    pub fn lend(self) -> Landing {
        Landing { buffer: Some(self), pending: 0, qp_num: 0, last: BatchId::default(), in_batch: 0 }
    }
}

impl Deref for DmaBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let start = self.pool.memory.region().at(&self.pool.range(self.slot));
        // SAFETY: the slot is in the region, which lives with the pool; it is this value's alone, as it
        // was taken from the free list, and no device writes there: it is not lent.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.pool.slot_bytes) }
    }
}

impl DerefMut for DmaBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = self.pool.memory.region().at(&self.pool.range(self.slot));
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.pool.slot_bytes) }
    }
}

impl fmt::Debug for DmaBuffer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DmaBuffer({} bytes)", self.pool.slot_bytes)
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        let mut free = self.pool.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(self.slot);
    }
}

/// A buffer that belongs to the device: READs of one QP land in it.
pub struct Landing {
    /// There until it is taken back.
    buffer: Option<DmaBuffer>,
    /// READs posted and not completed.
    pending: u32,
    qp_num: u32,
    /// The last batch that it was in, and how many READs of that are its own.
    last: BatchId,
    in_batch: u32,
}

/// A local range as the device is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local {
    pub(super) lkey: u32,
    pub(super) address: u64,
    pub(super) bytes: u32,
}

impl Landing {
    /// Where `range` of it is; none if it is not within the buffer, or empty.
    pub(super) fn place(&self, range: &Range<usize>) -> Option<Local> {
        let buffer = self.buffer.as_ref()?;
        let (lkey, iova) = buffer.pool.memory.local();
        let inside = range.start < range.end && range.end <= buffer.pool.slot_bytes;
        let start = u64::try_from(buffer.pool.range(buffer.slot).start + range.start).ok()?;
        let bytes = u32::try_from(range.len()).ok()?;
        inside.then_some(Local { lkey, address: iova + start, bytes })
    }

    /// Whether READs of another QP are pending.
    pub(super) fn is_elsewhere(&self, serial: u64) -> bool {
        self.pending > 0 && self.last.serial != serial
    }

    /// One READ more was put into this batch.
    pub(super) fn posted(&mut self, batch: BatchId, qp_num: u32) {
        self.in_batch = if self.last == batch { self.in_batch + 1 } else { 1 };
        self.pending += 1;
        (self.last, self.qp_num) = (batch, qp_num);
    }

    /// Notes a completion; true if it was one of its QP. To be told each of its own once.
    pub fn completed(&mut self, wc: &Wc) -> bool {
        let own = self.pending > 0 && wc.qp_num() == self.qp_num;
        self.pending -= u32::from(own);
        own
    }

    /// Notes that its last batch was not posted.
    pub fn not_posted(&mut self, error: &PostError) {
        let partly = matches!(error.fault, PostFault::Partly { .. });
        if self.last == error.batch && !partly {
            self.pending -= self.in_batch.min(self.pending);
            self.in_batch = 0;
        }
    }

    /// Notes that its QP is gone: what was pending never completes.
    pub fn qp_gone(&mut self, gone: &Destroyed) {
        if self.last.serial == gone.serial() {
            self.pending = 0;
        }
    }

    /// READs posted and not completed.
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// The buffer, once nothing is pending.
    ///
    /// # Errors
    /// Itself, while READs are pending.
    pub fn take_back(mut self) -> Result<DmaBuffer, Self> {
        if self.pending > 0 {
            return Err(self);
        }
        Ok(self.buffer.take().expect("only this function takes it"))
    }
}

impl fmt::Debug for Landing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Landing({} pending on QP {})", self.pending, self.qp_num)
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if self.pending > 0 {
            std::mem::forget(self.buffer.take());
        }
    }
}
