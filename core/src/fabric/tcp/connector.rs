//! How a READ stream is opened: token, connect(2), greeting.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use crate::fabric::ReadError;
use crate::fabric::pool::Connector;
use crate::id::StreamToken;
use crate::sys::socket;
use crate::wire::read::{self, Status};

/// Where a fabric gets the one-time token that opens a stream.
pub trait TokenSource: Send + Sync {
    /// A fresh token of the page service at `agent` ("host:port"). May block.
    ///
    /// # Errors
    /// `Unreachable` is tried again; any other kind fails the READs that wait.
    fn token(&self, agent: &str) -> Result<StreamToken, ReadError>;
}

/// Opens READ streams.
pub(super) struct TcpConnector {
    pub(super) tokens: Arc<dyn TokenSource>,
    /// For the whole set-up, greeting included.
    pub(super) timeout: Duration,
}

impl std::fmt::Debug for TcpConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpConnector").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Connector for TcpConnector {
    /// Behind its welcome; non-blocking.
    type Connection = TcpStream;

    fn connect(&self, peer: &str) -> Result<TcpStream, ReadError> {
        let token = self.tokens.token(peer)?;
        let tcp = self.greet(peer, &token).map_err(|error| {
            ReadError::Unreachable(format!("no READ stream to {peer} could be opened ({error})"))
        })?;
        match tcp {
            (tcp, Ok(Status::Ok)) => Ok(tcp),
            (_, Ok(Status::Revoked)) => {
                Err(ReadError::Unreachable(format!("{peer} has refused the stream's token")))
            }
            (_, Ok(Status::Busy)) => Err(ReadError::Unreachable(format!(
                "{peer} serves as many READ streams as it takes, or as one peer may have there (max_streams_of_peer)"
            ))),
            (_, Ok(_) | Err(_)) => Err(ReadError::Revoked(format!(
                "{peer} speaks another READ protocol; both sides must run the same version of mitosis"
            ))),
        }
    }
}

impl TcpConnector {
    fn greet(
        &self,
        peer: &str,
        token: &StreamToken,
    ) -> io::Result<(TcpStream, Result<Status, read::Malformed>)> {
        let timeout = self.timeout;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in peer.to_socket_addrs()? {
            let mut tcp = match TcpStream::connect_timeout(&address, timeout) {
                Ok(tcp) => tcp,
                Err(error) => {
                    failure = error;
                    continue;
                }
            };
            tcp.set_nodelay(true)?;
            if let Err(error) = socket::follow_acknowledgements(&tcp) {
                tracing::debug!(%error, "a READ stream keeps the host's congestion control");
            }
            tcp.set_read_timeout(Some(timeout))?;
            tcp.set_write_timeout(Some(timeout))?;
            tcp.write_all(&read::encode_greeting(token))?;
            let mut welcome = [0u8; read::WELCOME_LEN];
            tcp.read_exact(&mut welcome)?;
            tcp.set_nonblocking(true)?;
            return Ok((tcp, read::parse_welcome(welcome)));
        }
        Err(failure)
    }
}
