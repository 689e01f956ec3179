//! What the processes do. Every assertion that fails ends the process with a message on stderr.

mod memory;
mod parents;
mod price;
mod refusals;
mod resumed;
mod signals;

use std::collections::BTreeMap;
use std::fs;
use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use mitosis::client::Seed;
use mitosis::prepare::{Files, PrepareError, PrepareOptions, Prepared, prepare};
use mitosis::wire::local::DropMode;

pub(crate) use memory::*;
pub(crate) use parents::*;
pub(crate) use price::*;
pub(crate) use refusals::*;
pub(crate) use resumed::*;
pub(crate) use signals::*;

/// Where a case puts memory that a check looks at.
pub(crate) const PRIVATE_AT: u64 = 0x10_0000_0000;
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

static SIGNALS_SEEN: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS_SEEN.fetch_add(1, SeqCst);
}

fn handle(signal: i32, handler: usize) {
    // SAFETY: the handlers here only count.
    unsafe { assert_ne!(libc::signal(signal, handler), libc::SIG_ERR) };
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

/// Mappings but for the heap and stack, which the test's own strings let grow.
fn mappings() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/maps").unwrap();
    let own = |line: &&str| !line.ends_with("[heap]") && !line.ends_with("[stack]");
    text.lines().filter(own).map(str::to_owned).collect()
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
