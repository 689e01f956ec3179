//! What makes initiators and ways to peers: a card's port.

use std::os::fd::RawFd;
use std::sync::Arc;

use super::address_book::Place;
use super::link::Target;
use super::streams::{MAX_LOG_STREAMS, Wounds};
use crate::fabric::arrivals::Arrivals;
use crate::fabric::landings::{DEPTH, Landings};
use crate::verbs::{
    AddressHandle, DcTarget, Dci, Destroyed, Error, Gid, Mtu, Path, Patience, Pd, PostError,
    QpState, Streams, Wc,
};

/// What makes initiators and ways to peers: a card's port, or what stands in for one.
pub(super) trait DcCard: Send + Sync + std::fmt::Debug + 'static {
    /// What READs are posted on.
    type Initiator: Initiator;

    /// An initiator, ready for READs.
    fn initiator(&self) -> Result<Self::Initiator, Error>;

    /// The way to a peer; enters the kernel, and may wait for the network.
    fn way(&self, to: Place) -> Result<WayOf<Self>, Error>;

    /// Streams that an initiator has and that fail alone; 0: a failure stops all of it.
    fn streams(&self) -> u16;
}

/// How an initiator finds a peer.
pub(super) type WayOf<C> = <<C as DcCard>::Initiator as Initiator>::Way;

/// A DCI with its completions.
pub(super) trait Initiator: Send + std::fmt::Debug + 'static {
    /// How it finds a peer.
    type Way: Clone + Send + Sync + std::fmt::Debug + 'static;

    /// Posts all that wait, with one doorbell; their number.
    fn post(&mut self, landings: &mut Landings<Target<Self::Way>>) -> Result<usize, PostError>;

    /// Takes completions, as many as there are and fit.
    fn take<'wcs>(&mut self, wcs: &'wcs mut [Wc]) -> Result<&'wcs [Wc], Error>;

    /// What becomes readable with the next completion.
    fn poll_fd(&self) -> RawFd;

    /// Takes it back into use after a failure; nothing is outstanding on it.
    fn mend(&mut self, wounds: Wounds) -> Result<(), Error>;

    /// Ends it: nothing that was posted lands any more. `None`: it cannot be ended.
    fn destroy(self) -> Option<Destroyed>;
}

/// What a host's initiators are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DcSettings {
    /// The port and the GID from which READs go out.
    pub path: Path,
    /// The port's path MTU.
    pub mtu: Mtu,
    /// READs that one initiator has on the wire at a time (max_rd_atomic).
    pub outstanding: u8,
    /// When a silent target is given up.
    pub patience: Patience,
    /// Streams that fail alone, where the card has them.
    pub streams: Option<Streams>,
}

impl DcSettings {
    /// The streams to ask a card for that has 2^`log_streams` of them, of which 2^`log_failed` may fail alone.
    /// Without isolation they are of no use here.
    pub fn streams_of(log_streams: u8, log_failed: u8) -> Option<Streams> {
        let log_count = log_streams.min(MAX_LOG_STREAMS);
        let streams = Streams { log_count, log_failed: log_failed.min(log_count) };
        (streams.log_failed > 0).then_some(streams)
    }
}

/// A card's port.
#[derive(Debug)]
pub(super) struct Port {
    pd: Arc<Pd>,
    settings: DcSettings,
}

impl Port {
    pub(super) fn new(pd: Arc<Pd>, settings: DcSettings) -> Self {
        Port { pd, settings }
    }
}

impl DcCard for Port {
    type Initiator = CardInitiator;

    fn initiator(&self) -> Result<CardInitiator, Error> {
        let arrivals = Arrivals::new(self.pd.context(), DEPTH)?;
        let dci = Dci::new(&self.pd, arrivals.cq(), DEPTH, self.settings.streams)?;
        let mut initiator = CardInitiator { dci, arrivals, settings: self.settings };
        initiator.make_ready()?;
        Ok(initiator)
    }

    fn way(&self, to: Place) -> Result<Arc<AddressHandle>, Error> {
        AddressHandle::new(&self.pd, &self.settings.path.to(Gid(to.gid), to.lid))
    }

    fn streams(&self) -> u16 {
        self.settings.streams.map_or(0, |streams| 1 << streams.log_count)
    }
}

/// A DCI and its CQ.
#[derive(Debug)]
pub(super) struct CardInitiator {
    // The DCI goes before its CQ.
    dci: Dci,
    arrivals: Arrivals,
    settings: DcSettings,
}

impl CardInitiator {
    fn make_ready(&mut self) -> Result<(), Error> {
        let DcSettings { path, mtu, outstanding, patience, .. } = self.settings;
        self.dci.make_ready(&path, mtu, outstanding, patience)
    }
}

impl Initiator for CardInitiator {
    type Way = Arc<AddressHandle>;

    fn post(&mut self, landings: &mut Landings<Target<Self::Way>>) -> Result<usize, PostError> {
        self.dci.post(|batch| {
            landings.add_all(|id, from, target, landing, range| {
                let Target { way, dctn, key, stream, .. } = target;
                let to = DcTarget { handle: way, dctn: *dctn, key: *key, stream: *stream };
                batch.read(id, &to, from, landing, range)
            })
        })
    }

    fn take<'wcs>(&mut self, wcs: &'wcs mut [Wc]) -> Result<&'wcs [Wc], Error> {
        self.arrivals.take(wcs)
    }

    fn poll_fd(&self) -> RawFd {
        self.arrivals.poll_fd()
    }

    /// Where streams failed alone the DCI is still in RTS, and they are taken back into use; else it is drained
    /// by now, and goes through RESET.
    fn mend(&mut self, wounds: Wounds) -> Result<(), Error> {
        if self.settings.streams.is_some() && self.dci.query_state()? == QpState::Rts {
            return wounds.streams().try_for_each(|stream| self.dci.reset_stream(stream));
        }
        self.dci.reset()?;
        self.make_ready()
    }

    fn destroy(self) -> Option<Destroyed> {
        self.dci.destroy().ok()
    }
}
