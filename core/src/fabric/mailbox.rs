//! Where a queue receives what its pool sends.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::ReadError;
use super::pool::Pooled;

/// What the pool sends to a queue.
#[derive(Debug)]
pub(super) enum Delivery<C> {
    /// The connection that it waits for.
    Connection(Arc<str>, Pooled<C>),
    /// No connection will come.
    Failed(Arc<str>, ReadError),
}

/// Where a queue receives; its descriptor is readable while something is in it.
#[derive(Debug)]
pub(super) struct Mailbox<C> {
    inbox: Mutex<VecDeque<Delivery<C>>>,
    arrived: Condvar,
    rung: AtomicBool,
    bell: UnixStream,
    ear: UnixStream,
}

impl<C> Mailbox<C> {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        let (inbox, arrived) = (Mutex::default(), Condvar::new());
        Ok(Arc::new(Mailbox { inbox, arrived, rung: AtomicBool::new(false), bell, ear }))
    }

    /// Makes the descriptor readable.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // One byte fits always: the one before it was taken out before `rung` was cleared.
            let _ = (&self.bell).write(&[1]);
        }
    }

    /// Whether something may be in it; clears the descriptor.
    pub(super) fn hear(&self) -> bool {
        if !self.rung.load(Ordering::Relaxed) {
            return false;
        }
        // A ring between its flag and its byte: the flag stays, the byte is taken next time.
        if (&self.ear).read(&mut [0; 8]).is_ok_and(|got| got > 0) {
            self.rung.store(false, Ordering::SeqCst);
        }
        true
    }

    pub(super) fn take(&self) -> Option<Delivery<C>> {
        self.inbox.lock().pop_front()
    }

    /// Waits for a delivery until `deadline`.
    pub(super) fn wait(&self, deadline: Instant) -> Option<Delivery<C>> {
        let mut inbox = self.inbox.lock();
        while inbox.is_empty() {
            if self.arrived.wait_until(&mut inbox, deadline).timed_out() {
                break;
            }
        }
        inbox.pop_front()
    }

    pub(super) fn fd(&self) -> RawFd {
        self.ear.as_raw_fd()
    }

    /// Called under the pool's lock, so that behind `Pool::cancel` nothing more arrives; `announce`
    /// follows, without it.
    pub(super) fn put(&self, delivery: Delivery<C>) {
        self.inbox.lock().push_back(delivery);
    }

    pub(super) fn announce(&self) {
        self.arrived.notify_one();
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_readable_until_it_was_heard() {
        let mailbox = Mailbox::<()>::new().unwrap();
        let readable = |mailbox: &Mailbox<()>| crate::sys::poll::is_readable(mailbox.fd()).unwrap();
        assert!(!readable(&mailbox) && !mailbox.hear());
        for _ in 0..3 {
            mailbox.ring();
            mailbox.ring();
            assert!(readable(&mailbox) && mailbox.hear());
            assert!(!readable(&mailbox) && !mailbox.hear());
        }
    }
}
