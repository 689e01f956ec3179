//! System calls by an instruction of our own: no errno, no PLT, no cancellation point.
//!
//! Every one goes through the one `syscall` instruction of [`call`], so that syscall user dispatch can
//! let exactly these few bytes pass (see `dispatch`), wherever libc is linked.

use std::arch::global_asm;

global_asm!(
    ".pushsection .text.mitosis_rawcall, \"ax\", @progbits",
    ".balign 64",
    ".hidden mitosis_rawcall_start, mitosis_rawcall, mitosis_restorer, mitosis_rawcall_end",
    ".globl mitosis_rawcall_start, mitosis_rawcall, mitosis_restorer, mitosis_rawcall_end",
    "mitosis_rawcall_start:",
    ".type mitosis_rawcall, @function",
    "mitosis_rawcall:",
    ".cfi_startproc",
    "mov %rdi, %rax",
    "mov %rsi, %rdi",
    "mov %rdx, %rsi",
    "mov %rcx, %rdx",
    "mov %r8, %r10",
    "mov %r9, %r8",
    "mov 8(%rsp), %r9",
    "syscall",
    "ret",
    ".cfi_endproc",
    ".size mitosis_rawcall, . - mitosis_rawcall",
    // Debuggers know a signal frame by these two instructions, and look one byte before them.
    "nop",
    ".type mitosis_restorer, @function",
    "mitosis_restorer:",
    "mov $15, %rax",
    "syscall",
    "ud2",
    ".size mitosis_restorer, . - mitosis_restorer",
    "mitosis_rawcall_end:",
    ".popsection",
    options(att_syntax)
);

unsafe extern "C" {
    static mitosis_rawcall_start: u8;
    static mitosis_rawcall_end: u8;
    fn mitosis_restorer();
    fn mitosis_rawcall(
        number: usize,
        a: usize,
        b: usize,
        c: usize,
        d: usize,
        e: usize,
        f: usize,
    ) -> isize;
}

/// A system call: the kernel's own answer, `-errno` on failure.
///
/// # Safety
/// As the system call demands. The caller's libc does not learn of it.
#[inline(always)]
pub(crate) unsafe fn call(number: libc::c_long, args: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller vouches for the call itself; the assembly keeps the C calling convention.
    unsafe { mitosis_rawcall(number.word(), a, b, c, d, e, f) }
}

/// `rawcall!(libc::SYS_read, fd, pointer, len)`: [`call`] with up to six arguments.
macro_rules! rawcall {
    ($number:expr $(, $arg:expr)* $(,)?) => {{
        let given: &[usize] = &[$($crate::sys::rawcall::Word::word($arg)),*];
        let mut args = [0usize; 6];
        args[..given.len()].copy_from_slice(given);
        $crate::sys::rawcall::call($number, args)
    }};
}
pub(crate) use rawcall;

/// What can be an argument: numbers (sign-extended, as the kernel's ABI wants them) and pointers.
pub(crate) trait Word {
    fn word(self) -> usize;
}

macro_rules! word {
    ($($kind:ty),*) => {$(
        impl Word for $kind {
            #[inline(always)]
            #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, clippy::cast_lossless)]
            fn word(self) -> usize {
                self as usize
            }
        }
    )*};
}
word!(usize, isize, u64, i64, u32, i32);

impl<T> Word for *const T {
    #[inline(always)]
    fn word(self) -> usize {
        self as usize
    }
}

impl<T> Word for *mut T {
    #[inline(always)]
    fn word(self) -> usize {
        self as usize
    }
}

/// Address and bytes of the only instructions that may call the kernel while dispatch is armed.
pub(crate) fn allowed_text() -> (usize, usize) {
    let start = (&raw const mitosis_rawcall_start) as usize;
    let end = (&raw const mitosis_rawcall_end) as usize;
    (start, end - start)
}

/// A signal's way back through an instruction of ours.
pub(crate) fn restorer() -> u64 {
    mitosis_restorer as *const () as usize as u64
}

/// The thread pointer: its value names the calling thread in this address space and, unlike a thread id,
/// is the same in a fork's child. Needs no system call and no thread-local storage of ours.
#[inline(always)]
pub(crate) fn thread_pointer() -> u64 {
    let pointer: u64;
    // SAFETY: on x86-64 the ABI keeps the thread pointer itself at %fs:0; reading it has no effect.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly, preserves_flags));
    }
    pointer
}

/// The kernel's `struct sigaction`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelAction {
    pub(crate) handler: u64,
    pub(crate) flags: u64,
    pub(crate) restorer: u64,
    pub(crate) mask: u64,
}

/// SA_RESTORER, which libc keeps to itself.
pub(crate) const SA_RESTORER: u64 = 0x0400_0000;
/// Bytes of the kernel's signal set.
pub(crate) const SIGSET_BYTES: usize = 8;

/// The bit of `signal` in a kernel signal set.
pub(crate) const fn signal_bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// rt_sigaction(2): sets `new` if given and returns what stood before.
///
/// # Safety
/// `new`'s handler must be fit to run at any moment.
pub(crate) unsafe fn sigaction(signal: i32, new: Option<&KernelAction>) -> KernelAction {
    let mut old = KernelAction::default();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are valid or null; the caller vouches for the handler.
    unsafe { rawcall!(libc::SYS_rt_sigaction, signal, new, &raw mut old, SIGSET_BYTES) };
    old
}

/// rt_sigprocmask(2), SIG_SETMASK: returns the mask before.
pub(crate) fn set_signal_mask(mask: u64) -> u64 {
    let mut old = 0u64;
    // SAFETY: both sets are live u64; a mask alone breaks no memory.
    unsafe {
        let how = libc::SIG_SETMASK;
        rawcall!(libc::SYS_rt_sigprocmask, how, &raw const mask, &raw mut old, SIGSET_BYTES)
    };
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_answers_as_libc_does() {
        // SAFETY: getpid has no arguments; the second call has a bad descriptor on purpose.
        unsafe {
            assert_eq!(rawcall!(libc::SYS_getpid), libc::getpid() as isize);
            assert_eq!(rawcall!(libc::SYS_close, -1), -(libc::EBADF as isize));
        }
    }

    #[test]
    fn six_arguments_arrive() {
        // SAFETY: a fresh anonymous mapping, unmapped again.
        unsafe {
            let (prot, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let at = rawcall!(libc::SYS_mmap, 0usize, 4096usize, prot, flags, -1, 0usize);
            assert!(at > 0);
            assert_eq!(rawcall!(libc::SYS_munmap, at, 4096usize), 0);
        }
    }

    #[test]
    fn threads_have_their_own_pointer() {
        let here = thread_pointer();
        assert_eq!(here, thread_pointer());
        assert_ne!(here, std::thread::spawn(thread_pointer).join().unwrap());
    }

    #[test]
    fn the_allowed_text_is_a_few_bytes() {
        let (_, len) = allowed_text();
        assert!((16..128).contains(&len), "{len}");
    }
}
