//! Raw system calls, one noun a file. With `verbs`, `prepare`, `restorer` and `capi`, the only place
//! where unsafe code stands.
#![allow(unsafe_code)]

pub mod arch;
pub mod clock;
pub mod clone3;
pub mod credentials;
pub(crate) mod dispatch;
#[cfg(feature = "agent")]
pub mod enter;
#[cfg(feature = "agent")]
pub mod event;
#[cfg(feature = "agent")]
pub mod fd_table;
#[cfg(feature = "agent")]
pub(crate) mod file_handle;
#[cfg(feature = "agent")]
pub mod fuse;
pub(crate) mod futex;
pub mod limits;
#[cfg(feature = "agent")]
pub mod listening;
pub(crate) mod local_socket;
#[cfg(feature = "agent")]
pub mod lock;
pub(crate) mod namespace;
pub(crate) mod netns;
#[cfg(feature = "agent")]
pub(crate) mod nsfs;
pub mod openssl;
pub mod pagemap;
pub mod pidfd;
pub mod poll;
#[cfg(feature = "agent")]
pub mod process_memory;
pub(crate) mod queued_signal;
pub(crate) mod rawcall;
pub(crate) mod readiness;
#[cfg(feature = "agent")]
pub mod sched;
pub mod scm;
pub mod signal;
pub mod socket;
pub(crate) mod spawn;
pub mod timens;
#[cfg(feature = "agent")]
pub(crate) mod user_namespace;
pub mod wait;
pub(crate) mod xattr;

/// Bytes in a page of this host.
pub fn page_size() -> u64 {
    // SAFETY: sysconf only reads.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).expect("every Linux tells its page size")
}

/// The effective user id.
pub fn user_id() -> u32 {
    // SAFETY: geteuid only reads and cannot fail.
    unsafe { libc::geteuid() }
}
