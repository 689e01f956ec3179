//! This process becomes a seed.
//!
//! Runs inside the runtime process: nothing here allocates after the fork, starts a thread or outlives
//! the call. See `docs/architecture.md`, "prepare".

pub mod report;

/// Written by a child's restore tail, read by libmitosis when it wakes up in the child. Lives in
/// libmitosis's own data; its address travels in the descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ResumeInfo {
    /// [`RESUME_MAGIC`], so that a restore onto the wrong address is noticed.
    pub magic: u64,
    /// [`ROLE_NONE`] in the seed; what this process is in a child.
    pub role: u32,
    /// Which of the `n` children of one resume this is, from 0.
    pub index: u32,
    /// Forks between this process and the first one.
    pub generation: u64,
    /// The seed it was resumed from.
    pub seed: u64,
    /// Its name on its host.
    pub child: u64,
    /// Payload: address (valid until libmitosis has copied it) and bytes.
    pub payload: (u64, u64),
    /// Environment changes, `NAME=VALUE\0...` (a bare `NAME\0` unsets): address and bytes.
    pub environment: (u64, u64),
}

/// "MITOSIS1".
pub const RESUME_MAGIC: u64 = u64::from_le_bytes(*b"MITOSIS1");
/// Not a child.
pub const ROLE_NONE: u32 = 0;
/// A child.
pub const ROLE_CHILD: u32 = 1;
/// A rehearsal child: runs until prepare() would return and then ends; the pages that it missed are
/// the ones to push.
pub const ROLE_REHEARSAL: u32 = 2;
/// Bytes of payload and environment together that one resume may carry.
pub const MAX_MAIL_BYTES: usize = 1 << 20;
