//! What the interpreter has to be told around a fork: the three calls that os.fork() makes.
//!
//! All are in the stable ABI since Python 3.7; the C API's documentation, "Operating System Utilities".
#![allow(unsafe_code)]

use std::ffi::c_int;

use pyo3::prelude::*;

unsafe extern "C" {
    fn PyOS_BeforeFork();
    fn PyOS_AfterFork_Parent();
    fn PyOS_AfterFork_Child();
    fn PyGC_Disable() -> c_int;
    fn PyGC_Enable() -> c_int;
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
