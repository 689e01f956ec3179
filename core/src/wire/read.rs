//! The READ stream: what a pager says to a page service over tcp. All numbers little-endian.
//!
//! ```text
//! client, once:   "MITOREAD" u16 major  u16 minor  [32] one-time stream token
//! server, once:   u32 status (0 = welcome)
//!
//! client:         u8 op  u8 0  u16 n_ranges  u32 tag  u64 seed  [16] read key
//!                 n_ranges x { u64 addr  u32 len  u32 0 }
//! server, READ:   u32 tag  u32 status  u64 len       then len bytes, the ranges back to back
//! server, PUSH:   u32 tag  u32 STATUS_PUSHED  u64 len   then u64 addr and len - 8 bytes of pages; repeated,
//!                 closed by u32 tag  u32 status  u64 0
//! ```
//!
//! A READ whose status is not [`STATUS_OK`] carries no bytes. Answers come in the order of the requests.

use crate::fabric::{MAX_RANGES, MAX_READ_BYTES};

/// First bytes of a stream; tells it from a control connection on the same port.
pub const MAGIC: [u8; 8] = *b"MITOREAD";
/// Version of this protocol: a peer with another major version is refused.
pub const MAJOR: u16 = 1;
/// Additions since.
pub const MINOR: u16 = 0;
/// Bytes of the client's greeting.
pub const GREETING_LEN: usize = 8 + 2 + 2 + 32;
/// Bytes of a request without its ranges.
pub const REQUEST_LEN: usize = 32;
/// Bytes of a range.
pub const RANGE_LEN: usize = 16;
/// Bytes of an answer without its pages.
pub const ANSWER_LEN: usize = 16;

/// READ the ranges.
pub const OP_READ: u8 = 1;
/// Push the seed's hot pages; no ranges.
pub const OP_PUSH: u8 = 2;

/// Done.
pub const STATUS_OK: u32 = 0;
/// A run of pushed pages.
pub const STATUS_PUSHED: u32 = 1;
/// The key is wrong, or the seed is dropped or revoked.
pub const STATUS_REVOKED: u32 = 2;
/// The range is not the seed's, or its bytes cannot be had.
pub const STATUS_BAD_RANGE: u32 = 3;
/// The request breaks this protocol; the server closes the stream.
pub const STATUS_PROTOCOL: u32 = 4;

const _: () = assert!(MAX_RANGES <= u16::MAX as usize && MAX_READ_BYTES <= u32::MAX as usize);
