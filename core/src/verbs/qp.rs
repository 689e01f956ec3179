//! Queue pairs: making them, their states, and posting on them.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rdma_mummy_sys as sys;

use super::change::Change;
use super::completion::Cq;
use super::device::Transport;
use super::error::{Error, check};
use super::memory::Pd;
use super::post::{
    Batch, BatchId, Classic, PostError, PostFault, Poster, RcBatch, missing_function,
};
use super::srq::Srq;
use super::transitions::{self, QpKind, QpState};

/// A QP of any kind: what it holds, and its state.
pub(super) struct Qp {
    pub(super) raw: NonNull<sys::ibv_qp>,
    pub(super) pd: Arc<Pd>,
    kind: QpKind,
    state: QpState,
    /// A number that no other QP of this process has or had; the device gives its own numbers again.
    serial: u64,
    batches: u64,
    // Held, so that they go after the QP.
    _cq: Arc<Cq>,
    _srq: Option<Arc<Srq>>,
}

// SAFETY: libibverbs is thread-safe (see Context); posting takes `&mut`.
unsafe impl Send for Qp {}
// SAFETY: as above.
unsafe impl Sync for Qp {}

impl Qp {
    /// Takes what a provider made.
    pub(super) fn new(
        raw: NonNull<sys::ibv_qp>,
        kind: QpKind,
        pd: &Arc<Pd>,
        cq: &Arc<Cq>,
        srq: Option<&Arc<Srq>>,
    ) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(1);
        Self {
            raw,
            pd: pd.clone(),
            kind,
            state: QpState::Reset,
            serial: MADE.fetch_add(1, Ordering::Relaxed),
            batches: 0,
            _cq: cq.clone(),
            _srq: srq.cloned(),
        }
    }

    pub(super) fn number(&self) -> u32 {
        // SAFETY: a live QP's plain field.
        unsafe { self.raw.as_ref().qp_num }
    }

    pub(super) fn state(&self) -> QpState {
        self.state
    }

    pub(super) fn device(&self) -> &str {
        self.pd.context().name()
    }

    fn name(&self) -> String {
        format!("{} {} on {}", self.kind, self.number(), self.device())
    }

    pub(super) fn modify(&mut self, change: &Change) -> Result<(), Error> {
        transitions::allow(self.kind, self.state, change.to, change.mask)?;
        let mut attr = change.attr();
        let mask = i32::try_from(change.mask.0).unwrap_or(i32::MAX);
        // SAFETY: a live QP; `attr` is read during the call.
        let result =
            unsafe { (self.pd.context().ibv.modify_qp)(self.raw.as_ptr(), &raw mut attr, mask) };
        check("ibv_modify_qp", &format!("{} to {}", self.name(), change.to), result)?;
        self.state = change.to;
        Ok(())
    }

    /// The state in which the connection manager has put it.
    pub(super) fn assume(&mut self, state: QpState) {
        self.state = state;
    }

    /// Asks the device for its state; a failed READ changes it without a word.
    pub(super) fn refresh(&mut self) -> Result<QpState, Error> {
        // SAFETY: plain C data, for which zeros are a value.
        let (mut attr, mut init): (sys::ibv_qp_attr, sys::ibv_qp_init_attr) =
            unsafe { std::mem::zeroed() };
        let mask = i32::try_from(sys::ibv_qp_attr_mask::IBV_QP_STATE.0).unwrap_or(i32::MAX);
        // SAFETY: a live QP; both structs are written during the call.
        let result = unsafe {
            let query = self.pd.context().ibv.query_qp;
            query(self.raw.as_ptr(), &raw mut attr, mask, &raw mut init)
        };
        check("ibv_query_qp", &self.name(), result)?;
        self.state = QpState::from_raw(attr.qp_state);
        Ok(self.state)
    }

    pub(super) fn next_batch(&mut self) -> BatchId {
        self.batches += 1;
        BatchId { serial: self.serial, batch: self.batches }
    }

    /// Destroys it now, and says so.
    pub(super) fn destroy(self) -> Result<Destroyed, Error> {
        let name = self.name();
        let serial = self.serial;
        let mut qp = std::mem::ManuallyDrop::new(self);
        // SAFETY: `qp` is not dropped any more.
        let result = unsafe { (qp.pd.context().ibv.destroy_qp)(qp.raw.as_ptr()) };
        if result != 0 {
            // It lives on, with all that it holds.
            return Err(Error::returned("ibv_destroy_qp", name, result));
        }
        // SAFETY: each is dropped once; `qp` itself is not dropped any more.
        unsafe {
            std::ptr::drop_in_place(&raw mut qp._cq);
            std::ptr::drop_in_place(&raw mut qp._srq);
            std::ptr::drop_in_place(&raw mut qp.pd);
        }
        Ok(Destroyed { serial })
    }
}

impl fmt::Debug for Qp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} in {}", self.name(), self.state)
    }
}

impl Drop for Qp {
    fn drop(&mut self) {
        // SAFETY: this value's own QP, destroyed once; events of it are acknowledged as they are taken.
        let result = unsafe { (self.pd.context().ibv.destroy_qp)(self.raw.as_ptr()) };
        if result != 0 {
            tracing::warn!(qp = self.name(), result, "a QP could not be destroyed");
        }
    }
}

/// Proof that a QP is gone: nothing that was posted on it lands any more.
#[derive(Debug)]
pub struct Destroyed {
    serial: u64,
}

impl Destroyed {
    /// Of a device that does not exist.
    #[cfg(test)]
    pub(super) fn stand_in(serial: u64) -> Self {
        Self { serial }
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }
}

/// A QP for READs over one connection, in both directions.
///
/// ```text
///   new: RESET --modify, or CmId::prepare and CmId::make_ready--> RTS --post--> completions in the CQ
///   a READ failed: ERR; all that was posted completes with status 5; then reset, and to RTS again
/// ```
pub struct RcQp {
    qp: Qp,
    poster: Poster,
}

// SAFETY: the poster's pointers are the QP's own.
unsafe impl Send for RcQp {}
// SAFETY: as above; they are used with `&mut` alone.
unsafe impl Sync for RcQp {}

impl RcQp {
    /// A QP with room for `depth` READs, its completions in `cq`.
    ///
    /// # Errors
    /// [`Error::Call`]: EINVAL above the device's limits, ENOMEM. [`Error::NullFunction`].
    pub fn new(pd: &Arc<Pd>, cq: &Arc<Cq>, depth: u32) -> Result<Self, Error> {
        match Self::extended(pd, cq, depth) {
            Err(Error::Call { errno: libc::EOPNOTSUPP | libc::ENOSYS, .. }) => {
                Self::classic(pd, cq, depth)
            }
            made => made,
        }
    }

    fn kind(pd: &Pd) -> QpKind {
        if pd.context().transport() == Transport::Iwarp { QpKind::IwarpRc } else { QpKind::Rc }
    }

    /// With `ibv_wr_*`.
    fn extended(pd: &Arc<Pd>, cq: &Arc<Cq>, depth: u32) -> Result<Self, Error> {
        let context = pd.context();
        let unsupported = || Error::returned("ibv_create_qp_ex", context.name(), libc::EOPNOTSUPP);
        // SAFETY: the table reaches back to this field.
        let create = context
            .extended()
            .and_then(|table| unsafe { (*table).create_qp_ex })
            .ok_or_else(unsupported)?;
        let mut attr = extended_attr(pd, cq, depth);
        attr.qp_type = sys::ibv_qp_type::IBV_QPT_RC;
        // SAFETY: the provider's own function; all that `attr` points to lives.
        let raw = unsafe { create(context.raw.as_ptr(), &raw mut attr) };
        let raw =
            NonNull::new(raw).ok_or_else(|| Error::last("ibv_create_qp_ex", context.name()))?;
        let qp = Qp::new(raw, Self::kind(pd), pd, cq, None);
        let poster = Poster::Extended(extended_qp(&qp)?);
        Ok(Self { qp, poster })
    }

    /// With `ibv_post_send`.
    fn classic(pd: &Arc<Pd>, cq: &Arc<Cq>, depth: u32) -> Result<Self, Error> {
        let context = pd.context();
        // SAFETY: an open context's table.
        let post_send = unsafe { context.raw.as_ref().ops.post_send }.ok_or_else(|| {
            Error::NullFunction { on: context.name().to_owned(), function: "post_send" }
        })?;
        // SAFETY: plain C data, for which zeros are a value.
        let mut attr: sys::ibv_qp_init_attr = unsafe { std::mem::zeroed() };
        (attr.send_cq, attr.recv_cq) = (cq.raw.as_ptr(), cq.raw.as_ptr());
        attr.cap = capacity(depth);
        if context.transport() == Transport::Iwarp {
            // Nothing is received; but libsiw takes a QP without a receive queue for one that failed.
            (attr.cap.max_recv_wr, attr.cap.max_recv_sge) = (1, 1);
        }
        attr.qp_type = sys::ibv_qp_type::IBV_QPT_RC;
        // SAFETY: all that `attr` points to lives.
        let raw = unsafe { (context.ibv.create_qp)(pd.raw.as_ptr(), &raw mut attr) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last("ibv_create_qp", context.name()))?;
        let qp = Qp::new(raw, Self::kind(pd), pd, cq, None);
        let room = usize::try_from(depth).unwrap_or(0);
        let poster = Poster::Classic(Classic {
            qp: raw,
            post_send,
            requests: Vec::with_capacity(room),
            pieces: Vec::with_capacity(room),
            depth: room,
        });
        Ok(Self { qp, poster })
    }

    /// Its number, by which its peer knows it.
    pub fn number(&self) -> u32 {
        self.qp.number()
    }

    /// Its state, as far as it was changed from here.
    pub fn state(&self) -> QpState {
        self.qp.state()
    }

    /// Its state, as the device says.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn query_state(&mut self) -> Result<QpState, Error> {
        self.qp.refresh()
    }

    /// Changes its state.
    ///
    /// # Errors
    /// [`Error::Transition`] before the device is asked; [`Error::Call`].
    pub fn modify(&mut self, change: &Change) -> Result<(), Error> {
        self.qp.modify(change)
    }

    pub(super) fn assume(&mut self, state: QpState) {
        self.qp.assume(state);
    }

    pub(super) fn transport(&self) -> Transport {
        self.qp.pd.context().transport()
    }

    /// Back to RESET. Whoever wants the completions of what was posted polls for them first: a card may
    /// take them out of the CQ with this.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn reset(&mut self) -> Result<(), Error> {
        self.qp.modify(&Change::to(QpState::Reset))
    }

    /// Destroys it.
    ///
    /// # Errors
    /// [`Error::Call`]; it lives on then, unused.
    pub fn destroy(self) -> Result<Destroyed, Error> {
        self.qp.destroy()
    }

    /// Posts the READs that `fill` adds, with one doorbell; their number. If `fill` fails, or the
    /// provider refuses, none is posted.
    ///
    /// # Errors
    /// [`PostError`]; the landings of the batch have to be told ([`super::Landing::not_posted`]).
    pub fn post(
        &mut self,
        fill: impl FnOnce(&mut RcBatch<'_>) -> Result<(), PostFault>,
    ) -> Result<usize, PostError> {
        let (id, number) = (self.qp.next_batch(), self.qp.number());
        let mut batch = RcBatch { batch: Batch::start(&mut self.poster, id, number) };
        let filled = fill(&mut batch);
        batch.batch.end(filled)
    }
}

impl fmt::Debug for RcQp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.qp.fmt(out)
    }
}

/// Room for `depth` READs into one piece of memory each, and nothing to receive.
fn capacity(depth: u32) -> sys::ibv_qp_cap {
    sys::ibv_qp_cap {
        max_send_wr: depth,
        max_recv_wr: 0,
        max_send_sge: 1,
        max_recv_sge: 0,
        max_inline_data: 0,
    }
}

/// What an extended QP for READs is made of; its type is the caller's.
pub(super) fn extended_attr(pd: &Pd, cq: &Cq, depth: u32) -> sys::ibv_qp_init_attr_ex {
    use sys::{ibv_qp_create_send_ops_flags as ops, ibv_qp_init_attr_mask as mask};
    // SAFETY: plain C data, for which zeros are a value.
    let mut attr: sys::ibv_qp_init_attr_ex = unsafe { std::mem::zeroed() };
    (attr.send_cq, attr.recv_cq) = (cq.raw.as_ptr(), cq.raw.as_ptr());
    attr.cap = capacity(depth);
    attr.pd = pd.raw.as_ptr();
    attr.send_ops_flags = u64::from(ops::IBV_QP_EX_WITH_RDMA_READ.0);
    attr.comp_mask = mask::IBV_QP_INIT_ATTR_PD.0 | mask::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.0;
    attr
}

/// The extended part of a QP, once it is known to have all that a batch calls.
pub(super) fn extended_qp(qp: &Qp) -> Result<NonNull<sys::ibv_qp_ex>, Error> {
    let null = |function| Error::NullFunction { on: qp.device().to_owned(), function };
    // SAFETY: a live QP.
    let extended = unsafe { (qp.pd.context().ibv.qp_to_qp_ex)(qp.raw.as_ptr()) };
    let extended = NonNull::new(extended).ok_or_else(|| null("ibv_qp_ex"))?;
    match missing_function(extended) {
        Some(function) => Err(null(function)),
        None => Ok(extended),
    }
}
