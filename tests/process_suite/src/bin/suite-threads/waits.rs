//! Waits for time, and for what belongs to a host.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::crossing::{Crossing, Side, equal, must};
use crate::worker::{Worker, errno, from_now, own_tid, span, until};

/// nanosleep, clock_nanosleep to a moment, and std's sleep: none ends early, and none sleeps anew. What a
/// handler interrupts says so, with what is left.
pub(crate) fn sleeps(crossing: &mut Crossing) {
    const TIME: Duration = Duration::from_millis(800);
    fn relative() {
        let mut left = span(TIME);
        // SAFETY: the call reads and writes the struct.
        while unsafe { libc::nanosleep(&raw const left, &raw mut left) } != 0 {
            equal("the error of nanosleep", errno(), libc::EINTR);
        }
    }
    fn absolute() {
        let then = from_now(libc::CLOCK_MONOTONIC, TIME);
        let (clock, until) = (libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME);
        // SAFETY: reads the struct.
        while unsafe { libc::clock_nanosleep(clock, until, &raw const then, ptr::null_mut()) } != 0
        {
        }
    }
    let bodies: [fn(); 3] = [relative, absolute, || std::thread::sleep(TIME)];
    let workers = bodies.map(|body| {
        let worker = Worker::start(move || {
            let begun = Instant::now();
            body();
            let took = begun.elapsed();
            must(took >= TIME, &format!("slept {took:?} in place of {TIME:?}"));
            must(took < TIME + Duration::from_secs(5), &format!("slept {took:?}"));
        });
        worker.stands_in(libc::SYS_clock_nanosleep);
        worker
    });
    crossing.cross();
    workers.into_iter().for_each(Worker::join);
}

static RANG: AtomicU32 = AtomicU32::new(0);
static RANG_IN: AtomicU32 = AtomicU32::new(0);

extern "C" fn ring(_signal: i32) {
    RANG_IN.store(own_tid() as u32, SeqCst);
    RANG.fetch_add(1, SeqCst);
}

/// Timers that signal (setitimer, timer_create) go on, by the ids that they had.
pub(crate) fn timers(crossing: &mut Crossing) {
    // SAFETY: the handler writes two words.
    unsafe { libc::signal(libc::SIGALRM, ring as *const () as usize) };
    let time = libc::timeval { tv_sec: 0, tv_usec: 300_000 };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: reads the struct.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    equal("setitimer", set, 0);
    let [gone, kept] = [silent_timer(), silent_timer()];
    // SAFETY: nobody else knows it.
    equal("timer_delete", unsafe { libc::timer_delete(gone) }, 0);
    crossing.cross();
    let before = RANG.load(SeqCst);
    until("the timer rings", || RANG.load(SeqCst) >= before + 2);
    must(RANG_IN.load(SeqCst) != 0, "it rang in no thread");
    must(seconds_left(kept).is_some_and(|left| left > 0), "the POSIX timer is not there");
    must(seconds_left(gone).is_none(), "a timer is there that was deleted");
}

/// A POSIX timer of 1000 s that tells nobody.
fn silent_timer() -> libc::timer_t {
    // SAFETY: structs of numbers, for which all zero is a value; the kernel fills in the id.
    unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_NONE;
        let mut id: libc::timer_t = ptr::null_mut();
        let made = libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id);
        equal("timer_create", made, 0);
        let mut time: libc::itimerspec = std::mem::zeroed();
        time.it_value.tv_sec = 1000;
        equal("timer_settime", libc::timer_settime(id, 0, &raw const time, ptr::null_mut()), 0);
        id
    }
}

fn seconds_left(timer: libc::timer_t) -> Option<i64> {
    // SAFETY: as above; an id that is nobody's is refused.
    unsafe {
        let mut time: libc::itimerspec = std::mem::zeroed();
        (libc::timer_gettime(timer, &raw mut time) == 0).then_some(time.it_value.tv_sec)
    }
}

/// System V messages and semaphores belong to a host: a wait there is interrupted, and a child on another
/// host finds no such queue.
pub(crate) fn messages(crossing: &mut Crossing) {
    #[repr(C)]
    struct Message {
        kind: libc::c_long,
        bytes: [u8; 8],
    }
    // SAFETY: takes numbers.
    let queue = unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) };
    must(queue >= 0, "msgget failed");
    let got = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&got);
    let worker = Worker::start(move || {
        let mut message = Message { kind: 0, bytes: [0; 8] };
        let end = loop {
            // SAFETY: the struct has room for eight bytes.
            let bytes = unsafe { libc::msgrcv(queue, (&raw mut message).cast(), 8, 5, 0) };
            match (bytes, errno()) {
                (-1, libc::EINTR) => {}
                (-1, error) => break error as u32,
                _ => break u32::from(message.bytes[0]),
            }
        };
        told.store(end, SeqCst);
    });
    worker.stands_in(libc::SYS_msgrcv);
    let side = crossing.cross();
    if side == Side::Parent {
        let message = Message { kind: 5, bytes: [200; 8] };
        // SAFETY: reads the struct.
        equal("msgsnd", unsafe { libc::msgsnd(queue, (&raw const message).cast(), 8, 0) }, 0);
    }
    worker.join();
    let end = got.load(SeqCst);
    match side {
        Side::Parent => equal("the message", end, 200),
        Side::Child => must(
            [libc::EINVAL as u32, libc::EIDRM as u32].contains(&end),
            &format!("a queue of another host: {end}"),
        ),
    }
    if side == Side::Parent {
        // SAFETY: a queue of ours.
        unsafe { libc::msgctl(queue, libc::IPC_RMID, ptr::null_mut()) };
    }
}
