//! How much one reader may take of a page service, whatever all others leave.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::service::MAX_STREAMS;

/// Bounds of one address; agents behind it are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// READ streams at a time, [`MAX_STREAMS`] at most.
    pub streams: usize,
    /// Bytes of pages in a second; `None`: as fast as it takes them.
    pub bytes_per_s: Option<u64>,
}

impl Default for PeerLimits {
    fn default() -> Self {
        PeerLimits { streams: MAX_STREAMS, bytes_per_s: None }
    }
}

/// What a peer may take at once after it has taken nothing for a while, in time at its rate: misses come in bunches, and
/// a single one should not wait.
const BURST: Duration = Duration::from_millis(100);
/// Peers whose rates are remembered; beyond it, those that have taken nothing lately are forgotten.
const MAX_PACED: usize = 1024;

/// When each peer may have more.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<IpAddr, Instant>>);

impl Pace {
    /// Counts `bytes` for `peer`, and tells how long it has to wait for them.
    pub(super) fn take(
        &self,
        peer: IpAddr,
        bytes: u64,
        bytes_per_s: u64,
        now: Instant,
    ) -> Duration {
        let mut peers = self.0.lock();
        if peers.len() >= MAX_PACED && !peers.contains_key(&peer) {
            peers.retain(|_, paid| *paid > now);
        }
        let cost = bytes.saturating_mul(1_000_000_000) / bytes_per_s.max(1);
        // Paid up to here: never earlier than a burst ago.
        let paid = peers.entry(peer).or_insert(now);
        *paid = (*paid).max(now.checked_sub(BURST).unwrap_or(now)) + Duration::from_nanos(cost);
        paid.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn each_peer_has_its_rate_and_a_burst_after_a_rest() {
        let pace = Pace::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let now = Instant::now() + Duration::from_secs(1);
        let take = |peer, now| pace.take(peer, MIB, 8 * MIB, now);
        let ms = Duration::from_millis;
        assert_eq!(take(one, now), ms(125), "the first is counted from now on");
        assert_eq!(take(one, now), ms(250));
        assert_eq!(take(other, now), ms(125), "another one's is its own");
        assert_eq!(take(one, now + ms(250)), ms(125));
        let rested = now + Duration::from_secs(9);
        assert_eq!(
            take(one, rested),
            ms(25),
            "what was not taken meanwhile is there up to a burst"
        );
        assert_eq!(take(one, rested), ms(150));
    }

    #[test]
    fn who_takes_nothing_is_forgotten() {
        let pace = Pace::default();
        let now = Instant::now();
        for peer in 0..2 * u32::try_from(MAX_PACED).unwrap() {
            let later = now + Duration::from_secs(peer.into());
            pace.take(IpAddr::from(peer.to_be_bytes()), MIB, 8 * MIB, later);
        }
        assert!(pace.0.lock().len() <= MAX_PACED);
    }
}
