//! Agent to agent.
//!
//! ```text
//! client -> server   "MITOCTRL" u16 major  u16 minor
//! both               Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s, the cluster secret as PSK and the 12
//!                    bytes above as prologue: each message   u16 length  ciphertext
//! then               a byte stream cut into Noise messages, carrying frames (see `frame`)
//! ```
//!
//! A connection carries requests one after another, each answered by one reply; after `Resume` it
//! carries that resume's events and nothing else; after `Fetch` it may be kept as the lease, after `Rejoin` it is: while
//! it is open, the fetching host counts as a holder of the seed, and the owner may send `Arena` on it,
//! and `Dropping`, which is answered by `Noted`.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use snow::{Builder, StatelessTransportState};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::local::{ChildEnd, Failure, ResumeRequest, StartReport, StartedChild};
use crate::descriptor::{ArenaNews, Clocks};
use crate::id::{ChildId, ForkKey, SeedId, StreamToken};
use crate::sys::socket;

/// First bytes of a control connection.
pub const MAGIC: [u8; 8] = *b"MITOCTRL";
/// Version of this protocol.
pub const MAJOR: u16 = 1;
/// Additions since.
pub const MINOR: u16 = 0;

/// Bytes of the client's greeting: magic, version, and the first message of the handshake.
pub const GREETING_LEN: usize = HELLO_LEN + 2 + HANDSHAKE_LEN;
/// Of them those in plain.
const HELLO_LEN: usize = 8 + 4;
/// Bytes of each handshake message: a public key and a tag.
const HANDSHAKE_LEN: usize = 32 + TAG_LEN;
const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const MAX_NOISE_MESSAGE: usize = 65_535;
const TAG_LEN: usize = 16;
/// Plain bytes in one Noise message.
const CHUNK: usize = MAX_NOISE_MESSAGE - TAG_LEN;

/// The cluster secret: 256 bits, from a file.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ClusterSecret(pub [u8; 32]);

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(redacted)")
    }
}

/// A request to another agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ControlRequest {
    /// The descriptor of a seed, and a token for a READ stream. Answer: `Descriptor`.
    Fetch {
        /// Which.
        seed: SeedId,
        /// The right to it.
        key: ForkKey,
        /// The seed is to end with the children that are started now.
        ends_with_children: bool,
    },
    /// A token for one more READ stream. Answer: `Token`.
    Token,
    /// BLAKE3 of mapped files, by index. Answer: `Digests`.
    Digests {
        /// Whose descriptor.
        seed: SeedId,
        /// The right to it.
        key: ForkKey,
        /// Indices into its table of files.
        files: Vec<u16>,
    },
    /// Start children there. Answer: `Started`, then events until all have ended.
    Resume(Box<ResumeRequest>),
    /// A signal for a child there. Answer: `Done`.
    Kill {
        /// Which.
        child: ChildId,
        /// signal(7) number.
        signal: i32,
    },
    /// On a lease, once `Dropping` was said there: no child of the seed is started here any more.
    Noted,
    /// What this agent is, for `mitosis doctor --peer`. Answer: `About`.
    About,
    /// This connection is the lease of a seed whose lease was lost: its agent was restarted, or the link was down.
    /// Answer: `Done`.
    Rejoin {
        /// Which.
        seed: SeedId,
        /// The right to it.
        key: ForkKey,
    },
}

/// An answer or an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ControlReply {
    /// Answer to `Fetch`.
    Descriptor {
        /// `descriptor::codec` bytes.
        bytes: Vec<u8>,
        /// Opens one READ stream.
        token: StreamToken,
        /// As the seed's parent sees them, when its host answered.
        clocks: Clocks,
        /// BLAKE3 of the mapped files that the seed's host knows already, by index.
        digests: Vec<Option<[u8; 32]>>,
        /// What of the seed lies in the arena by now, beyond what the descriptor says.
        arena: ArenaNews,
    },
    /// Answer to `Token`.
    Token(StreamToken),
    /// Answer to `Digests`, in the order asked; `None` where the file has changed or is gone.
    Digests(Vec<Option<[u8; 32]>>),
    /// Answer to `Resume`.
    Started {
        /// The children, in order.
        children: Vec<StartedChild>,
        /// How it went.
        report: StartReport,
    },
    /// Event: bytes that children wrote.
    Output {
        /// 1 or 2.
        stream: u8,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Event: a child has ended, all its output was sent.
    Exited {
        /// Which.
        child: ChildId,
        /// Its end.
        end: ChildEnd,
    },
    /// On a lease: the seed takes no new children; let go once the last one has ended. Answer: `Noted`.
    Dropping,
    /// On a lease: more of the seed lies in the arena.
    Arena(ArenaNews),
    /// Carried out.
    Done,
    /// Not carried out.
    Failed(Failure),
    /// Answer to `About`.
    About(About),
}

/// What an agent tells of itself to whoever knows the cluster secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Of its program.
    pub version: String,
    /// Its name for its host.
    pub host: String,
    /// Its host's kernel, as uname(2) says.
    pub kernel: String,
    /// Its CLOCK_REALTIME when it answered.
    pub realtime_ns: u64,
    /// The fabrics by which it can READ, the preferred one first; `tcp` is always there.
    pub fabrics: Vec<String>,
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer is no agent, or one of another major version.
    #[error(
        "the peer speaks control protocol {0}.{1}, this agent {MAJOR}.{MINOR}: run the same major version"
    )]
    Version(u16, u16),
    /// The handshake did not verify.
    #[error(
        "the peer's cluster secret differs: give both agents the same --secret-file (during a rotation \
         the new secret must be known everywhere before it is used) and the same major version of mitosis"
    )]
    Secret,
}

/// An encrypted, authenticated byte stream to another agent.
#[derive(Debug)]
pub struct Channel {
    sender: ChannelSender,
    receiver: ChannelReceiver,
}

/// The writing half.
pub struct ChannelSender {
    stream: TcpStream,
    noise: Arc<StatelessTransportState>,
    nonce: u64,
    cipher: Vec<u8>,
}

/// The reading half.
pub struct ChannelReceiver {
    stream: TcpStream,
    noise: Arc<StatelessTransportState>,
    nonce: u64,
    cipher: Vec<u8>,
    plain: Vec<u8>,
    taken: usize,
}

impl Channel {
    /// Greets the agent behind `stream`.
    ///
    /// # Errors
    /// See [`ChannelError`]; set the stream's timeouts before.
    pub fn connect(stream: TcpStream, secret: &ClusterSecret) -> Result<Self, ChannelError> {
        Self::connect_as(stream, secret, MINOR)
    }

    fn connect_as(
        mut stream: TcpStream,
        secret: &ClusterSecret,
        minor: u16,
    ) -> Result<Self, ChannelError> {
        socket::answer_at_once(&stream);
        let mut hello = [0u8; HELLO_LEN];
        hello[..8].copy_from_slice(&MAGIC);
        hello[8..10].copy_from_slice(&MAJOR.to_le_bytes());
        hello[10..].copy_from_slice(&minor.to_le_bytes());
        let mut noise =
            builder(secret, &hello).build_initiator().map_err(|_| ChannelError::Secret)?;
        let mut buffer = vec![0u8; 256];
        let len = noise.write_message(&[], &mut buffer).map_err(|_| ChannelError::Secret)?;
        let mut first = hello.to_vec();
        put_message(&mut first, &buffer[..len]);
        stream.write_all(&first)?;
        let answer = match take_message(&mut stream) {
            // A server that cannot verify the greeting hangs up without a word.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ChannelError::Secret);
            }
            other => other?,
        };
        noise.read_message(&answer, &mut buffer).map_err(|_| ChannelError::Secret)?;
        Self::establish(stream, noise)
    }

    /// Answers the agent behind `stream`, whose greeting has not been read yet, trying each secret.
    ///
    /// # Errors
    /// See [`ChannelError`]; set the stream's timeouts before.
    pub fn accept(stream: TcpStream, secrets: &[ClusterSecret]) -> Result<Self, ChannelError> {
        let mut stream = stream;
        socket::answer_at_once(&stream);
        let mut hello = [0u8; HELLO_LEN];
        stream.read_exact(&mut hello)?;
        let half = |at: usize| u16::from_le_bytes([hello[at], hello[at + 1]]);
        if hello[..8] != MAGIC || half(8) != MAJOR {
            return Err(ChannelError::Version(half(8), half(10)));
        }
        let first = take_message(&mut stream)?;
        let mut buffer = vec![0u8; 256];
        for secret in secrets {
            let mut noise =
                builder(secret, &hello).build_responder().map_err(|_| ChannelError::Secret)?;
            if noise.read_message(&first, &mut buffer).is_ok() {
                let len =
                    noise.write_message(&[], &mut buffer).map_err(|_| ChannelError::Secret)?;
                let mut answer = Vec::new();
                put_message(&mut answer, &buffer[..len]);
                stream.write_all(&answer)?;
                return Self::establish(stream, noise);
            }
        }
        Err(ChannelError::Secret)
    }

    fn establish(stream: TcpStream, noise: snow::HandshakeState) -> Result<Self, ChannelError> {
        let noise = noise.into_stateless_transport_mode().map_err(|_| ChannelError::Secret)?;
        let noise = Arc::new(noise);
        let sender = ChannelSender {
            stream: stream.try_clone()?,
            noise: noise.clone(),
            nonce: 0,
            cipher: Vec::new(),
        };
        let receiver = ChannelReceiver {
            stream,
            noise,
            nonce: 0,
            cipher: Vec::new(),
            plain: Vec::new(),
            taken: 0,
        };
        Ok(Channel { sender, receiver })
    }

    /// The socket, for timeouts and shutdown.
    pub fn stream(&self) -> &TcpStream {
        &self.receiver.stream
    }

    /// Two halves that may live on two threads.
    pub fn split(self) -> (ChannelSender, ChannelReceiver) {
        (self.sender, self.receiver)
    }
}

impl ChannelSender {
    /// The socket, for shutdown.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl Read for Channel {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.receiver.read(into)
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sender.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for ChannelSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = &bytes[..bytes.len().min(CHUNK)];
        if chunk.is_empty() {
            return Ok(0);
        }
        self.cipher.resize(2 + chunk.len() + TAG_LEN, 0);
        let len = self
            .noise
            .write_message(self.nonce, chunk, &mut self.cipher[2..])
            .map_err(|error| io::Error::other(error.to_string()))?;
        self.nonce += 1;
        self.cipher[..2].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
        self.stream.write_all(&self.cipher[..2 + len])?;
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for ChannelReceiver {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        // An empty message is no end of the stream.
        while self.taken == self.plain.len() {
            if !self.refill()? {
                return Ok(0);
            }
        }
        let count = into.len().min(self.plain.len() - self.taken);
        into[..count].copy_from_slice(&self.plain[self.taken..self.taken + count]);
        self.taken += count;
        Ok(count)
    }
}

impl ChannelReceiver {
    /// The socket, for timeouts.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Takes the next Noise message; false at the end of the stream.
    fn refill(&mut self) -> io::Result<bool> {
        let mut len = [0u8; 2];
        match self.stream.read(&mut len).map_err(in_time)? {
            0 => return Ok(false),
            got => read_exact(&mut self.stream, &mut len[got..])?,
        }
        self.cipher.resize(usize::from(u16::from_le_bytes(len)), 0);
        read_exact(&mut self.stream, &mut self.cipher)?;
        self.plain.resize(self.cipher.len(), 0);
        let count =
            self.noise.read_message(self.nonce, &self.cipher, &mut self.plain).map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, "a message was forged or damaged")
            })?;
        self.nonce += 1;
        self.plain.truncate(count);
        self.taken = 0;
        Ok(true)
    }
}

impl fmt::Debug for ChannelSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSender").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl fmt::Debug for ChannelReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelReceiver").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// The greeting in plain, magic and version, is what both must have seen alike.
fn builder<'a>(secret: &'a ClusterSecret, hello: &'a [u8; HELLO_LEN]) -> Builder<'a> {
    let pattern = PATTERN.parse().expect("the pattern is a constant that snow knows");
    Builder::new(pattern)
        .psk(0, &secret.0)
        .and_then(|builder| builder.prologue(hello))
        .expect("PSK slot 0 exists and takes 32 bytes, and there is one prologue")
}

fn put_message(into: &mut Vec<u8>, message: &[u8]) {
    into.extend_from_slice(&u16::try_from(message.len()).unwrap_or(u16::MAX).to_le_bytes());
    into.extend_from_slice(message);
}

fn take_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0u8; 2];
    read_exact(stream, &mut len)?;
    if usize::from(u16::from_le_bytes(len)) != HANDSHAKE_LEN {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "this is no handshake"));
    }
    let mut message = vec![0u8; HANDSHAKE_LEN];
    read_exact(stream, &mut message)?;
    Ok(message)
}

fn read_exact(stream: &mut TcpStream, into: &mut [u8]) -> io::Result<()> {
    stream.read_exact(into).map_err(in_time)
}

/// A deadline that has passed is told as that, and not by its errno (EAGAIN).
fn in_time(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::wire::frame;

    fn pair(
        client: [u8; 32],
        server: &[[u8; 32]],
    ) -> (Result<Channel, ChannelError>, Result<Channel, ChannelError>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let secrets: Vec<ClusterSecret> =
            server.iter().map(|bytes| ClusterSecret(*bytes)).collect();
        let accepting =
            thread::spawn(move || Channel::accept(listener.accept().unwrap().0, &secrets));
        let connected =
            Channel::connect(TcpStream::connect(address).unwrap(), &ClusterSecret(client));
        (connected, accepting.join().unwrap())
    }

    #[test]
    fn frames_of_any_length_cross() {
        let (client, server) = pair([1; 32], &[[1; 32]]);
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        for len in [0usize, 1, CHUNK - 4, CHUNK, 3 * CHUNK + 1] {
            let message = vec![7u8; len];
            let expected = message.clone();
            let sending = thread::spawn(move || {
                frame::write(&mut client, &message).unwrap();
                client
            });
            assert_eq!(frame::read::<Vec<u8>>(&mut server).unwrap(), expected);
            client = sending.join().unwrap();
        }
        drop(client);
        assert!(matches!(frame::read::<Vec<u8>>(&mut server), Err(frame::FrameError::Closed)));
    }

    #[test]
    fn an_empty_message_is_no_end() {
        let (client, server) = pair([1; 32], &[[1; 32]]);
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        let sender = &mut client.sender;
        sender.cipher.resize(TAG_LEN, 0);
        let len = sender.noise.write_message(sender.nonce, &[], &mut sender.cipher).unwrap();
        sender.nonce += 1;
        sender.stream.write_all(&u16::try_from(len).unwrap().to_le_bytes()).unwrap();
        sender.stream.write_all(&sender.cipher).unwrap();
        frame::write(&mut client, &7u32).unwrap();
        assert_eq!(frame::read::<u32>(&mut server).unwrap(), 7);
    }

    #[test]
    fn the_second_secret_is_accepted_and_a_third_is_not() {
        let (client, server) = pair([2; 32], &[[1; 32], [2; 32]]);
        assert!(client.is_ok() && server.is_ok());
        let (client, server) = pair([3; 32], &[[1; 32], [2; 32]]);
        assert!(matches!(client, Err(ChannelError::Secret)), "{client:?}");
        assert!(matches!(server, Err(ChannelError::Secret)), "{server:?}");
    }

    #[test]
    fn a_newer_minor_version_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let secret = || ClusterSecret([1; 32]);
        let newer = thread::spawn(move || {
            Channel::connect_as(TcpStream::connect(address).unwrap(), &secret(), MINOR + 1)
        });
        let accepted = Channel::accept(listener.accept().unwrap().0, &[secret()]);
        assert!(accepted.is_ok() && newer.join().unwrap().is_ok(), "{accepted:?}");
    }

    /// Who changes the version on its way cannot make two agents speak an older one than both know.
    #[test]
    fn a_greeting_that_was_changed_on_its_way_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let between = listener.local_addr().unwrap();
        let secret = || ClusterSecret([1; 32]);
        let client = thread::spawn(move || {
            Channel::connect(TcpStream::connect(between).unwrap(), &secret()).map(drop)
        });
        let mut greeting = [0; GREETING_LEN];
        let (mut from, _) = listener.accept().unwrap();
        from.read_exact(&mut greeting).unwrap();
        for (minor, good) in [(1, false), (MINOR.to_le_bytes()[0], true)] {
            greeting[10] = minor;
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut to = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            to.write_all(&greeting).unwrap();
            let accepted = Channel::accept(listener.accept().unwrap().0, &[secret()]);
            assert_eq!(accepted.is_ok(), good, "minor {minor}: {accepted:?}");
        }
        drop(from);
        assert!(matches!(client.join().unwrap(), Err(ChannelError::Secret)));
    }

    #[test]
    fn nothing_on_the_wire_is_plain() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let spy = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut seen = vec![0u8; HELLO_LEN];
            stream.read_exact(&mut seen).unwrap();
            seen.extend(take_message(&mut stream).unwrap());
            seen
        });
        let stream = TcpStream::connect(address).unwrap();
        assert!(
            Channel::connect(stream, &ClusterSecret(*b"a secret of exactly 32 bytes ok!")).is_err()
        );
        let seen = spy.join().unwrap();
        assert!(!seen.windows(8).any(|window| window == b"a secret"));
    }
}
