//! When a process that did not ask for it is prepared.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::sys::signal;

/// Names the moment for programs that are started with the preload library and without `mitosis run`.
pub const WHEN_VARIABLE: &str = "MITOSIS_PREPARE_WHEN";

/// The moment at which a program is prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// `listen`: it has called listen(2).
    Listen,
    /// `file:PATH`: a file is there.
    File(PathBuf),
    /// `port:NUMBER`: a TCP port of this host answers.
    Port(u16),
    /// `signal:NAME`: a signal has come.
    Signal(i32),
}

/// A text that names no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' names no moment: give listen, file:/absolute/path, port:NUMBER (1 to 65535) or signal:NAME (USR1, \
     USR2, HUP ...)"
)]
pub struct NoMoment(String);

impl FromStr for When {
    type Err = NoMoment;

    fn from_str(text: &str) -> Result<Self, NoMoment> {
        let none = || NoMoment(text.to_owned());
        if text == "listen" {
            return Ok(When::Listen);
        }
        match text.split_once(':').ok_or_else(none)? {
            // A program may change its directory.
            ("file", path) if path.starts_with('/') => Ok(When::File(path.into())),
            ("port", port) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                port.map(When::Port).ok_or_else(none)
            }
            ("signal", name) => {
                let can_be_caught = |signal: &i32| ![libc::SIGKILL, libc::SIGSTOP].contains(signal);
                let number = signal::number(name).filter(can_be_caught);
                number.map(When::Signal).ok_or_else(none)
            }
            _ => Err(none()),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Listen => f.write_str("listen"),
            When::File(path) => write!(f, "file:{}", path.display()),
            When::Port(port) => write!(f, "port:{port}"),
            When::Signal(number) => write!(f, "signal:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_and_written() {
        for (text, when) in [
            ("listen", When::Listen),
            ("file:/run/app.ready", When::File("/run/app.ready".into())),
            ("port:8080", When::Port(8080)),
            ("signal:12", When::Signal(libc::SIGUSR2)),
        ] {
            assert_eq!(text.parse(), Ok(when.clone()));
            assert_eq!(when.to_string(), text);
        }
        assert_eq!("signal:SIGUSR2".parse(), Ok(When::Signal(libc::SIGUSR2)));
    }

    #[test]
    fn what_names_no_moment_is_refused() {
        for text in [
            "",
            "Listen",
            "listen:",
            "file:",
            "file:ready",
            "port:",
            "port:0",
            "port:65536",
            "signal:",
            "signal:KILL",
            "signal:19",
            "signal:65",
            "signal:NEVER",
        ] {
            let error = text.parse::<When>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("'{text}' names no moment: ")), "{error}");
        }
    }
}
