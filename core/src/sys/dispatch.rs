//! Syscall user dispatch around libc's fork(): the seed gets no exit signal.
//!
//! Between [`arm`] and libc's clone, every system call of the calling thread raises SIGSYS. Ours clears
//! the exit signal in clone's flags and turns dispatch off; other calls are run in place. A child without
//! exit signal sends no SIGCHLD and is not in wait(2) or waitpid(-1). SIGSYS that is not ours (seccomp
//! in another thread, kill) goes to the disposition that was there.
//!
//! Dispatch is not inherited by fork, and holds for one thread. Kernel:
//! Documentation/admin-guide/syscall-user-dispatch.rst.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};

use super::rawcall::{
    KernelAction, SA_RESTORER, SIGSET_BYTES, allowed_text, call, rawcall, restorer,
    set_signal_mask, sigaction, signal_bit, thread_pointer,
};

const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
const DISPATCH_OFF: usize = 0;
const DISPATCH_ON: usize = 1;
const ALLOW: u8 = 0;
const BLOCK: u8 = 1;
/// `si_code` of a dispatched call (SYS_USER_DISPATCH).
const SYS_USER_DISPATCH: i32 = 2;
/// The exit signal in clone(2)'s flags (CSIGNAL).
const EXIT_SIGNAL_MASK: u64 = 0xff;

/// Read by the kernel at every system call of the armed thread.
static SELECTOR: AtomicU8 = AtomicU8::new(ALLOW);
/// Thread pointer of the armed thread; 0 is none.
static ARMED: AtomicU64 = AtomicU64::new(0);
/// The application's SIGSYS action.
static OLD_ACTION: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
static OLD_MASK: AtomicU64 = AtomicU64::new(0);
static ENABLED: AtomicBool = AtomicBool::new(false);
static CLONES: AtomicU32 = AtomicU32::new(0);
static LOST: AtomicI32 = AtomicI32::new(NONE_LOST);
const NONE_LOST: i32 = -1;

/// How one fork under dispatch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// One clone, its exit signal cleared.
    Hidden,
    /// The clone was not seen: the seed has an exit signal.
    Visible,
    /// A fork handler made this system call, before which dispatch must end.
    Lost(i32),
}

/// Whether this kernel dispatches.
pub(crate) fn available() -> bool {
    let (text, len) = allowed_text();
    // SAFETY: SELECTOR allows everything and lives for ever; dispatch is turned off at once.
    unsafe {
        SELECTOR.store(ALLOW, SeqCst);
        let answer = rawcall!(
            libc::SYS_prctl,
            PR_SET_SYSCALL_USER_DISPATCH,
            DISPATCH_ON,
            text,
            len,
            SELECTOR.as_ptr()
        );
        off();
        answer == 0
    }
}

/// Blocks every signal but SIGSYS and arms dispatch, if `enable`, for the calling thread. From here to
/// [`disarm`] only calls through `rawcall` pass untouched.
pub(crate) fn arm(enable: bool) {
    CLONES.store(0, SeqCst);
    LOST.store(NONE_LOST, SeqCst);
    // No handler of the application may run while armed: its way back is libc's rt_sigreturn.
    OLD_MASK.store(set_signal_mask(!signal_bit(libc::SIGSYS)), SeqCst);
    ENABLED.store(enable, SeqCst);
    if !enable {
        return;
    }
    let ours = KernelAction {
        handler: on_sigsys as *const () as usize as u64,
        flags: word(libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESTART) | SA_RESTORER,
        restorer: restorer(),
        mask: 0,
    };
    // SAFETY: on_sigsys is made to run at any moment: it allocates nothing and takes no lock.
    unsafe {
        // The old action first: another thread's trap may come right behind the change.
        let old = sigaction(libc::SIGSYS, None);
        let words = [old.handler, old.flags, old.restorer, old.mask];
        for (place, word) in OLD_ACTION.iter().zip(words) {
            place.store(word, SeqCst);
        }
        sigaction(libc::SIGSYS, Some(&ours));
        ARMED.store(thread_pointer(), SeqCst);
        let (text, len) = allowed_text();
        let selector = SELECTOR.as_ptr();
        let how = PR_SET_SYSCALL_USER_DISPATCH;
        if rawcall!(libc::SYS_prctl, how, DISPATCH_ON, text, len, selector) == 0 {
            SELECTOR.store(BLOCK, SeqCst);
        }
    }
}

/// In the parent: everything as before [`arm`].
pub(crate) fn disarm() -> Outcome {
    SELECTOR.store(ALLOW, SeqCst);
    let outcome = outcome();
    if ENABLED.load(SeqCst) {
        off();
        put_sigsys_back();
    }
    set_signal_mask(OLD_MASK.load(SeqCst));
    outcome
}

fn outcome() -> Outcome {
    match (LOST.load(SeqCst), CLONES.load(SeqCst)) {
        (NONE_LOST, 1) => Outcome::Hidden,
        (NONE_LOST, _) => Outcome::Visible,
        (number, _) => Outcome::Lost(number),
    }
}

/// In the parent, and in the child of any fork: the SIGSYS action back, if it is ours. The mask is left
/// alone.
///
/// The kernel is asked: when another thread forks, the child's signal actions are of an earlier moment
/// than its memory.
pub(crate) fn put_sigsys_back() {
    // SAFETY: the old action is the application's own; only ours is replaced.
    unsafe {
        if sigaction(libc::SIGSYS, None).handler == on_sigsys as *const () as usize as u64 {
            sigaction(libc::SIGSYS, Some(&old_action()));
        }
    }
    ARMED.store(0, SeqCst);
}

/// The caller's signal mask as [`arm`] found it.
pub(crate) fn callers_mask() -> u64 {
    OLD_MASK.load(SeqCst)
}

fn off() {
    // SAFETY: turning dispatch off takes no pointer.
    unsafe { rawcall!(libc::SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, DISPATCH_OFF) };
}

fn old_action() -> KernelAction {
    let [handler, flags, restorer, mask] = OLD_ACTION.each_ref().map(|word| word.load(SeqCst));
    KernelAction { handler, flags, restorer, mask }
}

/// A C int's bits, zero-extended.
#[allow(clippy::cast_sign_loss)]
fn word(bits: i32) -> u64 {
    u64::from(bits as u32)
}

/// The registers of a dispatched call, in the signal frame.
struct Registers<'a>(&'a mut [libc::greg_t; 23]);

#[allow(clippy::cast_sign_loss, clippy::cast_possible_wrap, clippy::cast_possible_truncation)]
impl Registers<'_> {
    fn at(&self, register: libc::c_int) -> u64 {
        self.0[register as usize] as u64
    }

    fn set(&mut self, register: libc::c_int, value: u64) {
        self.0[register as usize] = value as libc::greg_t;
    }

    fn answer(&mut self, value: isize) {
        self.0[libc::REG_RAX as usize] = value as libc::greg_t;
    }

    fn number(&self) -> libc::c_long {
        self.at(libc::REG_RAX) as libc::c_long
    }

    fn args(&self) -> [usize; 6] {
        [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9]
            .map(|register| self.at(register) as usize)
    }

    /// Has the `syscall` instruction (2 bytes) run once more, undispatched.
    fn again(&mut self) {
        SELECTOR.store(ALLOW, SeqCst);
        self.set(libc::REG_RIP, self.at(libc::REG_RIP) - 2);
    }
}

extern "C" fn on_sigsys(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel hands a SA_SIGINFO handler a live siginfo and ucontext of this thread.
    unsafe {
        if (*info).si_code != SYS_USER_DISPATCH || ARMED.load(SeqCst) != thread_pointer() {
            return hand_on(signal, info, context);
        }
        let mask = (&raw mut (*context).uc_sigmask).cast::<u64>();
        dispatched(&mut Registers(&mut (*context).uc_mcontext.gregs), &mut *mask);
    }
}

/// One dispatched system call.
///
/// # Safety
/// The registers are a thread's whose own system call this is, so its pointers are as good as it meant.
unsafe fn dispatched(registers: &mut Registers<'_>, frame_mask: &mut u64) {
    let number = registers.number();
    let flags = registers.at(libc::REG_RDI);
    match number {
        libc::SYS_rt_sigprocmask => {
            // SAFETY: the caller's.
            let answer = unsafe { change_frame_mask(registers.args(), frame_mask) };
            registers.answer(answer);
        }
        libc::SYS_fork => {
            // musl's: it has no flags to clear.
            CLONES.fetch_add(1, SeqCst);
            for register in
                [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8]
            {
                registers.set(register, 0);
            }
            registers.set(libc::REG_RAX, libc::SYS_clone.cast_unsigned());
            registers.again();
        }
        libc::SYS_clone if flags & word(libc::CLONE_VM) == 0 => {
            CLONES.fetch_add(1, SeqCst);
            registers.set(libc::REG_RDI, flags & !EXIT_SIGNAL_MASK);
            registers.again();
        }
        // These cannot run in place: they return twice, or never, or on the frame's stack.
        libc::SYS_clone
        | libc::SYS_clone3
        | libc::SYS_vfork
        | libc::SYS_rt_sigreturn
        | libc::SYS_execve
        | libc::SYS_execveat => {
            LOST.store(i32::try_from(number).unwrap_or(0), SeqCst);
            registers.again();
        }
        _ => {
            // SAFETY: the caller's.
            let answer = unsafe { call(number, registers.args()) };
            registers.answer(answer);
        }
    }
}

/// rt_sigprocmask(2) for the interrupted code: its mask is the one in the frame. SIGSYS stays open.
///
/// # Safety
/// `args` are those of the thread's own call.
unsafe fn change_frame_mask(args: [usize; 6], frame_mask: &mut u64) -> isize {
    let [how, set, old, ..] = args;
    let before = *frame_mask;
    let mut mask = before;
    if set != 0 {
        // SAFETY: the caller's set, 8 bytes.
        let set = unsafe { ptr::read_unaligned(set as *const u64) };
        match i32::try_from(how) {
            Ok(libc::SIG_BLOCK) => mask |= set,
            Ok(libc::SIG_UNBLOCK) => mask &= !set,
            Ok(libc::SIG_SETMASK) => mask = set,
            _ => return -(libc::EINVAL as isize),
        }
    }
    if old != 0 {
        // SAFETY: the caller's place for the old set, 8 bytes.
        unsafe { ptr::write_unaligned(old as *mut u64, before) };
    }
    *frame_mask = mask & !signal_bit(libc::SIGSYS);
    0
}

/// SIGSYS that is not ours: to whom it would have gone.
///
/// # Safety
/// Called from the handler with its own arguments.
unsafe fn hand_on(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    let old = old_action();
    let forced = |info: *mut libc::siginfo_t| {
        // SAFETY: live, see above.
        unsafe { (*info).si_code > 0 }
    };
    // SAFETY: a disposition of the application's own is called with the kernel's arguments.
    unsafe {
        match old.handler {
            1 if !forced(info) => {}
            // The kernel kills for a trap that is ignored, as for the default.
            0 | 1 => {
                let default =
                    KernelAction { flags: SA_RESTORER, restorer: restorer(), ..Default::default() };
                sigaction(signal, Some(&default));
                let (process, thread) = (rawcall!(libc::SYS_getpid), rawcall!(libc::SYS_gettid));
                rawcall!(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info);
            }
            handler => {
                type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::ucontext_t);
                let handler: Handler = std::mem::transmute::<usize, Handler>(
                    usize::try_from(handler).unwrap_or_default(),
                );
                handler(signal, info, context);
            }
        }
    }
}

const _: () = assert!(SIGSET_BYTES == size_of::<u64>());
