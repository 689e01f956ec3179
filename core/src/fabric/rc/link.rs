//! One RC connection's READs in flight.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::connector::{RcConnection, RcConnector};
use crate::descriptor::Export;
use crate::fabric::landings::{Failure, Landings, check};
use crate::fabric::queue::{Broken, Link};
use crate::fabric::{Completion, Read, ReadError};
use crate::verbs::Wc;

/// Completions that are taken at a time.
const WCS: usize = 16;
/// A connection on which a READ has ended so lately is not asked whether its peer has ended it: that is a system
/// call, and a READ that fails tells the same.
const LATELY: Duration = Duration::from_millis(50);

/// READs of one queue to one peer.
#[derive(Debug, Default)]
pub(super) struct RcLink {
    landings: Landings<()>,
    /// READs that turned out not to be possible here; `receive` ends them.
    impossible: Vec<(Read, ReadError)>,
    /// When completions were taken last.
    last_end: Option<Instant>,
}

impl Link for RcLink {
    type Connector = RcConnector;
    type Aim = ();
    /// `tcp` has the page meanwhile.
    const WAITS: bool = false;

    fn new() -> Self {
        RcLink::default()
    }

    fn aim<'read>(_: &RcConnector, read: &'read Read) -> Result<(&'read str, ()), ReadError> {
        let Export::Rc(endpoint) = &read.export else { return Err(ReadError::NotYet) };
        check(read)?;
        Ok((endpoint.name(), ()))
    }

    fn is_idle(&self) -> bool {
        self.landings.is_empty() && self.impossible.is_empty()
    }

    fn has_room(&self, read: &Read) -> bool {
        self.landings.is_empty() || self.landings.has_room(read.ranges.len())
    }

    fn push(&mut self, read: Read, (): ()) {
        if let Err(refused) = self.landings.put(read, ()) {
            self.impossible.push(refused);
        }
    }

    /// One doorbell for all that waits.
    fn flush(&mut self, connection: &mut RcConnection) -> Result<(), Broken> {
        let is_quiet = || self.last_end.is_none_or(|end| end.elapsed() > LATELY);
        let begins = self.landings.is_waiting() && self.landings.is_silent();
        if begins && is_quiet() && connection.has_ended() {
            return Err(Broken::Lost("the peer has ended it".to_owned()));
        }
        let Some(qp) = connection.qp.as_mut().filter(|_| self.landings.is_waiting()) else {
            return Ok(());
        };
        let landings = &mut self.landings;
        let posted = qp.post(|batch| {
            landings.add_all(|id, from, (), landing, range| batch.read(id, from, landing, range))
        });
        match posted {
            Ok(count) => {
                connection.doorbells.rung_for(count);
                self.landings.posted(count);
                Ok(())
            }
            Err(error) => {
                self.landings.not_posted(&error);
                Err(Broken::Lost(error.to_string()))
            }
        }
    }

    fn receive(
        &mut self,
        connection: &mut RcConnection,
        done: &mut dyn FnMut(Completion),
    ) -> Result<(), Broken> {
        for (read, error) in self.impossible.drain(..) {
            done(Completion { tag: read.tag, buffer: read.buffer, result: Err(error) });
        }
        let mut broken = None;
        let mut wcs = [Wc::empty(); WCS];
        loop {
            let got = connection.arrivals.take(&mut wcs);
            let got = got.map_err(|error| Broken::Lost(error.to_string()))?;
            for wc in got {
                // What follows the first failure on a connection is flushed: it tells nothing.
                let mut told = |_: &Read, (): &(), failure: Option<&Failure>| {
                    broken = broken.take().or_else(|| failure.cloned());
                };
                self.landings.completed(wc, &mut told, done);
            }
            if !got.is_empty() {
                self.last_end = Some(Instant::now());
            }
            if got.len() < WCS {
                break;
            }
        }
        match broken {
            None => Ok(()),
            Some(Failure::Refused) => Err(Broken::Refused),
            Some(Failure::Silent(why) | Failure::Local(why)) => Err(Broken::Lost(why)),
            Some(Failure::Flushed) => Err(Broken::Lost("the peer has ended it".to_owned())),
        }
    }

    fn is_late(&self, now: Instant) -> bool {
        self.landings.is_late(now)
    }

    fn abandon(&mut self, connection: &mut RcConnection) -> Vec<Read> {
        self.last_end = None;
        let gone = connection.qp.take().and_then(|qp| qp.destroy().ok());
        let mut reads = self.landings.take_all(gone.as_ref());
        reads.extend(self.impossible.drain(..).map(|(read, _)| read));
        reads
    }

    fn poll_fd(&self, connection: &RcConnection) -> RawFd {
        connection.arrivals.poll_fd()
    }
}
