//! Memory that fabrics fill: one pool for all images of a host.
//!
//! The pool grows by slabs and never shrinks: its largest need comes back with the next burst. Where the host
//! has an RDMA card a slab is registered with it as it is made, once; its buffers come and go with images.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::verbs::{DmaBuffer, DmaPool, Error, Landing, Pd};

/// Bytes of a pool's buffer: the largest miss, and a piece of a stream.
pub const BUFFER_BYTES: usize = 128 << 10;
/// Bytes of a buffer that most misses fill: a FUSE READ with its readahead.
const USUAL_BYTES: usize = 16 << 10;
/// Buffers that a registered pool grows by: 4 MiB.
const SLAB_BUFFERS: usize = 32;
/// Bytes that a registered pool begins with, and grows by.
pub const REGISTERED_BYTES: usize = SLAB_BUFFERS * BUFFER_BYTES;

/// The pool.
#[derive(Debug, Default)]
pub struct Buffers {
    free: Mutex<Vec<Box<[u8]>>>,
    card: Option<Card>,
}

/// Where a host's card knows the buffers.
#[derive(Debug)]
struct Card {
    pd: Arc<Pd>,
    slabs: Mutex<Vec<Arc<DmaPool>>>,
}

impl Buffers {
    /// An empty pool, of buffers that no card knows.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// A pool whose buffers the card of `pd` can fill; a first slab is made now.
    ///
    /// # Errors
    /// It cannot be registered; the text says how much memory may be locked.
    pub fn registered(pd: Arc<Pd>) -> Result<Arc<Self>, Error> {
        let slabs = Mutex::new(vec![DmaPool::new(&pd, SLAB_BUFFERS, BUFFER_BYTES)?]);
        Ok(Arc::new(Buffers { free: Mutex::default(), card: Some(Card { pd, slabs }) }))
    }

    /// A buffer of [`BUFFER_BYTES`]; its bytes are what the last user left. Where the card takes no more
    /// memory, it is one that only other fabrics fill.
    pub fn take(self: &Arc<Self>) -> Buffer {
        if let Some(buffer) = self.card.as_ref().and_then(Card::take) {
            return buffer.into();
        }
        let bytes = self.free.lock().pop().unwrap_or_else(fresh);
        Buffer(Bytes::Own { bytes, pool: Arc::downgrade(self) })
    }
}

impl Card {
    fn take(&self) -> Option<DmaBuffer> {
        let mut slabs = self.slabs.lock();
        if let Some(buffer) = slabs.iter().find_map(DmaPool::take) {
            return Some(buffer);
        }
        match DmaPool::new(&self.pd, SLAB_BUFFERS, BUFFER_BYTES) {
            Ok(slab) => {
                let buffer = slab.take();
                slabs.push(slab);
                buffer
            }
            Err(error) => {
                tracing::warn!(%error, "pages of some images are read without the card");
                None
            }
        }
    }
}

/// First touch of memory is slow: done here for a miss of the usual size.
fn fresh() -> Box<[u8]> {
    let mut bytes = vec![0; BUFFER_BYTES].into_boxed_slice();
    bytes[..USUAL_BYTES].iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    bytes
}

/// Memory that a fabric fills; goes back to its pool when dropped.
#[derive(Debug)]
pub struct Buffer(Bytes);

#[derive(Debug)]
enum Bytes {
    Own {
        bytes: Box<[u8]>,
        pool: Weak<Buffers>,
    },
    Card(DmaBuffer),
    /// The card has it.
    Lent,
}

impl Buffer {
    /// A buffer outside of any pool, which no card knows.
    pub fn unregistered(bytes: Box<[u8]>) -> Self {
        Buffer(Bytes::Own { bytes, pool: Weak::new() })
    }

    /// What stands in the place of a buffer that the card has.
    pub(super) fn lent() -> Self {
        Buffer(Bytes::Lent)
    }

    /// Whether a card can fill it.
    pub(super) fn is_registered(&self) -> bool {
        matches!(self.0, Bytes::Card(_))
    }

    /// Gives it to the card; `None`, and nothing is changed, if no card knows it.
    pub(super) fn lend(&mut self) -> Option<Landing> {
        match std::mem::replace(&mut self.0, Bytes::Lent) {
            Bytes::Card(buffer) => Some(buffer.lend()),
            other => {
                self.0 = other;
                None
            }
        }
    }
}

impl From<DmaBuffer> for Buffer {
    fn from(buffer: DmaBuffer) -> Self {
        Buffer(Bytes::Card(buffer))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Own { bytes, .. } => bytes,
            Bytes::Card(buffer) => buffer,
            Bytes::Lent => &[],
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Bytes::Own { bytes, .. } => bytes,
            Bytes::Card(buffer) => buffer,
            Bytes::Lent => &mut [],
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Bytes::Own { bytes, pool } = &mut self.0
            && let Some(pool) = pool.upgrade()
        {
            pool.free.lock().push(std::mem::take(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back() {
        let pool = Buffers::new();
        let mut buffer = pool.take();
        assert_eq!(buffer.len(), BUFFER_BYTES);
        buffer[100] = 9;
        let second = pool.take();
        drop(buffer);
        assert_eq!((pool.take()[100], second[100]), (9, 0));
        drop(pool);
        assert_eq!(second.len(), BUFFER_BYTES);
    }

    #[test]
    fn a_buffer_that_no_card_knows_is_not_lent() {
        let mut buffer = Buffer::unregistered(Box::new([1, 2]));
        assert!(buffer.lend().is_none() && !buffer.is_registered());
        assert_eq!(buffer[..], [1, 2]);
    }
}
