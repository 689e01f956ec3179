//! This process becomes a seed.
//!
//! ```text
//! prepare()  connect to the agent > copy shared memory > scratch memory > fork() ----> Prepared::Parent
//! seed       fork()'s child, in libmitosis's own fork handler: frame > report > sleep
//! children   (any host) rt_sigreturn on that frame > other fork handlers > fork() = 0 > Prepared::Child
//! ```
//!
//! With all threads (`Threads::All`) it is a bare clone(2) while they stand, without any fork handlers: see
//! `whole`.
//!
//! Runs inside the runtime process: nothing here allocates in the seed, starts a thread or outlives the
//! call. The caller stands still for about the time of one fork(2). See `docs/architecture.md`, "prepare".
#![allow(unsafe_code)]

mod atfork;
mod carried;
mod carried_sockets;
mod credentials;
mod header;
mod kept;
mod proc_files;
pub(crate) mod proc_text;
pub(crate) mod reap;
pub mod report;
pub mod reported;
mod scratch;
mod seed;
mod shared;
mod shared_pages;
mod turn;
mod wake;
mod watchdog;
mod whole;

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::Duration;

use crate::client::{AgentAddress, ClientError, Seed};
pub use crate::descriptor::losses::{Loss, LossKind, Refuse};
use crate::id::PrepareToken;
use crate::sys::dispatch::{self, Outcome};
use atfork::Forked;
use scratch::{Scratch, SharedCopy};
pub use shared::SharedMemoryError;
use turn::Turn;
pub use wake::{Resumed, generation, release_threads};
pub use watchdog::{HOOK_LIMIT, STATUS_HALF_CHILD, Watchdog};
pub use whole::{Activity, Ahead, Pause, StopError, ThreadName};

/// Shared memory that a seed copies at most, unless told otherwise: about 20 ms of the caller's time.
pub const SHARED_COPY_LIMIT_BYTES: u64 = 64 << 20;

/// How long the other threads may take to stop, unless told otherwise: they stop within some 20 us each
/// where nothing is wrong.
pub const STOP_THREADS: Duration = Duration::from_secs(1);

/// Which threads children have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// The caller of prepare alone, as after fork(2).
    #[default]
    Caller,
    /// All of them: *whole-process mode*. Files are carried ([`Files::Carried`]).
    All,
}

/// What children find where the process had descriptors above 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// Numbers that answer EBADF.
    #[default]
    Closed,
    /// The same files where they can be made again; `mitosis inspect` tells which.
    Carried,
}

/// How to prepare.
#[derive(Clone, Debug)]
pub struct PrepareOptions {
    /// The agent of this host; `None` looks for it ([`AgentAddress::find`]).
    pub agent: Option<AgentAddress>,
    /// Bytes of shared memory that are copied while the caller stands still; more is refused.
    pub shared_copy_limit: u64,
    /// Where the kernel offers no syscall user dispatch (gVisor, a strict seccomp filter), the seed shows
    /// in wait(2) and sends SIGCHLD when it ends: accept that.
    pub allow_visible_seed: bool,
    /// Which threads children have.
    pub threads: Threads,
    /// What becomes of open files.
    pub files: Files,
    /// Kinds of what cannot cross with which there is to be no seed: [`Seed::handle`] then fails and names each.
    /// What is not refused is closed in children, which are told of it ([`Resumed::lost`]). Of carried files alone;
    /// where they are closed, all are. [`Refuse::UNLESS_TOLD`].
    pub refuse: Refuse,
    /// How long the other threads may take to stop, with [`Threads::All`].
    pub stop_threads: Duration,
    /// Return in a rehearsal child, too ([`Resumed::rehearsal`]): the caller then ends it by
    /// [`end_rehearsal`], right before user code would run. Without it prepare ends a rehearsal itself.
    pub rehearsal_returns: bool,
    /// With [`Threads::All`], return in a child before its other threads go on: the caller then lets them
    /// go by [`release_threads`], when it has made the child unlike its siblings. Until then it must not wait
    /// for anything that another thread holds, an allocator's lock included.
    pub holds_threads: bool,
    /// With [`Threads::All`], children find what their agent tells them in their environment
    /// (`MITOSIS_GENERATION` ...). For that `environ` is led to another array, which a program may not stand that
    /// knows nothing of it: Perl frees what lies in one that is not the first.
    pub tells_environment: bool,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        PrepareOptions {
            agent: None,
            shared_copy_limit: SHARED_COPY_LIMIT_BYTES,
            allow_visible_seed: false,
            threads: Threads::Caller,
            files: Files::Closed,
            refuse: Refuse::UNLESS_TOLD,
            stop_threads: STOP_THREADS,
            rehearsal_returns: false,
            holds_threads: false,
            tells_environment: true,
        }
    }
}

/// prepare() returns once in the caller and once in every child.
#[derive(Debug)]
pub enum Prepared {
    /// In the process that called.
    Parent(Seed),
    /// In a child, on whatever host.
    Child(Resumed),
}

/// Why there is no seed. The caller goes on as if it had not called.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// There is no agent to hand a seed to.
    #[error("no seed was made: {0}")]
    Agent(#[from] ClientError),
    /// Another thread's prepare does not come back.
    #[error(
        "another thread of this process has been preparing for 10 s; a fork handler of some library hangs"
    )]
    Busy,
    /// The seed could not be hidden from wait(2).
    #[error(
        "this kernel offers no syscall user dispatch (Linux 5.11; a sandbox may filter prctl), so the seed \
         would show in wait() and SIGCHLD: allow prctl({{PR_SET_SYSCALL_USER_DISPATCH}}), or set \
         allow_visible_seed"
    )]
    NoDispatch,
    /// The fork went past us.
    #[error(
        "the seed could not be hidden from wait() because {0}; import mitosis before the library that \
         does so, or set allow_visible_seed"
    )]
    SeedVisible(String),
    /// Shared memory.
    #[error(transparent)]
    SharedMemory(#[from] SharedMemoryError),
    /// No memory for what prepare works on: the seed's description, with all threads their table and the list of
    /// mappings.
    #[error(
        "no memory for what prepare works on (1.4 MiB of address space, 21 MiB with all threads): {0}; raise \
         RLIMIT_AS (ulimit -v) or vm.max_map_count"
    )]
    Scratch(io::Error),
    /// fork(2) failed.
    #[error(
        "fork() failed: {0}; is the process limit (ulimit -u, pids.max) or memory exhausted, or is this thread one of \
         SCHED_DEADLINE, which cannot fork?"
    )]
    Fork(io::Error),
    /// The other threads could not be stopped, or one has what is not carried.
    #[error("no seed was made: {0}")]
    Stop(StopError),
    /// What a fork would leave out could not be found.
    #[error(
        "/proc/self/smaps, by which memory marked MADV_DONTFORK is found, cannot be read: {0}; {remedy}",
        remedy = proc_files::remedy_of(.0)
    )]
    NoSmaps(io::Error),
    /// There are more mappings than the kernel allows unless told otherwise.
    #[error(
        "this process has more than 65530 mappings, which is more than a whole-process seed can have: unmap some \
         (an allocator of large arenas makes fewer), or prepare with the calling thread alone"
    )]
    TooManyMappings,
    /// A userfaultfd is told of faults, which nobody would answer in a child.
    #[error(
        "the faults of memory at {0} are told to a userfaultfd, which no child has: unregister it \
         (UFFDIO_UNREGISTER) before prepare"
    )]
    Watched(crate::descriptor::SeedRange),
    /// pthread_atfork failed.
    #[error("libc has no memory to register fork handlers")]
    Register,
}

/// Looks up what [`prepare`] must know of libc, and registers its fork handlers, so that it need not ask the
/// dynamic linker later: for callers that prepare in a signal handler.
pub fn get_ready() {
    atfork::register();
    Rseq::of_this_libc();
}

/// Freezes a copy-on-write copy of this process, which the agent then publishes as a seed.
///
/// With [`Threads::Caller`] only the calling thread lives on in children, as after fork(2). Handlers of
/// pthread_atfork(3) run as for a fork: *prepare* and *parent* here, *child* in every child.
///
/// With [`Threads::All`] every thread is stopped for the time of one clone(2), and lives on in children where it
/// stood. No handler of pthread_atfork(3) runs, neither here nor there: nobody has lost a thread.
///
/// The caller sees nothing of the seed: no SIGCHLD, nothing in wait(2).
///
/// # Errors
/// See [`PrepareError`]. What the agent finds later is told by [`Seed::handle`].
pub fn prepare(options: &PrepareOptions) -> Result<Prepared, PrepareError> {
    prepare_after(options, None)
}

/// Does ahead what a prepare with [`Threads::All`] does before it stops anybody. Any thread may: the one that will
/// call [`prepare_after`] goes on meanwhile.
///
/// # Errors
/// As [`prepare`].
pub fn look_ahead(options: &PrepareOptions) -> Result<Ahead, PrepareError> {
    if !atfork::register() {
        return Err(PrepareError::Register);
    }
    let _turn = Turn::take().ok_or(PrepareError::Busy)?;
    Ahead::new(options)
}

/// As [`prepare`]; with [`Threads::All`] after what was done `ahead`, with the same options. What is not true any
/// more is done again.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_after(
    options: &PrepareOptions,
    ahead: Option<Ahead>,
) -> Result<Prepared, PrepareError> {
    if !atfork::register() {
        return Err(PrepareError::Register);
    }
    if let Some(why) = whole::unfit_caller() {
        return Err(PrepareError::Stop(why));
    }
    let _turn = Turn::take().ok_or(PrepareError::Busy)?;
    if let Some(why) = whole::dispatched(options.threads, options.stop_threads) {
        return Err(PrepareError::Stop(why));
    }
    reap::ended();
    let agent = match &options.agent {
        Some(agent) => agent.clone(),
        None => AgentAddress::find(),
    };
    let socket = agent.connect_for_seed()?;
    if options.threads == Threads::All {
        return whole::prepare(options, agent, socket, ahead);
    }
    // Neither may be dropped in a child, where their numbers and addresses are nothing or another's.
    let socket = ManuallyDrop::new(socket);
    let before = Before::new(options, socket.as_raw_fd());
    let forked = match &before {
        Ok(before) => atfork::fork(&before.scratch, before.hide).map_err(PrepareError::Fork),
        Err(_) => Ok(Forked::Parent { pid: 0, outcome: None }),
    };
    let before = ManuallyDrop::new(before);
    if let Ok(Forked::Child) = forked {
        return child(options);
    }
    let before = ManuallyDrop::into_inner(before);
    drop(ManuallyDrop::into_inner(socket));
    let before = before?;
    let Forked::Parent { pid, outcome } = forked? else { unreachable!("handled above") };
    if let Some(cause) = seen(outcome, before.hide) {
        end_visible(pid);
        return Err(PrepareError::SeedVisible(cause));
    }
    reap::remember(pid);
    Ok(Prepared::Parent(Seed::new(pid, before.token, agent, None)))
}

fn child(options: &PrepareOptions) -> Result<Prepared, PrepareError> {
    // A copy that nobody resumed, because our handler did not run: it must not go on as a second caller.
    let Some(resumed) = wake::up() else { seed::end(0) };
    if resumed.rehearsal && !options.rehearsal_returns {
        end_rehearsal();
    }
    Ok(Prepared::Child(resumed))
}

/// Ends a rehearsal ([`Resumed::rehearsal`]) that stands where prepare() would return to user code. What it
/// has touched by then is what children of this seed are given ahead.
pub fn end_rehearsal() -> ! {
    seed::rehearsed()
}

/// What is made before the fork.
#[derive(Debug)]
struct Before {
    token: PrepareToken,
    scratch: Scratch,
    /// The seed's exit signal must be taken from libc's fork().
    hide: bool,
    /// Unmapped when dropped, in the parent.
    _copies: Vec<shared::Copied>,
}

impl Before {
    fn new(options: &PrepareOptions, socket: i32) -> Result<Self, PrepareError> {
        let hide = dispatch::available();
        if !hide && !options.allow_visible_seed {
            return Err(PrepareError::NoDispatch);
        }
        let copies = shared::copy_all(options.shared_copy_limit)?;
        let mut before = Before { hide, ..Before::alone()? };
        before.note_caller(socket);
        // SAFETY: the scratch is ours alone until the fork.
        let freeze = unsafe { before.scratch.freeze().as_mut() };
        for (place, copied) in freeze.copies.iter_mut().zip(&copies) {
            *place = SharedCopy::of(copied);
        }
        freeze.copy_count = copies.len();
        before._copies = copies;
        freeze.carry_files = options.files == Files::Carried;
        freeze.refuse = options.refuse.bits();
        Ok(before)
    }

    /// Without copies of shared memory, by any thread.
    fn alone() -> Result<Self, PrepareError> {
        let token = PrepareToken::random();
        let scratch = Scratch::new(&token).map_err(PrepareError::Scratch)?;
        Ok(Before { token, scratch, hide: false, _copies: Vec::new() })
    }

    /// What is true of the thread that prepares, and of this moment.
    fn note_caller(&mut self, socket: i32) {
        // SAFETY: as above.
        let freeze = unsafe { self.scratch.freeze().as_mut() };
        freeze.socket = socket;
        freeze.parent_pid = u64::from(std::process::id());
        freeze.parent_tid = thread_id();
        freeze.generation = wake::generation();
        freeze.resume_area = wake::area();
        freeze.losses_area = wake::losses_area();
        freeze.timers = timers();
        freeze.frozen_at = kept::clocks();
        let rseq = Rseq::of_this_libc();
        (freeze.rseq_offset, freeze.rseq_lengths) = (rseq.offset, rseq.lengths);
    }
}

/// Why the seed would show, if it would and must not.
fn seen(outcome: Option<Outcome>, hide: bool) -> Option<String> {
    match outcome {
        _ if !hide && outcome.is_some() => None,
        Some(Outcome::Hidden) => None,
        Some(Outcome::Lost(number)) => Some(format!(
            "a fork handler of some library made system call {number} (a new thread?)"
        )),
        Some(Outcome::Visible) => Some("libc's fork() made its clone in an unknown way".to_owned()),
        None => Some("libc's fork() ran no fork handlers of ours".to_owned()),
    }
}

/// Takes away a seed that the caller would see.
fn end_visible(pid: i32) {
    // SAFETY: our own child of a moment ago.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL);
    }
}

fn thread_id() -> u64 {
    // SAFETY: takes nothing.
    u64::try_from(unsafe { libc::gettid() }).unwrap_or(0)
}

/// getitimer(2) of each kind: interval s, us; value s, us.
fn timers() -> [[u64; 4]; 3] {
    [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF].map(|which| {
        // SAFETY: the kernel fills the struct, for which all zero is a valid value.
        let value = unsafe {
            let mut value: libc::itimerval = std::mem::zeroed();
            libc::syscall(libc::SYS_getitimer, which, &raw mut value);
            value
        };
        let (interval, left) = (value.it_interval, value.it_value);
        [interval.tv_sec, interval.tv_usec, left.tv_sec, left.tv_usec].map(i64::cast_unsigned)
    })
}

static RSEQ: OnceLock<Rseq> = OnceLock::new();

/// How this libc registers rseq(2).
#[derive(Clone, Copy, Debug)]
struct Rseq {
    /// Of the area, from the thread pointer; 0: not registered.
    offset: i64,
    /// It may have been registered with any of these.
    lengths: [u32; 3],
}

impl Rseq {
    /// What [`Self::of_this_libc`] has found: no lock is taken.
    fn known() -> Self {
        RSEQ.get().copied().unwrap_or(Rseq { offset: 0, lengths: [0; 3] })
    }

    /// glibc tells (2.35 and later); other libcs do not register.
    fn of_this_libc() -> Self {
        const FEATURE_SIZE: libc::c_ulong = 27;
        const ALIGN: libc::c_ulong = 28;
        const ORIGINAL_BYTES: u32 = 32;
        *RSEQ.get_or_init(|| {
            // SAFETY: glibc documents both symbols as constants: ptrdiff_t and unsigned int.
            let (offset, size) = unsafe {
                let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr());
                let size = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr());
                if offset.is_null() || size.is_null() {
                    return Rseq { offset: 0, lengths: [0; 3] };
                }
                (offset.cast::<isize>().read(), size.cast::<u32>().read())
            };
            if size == 0 {
                return Rseq { offset: 0, lengths: [0; 3] };
            }
            // SAFETY: getauxval only reads.
            let (features, align) =
                unsafe { (libc::getauxval(FEATURE_SIZE), libc::getauxval(ALIGN)) };
            let features = u32::try_from(features).unwrap_or(0).max(ORIGINAL_BYTES);
            let align = u32::try_from(align).unwrap_or(0).max(ORIGINAL_BYTES);
            let newer = features.next_multiple_of(align);
            Rseq { offset: offset as i64, lengths: [newer, ORIGINAL_BYTES, size] }
        })
    }
}

/// Written by a child's restore tail, read by libmitosis when it wakes up in the child. Lives in
/// libmitosis's own data; its address travels in the descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ResumeInfo {
    /// [`RESUME_MAGIC`], so that a restore onto the wrong address is noticed.
    pub magic: u64,
    /// [`ROLE_NONE`] in the seed; what this process is in a child.
    pub role: u32,
    /// Which of the `n` children of one resume this is, from 0.
    pub index: u32,
    /// Forks between this process and the first one.
    pub generation: u64,
    /// The seed it was resumed from.
    pub seed: u64,
    /// Its name on its host.
    pub child: u64,
    /// Payload: address (valid until libmitosis has copied it) and bytes.
    pub payload: (u64, u64),
    /// Environment changes, `NAME=VALUE\0...` (a bare `NAME\0` unsets): address and bytes.
    pub environment: (u64, u64),
    /// What CLOCK_MONOTONIC jumped by, ns: not 0 where the child could not have the clock that it was to have.
    pub clock_delta_ns: i64,
}

/// "MITOSIS2".
pub const RESUME_MAGIC: u64 = u64::from_le_bytes(*b"MITOSIS2");
/// Not a child.
pub const ROLE_NONE: u32 = 0;
/// A child.
pub const ROLE_CHILD: u32 = 1;
/// A rehearsal child: runs until prepare() would return and then ends; the pages that it missed are
/// the ones to push.
pub const ROLE_REHEARSAL: u32 = 2;
/// What a rehearsal says to the agent when it is over.
pub const REHEARSED: [u8; 8] = *b"MITOREHR";
/// Bytes of payload and environment together that one resume may carry.
pub const MAX_MAIL_BYTES: usize = 1 << 20;
