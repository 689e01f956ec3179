//! What a process can see of itself, by name.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;

use mitosis_process_suite::fail;

/// Each state's value as text.
pub(crate) type State = BTreeMap<&'static str, String>;

const PR_GET_MDWE: i32 = 66;
const PR_SET_MDWE: i32 = 65;
const PR_MDWE_REFUSE_EXEC_GAIN: u64 = 1;
const ARCH_GET_XCOMP_PERM: i32 = 0x1022;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
const MEMBARRIER_GET_REGISTRATIONS: i32 = 1 << 9;
const IOPRIO_WHO_PROCESS: i32 = 1;
/// Best effort, 3.
const IO_PRIORITY: i32 = 2 << 13 | 3;
const ADDR_NO_RANDOMIZE: u64 = 0x0004_0000;
const SLACK_NS: u64 = 123_456;
const FILES: [&str; 2] = ["/proc/self/oom_score_adj", "/proc/self/coredump_filter"];

fn call(what: &str, answer: i64) -> i64 {
    if answer < 0 {
        fail(&format!("{what}: {}", std::io::Error::last_os_error()));
    }
    answer
}

fn set(name: &str, what: i32, value: u64) {
    // SAFETY: these options take numbers.
    call(name, unsafe { libc::prctl(what, value, 0, 0, 0) }.into());
}

/// Another process than it was; with `is_whole` what fork(2) does not pass on, too.
pub(crate) fn change(is_whole: bool) {
    set("no_new_privs", libc::PR_SET_NO_NEW_PRIVS, 1);
    set("timer slack", libc::PR_SET_TIMERSLACK, SLACK_NS);
    set("THP", libc::PR_SET_THP_DISABLE, 1);
    set("keepcaps", libc::PR_SET_KEEPCAPS, 1);
    // PR_MCE_KILL_SET, PR_MCE_KILL_EARLY.
    // SAFETY: takes numbers.
    call("PR_MCE_KILL", unsafe { libc::prctl(libc::PR_MCE_KILL, 1, 1, 0, 0) }.into());
    for (path, value) in FILES.into_iter().zip(["321", "0x7f"]) {
        if let Err(error) = fs::write(path, value) {
            fail(&format!("{path}: {error}"));
        }
    }
    // From here on its files in /proc are root's.
    set("dumpable", libc::PR_SET_DUMPABLE, 0);
    // Linux 6.3.
    // SAFETY: takes numbers.
    unsafe { libc::prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) };
    if is_whole {
        set("subreaper", libc::PR_SET_CHILD_SUBREAPER, 1);
    }
    // SAFETY: numbers, and C strings and structs that live through their calls.
    unsafe {
        let name = c"changed".as_ptr();
        call("name", libc::prctl(libc::PR_SET_NAME, name).into());
        call(
            "membarrier",
            libc::syscall(libc::SYS_membarrier, MEMBARRIER_REGISTER_PRIVATE_EXPEDITED, 0, 0),
        );
        call("ioprio_set", libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IO_PRIORITY));
        call("nice", libc::setpriority(libc::PRIO_PROCESS, 0, 7).into());
        let batch = libc::sched_param { sched_priority: 0 };
        call("sched", libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const batch).into());
        call("personality", libc::personality(ADDR_NO_RANDOMIZE).into());
        libc::umask(0o037);
        for (resource, soft, hard) in [
            (libc::RLIMIT_NOFILE, 300, 400),
            (libc::RLIMIT_CORE, 0, 0),
            (libc::RLIMIT_STACK, 4 << 20, 8 << 20),
        ] {
            let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
            call("setrlimit", libc::setrlimit(resource, &raw const limit).into());
        }
    }
    if let Err(error) = std::env::set_current_dir("/tmp") {
        fail(&format!("/tmp: {error}"));
    }
}

/// All that is compared.
pub(crate) fn all() -> State {
    let mut state = State::new();
    numbers(&mut state);
    limits(&mut state);
    signals(&mut state);
    for (name, path) in [
        ("cmdline", "/proc/self/cmdline"),
        ("environ", "/proc/self/environ"),
        ("auxv", "/proc/self/auxv"),
    ] {
        let bytes = fs::read(path).unwrap_or_else(|error| fail(&format!("{path}: {error}")));
        state.insert(name, format!("{bytes:?}"));
    }
    let cwd = std::env::current_dir().unwrap_or_default();
    state.insert("cwd", cwd.display().to_string());
    let stack = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let stack = stack.lines().find(|line| line.ends_with("[stack]")).unwrap_or_default();
    let top = stack.split(' ').next().and_then(|range| range.split('-').nth(1));
    state.insert("end of the stack", top.unwrap_or_default().to_owned());
    state
}

fn numbers(state: &mut State) {
    let get = |what: i32| {
        // SAFETY: these options take numbers.
        unsafe { libc::prctl(what, 0, 0, 0, 0) }.to_string()
    };
    state.insert("no_new_privs", get(libc::PR_GET_NO_NEW_PRIVS));
    state.insert("timer slack", get(libc::PR_GET_TIMERSLACK));
    state.insert("THP disabled", get(libc::PR_GET_THP_DISABLE));
    state.insert("dumpable", get(libc::PR_GET_DUMPABLE));
    state.insert("MDWE", get(PR_GET_MDWE));
    state.insert("keepcaps", get(libc::PR_GET_KEEPCAPS));
    state.insert("memory failure", get(libc::PR_MCE_KILL_GET));
    for path in FILES {
        state.insert(path, fs::read_to_string(path).unwrap_or_default());
    }
    let (mut reaper, mut death, mut permits) = (0i32, 0i32, 0u64);
    let mut name = [0u8; 16];
    let mut sched = [0u32; 14];
    // SAFETY: each fills a local of the size that it expects; the others take numbers.
    unsafe {
        libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut reaper);
        libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut death);
        libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr());
        libc::syscall(libc::SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &raw mut permits);
        libc::syscall(libc::SYS_sched_getattr, 0, sched.as_mut_ptr(), 56, 0);
        let barriers = libc::syscall(libc::SYS_membarrier, MEMBARRIER_GET_REGISTRATIONS, 0, 0);
        state.insert("membarrier", barriers.to_string());
        let priority = libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0);
        state.insert("I/O priority", priority.to_string());
        state.insert("personality", libc::personality(0xffff_ffff).to_string());
        let mask = libc::umask(0);
        libc::umask(mask);
        state.insert("umask", format!("{mask:o}"));
    }
    state.insert("subreaper", reaper.to_string());
    state.insert("parent-death signal", death.to_string());
    state.insert("vector permits", format!("{permits:#x}"));
    state.insert("scheduling", format!("{:?}", &sched[1..6]));
    let name = CStr::from_bytes_until_nul(&name).unwrap_or_default();
    state.insert("name", name.to_string_lossy().into_owned());
}

fn limits(state: &mut State) {
    let mut all = Vec::new();
    // What a host has less of than the other, no process can have.
    for resource in [libc::RLIMIT_NOFILE, libc::RLIMIT_CORE, libc::RLIMIT_STACK] {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: fills the struct.
        unsafe { libc::getrlimit(resource, &raw mut limit) };
        all.push((limit.rlim_cur, limit.rlim_max));
    }
    state.insert("limits", format!("{all:?}"));
}

fn signals(state: &mut State) {
    let mut mask = 0u64;
    // SAFETY: fills eight bytes.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, 0, &raw mut mask, 8usize);
    }
    state.insert("signal mask", format!("{mask:#x}"));
    let mut all = Vec::new();
    for signal in 1..=64 {
        let mut action = [0u64; 4];
        // SAFETY: fills a kernel sigaction.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, 0, action.as_mut_ptr(), 8usize);
        }
        all.push(action);
    }
    state.insert("signal actions", format!("{all:x?}"));
}

/// Where brk(2) stands; the heap has been used.
pub(crate) fn heap_end() -> usize {
    // SAFETY: grows the heap, whose new part is this program's.
    unsafe {
        libc::sbrk(8192);
        libc::sbrk(0) as usize
    }
}

/// It goes on from there, with memory.
pub(crate) fn heap_grows_from(end: usize) -> Option<String> {
    const BYTES: usize = 1 << 20;
    // SAFETY: the new part is nobody else's.
    let (now, grown, is_zero) = unsafe {
        let now = libc::sbrk(0) as usize;
        let start = libc::sbrk(BYTES as isize) as usize;
        let memory = std::slice::from_raw_parts_mut(start as *mut u8, BYTES);
        let is_zero = memory.iter().all(|byte| *byte == 0);
        memory.fill(7);
        (now, start, is_zero)
    };
    // What prepare has allocated has moved it, and the parent's with it.
    let right = now >= end && grown == now && is_zero;
    (!right).then(|| {
        format!("brk is {now:#x} and grows at {grown:#x}, not at {end:#x}, or not with zeros")
    })
}
