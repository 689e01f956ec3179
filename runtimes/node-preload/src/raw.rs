//! System calls and symbols that libc does not hand out as they are needed here.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};

/// This process's real id, whatever [`crate::interpose`] tells others.
pub(crate) fn process_id() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    i32::try_from(unsafe { libc::syscall(libc::SYS_getpid) }).unwrap_or(0)
}

/// The address of a symbol: for the constructor alone, as the dynamic linker takes locks.
pub(crate) fn symbol(name: &CStr) -> usize {
    // SAFETY: a string that lives through the call.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) as usize }
}

/// The address of the symbol that this library stands before.
pub(crate) fn next_symbol(name: &CStr) -> usize {
    // SAFETY: as above.
    unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) as usize }
}

/// errno, kept over what a handler does.
#[derive(Debug)]
pub(crate) struct Errno(c_int);

impl Errno {
    pub(crate) fn keep() -> Self {
        // SAFETY: libc's own place for this thread.
        Errno(unsafe { *libc::__errno_location() })
    }
}

impl Drop for Errno {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = self.0 };
    }
}

/// All signals blocked but those of libc's own (32, 33), until it is dropped.
pub(crate) struct Held(libc::sigset_t);

impl Held {
    pub(crate) fn all() -> Self {
        // SAFETY: sigset_t is plain data, filled by the calls; both sets outlive them.
        unsafe {
            let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
            Held(old)
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the set that stood before.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}
