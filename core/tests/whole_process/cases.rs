//! What the processes do. Every assertion that fails ends the process with a message on stderr.

use std::collections::BTreeMap;
use std::fs;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use mitosis::client::Seed;
use mitosis::prepare::{
    Pause, PrepareError, PrepareOptions, Prepared, StopError, Threads, prepare,
};
use mitosis::wire::local::DropMode;

use super::stacks::*;
use super::threads::{Crew, Kind, raw_mask, set_name};
use super::{Case, checks, traced};

pub(crate) const PAGE: usize = 4096;
pub(crate) const MARKED_AT: u64 = 0x10_0000_0000;
pub(crate) const SHARED_AT: u64 = 0x11_0000_0000;

pub(crate) fn all() -> Vec<Case> {
    let case = |name, run: fn()| Case { name, run, check: |_| {}, attend: None };
    macro_rules! cases {
        ($($name:ident $({ $($field:ident: $value:expr),* })?),* $(,)?) => {
            vec![$(Case { $($($field: $value,)*)? ..case(stringify!($name), $name) }),*]
        };
    }
    cases![
        threads_in_every_wait_go_on { check: checks::the_masks_are_those_of_the_threads },
        two_hundred_threads_go_on { check: checks::two_hundred_and_one },
        threads_that_come_and_go { check: checks::every_seed_has_its_threads },
        a_hundred_prepares_in_a_row { check: checks::a_hundred_seeds },
        any_thread_may_prepare { check: checks::the_caller_comes_first },
        a_signal_handler_may_prepare { check: checks::every_seed_is_whole },
        a_main_thread_that_has_ended_is_missed,
        one_thread_is_a_whole_process { check: checks::every_seed_is_whole },
        several_threads_prepare_in_turn { check: checks::every_seed_is_whole },
        signals_reach_their_threads { check: checks::every_seed_is_whole },
        ids_are_changed_meanwhile,
        alternative_stacks_with_room_for_a_frame_alone { check: checks::every_seed_is_whole },
        alternative_stacks_without_room_for_a_frame { check: checks::every_seed_is_whole },
        faults_while_threads_are_asked { check: checks::every_seed_has_its_threads },
        tiles_fill_an_alternative_stack { check: checks::every_seed_is_whole },
        memory_that_is_not_to_be_forked { check: checks::marked_memory_is_carried },
        shared_memory_is_copied { check: checks::the_copy_has_the_old_bytes },
        shared_memory_above_the_limit_is_refused_by_name,
        schedules { check: checks::schedules_are_listed },
        a_thread_that_may_not_be_opened_is_named,
        a_thread_in_vfork_is_named,
        a_thread_that_has_been_told_too_late_is_unharmed,
        a_latecomer_is_not_counted_in_the_next_round { check: checks::every_seed_is_whole },
        an_epoll_of_a_thousand_watches { check: checks::every_watch_is_carried },
        no_descriptor_is_left,
        a_seed_is_nobodys_child,
        a_child_goes_on_from_prepare { attend: Some(traced::resume_in_place) },
        a_rehearsal_ends_before_the_others_go_on { attend: Some(traced::rehearse_in_place) },
    ]
}

fn options() -> PrepareOptions {
    PrepareOptions { threads: Threads::All, ..PrepareOptions::default() }
}

fn seed_with(options: &PrepareOptions) -> Result<Seed, PrepareError> {
    match prepare(options)? {
        Prepared::Parent(seed) => Ok(seed),
        Prepared::Child(_) => panic!("nobody resumes here"),
    }
}

pub(crate) fn seed() -> Seed {
    seed_with(&options()).unwrap()
}

/// The check looks at it later.
pub(crate) fn keep(seed: Seed) {
    seed.handle().unwrap();
}

fn end(seed: Seed) {
    seed.handle().unwrap();
    seed.drop_seed(DropMode::AfterChildren).unwrap();
}

/// Once the threads have left the handler.
fn soon_as_before<T: PartialEq + std::fmt::Debug>(before: &T, ask: impl Fn() -> T) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while ask() != *before && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(ask(), *before);
}

/// Masks and states of all threads of this process, but for those that come and go.
fn all_masks() -> BTreeMap<String, String> {
    let mut masks = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/task").unwrap() {
        let path = entry.unwrap().path();
        let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
        let line =
            |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        let tid = path.file_name().unwrap().to_string_lossy().into_owned();
        masks.insert(tid, line("SigBlk:") + &line("SigPnd:") + &line("Name:"));
    }
    masks
}

fn action_of_33() -> [u64; 4] {
    let mut action = [0u64; 4];
    // SAFETY: the kernel writes a struct sigaction.
    let answer = unsafe { libc::syscall(libc::SYS_rt_sigaction, 33, 0, action.as_mut_ptr(), 8) };
    assert_eq!(answer, 0);
    action
}

/// Median and worst of some pauses.
fn told(what: &str, mut pauses: Vec<Pause>) {
    let us = |time: Duration| time.as_nanos() as f64 / 1000.0;
    let count = pauses.len();
    pauses.sort_by_key(|pause| pause.parking);
    let (median, worst) = (us(pauses[count / 2].parking), us(pauses[count - 1].parking));
    pauses.sort_by_key(|pause| pause.whole);
    let whole = us(pauses[count / 2].whole);
    eprintln!(
        "    {what}: {} threads park within {median:.0} us (worst {worst:.0}), stand for {whole:.0} us: \
         medians of {count}",
        pauses[0].threads
    );
}

fn threads_in_every_wait_go_on() {
    let crew = Crew::new(10);
    let (masks, action) = (all_masks(), action_of_33());
    let seed = seed();
    let pause = seed.pause().unwrap();
    assert_eq!(pause.threads, 10);
    assert!(pause.parking <= pause.whole && pause.clone < pause.whole);
    soon_as_before(&masks, all_masks);
    assert_eq!(action_of_33(), action);
    let turns = crew.turns();
    thread::sleep(Duration::from_millis(20));
    assert!(crew.turns() > turns, "nobody works");
    keep(seed);
    crew.end();
}

fn two_hundred_threads_go_on() {
    let crew = Crew::new(200);
    let masks = all_masks();
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let seed = seed();
        pauses.push(seed.pause().unwrap());
        keep(seed);
    }
    soon_as_before(&masks, all_masks);
    crew.end();
    told("200 threads", pauses);
}

fn threads_that_come_and_go() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static BORN: AtomicU32 = AtomicU32::new(0);
    fn generations() {
        while !STOP.load(SeqCst) {
            let one = thread::spawn(|| vec![1u8; 1000].iter().map(|b| u32::from(*b)).sum::<u32>());
            assert_eq!(one.join().unwrap(), 1000);
            BORN.fetch_add(1, SeqCst);
        }
    }
    let parents: Vec<_> = (0..3).map(|_| thread::spawn(generations)).collect();
    for _ in 0..30 {
        keep(seed());
    }
    STOP.store(true, SeqCst);
    parents.into_iter().for_each(|parent| parent.join().unwrap());
    assert!(BORN.load(SeqCst) > 30, "too few threads came and went");
}

fn a_hundred_prepares_in_a_row() {
    let waiting = [Kind::Futex, Kind::Epoll, Kind::Read, Kind::Poll, Kind::SigWait];
    let crew = Crew::of(waiting.into_iter().cycle().take(10));
    let mut pauses = Vec::new();
    for _ in 0..100 {
        let seed = seed();
        pauses.push(seed.pause().unwrap());
        keep(seed);
    }
    crew.end();
    told("waiting threads", pauses);
    // SAFETY: asks.
    unsafe { assert_eq!(libc::waitpid(-1, null_mut(), libc::WNOHANG), -1) };
}

fn any_thread_may_prepare() {
    let crew = Crew::new(5);
    let caller = thread::Builder::new().name("caller".to_owned());
    caller.spawn(|| keep(seed())).unwrap().join().unwrap();
    crew.end();
}

static IN_HANDLER: AtomicU32 = AtomicU32::new(0);

/// Prepare allocates before anybody stops: this process's threads hold no lock of the allocator when the
/// signal comes.
extern "C" fn prepare_here(_: i32) {
    let seed = seed();
    seed.handle().unwrap();
    std::mem::forget(seed);
    IN_HANDLER.fetch_add(1, SeqCst);
}

fn a_signal_handler_may_prepare() {
    let crew = Crew::of([Kind::Futex, Kind::Poll, Kind::Read]);
    // SAFETY: see the handler.
    unsafe {
        libc::signal(libc::SIGUSR1, prepare_here as *const () as usize);
        assert_eq!(libc::raise(libc::SIGUSR1), 0);
        // In a thread that waits.
        let sleeper = thread::spawn(|| {
            thread::sleep(Duration::from_millis(100));
        });
        use std::os::unix::thread::JoinHandleExt;
        thread::sleep(Duration::from_millis(10));
        libc::pthread_kill(sleeper.as_pthread_t(), libc::SIGUSR1);
        sleeper.join().unwrap();
    }
    assert_eq!(IN_HANDLER.load(SeqCst), 2);
    crew.end();
}

fn one_thread_is_a_whole_process() {
    let seed = seed();
    assert_eq!(seed.pause().unwrap().threads, 0);
    keep(seed);
}

/// It stays in /proc/self/task, and takes no signal any more.
fn a_main_thread_that_has_ended_is_missed() {
    thread::spawn(|| {
        thread::sleep(Duration::from_millis(30));
        let outcome = std::panic::catch_unwind(|| {
            let error = seed_with(&options()).unwrap_err();
            let PrepareError::Stop(StopError::MainThreadEnded) = error else { panic!("{error}") };
            assert!(error.to_string().contains("pthread_join"), "{error}");
        });
        std::process::exit(i32::from(outcome.is_err()));
    });
    // SAFETY: nothing of this thread's stack is used by others.
    unsafe { libc::syscall(libc::SYS_exit, 1) };
}

fn several_threads_prepare_in_turn() {
    const WORKERS: usize = 4;
    let all_have_begun = Arc::new(Barrier::new(WORKERS));
    let worker = || {
        let all_have_begun = Arc::clone(&all_have_begun);
        thread::spawn(move || {
            all_have_begun.wait();
            (0..5).for_each(|_| keep(seed()));
        })
    };
    let workers: Vec<_> = (0..WORKERS).map(|_| worker()).collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

static ALARMS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    ALARMS.fetch_add(1, SeqCst);
}

/// A signal for a thread that stands waits for it.
fn signals_reach_their_threads() {
    let crew = Crew::of([Kind::Spin, Kind::Futex]);
    // SAFETY: a handler that counts; a live timer.
    unsafe {
        libc::signal(libc::SIGALRM, count as *const () as usize);
        let mut timer: libc::itimerval = zeroed();
        (timer.it_value.tv_usec, timer.it_interval.tv_usec) = (1000, 1000);
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, null_mut());
    }
    for _ in 0..20 {
        keep(seed());
    }
    let before = ALARMS.load(SeqCst);
    let deadline = Instant::now() + Duration::from_secs(5);
    while ALARMS.load(SeqCst) < before + 5 {
        assert!(Instant::now() < deadline, "alarms do not come any more");
        thread::sleep(Duration::from_millis(1));
    }
    crew.end();
}

/// glibc changes the ids of all threads by the very signal.
fn ids_are_changed_meanwhile() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let crew = Crew::of([Kind::Futex, Kind::Poll, Kind::Nanosleep]);
    let changer = thread::spawn(|| {
        let mut times = 0u32;
        while !STOP.load(SeqCst) {
            // SAFETY: to what it is.
            unsafe { assert_eq!(libc::setresuid(libc::getuid(), libc::getuid(), u32::MAX), 0) };
            times += 1;
            thread::sleep(Duration::from_micros(300));
        }
        times
    });
    thread::sleep(Duration::from_millis(5));
    let action = action_of_33();
    assert_ne!(action[0], 0, "glibc has not taken signal 33");
    for _ in 0..30 {
        let seed = seed();
        assert_eq!(action_of_33(), action);
        end(seed);
    }
    STOP.store(true, SeqCst);
    assert!(changer.join().unwrap() > 10);
    crew.end();
}

/// # Safety
/// Nothing else is there.
unsafe fn map(at: u64, pages: usize, flags: i32) -> &'static mut [u8] {
    let (prot, len) = (libc::PROT_READ | libc::PROT_WRITE, pages * PAGE);
    let flags = flags | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: the caller's.
    unsafe {
        let at = usize::try_from(at).unwrap() as *mut libc::c_void;
        assert_eq!(libc::mmap(at, len, prot, flags, -1, 0), at);
        std::slice::from_raw_parts_mut(at.cast(), len)
    }
}

/// Whether a fork's child has byte `at`.
fn a_fork_has(at: u64) -> bool {
    // SAFETY: the child asks the kernel and ends.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            let mut resident = 0u8;
            let at = usize::try_from(at).unwrap() as *mut libc::c_void;
            let there = libc::mincore(at, 1, &raw mut resident) == 0;
            libc::_exit(i32::from(there));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        libc::WEXITSTATUS(status) == 1
    }
}

fn memory_that_is_not_to_be_forked() {
    // SAFETY: nothing else is there.
    let memory = unsafe { map(MARKED_AT, 16, libc::MAP_PRIVATE) };
    memory.fill(7);
    let page = |number: usize| (&raw const memory[number * PAGE]).cast_mut().cast::<libc::c_void>();
    // SAFETY: our own mapping.
    unsafe {
        assert_eq!(libc::madvise(page(0), 12 * PAGE, libc::MADV_DONTFORK), 0);
        assert_eq!(libc::mprotect(page(4), PAGE, libc::PROT_READ), 0);
    }
    let crew = Crew::of([Kind::Futex, Kind::Spin]);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let near = |maps: &str| -> Vec<String> {
        maps.lines().filter(|line| line.starts_with("10000")).map(str::to_owned).collect()
    };
    let seed = seed();
    assert_eq!(near(&fs::read_to_string("/proc/self/maps").unwrap()), near(&maps));
    for (number, has) in [(0, false), (4, false), (11, false), (12, true), (15, true)] {
        assert_eq!(a_fork_has(page(number) as usize as u64), has, "page {number}");
    }
    memory[12 * PAGE..].fill(9);
    memory[..4 * PAGE].fill(9);
    keep(seed);
    crew.end();
}

fn shared_memory_is_copied() {
    // SAFETY: nothing else is there.
    let memory = unsafe { map(SHARED_AT, 100, libc::MAP_SHARED) };
    (memory[0], memory[99 * PAGE]) = (5, 6);
    let crew = Crew::of([Kind::Futex]);
    let seed = seed();
    (memory[0], memory[3 * PAGE], memory[99 * PAGE]) = (1, 1, 1);
    keep(seed);
    crew.end();
}

fn shared_memory_above_the_limit_is_refused_by_name() {
    // SAFETY: nothing else is there.
    let memory = unsafe { map(SHARED_AT, 3, libc::MAP_SHARED) };
    memory.fill(1);
    let crew = Crew::new(10);
    let masks = all_masks();
    let few = PrepareOptions { shared_copy_limit: 2 * PAGE as u64, ..options() };
    let error = seed_with(&few).unwrap_err().to_string();
    assert!(error.contains("/dev/zero") && error.contains("shared_copy_limit"), "{error}");
    soon_as_before(&masks, all_masks);
    end(seed());
    crew.end();
}

fn schedules() {
    static STOP: AtomicBool = AtomicBool::new(false);
    static READY: AtomicU32 = AtomicU32::new(0);
    let wait = || {
        READY.fetch_add(1, SeqCst);
        while !STOP.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
    };
    let nice = thread::spawn(move || {
        set_name("nice");
        // SAFETY: of this thread.
        unsafe { assert_eq!(libc::setpriority(libc::PRIO_PROCESS, 0, 7), 0) };
        wait();
    });
    let batch = thread::spawn(move || {
        set_name("batch");
        let parameter = libc::sched_param { sched_priority: 0 };
        // SAFETY: of this thread.
        unsafe {
            assert_eq!(libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameter), 0);
        }
        wait();
    });
    while READY.load(SeqCst) < 2 {
        thread::sleep(Duration::from_millis(1));
    }
    keep(seed());
    STOP.store(true, SeqCst);
    nice.join().unwrap();
    batch.join().unwrap();
}

/// A filter of the whole process, as a sandbox has: ptrace(2) is EPERM.
fn forbid_ptrace() {
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

fn a_thread_that_may_not_be_opened_is_named() {
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

fn a_thread_in_vfork_is_named() {
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
fn a_thread_that_has_been_told_too_late_is_unharmed() {
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
fn a_latecomer_is_not_counted_in_the_next_round() {
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

pub(crate) const WATCHES: u32 = 1000;

/// Its fdinfo has about 78 KiB.
fn an_epoll_of_a_thousand_watches() {
    // SAFETY: live arguments; nothing is closed before the end.
    unsafe {
        let limit = libc::rlimit { rlim_cur: 4096, rlim_max: 4096 };
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        let epoll = libc::epoll_create1(0);
        let event = libc::eventfd(0, 0);
        for number in 0..WATCHES {
            let watched = libc::dup(event);
            let data = u64::MAX - u64::from(number);
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: data };
            assert_eq!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, watched, &raw mut event), 0);
        }
    }
    keep(seed());
}

fn limit_of_files(soft: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live limit.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        let before = std::mem::replace(&mut limit.rlim_cur, soft);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        before
    }
}

/// It is the caller's limit that is told, not a /proc that is not there; and nobody is left standing.
fn no_descriptor_is_left() {
    let crew = Crew::of([Kind::Futex, Kind::Poll]);
    // One number is left below the limit, for the connection to the agent.
    // SAFETY: plain numbers.
    let next = unsafe { libc::dup(0) };
    // SAFETY: just opened.
    unsafe { libc::close(next) };
    let before = limit_of_files(u64::try_from(next).unwrap() + 1);
    let error = seed_with(&options()).unwrap_err();
    limit_of_files(before);
    let text = error.to_string();
    assert!(text.contains("ulimit -n") && !text.contains("mount"), "{text}");
    end(seed());
    crew.end();
}

fn a_seed_is_nobodys_child() {
    let crew = Crew::of([Kind::Futex]);
    // SAFETY: a handler that counts.
    unsafe { libc::signal(libc::SIGCHLD, count as *const () as usize) };
    let seed = seed();
    // SAFETY: asks.
    unsafe { assert_eq!(libc::waitpid(-1, null_mut(), libc::WNOHANG), -1) };
    let pid = seed.pid();
    end(seed);
    let deadline = Instant::now() + Duration::from_secs(5);
    while fs::metadata(format!("/proc/{pid}")).is_ok() {
        assert!(Instant::now() < deadline, "it is still there");
        // SAFETY: by name, as prepare does.
        unsafe { libc::waitpid(pid, null_mut(), libc::__WALL | libc::WNOHANG) };
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(ALARMS.load(SeqCst), 0);
    crew.end();
}

/// Nobody makes its other threads here: the caller alone goes on, and finds what it was told.
fn a_child_goes_on_from_prepare() {
    let mut crew = Some(Crew::of([Kind::Futex, Kind::Poll]));
    // SAFETY: nobody else reads it now.
    unsafe { std::env::set_var("MITOSIS_TEST_GONE", "still here") };
    let path = std::env::var("MITOSIS_AGENT").unwrap() + ".child";
    let masks = raw_mask(1 << (libc::SIGUSR1 - 1));
    match prepare(&options()).unwrap() {
        Prepared::Parent(seed) => {
            raw_mask(masks);
            seed.handle().unwrap();
            println!("{}", seed.pid());
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            crew.take().unwrap().end();
        }
        Prepared::Child(resumed) if resumed.rehearsal => panic!("prepare ends a rehearsal itself"),
        Prepared::Child(resumed) => {
            assert_eq!((resumed.index, resumed.generation), (5, 3));
            assert_eq!(mitosis::prepare::generation(), 3);
            assert_eq!(resumed.payload, b"for you");
            assert_eq!(std::env::var("MITOSIS_TEST_SET").unwrap(), "x=y");
            assert!(std::env::var("MITOSIS_TEST_GONE").is_err());
            assert_eq!(raw_mask(0), 1 << (libc::SIGUSR1 - 1));
            // It may start threads, and be prepared in turn.
            assert_eq!(thread::spawn(|| 4).join().unwrap(), 4);
            let waiting = thread::spawn(|| thread::sleep(Duration::from_millis(50)));
            let seed = seed();
            assert_eq!(seed.pause().unwrap().threads, 1);
            seed.handle().unwrap();
            waiting.join().unwrap();
            fs::write(path, b"fine").unwrap();
            std::process::exit(0);
        }
    }
}

/// As the case before, with another role in its `ResumeInfo`.
fn a_rehearsal_ends_before_the_others_go_on() {
    a_child_goes_on_from_prepare();
}
