//! What the parent had is as it was: children, timers, files, threads.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::*;

pub(crate) fn wait_knows_no_child() {
    around_a_seed(|when| {
        let mut status = 0;
        // SAFETY: wait(2) into a live place.
        unsafe {
            assert_eq!((libc::wait(&raw mut status), errno()), (-1, libc::ECHILD), "{when}");
            let answer = libc::waitpid(-1, &raw mut status, libc::WNOHANG);
            assert_eq!((answer, errno()), (-1, libc::ECHILD), "{when}");
        }
    });
}

pub(crate) fn wait_by_the_seeds_pid_knows_no_child() {
    let seed = seed();
    seed.handle().unwrap();
    // SAFETY: wait(2) into live places.
    unsafe {
        assert_eq!((libc::waitpid(seed.pid(), null_mut(), 0), errno()), (-1, libc::ECHILD));
        let mut info: libc::siginfo_t = zeroed();
        let pid = seed.pid().cast_unsigned();
        let answer = libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED | libc::WNOHANG);
        assert_eq!((answer, errno()), (-1, libc::ECHILD));
    }
}

pub(crate) fn wait_still_finds_real_children() {
    // SAFETY: this process has one thread; the child ends at once.
    unsafe {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let child = libc::fork();
        if child == 0 {
            drop(writer);
            let mut byte = [0];
            let _ = reader.read(&mut byte);
            libc::_exit(9);
        }
        drop(reader);
        around_a_seed(|when| {
            assert_eq!(libc::waitpid(-1, null_mut(), libc::WNOHANG), 0, "{when}");
        });
        drop(writer);
        let mut status = 0;
        assert_eq!(libc::wait(&raw mut status), child);
        assert_eq!(libc::WEXITSTATUS(status), 9);
    }
}

pub(crate) fn no_sigchld() {
    handle(libc::SIGCHLD, count_signal as *const () as usize);
    around_a_seed(|when| assert_eq!(SIGNALS_SEEN.load(SeqCst), 0, "{when}"));
    thread::sleep(Duration::from_millis(20));
    assert_eq!(SIGNALS_SEEN.load(SeqCst), 0);
}

pub(crate) fn process_group_and_session() {
    // SAFETY: plain questions.
    unchanged(|| unsafe { (libc::getpgrp(), libc::getsid(0), libc::getppid(), libc::getpid()) });
    let seed = seed();
    seed.handle().unwrap();
    // SAFETY: plain questions.
    unsafe {
        assert_eq!(libc::getsid(seed.pid()), seed.pid());
        assert_ne!(libc::getpgid(seed.pid()), libc::getpgrp());
    }
}

pub(crate) fn open_files() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();
    file.seek(SeekFrom::Start(5)).unwrap();
    // SAFETY: duplicates a descriptor to a number that a check knows.
    unsafe { assert_eq!(libc::dup3(file.as_raw_fd(), 200, libc::O_CLOEXEC), 200) };
    unchanged(fds);
}

/// A process that closes any number of a file gives up its locks of fcntl(2) on it, and what has no name is read while the
/// caller stands.
pub(crate) fn locks_of_files_without_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let open = |options: &mut fs::OpenOptions| options.open(&path).unwrap();
    let reads = open(fs::OpenOptions::new().read(true).write(true).create_new(true));
    let writes = open(fs::OpenOptions::new().write(true));
    fs::remove_file(&path).unwrap();
    (&reads).write_all(b"content").unwrap();
    // SAFETY: all of a `flock` are plain numbers.
    let lock = |file: &fs::File, command: i32| unsafe {
        let mut whole: libc::flock = zeroed();
        whole.l_type = 1;
        assert_eq!(libc::fcntl(file.as_raw_fd(), command, &raw mut whole), 0);
        whole.l_type
    };
    lock(&writes, libc::F_SETLK);
    let seed =
        seed_with(&PrepareOptions { files: Files::Carried, ..PrepareOptions::default() }).unwrap();
    seed.handle().unwrap();
    // To an open file description all locks of processes are others'.
    assert_eq!(lock(&reads, libc::F_OFD_GETLK), 1, "the lock is there no more");
    drop(seed);
}

pub(crate) fn interval_timers() {
    // SAFETY: live structs.
    unsafe {
        let mut timer: libc::itimerval = zeroed();
        timer.it_value.tv_sec = 100;
        timer.it_interval.tv_sec = 7;
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, null_mut()), 0);
        around_a_seed(|when| {
            let mut now: libc::itimerval = zeroed();
            libc::getitimer(libc::ITIMER_REAL, &raw mut now);
            assert!((98..=100).contains(&now.it_value.tv_sec), "{when}");
            assert_eq!(now.it_interval.tv_sec, 7, "{when}");
        });
    }
}

pub(crate) fn posix_timers() {
    // SAFETY: live structs.
    unsafe {
        let mut timer: libc::timer_t = zeroed();
        assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, null_mut(), &raw mut timer), 0);
        let mut value: libc::itimerspec = zeroed();
        value.it_value.tv_sec = 100;
        assert_eq!(libc::timer_settime(timer, 0, &raw const value, null_mut()), 0);
        around_a_seed(|when| {
            let mut now: libc::itimerspec = zeroed();
            assert_eq!(libc::timer_gettime(timer, &raw mut now), 0, "{when}");
            assert!((98..=100).contains(&now.it_value.tv_sec), "{when}");
        });
    }
}

pub(crate) fn pending_alarm_still_rings() {
    handle(libc::SIGALRM, count_signal as *const () as usize);
    // SAFETY: a live struct.
    unsafe {
        let mut timer: libc::itimerval = zeroed();
        timer.it_value.tv_usec = 60_000;
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, null_mut()), 0);
    }
    let seed = seed();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(SIGNALS_SEEN.load(SeqCst), 1);
    drop(seed);
}

pub(crate) fn threads_go_on() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let work = || {
        while !STOP.load(SeqCst) {
            drop(vec![1u8; 10_000]);
            TURNS.fetch_add(1, SeqCst);
        }
    };
    let threads = [thread::spawn(work), thread::spawn(work)];
    unchanged(|| fs::read_dir("/proc/self/task").unwrap().count());
    let turns = TURNS.load(SeqCst);
    thread::sleep(Duration::from_millis(50));
    assert!(TURNS.load(SeqCst) > turns);
    STOP.store(true, SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

pub(crate) fn a_thread_may_prepare() {
    let thread = thread::Builder::new().name("worker".to_owned());
    let worker = thread.spawn(|| unchanged(|| (signal_state(), mappings()))).unwrap();
    worker.join().unwrap();
}

pub(crate) fn prepares_in_a_row_leave_no_zombies() {
    let first = seed();
    let pid = first.pid();
    first.handle().unwrap();
    first.drop_seed(DropMode::AfterChildren).unwrap();
    let second = seed();
    second.handle().unwrap();
    thread::sleep(Duration::from_millis(20));
    let third = seed();
    assert!(fs::metadata(format!("/proc/{pid}")).is_err(), "the first seed is still there");
    third.handle().unwrap();
    for seed in [second, third] {
        drop_and_reap(seed);
    }
}

pub(crate) fn threads_prepare_in_turn() {
    let worker = || {
        for _ in 0..5 {
            let seed = seed();
            seed.handle().unwrap();
            drop_and_reap(seed);
        }
    };
    let workers: Vec<_> = (0..4).map(|_| thread::spawn(worker)).collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    // SAFETY: asks.
    unsafe { assert_eq!(libc::waitpid(-1, null_mut(), libc::WNOHANG), -1) };
}

pub(crate) fn a_plain_fork_of_another_thread_is_unharmed() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static FORKS: AtomicU64 = AtomicU64::new(0);
    handle(libc::SIGSYS, count_signal as *const () as usize);
    let before = action(libc::SIGSYS);
    let forker = thread::spawn(move || {
        while !STOP.load(SeqCst) {
            // SAFETY: the child calls nothing but system calls and asks for its own state.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    let fine = action(libc::SIGSYS) == before && libc::getsid(0) != libc::getpid();
                    libc::_exit(if fine { 0 } else { 1 });
                }
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                assert_eq!(status, 0);
            }
            FORKS.fetch_add(1, SeqCst);
        }
    });
    // Both for a while: who of the two is quicker depends on the machine.
    let mut seeds = 0;
    while seeds < 100 || (FORKS.load(SeqCst) < 50 && !forker.is_finished()) {
        drop(seed());
        seeds += 1;
    }
    STOP.store(true, SeqCst);
    forker.join().unwrap();
}
