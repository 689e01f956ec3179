//! Clocks.

use crate::descriptor::Clocks;

fn read(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec; the clocks asked for always exist.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// CLOCK_MONOTONIC of this time namespace, ns.
pub fn monotonic_ns() -> i64 {
    read(libc::CLOCK_MONOTONIC)
}

/// CLOCK_MONOTONIC and CLOCK_BOOTTIME of this time namespace.
pub fn now() -> Clocks {
    Clocks { monotonic_ns: monotonic_ns(), boottime_ns: read(libc::CLOCK_BOOTTIME) }
}

/// CLOCK_REALTIME, ns since the epoch.
pub fn realtime_ns() -> u64 {
    u64::try_from(read(libc::CLOCK_REALTIME)).unwrap_or(0)
}
