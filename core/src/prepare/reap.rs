//! Ended seeds are zombies without exit signal: only `waitpid(pid, __WALL)` by name takes them away. It
//! is done at the next prepare and at drop, never with pid -1.

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

/// Seeds that one process may have unreaped. One more is forgotten: it stays a zombie, unseen, until
/// the process ends.
const MAX_UNREAPED: usize = 1024;

static SEEDS: [AtomicI32; MAX_UNREAPED] = [const { AtomicI32::new(0) }; MAX_UNREAPED];

/// Remembers a seed of this process.
pub(super) fn remember(pid: i32) {
    for slot in &SEEDS {
        if slot.compare_exchange(0, pid, SeqCst, SeqCst).is_ok() {
            return;
        }
    }
}

/// Reaps the seeds that have ended.
pub(super) fn ended() {
    for slot in &SEEDS {
        let pid = slot.load(SeqCst);
        if pid != 0 && slot.compare_exchange(pid, 0, SeqCst, SeqCst).is_ok() && !gone(pid) {
            slot.store(pid, SeqCst);
        }
    }
}

/// Reaps this seed if it has ended; whether nothing of it is left.
pub(crate) fn one(pid: i32) -> bool {
    for slot in &SEEDS {
        if slot.compare_exchange(pid, 0, SeqCst, SeqCst).is_ok() {
            let gone = gone(pid);
            if !gone {
                slot.store(pid, SeqCst);
            }
            return gone;
        }
    }
    true
}

/// In a child of any fork: the seeds are the parent's.
pub(super) fn forget_all() {
    for slot in &SEEDS {
        if slot.load(SeqCst) != 0 {
            slot.store(0, SeqCst);
        }
    }
}

fn gone(pid: i32) -> bool {
    let mut status = 0;
    loop {
        // SAFETY: `status` is live; the pid is a child of ours that nobody else reaps.
        let answer = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::WNOHANG) };
        if answer == -1 && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
        {
            continue;
        }
        return answer != 0;
    }
}
