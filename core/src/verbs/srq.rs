//! Shared receive queues. READs need none, but a DCT is not made without.

use std::ptr::NonNull;
use std::sync::Arc;

use rdma_mummy_sys as sys;

use super::error::Error;
use super::memory::Pd;

/// The smallest SRQ there is; nothing is ever posted to it.
#[derive(Debug)]
pub struct Srq {
    pub(super) raw: NonNull<sys::ibv_srq>,
    pd: Arc<Pd>,
}

// SAFETY: libibverbs is thread-safe (see Context).
unsafe impl Send for Srq {}
// SAFETY: as above.
unsafe impl Sync for Srq {}

impl Srq {
    /// A new one; it serves any number of DCTs.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn new(pd: &Arc<Pd>) -> Result<Arc<Self>, Error> {
        // SAFETY: plain C data, for which zeros are a value.
        let mut attr: sys::ibv_srq_init_attr = unsafe { std::mem::zeroed() };
        (attr.attr.max_wr, attr.attr.max_sge) = (1, 1);
        // SAFETY: the protection domain lives.
        let raw = unsafe { (pd.context.ibv.create_srq)(pd.raw.as_ptr(), &raw mut attr) };
        let raw =
            NonNull::new(raw).ok_or_else(|| Error::last("ibv_create_srq", pd.context.name()))?;
        Ok(Arc::new(Self { raw, pd: pd.clone() }))
    }
}

impl Drop for Srq {
    fn drop(&mut self) {
        // SAFETY: QPs on it hold it, so none is left.
        unsafe { (self.pd.context.ibv.destroy_srq)(self.raw.as_ptr()) };
    }
}
