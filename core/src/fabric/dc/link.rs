//! One initiator's READs in flight.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::address_book::Place;
use super::card::{DcCard, Initiator, WayOf};
use super::connector::{DcConnection, DciMaker};
use super::streams::{self, Wounds};
use super::{HEALTHY, SUSPECT};
use crate::descriptor::Export;
use crate::fabric::landings::{Failure, Landings, check};
use crate::fabric::queue::{Broken, Link};
use crate::fabric::trust::Standing;
use crate::fabric::{Completion, Read, ReadError};
use crate::verbs::{DcKey, Dctn, Wc};

/// Completions that are taken at a time.
const WCS: usize = 16;

/// READs of one queue by one initiator, to any targets.
#[derive(Debug)]
pub(super) struct DcLink<C: DcCard> {
    landings: Landings<Target<WayOf<C>>>,
    /// READs that turned out not to be possible here; `receive` ends them.
    impossible: Vec<(Read, ReadError)>,
    /// Something has failed: nothing more is posted, and once all is silent the initiator is mended.
    wounds: Option<Wounds>,
}

/// Whom a READ goes to.
#[derive(Debug)]
pub(super) struct Target<W> {
    pub(super) way: W,
    pub(super) place: Place,
    pub(super) dctn: Dctn,
    pub(super) key: DcKey,
    /// Given with the batch.
    pub(super) stream: u16,
    /// It is to find out whether the target answers again.
    is_probe: bool,
}

/// What READs are sorted by: to change between them costs a disconnect and a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Goal {
    pub(super) place: Place,
    pub(super) dctn: Dctn,
}

impl<W> Target<W> {
    pub(super) fn goal(&self) -> Goal {
        Goal { place: self.place, dctn: self.dctn }
    }
}

impl<C: DcCard> Link for DcLink<C> {
    type Connector = DciMaker<C>;
    type Aim = Target<WayOf<C>>;
    /// `tcp` has the page meanwhile.
    const WAITS: bool = false;

    fn new() -> Self {
        DcLink { landings: Landings::default(), impossible: Vec::new(), wounds: None }
    }

    fn aim<'read>(
        maker: &DciMaker<C>,
        read: &'read Read,
    ) -> Result<(&'read str, Self::Aim), ReadError> {
        let (Export::Dc(export), Some(arena)) = (&read.export, &read.arena) else {
            return Err(ReadError::NotYet);
        };
        check(read)?;
        let place = Place::of(export);
        let dctn = Dctn::new(export.dctn).map_err(|error| ReadError::Local(error.to_string()))?;
        let way = maker.book().find(place).ok_or(ReadError::NotYet)?;
        let (lane, is_probe) = match arena.trust().standing(Instant::now()) {
            Standing::Healthy => (HEALTHY, false),
            Standing::Suspect => (SUSPECT, true),
            Standing::Resting => return Err(ReadError::NotYet),
        };
        let key = DcKey(u64::from_be_bytes(export.dc_key.0));
        Ok((lane, Target { way, place, dctn, key, stream: 0, is_probe }))
    }

    fn is_idle(&self) -> bool {
        self.landings.is_empty() && self.impossible.is_empty()
    }

    fn has_room(&self, read: &Read) -> bool {
        self.wounds.is_none()
            && (self.landings.is_empty() || self.landings.has_room(read.ranges.len()))
    }

    fn push(&mut self, read: Read, target: Self::Aim) {
        if let Err(refused) = self.landings.put(read, target) {
            self.impossible.push(refused);
        }
    }

    /// One doorbell for all that waits.
    fn flush(&mut self, connection: &mut DcConnection<C>) -> Result<(), Broken> {
        let Some(initiator) = connection.initiator.as_mut().filter(|_| self.landings.is_waiting())
        else {
            return Ok(());
        };
        self.landings.sort_waiting_by(Target::goal);
        streams::assign(&mut self.landings, connection.streams);
        match initiator.post(&mut self.landings) {
            Ok(count) => {
                connection.shared.counters.doorbells.rung_for(count);
                self.landings.posted(count);
                Ok(())
            }
            Err(error) => {
                self.landings.not_posted(&error);
                Err(Broken::Spent)
            }
        }
    }

    fn receive(
        &mut self,
        connection: &mut DcConnection<C>,
        done: &mut dyn FnMut(Completion),
    ) -> Result<(), Broken> {
        for (read, error) in self.impossible.drain(..) {
            done(Completion { tag: read.tag, buffer: read.buffer, result: Err(error) });
        }
        let DcConnection { initiator: Some(initiator), shared, .. } = connection else {
            return Err(Broken::Spent);
        };
        let mut wcs = [Wc::empty(); WCS];
        let wounds = &mut self.wounds;
        let mut told = |read: &Read, target: &Target<_>, failure: Option<&Failure>| {
            let Some(failure) = failure else {
                return read.arena.iter().for_each(|arena| arena.trust().answered());
            };
            let wounds = wounds.get_or_insert_default();
            match failure {
                Failure::Flushed => {
                    shared.counters.flushed.fetch_add(1, Ordering::Relaxed);
                }
                // The arena knows, and gives no further READ of this seed.
                Failure::Refused => wounds.add(target.stream),
                Failure::Silent(_) | Failure::Local(_) => {
                    wounds.add(target.stream);
                    let now = Instant::now();
                    read.arena.iter().for_each(|arena| arena.trust().failed(now, target.is_probe));
                    shared.book.renew(target.place);
                }
            }
        };
        loop {
            let got = initiator.take(&mut wcs).map_err(|_| Broken::Spent)?;
            got.iter().for_each(|wc| self.landings.completed(wc, &mut told, done));
            if got.len() < WCS {
                break;
            }
        }
        match self.wounds.is_some() && self.landings.is_silent() {
            true => Err(Broken::Spent),
            false => Ok(()),
        }
    }

    fn is_late(&self, now: Instant) -> bool {
        self.landings.is_late(now)
    }

    /// Other initiators are not touched by it.
    fn late() -> Broken {
        Broken::Spent
    }

    /// An initiator that is silent stays; one that is not is ended, for it may still write.
    fn abandon(&mut self, connection: &mut DcConnection<C>) -> Vec<Read> {
        connection.wounds = self.wounds.take().unwrap_or_default();
        let outstanding = connection.initiator.take_if(|_| !self.landings.is_silent());
        let gone = outstanding.and_then(Initiator::destroy);
        let mut reads = self.landings.take_all(gone.as_ref());
        reads.extend(self.impossible.drain(..).map(|(read, _)| read));
        let now = Instant::now();
        let arenas =
            reads.iter().filter(|read| read.deadline <= now).filter_map(|r| r.arena.as_ref());
        arenas.for_each(|arena| arena.trust().failed(now, false));
        reads
    }

    fn poll_fd(&self, connection: &DcConnection<C>) -> RawFd {
        connection.initiator.as_ref().map_or(-1, Initiator::poll_fd)
    }
}
