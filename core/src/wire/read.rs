//! The READ stream: what a pager says to a page service over tcp. All numbers little-endian.
//!
//! ```text
//! client, once:   "MITOREAD" u16 major  u16 minor  [32] one-time stream token
//! server, once:   u32 status (0 = welcome)
//! instead of both: the greeting of an encrypted stream, in which all that follows lies (`seal`)
//!
//! client:         u8 op  u8 0  u16 n_ranges  u32 tag  u64 seed  [16] read key
//!                 n_ranges x { u64 addr  u32 len  u32 0 }    for PUSH: what need not be sent
//! server, READ:   u32 tag  u32 status  u64 len       then len bytes, the ranges back to back
//! server, PUSH:   u32 tag  u32 STATUS_PUSHED  u64 len   then u64 addr and len - 8 bytes of pages; repeated,
//!                 closed by u32 tag  u32 status  u64 0
//! ```
//!
//! A READ whose status is not [`STATUS_OK`] carries no bytes. Answers come in the order of the requests.
//! Whatever a peer sends becomes a type here, or is [`Malformed`]; no number of a peer's sizes an
//! allocation.

use crate::descriptor::{SeedAddr, SeedRange};
use crate::fabric::{MAX_RANGES, MAX_READ_BYTES};
use crate::id::{ReadKey, SeedId, StreamToken};

/// First bytes of a stream; tells it from a control connection on the same port.
pub const MAGIC: [u8; 8] = *b"MITOREAD";
/// Version of this protocol: a peer with another major version is refused.
pub const MAJOR: u16 = 1;
/// Additions since.
pub const MINOR: u16 = 0;
/// Bytes of the client's greeting.
pub const GREETING_LEN: usize = 8 + 2 + 2 + 32;
/// Bytes of the server's welcome.
pub const WELCOME_LEN: usize = 4;
/// Bytes of a request without its ranges.
pub const REQUEST_LEN: usize = 32;
/// Bytes of a range.
pub const RANGE_LEN: usize = 16;
/// Bytes of an answer without its pages.
pub const ANSWER_LEN: usize = 16;
/// Bytes of the address in front of pushed pages.
pub const PUSH_ADDR_LEN: usize = 8;
/// Bytes of the longest request.
pub const MAX_REQUEST_LEN: usize = REQUEST_LEN + MAX_RANGES * RANGE_LEN;
/// Bytes of pages in one answer of a push: small enough that storing begins while the rest is on its
/// way, large enough that the headers do not count.
pub const MAX_PUSH_BYTES: usize = 64 << 10;

/// READ the ranges.
pub const OP_READ: u8 = 1;
/// Push the seed's hot pages, but for the ranges.
pub const OP_PUSH: u8 = 2;

/// Done.
pub const STATUS_OK: u32 = 0;
/// A run of pushed pages.
pub const STATUS_PUSHED: u32 = 1;
/// The key is wrong, or the seed is dropped or revoked. As a welcome: the token is not good.
pub const STATUS_REVOKED: u32 = 2;
/// The range is not the seed's, or its bytes cannot be had.
pub const STATUS_BAD_RANGE: u32 = 3;
/// The request breaks this protocol; the server closes the stream.
pub const STATUS_PROTOCOL: u32 = 4;
/// The seed's process has ended; its bytes are gone.
pub const STATUS_ENDED: u32 = 5;
/// As a welcome: the server has as many streams as it takes; ask again later.
pub const STATUS_BUSY: u32 = 6;
/// As a welcome: the server serves encrypted streams alone (`seal`); the token was used up.
pub const STATUS_ENCRYPT: u32 = 7;

const _: () = assert!(MAX_RANGES <= u16::MAX as usize && MAX_READ_BYTES <= u32::MAX as usize);

/// How the other side answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// [`STATUS_OK`].
    Ok,
    /// [`STATUS_PUSHED`].
    Pushed,
    /// [`STATUS_REVOKED`].
    Revoked,
    /// [`STATUS_BAD_RANGE`].
    BadRange,
    /// [`STATUS_PROTOCOL`].
    Protocol,
    /// [`STATUS_ENDED`].
    Ended,
    /// [`STATUS_BUSY`].
    Busy,
    /// [`STATUS_ENCRYPT`].
    Encrypt,
}

impl Status {
    /// Its number on the wire.
    pub fn number(self) -> u32 {
        match self {
            Status::Ok => STATUS_OK,
            Status::Pushed => STATUS_PUSHED,
            Status::Revoked => STATUS_REVOKED,
            Status::BadRange => STATUS_BAD_RANGE,
            Status::Protocol => STATUS_PROTOCOL,
            Status::Ended => STATUS_ENDED,
            Status::Busy => STATUS_BUSY,
            Status::Encrypt => STATUS_ENCRYPT,
        }
    }

    fn parse(number: u32) -> Result<Self, Malformed> {
        Ok(match number {
            STATUS_OK => Status::Ok,
            STATUS_PUSHED => Status::Pushed,
            STATUS_REVOKED => Status::Revoked,
            STATUS_BAD_RANGE => Status::BadRange,
            STATUS_PROTOCOL => Status::Protocol,
            STATUS_ENDED => Status::Ended,
            STATUS_BUSY => Status::Busy,
            STATUS_ENCRYPT => Status::Encrypt,
            other => return Err(Malformed::Status(other)),
        })
    }
}

/// Why bytes are no message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The stream does not begin with [`MAGIC`].
    #[error("not a READ stream")]
    Magic,
    /// Another major version.
    #[error("READ protocol {0}.{1}, and this side speaks {MAJOR}.{MINOR}: run the same version")]
    Version(u16, u16),
    /// An operation that is not known.
    #[error("operation {0} is not known")]
    Op(u8),
    /// Too many ranges, or none for a READ.
    #[error("{0} ranges; a READ names 1 to {MAX_RANGES}, a push 0 to {MAX_RANGES}")]
    RangeCount(usize),
    /// A range is empty or wraps around.
    #[error("the range of {len} bytes at {addr} is empty or wraps around")]
    Range {
        /// Its first byte.
        addr: SeedAddr,
        /// Its length.
        len: u32,
    },
    /// The ranges together are too long.
    #[error("more than {MAX_READ_BYTES} bytes in one READ")]
    TooLong,
    /// A field that must be zero is not.
    #[error("a field that must be zero is not")]
    Reserved,
    /// A status that is not known.
    #[error("status {0} is not known")]
    Status(u32),
    /// An answer's length does not fit its status.
    #[error("an answer of {0} bytes does not fit its status")]
    Length(u64),
}

/// A request, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Comes back with the answer.
    pub tag: u32,
    /// Whose bytes.
    pub seed: SeedId,
    /// What gives the right to them.
    pub key: ReadKey,
    /// What is asked for.
    pub ask: Ask,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "lives on a stack; a box would be an allocation")]
pub enum Ask {
    /// The bytes of these ranges.
    Read(Ranges),
    /// The seed's hot pages, less these ranges; at most [`MAX_RANGES`].
    Push(Vec<SeedRange>),
}

/// The ranges of a READ: 1 to [`MAX_RANGES`], none empty, at most [`MAX_READ_BYTES`] together.
#[derive(Clone)]
pub struct Ranges {
    count: usize,
    list: [(SeedAddr, u32); MAX_RANGES],
    bytes: usize,
}

impl Ranges {
    /// The ranges.
    pub fn list(&self) -> &[(SeedAddr, u32)] {
        &self.list[..self.count]
    }

    /// Bytes in all of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl PartialEq for Ranges {
    fn eq(&self, other: &Self) -> bool {
        self.list() == other.list()
    }
}

impl Eq for Ranges {}

impl std::fmt::Debug for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// An answer's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The request's.
    pub tag: u32,
    /// How it ended.
    pub status: Status,
    /// Bytes that follow: at most [`MAX_READ_BYTES`].
    pub len: usize,
}

/// Bytes in all of `ranges`, if one READ may name them.
///
/// # Errors
/// What no READ may name; see [`Malformed`].
pub fn bytes_of(ranges: &[(SeedAddr, u32)]) -> Result<usize, Malformed> {
    if !(1..=MAX_RANGES).contains(&ranges.len()) {
        return Err(Malformed::RangeCount(ranges.len()));
    }
    let mut bytes = 0u64;
    for &(addr, len) in ranges {
        if len == 0 || addr.0.checked_add(u64::from(len)).is_none() {
            return Err(Malformed::Range { addr, len });
        }
        bytes += u64::from(len);
    }
    usize::try_from(bytes).ok().filter(|&bytes| bytes <= MAX_READ_BYTES).ok_or(Malformed::TooLong)
}

/// The client's first bytes.
pub fn encode_greeting(token: &StreamToken) -> [u8; GREETING_LEN] {
    let mut bytes = [0u8; GREETING_LEN];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..10].copy_from_slice(&MAJOR.to_le_bytes());
    bytes[10..12].copy_from_slice(&MINOR.to_le_bytes());
    bytes[12..].copy_from_slice(&token.0);
    bytes
}

/// The token of a greeting.
///
/// # Errors
/// Not a greeting, or another major version's.
pub fn parse_greeting(bytes: &[u8; GREETING_LEN]) -> Result<StreamToken, Malformed> {
    if bytes[..8] != MAGIC {
        return Err(Malformed::Magic);
    }
    let (major, minor) = (u16_at(bytes, 8), u16_at(bytes, 10));
    if major != MAJOR {
        return Err(Malformed::Version(major, minor));
    }
    Ok(StreamToken(array_at(bytes, 12)))
}

/// The server's first bytes.
pub fn encode_welcome(status: Status) -> [u8; WELCOME_LEN] {
    status.number().to_le_bytes()
}

/// What a welcome says.
///
/// # Errors
/// A status that is not known.
pub fn parse_welcome(bytes: [u8; WELCOME_LEN]) -> Result<Status, Malformed> {
    Status::parse(u32::from_le_bytes(bytes))
}

/// Appends a READ of `ranges`, which [`bytes_of`] has accepted.
pub fn encode_read(
    out: &mut Vec<u8>,
    tag: u32,
    seed: SeedId,
    key: &ReadKey,
    ranges: &[(SeedAddr, u32)],
) {
    debug_assert!(bytes_of(ranges).is_ok());
    encode_head(out, OP_READ, ranges.len(), tag, seed, key);
    for (addr, len) in ranges {
        out.extend_from_slice(&addr.0.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
}

/// Appends a request for the push, less what lies in `holes` (what is there already), of which at most
/// [`MAX_RANGES`] are told.
pub fn encode_push(out: &mut Vec<u8>, tag: u32, seed: SeedId, key: &ReadKey, holes: &[SeedRange]) {
    let holes = &holes[..holes.len().min(MAX_RANGES)];
    encode_head(out, OP_PUSH, holes.len(), tag, seed, key);
    for hole in holes {
        out.extend_from_slice(&hole.start.0.to_le_bytes());
        out.extend_from_slice(&u32::try_from(hole.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }
}

fn parse_holes(bytes: &[u8]) -> Result<Vec<SeedRange>, Malformed> {
    let hole = |range: &[u8]| {
        let (addr, len) = parse_range(range)?;
        match addr.0.checked_add(u64::from(len)) {
            Some(end) if len > 0 => Ok(SeedRange::new(addr.0, end)),
            _ => Err(Malformed::Range { addr, len }),
        }
    };
    bytes.chunks_exact(RANGE_LEN).map(hole).collect()
}

fn parse_range(bytes: &[u8]) -> Result<(SeedAddr, u32), Malformed> {
    if u32_at(bytes, 12) != 0 {
        return Err(Malformed::Reserved);
    }
    Ok((SeedAddr(u64_at(bytes, 0)), u32_at(bytes, 8)))
}

fn encode_head(out: &mut Vec<u8>, op: u8, ranges: usize, tag: u32, seed: SeedId, key: &ReadKey) {
    let ranges = u16::try_from(ranges).unwrap_or(u16::MAX);
    out.extend_from_slice(&[op, 0]);
    out.extend_from_slice(&ranges.to_le_bytes());
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&seed.0.to_le_bytes());
    out.extend_from_slice(&key.0);
}

/// The request at the beginning of `bytes` and its length; `None` while it is cut short. Never asks for
/// more than [`MAX_REQUEST_LEN`] bytes.
///
/// # Errors
/// Bytes that no continuation makes a request.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Request, usize)>, Malformed> {
    let Some(head) = bytes.get(..REQUEST_LEN) else { return Ok(None) };
    let count = usize::from(u16_at(head, 2));
    match (head[0], count) {
        (OP_READ, 1..=MAX_RANGES) | (OP_PUSH, 0..=MAX_RANGES) => {}
        (OP_READ | OP_PUSH, _) => return Err(Malformed::RangeCount(count)),
        (op, _) => return Err(Malformed::Op(op)),
    }
    if head[1] != 0 {
        return Err(Malformed::Reserved);
    }
    let end = REQUEST_LEN + count * RANGE_LEN;
    let Some(tail) = bytes.get(REQUEST_LEN..end) else { return Ok(None) };
    let ask = match head[0] {
        OP_PUSH => Ask::Push(parse_holes(tail)?),
        _ => Ask::Read(parse_ranges(tail)?),
    };
    let request = Request {
        tag: u32_at(head, 4),
        seed: SeedId(u64_at(head, 8)),
        key: ReadKey(array_at(head, 16)),
        ask,
    };
    Ok(Some((request, end)))
}

fn parse_ranges(bytes: &[u8]) -> Result<Ranges, Malformed> {
    let mut ranges = Ranges { count: 0, list: [(SeedAddr(0), 0); MAX_RANGES], bytes: 0 };
    for (range, slot) in bytes.chunks_exact(RANGE_LEN).zip(&mut ranges.list) {
        *slot = parse_range(range)?;
        ranges.count += 1;
    }
    ranges.bytes = bytes_of(ranges.list())?;
    Ok(ranges)
}

/// An answer's header; `len` bytes must follow it.
pub fn encode_answer(tag: u32, status: Status, len: usize) -> [u8; ANSWER_LEN] {
    let mut bytes = [0u8; ANSWER_LEN];
    bytes[..4].copy_from_slice(&tag.to_le_bytes());
    bytes[4..8].copy_from_slice(&status.number().to_le_bytes());
    bytes[8..].copy_from_slice(&(len as u64).to_le_bytes());
    bytes
}

/// Parses an answer's header.
///
/// # Errors
/// A status that is not known, or a length that does not fit it.
pub fn parse_answer(bytes: &[u8; ANSWER_LEN]) -> Result<Answer, Malformed> {
    let status = Status::parse(u32_at(bytes, 4))?;
    let len = u64_at(bytes, 8);
    let limit = match status {
        Status::Ok => MAX_READ_BYTES,
        Status::Pushed => PUSH_ADDR_LEN + MAX_PUSH_BYTES,
        _ => 0,
    };
    let fits = usize::try_from(len).ok().filter(|&len| len <= limit);
    let len = fits.filter(|&len| status != Status::Pushed || len > PUSH_ADDR_LEN);
    let len = len.ok_or(Malformed::Length(u64_at(bytes, 8)))?;
    Ok(Answer { tag: u32_at(bytes, 0), status, len })
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0u8; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
