//! Signals that are pending while threads stand: a child of a whole process has them, too.
//!
//! Those of the process are taken by the caller, with all that was sent along, and queued again at once: no thread runs
//! meanwhile that could miss one. A thread's own ones only that thread could take: as after fork(2) they stay behind.

use std::ptr;

use super::table::Table;
use crate::sys::queued_signal::QueuedSignal;
use crate::sys::rawcall::{rawcall, signal_bit};

/// Signals of the process that are carried at most: as many are pending where nobody has looked for long.
const MAX_SIGNALS: usize = 256;
/// What libc keeps for itself, and what cannot be blocked.
const NOT_CARRIED: [i32; 4] = [libc::SIGKILL, libc::SIGSTOP, 32, 33];

/// Those of this process, as they were found; in a child they lie where they lay in its parent.
pub(super) struct Pending {
    /// Made before anybody stands.
    room: Box<[QueuedSignal]>,
    count: usize,
    /// Pending for the process.
    shared: u64,
}

impl Pending {
    pub(super) fn new() -> Pending {
        let room = vec![QueuedSignal::new(0, 0); MAX_SIGNALS].into_boxed_slice();
        Pending { room, count: 0, shared: 0 }
    }

    /// Looks while all threads of `table` stand, the caller's state included.
    pub(super) fn take(&mut self, table: &Table) {
        (self.count, self.shared) = (0, 0);
        // SAFETY: all of them have arrived, and nobody writes to the caller's.
        let (caller, parked) = unsafe { (table.caller().pending, table.parked()) };
        // What is pending for the process, each of its threads blocks, and sees.
        let seen = parked.fold(caller, |all, thread| all & thread.pending);
        let libcs = NOT_CARRIED.iter().fold(0, |set, signal| set | signal_bit(*signal));
        self.shared = seen & !libcs;
        if self.shared == 0 {
            return;
        }
        let at_once = [0u64; 2];
        while let Some(place) = self.room.get_mut(self.count) {
            // SAFETY: a set of eight bytes, a siginfo to be filled, a time.
            let signal = unsafe {
                rawcall!(
                    libc::SYS_rt_sigtimedwait,
                    &raw const self.shared,
                    ptr::from_mut(place),
                    at_once.as_ptr(),
                    8usize
                )
            };
            if signal <= 0 {
                break;
            }
            self.count += 1;
        }
        self.queue();
    }

    /// Sends what was taken, in its order: in the parent, and in a child, whose other threads stand. No allocation, no libc.
    pub(super) fn queue(&self) {
        for info in &self.room[..self.count] {
            // SAFETY: `info` lives; all threads of this process block the signal.
            unsafe {
                let process = rawcall!(libc::SYS_getpid);
                let (call, from) = (libc::SYS_rt_sigqueueinfo, ptr::from_ref(info));
                // Only a main thread may say that it was another's kill(2): others send their own.
                if rawcall!(call, process, info.signal, from) == -(libc::EPERM as isize) {
                    rawcall!(libc::SYS_kill, process, info.signal);
                }
            }
        }
    }
}
