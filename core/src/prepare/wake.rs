//! A child finds out what it has become.

use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use super::whole::environment;
use super::{MAX_MAIL_BYTES, RESUME_MAGIC, ROLE_NONE, ROLE_REHEARSAL, ResumeInfo};
use crate::descriptor::{Clocks, Loss, Losses};
use crate::id::{ChildId, SeedId};
use crate::sys::futex::{self, Reach};

/// What a child was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The seed that it was resumed from.
    pub seed: SeedId,
    /// Its name on its host.
    pub child: ChildId,
    /// Which of the children of one resume it is, from 0.
    pub index: u32,
    /// Forks between it and the first process.
    pub generation: u64,
    /// What `resume` gave.
    pub payload: Vec<u8>,
    /// It is a rehearsal: it must end before the user's code runs.
    pub rehearsal: bool,
    /// What CLOCK_MONOTONIC has jumped by, ns: 0 in a child that has its parent's clock, as ever where its host has time
    /// namespaces for it. Otherwise moments of that clock that were noted before are to be moved by it.
    pub clock_delta_ns: i64,
    /// Changes of the environment; already made.
    pub environment: Vec<(String, Option<String>)>,
    /// What the process had and this child has not, of files that are carried: for hooks that make it again.
    pub lost: Vec<Loss>,
}

static mut RESUME_INFO: ResumeInfo = ResumeInfo {
    magic: RESUME_MAGIC,
    role: ROLE_NONE,
    index: 0,
    generation: 0,
    seed: 0,
    child: 0,
    payload: (0, 0),
    environment: (0, 0),
    clock_delta_ns: 0,
};

/// Address and length of what a child is told of its losses, by its restore; zeros: it has none.
static mut LOSSES: [u64; 2] = [0; 2];

/// Of the process as it is now; 0 if it was never forked.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Forks between this process and the first one: 0 in a process that no resume has made.
pub fn generation() -> u64 {
    GENERATION.load(SeqCst)
}

/// For the report: where a restore writes. Called before the fork, for a child of a child.
pub(super) fn area() -> u64 {
    let info = &raw mut RESUME_INFO;
    // SAFETY: only this module touches it, under the turn to prepare.
    unsafe { (&raw mut (*info).role).write_volatile(ROLE_NONE) };
    info as usize as u64
}

/// For the report, as [`area`].
pub(super) fn losses_area() -> u64 {
    let losses = &raw mut LOSSES;
    // SAFETY: as above.
    unsafe { losses.write_volatile([0; 2]) };
    losses as usize as u64
}

/// Where the other threads of a whole process wait in a child while it is 0: children of an even generation
/// at the first, of an odd one at the second. A child that is prepared at once may have threads that have not
/// seen yet that theirs is open, and must not close it again.
static GATES: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

fn gate_of(generation: u64) -> &'static AtomicU32 {
    &GATES[usize::from(generation % 2 == 1)]
}

/// Of the next generation: for the report, and closed. Called before the seed is made.
pub(super) fn gate() -> u64 {
    let gate = gate_of(generation() + 1);
    gate.store(0, SeqCst);
    gate.as_ptr() as usize as u64
}

/// Lets the other threads of a child go on that was made of a whole process. Prepare has done it unless it
/// was told to leave it to its caller ([`super::PrepareOptions::holds_threads`]); once more, and anywhere
/// else, it does nothing.
pub fn release_threads() {
    let gate = gate_of(generation());
    gate.store(1, SeqCst);
    futex::wake(gate, Reach::Process);
    futex::wake(gate, Reach::Shared);
}

/// What a child was told, where it lies: nothing has been copied or allocated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told(ResumeInfo);

/// In the process that goes on from the freeze: what it is, `None` if nobody has resumed it.
pub(super) fn told() -> Option<Told> {
    // SAFETY: a restore has written it before this process ran; volatile, for the compiler knows no writer.
    let info = unsafe { (&raw const RESUME_INFO).read_volatile() };
    if info.magic != RESUME_MAGIC || info.role == ROLE_NONE {
        return None;
    }
    GENERATION.store(info.generation, SeqCst);
    Some(Told(info))
}

impl Told {
    pub(super) fn is_rehearsal(&self) -> bool {
        self.0.role == ROLE_REHEARSAL
    }

    /// What has passed of CLOCK_MONOTONIC since it told `then`, before the freeze; ns.
    pub(super) fn passed_since(&self, then: Clocks) -> u64 {
        let now = super::kept::clocks().monotonic_ns.wrapping_sub(self.0.clock_delta_ns);
        u64::try_from(now.wrapping_sub(then.monotonic_ns)).unwrap_or(0)
    }

    /// Makes the changes of the environment, without libc: other threads stand who may hold its locks.
    pub(super) fn change_environment(&self, is_told: bool) {
        let (addr, len) = self.0.environment;
        let (Ok(addr), Ok(len)) = (usize::try_from(addr), usize::try_from(len)) else { return };
        if addr != 0 && len <= MAX_MAIL_BYTES {
            // SAFETY: the restore vouches for its mail, and the other threads stand.
            unsafe {
                environment::change(std::slice::from_raw_parts(addr as *const u8, len), is_told)
            };
        }
    }

    /// Copied, for the program.
    pub(super) fn resumed(&self) -> Resumed {
        let info = &self.0;
        // SAFETY: the restore vouches for its mail, which stands until it has been copied.
        let (payload, changes) = unsafe { (mail(info.payload), mail(info.environment)) };
        // SAFETY: a restore has written it before this process ran, and vouches for its mail.
        let lost = unsafe {
            let [addr, len] = (&raw const LOSSES).read_volatile();
            Losses::of_mail(&mail((addr, len)))
        };
        Resumed {
            seed: SeedId(info.seed),
            child: ChildId(info.child),
            index: info.index,
            generation: info.generation,
            payload,
            rehearsal: self.is_rehearsal(),
            clock_delta_ns: info.clock_delta_ns,
            environment: parse_environment(&changes),
            lost,
        }
    }
}

/// In the process that fork() has answered 0: what it is, `None` if nobody has resumed it.
pub(super) fn up() -> Option<Resumed> {
    let resumed = told()?.resumed();
    for (name, value) in &resumed.environment {
        // SAFETY: after fork() this is the only thread, as its callers demand.
        unsafe {
            match value {
                Some(value) => std::env::set_var(name, value),
                None => std::env::remove_var(name),
            }
        }
    }
    Some(resumed)
}

/// Copies a piece of mail.
///
/// # Safety
/// Unless empty, it is that many readable bytes.
unsafe fn mail((addr, len): (u64, u64)) -> Vec<u8> {
    let (Ok(addr), Ok(len)) = (usize::try_from(addr), usize::try_from(len)) else {
        return Vec::new();
    };
    if addr == 0 || len == 0 || len > MAX_MAIL_BYTES {
        return Vec::new();
    }
    let mut bytes = vec![0u8; len];
    // SAFETY: the caller's; the vector is new memory.
    unsafe { ptr::copy_nonoverlapping(addr as *const u8, bytes.as_mut_ptr(), len) };
    bytes
}

/// `NAME=VALUE\0` sets, `NAME\0` unsets.
fn parse_environment(bytes: &[u8]) -> Vec<(String, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let change = |entry: &[u8]| match entry.iter().position(|byte| *byte == b'=') {
        Some(at) => (text(&entry[..at]), Some(text(&entry[at + 1..]))),
        None => (text(entry), None),
    };
    let entries = bytes.split(|byte| *byte == 0).map(change);
    entries.filter(|(name, _)| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_sets_and_unsets() {
        let some = |value: &str| Some(value.to_owned());
        assert_eq!(
            parse_environment(b"A=1\0B\0C=\0D=x=y\0=bad\0"),
            [
                ("A".to_owned(), some("1")),
                ("B".to_owned(), None),
                ("C".to_owned(), some("")),
                ("D".to_owned(), some("x=y"))
            ]
        );
        assert_eq!(parse_environment(b""), []);
    }

    #[test]
    fn nobody_has_resumed_a_test() {
        assert_eq!(up(), None);
        assert_ne!(area(), 0);
    }
}
