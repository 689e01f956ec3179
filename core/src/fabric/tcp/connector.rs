//! How a READ stream is opened: token, connect(2), greeting.
//!
//! ```text
//!   plain greeting ---> welcome
//!         \--> the peer demands encryption: noted, and with another token
//!   encrypted greeting -> welcome, handshake        from the start where it is demanded here, or was noted
//! ```

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::fabric::ReadError;
use crate::fabric::pool::Connector;
use crate::id::StreamToken;
use crate::sys::socket;
use crate::wire::read::{self, Status};
use crate::wire::read_stream::ReadStream;
use crate::wire::seal::{self, Encryption, Greeted, Seal};

/// Peers of which it is remembered that they demand encryption; beyond it, all are asked again.
const MAX_NOTED: usize = 1024;

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
    tokens: Arc<dyn TokenSource>,
    /// For the whole set-up, greeting included.
    timeout: Duration,
    encryption: Encryption,
    /// Peers that have said that they demand it.
    noted: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for TcpConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpConnector").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What a peer has answered.
enum Answer {
    Welcome(ReadStream),
    /// A status that is no welcome, or is none at all.
    Refused(Result<Status, read::Malformed>),
    /// It has taken the greeting of an encrypted stream, and does not know its token.
    Unproved,
    /// It has hung up on the greeting of an encrypted stream.
    HungUp,
}

impl Connector for TcpConnector {
    /// Behind its welcome; non-blocking.
    type Connection = ReadStream;

    fn connect(&self, peer: &str) -> Result<ReadStream, ReadError> {
        let is_noted = || self.noted.lock().contains(peer);
        if self.encryption == Encryption::Offered && !is_noted() {
            match self.open(peer, false)? {
                Answer::Refused(Ok(Status::Encrypt)) => self.note(peer),
                answer => return taken(peer, answer),
            }
        }
        taken(peer, self.open(peer, true)?)
    }
}

fn taken(peer: &str, answer: Answer) -> Result<ReadStream, ReadError> {
    match answer {
        Answer::Welcome(stream) => Ok(stream),
        Answer::Refused(Ok(Status::Revoked)) => {
            Err(ReadError::Unreachable(format!("{peer} has refused the stream's token")))
        }
        Answer::Refused(Ok(Status::Busy)) => Err(ReadError::Unreachable(format!(
            "{peer} serves as many READ streams as it takes, or as one peer may have there (max_streams_of_peer)"
        ))),
        Answer::Unproved => Err(ReadError::Unreachable(format!(
            "{peer} does not prove that it knows the stream's token: something between the hosts answers in its place"
        ))),
        Answer::HungUp => Err(ReadError::Unreachable(format!(
            "{peer} takes no encrypted READ streams, and this host opens no others (encrypt_reads): run the same \
             version of mitosis there, if it is not that it has as many connections as it takes"
        ))),
        Answer::Refused(Ok(_) | Err(_)) => Err(ReadError::Revoked(format!(
            "{peer} speaks another READ protocol; both sides must run the same version of mitosis"
        ))),
    }
}

impl TcpConnector {
    pub(super) fn new(
        tokens: Arc<dyn TokenSource>,
        timeout: Duration,
        encryption: Encryption,
    ) -> Self {
        TcpConnector { tokens, timeout, encryption, noted: Mutex::default() }
    }

    fn note(&self, peer: &str) {
        let mut noted = self.noted.lock();
        if noted.len() >= MAX_NOTED {
            noted.clear();
        }
        noted.insert(peer.to_owned());
    }

    fn open(&self, peer: &str, is_encrypted: bool) -> Result<Answer, ReadError> {
        let token = self.tokens.token(peer)?;
        let opened = self.dial(peer).and_then(|tcp| match is_encrypted {
            true => greet_encrypted(tcp, &token),
            false => greet(tcp, &token),
        });
        opened.map_err(|error| {
            ReadError::Unreachable(format!("no READ stream to {peer} could be opened ({error})"))
        })
    }

    fn dial(&self, peer: &str) -> io::Result<TcpStream> {
        let timeout = self.timeout;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in peer.to_socket_addrs()? {
            let tcp = match TcpStream::connect_timeout(&address, timeout) {
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
            return Ok(tcp);
        }
        Err(failure)
    }
}

fn greet(mut tcp: TcpStream, token: &StreamToken) -> io::Result<Answer> {
    tcp.write_all(&read::encode_greeting(token))?;
    match welcomed(&mut tcp)? {
        Ok(Status::Ok) => begin(tcp, None),
        refused => Ok(Answer::Refused(refused)),
    }
}

fn greet_encrypted(mut tcp: TcpStream, token: &StreamToken) -> io::Result<Answer> {
    let (greeting, greeted): (_, Greeted) = seal::greet(token).map_err(io::Error::other)?;
    tcp.write_all(&greeting)?;
    match welcomed(&mut tcp) {
        // Who does not know the greeting hangs up without a word, and without having read it.
        Err(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                return Ok(Answer::HungUp);
            }
            _ => return Err(error),
        },
        Ok(Ok(Status::Ok)) => {}
        Ok(refused) => return Ok(Answer::Refused(refused)),
    }
    let mut message = [0; seal::HANDSHAKE_LEN];
    tcp.read_exact(&mut message)?;
    match greeted.answered(&message) {
        Ok(seal) => begin(tcp, Some(seal)),
        Err(_) => Ok(Answer::Unproved),
    }
}

fn welcomed(tcp: &mut TcpStream) -> io::Result<Result<Status, read::Malformed>> {
    let mut welcome = [0u8; read::WELCOME_LEN];
    tcp.read_exact(&mut welcome)?;
    Ok(read::parse_welcome(welcome))
}

fn begin(tcp: TcpStream, seal: Option<Seal>) -> io::Result<Answer> {
    tcp.set_nonblocking(true)?;
    Ok(Answer::Welcome(ReadStream::new(tcp, seal)))
}
