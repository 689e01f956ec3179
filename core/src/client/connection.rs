//! One connection to the local agent: a request, its answer, events.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{AgentAddress, ClientError};
use crate::sys::scm;
use crate::wire::frame;
use crate::wire::local::{LocalReply, LocalRequest};

/// Longest silence of an agent that carries out a request: a resume on a far host ends well before it.
pub const REPLY_DEADLINE: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    /// Why the request was not sent whole.
    unsent: Option<io::Error>,
}

impl Connection {
    pub(super) fn open(agent: &AgentAddress) -> Result<Self, ClientError> {
        let stream = UnixStream::from(agent.connect_for_seed()?);
        stream.set_read_timeout(Some(REPLY_DEADLINE)).map_err(ClientError::Io)?;
        Ok(Connection { stream, unsent: None })
    }

    /// Sends `request` and waits for its answer; an agent's refusal is an error.
    pub(super) fn ask(
        &mut self,
        request: &LocalRequest,
        fds: &[BorrowedFd<'_>],
        while_: &'static str,
    ) -> Result<LocalReply, ClientError> {
        self.say(request, fds, while_)?;
        self.hear(while_)
    }

    /// Sends `request`. That it could not be sent is told by [`Connection::hear`]: the agent may have refused and
    /// closed before it read all, and its answer is the better text.
    pub(super) fn say(
        &mut self,
        request: &LocalRequest,
        fds: &[BorrowedFd<'_>],
        while_: &'static str,
    ) -> Result<(), ClientError> {
        let bytes = frame::encode(request)
            .map_err(|error| ClientError::from_frame(error, while_, REPLY_DEADLINE))?;
        self.unsent = scm::send_all(self.stream.as_fd(), &bytes, fds).err();
        Ok(())
    }

    /// Waits for the answer; an agent's refusal is an error.
    pub(super) fn hear(&mut self, while_: &'static str) -> Result<LocalReply, ClientError> {
        let failed = |error| ClientError::from_frame(error, while_, REPLY_DEADLINE);
        match frame::read(&mut self.stream) {
            Ok(LocalReply::Failed(failure)) => Err(failure.into()),
            Ok(reply) => Ok(reply),
            Err(error) => match self.unsent.take() {
                Some(unsent) => Err(failed(unsent.into())),
                None => Err(failed(error)),
            },
        }
    }

    /// Says that nothing more is asked for.
    pub(super) fn end_asking(&self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)
    }

    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }
}

/// Readable when an answer has come, or the end.
impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Opens a connection for one request.
pub(super) fn ask(
    agent: &AgentAddress,
    request: &LocalRequest,
    while_: &'static str,
) -> Result<LocalReply, ClientError> {
    Connection::open(agent)?.ask(request, &[], while_)
}

/// The agent answered something else.
pub(super) fn unexpected(reply: &LocalReply, while_: &'static str) -> ClientError {
    let text = format!("{reply:?}");
    let short: String = text.chars().take(40).collect();
    ClientError::Protocol(format!("answer '{short}' while it {while_}"))
}

/// An answer without content.
pub(super) fn done(reply: LocalReply, while_: &'static str) -> Result<(), ClientError> {
    match reply {
        LocalReply::Done => Ok(()),
        other => Err(unexpected(&other, while_)),
    }
}
