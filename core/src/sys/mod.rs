//! Raw system calls, one noun a file. With `verbs`, `prepare`, `restorer` and `capi`, the only place
//! where unsafe code stands.
#![allow(unsafe_code)]

pub mod arch;
#[cfg(feature = "agent")]
pub mod event;
#[cfg(feature = "agent")]
pub mod fuse;
pub mod pagemap;
#[cfg(feature = "agent")]
pub mod sched;
pub mod scm;

/// Bytes in a page of this host.
pub fn page_size() -> u64 {
    // SAFETY: sysconf only reads.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).expect("every Linux tells its page size")
}
