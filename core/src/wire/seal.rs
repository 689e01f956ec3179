//! READ streams whose bytes nobody on the path can read or change: how one is opened, and its records. Nothing here
//! touches a socket; `read_stream` does.
//!
//! ```text
//! client, once:   "MITOSEAL" u16 major  u16 minor  [16] token id  [48] Noise message: a key and a tag
//! server, once:   u32 status (0 = welcome), and behind a welcome  [48] Noise message
//!                 Noise_NNpsk0_25519_AESGCM_BLAKE2s, the stream token as PSK, the 28 bytes in plain as prologue
//! then, both:     records   u16 length  ciphertext: 1 to 16,384 bytes and a tag of 16
//! ```
//! What the records hold is a byte stream: that of `read`, behind its welcome. The token never crosses the network but
//! on control, so whoever completes the handshake was given it there: he is the peer that has the cluster secret. Its
//! id is a digest, by which the server finds it. Both sides change a direction's key after each [`REKEY_RECORDS`].

use std::fmt;

use snow::{Builder, HandshakeState, TransportState};

use crate::id::StreamToken;

/// First bytes of an encrypted stream; tells it from others on the same port.
pub const MAGIC: [u8; 8] = *b"MITOSEAL";
/// Version of this protocol: a peer with another major version is refused.
pub const MAJOR: u16 = 1;
/// Additions since.
pub const MINOR: u16 = 0;
/// Bytes of a Noise message of the handshake.
pub const HANDSHAKE_LEN: usize = 32 + TAG_LEN;
/// Bytes of the client's greeting.
pub const GREETING_LEN: usize = HELLO_LEN + HANDSHAKE_LEN;
/// Of them those in plain.
const HELLO_LEN: usize = 8 + 2 + 2 + ID_LEN;
/// Bytes by which a server finds a token.
const ID_LEN: usize = 16;
/// Bytes of a record's length.
pub const HEAD_LEN: usize = 2;
/// Bytes by which a record is longer than what it holds, beside its length.
pub const TAG_LEN: usize = 16;
/// Plain bytes in one record: as much as is opened at once, so that the first pages of a long answer are used while the
/// last ones are on their way; the answer to a READ of a page is one record.
pub const MAX_PLAIN: usize = 16 << 10;
/// Bytes of the longest record.
pub const MAX_RECORD: usize = HEAD_LEN + MAX_PLAIN + TAG_LEN;
/// Records of one direction under one key, at most 16 GiB: AES-GCM's bound for a key is some 2^24 records of this length
/// (RFC 8446, 5.5).
pub const REKEY_RECORDS: u64 = 1 << 20;

const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_BLAKE2s";
const ID_CONTEXT: &str = "mitosis/1/read-stream-token-id";

/// Whether a side opens, or serves, READ streams in plain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As the other side has it.
    #[default]
    Offered,
    /// No stream is opened or served in plain.
    Demanded,
}

/// Names a token without telling it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenId([u8; ID_LEN]);

impl TokenId {
    /// That of `token`.
    pub fn of(token: &StreamToken) -> Self {
        let mut id = [0; ID_LEN];
        id.copy_from_slice(&blake3::derive_key(ID_CONTEXT, &token.0)[..ID_LEN]);
        TokenId(id)
    }
}

/// Why there is no encrypted stream, or no more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The stream does not begin with [`MAGIC`].
    #[error("not an encrypted READ stream")]
    Magic,
    /// Another major version.
    #[error(
        "encrypted READ protocol {0}.{1}, and this side speaks {MAJOR}.{MINOR}: run the same version"
    )]
    Version(u16, u16),
    /// The other side does not know the token, or the handshake was changed on its way.
    #[error("the other side does not prove that it knows the stream's token")]
    Token,
    /// No record is so long.
    #[error("a record of {0} bytes; one has {TAG_LEN} and 1 to {MAX_PLAIN} more")]
    Length(usize),
    /// A record's tag is wrong.
    #[error("a record was forged or damaged")]
    Forged,
}

/// A client's greeting, parsed: the token is still to be found.
#[derive(Debug)]
pub struct Greeting {
    hello: [u8; HELLO_LEN],
    message: [u8; HANDSHAKE_LEN],
}

impl Greeting {
    /// Parses it.
    ///
    /// # Errors
    /// Not a greeting, or another major version's.
    pub fn parse(bytes: &[u8; GREETING_LEN]) -> Result<Self, SealError> {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if bytes[..8] != MAGIC {
            return Err(SealError::Magic);
        }
        if half(8) != MAJOR {
            return Err(SealError::Version(half(8), half(10)));
        }
        let mut greeting = Greeting { hello: [0; HELLO_LEN], message: [0; HANDSHAKE_LEN] };
        greeting.hello.copy_from_slice(&bytes[..HELLO_LEN]);
        greeting.message.copy_from_slice(&bytes[HELLO_LEN..]);
        Ok(greeting)
    }

    /// Which token it was made with.
    pub fn token_id(&self) -> TokenId {
        let mut id = [0; ID_LEN];
        id.copy_from_slice(&self.hello[HELLO_LEN - ID_LEN..]);
        TokenId(id)
    }

    /// The server's side of a stream that is opened by `token`, and the bytes behind its welcome.
    ///
    /// # Errors
    /// `Token`.
    pub fn accept(&self, token: &StreamToken) -> Result<(Seal, [u8; HANDSHAKE_LEN]), SealError> {
        let noise = builder(token, &self.hello).build_responder();
        let mut noise = noise.map_err(|_| SealError::Token)?;
        noise.read_message(&self.message, &mut []).map_err(|_| SealError::Token)?;
        let answer = handshake_message(&mut noise)?;
        Ok((Seal::new(noise)?, answer))
    }
}

/// A client between its greeting and the answer.
pub struct Greeted(HandshakeState);

impl fmt::Debug for Greeted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greeted").finish_non_exhaustive()
    }
}

/// The greeting that opens a stream by `token`.
///
/// # Errors
/// `Token`: the kernel gives no random bytes.
pub fn greet(token: &StreamToken) -> Result<([u8; GREETING_LEN], Greeted), SealError> {
    let mut bytes = [0; GREETING_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&MAJOR.to_le_bytes());
    bytes[10..12].copy_from_slice(&MINOR.to_le_bytes());
    bytes[12..HELLO_LEN].copy_from_slice(&TokenId::of(token).0);
    let (hello, message) = bytes.split_at_mut(HELLO_LEN);
    let noise = builder(token, hello).build_initiator();
    let mut noise = noise.map_err(|_| SealError::Token)?;
    message.copy_from_slice(&handshake_message(&mut noise)?);
    Ok((bytes, Greeted(noise)))
}

impl Greeted {
    /// The client's side of the stream, once the server's message is here.
    ///
    /// # Errors
    /// `Token`.
    pub fn answered(self, message: &[u8; HANDSHAKE_LEN]) -> Result<Seal, SealError> {
        let Greeted(mut noise) = self;
        noise.read_message(message, &mut []).map_err(|_| SealError::Token)?;
        Seal::new(noise)
    }
}

fn handshake_message(noise: &mut HandshakeState) -> Result<[u8; HANDSHAKE_LEN], SealError> {
    let mut message = [0; HANDSHAKE_LEN];
    match noise.write_message(&[], &mut message) {
        Ok(HANDSHAKE_LEN) => Ok(message),
        _ => Err(SealError::Token),
    }
}

fn builder<'a>(token: &'a StreamToken, hello: &'a [u8]) -> Builder<'a> {
    let pattern = PATTERN.parse().expect("the pattern is a constant that snow knows");
    Builder::new(pattern)
        .psk(0, &token.0)
        .and_then(|builder| builder.prologue(hello))
        .expect("PSK slot 0 exists and takes 32 bytes, and there is one prologue")
}

/// The keys of a stream, and how far each direction is.
pub struct Seal {
    noise: TransportState,
    rekey_records: u64,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

impl Seal {
    fn new(noise: HandshakeState) -> Result<Self, SealError> {
        let noise = noise.into_transport_mode().map_err(|_| SealError::Token)?;
        Ok(Seal { noise, rekey_records: REKEY_RECORDS })
    }

    /// Whether it is the side that asks.
    pub fn is_client(&self) -> bool {
        self.noise.is_initiator()
    }

    /// Makes a record of up to [`MAX_PLAIN`] bytes at the beginning of `record`, and tells how long it is.
    ///
    /// # Errors
    /// `Length`: `plain` is empty or too long, or `record` has no room.
    pub fn seal(&mut self, plain: &[u8], record: &mut [u8]) -> Result<usize, SealError> {
        let len = plain.len() + TAG_LEN;
        let told = u16::try_from(len).ok().filter(|_| (1..=MAX_PLAIN).contains(&plain.len()));
        let (Some(told), Some(room)) = (told, record.get_mut(HEAD_LEN..HEAD_LEN + len)) else {
            return Err(SealError::Length(len));
        };
        self.noise.write_message(plain, room).map_err(|_| SealError::Length(len))?;
        record[..HEAD_LEN].copy_from_slice(&told.to_le_bytes());
        if self.noise.sending_nonce().is_multiple_of(self.rekey_records) {
            self.noise.rekey_outgoing();
        }
        Ok(HEAD_LEN + len)
    }

    /// Opens the ciphertext of a record into `plain`, which is at least as long, and tells how much it held.
    ///
    /// # Errors
    /// `Forged`; the stream is of no use any more.
    pub fn open(&mut self, ciphertext: &[u8], plain: &mut [u8]) -> Result<usize, SealError> {
        let len = self.noise.read_message(ciphertext, plain).map_err(|_| SealError::Forged)?;
        if self.noise.receiving_nonce().is_multiple_of(self.rekey_records) {
            self.noise.rekey_incoming();
        }
        Ok(len)
    }
}

/// The ciphertext of the record at the beginning of `bytes`; `None` while it is cut short.
///
/// # Errors
/// `Length`: no continuation makes a record of it.
pub fn ciphertext_of(bytes: &[u8]) -> Result<Option<&[u8]>, SealError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_LEN>() else { return Ok(None) };
    let len = usize::from(u16::from_le_bytes(*head));
    if !(TAG_LEN + 1..=TAG_LEN + MAX_PLAIN).contains(&len) {
        return Err(SealError::Length(len));
    }
    Ok(rest.get(..len))
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
