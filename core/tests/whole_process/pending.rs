//! Signals that are pending stay where they are, whatever becomes of the prepare.

use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::mpsc;
use std::thread;

use mitosis::descriptor::{MAX_PENDING, PendingSignals};
use mitosis::prepare::{PrepareError, StopError};

use super::cases::{keep, options, seed, seed_with};
use super::latecomers::forbid_ptrace;
use crate::agent::Agent;

/// Of the process, with values.
const QUEUED: i32 = 300;

fn queued_signal() -> i32 {
    libc::SIGRTMIN() + 3
}

fn block() -> libc::sigset_t {
    // SAFETY: a set is plain data.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        [libc::SIGUSR1, queued_signal()].iter().for_each(|signal| {
            libc::sigaddset(&raw mut set, *signal);
        });
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, null_mut());
        set
    }
}

/// What is pending here is taken: signals, codes and values.
fn taken(set: &libc::sigset_t) -> Vec<(i32, i32, i32)> {
    let mut all = Vec::new();
    loop {
        // SAFETY: all of them live.
        let (signal, info) = unsafe {
            let mut info: libc::siginfo_t = zeroed();
            let none: libc::timespec = zeroed();
            let (number, set) = (libc::SYS_rt_sigtimedwait, std::ptr::from_ref(set));
            // libc's makes SI_USER of SI_TKILL.
            (libc::syscall(number, set, &raw mut info, &raw const none, 8usize), info)
        };
        if signal < 0 {
            return all;
        }
        // SAFETY: who was not sent with a value has zeros there.
        let value = unsafe { info.si_value() }.sival_ptr.addr();
        all.push((
            i32::try_from(signal).unwrap(),
            info.si_code,
            i32::try_from(value & 0x7fff_ffff).unwrap(),
        ));
    }
}

fn queue(values: std::ops::RangeInclusive<i32>) {
    for value in values {
        let number = usize::try_from(value).unwrap();
        let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(number) };
        // SAFETY: it is blocked.
        assert_eq!(unsafe { libc::sigqueue(libc::getpid(), queued_signal(), value) }, 0);
    }
}

/// The process's own first, in the order in which they were sent.
fn those_of_the_process(values: std::ops::RangeInclusive<i32>) -> Vec<(i32, i32, i32)> {
    values.map(|value| (queued_signal(), libc::SI_QUEUE, value)).collect()
}

pub(crate) fn signals_that_are_pending_stay_so() {
    let set = block();
    let (go, wait) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let other = thread::spawn(move || {
        // SAFETY: takes nothing.
        tell.send(unsafe { libc::gettid() }).unwrap();
        wait.recv().unwrap();
        taken(&set)
    });
    let tid = told.recv().unwrap();
    queue(1..=QUEUED);
    // SAFETY: plain numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, libc::SIGUSR1) };
    keep(seed());
    keep(seed());
    go.send(()).unwrap();
    let mut by_other = other.join().unwrap();
    let (signal, code, _) = by_other.remove(0);
    assert_eq!((signal, code), (libc::SIGUSR1, libc::SI_TKILL), "its own comes first");
    assert_eq!(by_other, those_of_the_process(1..=QUEUED));
}

pub(crate) fn two_seeds_have_what_is_pending(agent: &Agent) {
    for index in 0..2 {
        agent.with_descriptor(index, |descriptor, _| {
            let counts = |of: &dyn Fn(&PendingSignals) -> bool| -> Vec<u32> {
                let queues = descriptor.pending.iter().filter(|queue| of(queue));
                queues.map(|queue| queue.count).collect()
            };
            assert_eq!(counts(&|queue| queue.tid == 0), [QUEUED.cast_unsigned()]);
            assert_eq!(counts(&|queue| queue.tid != 0), [1]);
        });
    }
}

/// What is asked for and not had: all of them wait on.
pub(crate) fn more_signals_than_are_carried_are_refused_and_stay() {
    let set = block();
    let most = i32::try_from(MAX_PENDING).unwrap();
    queue(1..=most);
    keep(seed());
    queue(most + 1..=most + 1);
    let error = seed_with(&options()).unwrap_err();
    assert!(matches!(error, PrepareError::Stop(StopError::TooManySignals)), "{error}");
    assert!(error.to_string().contains("more than 4096 signals are pending"), "{error}");
    assert_eq!(taken(&set), those_of_the_process(1..=most + 1));
}

pub(crate) fn signals_that_nobody_may_look_at_are_refused_and_stay() {
    let set = block();
    keep(seed());
    queue(1..=2);
    forbid_ptrace();
    let error = seed_with(&options()).unwrap_err();
    let PrepareError::Stop(StopError::SignalsUnseen { .. }) = &error else { panic!("{error}") };
    assert!(error.to_string().contains("ptrace"), "{error}");
    assert_eq!(taken(&set), those_of_the_process(1..=2));
    keep(seed());
}
