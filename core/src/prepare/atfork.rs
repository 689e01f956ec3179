//! libmitosis's fork handlers, registered as early as a library can: the seed freezes inside ours, so
//! that handlers registered later run in each child and not in the seed.
//!
//! ```text
//! caller   fork() > handlers' prepare > ours: arm > clone ----------------> ours: disarm > handlers' parent
//! seed                                                └> ours: freeze ... (asleep)
//! child                                                       rt_sigreturn > handlers' child > fork() = 0
//! ```

use std::io;
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering::SeqCst};

use super::scratch::{Freeze, Scratch};
use super::{reap, seed, turn};
use crate::sys::dispatch::{self, Outcome};
use crate::sys::queued_signal::QueuedSignal;
use crate::sys::rawcall::{
    KernelAction, SA_RESTORER, rawcall, restorer, set_signal_mask, sigaction, signal_bit,
    thread_pointer,
};

/// Thread pointer of the thread whose next fork makes a seed; 0 is none. It tells the seed from a child
/// that another thread forks in the same moment.
static PREPARING: AtomicU64 = AtomicU64::new(0);
static HIDE: AtomicBool = AtomicBool::new(true);
static FREEZE: AtomicPtr<Freeze> = AtomicPtr::new(null_mut());
static OUTCOME: AtomicU64 = AtomicU64::new(0);
const OUTCOME_NONE: u64 = 0;
const OUTCOME_HIDDEN: u64 = 1;
const OUTCOME_VISIBLE: u64 = 2;
/// Plus the system call's number.
const OUTCOME_LOST: u64 = 1 << 32;

const RSEQ_FLAG_UNREGISTER: i32 = 1;
const RSEQ_SIGNATURE: u32 = 0x5305_3053;

/// Runs before the program's own constructors where the linker sorts by priority.
#[used]
#[unsafe(link_section = ".init_array.00101")]
static CONSTRUCTOR: extern "C" fn() = constructor;

static REGISTER: Once = Once::new();
static REGISTERED: AtomicBool = AtomicBool::new(false);

extern "C" fn constructor() {
    register();
}

/// Registers the handlers unless that has been done; whether they stand.
pub(super) fn register() -> bool {
    REGISTER.call_once(|| {
        // SAFETY: the handlers do nothing in forks that are not ours but put our own state right.
        let answer =
            unsafe { libc::pthread_atfork(Some(at_prepare), Some(at_parent), Some(at_child)) };
        REGISTERED.store(answer == 0, SeqCst);
    });
    REGISTERED.load(SeqCst)
}

/// Which side of the fork this is.
#[derive(Debug)]
pub(super) enum Forked {
    /// The caller; `outcome` is `None` if no handler of ours ran.
    Parent { pid: i32, outcome: Option<Outcome> },
    /// A child, far from here.
    Child,
}

/// fork(2) by libc, its child frozen inside [`at_child`].
pub(super) fn fork(scratch: &Scratch, hide: bool) -> io::Result<Forked> {
    FREEZE.store(scratch.freeze().as_ptr(), SeqCst);
    HIDE.store(hide, SeqCst);
    OUTCOME.store(OUTCOME_NONE, SeqCst);
    PREPARING.store(thread_pointer(), SeqCst);
    // SAFETY: the child goes on as after any fork(2): its caller must not rely on other threads.
    let pid = unsafe { libc::fork() };
    PREPARING.store(0, SeqCst);
    match pid {
        0 => Ok(Forked::Child),
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Forked::Parent { pid, outcome: outcome() }),
    }
}

fn outcome() -> Option<Outcome> {
    match OUTCOME.load(SeqCst) {
        OUTCOME_NONE => None,
        OUTCOME_HIDDEN => Some(Outcome::Hidden),
        OUTCOME_VISIBLE => Some(Outcome::Visible),
        lost => Some(Outcome::Lost(i32::try_from(lost - OUTCOME_LOST).unwrap_or(0))),
    }
}

fn is_ours() -> bool {
    PREPARING.load(SeqCst) == thread_pointer()
}

unsafe extern "C" fn at_prepare() {
    if is_ours() {
        // Last of all handlers, as ours were registered first.
        // SAFETY: `fork` has put the scratch memory there, which nothing else uses.
        unsafe { FREEZE.load(SeqCst).as_mut().map(|freeze| seed::look_at_files(freeze)) };
        dispatch::arm(HIDE.load(SeqCst));
    }
}

unsafe extern "C" fn at_parent() {
    if is_ours() {
        let outcome = match dispatch::disarm() {
            Outcome::Hidden => OUTCOME_HIDDEN,
            Outcome::Visible => OUTCOME_VISIBLE,
            Outcome::Lost(number) => OUTCOME_LOST + u64::from(number.unsigned_abs()),
        };
        OUTCOME.store(outcome, SeqCst);
        PREPARING.store(0, SeqCst);
        FREEZE.store(null_mut(), SeqCst);
    }
}

unsafe extern "C" fn at_child() {
    let ours = is_ours();
    dispatch::put_sigsys_back();
    reap::forget_all();
    let freeze = FREEZE.swap(null_mut(), SeqCst);
    if !ours {
        // Another thread was preparing; it is not here.
        PREPARING.store(0, SeqCst);
        turn::reset();
        return;
    }
    let mask = dispatch::callers_mask();
    if !freeze.is_null() {
        // SAFETY: the scratch memory came along with the fork, and this is the only thread.
        unsafe { become_seed(freeze) };
    }
    // From here on this is a child: the scratch memory is gone, the freeze signal's action is the
    // caller's again by the restore.
    PREPARING.store(0, SeqCst);
    set_signal_mask(mask);
}

/// Returns in children alone.
///
/// # Safety
/// `freeze` lies in the scratch memory of this process, which nothing else uses.
pub(super) unsafe fn become_seed(freeze: *mut Freeze) {
    // SAFETY: the caller's; raw system calls with live arguments.
    unsafe {
        // A kernel likes to run what is new at once, and where both have the same CPU the parent would wait for all that
        // a seed does.
        seed::give_way();
        let shared = rawcall!(libc::SYS_unshare, libc::CLONE_THREAD);
        (*freeze).foreign_threads = shared == -(libc::EINVAL as isize);
        rawcall!(libc::SYS_setsid);
        (*freeze).rseq_registered = leave_rseq(&*freeze);
        let action = KernelAction {
            handler: seed::entry(),
            flags: u64::from(libc::SA_SIGINFO.cast_unsigned()) | SA_RESTORER,
            restorer: restorer(),
            mask: !0,
        };
        (*freeze).old_action = sigaction(seed::FREEZE_SIGNAL, Some(&action));
        set_signal_mask(!signal_bit(seed::FREEZE_SIGNAL));
        let info = QueuedSignal::new(seed::FREEZE_SIGNAL, freeze as usize as u64);
        let (process, thread) = (rawcall!(libc::SYS_getpid), rawcall!(libc::SYS_gettid));
        let number = libc::SYS_rt_tgsigqueueinfo;
        let raised = rawcall!(number, process, thread, seed::FREEZE_SIGNAL, &raw const info);
        // In a child the call has just returned, with 0. Otherwise it failed, in the seed.
        if raised != 0 {
            seed::end(STATUS_NOT_FROZEN);
        }
    }
}

/// Exit status of a seed to which no signal could be queued (RLIMIT_SIGPENDING is 0).
const STATUS_NOT_FROZEN: i32 = 91;

/// Unregisters rseq, so that the kernel writes nothing to the seed's memory when it moves between CPUs.
/// Returns the length that was registered, 0 if none.
unsafe fn leave_rseq(freeze: &Freeze) -> u32 {
    if freeze.rseq_offset == 0 {
        return 0;
    }
    let area = thread_pointer().wrapping_add_signed(freeze.rseq_offset);
    for len in freeze.rseq_lengths.into_iter().filter(|len| *len != 0) {
        // SAFETY: unregistering what is registered; anything else is refused by the kernel.
        let answer =
            unsafe { rawcall!(libc::SYS_rseq, area, len, RSEQ_FLAG_UNREGISTER, RSEQ_SIGNATURE) };
        if answer == 0 {
            return len;
        }
    }
    0
}
