//! What a seed's report says of open files that are to be carried: raw, as the kernel told it. `describe`
//! makes sense of it.

use super::report::{numbers, text};

/// One descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportedFile {
    /// Its number.
    pub fd: u32,
    /// st_mode.
    pub mode: u32,
    /// st_dev and st_ino.
    pub dev_ino: (u64, u64),
    /// st_size.
    pub size: u64,
    /// st_rdev.
    pub device: u64,
    /// F_GETFD.
    pub close_on_exec: bool,
    /// Of a pipe F_GETPIPE_SZ, of a regular file F_GET_SEALS.
    pub extra: u32,
    /// Whether its inode has a name.
    pub is_unlinked: bool,
    /// proc_pid_fdinfo(5).
    pub info: String,
    /// What lies in it.
    pub content: Option<ReportedContent>,
    /// If it is a socket.
    pub socket: Option<ReportedSocket>,
    /// Settings and size of a terminal.
    pub terminal: Option<Vec<u8>>,
    /// Of an epoll, what is open by another number than it is watched by: that number, which of those watched by it, and the
    /// other one.
    pub watched_by: Vec<(u32, u32, u32)>,
    /// A lower number that leads to the same open file description.
    pub same_as: Option<u32>,
}

/// What lies in a pipe, a socket or an unnamed file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportedContent {
    /// All that lies there, in bytes.
    pub total: u64,
    /// Descriptors are on their way, too.
    pub has_descriptors: bool,
    /// As many of the bytes as a report takes.
    pub bytes: Vec<u8>,
    /// Lengths of the packets that they are; none: one, or a stream.
    pub packets: Vec<u32>,
}

/// A socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportedSocket {
    /// SO_DOMAIN.
    pub domain: u32,
    /// SO_TYPE.
    pub socket_type: u32,
    /// SO_PROTOCOL.
    pub protocol: u32,
    /// Bits of [`socket_bit`].
    pub bits: u64,
    /// listen(2)'s argument, 0 if unknown.
    pub backlog: u32,
    /// The inode of the other end of a unix socket's connection; 0 if unknown.
    pub peer_inode: u64,
    /// getsockname(2).
    pub name: Vec<u8>,
    /// getpeername(2).
    pub peer: Vec<u8>,
}

impl ReportedSocket {
    /// Whether a bit is set.
    pub fn has(&self, bit: u64) -> bool {
        self.bits & bit != 0
    }
}

/// Bits of [`ReportedSocket::bits`].
pub mod socket_bit {
    /// SO_ACCEPTCONN.
    pub const LISTENS: u64 = 1;
    /// SO_REUSEADDR.
    pub const REUSE_ADDRESS: u64 = 2;
    /// SO_REUSEPORT.
    pub const REUSE_PORT: u64 = 4;
    /// IPV6_V6ONLY.
    pub const V6_ONLY: u64 = 8;
    /// TCP_NODELAY.
    pub const NO_DELAY: u64 = 16;
    /// SO_KEEPALIVE.
    pub const KEEP_ALIVE: u64 = 32;
    /// getpeername(2) succeeds.
    pub const CONNECTED: u64 = 64;
    /// Of TCP: it neither listens nor connects.
    pub const IDLE: u64 = 128;
}

/// `tag::FILE`.
pub(super) fn file(record: &[u8]) -> Option<ReportedFile> {
    let n = numbers(record, 9)?;
    Some(ReportedFile {
        fd: u32::try_from(n[0]).ok()?,
        mode: u32::try_from(n[1]).ok()?,
        dev_ino: (n[2], n[3]),
        size: n[4],
        device: n[5],
        close_on_exec: n[6] != 0,
        extra: u32::try_from(n[7]).ok()?,
        is_unlinked: n[8] != 0,
        info: text(record.get(72..)?),
        ..ReportedFile::default()
    })
}

/// `tag::CONTENT`, of the file `fd`.
pub(super) fn content(record: &[u8]) -> Option<(u32, ReportedContent)> {
    let n = numbers(record, 3)?;
    let all = record.get(24..)?;
    let lengths = usize::try_from(n[2] >> 1).ok()?.checked_mul(4)?;
    let (bytes, lengths) = all.split_at(all.len().checked_sub(lengths)?);
    let (lengths, _) = lengths.as_chunks::<4>();
    let content = ReportedContent {
        total: n[1],
        has_descriptors: n[2] & 1 != 0,
        bytes: bytes.to_vec(),
        packets: lengths.iter().map(|length| u32::from_le_bytes(*length)).collect(),
    };
    Some((u32::try_from(n[0]).ok()?, content))
}

/// `tag::SOCKET`, of the file `fd`.
pub(super) fn socket(record: &[u8]) -> Option<(u32, ReportedSocket)> {
    let n = numbers(record, 8)?;
    let addresses = record.get(64..)?;
    let (name, peer) = addresses.split_at_checked(usize::try_from(n[7]).ok()?)?;
    let word = |at: usize| u32::try_from(n[at]).ok();
    let socket = ReportedSocket {
        domain: word(1)?,
        socket_type: word(2)?,
        protocol: word(3)?,
        bits: n[4],
        backlog: word(5)?,
        peer_inode: n[6],
        name: name.to_vec(),
        peer: peer.to_vec(),
    };
    Some((word(0)?, socket))
}
