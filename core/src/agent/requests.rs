//! Resumes that were asked for lately: each is carried out at most once.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;

use super::failure::fail;
use crate::wire::local::{Failure, FailureKind};

/// Requests that are remembered: at a thousand a second, those of the last four seconds; whoever asks
/// again does so at once.
const MAX_REMEMBERED: usize = 4096;

/// The ids of requests that are carried out, or were.
#[derive(Debug, Default)]
pub struct Requests {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    ids: HashSet<u64>,
    /// The oldest first.
    order: VecDeque<u64>,
}

/// A request that is being carried out; forgotten if it is dropped before it is [`done`](Once::done).
#[derive(Debug)]
pub struct Once<'a> {
    requests: &'a Requests,
    id: u64,
}

impl Requests {
    /// The right to carry out a request.
    ///
    /// # Errors
    /// It was given before.
    pub fn once(&self, id: u64) -> Result<Once<'_>, Failure> {
        let mut known = self.known.lock();
        if !known.ids.insert(id) {
            let text = format!(
                "this resume was asked for before (request {id:016x}) and is carried out once: its children run, or \
                 have ended"
            );
            return Err(fail(FailureKind::Argument, text));
        }
        known.order.push_back(id);
        if known.order.len() > MAX_REMEMBERED
            && let Some(oldest) = known.order.pop_front()
        {
            known.ids.remove(&oldest);
        }
        Ok(Once { requests: self, id })
    }
}

impl Once<'_> {
    /// It was carried out: it stays known.
    pub fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for Once<'_> {
    fn drop(&mut self) {
        let mut known = self.requests.known.lock();
        if known.ids.remove(&self.id) {
            known.order.retain(|id| *id != self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_carried_out_once_and_one_that_failed_again() {
        let requests = Requests::default();
        let failed = requests.once(1).unwrap();
        assert_eq!(requests.once(1).unwrap_err().kind, FailureKind::Argument);
        drop(failed);
        requests.once(1).unwrap().done();
        assert!(requests.once(1).is_err());
    }

    #[test]
    fn the_oldest_give_way() {
        let requests = Requests::default();
        for id in 0..=MAX_REMEMBERED as u64 {
            requests.once(id).unwrap().done();
        }
        assert_eq!(requests.known.lock().order.len(), MAX_REMEMBERED);
        assert!(requests.once(1).is_err());
        assert!(requests.once(0).is_ok());
    }
}
