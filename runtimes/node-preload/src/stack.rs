//! A stack of our own: the program's may be small (an alternate signal stack, a coroutine's).
#![allow(unsafe_code)]

use std::arch::global_asm;
use std::ffi::c_void;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// A prepare takes some 40 KiB of it, more in an unoptimised build.
const BYTES: usize = 512 << 10;
/// Below it: running over is a SIGSEGV, not somebody's memory.
const GUARD_BYTES: usize = 4096;

// Calls a function on another stack. The frame is known by rbp, so that whoever walks up the stack (a
// backtrace, a debugger) finds the way back to the program's.
global_asm!(
    ".pushsection .text.mitosis_preload_on_stack, \"ax\", @progbits",
    ".hidden mitosis_preload_on_stack",
    ".globl mitosis_preload_on_stack",
    ".type mitosis_preload_on_stack, @function",
    "mitosis_preload_on_stack:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "mov rsp, rdi",
    "mov rdi, rsi",
    "call rdx",
    "mov rsp, rbp",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size mitosis_preload_on_stack, . - mitosis_preload_on_stack",
    ".popsection",
);

unsafe extern "C" {
    fn mitosis_preload_on_stack(
        top: *mut c_void,
        work: *mut c_void,
        enter: extern "C" fn(*mut c_void),
    );
}

/// Runs `work` on a new stack. If it panics, that ends there.
///
/// # Errors
/// There is no memory for a stack; `work` has not run.
pub(crate) fn run_apart<F: FnOnce()>(work: F) -> io::Result<()> {
    let whole = BYTES + GUARD_BYTES;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: a new mapping, whose lowest page is then taken away from it.
    let base = unsafe {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let base = libc::mmap(ptr::null_mut(), whole, prot, flags, -1, 0);
        if base == libc::MAP_FAILED || libc::mprotect(base, GUARD_BYTES, libc::PROT_NONE) != 0 {
            return Err(io::Error::last_os_error());
        }
        base
    };
    let mut work = Some(work);
    // SAFETY: the top is 16-aligned, as a call demands; `enter` never unwinds. The mapping outlives the call.
    unsafe {
        let top = base.byte_add(whole);
        mitosis_preload_on_stack(top, (&raw mut work).cast(), enter::<F>);
        libc::munmap(base, whole);
    }
    Ok(())
}

extern "C" fn enter<F: FnOnce()>(work: *mut c_void) {
    // SAFETY: `run_apart` gives its own local, alive and unused while this runs.
    let work = unsafe { &mut *work.cast::<Option<F>>() };
    if let Some(work) = work.take() {
        // What went wrong has been printed.
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_elsewhere_and_comes_back() {
        let here = 0u8;
        let mut there = 0usize;
        run_apart(|| {
            let big = [1u8; 200 << 10];
            there = std::hint::black_box(&big).as_ptr() as usize;
        })
        .unwrap();
        assert!(there.abs_diff((&raw const here) as usize) > BYTES);
    }

    #[test]
    fn a_panic_ends_there() {
        run_apart(|| panic!("on purpose")).unwrap();
    }
}
