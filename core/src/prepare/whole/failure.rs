//! Why the other threads could not be stopped: noted without allocation while some of them stand, put into
//! words when they run again.

use std::io;
use std::time::Duration;

use crate::descriptor::{MAX_PENDING, MAX_THREADS};
use crate::prepare::proc_files::{read_file, remedy_of};
use crate::prepare::proc_text::{Path, decimal};

/// Why the other threads could not be stopped. They go on as if nobody had asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// One did not stop in time.
    #[error(
        "{thread} did not stop within {} ms: it is in {activity}, {}", .patience.as_millis(), activity.why_late()
    )]
    Late {
        /// Which.
        thread: ThreadName,
        /// What it does.
        activity: Activity,
        /// `PrepareOptions::stop_threads`.
        patience: Duration,
    },
    /// All had been told, and some were still on their way.
    #[error(
        "not every thread stopped within {} ms: those that had been told did not get to run, so the processors \
         are busy; raise stop_threads", .patience.as_millis()
    )]
    Busy {
        /// `PrepareOptions::stop_threads`.
        patience: Duration,
    },
    /// One blocks every signal, and may not be traced.
    #[error(
        "{thread}, in {activity}, blocks every signal (by a raw rt_sigprocmask), and a helper process may not \
         open it: ptrace: {error}; leave signal {signal} open in that thread, or allow ptrace between \
         processes of this user (kernel.yama.ptrace_scope 0 or 1, no seccomp filter of ptrace, \
         PR_SET_DUMPABLE 1)", signal = super::signal::PARK_SIGNAL
    )]
    TraceRefused {
        /// Which.
        thread: ThreadName,
        /// What it does.
        activity: Activity,
        /// ptrace(2)'s.
        error: io::Error,
    },
    /// The helper process could not be started.
    #[error(
        "{thread} blocks every signal, and no helper process could be started to open it: {error}; is the \
         process limit (ulimit -u, pids.max) reached?"
    )]
    NoHelper {
        /// Which.
        thread: ThreadName,
        /// clone(2)'s.
        error: io::Error,
    },
    /// The signal could not be sent.
    #[error(
        "{thread} could not be sent a signal: {error}; RLIMIT_SIGPENDING (ulimit -i) must leave room for one \
         a thread"
    )]
    NotAsked {
        /// Which.
        thread: ThreadName,
        /// rt_tgsigqueueinfo(2)'s.
        error: io::Error,
    },
    /// It has switched the time stamp counter off.
    #[error(
        "{thread} faults where it reads the time stamp counter (PR_SET_TSC), which is not carried: \
         prctl(PR_SET_TSC, PR_TSC_ENABLE) before prepare"
    )]
    NoTimeStamps {
        /// Which.
        thread: ThreadName,
    },
    /// It has system calls dispatched to itself.
    #[error(
        "{thread} has its system calls dispatched to a handler of its own (PR_SET_SYSCALL_USER_DISPATCH), which is not \
         carried: prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF) before prepare"
    )]
    Dispatched {
        /// Which.
        thread: ThreadName,
    },
    /// Its addresses carry tags.
    #[error(
        "this process has the kernel take tags off its addresses (PR_SET_TAGGED_ADDR_CTRL; on x86 \
         ARCH_ENABLE_TAGGED_ADDR), which is not carried: have it do without (for glibc: GLIBC_TUNABLES)"
    )]
    TaggedAddresses,
    /// Signals are pending, which only ptrace(2) tells of.
    #[error(
        "signals are pending that {thread} blocks, and a helper process may not look at them: {error}; take them \
         (sigwaitinfo(2)) before prepare, or allow ptrace between processes of this user (kernel.yama.ptrace_scope 0 or \
         1, no seccomp filter of ptrace, no debugger)"
    )]
    SignalsUnseen {
        /// Which.
        thread: ThreadName,
        /// ptrace(2)'s, or clone(2)'s.
        error: io::Error,
    },
    /// More signals are pending than are carried.
    #[error(
        "more than {MAX_PENDING} signals are pending: take some (sigwaitinfo(2)) before prepare"
    )]
    TooManySignals,
    /// There are too many.
    #[error("this process has more than {MAX_THREADS} threads, which is more than a seed can have")]
    TooMany,
    /// It ended by pthread_exit(3), or a raw exit(2), and the others live.
    #[error(
        "the main thread of this process has ended, and a child cannot be made without it: let it wait for the \
         others (pthread_join) instead"
    )]
    MainThreadEnded,
    /// /proc does not tell which threads there are.
    #[error(
        "/proc/self/task, by which threads are found, cannot be read: {error}; {}",
        remedy_of(error)
    )]
    NoProc {
        /// openat(2)'s or getdents64(2)'s.
        error: io::Error,
    },
}

/// A thread, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("thread '{name}' (tid {tid})")]
pub struct ThreadName {
    /// As the kernel has it.
    pub name: String,
    /// Its id.
    pub tid: u32,
}

/// What a thread does, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Number of the system call that it is in.
    pub system_call: Option<u64>,
    /// The kernel's function that it waits in; empty if the kernel does not tell.
    pub kernel_function: String,
}

impl Activity {
    /// Why a thread that does this has not stopped, and what helps.
    fn why_late(&self) -> &'static str {
        match self.system_call {
            Some(_) => {
                "which lets no signal through; prepare when it is done with that, or raise stop_threads"
            }
            None => "so it did not get to run: the processors are busy; raise stop_threads",
        }
    }
}

impl std::fmt::Display for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.system_call {
            None => f.write_str("code of its own (no system call)")?,
            Some(number) => match name_of(number) {
                Some(name) => write!(f, "system call {name} ({number})")?,
                None => write!(f, "system call {number}")?,
            },
        }
        match self.kernel_function.as_str() {
            "" | "0" => Ok(()),
            function => write!(f, ", kernel function {function}"),
        }
    }
}

/// What was noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    kind: Kind,
    tid: u32,
    /// -errno.
    answer: isize,
    name: Text<16>,
    system_call: Option<u64>,
    kernel_function: Text<48>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Late,
    Busy,
    TraceRefused,
    NoHelper,
    NotAsked,
    NoTimeStamps,
    Dispatched,
    SignalsUnseen,
    TooManySignals,
    TooMany,
    MainEnded,
    NoProc,
}

/// The start of a text.
#[derive(Clone, Copy, Debug)]
struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    const EMPTY: Self = Text { bytes: [0; N], len: 0 };

    fn of(text: &[u8]) -> Self {
        let mut kept = Self::EMPTY;
        for (place, byte) in kept.bytes.iter_mut().zip(text.trim_ascii_end()) {
            *place = *byte;
            kept.len += 1;
        }
        kept
    }

    fn string(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..self.len]).into_owned()
    }
}

/// A failure that is no thread's.
pub(super) fn plain(kind: Kind) -> Stopped {
    of(kind, 0, 0)
}

/// A file of /proc could not be read: the kernel's answer.
pub(super) fn no_proc(answer: i32) -> Stopped {
    of(Kind::NoProc, 0, answer as isize)
}

/// A failure of one thread, unnamed.
pub(super) fn of(kind: Kind, tid: u32, answer: isize) -> Stopped {
    let (name, kernel_function) = (Text::EMPTY, Text::EMPTY);
    Stopped { kind, tid, answer, name, system_call: None, kernel_function }
}

/// A failure of one thread, which is looked at: /proc knows it as `in_proc`.
pub(super) fn describe(
    kind: Kind,
    tid: u32,
    answer: isize,
    in_proc: u32,
    work: &mut [u8],
) -> Stopped {
    let read = |suffix: &[u8], work: &mut [u8]| {
        let path = Path::new(b"/proc/self/task/", u64::from(in_proc), suffix);
        read_file(path.as_ptr(), work).unwrap_or(0)
    };
    let mut stopped = of(kind, tid, answer);
    let len = read(b"/comm", work);
    stopped.name = Text::of(&work[..len]);
    let len = read(b"/syscall", work);
    stopped.system_call = work[..len].split(|byte| *byte == b' ').next().and_then(decimal);
    let len = read(b"/wchan", work);
    stopped.kernel_function = Text::of(&work[..len]);
    stopped
}

impl Stopped {
    /// In words.
    pub(super) fn error(&self, patience: Duration) -> StopError {
        let thread = ThreadName { name: self.name.string(), tid: self.tid };
        let error =
            || io::Error::from_raw_os_error(i32::try_from(-self.answer).unwrap_or(libc::EIO));
        let activity = Activity {
            system_call: self.system_call,
            kernel_function: self.kernel_function.string(),
        };
        match self.kind {
            Kind::Late => StopError::Late { thread, activity, patience },
            Kind::Busy => StopError::Busy { patience },
            Kind::TraceRefused => StopError::TraceRefused { thread, activity, error: error() },
            Kind::NoHelper => StopError::NoHelper { thread, error: error() },
            Kind::NotAsked => StopError::NotAsked { thread, error: error() },
            Kind::NoTimeStamps => StopError::NoTimeStamps { thread },
            Kind::Dispatched => StopError::Dispatched { thread },
            Kind::SignalsUnseen => StopError::SignalsUnseen { thread, error: error() },
            Kind::TooManySignals => StopError::TooManySignals,
            Kind::TooMany => StopError::TooMany,
            Kind::MainEnded => StopError::MainThreadEnded,
            Kind::NoProc => StopError::NoProc { error: error() },
        }
    }
}

/// Names of calls that threads wait in.
fn name_of(number: u64) -> Option<&'static str> {
    const NAMES: [(libc::c_long, &str); 34] = [
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_openat, "openat"),
        (libc::SYS_poll, "poll"),
        (libc::SYS_ppoll, "ppoll"),
        (libc::SYS_select, "select"),
        (libc::SYS_pselect6, "pselect6"),
        (libc::SYS_epoll_wait, "epoll_wait"),
        (libc::SYS_epoll_pwait, "epoll_pwait"),
        (libc::SYS_futex, "futex"),
        (libc::SYS_nanosleep, "nanosleep"),
        (libc::SYS_clock_nanosleep, "clock_nanosleep"),
        (libc::SYS_pause, "pause"),
        (libc::SYS_rt_sigtimedwait, "rt_sigtimedwait"),
        (libc::SYS_rt_sigsuspend, "rt_sigsuspend"),
        (libc::SYS_wait4, "wait4"),
        (libc::SYS_waitid, "waitid"),
        (libc::SYS_vfork, "vfork"),
        (libc::SYS_clone, "clone"),
        (libc::SYS_clone3, "clone3"),
        (libc::SYS_execve, "execve"),
        (libc::SYS_exit, "exit"),
        (libc::SYS_accept, "accept"),
        (libc::SYS_accept4, "accept4"),
        (libc::SYS_connect, "connect"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_recvmsg, "recvmsg"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_sendmsg, "sendmsg"),
        (libc::SYS_ioctl, "ioctl"),
        (libc::SYS_flock, "flock"),
        (libc::SYS_fcntl, "fcntl"),
        (libc::SYS_fsync, "fsync"),
        (libc::SYS_mmap, "mmap"),
    ];
    let found = NAMES.iter().find(|(known, _)| known.cast_unsigned() == number);
    found.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_named_with_what_it_does() {
        let mut stopped = of(Kind::Late, 17, 0);
        stopped.name = Text::of(b"worker\n");
        stopped.system_call = Some(58);
        stopped.kernel_function = Text::of(b"kernel_clone");
        let text = stopped.error(Duration::from_millis(20)).to_string();
        assert!(text.starts_with("thread 'worker' (tid 17) did not stop within 20 ms"), "{text}");
        assert!(text.contains("system call vfork (58), kernel function kernel_clone"), "{text}");
    }

    #[test]
    fn a_thread_that_gets_no_processor_is_not_said_to_block_signals() {
        let text = of(Kind::Late, 17, 0).error(Duration::from_millis(20)).to_string();
        assert!(text.contains("processors are busy; raise stop_threads"), "{text}");
        assert!(!text.contains("signal"), "{text}");
        let text = plain(Kind::Busy).error(Duration::from_millis(20)).to_string();
        assert!(text.contains("within 20 ms") && !text.contains("tid"), "{text}");
    }

    #[test]
    fn a_missing_descriptor_is_no_missing_mount() {
        let text = no_proc(-libc::EMFILE).error(Duration::ZERO).to_string();
        assert!(text.contains("ulimit -n") && !text.contains("mount"), "{text}");
        let text = no_proc(-libc::ENOENT).error(Duration::ZERO).to_string();
        assert!(text.contains("is /proc mounted"), "{text}");
    }

    #[test]
    fn this_thread_is_looked_at() {
        // SAFETY: takes nothing.
        let tid = unsafe { libc::gettid() }.cast_unsigned();
        let mut work = [0u8; 4096];
        let stopped = describe(Kind::TraceRefused, tid, -1, tid, &mut work);
        let StopError::TraceRefused { thread, error, .. } = stopped.error(Duration::ZERO) else {
            panic!("another kind");
        };
        assert_eq!((thread.tid, error.raw_os_error()), (tid, Some(libc::EPERM)));
        assert!(!thread.name.is_empty());
    }
}
