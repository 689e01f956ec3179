//! Address handles: the way to a peer, resolved once.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_mummy_sys as sys;

use super::change::Path;
use super::error::Error;
use super::memory::Pd;

/// A peer's port, as a DCI reaches it. Making one enters the kernel, on RoCE to find the MAC address:
/// it is kept per peer.
pub struct AddressHandle {
    pub(super) raw: NonNull<sys::ibv_ah>,
    pd: Arc<Pd>,
}

// SAFETY: libibverbs is thread-safe (see Context).
unsafe impl Send for AddressHandle {}
// SAFETY: as above.
unsafe impl Sync for AddressHandle {}

impl AddressHandle {
    /// To `path`'s peer.
    ///
    /// # Errors
    /// [`Error::Call`]: ETIMEDOUT or EHOSTUNREACH where the peer's GID does not resolve.
    pub fn new(pd: &Arc<Pd>, path: &Path) -> Result<Arc<Self>, Error> {
        let mut attr = path.raw();
        // SAFETY: the protection domain lives; `attr` is read during the call.
        let raw = unsafe { (pd.context.ibv.create_ah)(pd.raw.as_ptr(), &raw mut attr) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            let peer = path.gid.unwrap_or_default();
            Error::last("ibv_create_ah", format!("{}:{} to {peer}", pd.context.name(), path.port))
        })?;
        Ok(Arc::new(Self { raw, pd: pd.clone() }))
    }
}

impl fmt::Debug for AddressHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "AddressHandle on {}", self.pd.context.name())
    }
}

impl Drop for AddressHandle {
    fn drop(&mut self) {
        // SAFETY: this value's own; work requests have a copy of what it holds.
        unsafe { (self.pd.context.ibv.destroy_ah)(self.raw.as_ptr()) };
    }
}
