//! What `mitosis prepare PID` and the preload library in that process say to each other.
//!
//! ```text
//! mitosis   listens at an abstract unix socket of the process's network namespace
//!           SIGNAL by sigqueue, its value: MAGIC and the nonce in the socket's name
//! process   connects > Heard        < Ask, or closed: it is not wanted any more
//!           closes, prepares, connects once more > Answer
//! ```
//!
//! Two connections, so that none is open while the process is copied. Each message is one frame.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::id::PrepareToken;
use crate::wire::local::Failure;

/// The signal, unless [`SIGNAL_VARIABLE`] names another: a real-time one that no runtime known to us uses.
pub const SIGNAL: i32 = 59;
/// Another signal, for programs that use [`SIGNAL`] themselves. Set when the program starts.
pub const SIGNAL_VARIABLE: &str = "MITOSIS_SIGNAL";

/// Those that may take its place: real-time signals, without the two that glibc keeps to itself.
pub const SIGNALS: RangeInclusive<i32> = 34..=64;

/// The signal that a value of [`SIGNAL_VARIABLE`] names. `None`: it is none of [`SIGNALS`], and [`SIGNAL`]
/// holds.
pub fn signal_named(text: &str) -> Option<i32> {
    text.parse().ok().filter(|signal| SIGNALS.contains(signal))
}

/// System calls that preparing takes and that a seccomp filter may kill for.
pub const SECCOMP_CALLS: &str = "clone, unshare, ptrace and rt_tgsigqueueinfo";
/// The upper half of the signal's value.
pub const MAGIC: u32 = u32::from_le_bytes(*b"MTSP");
/// Of these messages; the first field of each first message.
pub const VERSION: u32 = 2;

/// The name of the socket, in the abstract namespace.
pub fn socket_name(nonce: u32) -> String {
    format!("mitosis-prepare-{nonce:08x}")
}

/// From the process: the signal has arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// [`VERSION`] of the library.
    pub version: u32,
}

/// From `mitosis`: what is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Path of the agent's socket.
    pub agent: String,
    /// `PrepareOptions::shared_copy_limit`.
    pub shared_copy_limit: u64,
    /// `PrepareOptions::stop_threads`.
    pub stop_threads_ms: u64,
    /// `Refuse::bits`.
    pub refuse: u64,
}

/// From the process: how it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// There is a seed; the agent answers `Await` of this token.
    Prepared {
        /// Shared with the seed.
        token: PrepareToken,
        /// For how long the program's thread was taken, the talk included.
        taken_ns: u64,
    },
    /// There is none.
    Failed(Failure),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;
    use crate::wire::local::FailureKind;

    #[test]
    fn messages_survive_the_wire() {
        let agent = "/a b".to_owned();
        let ask = Ask { agent, shared_copy_limit: 1 << 40, stop_threads_ms: 7, refuse: 5 };
        let bytes = frame::encode(&ask).unwrap();
        assert_eq!(frame::decode::<Ask>(&bytes[4..]).unwrap(), ask);
        let failure = Failure { kind: FailureKind::Limit, message: "why".to_owned() };
        let token = PrepareToken::random();
        for answer in [Answer::Failed(failure), Answer::Prepared { token, taken_ns: 9 }] {
            let bytes = frame::encode(&answer).unwrap();
            assert_eq!(frame::decode::<Answer>(&bytes[4..]).unwrap(), answer);
        }
    }

    #[test]
    fn signals_are_real_time_ones() {
        assert_eq!(["34", "64"].map(signal_named), [Some(34), Some(64)]);
        assert_eq!(["33", "65", "0", "-34", "USR1", ""].map(signal_named), [None; 6]);
    }

    #[test]
    fn names_differ() {
        assert_eq!(socket_name(0xab), "mitosis-prepare-000000ab");
    }
}
