//! Masks and dispositions; SIGSYS, which prepare borrows.

use std::sync::atomic::AtomicBool;

use super::*;

pub(crate) fn signal_masks_and_dispositions() {
    handle(libc::SIGUSR1, count_signal as *const () as usize);
    handle(libc::SIGPIPE, libc::SIG_IGN);
    handle(60, count_signal as *const () as usize);
    block(&[libc::SIGUSR2, 60]);
    unchanged(signal_state);
    unchanged(|| (action(60), action(libc::SIGSYS)));
}

pub(crate) fn sigsys_handled_ignored_or_blocked() {
    for handler in [count_signal as *const () as usize, libc::SIG_IGN, libc::SIG_DFL] {
        handle(libc::SIGSYS, handler);
        unchanged(|| (action(libc::SIGSYS), signal_state()));
    }
    block(&[libc::SIGSYS]);
    unchanged(|| (action(libc::SIGSYS), signal_state()));
    assert_eq!(SIGNALS_SEEN.load(SeqCst), 0);
}

pub(crate) fn a_seccomp_trap_in_another_thread_reaches_its_handler() {
    static STOP: AtomicBool = AtomicBool::new(false);
    handle(libc::SIGSYS, count_signal as *const () as usize);
    let trapped = thread::spawn(|| {
        trap_getpgrp();
        let mut sent = 0u32;
        while !STOP.load(SeqCst) {
            // SAFETY: the filter turns it into SIGSYS.
            unsafe { libc::syscall(libc::SYS_getpgrp) };
            sent += 1;
        }
        sent
    });
    while SIGNALS_SEEN.load(SeqCst) == 0 {
        thread::yield_now();
    }
    for _ in 0..20 {
        drop_and_reap(seed());
    }
    STOP.store(true, SeqCst);
    assert_eq!(trapped.join().unwrap(), SIGNALS_SEEN.load(SeqCst));
}

/// A filter for the calling thread: getpgrp(2) raises SIGSYS.
fn trap_getpgrp() {
    filter(libc::SYS_getpgrp, None, libc::SECCOMP_RET_TRAP);
}
