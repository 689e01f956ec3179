//! Why a process was not prepared from outside.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::Unloadable;
use crate::client::ClientError;
use crate::wire::frame::FrameError;
use crate::wire::local::{Failure, FailureKind};
use crate::wire::preload::{SECCOMP_CALLS, SIGNAL_VARIABLE};

/// Why a process was not prepared from outside. It goes on as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutsideError {
    /// Its number is nobody's.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// Another user's.
    #[error("process {0} is another user's: run 'mitosis prepare' as that user, or as root")]
    NotAllowed(u32),
    /// It ended.
    #[error("process {0} has ended")]
    Ended(u32),
    /// SIGSTOP, or a debugger.
    #[error(
        "process {0} is stopped: let it go on (kill -CONT {0}, or leave the debugger) and try again"
    )]
    Stopped(u32),
    /// The library is not in it.
    #[error("{}", not_loaded(*pid, exe, cause.as_ref()))]
    NotLoaded {
        /// The process.
        pid: u32,
        /// Its program.
        exe: PathBuf,
        /// Why it could not have been loaded.
        cause: Option<Unloadable>,
    },
    /// A filter might kill it.
    #[error(
        "process {0} is under a seccomp filter, which may kill it for the system calls that preparing takes: if \
         the filter is known to allow {SECCOMP_CALLS} (docs/preload.md), use --allow-seccomp"
    )]
    Seccomp(u32),
    /// The handler is gone.
    #[error(
        "process {pid} {} signal {signal} itself, by which the preload library is asked: start it with \
         {SIGNAL_VARIABLE} set to a real-time signal (34 to 64) that it does not use", taken(*.ignored)
    )]
    SignalTaken {
        /// The process.
        pid: u32,
        /// The signal.
        signal: i32,
        /// It is ignored; else the default action stands.
        ignored: bool,
    },
    /// All threads block it.
    #[error(
        "all threads of process {pid} block signal {signal}, by which the preload library is asked: try again when \
         one does not, start it with {SIGNAL_VARIABLE} set to a signal that it leaves alone, or prepare by \
         MITOSIS_PREPARE_WHEN"
    )]
    Blocked {
        /// The process.
        pid: u32,
        /// The signal.
        signal: i32,
    },
    /// No thread takes it.
    #[error(
        "process {pid} has not taken the signal for {} ms: is it frozen (a cgroup's freezer), or in \
         uninterruptible sleep? What was asked is withdrawn", .after.as_millis()
    )]
    Pending {
        /// The process.
        pid: u32,
        /// How long.
        after: Duration,
    },
    /// Another handler took it.
    #[error(
        "process {pid} took signal {signal} but the preload library has not answered for {} ms: the program has a \
         handler of its own for it; start it with {SIGNAL_VARIABLE} set to another real-time signal (34 to 64)",
        .after.as_millis()
    )]
    OwnHandler {
        /// The process.
        pid: u32,
        /// The signal.
        signal: i32,
        /// How long.
        after: Duration,
    },
    /// The socket could not be made where the process would find it.
    #[error(
        "process {pid} is in another network namespace, which cannot be entered ({error}): run 'mitosis prepare' as \
         root, or in that namespace"
    )]
    Namespace {
        /// The process.
        pid: u32,
        /// setns(2)'s or bind(2)'s.
        error: io::Error,
    },
    /// Two versions.
    #[error(
        "the preload library in process {pid} speaks version {theirs}, this program another one: restart that \
         process with the library of this version"
    )]
    Version {
        /// The process.
        pid: u32,
        /// Its version.
        theirs: u32,
    },
    /// It began and does not end.
    #[error(
        "process {pid} has been preparing for {} s and does not come to an end: see its threads (ps -L -p {pid}); \
         it goes on", .after.as_secs()
    )]
    Hangs {
        /// The process.
        pid: u32,
        /// How long.
        after: Duration,
    },
    /// The connection broke.
    #[error("the preload library in process {pid} broke off: {error}")]
    Broken {
        /// The process.
        pid: u32,
        /// How.
        error: FrameError,
    },
    /// The process cannot be a seed.
    #[error(transparent)]
    Refused(Failure),
    /// No agent.
    #[error(transparent)]
    Agent(#[from] ClientError),
    /// Something of this process's own.
    #[error("the process could not be asked: {0}")]
    Io(io::Error),
}

fn not_loaded(pid: u32, exe: &std::path::Path, cause: Option<&Unloadable>) -> String {
    let exe = exe.display();
    match cause {
        Some(cause) => format!("process {pid} has no preload library: {exe} {cause}"),
        None => format!(
            "process {pid} ({exe}) was not started with the preload library: start it by 'mitosis run -- COMMAND', \
             or with LD_PRELOAD=libmitosis_preload.so"
        ),
    }
}

fn taken(ignored: bool) -> &'static str {
    if ignored { "ignores" } else { "has put back the default action of" }
}

impl OutsideError {
    pub(super) fn of_look(pid: u32, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH | libc::EINVAL) => OutsideError::NoProcess(pid),
            Some(libc::EACCES | libc::EPERM) => OutsideError::NotAllowed(pid),
            _ => OutsideError::Io(error),
        }
    }

    pub(super) fn of_signal(pid: u32, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ESRCH) => OutsideError::Ended(pid),
            Some(libc::EPERM) => OutsideError::NotAllowed(pid),
            _ => OutsideError::Io(error),
        }
    }

    /// The kind, by which SDKs choose exceptions and codes.
    pub fn kind(&self) -> FailureKind {
        match self {
            OutsideError::Refused(failure) => failure.kind,
            OutsideError::Agent(error) => error.kind(),
            OutsideError::NoProcess(_) | OutsideError::Ended(_) => FailureKind::Argument,
            OutsideError::Version { .. } | OutsideError::Broken { .. } => FailureKind::Protocol,
            OutsideError::NotAllowed(_) | OutsideError::Namespace { .. } => FailureKind::Missing,
            OutsideError::Io(_) => FailureKind::Internal,
            _ => FailureKind::NotForkable,
        }
    }
}
