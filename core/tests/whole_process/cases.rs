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

use super::latecomers::*;
use super::memory::*;
use super::pending::*;
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
        signals_that_are_pending_stay_so { check: two_seeds_have_what_is_pending },
        more_signals_than_are_carried_are_refused_and_stay,
        signals_that_nobody_may_look_at_are_refused_and_stay,
        ids_are_changed_meanwhile,
        alternative_stacks_with_room_for_a_frame_alone { check: checks::every_seed_is_whole },
        alternative_stacks_without_room_for_a_frame { check: checks::every_seed_is_whole },
        faults_while_threads_are_asked { check: checks::every_seed_has_its_threads },
        a_thread_without_a_processor_is_asked_round_after_round {
            check: checks::every_seed_is_whole
        },
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

pub(crate) fn options() -> PrepareOptions {
    PrepareOptions { threads: Threads::All, ..PrepareOptions::default() }
}

pub(crate) fn seed_with(options: &PrepareOptions) -> Result<Seed, PrepareError> {
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

pub(crate) fn end(seed: Seed) {
    seed.handle().unwrap();
    seed.drop_seed(DropMode::AfterChildren).unwrap();
}

/// Once the threads have left the handler.
pub(crate) fn soon_as_before<T: PartialEq + std::fmt::Debug>(before: &T, ask: impl Fn() -> T) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while ask() != *before && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(ask(), *before);
}

/// Masks and states of all threads of this process, but for those that come and go.
pub(crate) fn all_masks() -> BTreeMap<String, String> {
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

pub(crate) fn action_of_33() -> [u64; 4] {
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
