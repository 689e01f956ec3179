//! Readers that got a signal while they wait for a page.
//!
//! The kernel tells of any signal (FUSE_INTERRUPT), once. A reader that is being killed must get -EINTR,
//! or it stays undead until its READ ends; any other one must get its page, for -EINTR would show: a
//! write(2) from a missing page would fail. Which of the two it is stands in /proc, and may change from
//! the one to the other without another word of the kernel: so it is looked at again every [`RECHECK`].

use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

/// How often a reader with a signal is looked at, until it has its page.
pub(super) const RECHECK: Duration = Duration::from_millis(5);
/// Readers with a signal that one thread keeps an eye on; others wait for their page or its deadline.
pub(super) const MAX_INTERRUPTED: usize = 64;

const SIGKILL_BIT: u64 = 1 << 8;
/// Where the lines with pending signals stand in /proc/TID/status, at most.
const STATUS_BYTES: usize = 4096;

/// Whether the thread will never run its program again. A fatal signal of any kind stands as a pending
/// SIGKILL in every thread of the process. One that cannot be seen is taken for dead.
pub(super) fn is_dying(tid: u32) -> bool {
    let mut status = [0u8; STATUS_BYTES];
    read_status(tid, &mut status).is_none_or(has_sigkill)
}

/// The process of a thread, as FUSE names threads; the thread's own number if it cannot be seen.
pub(super) fn process_of(tid: u32) -> u32 {
    let mut status = [0u8; STATUS_BYTES];
    let status = read_status(tid, &mut status).unwrap_or_default();
    field(status, b"Tgid:").and_then(|number| number.parse().ok()).unwrap_or(tid)
}

fn read_status(tid: u32, into: &mut [u8]) -> Option<&[u8]> {
    let mut path = [0u8; 32];
    let mut rest = &mut path[..];
    if tid == 0 || write!(rest, "/proc/{tid}/status").is_err() {
        return None;
    }
    let free = rest.len();
    let len = path.len() - free;
    let path = std::str::from_utf8(&path[..len]).ok()?;
    let len = File::open(path).and_then(|mut file| file.read(into)).ok()?;
    into.get(..len)
}

fn field<'a>(status: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let line = status.split(|&byte| byte == b'\n').find(|line| line.starts_with(name))?;
    Some(std::str::from_utf8(line.get(name.len()..)?).ok()?.trim())
}

fn has_sigkill(status: &[u8]) -> bool {
    let pending = |name: &[u8]| u64::from_str_radix(field(status, name)?, 16).ok();
    match (pending(b"SigPnd:"), pending(b"ShdPnd:")) {
        (Some(own), Some(shared)) => (own | shared) & SIGKILL_BIT != 0,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_told_by_its_process() {
        let tid = std::thread::spawn(|| {
            let link = std::fs::read_link("/proc/thread-self").unwrap();
            link.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .parse::<u32>()
                .map(|tid| (tid, process_of(tid)))
        });
        let (tid, process) = tid.join().unwrap().unwrap();
        assert_ne!(tid, std::process::id());
        assert_eq!(process, std::process::id());
        assert_eq!(process_of(u32::MAX), u32::MAX);
    }

    #[test]
    fn the_living_are_told_from_the_dying() {
        assert!(!is_dying(std::process::id()));
        assert!(is_dying(0));
        assert!(is_dying(u32::MAX));
        assert!(has_sigkill(b"Name:\tx\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"));
        assert!(has_sigkill(b"SigPnd:\t0000000000000000\nShdPnd:\t0000000000004100\n"));
        assert!(!has_sigkill(b"SigPnd:\t0000000000002000\nShdPnd:\t0000000000004000\n"));
        assert!(has_sigkill(b"SigPnd:\n"));
    }
}
