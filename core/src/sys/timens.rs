//! Time namespaces: time_namespaces(7).
//!
//! clone3(2) cannot set the offsets of the namespace that it makes, so the namespace for *children* is
//! made first, given its offsets, and entered by forking. The offsets are absolute (from the boot clock of
//! the machine), and a new namespace begins with those of the one that children had so far: a change is
//! added to what stands there.

use std::os::fd::AsRawFd;
use std::{fs, io};

use crate::descriptor::Clocks;

const OFFSETS: &str = "/proc/self/timens_offsets";
const OWN: &str = "/proc/self/ns/time";
const NS_PER_S: i128 = 1_000_000_000;
const MONOTONIC: &str = "monotonic";
const BOOTTIME: &str = "boottime";

/// Children forked from now on see CLOCK_MONOTONIC and CLOCK_BOOTTIME so far ahead of this process.
///
/// # Errors
/// unshare(2)'s and setns(2)'s: EPERM without CAP_SYS_ADMIN; ERANGE when a clock would run below zero.
pub fn set_for_children(offset: Clocks) -> io::Result<()> {
    let own = fs::File::open(OWN)?;
    // Back to our own namespace for children first: a new one begins with the offsets of the last one.
    // SAFETY: no memory is passed; this process is single-threaded or the call fails.
    if unsafe { libc::setns(own.as_raw_fd(), libc::CLONE_NEWTIME) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if offset == Clocks::default() {
        return Ok(());
    }
    // SAFETY: no memory is passed; this process itself stays in its namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWTIME) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let text = shifted(&fs::read_to_string(OFFSETS)?, offset)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, OFFSETS))?;
    fs::write(OFFSETS, text)
}

/// How far another process's clocks are ahead of this one's; 0 if that is not known.
pub fn ahead(pid: u32) -> Clocks {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (other, own) = (read(&format!("/proc/{pid}/timens_offsets")), read(OFFSETS));
    let ahead = |clock: &str| {
        let ahead = offset_of(&other, clock)? - offset_of(&own, clock)?;
        i64::try_from(ahead).ok()
    };
    Clocks {
        monotonic_ns: ahead(MONOTONIC).unwrap_or(0),
        boottime_ns: ahead(BOOTTIME).unwrap_or(0),
    }
}

/// The offset of a clock in such lines, ns.
fn offset_of(lines: &str, clock: &str) -> Option<i128> {
    let mut words = lines.lines().find_map(|line| line.strip_prefix(clock))?.split_whitespace();
    let seconds: i128 = words.next()?.parse().ok()?;
    Some(seconds * NS_PER_S + words.next()?.parse::<i128>().ok()?)
}

/// Lines `clock seconds nanoseconds`, each moved by the offset of its clock.
fn shifted(lines: &str, offset: Clocks) -> Option<String> {
    let mut text = String::new();
    for line in lines.lines() {
        let mut words = line.split_whitespace();
        let clock = words.next()?;
        let seconds: i128 = words.next()?.parse().ok()?;
        let nanoseconds: i128 = words.next()?.parse().ok()?;
        let offset_ns = if clock == BOOTTIME { offset.boottime_ns } else { offset.monotonic_ns };
        let sum = seconds * NS_PER_S + nanoseconds + i128::from(offset_ns);
        let (seconds, nanoseconds) = (sum.div_euclid(NS_PER_S), sum.rem_euclid(NS_PER_S));
        text += &format!("{clock} {seconds} {nanoseconds}\n");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ahead_of_itself_by_nothing() {
        assert_eq!(ahead(std::process::id()), Clocks::default());
        let lines = "monotonic  -3  500000000\nboottime 0 7\n";
        assert_eq!(offset_of(lines, MONOTONIC), Some(-2_500_000_000));
        assert_eq!(offset_of(lines, BOOTTIME), Some(7));
        assert_eq!(offset_of("boottime 0 0\n", MONOTONIC), None);
    }

    #[test]
    fn offsets_add_to_those_of_the_namespace_that_we_are_in() {
        let lines = "monotonic           3         500000000\nboottime  -2 0\n";
        let by = |monotonic_ns, boottime_ns| Clocks { monotonic_ns, boottime_ns };
        assert_eq!(
            shifted(lines, by(700_000_000, 1)).unwrap(),
            "monotonic 4 200000000\nboottime -2 1\n"
        );
        assert_eq!(
            shifted(lines, by(-4_000_000_000, -4_000_000_000)).unwrap(),
            "monotonic -1 500000000\nboottime -6 0\n"
        );
        assert_eq!(shifted("monotonic x 0", by(1, 1)), None);
    }
}
