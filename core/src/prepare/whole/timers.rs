//! POSIX timers (timer_create(2)), which no fork carries: a child makes them again.
//!
//! Their ids lie in the program's memory, and the kernel counts them up from 0 in each process. So a child, which
//! has made none, makes timers until it comes to each id, and lets those in between go.

use crate::descriptor::Clocks;
use crate::prepare::kept;
use crate::prepare::proc_files::read_file;
use crate::prepare::proc_text::{decimal, hex};
use crate::sys::rawcall::rawcall;

/// Timers that are carried at most: programs have one or two.
const MAX_TIMERS: usize = 128;
/// The highest id that is come to: making and deleting that many takes a millisecond.
const MAX_ID: i32 = 2000;
/// Text of [`MAX_TIMERS`].
const TEXT_BYTES: usize = 16 << 10;

const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD_ID: i32 = 4;

/// struct sigevent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Event {
    value: u64,
    signal: i32,
    notify: i32,
    tid: i32,
    rest: [i32; 11],
}

/// One timer. What its time is: interval s, ns; left s, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Timer {
    id: i32,
    clock: i32,
    event: Event,
    time: [i64; 4],
}

/// Those of this process, as they were found; in a child they lie where they lay in its parent.
#[derive(Debug, Default)]
pub(super) struct Timers {
    timers: Vec<Timer>,
    /// When they were.
    found_at: Clocks,
}

impl Timers {
    /// This process's. None where the kernel does not tell (CONFIG_CHECKPOINT_RESTORE).
    pub(super) fn of_this_process() -> Timers {
        let mut text = vec![0; TEXT_BYTES];
        let len = read_file(c"/proc/self/timers".as_ptr().cast(), &mut text).unwrap_or(0);
        let (mut timers, found_at) = (parse(&text[..len]), kept::clocks());
        timers.retain_mut(|timer| {
            // SAFETY: the kernel fills the four numbers.
            let answer =
                unsafe { rawcall!(libc::SYS_timer_gettime, timer.id, timer.time.as_mut_ptr()) };
            answer == 0
        });
        timers.sort_unstable_by_key(|timer| timer.id);
        Timers { timers, found_at }
    }

    /// When they were found.
    pub(super) fn found_at(&self) -> Clocks {
        self.found_at
    }

    /// In a child, whose other threads stand: no allocation, no libc. So much has passed since they were found; a timer
    /// whose moment has come meanwhile expires at once. One whose clock or thread is not there
    /// (a CPU clock of another process, a child with new ids) is left out.
    pub(super) fn make_again(&self, passed_ns: u64) {
        let timers = self.timers.iter().filter(|timer| timer.id <= MAX_ID);
        timers.map(|timer| timer.after(passed_ns)).all(|timer| timer.make_again());
    }
}

impl Timer {
    /// As it is when so much has passed.
    fn after(&self, passed_ns: u64) -> Timer {
        const NS_PER_S: i64 = 1_000_000_000;
        let [every_s, every_ns, s, ns] = self.time;
        // Clocks of CPU time have negative numbers, and numbers 2 and 3.
        let is_cpu_time = self.clock < 0
            || [libc::CLOCK_PROCESS_CPUTIME_ID, libc::CLOCK_THREAD_CPUTIME_ID]
                .contains(&self.clock);
        if (s, ns) == (0, 0) || is_cpu_time {
            return *self;
        }
        let passed_ns = i64::try_from(passed_ns).unwrap_or(i64::MAX);
        let left = s.saturating_mul(NS_PER_S).saturating_add(ns).saturating_sub(passed_ns).max(1);
        Timer { time: [every_s, every_ns, left / NS_PER_S, left % NS_PER_S], ..*self }
    }

    /// Makes timers until one has this id, and lets the others go. False if no timer can be made at all: no later
    /// one can be either. True also where this one cannot be made (its clock or thread is not there): its id is
    /// passed over, and later ones are tried.
    fn make_again(&self) -> bool {
        let plain = Event { notify: SIGEV_NONE, ..Event::default() };
        loop {
            let mut id = -1i32;
            // SAFETY: an event and a place for an id that live through the call.
            let answer = unsafe {
                rawcall!(libc::SYS_timer_create, self.clock, &raw const self.event, &raw mut id)
            };
            if answer == 0 && id == self.id {
                // SAFETY: a time that lives through the call.
                unsafe {
                    rawcall!(libc::SYS_timer_settime, id, 0, self.time.as_ptr(), 0);
                }
                return true;
            }
            if answer != 0 {
                // A refused timer uses up no id: one that asks for little tells how far the ids are.
                // SAFETY: as above.
                let probe = unsafe {
                    rawcall!(
                        libc::SYS_timer_create,
                        libc::CLOCK_MONOTONIC,
                        &raw const plain,
                        &raw mut id
                    )
                };
                if probe != 0 {
                    return false;
                }
            }
            // SAFETY: a timer that nobody else knows.
            unsafe { rawcall!(libc::SYS_timer_delete, id) };
            if id >= self.id {
                return true;
            }
        }
    }
}

/// proc_pid_timers(5).
fn parse(text: &[u8]) -> Vec<Timer> {
    let mut timers: Vec<Timer> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (halves.next(), halves.next()) else { continue };
        let value = value.trim_ascii();
        if name == b"ID" {
            if timers.len() == MAX_TIMERS {
                break;
            }
            timers.push(Timer { id: signed(value).unwrap_or(i32::MAX), ..Timer::default() });
        }
        let Some(timer) = timers.last_mut() else { continue };
        match name {
            b"ClockID" => timer.clock = signed(value).unwrap_or(0),
            b"signal" => {
                let mut parts = value.splitn(2, |byte| *byte == b'/');
                timer.event.signal = parts.next().and_then(signed).unwrap_or(0);
                timer.event.value = parts.next().and_then(hex).unwrap_or(0);
            }
            b"notify" => notify(&mut timer.event, value),
            _ => {}
        }
    }
    timers
}

/// `signal/pid.7`, `none/pid.7`, `signal/tid.9`: of a thread, if it is one's.
fn notify(event: &mut Event, text: &[u8]) {
    if text.starts_with(b"none") {
        event.notify = SIGEV_NONE;
    }
    if let Some(at) = text.windows(5).position(|part| part == b"/tid.") {
        event.notify = SIGEV_THREAD_ID;
        event.tid = signed(&text[at + 5..]).unwrap_or(0);
    }
}

fn signed(text: &[u8]) -> Option<i32> {
    match text.strip_prefix(b"-") {
        Some(rest) => i32::try_from(decimal(rest)?).ok().map(|number| -number),
        None => i32::try_from(decimal(text)?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_as_the_kernel_writes_them() {
        let text = b"ID: 3\nsignal: 26/00007f12a4c0\nnotify: signal/tid.912\nClockID: 1\n\
                     ID: 0\nsignal: 0/0000000000000000\nnotify: none/pid.7\nClockID: -6\n";
        let [first, second] = parse(text)[..] else { panic!("not two") };
        assert_eq!((first.id, first.clock), (3, 1));
        let Event { value, signal, notify, tid, .. } = first.event;
        assert_eq!((value, signal, notify, tid), (0x7f12_a4c0, 26, SIGEV_THREAD_ID, 912));
        assert_eq!((second.id, second.clock, second.event.notify), (0, -6, SIGEV_NONE));
        assert!(parse(b"ID").is_empty() && parse(b"notify: signal/tid.1\n").is_empty());
    }

    #[test]
    fn a_process_that_has_none_makes_them_again() {
        let with = |id, left| Timer {
            id,
            clock: libc::CLOCK_MONOTONIC,
            event: Event { value: 9, notify: SIGEV_NONE, ..Event::default() },
            time: [5, 6, left, 0],
        };
        // SAFETY: the child makes raw calls and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let timers = vec![with(2, 110), with(7, 210)];
            let timers = Timers { timers, found_at: Clocks::default() };
            timers.make_again(10_000_000_000);
            let left = |id: i32| {
                let mut time = [0i64; 4];
                // SAFETY: four numbers to be filled.
                let answer = unsafe { rawcall!(libc::SYS_timer_gettime, id, time.as_mut_ptr()) };
                (answer == 0).then_some((time[0], time[1], time[2] / 50))
            };
            let right = left(2) == Some((5, 6, 1)) && left(7) == Some((5, 6, 3));
            let none = [0, 1, 3, 6, 8].iter().all(|id| left(*id).is_none());
            // SAFETY: ends this process.
            unsafe { libc::_exit(i32::from(!(right && none))) };
        }
        let mut status = 0;
        // SAFETY: our child.
        unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(status, 0);
    }

    #[test]
    fn time_passes_for_clocks_that_count_it() {
        let after = |clock: i32, s: i64, passed_ns: u64| {
            Timer { clock, time: [5, 6, s, 0], ..Timer::default() }.after(passed_ns).time
        };
        assert_eq!(after(libc::CLOCK_MONOTONIC, 9, 2_500_000_000), [5, 6, 6, 500_000_000]);
        assert_eq!(after(libc::CLOCK_REALTIME, 9, u64::MAX), [5, 6, 0, 1], "it expires at once");
        assert_eq!(after(libc::CLOCK_MONOTONIC, 0, 9), [5, 6, 0, 0], "it does not run");
        assert_eq!(after(libc::CLOCK_PROCESS_CPUTIME_ID, 9, u64::MAX), [5, 6, 9, 0]);
        assert_eq!(after(-6, 9, u64::MAX), [5, 6, 9, 0]);
    }
}
