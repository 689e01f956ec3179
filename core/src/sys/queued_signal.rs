//! What rides on a signal that sigqueue(3) and its kin send.

/// The kernel's siginfo_t of a queued signal.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueuedSignal {
    pub(crate) signal: i32,
    pub(crate) errno: i32,
    pub(crate) code: i32,
    pad: i32,
    pid: i32,
    uid: u32,
    pub(crate) value: u64,
    rest: [u64; 12],
}
const _: () = assert!(size_of::<QueuedSignal>() == 128);

impl QueuedSignal {
    /// Signal `signal` with `si_value` `value`, of nobody.
    pub(crate) fn new(signal: i32, value: u64) -> Self {
        QueuedSignal { signal, code: libc::SI_QUEUE, value, ..QueuedSignal::default() }
    }

    /// Sent by process `pid` of user `uid`.
    pub(crate) fn by(self, pid: i32, uid: u32) -> Self {
        QueuedSignal { pid, uid, ..self }
    }
}
