//! Raw system calls, one noun a file. With `verbs`, `prepare`, `restorer` and `capi`, the only place
//! where unsafe code stands.
#![allow(unsafe_code)]

pub mod arch;
pub mod clock;
pub(crate) mod dispatch;
pub(crate) mod local_socket;
pub mod pagemap;
pub(crate) mod rawcall;
pub(crate) mod readiness;
pub mod scm;
pub(crate) mod spawn;

/// Bytes in a page of this host.
pub fn page_size() -> u64 {
    // SAFETY: sysconf only reads.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).expect("every Linux tells its page size")
}
