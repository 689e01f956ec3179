//! How long a requester waits before it gives its peer up: the transport's timer and its retries.
//!
//! A READ that gets no answer is sent again `retry_cnt` times, each after the *timeout*
//! 4.096 us x 2^t; then its completion has status 12 (RETRY_EXC_ERR). So a dead peer is noticed after
//! about
//!
//! ```text
//!   (retry_cnt + 1) x 4.096 us x 2^t         t = 12, retry_cnt = 3: 67 ms
//!                                            t = 14, retry_cnt = 6: 0.47 s
//! ```
//! The InfiniBand specification (9.7.6.1.3) lets a card wait up to four times as long, and cards have a
//! floor of their own.

use std::time::Duration;

use super::error::Error;

/// The unit of the transport's timer.
const TIMER_UNIT: Duration = Duration::from_nanos(4096);

/// How often a READ is sent again. Never 7: the specification has no infinity there, but Soft-RoCE
/// takes it for one, and a READ of a dead peer would never end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetryCount(u8);

impl RetryCount {
    /// The most that it holds.
    pub const MAX: Self = Self(6);

    /// # Errors
    /// [`Error::TooLarge`] above 6.
    pub fn new(count: u8) -> Result<Self, Error> {
        if count > Self::MAX.0 {
            let (value, limit) = (u64::from(count), u64::from(Self::MAX.0));
            return Err(Error::TooLarge { what: "retry_cnt", value, limit });
        }
        Ok(Self(count))
    }

    /// The number.
    pub fn count(self) -> u8 {
        self.0
    }
}

/// The transport's timer: 4.096 us x 2^t. Never 0, which would be no timeout at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AckTimeout(u8);

impl AckTimeout {
    /// The longest: 4.096 us x 2^31, 2.4 hours. The field has five bits.
    pub const MAX: Self = Self(31);

    /// # Errors
    /// [`Error::TooLarge`] above 31; 0 is taken as 1.
    pub fn new(exponent: u8) -> Result<Self, Error> {
        if exponent > Self::MAX.0 {
            let (value, limit) = (u64::from(exponent), u64::from(Self::MAX.0));
            return Err(Error::TooLarge { what: "timeout", value, limit });
        }
        Ok(Self(exponent.max(1)))
    }

    /// The exponent t.
    pub fn exponent(self) -> u8 {
        self.0
    }

    /// 4.096 us x 2^t.
    pub fn duration(self) -> Duration {
        TIMER_UNIT * (1u32 << self.0)
    }
}

/// A timer and its retries: when a silent peer is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// One wait.
    pub timeout: AckTimeout,
    /// How often it is tried again.
    pub retries: RetryCount,
}

impl Default for Patience {
    fn default() -> Self {
        Self::PAGER
    }
}

impl Patience {
    /// t = 12 and three retries: 67 ms. A pager has a fallback to ask after it.
    pub const PAGER: Self = Self { timeout: AckTimeout(12), retries: RetryCount(3) };

    /// When a READ of a dead peer ends with status 12: (retry_cnt + 1) x 4.096 us x 2^t, at the
    /// earliest.
    pub fn time_to_notice(self) -> Duration {
        self.timeout.duration() * u32::from(self.retries.0 + 1)
    }

    /// With three retries, the shortest timer that gives a peer at least `wanted`; the longest there is
    /// if none does.
    pub fn of_at_least(wanted: Duration) -> Self {
        let retries = Self::PAGER.retries;
        let timeout = (1..=AckTimeout::MAX.0)
            .map(AckTimeout)
            .find(|timeout| Self { timeout: *timeout, retries }.time_to_notice() >= wanted)
            .unwrap_or(AckTimeout::MAX);
        Self { timeout, retries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_cannot_be_held() {
        assert!(RetryCount::new(6).is_ok());
        let error = RetryCount::new(7).unwrap_err();
        assert_eq!(error.to_string(), "retry_cnt is 7, above 6");
    }

    #[test]
    fn the_timer_is_never_infinite() {
        assert_eq!(AckTimeout::new(0).unwrap(), AckTimeout::new(1).unwrap());
        assert!(AckTimeout::new(31).is_ok() && AckTimeout::new(32).is_err());
    }

    #[test]
    fn the_arithmetic_is_that_of_the_table_above() {
        assert_eq!(Patience::PAGER.time_to_notice(), Duration::from_nanos(4 * 4096 * 4096));
        let slow = Patience { timeout: AckTimeout::new(14).unwrap(), retries: RetryCount::MAX };
        assert_eq!(slow.time_to_notice(), Duration::from_nanos(7 * 4096 * 16384));
    }

    #[test]
    fn a_wish_is_met_from_above_by_the_shortest_timer() {
        for ms in [1, 60, 68, 500, 5000] {
            let wanted = Duration::from_millis(ms);
            let got = Patience::of_at_least(wanted);
            assert!(got.time_to_notice() >= wanted);
            let shorter = Patience { timeout: AckTimeout(got.timeout.0 - 1), ..got };
            assert!(shorter.time_to_notice() < wanted, "{ms} ms");
        }
        assert_eq!(Patience::of_at_least(Duration::MAX).timeout, AckTimeout::MAX);
    }
}
