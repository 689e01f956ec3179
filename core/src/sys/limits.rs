//! Resource limits: prlimit(2).

use std::io;

use crate::descriptor::process::RESOURCE_LIMITS;

/// Soft and hard limits of process `pid`, by resource number.
///
/// # Errors
/// prlimit(2)'s.
pub fn of(pid: u32) -> io::Result<Vec<(u64, u64)>> {
    let one = |resource: usize| {
        let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is written during the call alone, and no new limit is passed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_prlimit64,
                pid,
                resource,
                std::ptr::null::<libc::rlimit64>(),
                &raw mut limit,
            )
        };
        if result == 0 {
            Ok((limit.rlim_cur, limit.rlim_max))
        } else {
            Err(io::Error::last_os_error())
        }
    };
    (0..RESOURCE_LIMITS).map(one).collect()
}
