//! Has timers of every kind run, is forked, and looks in each child at its clocks and at what the timers have left.
//!
//! `suite-clock fork|whole`; a child's payload is `live` or `frozen`: how it was resumed, at least two seconds later; with
//! ` told` behind it where its host, days ahead of this one, has no time namespace for it.
//! Says `ok` with that word; what is wrong is said on standard error, with exit status 3.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mitosis::prepare::{Files, PrepareOptions, Threads};
use mitosis_process_suite::{fail, prepare_and_hold_with, say};

const LONG: Duration = Duration::from_secs(1000);
/// It expires before a child is resumed.
const SHORT: Duration = Duration::from_millis(1500);
/// What tests wait before they resume.
const PAUSE: Duration = Duration::from_secs(2);
/// Clocks of two hosts are compared over a network.
const CLOSE: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(10);
/// Clocks of its host are further ahead than that.
const FAR: Duration = Duration::from_secs(24 * 3600);

static ALARMS: AtomicU32 = AtomicU32::new(0);
static EXPIRED: AtomicU32 = AtomicU32::new(0);

extern "C" fn alarm(signal: i32) {
    let word = if signal == libc::SIGALRM { &ALARMS } else { &EXPIRED };
    word.fetch_add(1, SeqCst);
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn spec(time: Duration) -> libc::itimerspec {
    let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let value =
        libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
    libc::itimerspec { it_interval: none, it_value: value }
}

/// Timers of this process; all are of one shot.
struct Timers {
    long: libc::timer_t,
    long_fd: i32,
    short_fd: i32,
}

impl Timers {
    fn start() -> Timers {
        // SAFETY: structs that live through their calls; a handler that stores a number.
        unsafe {
            for signal in [libc::SIGALRM, libc::SIGUSR1] {
                libc::signal(signal, alarm as *const () as usize);
            }
            let timer = |signal: i32, time: Duration| {
                let mut event: libc::sigevent = std::mem::zeroed();
                (event.sigev_notify, event.sigev_signo) = (libc::SIGEV_SIGNAL, signal);
                let mut id: libc::timer_t = ptr::null_mut();
                let made = libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id);
                let time = spec(time);
                let set = libc::timer_settime(id, 0, &raw const time, ptr::null_mut());
                if (made, set) != (0, 0) {
                    fail(&"timer_create or timer_settime failed");
                }
                id
            };
            let fd = |clock: i32, time: Duration| {
                let (fd, time) = (libc::timerfd_create(clock, 0), spec(time));
                if fd < 0 || libc::timerfd_settime(fd, 0, &raw const time, ptr::null_mut()) != 0 {
                    fail(&"timerfd_create or timerfd_settime failed");
                }
                fd
            };
            // What expires before the fork is the parent's: it is started last.
            let (long, long_fd) = (timer(libc::SIGUSR1, LONG), fd(libc::CLOCK_BOOTTIME, LONG));
            let short_fd = fd(libc::CLOCK_MONOTONIC, SHORT);
            timer(libc::SIGUSR1, SHORT);
            let second = libc::timeval {
                tv_sec: SHORT.as_secs() as i64,
                tv_usec: SHORT.subsec_micros().into(),
            };
            let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
            let value = libc::itimerval { it_interval: none, it_value: second };
            libc::setitimer(libc::ITIMER_REAL, &raw const value, ptr::null_mut());
            Timers { long, long_fd, short_fd }
        }
    }

    /// What the long ones have left: the timer, and the file.
    fn left(&self) -> [Duration; 2] {
        let duration =
            |time: libc::timespec| Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
        let (mut timer, mut file) = (spec(Duration::ZERO), spec(Duration::ZERO));
        // SAFETY: structs to be filled.
        unsafe {
            libc::timer_gettime(self.long, &raw mut timer);
            libc::timerfd_gettime(self.long_fd, &raw mut file);
        }
        [duration(timer.it_value), duration(file.it_value)]
    }
}

fn near(what: &str, got: Duration, wanted: Duration, wrong: &mut Vec<String>) {
    if got.abs_diff(wanted) > CLOSE {
        wrong.push(format!("{what} is {got:?}, not {wanted:?}"));
    }
}

/// Clocks, each with its name.
const CLOCKS: [(&str, libc::clockid_t); 2] =
    [("CLOCK_MONOTONIC", libc::CLOCK_MONOTONIC), ("CLOCK_BOOTTIME", libc::CLOCK_BOOTTIME)];

fn main() {
    let mode = std::env::args().nth(1).unwrap_or_default();
    let threads = match &*mode {
        "fork" => Threads::Caller,
        "whole" => Threads::All,
        _ => fail(&"fork or whole"),
    };
    let is_whole = threads == Threads::All;
    let timers = Timers::start();
    let before = CLOCKS.map(|(_, clock)| read(clock));
    let real = read(libc::CLOCK_REALTIME);
    let left = timers.left();
    let options = PrepareOptions { threads, files: Files::Carried, ..PrepareOptions::default() };
    let resumed = prepare_and_hold_with(&options);
    let how = String::from_utf8_lossy(&resumed.payload);
    let is_frozen = how.starts_with("frozen");
    let passed = read(libc::CLOCK_REALTIME).saturating_sub(real);
    let now = CLOCKS.map(|(_, clock)| read(clock));
    let left_now = timers.left();
    let mut wrong = Vec::new();
    if passed < PAUSE {
        wrong.push(format!("only {passed:?} have passed: this shows nothing"));
    }
    let delta = Duration::from_nanos(u64::try_from(resumed.clock_delta_ns).unwrap_or(u64::MAX));
    let is_jump = if how.ends_with(" told") { delta > FAR } else { delta == Duration::ZERO };
    if !is_jump {
        wrong.push(format!("'{how}': its clock jumps by {} ns", resumed.clock_delta_ns));
    }
    // Of a frozen clock nobody knows how long its child has taken to come here; but that it has stood for the pause.
    let on_its_clock = if is_frozen { now[0].saturating_sub(before[0] + delta) } else { passed };
    if is_frozen && on_its_clock + PAUSE - CLOSE > passed {
        wrong.push(format!("{on_its_clock:?} have passed on a clock that stood"));
    }
    for ((name, _), (before, now)) in CLOCKS.iter().zip(before.iter().zip(now)) {
        near(name, now, *before + on_its_clock + delta, &mut wrong);
    }
    if is_whole {
        near("what a timer has left", left_now[0], left[0] - on_its_clock, &mut wrong);
    }
    near("what a timerfd has left", left_now[1], left[1] - on_its_clock, &mut wrong);
    expire(&timers, is_whole, is_frozen, before[0] + delta, &mut wrong);
    if !wrong.is_empty() {
        fail(&wrong.join("\n"));
    }
    say(&format!("ok {how}"));
}

/// Waits until the short timers have expired: at once, or on a frozen clock when their time has come on it.
fn expire(
    timers: &Timers,
    is_whole: bool,
    is_frozen: bool,
    start: Duration,
    wrong: &mut Vec<String>,
) {
    let begun = Instant::now();
    let mut polled = libc::pollfd { fd: timers.short_fd, events: libc::POLLIN, revents: 0 };
    let mut expired = || {
        // SAFETY: one pollfd.
        let is_readable = unsafe { libc::poll(&raw mut polled, 1, 1) } == 1;
        // fork(2) passes on neither of the two.
        let came = !is_whole || (ALARMS.load(SeqCst) == 1 && EXPIRED.load(SeqCst) == 1);
        is_readable && came
    };
    while !expired() {
        if begun.elapsed() > SOON {
            let seen = (ALARMS.load(SeqCst), EXPIRED.load(SeqCst));
            wrong.push(format!("not all timers have expired within {SOON:?}: {seen:?}"));
            return;
        }
    }
    let at = read(libc::CLOCK_MONOTONIC).saturating_sub(start);
    if is_frozen && at + CLOSE < SHORT {
        wrong.push(format!("timers of {SHORT:?} have expired at {at:?} on a frozen clock"));
    }
    if !is_whole && (ALARMS.load(SeqCst), EXPIRED.load(SeqCst)) != (0, 0) {
        wrong.push("fork(2) passes on no timers, and one has fired".to_owned());
    }
}
