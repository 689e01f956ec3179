//! The two functions of libc that this library stands before.
#![allow(unsafe_code)]

use std::arch::naked_asm;
use std::ffi::c_int;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::{openssl, raw, watch};

/// getpid(2), by the caller's return address: where a caller jumps here, that of its own caller.
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn getpid() -> c_int {
    naked_asm!("mov rdi, [rsp]", "jmp {answer}", answer = sym answer_getpid)
}

extern "C" fn answer_getpid(caller: usize) -> c_int {
    openssl::process_id_for(caller)
}

type Listen = unsafe extern "C" fn(c_int, c_int) -> c_int;
static LISTEN: AtomicUsize = AtomicUsize::new(0);

/// Looks up whom the calls go on to.
pub(crate) fn get_ready() {
    LISTEN.store(raw::next_symbol(c"listen"), SeqCst);
}

/// listen(2), and a look whether somebody waits for it.
#[unsafe(no_mangle)]
unsafe extern "C" fn listen(socket: c_int, backlog: c_int) -> c_int {
    let next = LISTEN.load(SeqCst);
    let answer = if next == 0 {
        // SAFETY: two numbers. It is called before our constructor has run.
        i32::try_from(unsafe { libc::syscall(libc::SYS_listen, socket, backlog) }).unwrap_or(-1)
    } else {
        // SAFETY: libc's own, or that of the next library in line.
        unsafe { std::mem::transmute::<usize, Listen>(next)(socket, backlog) }
    };
    if answer == 0 {
        watch::has_listened();
    }
    answer
}
