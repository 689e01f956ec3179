//! A QP without a device, for tests of what stands above: it takes batches of READs, and completes what it is
//! told to complete.
#![deny(unsafe_code)]

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::completion::{Wc, WcStatus};
use super::dma::{DmaPool, Landing, Memory};
use super::memory::Region;
use super::post::{BatchId, PostError, PostFault, Remote};
use super::qp::Destroyed;

/// Buffers that no device knows.
pub(crate) fn buffers(slots: usize, slot_bytes: usize) -> Arc<DmaPool> {
    let region = Region::new(slots * slot_bytes).expect("memory");
    DmaPool::over(Memory::StandIn(region), slots, slot_bytes)
}

/// See the module's comment.
#[derive(Debug)]
pub(crate) struct StandInQp {
    number: u32,
    batches: u64,
    posted: VecDeque<(u64, Remote)>,
    completed: VecDeque<Wc>,
}

/// A batch that is being filled.
#[derive(Debug)]
pub(crate) struct StandInBatch<'qp> {
    qp: &'qp mut StandInQp,
    added: Vec<(u64, Remote)>,
}

impl StandInQp {
    pub(crate) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(1);
        StandInQp {
            number: MADE.fetch_add(1, Ordering::Relaxed),
            batches: 0,
            posted: VecDeque::new(),
            completed: VecDeque::new(),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// As a real one's.
    pub(crate) fn post(
        &mut self,
        fill: impl FnOnce(&mut StandInBatch<'_>) -> Result<(), PostFault>,
    ) -> Result<usize, PostError> {
        self.batches += 1;
        let id = self.batch();
        let mut batch = StandInBatch { qp: self, added: Vec::new() };
        fill(&mut batch).map_err(|fault| PostError { fault, batch: id })?;
        let added = batch.added;
        let count = added.len();
        self.posted.extend(added);
        Ok(count)
    }

    fn batch(&self) -> BatchId {
        BatchId { serial: u64::from(self.number), batch: self.batches }
    }

    /// The oldest READ that is posted ends like this; false: none is.
    pub(crate) fn complete(&mut self, status: WcStatus) -> bool {
        let Some((wr_id, _)) = self.posted.pop_front() else { return false };
        self.completed.push_back(Wc::stand_in(wr_id, status, self.number));
        true
    }

    /// As a real one's CQ.
    pub(crate) fn take<'wcs>(&mut self, wcs: &'wcs mut [Wc]) -> &'wcs [Wc] {
        let count = self.completed.len().min(wcs.len());
        for (place, wc) in wcs.iter_mut().zip(self.completed.drain(..count)) {
            *place = wc;
        }
        &wcs[..count]
    }

    /// READs that are posted and not completed.
    pub(crate) fn outstanding(&self) -> usize {
        self.posted.len()
    }

    pub(crate) fn destroy(self) -> Destroyed {
        Destroyed::stand_in(u64::from(self.number))
    }
}

impl StandInBatch<'_> {
    pub(crate) fn read(
        &mut self,
        wr_id: u64,
        remote: Remote,
        landing: &mut Landing,
        range: &Range<usize>,
    ) -> Result<(), PostFault> {
        let id = self.qp.batch();
        landing.place(range).ok_or(PostFault::BadRange)?;
        if landing.is_elsewhere(id.serial) {
            return Err(PostFault::Elsewhere);
        }
        landing.posted(id, self.qp.number);
        self.added.push((wr_id, remote));
        Ok(())
    }
}
