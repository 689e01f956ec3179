//! What the processes do. Every assertion that fails ends the process with a message on stderr.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use mitosis::client::{ClientError, Seed};
use mitosis::prepare::{PrepareError, PrepareOptions, Prepared, Resumed, prepare};
use mitosis::wire::local::DropMode;

/// Where a case puts memory that a check looks at.
pub(crate) const PRIVATE_AT: u64 = 0x10_0000_0000;
pub(crate) const SHARED_AT: u64 = 0x11_0000_0000;
pub(crate) const MEMFD_AT: u64 = 0x12_0000_0000;
pub(crate) const MEMFD_VIEW_AT: u64 = 0x13_0000_0000;
pub(crate) const READ_ONLY_FILE_AT: u64 = 0x14_0000_0000;
pub(crate) const PAGE: usize = 4096;

fn seed_with(options: &PrepareOptions) -> Result<Seed, PrepareError> {
    match prepare(options)? {
        Prepared::Parent(seed) => Ok(seed),
        Prepared::Child(_) => panic!("nobody resumes here"),
    }
}

fn seed() -> Seed {
    seed_with(&PrepareOptions::default()).unwrap()
}

/// One whole life of a seed, looked at while it is there and when it is gone.
fn around_a_seed(look: impl Fn(&str)) {
    look("before");
    let seed = seed();
    look("right after prepare");
    seed.handle().unwrap();
    look("once it is published");
    drop_and_reap(seed);
    look("after drop");
}

fn drop_and_reap(seed: Seed) {
    let pid = seed.pid();
    seed.drop_seed(DropMode::AfterChildren).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while fs::metadata(format!("/proc/{pid}")).is_ok() {
        assert!(Instant::now() < deadline, "the seed did not end, or was not reaped");
        // Its next prepare would reap it, too.
        thread::sleep(Duration::from_millis(5));
        // SAFETY: by name, as prepare does.
        unsafe { libc::waitpid(pid, null_mut(), libc::__WALL | libc::WNOHANG) };
    }
}

/// The same before and at every look.
fn unchanged<T: PartialEq + std::fmt::Debug>(ask: impl Fn() -> T) {
    let before = ask();
    around_a_seed(|when| assert_eq!(ask(), before, "{when}"));
}

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

/// # Safety
/// `at..at + pages` is free.
pub(crate) unsafe fn map(at: u64, pages: usize, flags: i32, fd: i32) -> &'static mut [u8] {
    unsafe { map_as(at, pages, flags, fd, libc::PROT_READ | libc::PROT_WRITE) }
}

unsafe fn map_as(at: u64, pages: usize, flags: i32, fd: i32, prot: i32) -> &'static mut [u8] {
    // SAFETY: MAP_FIXED_NOREPLACE replaces nothing.
    unsafe {
        let (at, len) = (at as *mut libc::c_void, pages * PAGE);
        let got = libc::mmap(at, len, prot, flags | libc::MAP_FIXED_NOREPLACE, fd, 0);
        assert_eq!(got, at, "{}", std::io::Error::last_os_error());
        std::slice::from_raw_parts_mut(at.cast(), len)
    }
}

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

static SIGNALS_SEEN: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS_SEEN.fetch_add(1, SeqCst);
}

fn handle(signal: i32, handler: usize) {
    // SAFETY: the handlers here only count.
    unsafe { assert_ne!(libc::signal(signal, handler), libc::SIG_ERR) };
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

fn fds() -> BTreeMap<String, String> {
    let own =
        |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|link| !link.ends_with("fd"));
    let describe = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{name}")).unwrap();
        (name, format!("{:?} {info}", fs::read_link(entry.path()).unwrap()))
    };
    fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap).filter(own).map(describe).collect()
}

pub(crate) fn open_files() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"0123456789").unwrap();
    file.seek(SeekFrom::Start(5)).unwrap();
    // SAFETY: duplicates a descriptor to a number that a check knows.
    unsafe { assert_eq!(libc::dup3(file.as_raw_fd(), 200, libc::O_CLOEXEC), 200) };
    unchanged(fds);
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

pub(crate) fn memory_contents() {
    // SAFETY: nothing else is there.
    let memory = unsafe { map(PRIVATE_AT, 64, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1) };
    for (i, byte) in memory.iter_mut().enumerate() {
        *byte = (i % 251) as u8;
    }
    let before = memory.to_vec();
    let seed = seed();
    assert!(memory == before.as_slice());
    // What the parent writes now is not the seed's.
    memory.fill(0xee);
    seed.handle().unwrap();
    assert!(memory.iter().all(|byte| *byte == 0xee));
}

/// Mappings but for the heap and stack, which the test's own strings let grow.
fn mappings() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/maps").unwrap();
    let own = |line: &&str| !line.ends_with("[heap]") && !line.ends_with("[stack]");
    text.lines().filter(own).map(str::to_owned).collect()
}

pub(crate) fn mappings_are_left_as_they_were() {
    // SAFETY: nothing else is there.
    unsafe { map(SHARED_AT, 64, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1).fill(1) };
    drop_and_reap(seed());
    unchanged(mappings);
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

fn status_line(name: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    text.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
}

fn signal_state() -> [String; 4] {
    ["SigBlk:", "SigIgn:", "SigCgt:", "SigPnd:"].map(status_line)
}

fn block(signals: &[i32]) {
    // SAFETY: a live set.
    unsafe {
        let mut set: libc::sigset_t = zeroed();
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, null_mut());
    }
}

fn action(signal: i32) -> (usize, i32) {
    // SAFETY: asks.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        libc::sigaction(signal, null(), &raw mut action);
        (action.sa_sigaction, action.sa_flags)
    }
}

pub(crate) fn signal_masks_and_dispositions() {
    handle(libc::SIGUSR1, count_signal as *const () as usize);
    handle(libc::SIGPIPE, libc::SIG_IGN);
    handle(60, count_signal as *const () as usize);
    block(&[libc::SIGUSR2, 60]);
    unchanged(signal_state);
    unchanged(|| (action(60), action(libc::SIGSYS)));
}

pub(crate) fn sigsys_handled_ignored_or_blocked() {
    for handler in [count_signal as *const () as usize, libc::SIG_IGN, libc::SIG_DFL] {
        handle(libc::SIGSYS, handler);
        unchanged(|| (action(libc::SIGSYS), signal_state()));
    }
    block(&[libc::SIGSYS]);
    unchanged(|| (action(libc::SIGSYS), signal_state()));
    assert_eq!(SIGNALS_SEEN.load(SeqCst), 0);
}

pub(crate) fn a_seccomp_trap_in_another_thread_reaches_its_handler() {
    static STOP: AtomicBool = AtomicBool::new(false);
    handle(libc::SIGSYS, count_signal as *const () as usize);
    let trapped = thread::spawn(|| {
        trap_getpgrp();
        let mut sent = 0u32;
        while !STOP.load(SeqCst) {
            // SAFETY: the filter turns it into SIGSYS.
            unsafe { libc::syscall(libc::SYS_getpgrp) };
            sent += 1;
        }
        sent
    });
    while SIGNALS_SEEN.load(SeqCst) == 0 {
        thread::yield_now();
    }
    for _ in 0..20 {
        drop_and_reap(seed());
    }
    STOP.store(true, SeqCst);
    assert_eq!(trapped.join().unwrap(), SIGNALS_SEEN.load(SeqCst));
}

/// A filter for the calling thread: getpgrp(2) raises SIGSYS.
fn trap_getpgrp() {
    filter(libc::SYS_getpgrp, None, libc::SECCOMP_RET_TRAP);
}

/// A filter for the calling thread: `answer` to system call `number`, if its first argument is as given.
fn filter(number: libc::c_long, argument: Option<u32>, answer: u32) {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let number = u32::try_from(number).unwrap();
    // Offset of the first argument's low half in struct seccomp_data.
    const ARGUMENT: u32 = 16;
    let allow = op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
    let mut filter = match argument {
        None => vec![op(LOAD_NUMBER, 0, 0, 0), op(JUMP_IF_EQUAL, 0, 1, number)],
        Some(argument) => vec![
            op(LOAD_NUMBER, 0, 0, 0),
            op(JUMP_IF_EQUAL, 0, 3, number),
            op(LOAD_NUMBER, 0, 0, ARGUMENT),
            op(JUMP_IF_EQUAL, 0, 1, argument),
        ],
    };
    filter.extend([op(RETURN, 0, 0, answer), allow]);
    let len = u16::try_from(filter.len()).unwrap();
    let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
    // SAFETY: a live program.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
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
    handle(libc::SIGSYS, count_signal as *const () as usize);
    let before = action(libc::SIGSYS);
    let forker = thread::spawn(move || {
        let mut forks = 0;
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
            forks += 1;
        }
        forks
    });
    for _ in 0..100 {
        drop(seed());
    }
    STOP.store(true, SeqCst);
    assert!(forker.join().unwrap() > 10);
}

pub(crate) fn a_thread_started_by_a_fork_handler_is_refused_by_name() {
    START_A_THREAD.store(true, SeqCst);
    match seed().handle() {
        Err(ClientError::Failed(failure)) => {
            let text = failure.to_string();
            assert!(text.contains("'sneaky'") && text.contains("LD_PRELOAD"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

static START_A_THREAD: AtomicBool = AtomicBool::new(false);

/// Earlier than libmitosis's own.
#[used]
#[unsafe(link_section = ".init_array.00099")]
static EARLY: extern "C" fn() = register_early;

extern "C" fn register_early() {
    // SAFETY: a handler that does nothing unless its case asks.
    unsafe { libc::pthread_atfork(None, None, Some(start_a_thread)) };
}

unsafe extern "C" fn start_a_thread() {
    extern "C" fn idle(_: *mut libc::c_void) -> *mut libc::c_void {
        loop {
            // SAFETY: sleeps.
            unsafe { libc::pause() };
        }
    }
    if START_A_THREAD.load(SeqCst) {
        // SAFETY: a fresh thread with live arguments.
        unsafe {
            let mut thread = 0;
            assert_eq!(libc::pthread_create(&raw mut thread, null(), idle, null_mut()), 0);
            libc::pthread_setname_np(thread, c"sneaky".as_ptr());
        }
    }
}

fn memfd(name: &std::ffi::CStr, pages: usize) -> i32 {
    // SAFETY: a new descriptor.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        assert_eq!(libc::ftruncate(fd, (pages * PAGE) as i64), 0);
        fd
    }
}

pub(crate) fn shared_memory_is_copied() {
    let fd = memfd(c"pool", 8);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[4; PAGE]).unwrap();
    // SAFETY: nothing else is there.
    unsafe {
        let anonymous = map(SHARED_AT, 1000, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1);
        let pool = map(MEMFD_AT, 8, libc::MAP_SHARED, fd);
        map_as(MEMFD_VIEW_AT, 8, libc::MAP_SHARED, fd, libc::PROT_READ);
        let flags = libc::MAP_SHARED;
        map_as(READ_ONLY_FILE_AT, 1, flags, file.as_raw_fd(), libc::PROT_READ);
        anonymous[500 * PAGE] = 1;
        pool[3 * PAGE] = 2;
        let seed = seed();
        // As a server's other requests would: the seed must not see it.
        anonymous[500 * PAGE] = 0xff;
        anonymous[501 * PAGE] = 0xff;
        pool[3 * PAGE] = 0xff;
        seed.handle().unwrap();
        assert_eq!((anonymous[500 * PAGE], pool[3 * PAGE]), (0xff, 0xff));
    }
}

pub(crate) fn shared_memory_above_the_limit_is_refused_by_name() {
    let before = (fds(), mappings());
    let fd = memfd(c"big-pool", 64);
    // SAFETY: nothing else is there.
    let pool = unsafe { map(MEMFD_AT, 64, libc::MAP_SHARED, fd) };
    pool[..32 * PAGE].fill(1);
    let limit = |pages: usize| PrepareOptions {
        shared_copy_limit: (pages * PAGE) as u64,
        ..PrepareOptions::default()
    };
    let text = seed_with(&limit(31)).unwrap_err().to_string();
    assert!(text.contains("/memfd:big-pool") && text.contains("1200000000"), "{text}");
    // At the limit it is fine.
    drop_and_reap(seed_with(&limit(32)).unwrap());
    // SAFETY: ours, and no longer used.
    unsafe {
        libc::munmap(MEMFD_AT as *mut _, 64 * PAGE);
        libc::close(fd);
    }
    assert_eq!((fds(), mappings()), before);
}

pub(crate) fn without_an_agent_nothing_stops() {
    let before = (fds(), signal_state());
    let error = seed_with(&PrepareOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("agent.sock") && text.contains("'mitosis agent'"), "{text}");
    assert_eq!((fds(), signal_state()), before);
}

pub(crate) fn an_agent_that_hangs_up_is_an_error_at_once() {
    let began = Instant::now();
    let seed = seed();
    let error = seed.handle().unwrap_err();
    assert!(matches!(error, ClientError::Closed { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2));
    let deadline = Instant::now() + Duration::from_secs(5);
    while !seed.reaped() {
        assert!(Instant::now() < deadline, "the seed outlived its agent");
        thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn a_sandbox_without_dispatch_is_refused_unless_a_visible_seed_is_allowed() {
    const PR_SET_SYSCALL_USER_DISPATCH: u32 = 59;
    let einval = libc::SECCOMP_RET_ERRNO | libc::EINVAL.cast_unsigned();
    filter(libc::SYS_prctl, Some(PR_SET_SYSCALL_USER_DISPATCH), einval);
    let before = (fds(), signal_state());
    let error = seed_with(&PrepareOptions::default()).unwrap_err();
    assert!(matches!(error, PrepareError::NoDispatch), "{error}");
    assert!(error.to_string().contains("allow_visible_seed"), "{error}");
    assert_eq!((fds(), signal_state()), before);
    handle(libc::SIGCHLD, count_signal as *const () as usize);
    let options = PrepareOptions { allow_visible_seed: true, ..PrepareOptions::default() };
    let seed = seed_with(&options).unwrap();
    seed.handle().unwrap();
    // SAFETY: asks.
    assert_eq!(unsafe { libc::waitpid(-1, null_mut(), libc::WNOHANG) }, 0, "it shows");
    assert_eq!(signal_state()[0], before.1[0]);
    drop_and_reap(seed);
    assert_eq!(SIGNALS_SEEN.load(SeqCst), 1);
}

pub(crate) fn a_process_that_is_not_dumpable_is_refused() {
    // SAFETY: drops root, then asks for what setuid programs have anyway.
    unsafe {
        let socket = std::env::var("MITOSIS_AGENT").unwrap();
        let open = |path: &std::path::Path| {
            let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            fs::set_permissions(path, everybody).unwrap();
        };
        open(socket.as_ref());
        open(std::path::Path::new(&socket).parent().unwrap());
        assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
        assert_eq!(libc::prctl(libc::PR_SET_DUMPABLE, 0), 0);
    }
    match seed().handle() {
        Err(ClientError::Failed(failure)) => {
            assert!(failure.to_string().contains("PR_SET_DUMPABLE"), "{failure}");
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn a_fork_that_fails_leaves_nothing() {
    let error = mitosis::client::fork(Some("host-b")).unwrap_err().to_string();
    assert!(error.contains("a stand-in cannot Resume"), "{error}");
    let seeds = || {
        let ours = |stat: String| {
            let rest = stat.rsplit_once(") ").unwrap().1.to_owned();
            rest.split(' ').nth(1).unwrap().parse() == Ok(std::process::id())
        };
        let stats = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read_to_string(entry.unwrap().path().join("stat")).ok());
        stats.filter(|stat| stat.contains(") ")).filter(|stat| ours(stat.clone())).count()
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while seeds() > 0 {
        assert!(Instant::now() < deadline, "a seed is left");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for a line on stdin: whoever attends the case has taken hold of this process.
fn await_go() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(line, "go\n");
}

pub(crate) fn nothing_is_written_behind_the_frame() {
    // SAFETY: nothing else is there.
    unsafe { map(PRIVATE_AT, 64, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1).fill(3) };
    await_go();
    let seed = seed();
    println!("{}", seed.pid());
    seed.handle().unwrap();
    await_go();
}

static LATE_HANDLER_RAN: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn late_handler() {
    LATE_HANDLER_RAN.fetch_add(1, SeqCst);
}

/// The child's half is told through a file: it is nobody's child and has no descriptors.
pub(crate) fn a_resumed_child_goes_on_from_prepare() {
    // SAFETY: a handler that counts.
    unsafe { libc::pthread_atfork(None, None, Some(late_handler)) };
    handle(libc::SIGSYS, count_signal as *const () as usize);
    block(&[libc::SIGUSR2]);
    let masks = status_line("SigBlk:");
    // SAFETY: one thread.
    unsafe { std::env::set_var("MITOSIS_TEST_GONE", "still here") };
    let path = std::env::var("MITOSIS_AGENT").unwrap() + ".child";
    let words = vec!["a heap".to_owned(), "that is there".to_owned()];
    match prepare(&PrepareOptions::default()).unwrap() {
        Prepared::Parent(seed) => {
            seed.handle().unwrap();
            println!("{}", seed.pid());
            assert_eq!(LATE_HANDLER_RAN.load(SeqCst), 0);
            await_go();
        }
        Prepared::Child(resumed) if resumed.rehearsal => panic!("prepare ends a rehearsal itself"),
        Prepared::Child(resumed) => {
            let Resumed { index, generation, ref payload, rehearsal, .. } = resumed;
            assert_eq!((index, generation, rehearsal), (5, 3, false));
            assert_eq!(mitosis::prepare::generation(), 3);
            assert_eq!(payload, b"for you");
            assert_eq!((resumed.seed.0, resumed.child.0), (7, 8));
            assert_eq!(std::env::var("MITOSIS_TEST_SET").unwrap(), "x=y");
            assert!(std::env::var("MITOSIS_TEST_GONE").is_err());
            assert_eq!(words.join(" "), "a heap that is there");
            assert_eq!(LATE_HANDLER_RAN.load(SeqCst), 1);
            assert_eq!(status_line("SigBlk:"), masks);
            assert_eq!(action(libc::SIGSYS).0, count_signal as *const () as usize);
            // A child may start threads, fork, and be prepared in turn.
            assert_eq!(thread::spawn(|| 4).join().unwrap(), 4);
            let seed = seed();
            seed.handle().unwrap();
            File::create(path).unwrap().write_all(b"fine").unwrap();
            std::process::exit(0);
        }
    }
}

/// As the case before, with another role in its `ResumeInfo`.
pub(crate) fn a_rehearsal_ends_before_user_code() {
    a_resumed_child_goes_on_from_prepare();
}

/// No test: what prepare costs beside fork(2), for people.
pub(crate) fn cost() {
    for pages in [1usize << 10, 50 << 10] {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: nothing else is there; 4 KiB pages throughout.
        unsafe {
            let at = PRIVATE_AT + ((pages * PAGE) as u64) * 16;
            let memory = map(at, pages, flags, -1);
            libc::madvise(memory.as_mut_ptr().cast(), memory.len(), libc::MADV_NOHUGEPAGE);
            memory.fill(1);
        }
        let mut ours = Vec::new();
        let mut forks = Vec::new();
        for _ in 0..31 {
            // Memory alone on its CPU, between the two.
            thread::sleep(Duration::from_millis(20));
            let began = Instant::now();
            let seed = seed();
            ours.push(began.elapsed().as_micros());
            drop_and_reap(seed);
            thread::sleep(Duration::from_millis(20));
            let began = Instant::now();
            // SAFETY: the child ends at once.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    libc::pause();
                }
                forks.push(began.elapsed().as_micros());
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, null_mut(), 0);
            }
        }
        for times in [&mut ours, &mut forks] {
            times.sort_unstable();
        }
        let show = |times: &[u128]| format!("{} [{} {}]", times[15], times[3], times[27]);
        eprintln!(
            "{} MiB: prepare {} us, fork {} us (median [p10 p90] of 31, interleaved)",
            pages * PAGE >> 20,
            show(&ours),
            show(&forks)
        );
    }
    panic!("figures above");
}
