//! The completions of one QP: taken without waiting, and a descriptor to wait for the next one.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::local::always_readable;
use crate::verbs::{Context, Cq, Error, Wc};

/// A CQ as a queue sees it.
#[derive(Debug)]
pub(super) struct Arrivals {
    cq: Arc<Cq>,
    /// Whether the next completion makes an event.
    is_armed: Cell<bool>,
    /// Completions that were there when the CQ was armed; `ready` is polled while there are some.
    early: RefCell<Vec<Wc>>,
    ready: UnixStream,
}

impl Arrivals {
    /// Those of a QP with at most `depth` work requests outstanding.
    pub(super) fn new(context: &Arc<Context>, depth: u32) -> Result<Self, Error> {
        let cq = Cq::new(context, depth)?;
        let ready = always_readable().map_err(|error| Error::Call {
            call: "socketpair",
            on: context.name().to_owned(),
            errno: error.raw_os_error().unwrap_or(0),
        })?;
        let (is_armed, early) = (Cell::new(false), RefCell::new(Vec::with_capacity(4)));
        Ok(Arrivals { cq, is_armed, early, ready })
    }

    /// What the QP is to be made with.
    pub(super) fn cq(&self) -> &Arc<Cq> {
        &self.cq
    }

    /// Takes completions, as many as there are and fit.
    pub(super) fn take<'wcs>(&mut self, wcs: &'wcs mut [Wc]) -> Result<&'wcs [Wc], Error> {
        if self.is_armed.get() && self.cq.drain_events()? {
            self.is_armed.set(false);
        }
        let early = self.early.get_mut();
        if !early.is_empty() {
            let count = early.len().min(wcs.len());
            for (place, wc) in wcs.iter_mut().zip(early.drain(..count)) {
                *place = wc;
            }
            return Ok(&wcs[..count]);
        }
        self.cq.poll(wcs)
    }

    /// What becomes readable with the next completion.
    pub(super) fn poll_fd(&self) -> RawFd {
        let mut early = self.early.borrow_mut();
        if !self.is_armed.get() && early.is_empty() {
            self.is_armed.set(self.cq.arm().is_ok());
            // One that came before the CQ was armed makes no event; a CQ that fails is seen by `take`.
            let mut wcs = [Wc::empty(); 4];
            let came = self.cq.poll(&mut wcs);
            early.extend_from_slice(came.unwrap_or_default());
            if !self.is_armed.get() {
                return self.ready.as_raw_fd();
            }
        }
        match early.is_empty() {
            true => self.cq.fd(),
            false => self.ready.as_raw_fd(),
        }
    }
}
