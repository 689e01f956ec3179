//! What /proc tells of a process that is to be prepared from outside.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::sys::rawcall::signal_bit;
use crate::wire::preload::{SIGNAL, SIGNAL_VARIABLE, signal_named};

/// The library's file begins so, wherever it is installed.
const LIBRARY: &str = "libmitosis_preload";
/// What every child has mapped.
const RESTORER: &str = "mitosis-restorer";

/// A process as it stood when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// `R`, `S`, `D`, `T`, `Z` ... as proc_pid_status(5) has them.
    pub(super) state: char,
    /// Effective user id.
    pub(super) user: u32,
    pub(super) exe: PathBuf,
    /// The signal that its library waits for.
    pub(super) signal: i32,
    /// The signal has a handler.
    pub(super) handled: bool,
    /// The signal is ignored.
    pub(super) ignored: bool,
    /// Every thread blocks the signal.
    pub(super) blocked: bool,
    /// The signal waits to be taken.
    pub(super) pending: bool,
    /// Mode 2: a filter; 1: strict.
    pub(super) seccomp: u32,
    /// The library is mapped, or this is a child of a process in which it was.
    pub(super) loaded: bool,
}

impl Process {
    /// Looks at process `pid`.
    ///
    /// # Errors
    /// ENOENT where there is none, EACCES where its user is another.
    pub(super) fn look(pid: u32) -> io::Result<Self> {
        let status = Status::read(&format!("/proc/{pid}/status"))?;
        let environment = fs::read(format!("/proc/{pid}/environ"))?;
        let signal =
            variable(&environment, SIGNAL_VARIABLE).and_then(signal_named).unwrap_or(SIGNAL);
        let bit = signal_bit(signal);
        let threads = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
        let masks = threads.filter_map(|thread| {
            Status::read(&thread.path().join("status").display().to_string()).ok()
        });
        let blocked = masks.map(|status| status.bits("SigBlk")).all(|mask| mask & bit != 0);
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        // A child's files are mapped from an image, whatever they are here; the restorer stays in it. The
        // environment that /proc shows may have become a title.
        let is_child = maps.contains(RESTORER);
        let handled = status.bits("SigCgt") & bit != 0;
        Ok(Process {
            state: status.field("State").chars().next().unwrap_or('?'),
            user: status.number("Uid", 1),
            exe: fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default(),
            signal,
            handled,
            ignored: status.bits("SigIgn") & bit != 0,
            blocked,
            pending: (status.bits("ShdPnd") | status.bits("SigPnd")) & bit != 0,
            seccomp: status.number("Seccomp", 0),
            loaded: maps.contains(LIBRARY) || is_child && handled,
        })
    }
}

/// proc_pid_status(5).
struct Status(String);

impl Status {
    fn read(path: &str) -> io::Result<Self> {
        fs::read_to_string(path).map(Status)
    }

    fn field(&self, name: &str) -> &str {
        let of = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        let line = self.0.lines().find(|line| of(line));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    }

    fn bits(&self, name: &str) -> u64 {
        u64::from_str_radix(self.field(name), 16).unwrap_or(0)
    }

    fn number(&self, name: &str, index: usize) -> u32 {
        let field = self.field(name).split_ascii_whitespace().nth(index);
        field.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// A variable of `NAME=VALUE\0...`.
fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a str> {
    let entries = environment.split(|byte| *byte == 0);
    let value = |entry: &'a [u8]| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    entries.filter_map(value).find_map(|value| std::str::from_utf8(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_status_are_read() {
        let text = "Name:\tx\nState:\tT (stopped)\nUid:\t5\t6\t7\t8\nSeccomp:\t2\nSeccomp_filters:\t1\n\
                    SigBlk:\t0400000000000000\n";
        let status = Status(text.to_owned());
        assert_eq!((status.field("State"), status.number("Uid", 1)), ("T (stopped)", 6));
        assert_eq!(status.number("Seccomp", 0), 2);
        assert_eq!(status.bits("SigBlk"), signal_bit(59));
        assert_eq!((status.bits("SigCgt"), status.field("")), (0, ""));
    }

    #[test]
    fn variables_are_found_by_their_whole_name() {
        let environment = b"XMITOSIS_SIGNAL=1\0MITOSIS_SIGNAL=40\0A=\0";
        assert_eq!(variable(environment, SIGNAL_VARIABLE), Some("40"));
        assert_eq!(variable(environment, "A"), Some(""));
        assert_eq!(variable(environment, "B"), None);
    }

    #[test]
    fn a_test_has_no_library() {
        let seen = Process::look(std::process::id()).unwrap();
        assert!(!seen.loaded && !seen.handled && !seen.blocked && !seen.pending, "{seen:?}");
        assert_eq!(seen.signal, SIGNAL);
        assert!(Process::look(u32::MAX).is_err());
    }
}
