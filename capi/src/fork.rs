//! The functions that return twice.

use std::ffi::{OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use mitosis_core::client::{AgentAddress, Forked, fork_by};
use mitosis_core::prepare::{self, Files, Prepared, Refuse, SHARED_COPY_LIMIT_BYTES, Threads};

use crate::boundary::{fork_boundary, not_null};
use crate::child::Child;
use crate::error::{Failed, MitosisErr};
use crate::hooks::prepare_with_hooks;
use crate::options::{SizeFirst, check_flags, read};
use crate::resumed;
use crate::seed::Seed;
use crate::text;

/// What mitosis_fork() and mitosis_prepare() return in a child.
pub const MITOSIS_CHILD: c_int = 0;
/// What mitosis_fork() and mitosis_prepare() return in the process that called.
pub const MITOSIS_PARENT: c_int = 1;

/// For mitosis_prepare_options.flags: where the kernel offers no syscall user dispatch, accept that the
/// seed shows in wait(2) and sends SIGCHLD when it ends.
pub const MITOSIS_PREPARE_ALLOW_VISIBLE_SEED: u32 = 1;

/// For mitosis_prepare_options.flags: all threads live on in children, each where it stood, and not the caller
/// alone (whole-process mode). Open files are carried where they can be; handlers of pthread_atfork(3) do not run.
pub const MITOSIS_PREPARE_ALL_THREADS: u32 = 2;

/// For mitosis_prepare_options.flags: children have the files that are open here, at the same numbers, where
/// they can be made again; "mitosis inspect" tells of each what becomes of it. Without, and without
/// MITOSIS_PREPARE_ALL_THREADS, numbers above 2 answer EBADF there.
pub const MITOSIS_PREPARE_CARRY_FILES: u32 = 4;

/// How to prepare. Set all to zero, then size, then what you need; zero is the default everywhere.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions {
    /// sizeof(struct mitosis_prepare_options).
    pub size: usize,
    /// The socket of this host's agent; NULL: $MITOSIS_AGENT, else $XDG_RUNTIME_DIR/mitosis/agent.sock if
    /// it is there, else /run/mitosis/agent.sock.
    pub agent: *const c_char,
    /// Bytes of shared memory that are copied while the caller stands still; with more mitosis_prepare()
    /// fails. 0: 64 MiB.
    pub shared_copy_limit: u64,
    /// MITOSIS_PREPARE_* flags.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// MITOSIS_LOSS_* bits: with a loss of such a kind there is to be no seed: mitosis_seed_handle() then fails, and
    /// its message names each descriptor, what it is and who holds the other end. What is not refused is closed in
    /// children, which learn of it by mitosis_lost(). Of carried files alone.
    pub refuse: u64,
    /// MITOSIS_LOSS_* bits: kinds that are closed in children, of those that are refused without a word
    /// (MITOSIS_LOSS_IO_URING). A hook of mitosis_after_resume() may make them again.
    pub close: u64,
}

// SAFETY: repr(C), a usize first; pointers and integers without padding (asserted).
unsafe impl SizeFirst for PrepareOptions {
    const NAME: &'static str = "mitosis_prepare_options";
}
const _: () = assert!(size_of::<PrepareOptions>() == 2 * size_of::<usize>() + 8 + 4 + 4 + 8 + 8);

/// Forks this process onto a host.
///
/// The calling thread goes on in a new process on that host, with this process's memory, as after
/// fork(2): other threads are not there, and handlers of pthread_atfork(3) run. Memory is pulled when it
/// is touched. The child has stdin, stdout and stderr of this process, relayed; its other descriptors are
/// closed. If no agent runs on this host, one is started for this process and ends with it. Flush stdio
/// first, as before fork(2).
///
/// host:  "host" or "host:port" of the agent there; NULL: this host.
/// child: receives the child in the parent, NULL in the child and on failure. Free it with
///        mitosis_child_free().
///
/// RETURN VALUE: MITOSIS_PARENT (1) in the caller, MITOSIS_CHILD (0) in the child. On failure a negative
/// code, in the caller alone: there is no child then.
///
/// ERRORS:
/// MITOSIS_ERR_NULL           child is NULL.
/// MITOSIS_ERR_ARGUMENT       host is not UTF-8, or names no host.
/// MITOSIS_ERR_AGENT_START    no agent runs and none could be started.
/// MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_AGENT_CLOSED, MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION
///                            the agent of this host could not be asked.
/// MITOSIS_ERR_UNREACHABLE    the other host does not answer.
/// MITOSIS_ERR_SECRET         the hosts have no cluster secret in common.
/// MITOSIS_ERR_PROTOCOL       versions do not understand each other.
/// MITOSIS_ERR_NOT_FORKABLE   this process cannot be a seed.
/// MITOSIS_ERR_HOST_UNFIT     the host cannot run this process.
/// MITOSIS_ERR_MISSING        a host lacks /dev/fuse, a capability or a kernel feature.
/// MITOSIS_ERR_LIMIT          a limit is reached.
/// MITOSIS_ERR_SEED_GONE      the seed ended before the child was there.
/// MITOSIS_ERR_BUSY, MITOSIS_ERR_NO_DISPATCH, MITOSIS_ERR_SEED_VISIBLE, MITOSIS_ERR_SHARED_MEMORY,
/// MITOSIS_ERR_NO_MEMORY, MITOSIS_ERR_FORK, MITOSIS_ERR_FORK_HANDLERS, MITOSIS_ERR_HOOK
///                            as for mitosis_prepare().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_fork(host: *const c_char, child: *mut *mut Child) -> c_int {
    fork_boundary(|| {
        let child = not_null!(child);
        // SAFETY: C's: a place for one pointer.
        unsafe { child.write(ptr::null_mut()) };
        // SAFETY: C's: null or a string.
        let host = unsafe { text::optional(host, "host")? };
        let prepares = |options: &prepare::PrepareOptions| -> Result<Prepared, Failed> {
            let seed = prepare_with_hooks(options)?;
            Ok(seed.map_or_else(|| Prepared::Child(resumed::told()), Prepared::Parent))
        };
        match fork_by(host, prepares)? {
            Forked::Child(_) => Ok(MITOSIS_CHILD),
            Forked::Parent(started) => {
                // SAFETY: as above.
                unsafe { child.write(Child::for_c(started)) };
                Ok(MITOSIS_PARENT)
            }
        }
    })
}

/// Makes a seed of this process: a frozen copy, of which mitosis_resume() starts children.
///
/// Returns once in the caller, after about the time of a fork(2), and once in every child, whenever and
/// wherever it is started. Only the calling thread lives on in children, unless flags have
/// MITOSIS_PREPARE_ALL_THREADS. The caller sees nothing of the seed: no SIGCHLD, nothing in wait(2). The seed
/// lives until it is dropped or the agent is shut down.
///
/// With MITOSIS_PREPARE_ALL_THREADS every other thread stands still for some milliseconds, as in the handler of a
/// signal: restartable system calls go on, poll(2), epoll_wait(2) and nanosleep(2) fail with EINTR, here and in
/// children.
///
/// options: NULL for the defaults.
/// seed:    receives the seed in the parent, NULL in children and on failure. Free it with
///          mitosis_seed_free().
///
/// RETURN VALUE: MITOSIS_PARENT (1) in the caller, MITOSIS_CHILD (0) in a child. On failure a negative
/// code, in the caller alone, which goes on as if it had not called. What the agent finds wrong later is
/// told by mitosis_seed_handle().
///
/// ERRORS:
/// MITOSIS_ERR_NULL           seed is NULL.
/// MITOSIS_ERR_ARGUMENT       options: size, flags, or a field that this version does not know.
/// MITOSIS_ERR_NO_AGENT       no agent listens.
/// MITOSIS_ERR_CONNECTION     the connection to the agent could not be made ready.
/// MITOSIS_ERR_NOT_FORKABLE   memory whose faults are told to a userfaultfd.
/// MITOSIS_ERR_BUSY           another thread has been preparing for 10 s.
/// MITOSIS_ERR_NO_DISPATCH    the kernel offers no syscall user dispatch (Linux 5.11; sandboxes filter it).
/// MITOSIS_ERR_SEED_VISIBLE   a library's fork handler kept the seed from being hidden.
/// MITOSIS_ERR_SHARED_MEMORY  there is more shared memory than shared_copy_limit, or it cannot be copied.
/// MITOSIS_ERR_NO_MEMORY      no memory for the seed's description.
/// MITOSIS_ERR_FORK           fork(2) failed.
/// MITOSIS_ERR_FORK_HANDLERS  libc has no memory to register fork handlers.
/// MITOSIS_ERR_THREADS        a thread could not be stopped within 1 s; the message names it and its system call.
/// MITOSIS_ERR_HOOK           a function of mitosis_before_prepare() or mitosis_after_prepare() failed.
/// MITOSIS_ERR_MISSING        with MITOSIS_PREPARE_ALL_THREADS: /proc/self/smaps cannot be read.
/// MITOSIS_ERR_LIMIT          with MITOSIS_PREPARE_ALL_THREADS: there are more than 65530 mappings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_prepare(
    options: *const PrepareOptions,
    seed: *mut *mut Seed,
) -> c_int {
    fork_boundary(|| {
        let seed = not_null!(seed);
        // SAFETY: C's: a place for one pointer.
        unsafe { seed.write(ptr::null_mut()) };
        // SAFETY: C's: null or options of the size that they say.
        let options = unsafe { prepare_options(options)? };
        match prepare_with_hooks(&options)? {
            None => Ok(MITOSIS_CHILD),
            Some(made) => {
                // SAFETY: as above.
                unsafe { seed.write(Seed::for_c(made)) };
                Ok(MITOSIS_PARENT)
            }
        }
    })
}

/// # Safety
/// `options` is null, or what the header demands of it.
unsafe fn prepare_options(
    options: *const PrepareOptions,
) -> Result<prepare::PrepareOptions, Failed> {
    let mut wanted = prepare::PrepareOptions::default();
    if options.is_null() {
        return Ok(wanted);
    }
    // SAFETY: the caller's.
    let options = unsafe { read(options)? };
    let known = MITOSIS_PREPARE_ALLOW_VISIBLE_SEED
        | MITOSIS_PREPARE_ALL_THREADS
        | MITOSIS_PREPARE_CARRY_FILES;
    check_flags(options.flags, known, options.reserved, PrepareOptions::NAME)?;
    // SAFETY: the caller's: null or a string.
    wanted.agent = unsafe { agent(options.agent) };
    wanted.shared_copy_limit = match options.shared_copy_limit {
        0 => SHARED_COPY_LIMIT_BYTES,
        limit => limit,
    };
    wanted.allow_visible_seed = options.flags & MITOSIS_PREPARE_ALLOW_VISIBLE_SEED != 0;
    if options.flags & MITOSIS_PREPARE_ALL_THREADS != 0 {
        wanted.threads = Threads::All;
    }
    if options.flags & MITOSIS_PREPARE_CARRY_FILES != 0 {
        wanted.files = Files::Carried;
    }
    let close = losses("close", options.close)?;
    wanted.refuse = wanted.refuse.with(losses("refuse", options.refuse)?).without(close);
    if options.refuse & options.close != 0 {
        let text =
            "mitosis_prepare_options has a kind in refuse and in close: give it in one of them";
        return Err(Failed::new(MitosisErr::Argument, text.to_owned()));
    }
    if options.refuse != 0 && wanted.files != Files::Carried && wanted.threads != Threads::All {
        let text = "mitosis_prepare_options.refuse is for files that are carried: set MITOSIS_PREPARE_CARRY_FILES \
                    or MITOSIS_PREPARE_ALL_THREADS";
        return Err(Failed::new(MitosisErr::Argument, text.to_owned()));
    }
    Ok(wanted)
}

/// Kinds of losses.
fn losses(field: &str, bits: u64) -> Result<Refuse, Failed> {
    Refuse::from_bits(bits).ok_or_else(|| {
        let text =
            format!("mitosis_prepare_options.{field} is {bits:#x}: give MITOSIS_LOSS_* bits");
        Failed::new(MitosisErr::Argument, text)
    })
}

/// # Safety
/// `path` is null or a string.
pub(crate) unsafe fn agent(path: *const c_char) -> Option<AgentAddress> {
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    let path = unsafe { std::ffi::CStr::from_ptr(path) };
    Some(AgentAddress(OsStr::from_bytes(path.to_bytes()).into()))
}

#[cfg(test)]
mod tests {
    use mitosis_core::prepare::LossKind;

    use super::*;
    use crate::resumed::{
        MITOSIS_LOSS_CONNECTIONS, MITOSIS_LOSS_IO_URING, MITOSIS_LOSS_SCHEDULING,
        MITOSIS_LOSS_SHARED_MEMORY,
    };

    fn options() -> PrepareOptions {
        PrepareOptions {
            size: size_of::<PrepareOptions>(),
            agent: ptr::null(),
            shared_copy_limit: 0,
            flags: 0,
            reserved: 0,
            refuse: 0,
            close: 0,
        }
    }

    fn parsed(options: &PrepareOptions) -> Result<prepare::PrepareOptions, Failed> {
        // SAFETY: a whole struct, and literals in it.
        unsafe { prepare_options(options) }
    }

    #[test]
    fn zero_is_the_default() {
        let parsed = parsed(&options()).unwrap();
        assert_eq!(parsed.shared_copy_limit, SHARED_COPY_LIMIT_BYTES);
        assert!(parsed.agent.is_none() && !parsed.allow_visible_seed && !parsed.rehearsal_returns);
    }

    #[test]
    fn what_is_set_arrives() {
        let set = PrepareOptions {
            agent: c"/x/a.sock".as_ptr(),
            shared_copy_limit: 1,
            flags: MITOSIS_PREPARE_ALLOW_VISIBLE_SEED,
            ..options()
        };
        let parsed = parsed(&set).unwrap();
        assert_eq!(parsed.agent, Some(AgentAddress("/x/a.sock".into())));
        assert_eq!(parsed.shared_copy_limit, 1);
        assert!(parsed.allow_visible_seed);
        assert_eq!(parsed.threads, Threads::Caller);
        let all = PrepareOptions { flags: MITOSIS_PREPARE_ALL_THREADS, ..options() };
        assert_eq!(self::parsed(&all).unwrap().threads, Threads::All);
        let carried = PrepareOptions { flags: MITOSIS_PREPARE_CARRY_FILES, ..options() };
        assert_eq!(self::parsed(&carried).unwrap().files, Files::Carried);
    }

    #[test]
    fn what_is_refused_arrives() {
        let refuse = MITOSIS_LOSS_CONNECTIONS | MITOSIS_LOSS_SHARED_MEMORY;
        let set = PrepareOptions { refuse, flags: MITOSIS_PREPARE_CARRY_FILES, ..options() };
        let parsed = self::parsed(&set).unwrap();
        let wanted = Refuse::UNLESS_TOLD.and(LossKind::Connections).and(LossKind::SharedMemory);
        assert_eq!(parsed.refuse, wanted);
        let not_carried = self::parsed(&PrepareOptions { refuse, ..options() }).unwrap_err();
        assert!(not_carried.message.contains("MITOSIS_PREPARE_CARRY_FILES"));
        for unknown in [
            PrepareOptions { refuse: MITOSIS_LOSS_SCHEDULING << 1, ..options() },
            PrepareOptions { close: MITOSIS_LOSS_SCHEDULING << 1, ..options() },
        ] {
            assert!(self::parsed(&unknown).unwrap_err().message.contains("MITOSIS_LOSS"));
        }
    }

    #[test]
    fn an_io_uring_is_refused_unless_it_is_to_be_closed() {
        assert!(parsed(&options()).unwrap().refuse.has(LossKind::IoUring));
        let close = PrepareOptions { close: MITOSIS_LOSS_IO_URING, ..options() };
        assert!(parsed(&close).unwrap().refuse.is_none());
        let both = PrepareOptions { refuse: MITOSIS_LOSS_IO_URING, ..close };
        assert!(parsed(&both).unwrap_err().message.contains("in one of them"));
    }

    #[test]
    fn unknown_flags_are_refused() {
        for bad in
            [PrepareOptions { flags: 8, ..options() }, PrepareOptions { reserved: 1, ..options() }]
        {
            assert_eq!(parsed(&bad).unwrap_err().code, MitosisErr::Argument);
        }
    }
}
