//! State that the kernel keeps for a process and that a fork keeps, asked by the seed, with raw system calls.

use std::ffi::CStr;

use super::proc_files::read_file;
use super::proc_text::{decimal, hex};
use super::report::{ReportWriter, tag};
use crate::descriptor::state::{CORE_FILTER, MEMORY_FAILURE};
use crate::descriptor::treatment::SPECULATIONS;
use crate::descriptor::{Clocks, Sched, ThreadState};
use crate::sys::rawcall::{rawcall, sigaction};

const PR_SET_MDWE: i32 = 65;
const PR_GET_MDWE: i32 = 66;
const MDWE_NO_INHERIT: u32 = 2;
const PR_GET_TSC: i32 = 25;
const PR_GET_SPECULATION_CTRL: i32 = 52;
const PR_GET_IO_FLUSHER: i32 = 58;
const PR_GET_MEMORY_MERGE: i32 = 68;
const PR_TSC_SIGSEGV: i32 = 2;
const PR_SCHED_CORE: i32 = 62;
const PR_SCHED_CORE_GET: i32 = 0;
const ARCH_GET_UNTAG_MASK: i32 = 0x4001;
const ARCH_GET_XCOMP_PERM: i32 = 0x1022;
/// Components that a process must ask for: AMX's tiles (18).
const DYNAMIC_COMPONENTS: u64 = 1 << 18;
const MEMBARRIER_GET_REGISTRATIONS: i32 = 1 << 9;
/// MEMBARRIER_CMD_REGISTER_* of the private expedited kinds, with the command that only those may give who have
/// registered: what a kernel before 6.3 can be asked.
const MEMBARRIER_PRIVATE: [(u32, i32); 3] = [(1 << 4, 1 << 3), (1 << 6, 1 << 5), (1 << 8, 1 << 7)];
const IOPRIO_WHO_PROCESS: i32 = 1;
const IOPRIO_CLASS_SHIFT: u32 = 13;

/// linux/sched/types.h.
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    rest: [u64; 4],
}

/// The process's; `frozen_at` is when its parent made it.
pub(super) fn report(writer: &mut ReportWriter<'_>, frozen_at: Clocks) {
    // SAFETY: they take numbers.
    let [dumpable, no_new_privs, thp, write_execute, keepcaps, memory_failure] = unsafe {
        [
            rawcall!(libc::SYS_prctl, libc::PR_GET_DUMPABLE, 0, 0, 0, 0),
            rawcall!(libc::SYS_prctl, libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
            rawcall!(libc::SYS_prctl, libc::PR_GET_THP_DISABLE, 0, 0, 0, 0),
            rawcall!(libc::SYS_prctl, PR_GET_MDWE, 0, 0, 0, 0),
            rawcall!(libc::SYS_prctl, libc::PR_GET_KEEPCAPS, 0, 0, 0, 0),
            rawcall!(libc::SYS_prctl, libc::PR_MCE_KILL_GET, 0, 0, 0, 0),
        ]
    };
    // What a kernel does not know, nobody has set.
    let number = |answer: isize| u64::try_from(answer).unwrap_or(0);
    let numbers = [
        frozen_at.monotonic_ns.cast_unsigned(),
        frozen_at.boottime_ns.cast_unsigned(),
        u64::from(dumpable != 1),
        number(no_new_privs),
        number(thp),
        number(write_execute),
        u64::from(membarrier()),
        vector_permits(),
        number(keepcaps),
        u64::try_from(memory_failure).unwrap_or(MEMORY_FAILURE.into()),
        number_of(c"/proc/self/oom_score_adj", signed).unwrap_or(0).cast_unsigned(),
        number_of(c"/proc/self/coredump_filter", hex).unwrap_or(CORE_FILTER.into()),
    ];
    writer.record(tag::STATE, &numbers, &[]);
}

/// What the process, and in it the calling thread, has asked of the kernel.
pub(super) fn report_treatment(writer: &mut ReportWriter<'_>) {
    // SAFETY: they take numbers. What a kernel does not know, nobody has asked it for.
    let asks = |what: i32, of: usize| unsafe { rawcall!(libc::SYS_prctl, what, of, 0, 0, 0) };
    let number = |answer: isize| u64::try_from(answer).unwrap_or(0);
    let mut numbers = [0; 2 + SPECULATIONS];
    numbers[0] = number(asks(PR_GET_MEMORY_MERGE, 0));
    numbers[1] = number(asks(PR_GET_IO_FLUSHER, 0));
    for (kind, place) in numbers[2..].iter_mut().enumerate() {
        *place = number(asks(PR_GET_SPECULATION_CTRL, kind));
    }
    if numbers != [0; 2 + SPECULATIONS] {
        writer.record(tag::TREATMENT, &numbers, &[]);
    }
    if has_core_cookie() {
        writer.record(tag::CORE_COOKIE, &[], &[]);
    }
}

/// Whether the calling thread has a cookie of core scheduling. Where nobody shares a core, the kernel tells of none.
fn has_core_cookie() -> bool {
    let mut cookie = 0u64;
    // SAFETY: the kernel writes to a live local.
    unsafe {
        rawcall!(libc::SYS_prctl, PR_SCHED_CORE, PR_SCHED_CORE_GET, 0, 0, &raw mut cookie);
    }
    cookie != 0
}

/// Whether the process's addresses carry tags (on x86: ARCH_ENABLE_TAGGED_ADDR), which the kernel takes off.
pub(super) fn tags_addresses() -> bool {
    let mut mask = u64::MAX;
    // SAFETY: the kernel writes to a live local.
    unsafe { rawcall!(libc::SYS_arch_prctl, ARCH_GET_UNTAG_MASK, &raw mut mask) };
    mask != u64::MAX
}

/// Whether SIGSYS comes to a handler of the program's own: who has system calls dispatched has one. One that other signals
/// lead to as well is a language runtime's (Go), which takes all.
pub(super) fn handles_sigsys() -> bool {
    // SAFETY: they are asked, not changed.
    let [ours, other] = unsafe { [sigaction(libc::SIGSYS, None), sigaction(libc::SIGURG, None)] };
    let is_handler = ours.handler > libc::SIG_IGN as u64;
    is_handler && ours.handler != other.handler
}

/// A file's one number.
fn number_of<T>(path: &CStr, parse: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
    let mut text = [0u8; 32];
    let len = read_file(path.as_ptr().cast(), &mut text).ok()?;
    parse(text[..len].trim_ascii())
}

fn signed(text: &[u8]) -> Option<i64> {
    let number = |text: &[u8]| i64::try_from(decimal(text)?).ok();
    match text.strip_prefix(b"-") {
        Some(rest) => number(rest).map(|number| -number),
        None => number(text),
    }
}

fn membarrier() -> u32 {
    // SAFETY: takes numbers; where barriers are made, this thread is alone.
    let asks = |command: i32| unsafe { rawcall!(libc::SYS_membarrier, command, 0, 0) };
    match u32::try_from(asks(MEMBARRIER_GET_REGISTRATIONS)) {
        Ok(registered) => registered,
        Err(_) => MEMBARRIER_PRIVATE
            .iter()
            .filter(|(_, command)| asks(*command) == 0)
            .fold(0, |all, (register, _)| all | register),
    }
}

/// The calling thread's.
pub(super) fn of_this_thread() -> ThreadState {
    // SAFETY: both take numbers.
    let (priority, slack) = unsafe {
        (
            rawcall!(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0),
            rawcall!(libc::SYS_prctl, libc::PR_GET_TIMERSLACK, 0, 0, 0, 0),
        )
    };
    let priority = u32::try_from(priority).unwrap_or(0);
    let has_class = priority >> IOPRIO_CLASS_SHIFT != 0;
    ThreadState {
        io_priority: if has_class { priority } else { 0 },
        timer_slack_ns: u64::try_from(slack).unwrap_or(0),
        has_tiles: false,
    }
}

/// Whether AMX tiles may lie in a frame further up: a handler may have called prepare.
pub(super) fn may_use_tiles() -> bool {
    vector_permits() != 0
}

/// Those of the components that a process must ask for which it may use.
fn vector_permits() -> u64 {
    let mut permits = 0u64;
    // SAFETY: the kernel writes one word to a live local.
    unsafe { rawcall!(libc::SYS_arch_prctl, ARCH_GET_XCOMP_PERM, &raw mut permits) };
    permits & DYNAMIC_COMPONENTS
}

/// Whether a signal's frame has AMX tiles in it: only then is it as large as theirs.
///
/// # Safety
/// `context` is what the kernel gave a handler.
pub(super) unsafe fn has_tiles(context: &libc::ucontext_t) -> bool {
    /// struct _fpx_sw_bytes, in the legacy area's last 48 bytes: its magic, and the components that follow.
    const SOFTWARE_AT: usize = 464;
    const MAGIC: u32 = 0x4650_5853;
    let area = context.uc_mcontext.fpregs.cast::<u8>();
    if area.is_null() {
        return false;
    }
    // SAFETY: the legacy area has 512 bytes.
    let (magic, components) = unsafe {
        let software = area.add(SOFTWARE_AT);
        (software.cast::<u32>().read_unaligned(), software.add(8).cast::<u64>().read_unaligned())
    };
    magic == MAGIC && components & DYNAMIC_COMPONENTS != 0
}

/// How the calling thread is scheduled.
pub(super) fn sched_of_this_thread() -> Sched {
    let mut attr = SchedAttr::default();
    let len = size_of::<SchedAttr>();
    // SAFETY: the kernel fills a live local of the size that it is told.
    unsafe { rawcall!(libc::SYS_sched_getattr, 0, &raw mut attr, len, 0) };
    let SchedAttr { policy, priority, nice, flags, .. } = attr;
    Sched { policy, priority, nice, flags }
}

/// PR_GET_CHILD_SUBREAPER, which no fork passes on.
pub(super) fn is_subreaper() -> bool {
    let mut answer = 0i32;
    // SAFETY: the kernel writes to a live local.
    unsafe { rawcall!(libc::SYS_prctl, libc::PR_GET_CHILD_SUBREAPER, &raw mut answer, 0, 0, 0) };
    answer != 0
}

/// Orphans come to this process.
pub(super) fn become_subreaper() {
    // SAFETY: takes numbers.
    unsafe { rawcall!(libc::SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// PR_SET_MDWE of this process, if no fork passes it on.
pub(super) fn own_denial() -> Option<u32> {
    // SAFETY: takes numbers.
    let bits = unsafe { rawcall!(libc::SYS_prctl, PR_GET_MDWE, 0, 0, 0, 0) };
    u32::try_from(bits).ok().filter(|bits| bits & MDWE_NO_INHERIT != 0)
}

/// From now on no memory of this process becomes executable.
pub(super) fn deny_write_execute(bits: u32) {
    // SAFETY: takes numbers.
    unsafe { rawcall!(libc::SYS_prctl, PR_SET_MDWE, bits, 0, 0, 0) };
}

/// Whether the calling thread faults where it reads the time stamp counter (PR_SET_TSC), as clock_gettime(2) does.
pub(super) fn faults_on_time_stamps() -> bool {
    let mut answer = 0i32;
    // SAFETY: the kernel writes to a live local.
    unsafe { rawcall!(libc::SYS_prctl, PR_GET_TSC, &raw mut answer, 0, 0, 0) };
    answer == PR_TSC_SIGSEGV
}

/// A thread's record.
pub(super) fn report_thread(writer: &mut ReportWriter<'_>, thread: ThreadState) {
    let ThreadState { io_priority, timer_slack_ns, has_tiles } = thread;
    let numbers = [io_priority.into(), timer_slack_ns, has_tiles.into()];
    writer.record(tag::THREAD_STATE, &numbers, &[]);
}

/// The one thread's of what is no whole process.
pub(super) fn report_sched(writer: &mut ReportWriter<'_>, sched: Sched) {
    let Sched { policy, priority, nice, flags } = sched;
    let nice = i64::from(nice).cast_unsigned();
    writer.record(tag::OWN_SCHED, &[policy.into(), priority.into(), nice, flags], &[]);
}

/// The clocks of the calling process, by raw system calls.
pub(super) fn clocks() -> Clocks {
    let read = |clock: libc::clockid_t| {
        let mut time = [0i64; 2];
        // SAFETY: the kernel writes a timespec.
        unsafe { rawcall!(libc::SYS_clock_gettime, clock, time.as_mut_ptr()) };
        time[0] * 1_000_000_000 + time[1]
    };
    Clocks { monotonic_ns: read(libc::CLOCK_MONOTONIC), boottime_ns: read(libc::CLOCK_BOOTTIME) }
}
