//! Signals of the agent process.

use std::io;

/// SIGTERM and SIGINT, blocked: they wait until [`Termination::then`] takes them.
pub struct Termination(libc::sigset_t);

impl std::fmt::Debug for Termination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Termination(SIGTERM, SIGINT)")
    }
}

/// Blocks SIGTERM and SIGINT. Call it before any other thread is started: threads inherit the mask.
///
/// # Errors
/// pthread_sigmask(3)'s.
pub fn block_termination() -> io::Result<Termination> {
    // SAFETY: sigset_t is plain data that sigemptyset initialises; the set outlives each call.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
            0 => Ok(Termination(set)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Termination {
    /// Runs `act`, on a thread of its own, when one of them arrives.
    ///
    /// # Errors
    /// The thread's.
    pub fn then(self, act: impl FnOnce() + Send + 'static) -> io::Result<()> {
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut signal = 0;
            // SAFETY: the set and `signal` live through the call.
            while unsafe { libc::sigwait(&raw const self.0, &raw mut signal) } != 0 {}
            act();
        })?;
        Ok(())
    }
}
