//! Signals that a program takes on a thread of its own.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

/// The last that Linux has.
pub const LAST: i32 = 64;

/// What the kernel raises at the instruction that is to blame.
pub const FAULTS: [i32; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
];

/// Names that a signal may be given by.
pub const NAMES: [(&str, i32); 9] = [
    ("TERM", libc::SIGTERM),
    ("KILL", libc::SIGKILL),
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("STOP", libc::SIGSTOP),
    ("CONT", libc::SIGCONT),
];

/// A signal by its number, or by one of [`NAMES`] with or without SIG.
pub fn number(text: &str) -> Option<i32> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named.or_else(|| name.parse::<i32>().ok().filter(|number| (1..=LAST).contains(number)))
}

/// Signals that are blocked: they wait until [`Blocked::then`] or [`Blocked::each`] takes them.
pub struct Blocked {
    set: libc::sigset_t,
    before: libc::sigset_t,
}

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
        let mut before: libc::sigset_t = std::mem::zeroed();
        match libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before) {
            0 => Ok(Blocked { set, before }),
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
    /// Has `command`, when it is spawned, block what was blocked before.
    pub fn not_in(&self, command: &mut Command) {
        let before = self.before;
        let put_back = move || {
            // SAFETY: the set is this closure's own, and no old one is asked for.
            match unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut())
            } {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        };
        // SAFETY: it makes one system call, which may be made between fork and exec, and allocates nothing.
        unsafe { command.pre_exec(put_back) };
    }

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

    /// Runs `act`, on a thread of its own, for each that a process has sent, by its number. What the terminal
    /// sends it sends to the whole foreground group.
    ///
    /// # Errors
    /// The thread's.
    pub fn each_sent(self, mut act: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
        let take = move || loop {
            // SAFETY: plain data, for which all zero is a valid value.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: the set and `info` live through the call.
            let signal = unsafe { libc::sigwaitinfo(&raw const self.set, &raw mut info) };
            if signal > 0 && info.si_code <= 0 {
                act(signal);
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(take)?;
        Ok(())
    }

    fn next(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: the set and `signal` live through the call.
        while unsafe { libc::sigwait(&raw const self.set, &raw mut signal) } != 0 {}
        signal
    }
}
