//! Threads that do not come, or come too late.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use mitosis::prepare::{PrepareError, PrepareOptions, StopError};

use super::cases::{action_of_33, end, keep, options, seed, seed_with};
use super::threads::{Crew, Kind, raw_mask};

/// A filter of the whole process, as a sandbox has: ptrace(2) is EPERM.
pub(crate) fn forbid_ptrace() {
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = u32::try_from(libc::SYS_ptrace).unwrap();
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    let mut filter = [
        op(0x20, 0, 0, 0),
        op(0x15, 0, 1, number),
        op(0x06, 0, 0, refused),
        op(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: a live program.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

pub(crate) fn a_thread_that_may_not_be_opened_is_named() {
    forbid_ptrace();
    let crew = Crew::of([Kind::Futex, Kind::AllBlocked, Kind::Poll]);
    let began = Instant::now();
    let error = seed_with(&options()).unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    let PrepareError::Stop(StopError::TraceRefused { thread, activity, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(thread.name, "AllBlocked");
    let call = u64::try_from(libc::SYS_clock_nanosleep).unwrap();
    assert!(activity.system_call.is_none_or(|number| number == call), "{activity}");
    let text = error.to_string();
    assert!(text.contains("'AllBlocked'") && text.contains("ptrace_scope"), "{text}");
    // The thread takes its mask back at its end, when our signals are still pending for it.
    crew.end();
    end(seed());
}

/// vfork(2), whose child pauses for a while.
fn vfork_for(milliseconds: u64) {
    let time = [0, milliseconds * 1_000_000];
    // SAFETY: the child makes raw calls alone, on a stack that its parent does not use meanwhile.
    unsafe {
        let mut pid: libc::c_long;
        std::arch::asm!(
            "mov rax, 58",
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rax, 35",
            "mov rdi, r12",
            "xor esi, esi",
            "syscall",
            "mov rax, 231",
            "xor edi, edi",
            "syscall",
            "2:",
            out("rax") pid, in("r12") time.as_ptr(), out("rdi") _, out("rsi") _, out("rcx") _,
            out("r11") _, out("rdx") _,
        );
        assert!(pid > 0);
        let pid = i32::try_from(pid).unwrap();
        assert_eq!(libc::waitpid(pid, null_mut(), 0), pid);
    }
}

pub(crate) fn a_thread_in_vfork_is_named() {
    let crew = Crew::of([Kind::Futex, Kind::Spin]);
    let forker = thread::Builder::new().name("forker".to_owned());
    let forker = forker.spawn(|| vfork_for(900)).unwrap();
    thread::sleep(Duration::from_millis(50));
    let short = PrepareOptions { stop_threads: Duration::from_millis(60), ..options() };
    let began = Instant::now();
    let error = seed_with(&short).unwrap_err();
    assert!(began.elapsed() < Duration::from_millis(800), "{:?}", began.elapsed());
    let PrepareError::Stop(StopError::Late { thread, activity, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(thread.name, "forker");
    assert_eq!(activity.system_call, Some(58));
    let text = error.to_string();
    assert!(
        text.contains("'forker'") && text.contains("vfork") && text.contains("60 ms"),
        "{text}"
    );
    // With the default patience it is waited for.
    let seed = seed();
    assert!(seed.pause().unwrap().parking > Duration::from_millis(50));
    end(seed);
    forker.join().unwrap();
    crew.end();
}

/// The signal of a prepare that failed comes later, when nobody prepares.
pub(crate) fn a_thread_that_has_been_told_too_late_is_unharmed() {
    static GO: AtomicBool = AtomicBool::new(false);
    forbid_ptrace();
    thread::spawn(|| {}).join().unwrap();
    let action = action_of_33();
    let blocked = thread::spawn(|| {
        let old = raw_mask(!0);
        while !GO.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        raw_mask(old);
        // The signals have come here.
        thread::sleep(Duration::from_millis(1));
    });
    thread::sleep(Duration::from_millis(20));
    let short = PrepareOptions { stop_threads: Duration::from_millis(80), ..options() };
    for _ in 0..3 {
        assert!(seed_with(&short).is_err());
    }
    GO.store(true, SeqCst);
    blocked.join().unwrap();
    end(seed());
    assert_eq!(action_of_33(), action);
}

/// Its signal of the round that failed comes while the next one waits for it, under another index.
pub(crate) fn a_latecomer_is_not_counted_in_the_next_round() {
    static OPEN: AtomicBool = AtomicBool::new(false);
    static STOP: AtomicBool = AtomicBool::new(false);
    forbid_ptrace();
    let crew = Crew::of([Kind::Futex, Kind::Poll, Kind::Read]);
    let latecomer = thread::spawn(|| {
        let old = raw_mask(!0);
        while !OPEN.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        // The next round has asked by then, and has not given up.
        thread::sleep(Duration::from_millis(10));
        raw_mask(old);
        while !STOP.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
    });
    thread::sleep(Duration::from_millis(20));
    let error = seed_with(&options()).unwrap_err();
    assert!(matches!(error, PrepareError::Stop(StopError::TraceRefused { .. })), "{error}");
    crew.end();
    OPEN.store(true, SeqCst);
    let seed = seed();
    assert_eq!(seed.pause().unwrap().threads, 1);
    keep(seed);
    STOP.store(true, SeqCst);
    latecomer.join().unwrap();
}
