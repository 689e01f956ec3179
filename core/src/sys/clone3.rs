//! clone3(2).

use std::io;

/// Which side of a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The caller; the child's pid.
    Parent(u32),
    /// The new process.
    Child,
}

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;

/// Forks without libc: no at-fork handler runs, no tid is cached. The child's signal handlers are the
/// default ones; its end sends SIGCHLD, and so does that of every child that it clones with
/// CLONE_PARENT.
///
/// # Errors
/// clone(2)'s; `InvalidInput` when this process has several threads: the child would hold locks whose
/// owners are not in it.
pub fn fork_with_default_signals() -> io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a single-threaded process"));
    }
    let args: [u64; 8] = [CLONE_CLEAR_SIGHAND, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    // SAFETY: a copy of a single-threaded process is a whole process; `args` is a struct clone_args of the
    // first version, which lives until the call returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    match pid {
        0 => Ok(Fork::Child),
        pid => u32::try_from(pid).map(Fork::Parent).map_err(|_| io::Error::last_os_error()),
    }
}
