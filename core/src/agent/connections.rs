//! A thread for each connection that is accepted, up to a limit; both listeners are served so.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Connections of one listener at one time.
#[derive(Debug)]
pub(super) struct Connections {
    open: AtomicUsize,
    limit: usize,
    thread_name: &'static str,
}

/// One of them: given back however its thread ends.
struct Place(&'static Connections);

impl Connections {
    /// None yet; `thread_name` is what their threads are called.
    pub(super) const fn new(limit: usize, thread_name: &'static str) -> Self {
        Connections { open: AtomicUsize::new(0), limit, thread_name }
    }

    /// Gives each stream of `incoming` to `converse`, on a thread of its own. One above the limit, or one
    /// that no thread can be had for, is closed.
    pub(super) fn serve<S: Send + 'static>(
        &'static self,
        incoming: impl Iterator<Item = io::Result<S>>,
        converse: impl Fn(S) + Clone + Send + 'static,
    ) {
        for stream in incoming {
            let (Ok(stream), Some(place)) = (stream, self.take()) else { continue };
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
    use super::*;

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
