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

/// Timers that signal (setitimer, timer_create) are the parent's, as after fork(2): they go on there, a child
/// has none, and may set its own.
pub(crate) fn timers(crossing: &mut Crossing) {
    // SAFETY: the handler writes two words.
    unsafe { libc::signal(libc::SIGALRM, ring as *const () as usize) };
    let time = libc::timeval { tv_sec: 0, tv_usec: 300_000 };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    // SAFETY: reads the struct.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    equal("setitimer", set, 0);
    if crossing.cross() == Side::Child {
        let mut left = timer;
        // SAFETY: fills the struct.
        unsafe { libc::getitimer(libc::ITIMER_REAL, &raw mut left) };
        equal("a timer of the parent's", (left.it_value.tv_sec, left.it_value.tv_usec), (0, 0));
        // SAFETY: reads the struct.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    }
    let before = RANG.load(SeqCst);
    until("the timer rings", || RANG.load(SeqCst) >= before + 2);
    must(RANG_IN.load(SeqCst) != 0, "it rang in no thread");
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
