//! Posting: a batch of READs rings one doorbell, and what was started is always ended.
//!
//! [`super::RcQp::post`] and [`super::Dci::post`] start a batch, give it to a closure and complete it,
//! or abort it if the closure fails or panics. A batch exists nowhere else, and cannot be kept:
//!
//! ```
//! # #[cfg(feature = "rdma")] {
//! use mitosis::verbs::{Landing, PostError, RcQp, Remote};
//! fn read(qp: &mut RcQp, from: Remote, landing: &mut Landing) -> Result<usize, PostError> {
//!     qp.post(|batch| batch.read(1, from, landing, 0..4096))
//! }
//! # }
//! ```
//! A batch does not leave its closure, so it can be neither forgotten nor ended twice:
//!
//! ```compile_fail,E0521
//! use mitosis::verbs::{Landing, PostError, RcBatch, RcQp, Remote};
//! fn read(qp: &mut RcQp, from: Remote, landing: &mut Landing) -> Result<usize, PostError> {
//!     let mut kept: Option<&mut RcBatch<'_>> = None;
//!     qp.post(|batch| { kept = Some(batch); Ok(()) })
//! }
//! ```
//! There is one batch of a QP at a time:
//!
//! ```compile_fail,E0500
//! use mitosis::verbs::{Landing, PostError, RcQp, Remote};
//! fn read(qp: &mut RcQp, from: Remote, landing: &mut Landing) -> Result<usize, PostError> {
//!     qp.post(|batch| { let _ = qp.post(|inner| inner.read(2, from, landing, 0..8)); Ok(()) })
//! }
//! ```
//! It cannot be made without being started:
//!
//! ```compile_fail,E0451
//! use mitosis::verbs::RcBatch;
//! fn again(RcBatch { batch }: RcBatch<'_>) -> RcBatch<'_> {
//!     RcBatch { batch }
//! }
//! ```
//! And a READ by DC has a target, always: the batch of a DCI has no other `read`.
//!
//! ```compile_fail,E0061
//! use mitosis::verbs::{Dci, Landing, PostError, Remote};
//! fn read(dci: &mut Dci, from: Remote, landing: &mut Landing) -> Result<usize, PostError> {
//!     dci.post(|batch| batch.read(1, from, landing, 0..4096))
//! }
//! ```

use std::ffi::c_int;
use std::ops::Range;
use std::ptr::NonNull;

use rdma_mummy_sys as sys;

use super::dma::{Landing, Local};

/// What to READ: the owner's key and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The registration's key.
    pub rkey: u32,
    /// The address within it, from its iova on.
    pub address: u64,
}

/// Why a batch was not posted, or not whole. [`Landing::not_posted`] takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct PostError {
    /// What is wrong.
    pub fault: PostFault,
    pub(super) batch: BatchId,
}

/// What is wrong with a batch, or with one READ of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostFault {
    /// The range is not within the buffer, or empty.
    #[error("the READ's range is not within its buffer: a defect, please report it")]
    BadRange,
    /// READs into this buffer are pending on another QP.
    #[error("READs into this buffer are pending on another QP: a defect, please report it")]
    Elsewhere,
    /// The send queue has no room for the batch; nothing of it was posted.
    #[error("the send queue is full: wait for completions, or post fewer READs at a time")]
    Full,
    /// The provider refuses the batch; nothing of it was posted.
    #[error(
        "the provider refuses the READs, errno {0}: the QP is not in RTS or the device is gone"
    )]
    Refused(c_int),
    /// The provider took only the first of the batch; their completions come.
    #[error("the provider took {posted} READs of {of}, errno {errno}: the QP has to be reset")]
    Partly {
        /// READs that were posted.
        posted: u32,
        /// READs in the batch.
        of: u32,
        /// The provider's.
        errno: c_int,
    },
}

/// One batch of one QP, by numbers that are used once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BatchId {
    pub(super) serial: u64,
    pub(super) batch: u64,
}

/// How a provider is given work requests.
pub(super) enum Poster {
    /// `ibv_wr_*`.
    Extended(NonNull<sys::ibv_qp_ex>),
    /// `ibv_post_send`, for providers without them (siw).
    Classic(Classic),
}

/// A list of work requests, reused; it never grows beyond the send queue.
pub(super) struct Classic {
    pub(super) qp: NonNull<sys::ibv_qp>,
    pub(super) post_send: PostSend,
    pub(super) requests: Vec<sys::ibv_send_wr>,
    pub(super) pieces: Vec<sys::ibv_sge>,
    pub(super) depth: usize,
}

/// `ibv_context_ops.post_send`.
pub(super) type PostSend = unsafe extern "C" fn(
    *mut sys::ibv_qp,
    *mut sys::ibv_send_wr,
    *mut *mut sys::ibv_send_wr,
) -> c_int;

/// The first function of an extended QP that a batch calls and that is null. Asked once, when the QP is
/// made: the ports of `ibv_wr_*` do not ask.
///
/// The struct grows at its end, so an older provider's may be shorter than ours: it is read field by field.
pub(super) fn missing_function(qp: NonNull<sys::ibv_qp_ex>) -> Option<&'static str> {
    let qp = qp.as_ptr();
    // SAFETY: a QP's extended part, whose functions are set when it is made.
    let there = unsafe {
        [
            ((*qp).wr_start.is_some(), "wr_start"),
            ((*qp).wr_complete.is_some(), "wr_complete"),
            ((*qp).wr_abort.is_some(), "wr_abort"),
            ((*qp).wr_rdma_read.is_some(), "wr_rdma_read"),
            ((*qp).wr_set_sge.is_some(), "wr_set_sge"),
        ]
    };
    there.into_iter().find(|(there, _)| !there).map(|(_, name)| name)
}

/// A batch that was started. It is ended when it goes out of scope, one way or the other.
pub(super) struct Batch<'qp> {
    poster: &'qp mut Poster,
    id: BatchId,
    qp_num: u32,
    count: u32,
    open: bool,
}

impl<'qp> Batch<'qp> {
    pub(super) fn start(poster: &'qp mut Poster, id: BatchId, qp_num: u32) -> Self {
        match poster {
            // SAFETY: the QP lives, its functions were asked for when it was made, and `&mut` keeps
            // others from starting a second batch.
            Poster::Extended(qp) => unsafe { sys::ibv_wr_start(qp.as_ptr()) },
            Poster::Classic(classic) => {
                classic.requests.clear();
                classic.pieces.clear();
            }
        }
        Self { poster, id, qp_num, count: 0, open: true }
    }

    /// Adds one READ; `address` adds what the kind of QP needs beside.
    pub(super) fn read(
        &mut self,
        wr_id: u64,
        remote: Remote,
        landing: &mut Landing,
        range: &Range<usize>,
        address: impl FnOnce(),
    ) -> Result<(), PostFault> {
        let local = landing.place(range).ok_or(PostFault::BadRange)?;
        if landing.is_elsewhere(self.id.serial) {
            return Err(PostFault::Elsewhere);
        }
        match self.poster {
            // SAFETY: started and not ended; both setters of an RC READ, or with `address` of a DC READ,
            // are called for each.
            Poster::Extended(qp) => unsafe {
                let qp = qp.as_ptr();
                (*qp).wr_id = wr_id;
                (*qp).wr_flags = sys::ibv_send_flags::IBV_SEND_SIGNALED.0;
                sys::ibv_wr_rdma_read(qp, remote.rkey, remote.address);
                address();
                sys::ibv_wr_set_sge(qp, local.lkey, local.address, local.bytes);
            },
            Poster::Classic(classic) => classic.add(wr_id, remote, local)?,
        }
        landing.posted(self.id, self.qp_num);
        self.count += 1;
        Ok(())
    }

    /// Ends it: rings the doorbell, or posts nothing if filling it failed. The number of READs.
    pub(super) fn end(self, filled: Result<(), PostFault>) -> Result<usize, PostError> {
        let id = self.id;
        filled.and_then(|()| self.complete()).map_err(|fault| PostError { fault, batch: id })
    }

    fn complete(mut self) -> Result<usize, PostFault> {
        if self.count == 0 {
            return Ok(0);
        }
        self.open = false;
        let errno = match self.poster {
            // SAFETY: started and not ended.
            Poster::Extended(qp) => unsafe { sys::ibv_wr_complete(qp.as_ptr()) },
            Poster::Classic(classic) => match classic.post() {
                Ok(()) => 0,
                Err((0, errno)) => errno,
                Err((posted, errno)) => {
                    return Err(PostFault::Partly { posted, of: self.count, errno });
                }
            },
        };
        match errno.abs() {
            0 => Ok(usize::try_from(self.count).expect("a usize has at least 32 bits")),
            // mlx5 says the first, rxe the second.
            libc::ENOMEM | libc::ENOSPC => Err(PostFault::Full),
            errno => Err(PostFault::Refused(errno)),
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.open
            && let Poster::Extended(qp) = self.poster
        {
            // SAFETY: started and not ended.
            unsafe { sys::ibv_wr_abort(qp.as_ptr()) }
        }
    }
}

impl Classic {
    fn add(&mut self, wr_id: u64, remote: Remote, local: Local) -> Result<(), PostFault> {
        if self.requests.len() >= self.depth {
            return Err(PostFault::Full);
        }
        // SAFETY: plain C data, for which zeros are a value.
        let mut request: sys::ibv_send_wr = unsafe { std::mem::zeroed() };
        request.wr_id = wr_id;
        request.opcode = sys::ibv_wr_opcode::IBV_WR_RDMA_READ;
        request.send_flags = sys::ibv_send_flags::IBV_SEND_SIGNALED.0;
        request.num_sge = 1;
        request.wr.rdma = sys::rdma_t { remote_addr: remote.address, rkey: remote.rkey };
        self.requests.push(request);
        self.pieces.push(sys::ibv_sge {
            addr: local.address,
            length: local.bytes,
            lkey: local.lkey,
        });
        Ok(())
    }

    /// Posts all; or says how many were posted, and why no more.
    fn post(&mut self) -> Result<(), (u32, c_int)> {
        let (count, first) = (self.requests.len(), self.requests.as_mut_ptr());
        let pieces = self.pieces.as_mut_ptr();
        for at in 0..count {
            // SAFETY: both lists have `count` entries and do not move until they are posted.
            unsafe {
                (*first.add(at)).sg_list = pieces.add(at);
                (*first.add(at)).next =
                    if at + 1 < count { first.add(at + 1) } else { std::ptr::null_mut() };
            }
        }
        let mut bad = std::ptr::null_mut();
        // SAFETY: a live QP and a list that ends with a null.
        let errno = unsafe { (self.post_send)(self.qp.as_ptr(), first, &raw mut bad) };
        if errno == 0 {
            return Ok(());
        }
        let posted =
            (0..count).position(|at| std::ptr::eq(first.wrapping_add(at), bad)).unwrap_or(0);
        Err((u32::try_from(posted).unwrap_or(u32::MAX), errno))
    }
}

/// A batch of READs of one RC QP; exists within [`super::RcQp::post`] alone.
#[expect(missing_debug_implementations, reason = "nothing of it is to be seen")]
pub struct RcBatch<'qp> {
    pub(super) batch: Batch<'qp>,
}

impl RcBatch<'_> {
    /// Adds a READ into `range` of `landing`.
    ///
    /// # Errors
    /// [`PostFault::BadRange`], [`PostFault::Elsewhere`]; and [`PostFault::Full`] where the provider has
    /// no batches of its own.
    pub fn read(
        &mut self,
        wr_id: u64,
        remote: Remote,
        landing: &mut Landing,
        range: Range<usize>,
    ) -> Result<(), PostFault> {
        self.batch.read(wr_id, remote, landing, &range, || ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn start(_: *mut sys::ibv_qp_ex) {}
    unsafe extern "C" fn complete(_: *mut sys::ibv_qp_ex) -> c_int {
        0
    }
    unsafe extern "C" fn read(_: *mut sys::ibv_qp_ex, _: u32, _: u64) {}
    unsafe extern "C" fn piece(_: *mut sys::ibv_qp_ex, _: u32, _: u64, _: u32) {}

    /// A provider's QP, with one function more each time.
    #[test]
    fn the_first_function_that_is_null_is_named() {
        // SAFETY: plain C data, for which zeros are a value: no function is there.
        let mut qp: sys::ibv_qp_ex = unsafe { std::mem::zeroed() };
        let missing = |qp: &mut sys::ibv_qp_ex| missing_function(NonNull::from(qp));
        assert_eq!(missing(&mut qp), Some("wr_start"));
        qp.wr_start = Some(start);
        assert_eq!(missing(&mut qp), Some("wr_complete"));
        qp.wr_complete = Some(complete);
        assert_eq!(missing(&mut qp), Some("wr_abort"));
        qp.wr_abort = Some(start);
        assert_eq!(missing(&mut qp), Some("wr_rdma_read"));
        qp.wr_rdma_read = Some(read);
        assert_eq!(missing(&mut qp), Some("wr_set_sge"));
        qp.wr_set_sge = Some(piece);
        assert_eq!(missing(&mut qp), None);
    }
}
