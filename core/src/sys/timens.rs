//! Time namespaces: time_namespaces(7).
//!
//! clone3(2) cannot set the offsets of the namespace that it makes, so the namespace for *children* is
//! made first, given its offsets, and entered by forking. The offsets are absolute (from the boot clock of
//! the machine), and a new namespace begins with those of the one that children had so far: a change is
//! added to what stands there.

use std::os::fd::AsRawFd;
use std::{fs, io};

const OFFSETS: &str = "/proc/self/timens_offsets";
const OWN: &str = "/proc/self/ns/time";
const NS_PER_S: i128 = 1_000_000_000;

/// Children forked from now on see CLOCK_MONOTONIC and CLOCK_BOOTTIME `offset_ns` ahead of this process
/// (0: as this process does).
///
/// # Errors
/// unshare(2)'s and setns(2)'s: EPERM without CAP_SYS_ADMIN; ERANGE when a clock would run below zero.
pub fn set_for_children(offset_ns: i64) -> io::Result<()> {
    let own = fs::File::open(OWN)?;
    // Back to our own namespace for children first: a new one begins with the offsets of the last one.
    // SAFETY: no memory is passed; this process is single-threaded or the call fails.
    if unsafe { libc::setns(own.as_raw_fd(), libc::CLONE_NEWTIME) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if offset_ns == 0 {
        return Ok(());
    }
    // SAFETY: no memory is passed; this process itself stays in its namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWTIME) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let text = shifted(&fs::read_to_string(OFFSETS)?, offset_ns)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, OFFSETS))?;
    fs::write(OFFSETS, text)
}

/// How far another process's CLOCK_MONOTONIC is ahead of this one's, ns; 0 if that is not known.
pub fn ahead_ns(pid: u32) -> i64 {
    let offset = |path: &str| monotonic(&fs::read_to_string(path).ok()?);
    let other = offset(&format!("/proc/{pid}/timens_offsets"));
    let ahead = other.zip(offset(OFFSETS)).map(|(other, own)| other - own);
    ahead.and_then(|ahead| i64::try_from(ahead).ok()).unwrap_or(0)
}

/// The offset of CLOCK_MONOTONIC in such lines, ns.
fn monotonic(lines: &str) -> Option<i128> {
    let mut words =
        lines.lines().find_map(|line| line.strip_prefix("monotonic"))?.split_whitespace();
    let seconds: i128 = words.next()?.parse().ok()?;
    Some(seconds * NS_PER_S + words.next()?.parse::<i128>().ok()?)
}

/// Lines `clock seconds nanoseconds`, each moved by `offset_ns`.
fn shifted(lines: &str, offset_ns: i64) -> Option<String> {
    let mut text = String::new();
    for line in lines.lines() {
        let mut words = line.split_whitespace();
        let clock = words.next()?;
        let seconds: i128 = words.next()?.parse().ok()?;
        let nanoseconds: i128 = words.next()?.parse().ok()?;
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
        assert_eq!(ahead_ns(std::process::id()), 0);
        assert_eq!(monotonic("monotonic  -3  500000000\nboottime 0 0\n"), Some(-2_500_000_000));
        assert_eq!(monotonic("boottime 0 0\n"), None);
    }

    #[test]
    fn offsets_add_to_those_of_the_namespace_that_we_are_in() {
        let lines = "monotonic           3         500000000\nboottime  -2 0\n";
        assert_eq!(
            shifted(lines, 700_000_000).unwrap(),
            "monotonic 4 200000000\nboottime -2 700000000\n"
        );
        assert_eq!(
            shifted(lines, -4_000_000_000).unwrap(),
            "monotonic -1 500000000\nboottime -6 0\n"
        );
        assert_eq!(shifted("monotonic x 0", 1), None);
    }
}
