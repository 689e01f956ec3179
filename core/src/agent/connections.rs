//! A thread for each connection that is accepted, up to a limit; all listeners are served so.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// After a connection that could not be accepted: without, a process that is out of descriptors would ask without end.
const PAUSE: Duration = Duration::from_millis(10);

/// Connections of one listener at one time.
#[derive(Debug)]
pub struct Connections {
    open: AtomicUsize,
    limit: usize,
    thread_name: &'static str,
}

/// One of them: given back however its thread ends.
struct Place(&'static Connections);

impl Connections {
    /// None yet; `thread_name` is what their threads are called.
    pub const fn new(limit: usize, thread_name: &'static str) -> Self {
        Connections { open: AtomicUsize::new(0), limit, thread_name }
    }

    /// Gives each stream of `incoming` to `converse`, on a thread of its own. One above the limit, or one
    /// that no thread can be had for, is closed.
    pub fn serve<S: Send + 'static>(
        &'static self,
        incoming: impl Iterator<Item = io::Result<S>>,
        converse: impl Fn(S) + Clone + Send + 'static,
    ) {
        for stream in incoming {
            let Ok(stream) = stream else {
                std::thread::sleep(PAUSE);
                continue;
            };
            let Some(place) = self.take() else { continue };
            let converse = converse.clone();
            let thread = std::thread::Builder::new().name(self.thread_name.to_owned());
            let spawned = thread.spawn(move || {
                let _place = place;
                converse(stream);
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, name = self.thread_name, "no thread for a connection");
            }
        }
    }

    fn take(&'static self) -> Option<Place> {
        // Made before the look: an excess one gives itself back by its drop.
        let place = Place(self);
        (self.open.fetch_add(1, Ordering::Relaxed) < self.limit).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_cannot_be_accepted_is_not_asked_for_without_end() {
        static NONE: Connections = Connections::new(1, "test");
        let begun = Instant::now();
        let refused = || Err(io::Error::from_raw_os_error(libc::EMFILE));
        NONE.serve((0..5).map(|_| refused()), |(): ()| unreachable!("nothing was accepted"));
        assert!(begun.elapsed() >= 5 * PAUSE);
    }

    #[test]
    fn the_limit_holds_and_a_panic_gives_its_place_back() {
        static TWO: Connections = Connections::new(2, "test");
        let (first, second) = (TWO.take(), TWO.take());
        assert!(first.is_some() && second.is_some() && TWO.take().is_none());
        drop(first);
        assert!(TWO.take().is_some());
        let place = second;
        let panicked = std::thread::spawn(move || {
            let _place = place;
            panic!("a connection's thread");
        });
        assert!(panicked.join().is_err());
        assert_eq!(TWO.open.load(Ordering::Relaxed), 0);
    }
}
