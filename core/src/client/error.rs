//! Why the local agent did not do what was asked.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::prepare::PrepareError;
use crate::wire::frame::FrameError;
use crate::wire::local::{Failure, FailureKind};

/// Why a request to the local agent failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no mitosis agent answers at {} ({error}): start one with 'mitosis agent', or point MITOSIS_AGENT \
         at its socket", .path.display()
    )]
    NoAgent {
        /// Its socket.
        path: PathBuf,
        /// Why connect(2) failed.
        error: io::Error,
    },
    /// The agent ended, or broke off.
    #[error(
        "the mitosis agent closed the connection while it {while_}: see its log; was it stopped?"
    )]
    Closed {
        /// What it was asked to do.
        while_: &'static str,
    },
    /// The agent is silent.
    #[error("the mitosis agent has not answered for {} s while it {while_}: see its log", .after.as_secs())]
    Silent {
        /// What it was asked to do.
        while_: &'static str,
        /// How long.
        after: Duration,
    },
    /// Bytes that are no answer, or an answer to something else.
    #[error(
        "the mitosis agent and this library do not understand each other ({0}): install one version"
    )]
    Protocol(String),
    /// The connection failed otherwise.
    #[error("the connection to the mitosis agent failed: {0}")]
    Io(io::Error),
    /// The agent refused; its text says what to do.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// An argument cannot be right.
    #[error("{0}")]
    Argument(String),
    /// An agent of this process's own could not be started.
    #[error("mitosis could not start an agent of its own: {0}")]
    Embedded(String),
}

impl ClientError {
    /// The kind, by which SDKs choose exceptions and codes.
    pub fn kind(&self) -> FailureKind {
        match self {
            ClientError::NoAgent { .. } | ClientError::Embedded(_) => FailureKind::Missing,
            ClientError::Closed { .. } | ClientError::Silent { .. } | ClientError::Io(_) => {
                FailureKind::Unreachable
            }
            ClientError::Protocol(_) => FailureKind::Protocol,
            ClientError::Failed(failure) => failure.kind,
            ClientError::Argument(_) => FailureKind::Argument,
        }
    }

    pub(super) fn from_frame(error: FrameError, while_: &'static str, after: Duration) -> Self {
        match error {
            FrameError::Closed => ClientError::Closed { while_ },
            FrameError::Io(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    ClientError::Silent { while_, after }
                }
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset => ClientError::Closed { while_ },
                _ => ClientError::Io(error),
            },
            other => ClientError::Protocol(other.to_string()),
        }
    }
}

/// Why `fork` failed. It is told in the parent alone; there is no child then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForkError {
    /// There is no seed.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// There is no child.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl PrepareError {
    /// The kind, by which SDKs choose exceptions and codes.
    pub fn kind(&self) -> FailureKind {
        match self {
            PrepareError::Agent(error) => error.kind(),
            PrepareError::Busy
            | PrepareError::Scratch(_)
            | PrepareError::Fork(_)
            | PrepareError::TooManyMappings => FailureKind::Limit,
            PrepareError::NoDispatch | PrepareError::NoSmaps(_) => FailureKind::Missing,
            PrepareError::SeedVisible(_)
            | PrepareError::SharedMemory(_)
            | PrepareError::Watched(_)
            | PrepareError::Stop(_) => FailureKind::NotForkable,
            PrepareError::Register => FailureKind::Internal,
        }
    }
}

impl ForkError {
    /// The kind, by which SDKs choose exceptions and codes.
    pub fn kind(&self) -> FailureKind {
        match self {
            ForkError::Prepare(error) => error.kind(),
            ForkError::Client(error) => error.kind(),
        }
    }
}
