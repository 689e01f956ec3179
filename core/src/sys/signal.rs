//! Signals that a program takes on a thread of its own.

use std::io;
use std::ptr;

/// Signals that are blocked: they wait until [`Blocked::then`] or [`Blocked::each`] takes them.
pub struct Blocked(libc::sigset_t);

impl std::fmt::Debug for Blocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Blocked")
    }
}

/// Blocks `signals`, but those that whoever started this program has it ignore (nohup). Call it before any
/// other thread is started: threads inherit the mask.
///
/// # Errors
/// pthread_sigmask(3)'s.
pub fn block(signals: &[i32]) -> io::Result<Blocked> {
    // SAFETY: sigset_t is plain data that sigemptyset initialises; the set outlives each call.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals.iter().filter(|signal| !is_ignored(**signal)) {
            libc::sigaddset(&raw mut set, *signal);
        }
        match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) {
            0 => Ok(Blocked(set)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: sigaction is plain data; the call only asks.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let asked = libc::sigaction(signal, ptr::null(), &raw mut action);
        asked == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

impl Blocked {
    /// Runs `act`, on a thread of its own, when one of them arrives.
    ///
    /// # Errors
    /// The thread's.
    pub fn then(self, act: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let take = move || {
            self.next();
            act();
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(take)?;
        Ok(())
    }

    /// Runs `act`, on a thread of its own, for each that arrives, by its number.
    ///
    /// # Errors
    /// The thread's.
    pub fn each(self, act: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
        let take = move || std::iter::repeat_with(|| self.next()).for_each(act);
        std::thread::Builder::new().name("signals".to_owned()).spawn(take)?;
        Ok(())
    }

    fn next(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: the set and `signal` live through the call.
        while unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } != 0 {}
        signal
    }
}
