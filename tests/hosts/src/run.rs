//! Running a command in the caller's place: it dies with the caller, is sent the signals that the
//! caller is sent, and the caller ends as it did.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::ns;

/// Exit status for a failure of mitosis-hosts itself, and of a command that cannot be started:
/// those of env(1), so that they are told from the command's own.
pub(crate) const OWN_FAILURE: u8 = 125;
const CANNOT_EXECUTE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Signals that concern the receiver alone and are not for its command.
const NOT_FORWARDED: [i32; 4] = [libc::SIGCHLD, libc::SIGTTIN, libc::SIGTTOU, libc::SIGPIPE];

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exited(i32),
    Killed(i32),
}

impl Ended {
    pub(crate) fn from_wait_status(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Killed(libc::WTERMSIG(status))
        } else {
            Self::Exited(libc::WEXITSTATUS(status))
        }
    }

    /// Ends the caller likewise; the code is for the case that a signal does not end it.
    pub(crate) fn imitate(self) -> ExitCode {
        let status = match self {
            Self::Exited(status) => status,
            Self::Killed(signal) => {
                ns::die_by(signal);
                128 + signal
            }
        };
        ExitCode::from(u8::try_from(status).unwrap_or(OWN_FAILURE))
    }
}

/// Starts `command`, on `cpu` alone if one is given, and gives its pid. The caller has one thread
/// and has its signals blocked.
pub(crate) fn start(mut command: Command, cpu: Option<usize>) -> Result<i32> {
    let (reader, writer) = ns::pipe().context("cannot make a pipe")?;
    let mut writer = Some(writer);
    let pid = ns::fork_into(0, || {
        // Only the caller's copy may be left: the check below tells by it whether the caller lives.
        drop(writer.take());
        let prepared = prepare(reader.as_fd().try_clone_to_owned(), cpu);
        let error = match prepared {
            Ok(()) => command.exec(),
            Err(error) => error,
        };
        eprintln!("mitosis-hosts: cannot run {}: {error}", command.get_program().to_string_lossy());
        if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_EXECUTE }
    });
    // The command may tell by the other end for as long as it has not started.
    std::mem::forget(writer);
    pid.context("cannot fork")
}

fn prepare(caller: io::Result<OwnedFd>, cpu: Option<usize>) -> io::Result<()> {
    ns::die_with_parent()?;
    let [gone] = ns::poll([Some(caller?.as_fd())], 0)?;
    if gone {
        return Err(io::Error::other("the caller has ended"));
    }
    if let Some(cpu) = cpu {
        ns::pin_to_cpu(cpu)?;
    }
    ns::unblock_signals()
}

/// The numbers of the signals that have come and concern the command.
pub(crate) fn signals_to_forward(signals: &OwnedFd) -> impl Iterator<Item = u8> {
    std::iter::from_fn(|| ns::next_signal(signals))
        // A terminal sends ^C to the command itself, too; twice would be once too often.
        .filter(|signal| !signal.from_kernel && !NOT_FORWARDED.contains(&signal.number))
        .filter_map(|signal| u8::try_from(signal.number).ok())
}

/// Passes what has arrived on `signals` to `pid`.
pub(crate) fn forward(signals: &OwnedFd, pid: i32) {
    for number in signals_to_forward(signals) {
        let _ = ns::kill(pid, i32::from(number));
    }
}
