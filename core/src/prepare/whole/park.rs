//! Stopping every other thread, and letting all of them go.
//!
//! ```text
//!  list /proc/self/task > ask who is new > wait until all have entered themselves > list again > nobody new
//!                                             └ every 2 ms: gone? the kernel's? blocks the signal? (open.rs)
//! ```
//! Threads that the kernel runs for an io_uring (iou-sqp-*, iou-wrk-*) are listed with ours, block all that they may,
//! and have no code of their own: they are passed over, as they are no threads of a child. They are looked at when they have
//! not come, for a look at each thread costs more than asking it.
//!
//! From the first question on nothing here allocates or takes a lock: whoever holds it may be parked.

use std::sync::atomic::Ordering::SeqCst;

use super::failure::{self, Stopped};
use super::faults;
use super::open;
use super::signal;
use super::table::{DISPATCHED, GONE, OPENED, REFUSED, Slot, Table, WANTED};
use crate::descriptor::MAX_THREADS;
use crate::prepare::proc_files::{close, each_entry, open as open_file, own_entry, read_file};
use crate::prepare::proc_text::{Path, decimal, own_number, status};
use crate::sys::futex::{self, Reach};
use crate::sys::rawcall::{rawcall, signal_bit};

/// Between two looks at what keeps the threads that have not come.
const LOOK_NS: u64 = 2_000_000;
/// How long a thread may block the signal where ptrace(2) is refused: one that starts or ends does so for
/// some microseconds.
const BLOCKED_NS: u64 = 50_000_000;
/// `Slot::opened`, until another thread has the slot: it is a thread of the kernel's.
const KERNELS: u32 = 5;
/// Of a thread's flags, in proc_pid_stat(5): it works for an io_uring.
const PF_IO_WORKER: u64 = 0x10;

/// One attempt.
pub(super) struct Parking<'a> {
    table: &'a Table,
    round: u32,
    process: isize,
    own: u64,
    /// /proc is mounted for another pid namespace than ours, as in a child with its seed's numbers.
    translates: bool,
    deadline: u64,
    /// Slots in use, and how many of them wait for no thread any more.
    used: usize,
    gone: u32,
    /// A directory's entries, a file's text.
    entries: &'a mut [u8],
    text: &'a mut [u8],
}

/// Why threads go on running.
pub(super) type Reason = Stopped;

impl<'a> Parking<'a> {
    /// Of this thread, which has blocked all signals, until `deadline` (see [`now`]). `work` is 48 KiB or more.
    pub(super) fn new(table: &'a Table, round: u32, deadline: u64, work: &'a mut [u8]) -> Self {
        // SAFETY: both take nothing.
        let (process, own) = unsafe { (rawcall!(libc::SYS_getpid), rawcall!(libc::SYS_gettid)) };
        let own = own.unsigned_abs() as u64;
        let (entries, text) = work.split_at_mut(32 << 10);
        let translates = own_entry(text).is_some_and(|entry| entry != own);
        Parking {
            table,
            round,
            process,
            own,
            translates,
            deadline,
            used: 0,
            gone: 0,
            entries,
            text,
        }
    }

    /// Parks all of them, or says who did not come. [`release`] must follow in either case.
    pub(super) fn all(&mut self) -> Result<(), Reason> {
        signal::take_over();
        while self.ask_new()? {
            self.wait()?;
        }
        // Everybody has come, so nobody has a signal of ours still to come.
        signal::give_back();
        Ok(())
    }

    /// Asks the threads that have not been asked; whether there were any.
    fn ask_new(&mut self) -> Result<bool, Reason> {
        let directory = open_file(c"/proc/self/task".as_ptr().cast(), libc::O_DIRECTORY);
        if directory < 0 {
            return Err(failure::no_proc(directory));
        }
        let before = self.used;
        let mut outcome = Ok(());
        let (table, round, process, own) = (self.table, self.round, self.process, self.own);
        let (used, gone, text) = (&mut self.used, &mut self.gone, &mut *self.text);
        let translates = self.translates;
        let listed = each_entry(directory, self.entries, &mut |name| {
            let Some(in_proc) = decimal(name) else { return };
            let tid = match translates {
                true => number_here(in_proc, text).unwrap_or_else(|answer| {
                    outcome = Err(failure::no_proc(answer));
                    None
                }),
                false => Some(in_proc),
            };
            let Some(tid) = tid.filter(|tid| *tid != own) else { return };
            let (Ok(tid), Ok(in_proc)) = (u32::try_from(tid), u32::try_from(in_proc)) else {
                return;
            };
            if outcome.is_err() || table.tids[..*used].iter().any(|at| at.load(SeqCst) == tid) {
                return;
            }
            let Some(slot) = table.slots.get(*used) else {
                outcome = Err(failure::plain(failure::Kind::TooMany));
                return;
            };
            let was_kernels =
                slot.opened.load(SeqCst) == KERNELS && table.tids[*used].load(SeqCst) == tid;
            prepare_slot(table, slot, *used, (tid, in_proc), round);
            // Nobody takes the signals that would be left with it, one a prepare.
            if was_kernels && is_kernels(in_proc, text) {
                slot.opened.store(KERNELS, SeqCst);
                slot.claim.store(GONE, SeqCst);
                *used += 1;
                *gone += 1;
                return;
            }
            match signal::ask(process, tid, round, *used) {
                0 => *used += 1,
                // It has just ended.
                answer if answer == -(libc::ESRCH as isize) => {
                    slot.claim.store(GONE, SeqCst);
                    *used += 1;
                    *gone += 1;
                }
                answer => outcome = Err(failure::of(failure::Kind::NotAsked, tid, answer)),
            }
        });
        close(directory);
        self.table.used.store(u32::try_from(self.used).unwrap_or(0), SeqCst);
        outcome.and(listed.map_err(failure::no_proc)).map(|()| self.used > before)
    }

    /// Until every thread that was asked has entered itself or is gone.
    fn wait(&mut self) -> Result<(), Reason> {
        let began = now();
        let mut looked = began;
        loop {
            let expected = u32::try_from(self.used).unwrap_or(0) - self.gone;
            self.table.expected.store(expected, SeqCst);
            let arrived = self.table.arrived.load(SeqCst);
            if arrived == expected {
                return Ok(());
            }
            let time = now();
            if time >= self.deadline {
                return Err(self.latecomer());
            }
            if time >= looked + LOOK_NS {
                self.look(time - began)?;
                looked = now();
                continue;
            }
            let left = (looked + LOOK_NS).min(self.deadline) - time;
            futex::wait(&self.table.arrived, arrived, Some(left), Reach::Process);
        }
    }

    /// Looks at each thread that has not come: drops who is gone, has those opened that block the signal.
    fn look(&mut self, waited: u64) -> Result<(), Reason> {
        let mut wanted = false;
        for index in 0..self.used {
            let (slot, tid) = (&self.table.slots[index], self.table.tids[index].load(SeqCst));
            if slot.claim.load(SeqCst) != self.round {
                continue;
            }
            let in_proc = slot.in_proc.load(SeqCst);
            let path = Path::new(b"/proc/self/task/", u64::from(in_proc), b"/status");
            let found = read_file(path.as_ptr(), self.text);
            let found = found.ok().and_then(|len| status(&self.text[..len]));
            let gone = match found {
                Some((state, _)) => matches!(state, b'Z' | b'X'),
                None => has_ended(tid),
            };
            if gone {
                // A main thread that has ended is listed for as long as others live.
                if isize::try_from(tid) == Ok(self.process) {
                    return Err(failure::plain(failure::Kind::MainEnded));
                }
                self.pass_over(slot);
                continue;
            }
            // What cannot be looked at (no descriptor is left) is waited for.
            let Some((_, blocked)) = found else { continue };
            if blocked & signal_bit(signal::PARK_SIGNAL) == 0 {
                continue;
            }
            if slot.opened.load(SeqCst) == 0 && is_kernels(in_proc, self.text) {
                slot.opened.store(KERNELS, SeqCst);
                self.pass_over(slot);
                continue;
            }
            match slot.opened.load(SeqCst) {
                REFUSED if waited >= BLOCKED_NS => return Err(self.refused(slot, tid)),
                REFUSED => {}
                _ => {
                    slot.opened.store(WANTED, SeqCst);
                    wanted = true;
                }
            }
        }
        if wanted {
            open::blocked(self.table, self.deadline).map_err(|answer| {
                let (tid, in_proc) = self.first_of(WANTED);
                failure::describe(failure::Kind::NoHelper, tid, answer, in_proc, self.text)
            })?;
        }
        Ok(())
    }

    /// Waits for it no more.
    fn pass_over(&mut self, slot: &Slot) {
        if slot.claim.compare_exchange(self.round, GONE, SeqCst, SeqCst).is_ok() {
            self.gone += 1;
        }
    }

    fn first_of(&self, opened: u32) -> (u32, u32) {
        let found = self.table.threads().find(|(_, slot)| slot.opened.load(SeqCst) == opened);
        found.map_or((0, 0), |(tid, slot)| (tid, slot.in_proc.load(SeqCst)))
    }

    fn refused(&mut self, slot: &Slot, tid: u32) -> Reason {
        let answer = -(slot.error.load(SeqCst) as isize);
        let in_proc = slot.in_proc.load(SeqCst);
        failure::describe(failure::Kind::TraceRefused, tid, answer, in_proc, self.text)
    }

    /// Names the first thread that has not come in time.
    fn latecomer(&mut self) -> Reason {
        let late = self.table.threads().find(|(_, slot)| slot.claim.load(SeqCst) == self.round);
        match late {
            Some((tid, slot)) if slot.opened.load(SeqCst) == REFUSED => self.refused(slot, tid),
            Some((tid, slot)) => {
                let in_proc = slot.in_proc.load(SeqCst);
                failure::describe(failure::Kind::Late, tid, 0, in_proc, self.text)
            }
            // All of them have been told, and are on their way in.
            None => failure::plain(failure::Kind::Busy),
        }
    }
}

/// Each thread of this process, by its number here and in /proc, as far as they can be listed. `work` is as for
/// [`Parking::new`].
pub(super) fn each_thread(work: &mut [u8], each: &mut impl FnMut(u32, u32)) {
    // SAFETY: takes nothing.
    let own = unsafe { rawcall!(libc::SYS_gettid) }.unsigned_abs() as u64;
    let (entries, text) = work.split_at_mut(32 << 10);
    let translates = own_entry(text).is_some_and(|entry| entry != own);
    let directory = open_file(c"/proc/self/task".as_ptr().cast(), libc::O_DIRECTORY);
    if directory < 0 {
        return;
    }
    let _ = each_entry(directory, entries, &mut |name| {
        let Some(in_proc) = decimal(name) else { return };
        let tid =
            if translates { number_here(in_proc, text).ok().flatten() } else { Some(in_proc) };
        let numbers = tid.and_then(|tid| u32::try_from(tid).ok()).zip(u32::try_from(in_proc).ok());
        if let Some((tid, in_proc)) = numbers {
            each(tid, in_proc);
        }
    });
    close(directory);
}

/// What a thread of ours that /proc knows by `in_proc` is called in this process's pid namespace; `None` if it
/// has ended.
fn number_here(in_proc: u64, text: &mut [u8]) -> Result<Option<u64>, i32> {
    let path = Path::new(b"/proc/self/task/", in_proc, b"/status");
    match read_file(path.as_ptr(), text) {
        Ok(len) => Ok(own_number(&text[..len])),
        Err(answer) if [-libc::ENOENT, -libc::ESRCH].contains(&answer) => Ok(None),
        Err(answer) => Err(answer),
    }
}

/// Whether a thread of this process is one that the kernel runs for an io_uring.
fn is_kernels(in_proc: u32, text: &mut [u8]) -> bool {
    let path = Path::new(b"/proc/self/task/", u64::from(in_proc), b"/stat");
    let len = read_file(path.as_ptr(), text).unwrap_or(0);
    flags(&text[..len]).is_some_and(|flags| flags & PF_IO_WORKER != 0)
}

/// `flags` of proc_pid_stat(5), its field 9; the first one behind the name is the third.
fn flags(text: &[u8]) -> Option<u64> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    decimal(text.get(name_end + 2..)?.split(|byte| *byte == b' ').nth(9 - 3)?)
}

/// `numbers`: here and in /proc.
fn prepare_slot(table: &Table, slot: &Slot, index: usize, numbers: (u32, u32), round: u32) {
    let (tid, in_proc) = numbers;
    slot.in_proc.store(in_proc, SeqCst);
    slot.opened.store(0, SeqCst);
    slot.masked.store(0, SeqCst);
    slot.error.store(0, SeqCst);
    table.tids[index].store(tid, SeqCst);
    slot.claim.store(round, SeqCst);
}

/// Whether the process goes on without its main thread: most of /proc/self is empty then.
pub(super) fn main_has_ended(text: &mut [u8]) -> bool {
    let len = read_file(c"/proc/self/status".as_ptr().cast(), text).unwrap_or(0);
    text[..len].split(|byte| *byte == b'\n').any(|line| line.starts_with(b"State:\tZ"))
}

/// Ends `round`: nobody enters itself into it any more, and everybody who has goes on.
///
/// A thread that was asked and has not come is told by its slot, when its signal comes, that nobody waits for
/// it: were the slot left to it, it would count itself into the next round, whose threads are others.
pub(super) fn release(table: &Table, round: u32) {
    faults::give_back();
    let pending = end_claims(table, round);
    settle(table, pending);
    table.next_round();
    futex::wake(&table.round, Reach::Process);
}

/// Takes back what can be taken back; how many have arrived or will.
fn end_claims(table: &Table, round: u32) -> u32 {
    let mut pending = 0;
    for (tid, slot) in table.threads() {
        // One that was opened has its signal on the way to it, and gets its mask back by it alone.
        let is_opened = slot.opened.load(SeqCst) == OPENED && !has_ended(tid);
        if is_opened || slot.claim.compare_exchange(round, GONE, SeqCst, SeqCst).is_err() {
            pending += 1;
        }
    }
    pending
}

/// Waits until `pending` threads have arrived, which no system call keeps from it: they are in our handler, or
/// enter it as soon as a processor is theirs. One that is killed on the way (a seccomp filter) is not waited for.
fn settle(table: &Table, pending: u32) {
    table.expected.store(pending, SeqCst);
    loop {
        let arrived = table.arrived.load(SeqCst);
        let ended = || table.threads().filter(|(tid, _)| has_ended(*tid)).count();
        if arrived >= pending
            || arrived >= pending.saturating_sub(u32::try_from(ended()).unwrap_or(0))
        {
            return;
        }
        futex::wait(&table.arrived, arrived, Some(LOOK_NS), Reach::Process);
    }
}

/// Whether a thread of this process is not there any more, whatever /proc can tell of it.
fn has_ended(tid: u32) -> bool {
    // SAFETY: plain numbers; signal 0 only asks.
    let answer = unsafe { rawcall!(libc::SYS_tgkill, rawcall!(libc::SYS_getpid), tid, 0) };
    answer == -(libc::ESRCH as isize)
}

/// CLOCK_MONOTONIC, ns.
pub(super) fn now() -> u64 {
    let mut time = [0u64; 2];
    // SAFETY: the kernel writes a timespec.
    unsafe { rawcall!(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, time.as_mut_ptr()) };
    time[0] * 1_000_000_000 + time[1]
}

const _: () = assert!(MAX_THREADS < u32::MAX as usize && OPENED != REFUSED);
const _: () =
    assert!(WANTED < OPENED && OPENED < REFUSED && REFUSED < DISPATCHED && DISPATCHED < KERNELS);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::prepare::scratch::Guarded;

    /// Slots of `claims` in round 2, all of this thread.
    fn table(memory: &Guarded, claims: &[(u32, u32)]) -> &'static Table {
        // SAFETY: takes nothing.
        let tid = unsafe { libc::gettid() }.cast_unsigned();
        // SAFETY: the mapping is large enough and zero, which is a valid table; each test leaks it.
        let table: &'static Table = unsafe { memory.at(0).cast().as_ref() };
        assert_eq!(table.begin(0, [0; 3]), 2);
        for (index, (claim, opened)) in claims.iter().enumerate() {
            prepare_slot(table, &table.slots[index], index, (tid, tid), *claim);
            table.slots[index].opened.store(*opened, SeqCst);
        }
        table.used.store(u32::try_from(claims.len()).unwrap(), SeqCst);
        table
    }

    fn memory() -> Guarded {
        Guarded::new(size_of::<Table>().next_multiple_of(4096)).unwrap()
    }

    #[test]
    fn flags_are_found_behind_the_name() {
        let text = b"5205 (a b) (c) S 5160 5160 23367 0 -1 4210768 3 0";
        assert_eq!(flags(text), Some(0x40_4050));
        assert_eq!((flags(&text[..20]), flags(b"")), (None, None));
        // SAFETY: takes nothing.
        let own = unsafe { libc::gettid() }.cast_unsigned();
        assert!(!is_kernels(own, &mut [0; 1024]) && !is_kernels(0, &mut [0; 1024]));
    }

    /// io_uring_setup(2) of a ring that a thread of the kernel's polls.
    fn polled_ring() -> std::io::Result<std::os::fd::OwnedFd> {
        use std::os::fd::FromRawFd;
        const IORING_SETUP_SQPOLL: u32 = 2;
        let mut parameters = [0u32; 30];
        parameters[2] = IORING_SETUP_SQPOLL;
        // SAFETY: `struct io_uring_params` has 120 bytes, which live.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4u32, parameters.as_mut_ptr()) };
        match i32::try_from(fd) {
            // SAFETY: new.
            Ok(fd) if fd >= 0 => Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) }),
            _ => Err(std::io::Error::last_os_error()),
        }
    }

    #[test]
    fn the_thread_of_a_polled_ring_is_the_kernels() {
        let _ring = match polled_ring() {
            Ok(ring) => ring,
            Err(error) => return println!("no io_uring that is polled is to be had: {error}"),
        };
        let (mut work, mut found) = (vec![0u8; 48 << 10], 0);
        let mut text = [0u8; 1024];
        each_thread(&mut work, &mut |_, in_proc| {
            found += usize::from(is_kernels(in_proc, &mut text));
        });
        assert_eq!(found, 1);
    }

    #[test]
    fn a_round_that_has_ended_is_closed_to_who_has_not_come() {
        let memory = std::mem::ManuallyDrop::new(memory());
        let table = table(&memory, &[(2, 0), (2, WANTED), (2, REFUSED)]);
        release(table, 2);
        assert!(table.slots[..3].iter().all(|slot| slot.claim.load(SeqCst) == GONE));
        assert_eq!(table.round.load(SeqCst), 4);
    }

    #[test]
    fn who_has_claimed_or_was_opened_is_waited_for() {
        let memory = std::mem::ManuallyDrop::new(memory());
        let table = table(&memory, &[(2, 0), (3, 0), (2, OPENED)]);
        let come = std::thread::spawn(|| {
            for _ in 0..2 {
                std::thread::sleep(Duration::from_millis(20));
                assert_eq!(table.round.load(SeqCst), 2, "it did not wait");
                table.arrived.fetch_add(1, SeqCst);
            }
        });
        release(table, 2);
        come.join().unwrap();
        assert_eq!((table.arrived.load(SeqCst), table.round.load(SeqCst)), (2, 4));
        let claims = [0, 1, 2].map(|index: usize| table.slots[index].claim.load(SeqCst));
        assert_eq!(claims, [GONE, 3, 2]);
    }
}
