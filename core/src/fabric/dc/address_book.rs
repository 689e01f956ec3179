//! Ways to peers. To make one enters the kernel, which on RoCE asks the network for a MAC address: a thread does
//! it, and nobody waits for it.

use std::collections::HashMap;
use std::io;
use std::net::Ipv6Addr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::RwLock;

use crate::verbs::Error;

/// Peers that are remembered; beyond it, those that nobody READs are forgotten.
const MAX_PLACES: usize = 1024;
/// Peers that are waited for; beyond it, one is asked for again by the next READ.
const MAX_ASKED: usize = 64;
/// From a failure to the next attempt: a peer that does not resolve takes the kernel a second each time.
const PAUSE: Duration = Duration::from_secs(2);

/// A peer's port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    pub(super) gid: [u8; 16],
    /// 0 on RoCE.
    pub(super) lid: u16,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lid {}", Ipv6Addr::from(self.gid), self.lid)
    }
}

/// See the module's comment. A clone of `W` leads where the original does.
#[derive(Debug)]
pub(super) struct AddressBook<W> {
    entries: RwLock<HashMap<Place, Entry<W>>>,
    ask: Sender<Place>,
}

#[derive(Debug)]
struct Entry<W> {
    way: Option<W>,
    /// It is being made, or made again.
    is_asked: bool,
    /// After a failure.
    not_before: Option<Instant>,
}

impl<W: Clone + Send + Sync + 'static> AddressBook<W> {
    /// An empty book whose thread makes ways by `make`, and ends with it.
    pub(super) fn new(
        make: impl Fn(Place) -> Result<W, Error> + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let (ask, asked) = crossbeam_channel::bounded(MAX_ASKED);
        let book = Arc::new(AddressBook { entries: RwLock::default(), ask });
        let own = Arc::downgrade(&book);
        let thread = std::thread::Builder::new().name("mitosis-address".to_owned());
        thread.spawn(move || make_all(&own, &asked, make))?;
        Ok(book)
    }

    /// The way to a peer; asks for it where it is not known.
    pub(super) fn find(&self, place: Place) -> Option<W> {
        let (way, is_settled) = match self.entries.read().get(&place) {
            Some(entry) => (entry.way.clone(), entry.way.is_some() || entry.is_asked),
            None => (None, false),
        };
        if !is_settled {
            self.request(place);
        }
        way
    }

    /// Makes a way anew; until then the old one is given. The peer may have been replaced by another machine.
    pub(super) fn renew(&self, place: Place) {
        self.request(place);
    }

    /// Peers to which the way is known.
    pub(super) fn known(&self) -> usize {
        self.entries.read().values().filter(|entry| entry.way.is_some()).count()
    }

    fn request(&self, place: Place) {
        let mut entries = self.entries.write();
        if entries.len() >= MAX_PLACES && !entries.contains_key(&place) {
            entries.retain(|_, entry| entry.is_asked);
        }
        let entry =
            entries.entry(place).or_insert(Entry { way: None, is_asked: false, not_before: None });
        let is_due = entry.not_before.is_none_or(|then| then <= Instant::now());
        if !entry.is_asked && is_due {
            entry.is_asked = self.ask.try_send(place).is_ok();
        }
    }

    fn settle(&self, place: Place, made: Result<W, Error>) {
        let mut entries = self.entries.write();
        let Some(entry) = entries.get_mut(&place) else { return };
        entry.is_asked = false;
        // Attempts are spaced out whatever came of the last one: READs ask for them.
        entry.not_before = Some(Instant::now() + PAUSE);
        let old = match made {
            Ok(way) => entry.way.replace(way),
            Err(error) => {
                tracing::warn!(peer = ?place, %error, "no way to an owner's card; its pages come over tcp");
                None
            }
        };
        // Given up outside of the lock: that is a system call.
        drop(entries);
        drop(old);
    }
}

fn make_all<W: Clone + Send + Sync + 'static>(
    book: &Weak<AddressBook<W>>,
    asked: &Receiver<Place>,
    make: impl Fn(Place) -> Result<W, Error>,
) {
    while let Ok(place) = asked.recv() {
        let made = make(place);
        let Some(book) = book.upgrade() else { return };
        book.settle(place, made);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const PLACE: Place = Place { gid: [7; 16], lid: 0 };

    fn until<T>(mut there: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = there() {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn nobody_waits_for_a_way_and_it_is_made_once() {
        let (go, gone) = crossbeam_channel::bounded::<()>(0);
        let made = Arc::new(AtomicU32::new(0));
        let count = made.clone();
        let book = AddressBook::new(move |_| {
            let _ = gone.recv();
            Ok(count.fetch_add(1, Ordering::SeqCst))
        })
        .unwrap();
        for _ in 0..1000 {
            assert_eq!(book.find(PLACE), None);
        }
        drop(go);
        assert_eq!(until(|| book.find(PLACE)), 0);
        assert_eq!((book.known(), made.load(Ordering::SeqCst)), (1, 1));
    }

    #[test]
    fn a_failure_is_not_repeated_by_each_read() {
        let tried = Arc::new(AtomicU32::new(0));
        let count = tried.clone();
        let book = AddressBook::<u8>::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Err(Error::Call {
                call: "ibv_create_ah",
                on: "a test".to_owned(),
                errno: libc::EHOSTUNREACH,
            })
        })
        .unwrap();
        book.find(PLACE);
        until(|| (tried.load(Ordering::SeqCst) == 1).then_some(()));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(50) {
            assert_eq!(book.find(PLACE), None);
        }
        assert_eq!(tried.load(Ordering::SeqCst), 1);
        assert_eq!(book.known(), 0);
    }

    #[test]
    fn the_old_way_is_given_until_the_new_one_is_there() {
        let made = AtomicU32::new(0);
        let book = AddressBook::new(move |_| Ok(made.fetch_add(1, Ordering::SeqCst))).unwrap();
        assert_eq!(until(|| book.find(PLACE)), 0);
        // Asked again at once, it is spaced out; then it is made anew.
        book.renew(PLACE);
        assert_eq!(book.find(PLACE), Some(0));
        book.entries.write().get_mut(&PLACE).unwrap().not_before = None;
        book.renew(PLACE);
        until(|| (book.find(PLACE) == Some(1)).then_some(()));
    }

    #[test]
    fn the_thread_ends_with_the_book() {
        let alive = Arc::new(());
        let watched = Arc::downgrade(&alive);
        let book = AddressBook::new(move |_| {
            let _ = &alive;
            Ok(1)
        });
        drop(book.unwrap());
        until(|| watched.upgrade().is_none().then_some(()));
    }
}
