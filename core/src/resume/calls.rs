//! System calls as ops. Each names its arguments; numbers are of the kernel's ABI.

use super::program::{Arg, Expect, Op};

impl From<u64> for Arg {
    fn from(value: u64) -> Arg {
        Arg::Value(value)
    }
}

impl From<Vec<u8>> for Arg {
    fn from(bytes: Vec<u8>) -> Arg {
        Arg::Bytes(bytes)
    }
}

/// A system call of these arguments.
pub(super) fn call<const N: usize>(
    name: &'static str,
    number: i64,
    args: [Arg; N],
    expect: Expect,
) -> Op {
    let mut args = args.into_iter();
    let args = std::array::from_fn(|_| args.next().unwrap_or(Arg::Unused));
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    Op::Syscall { name, number, args, expect }
}

pub(super) fn flag(value: i32) -> Arg {
    Arg::Value(u64::from(value.cast_unsigned()))
}

/// mmap(2) at `addr`.
pub(super) fn mmap(addr: u64, len: u64, prot: u8, flags: i32, fd: Option<u32>, offset: u64) -> Op {
    let fd = fd.map_or(u64::MAX, u64::from);
    let args =
        [addr.into(), len.into(), u64::from(prot).into(), flag(flags), fd.into(), offset.into()];
    call("mmap", libc::SYS_mmap, args, Expect::Exactly(addr))
}

/// mmap(2) in place of what lies at `addr`, if the kernel knows these flags.
pub(super) fn try_mmap(addr: u64, len: u64, prot: u8, flags: i32) -> Op {
    let args =
        [addr.into(), len.into(), u64::from(prot).into(), flag(flags), u64::MAX.into(), 0.into()];
    call("mmap", libc::SYS_mmap, args, Expect::Ignored)
}

/// munmap(2).
pub(super) fn munmap(start: u64, end: u64) -> Op {
    call("munmap", libc::SYS_munmap, [start.into(), (end - start).into()], Expect::Success)
}

/// mremap(2) of `len` bytes from `from` to `to`.
pub(super) fn relocate(from: u64, len: u64, to: u64) -> Op {
    let flags = flag(libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
    let args = [from.into(), len.into(), len.into(), flags, to.into()];
    call("mremap", libc::SYS_mremap, args, Expect::Exactly(to))
}

/// mprotect(2).
pub(super) fn mprotect(addr: u64, len: u64, prot: u8) -> Op {
    let args = [addr.into(), len.into(), u64::from(prot).into()];
    call("mprotect", libc::SYS_mprotect, args, Expect::Success)
}

/// madvise(2).
pub(super) fn madvise(addr: u64, len: u64, advice: i32, expect: Expect) -> Op {
    call("madvise", libc::SYS_madvise, [addr.into(), len.into(), flag(advice)], expect)
}

/// Guard pages.
pub(super) fn guard(addr: u64, len: u64) -> Op {
    const MADV_GUARD_INSTALL: i32 = 102;
    madvise(addr, len, MADV_GUARD_INSTALL, Expect::Success)
}

/// pread(2) of all `len` bytes.
pub(super) fn pread(fd: u32, addr: u64, len: u64, offset: u64) -> Op {
    let args = [u64::from(fd).into(), addr.into(), len.into(), offset.into()];
    call("pread64", libc::SYS_pread64, args, Expect::Exactly(len))
}

/// prctl(2).
pub(super) fn prctl<const N: usize>(what: i32, rest: [Arg; N], expect: Expect) -> Op {
    let mut args = [const { Arg::Value(0) }; 5];
    args[0] = flag(what);
    for (place, arg) in args[1..].iter_mut().zip(rest) {
        *place = arg;
    }
    call("prctl", libc::SYS_prctl, args, expect)
}

/// arch_prctl(2) with a value.
pub(super) fn arch_prctl(what: u64, value: u64) -> Op {
    call("arch_prctl", libc::SYS_arch_prctl, [what.into(), value.into()], Expect::Success)
}

/// Blocks every signal.
pub(super) fn block_signals() -> Op {
    let all = u64::MAX.to_le_bytes().to_vec();
    let args = [flag(libc::SIG_SETMASK), all.into(), 0.into(), 8.into()];
    call("rt_sigprocmask", libc::SYS_rt_sigprocmask, args, Expect::Success)
}

/// rt_sigaction(2) with a kernel `struct sigaction`.
pub(super) fn sigaction(signal: u64, action: Vec<u8>) -> Op {
    let args = [signal.into(), action.into(), 0.into(), 8.into()];
    call("rt_sigaction", libc::SYS_rt_sigaction, args, Expect::Success)
}

/// sigaltstack(2) with a `stack_t`.
pub(super) fn sigaltstack(stack: Vec<u8>) -> Op {
    call("sigaltstack", libc::SYS_sigaltstack, [stack.into()], Expect::Success)
}

/// prlimit64(2) of this process.
pub(super) fn set_limit(resource: u64, soft: u64, hard: u64) -> Op {
    let pair = [soft.to_le_bytes(), hard.to_le_bytes()].concat();
    let args = [0.into(), resource.into(), pair.into()];
    call("prlimit64", libc::SYS_prlimit64, args, Expect::Success)
}

/// mlock2(2), by which nothing is faulted in.
pub(super) fn lock(addr: u64, len: u64) -> Op {
    const MLOCK_ONFAULT: u64 = 1;
    let args = [addr.into(), len.into(), MLOCK_ONFAULT.into()];
    call("mlock2", libc::SYS_mlock2, args, Expect::Success)
}

/// mlockall(2).
pub(super) fn lock_all(flags: u32) -> Op {
    call("mlockall", libc::SYS_mlockall, [u64::from(flags).into()], Expect::Success)
}

/// mseal(2).
pub(super) fn seal(addr: u64, len: u64) -> Op {
    const SYS_MSEAL: i64 = 462;
    call("mseal", SYS_MSEAL, [addr.into(), len.into(), 0.into()], Expect::Success)
}

/// membarrier(2).
pub(super) fn membarrier(command: u32) -> Op {
    let args = [u64::from(command).into(), 0.into(), 0.into()];
    call("membarrier", libc::SYS_membarrier, args, Expect::Success)
}

/// ioprio_set(2) of the calling thread.
pub(super) fn ioprio_set(who: u64, priority: u64) -> Op {
    let args = [who.into(), 0.into(), priority.into()];
    // The real-time class takes a capability.
    call("ioprio_set", libc::SYS_ioprio_set, args, Expect::Ignored)
}

/// umask(2).
pub(super) fn umask(mask: u32) -> Op {
    call("umask", libc::SYS_umask, [u64::from(mask).into()], Expect::Ignored)
}

/// personality(2).
pub(super) fn personality(persona: u32) -> Op {
    call("personality", libc::SYS_personality, [u64::from(persona).into()], Expect::Success)
}

/// setns(2) of this thread, the only one.
pub(super) fn setns(fd: u32, kind: u32) -> Op {
    let args = [u64::from(fd).into(), u64::from(kind).into()];
    call("setns", libc::SYS_setns, args, Expect::Success)
}

/// sethostname(2).
pub(super) fn sethostname(name: &str) -> Op {
    let args = [name.as_bytes().to_vec().into(), (name.len() as u64).into()];
    call("sethostname", libc::SYS_sethostname, args, Expect::Success)
}

/// chdir(2).
pub(super) fn chdir(path: &str, expect: Expect) -> Op {
    let path = [path.as_bytes(), b"\0"].concat();
    call("chdir", libc::SYS_chdir, [path.into()], expect)
}

/// chroot(2).
pub(super) fn chroot(path: &str) -> Op {
    let path = [path.as_bytes(), b"\0"].concat();
    call("chroot", libc::SYS_chroot, [path.into()], Expect::Success)
}

/// close_range(2) from `first` up.
pub(super) fn close_from(first: u32) -> Op {
    close_range(first, u32::MAX)
}

/// close_range(2).
pub(super) fn close_range(first: u32, last: u32) -> Op {
    let args = [u64::from(first).into(), u64::from(last).into()];
    call("close_range", libc::SYS_close_range, args, Expect::Success)
}

/// dup2(2).
pub(super) fn dup2(fd: u32, to: u32) -> Op {
    let args = [u64::from(fd).into(), u64::from(to).into()];
    call("dup2", libc::SYS_dup2, args, Expect::Exactly(to.into()))
}

/// dup3(2), closed at exec.
pub(super) fn dup3(fd: u32, to: u32) -> Op {
    let args = [
        u64::from(fd).into(),
        u64::from(to).into(),
        u64::from(libc::O_CLOEXEC.cast_unsigned()).into(),
    ];
    call("dup3", libc::SYS_dup3, args, Expect::Exactly(to.into()))
}

/// close(2).
pub(super) fn close(fd: u32) -> Op {
    call("close", libc::SYS_close, [u64::from(fd).into()], Expect::Success)
}

/// getppid(2), which must answer `parent`.
pub(super) fn check_parent(parent: u32) -> Op {
    call("getppid", libc::SYS_getppid, [], Expect::Exactly(parent.into()))
}

/// setsid(2).
pub(super) fn setsid() -> Op {
    call("setsid", libc::SYS_setsid, [], Expect::Success)
}

/// setitimer(2): interval s, us; value s, us.
pub(super) fn setitimer(which: u64, timer: [u64; 4]) -> Op {
    let timer = timer.map(u64::to_le_bytes).concat();
    let args = [which.into(), timer.into(), 0.into()];
    call("setitimer", libc::SYS_setitimer, args, Expect::Success)
}

/// set_robust_list(2).
pub(super) fn set_robust_list(head: u64, len: u64) -> Op {
    call("set_robust_list", libc::SYS_set_robust_list, [head.into(), len.into()], Expect::Success)
}

/// sched_setattr(2) of this thread with a `struct sched_attr`.
pub(super) fn sched_setattr(attributes: Vec<u8>, expect: Expect) -> Op {
    let args = [0.into(), attributes.into(), 0.into()];
    call("sched_setattr", libc::SYS_sched_setattr, args, expect)
}

/// rseq(2): registers an area.
pub(super) fn rseq(addr: u64, len: u32, signature: u32) -> Op {
    let args = [addr.into(), u64::from(len).into(), 0.into(), u64::from(signature).into()];
    call("rseq", libc::SYS_rseq, args, Expect::Success)
}
