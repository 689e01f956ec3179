//! Initiators for the pool: made, and made good again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::address_book::AddressBook;
use super::card::{DcCard, Initiator, WayOf};
use super::streams::Wounds;
use crate::fabric::ReadError;
use crate::fabric::doorbells::Doorbells;
use crate::fabric::pool::Connector;

/// Makes initiators, and knows the ways to peers.
#[derive(Debug)]
pub(super) struct DciMaker<C: DcCard> {
    card: Arc<C>,
    shared: Arc<Shared<WayOf<C>>>,
}

/// What all initiators of a fabric know.
#[derive(Debug)]
pub(super) struct Shared<W> {
    pub(super) book: Arc<AddressBook<W>>,
    pub(super) counters: DcCounters,
}

/// What has happened.
#[derive(Debug, Default)]
pub(super) struct DcCounters {
    pub(super) mended: AtomicU64,
    pub(super) flushed: AtomicU64,
    pub(super) doorbells: Doorbells,
}

/// An initiator, as a queue has it.
#[derive(Debug)]
pub(super) struct DcConnection<C: DcCard> {
    /// `None`: it was ended while READs were outstanding.
    pub(super) initiator: Option<C::Initiator>,
    pub(super) streams: u16,
    /// What its last user has seen fail.
    pub(super) wounds: Wounds,
    pub(super) shared: Arc<Shared<WayOf<C>>>,
}

impl<C: DcCard> DciMaker<C> {
    /// # Errors
    /// No thread can be started.
    pub(super) fn new(card: C) -> io::Result<Self> {
        let card = Arc::new(card);
        let own = card.clone();
        let book = AddressBook::new(move |place| own.way(place))?;
        let shared = Arc::new(Shared { book, counters: DcCounters::default() });
        Ok(DciMaker { card, shared })
    }

    pub(super) fn counters(&self) -> &DcCounters {
        &self.shared.counters
    }

    pub(super) fn book(&self) -> &AddressBook<WayOf<C>> {
        &self.shared.book
    }
}

impl<C: DcCard> Connector for DciMaker<C> {
    type Connection = DcConnection<C>;

    const IS_SPARED: bool = true;

    /// `lane`: which lane it is for makes no difference.
    fn connect(&self, _lane: &str) -> Result<DcConnection<C>, ReadError> {
        // Not `Unreachable`: that the device refuses is not worth trying on while others are to be mended.
        let initiator =
            self.card.initiator().map_err(|error| ReadError::Local(error.to_string()))?;
        Ok(DcConnection {
            initiator: Some(initiator),
            streams: self.card.streams(),
            wounds: Wounds::default(),
            shared: self.shared.clone(),
        })
    }

    fn mend(&self, mut spent: DcConnection<C>) -> Result<DcConnection<C>, ReadError> {
        let mended = spent.initiator.as_mut().map(|initiator| initiator.mend(spent.wounds));
        if !matches!(mended, Some(Ok(()))) {
            if let Some(Err(error)) = mended {
                tracing::warn!(%error, "a DCI is replaced by another");
            }
            // The old one goes first: there may be no room for two.
            drop(spent.initiator.take());
            spent = self.connect("")?;
        }
        spent.wounds = Wounds::default();
        self.shared.counters.mended.fetch_add(1, Ordering::Relaxed);
        Ok(spent)
    }
}
