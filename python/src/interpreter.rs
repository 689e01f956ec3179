//! What the interpreter has to be told around a fork: the three calls that os.fork() makes.
//!
//! All are in the stable ABI since Python 3.7; the C API's documentation, "Operating System Utilities".
#![allow(unsafe_code)]

use std::ffi::{c_int, c_ulong};
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use mitosis::sys::signal::FAULTS;
use pyo3::prelude::*;

unsafe extern "C" {
    fn PyOS_BeforeFork();
    fn PyOS_AfterFork_Parent();
    fn PyOS_AfterFork_Child();
    fn PyGC_Disable() -> c_int;
    fn PyGC_Enable() -> c_int;
    fn PyThreadState_SetAsyncExc(thread: c_ulong, exception: *mut pyo3::ffi::PyObject) -> c_int;
}

/// The thread whose next fork is a prepare, as pthread_self(3) names it; 0 is none. It alone is in a child: whoever
/// reads its own name there was resumed.
static PREPARING: AtomicU64 = AtomicU64::new(0);

/// The calling thread's next fork is a prepare.
pub(crate) fn begin_prepare(_py: Python<'_>) {
    PREPARING.store(this_thread(), SeqCst);
}

/// In the parent: the calling thread forks as it always did.
pub(crate) fn end_prepare(_py: Python<'_>) {
    PREPARING.store(0, SeqCst);
}

/// In a child of any fork: whether a prepare has made it. Once; its own forks are others.
#[pyfunction]
pub(crate) fn is_of_prepare() -> bool {
    PREPARING.swap(0, SeqCst) == this_thread()
}

fn this_thread() -> u64 {
    // SAFETY: takes nothing.
    unsafe { libc::pthread_self() }
}

/// Runs before-fork handlers and takes the import lock. One of the two others must follow.
pub(crate) fn before_fork(_py: Python<'_>) {
    // SAFETY: the interpreter lock is held, and stays so until the fork is done.
    unsafe { PyOS_BeforeFork() }
}

/// Gives the import lock back and runs handlers; also when the fork failed.
pub(crate) fn after_fork_parent(_py: Python<'_>) {
    // SAFETY: the interpreter lock is held; before_fork has run on this thread.
    unsafe { PyOS_AfterFork_Parent() }
}

/// Makes the interpreter one of a single thread again and runs handlers.
pub(crate) fn after_fork_child(_py: Python<'_>) {
    // SAFETY: this is the only thread; it held the interpreter lock at the fork and holds it still.
    unsafe { PyOS_AfterFork_Child() }
}

/// Keeps the collector from running finalizers, which are Python code, while `work` runs.
pub(crate) fn uncollected<T>(_py: Python<'_>, work: impl FnOnce() -> T) -> T {
    // SAFETY: the interpreter lock is held.
    let was_on = unsafe { PyGC_Disable() } != 0;
    let done = work();
    if was_on {
        // SAFETY: as above.
        unsafe { PyGC_Enable() };
    }
    done
}

/// Raises a class of exceptions in a thread at its next line of Python; `None` takes back what was not raised.
pub(crate) fn raise_in_thread(_py: Python<'_>, thread: u64, exception: Option<&Bound<'_, PyAny>>) {
    let exception = exception.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: the interpreter lock is held; the call takes a reference of its own.
    unsafe { PyThreadState_SetAsyncExc(thread, exception) };
}

/// The mask of the thread that forks, while it has another one.
static CALLERS_MASK: Mutex<Option<Mask>> = Mutex::new(None);

struct Mask(libc::sigset_t);

/// Holds signals back from the calling thread. PyOS_AfterFork_Child forgets those that came before it,
/// and a handler of os.register_at_fork would swallow what a signal handler raises. A child may be sent
/// one at once: blocked, it waits until the child is whole.
pub(crate) fn hold_signals(_py: Python<'_>) {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut old = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset and pthread_sigmask initialise what they are given before it is read.
    let old = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        // Blocking them helps nobody.
        for fault in FAULTS {
            libc::sigdelset(all.as_mut_ptr(), fault);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
        old.assume_init()
    };
    if let Ok(mut mask) = CALLERS_MASK.lock() {
        *mask = Some(Mask(old));
    }
}

/// Gives the calling thread the mask back that it had, if it has not been given back yet.
#[pyfunction]
pub(crate) fn release_signals() {
    let mask = CALLERS_MASK.lock().ok().and_then(|mut mask| mask.take());
    if let Some(Mask(old)) = mask {
        // SAFETY: a mask that the kernel has told.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut()) };
    }
}
