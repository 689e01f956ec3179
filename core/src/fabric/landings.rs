//! READs whose buffers belong to the card: what each asked for, how many of its work requests are to
//! complete, and how it will have ended.
//!
//! ```text
//!   put --> waiting --post (one doorbell for all that fit)--> posted --last completion--> given to `done`
//!                \-------------- the QP is gone: given back, front first --------------/
//! ```
//! What a fabric must know of a READ's goal beside its pieces (a DC target, say) is kept with it: its *aim*.

use std::collections::VecDeque;
use std::time::Instant;

use super::arena::RemotePiece;
use super::{Buffer, Completion, MAX_IN_FLIGHT, Read, ReadError};
use crate::verbs::{Destroyed, Landing, PostError, PostFault, Remote, Wc, WcStatus};

/// Work requests that one QP has outstanding; the READs beyond wait here. The card itself has max_rd_atomic
/// of them on the wire.
pub(super) const DEPTH: u32 = 256;

/// READs of one QP.
#[derive(Debug)]
pub(super) struct Landings<A> {
    /// The posted ones in front.
    list: VecDeque<Landed<A>>,
    next_serial: u64,
    /// Work requests that are outstanding.
    outstanding: u32,
}

#[derive(Debug)]
struct Landed<A> {
    serial: u64,
    read: Read,
    aim: A,
    landing: Landing,
    pieces: Vec<RemotePiece>,
    is_posted: bool,
    /// How it fails, once all its work requests have completed.
    error: Option<ReadError>,
}

/// What a failed work request says of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The owner's card refuses the bytes.
    Refused,
    /// The peer is silent.
    Silent(String),
    /// Flushed by another one's failure.
    Flushed,
    /// This host's card, or its driver.
    Local(String),
}

impl<A> Default for Landings<A> {
    fn default() -> Self {
        let list = VecDeque::with_capacity(MAX_IN_FLIGHT);
        Landings { list, next_serial: 0, outstanding: 0 }
    }
}

impl<A> Landings<A> {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether one more READ with so many ranges fits; each may lie in two slabs.
    pub(super) fn has_room(&self, ranges: usize) -> bool {
        let waiting: usize =
            self.list.iter().filter(|landed| !landed.is_posted).map(|l| l.pieces.len()).sum();
        let most = u32::try_from(waiting + 2 * ranges).unwrap_or(u32::MAX);
        self.outstanding.saturating_add(most) <= DEPTH
    }

    /// Takes a READ that `check` has admitted.
    ///
    /// # Errors
    /// The READ, with what is wrong.
    #[expect(clippy::result_large_err, reason = "a box would be an allocation on the miss path")]
    pub(super) fn put(&mut self, mut read: Read, aim: A) -> Result<(), (Read, ReadError)> {
        let mut pieces = Vec::with_capacity(2 * read.ranges.len());
        if let Err(error) = locate(&read, |piece| pieces.push(piece)) {
            return Err((read, error));
        }
        let Some(landing) = read.buffer.lend() else { return Err((read, ReadError::NotYet)) };
        let serial = self.next_serial;
        self.next_serial += 1;
        self.list.push_back(Landed {
            serial,
            read,
            aim,
            landing,
            pieces,
            is_posted: false,
            error: None,
        });
        Ok(())
    }

    /// Adds all that wait to a batch.
    ///
    /// # Errors
    /// A work request that cannot be: nothing is posted then.
    pub(super) fn add_all(
        &mut self,
        mut add: impl FnMut(
            u64,
            Remote,
            &A,
            &mut Landing,
            std::ops::Range<usize>,
        ) -> Result<(), PostFault>,
    ) -> Result<(), PostFault> {
        for landed in self.list.iter_mut().filter(|landed| !landed.is_posted) {
            let mut at = 0;
            for piece in &landed.pieces {
                let end = at + piece.len as usize;
                let remote = Remote { rkey: piece.rkey, address: piece.addr };
                add(landed.serial, remote, &landed.aim, &mut landed.landing, at..end)?;
                at = end;
            }
        }
        Ok(())
    }

    /// Lines up what waits, READs of one goal one behind the other, else in the order of their coming.
    pub(super) fn sort_waiting_by<K: Ord>(&mut self, goal: impl Fn(&A) -> K) {
        let list = self.list.make_contiguous();
        let waiting = list.partition_point(|landed| landed.is_posted);
        list[waiting..].sort_unstable_by_key(|landed| (goal(&landed.aim), landed.serial));
    }

    /// The aims of the READs that are posted, and of those that wait.
    pub(super) fn aims(
        &mut self,
    ) -> (impl Iterator<Item = &A> + Clone, impl Iterator<Item = &mut A>) {
        let list = self.list.make_contiguous();
        let waiting = list.partition_point(|landed| landed.is_posted);
        let (posted, waiting) = list.split_at_mut(waiting);
        let posted = &*posted;
        (posted.iter().map(|landed| &landed.aim), waiting.iter_mut().map(|landed| &mut landed.aim))
    }

    /// Whether nothing is on its way.
    pub(super) fn is_silent(&self) -> bool {
        self.outstanding == 0
    }

    /// Whether any READ waits to be posted.
    pub(super) fn is_waiting(&self) -> bool {
        self.list.back().is_some_and(|landed| !landed.is_posted)
    }

    /// What [`Self::add_all`] has added is on its way.
    pub(super) fn posted(&mut self, count: usize) {
        self.outstanding += u32::try_from(count).unwrap_or(0);
        self.list.iter_mut().for_each(|landed| landed.is_posted = true);
    }

    /// Nothing of what [`Self::add_all`] has added is on its way.
    pub(super) fn not_posted(&mut self, error: &PostError) {
        for landed in self.list.iter_mut().filter(|landed| !landed.is_posted) {
            landed.landing.not_posted(error);
        }
    }

    /// A work request has completed; its READ is given to `done` if it was its last. `told` hears of each
    /// failure, and of each READ that is whole.
    pub(super) fn completed(
        &mut self,
        wc: &Wc,
        told: &mut dyn FnMut(&Read, &A, Option<&Failure>),
        done: &mut dyn FnMut(Completion),
    ) {
        self.outstanding = self.outstanding.saturating_sub(1);
        let Some(at) = self.list.iter().position(|landed| landed.serial == wc.wr_id()) else {
            return;
        };
        let landed = &mut self.list[at];
        landed.landing.completed(wc);
        let is_last = landed.landing.pending() == 0;
        if !wc.status().is_success() {
            let failure = Failure::of(wc.status());
            if failure == Failure::Refused
                && let Some(arena) = &landed.read.arena
            {
                arena.refuse(landed.read.seed);
            }
            told(&landed.read, &landed.aim, Some(&failure));
            landed.error.get_or_insert_with(|| failure.into());
        } else if is_last && landed.error.is_none() {
            told(&landed.read, &landed.aim, None);
        }
        if is_last && let Some(landed) = self.list.remove(at) {
            let (mut read, error) = landed.take_back();
            let buffer = std::mem::replace(&mut read.buffer, Buffer::lent());
            done(Completion { tag: read.tag, buffer, result: error.map_or(Ok(()), Err) });
        }
    }

    /// Whether a READ is past its deadline.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.list.iter().any(|landed| landed.read.deadline <= now)
    }

    /// All READs, front first: their QP is gone, and nothing lands any more. `None`: it could not be
    /// destroyed, so what is posted stays the card's, and the buffers are replaced.
    pub(super) fn take_all(&mut self, gone: Option<&Destroyed>) -> Vec<Read> {
        self.outstanding = 0;
        let all = self.list.drain(..).map(|mut landed| {
            if let Some(gone) = gone {
                landed.landing.qp_gone(gone);
            }
            landed.take_back().0
        });
        all.collect()
    }
}

impl<A> Landed<A> {
    /// The READ with its buffer, and how it has failed.
    fn take_back(self) -> (Read, Option<ReadError>) {
        let Landed { mut read, landing, error, .. } = self;
        read.buffer = match landing.take_back() {
            Ok(buffer) => Buffer::from(buffer),
            // The card may still write there: that buffer is lost to it.
            Err(_) => Buffer::unregistered(vec![0; super::buffers::BUFFER_BYTES].into()),
        };
        (read, error)
    }
}

/// Whether a card can carry out a READ, as far as is known now.
///
/// # Errors
/// `NotYet`.
pub(super) fn check(read: &Read) -> Result<(), ReadError> {
    match read.buffer.is_registered() {
        true => locate(read, |_| {}),
        false => Err(ReadError::NotYet),
    }
}

/// Gives where the bytes of a READ lie.
///
/// # Errors
/// `NotYet`: not in the arena, or not known to be.
fn locate(read: &Read, mut each: impl FnMut(RemotePiece)) -> Result<(), ReadError> {
    let arena = read.arena.as_ref().ok_or(ReadError::NotYet)?;
    for &(addr, len) in &read.ranges {
        arena.locate(addr, len, &mut each).map_err(|_| ReadError::NotYet)?;
    }
    Ok(())
}

impl Failure {
    fn of(status: WcStatus) -> Self {
        match status {
            WcStatus::REMOTE_ACCESS | WcStatus::REMOTE_INVALID_REQUEST => Failure::Refused,
            WcStatus::RETRY_EXCEEDED => Failure::Silent(status.to_string()),
            WcStatus::FLUSHED => Failure::Flushed,
            other => Failure::Local(other.to_string()),
        }
    }
}

impl From<Failure> for ReadError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused => ReadError::Revoked(
                "the owner's card refuses the READ: the seed was dropped or revoked, or its keys are \
                 not its own"
                    .to_owned(),
            ),
            Failure::Silent(status) => ReadError::Unreachable(format!("READ: {status}")),
            Failure::Flushed => ReadError::Flushed,
            Failure::Local(status) => ReadError::Local(format!("READ: {status}")),
        }
    }
}
