//! The system calls behind sealed hosts: the only module of this crate with unsafe code.
//!
//! Everything here is a thin, safe function over one call; policy lives in the other modules. The
//! functions that fork ([`fork_into`]) or change the caller's namespaces ([`enter`]) are meant for
//! the single-threaded `mitosis-hosts` binary and say so.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

/// Every namespace a host has of its own, except the time namespace: `clone` cannot make one that
/// the child itself is in, see [`unshare_time`].
pub(crate) const HOST_NAMESPACES: i32 = libc::CLONE_NEWNET
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWCGROUP;

/// `CLONE_NEWTIME`; libc has it as `c_int` on some targets only.
pub(crate) const CLONE_NEWTIME: i32 = 0x80;

/// Lowest descriptor that [`keep_only`] may close.
const FIRST_FREE_FD: u32 = 3;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_long(result: libc::c_long) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// True for uid 0, which is what making namespaces without a user namespace takes.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid has no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Forks the calling, single-threaded process into the new namespaces of `flags` (0 for none), runs
/// `child` there and exits with what it returns. Gives the child's pid to the caller.
///
/// A raw `clone`, as libc's fork takes no flags. libc's record of the thread id is stale in the
/// child, so the child must not `raise` or `abort` through libc; a panic ends it with 125.
pub(crate) fn fork_into(flags: i32, child: impl FnOnce() -> i32) -> io::Result<i32> {
    let flags = libc::c_long::from(flags) | libc::c_long::from(libc::SIGCHLD);
    let null = ptr::null::<u8>();
    // SAFETY: with a null stack and without CLONE_VM clone(2) is fork(2): the child gets its own
    // copy of memory. The caller is single-threaded (see above), so no lock is held by a thread
    // that does not exist in the child, which may therefore allocate.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, null, null, null, null) };
    if pid != 0 {
        return check_long(pid);
    }
    let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(125);
    // SAFETY: _exit ends the child here; at-exit handlers belong to the parent.
    unsafe { libc::_exit(status) }
}

/// Puts the calling, single-threaded process into a new time namespace whose CLOCK_MONOTONIC and
/// CLOCK_BOOTTIME are `offset_s` ahead. `/proc` must still show the caller.
pub(crate) fn unshare_time(offset_s: i64) -> io::Result<()> {
    // SAFETY: unshare changes only which namespace the *children* of this process will get.
    check(unsafe { libc::unshare(CLONE_NEWTIME) })?;
    let offsets = format!("monotonic {offset_s} 0\nboottime {offset_s} 0\n");
    std::fs::write("/proc/self/timens_offsets", offsets)?;
    // Entering the namespace made for the children spares the extra fork that is usual here.
    let own = File::open("/proc/self/ns/time_for_children")?;
    // SAFETY: `own` is an open namespace descriptor; the kernel refuses if other threads exist.
    check(unsafe { libc::setns(own.as_raw_fd(), CLONE_NEWTIME) })?;
    Ok(())
}

/// A descriptor for process `pid`: readable (poll) once it has ended, and never another process.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers; the result is checked before it is owned.
    let fd = check_long(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Moves the calling, single-threaded process into all namespaces of the process behind `init`
/// (its children, for pid), including its root directory.
pub(crate) fn enter(init: BorrowedFd<'_>) -> io::Result<()> {
    let namespaces = HOST_NAMESPACES | CLONE_NEWTIME;
    // SAFETY: `init` is a live pidfd for the length of the call; setns touches no memory of ours.
    check(unsafe { libc::setns(init.as_raw_fd(), namespaces) })?;
    Ok(())
}

/// Lets `command` run in the network namespace `net`, and in all else where the caller is: the
/// tools for links are those of the machine, also for a host that has none.
pub(crate) fn run_in_net(command: &mut Command, net: OwnedFd) {
    // SAFETY: the closure makes one system call, which is async-signal-safe, on a descriptor that
    // it owns; it neither allocates nor takes a lock.
    unsafe {
        command
            .pre_exec(move || check(libc::setns(net.as_raw_fd(), libc::CLONE_NEWNET)).map(|_| ()));
    }
}

/// What `work` gives in the network namespace `net`: on a thread of its own, as it does not come back from there.
/// Sockets stay where they were made.
pub(crate) fn on_thread_in_net<T: Send>(
    net: BorrowedFd<'_>,
    work: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            // SAFETY: an integer and a live descriptor; only this thread moves, and it ends with `work`.
            check(unsafe { libc::setns(net.as_raw_fd(), libc::CLONE_NEWNET) })?;
            Ok(work())
        });
        there.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")))
    })
}

/// mount(2); `data` is the file system's own option string.
pub(crate) fn mount(
    source: &Path,
    target: &Path,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let (source, target) = (c_path(source)?, c_path(target)?);
    let kind = CString::new(kind).map_err(io::Error::other)?;
    let data = CString::new(data).map_err(io::Error::other)?;
    // SAFETY: all four pointers are NUL-terminated strings that outlive the call.
    check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    })?;
    Ok(())
}

/// umount2(2) with MNT_DETACH.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })?;
    Ok(())
}

/// Makes the mount point that is the working directory the root of this mount namespace and drops
/// the old root, with every mount under it.
pub(crate) fn pivot_to_cwd() -> io::Result<()> {
    // SAFETY: two NUL-terminated literals. "." twice stacks the old root on the new one, from where
    // the unmount below takes it (pivot_root(2), NOTES), so no directory for it is needed.
    check_long(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    unmount(Path::new("."))?;
    std::env::set_current_dir("/")
}

/// A character device with mode 0666 whatever the umask.
pub(crate) fn make_char_device(path: &Path, major: u32, minor: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let name = c_path(path)?;
    // SAFETY: a NUL-terminated string that outlives the call, and integers.
    check(unsafe {
        libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(major, minor))
    })?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
}

/// Sets the host name of the caller's UTS namespace.
pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are of one live string.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) })?;
    Ok(())
}

/// Starts a session, so that a terminal's signals do not reach the caller.
pub(crate) fn new_session() -> io::Result<()> {
    // SAFETY: no arguments.
    check(unsafe { libc::setsid() })?;
    Ok(())
}

/// The name that ps and top show, cut to 15 bytes by the kernel.
pub(crate) fn set_process_name(name: &str) -> io::Result<()> {
    let name = CString::new(name).map_err(io::Error::other)?;
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) })?;
    Ok(())
}

/// Has the kernel kill the caller when the thread that forked it ends. The caller must look after
/// this call whether that has already happened.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: integers only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })?;
    Ok(())
}

/// Restricts the caller to one CPU.
pub(crate) fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: cpu_set_t is a plain bit array for which all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `cpu` is below the number of bits of `set`, checked above.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: pointer and size are of one live set; pid 0 is the caller.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })?;
    Ok(())
}

/// Points descriptor `to` (0, 1 or 2) at what `from` is open on.
pub(crate) fn replace_stdio(from: &impl AsRawFd, to: i32) -> io::Result<()> {
    assert!((0..=2).contains(&to), "only the three standard descriptors may be replaced");
    // SAFETY: `from` is open for the length of the call, and nobody in Rust owns 0, 1 or 2.
    check(unsafe { libc::dup2(from.as_raw_fd(), to) })?;
    Ok(())
}

/// Closes every descriptor from 3 up except `kept`. Only for a process that never returns to code
/// that owns one of the others.
pub(crate) fn keep_only(kept: &[BorrowedFd<'_>]) {
    let number = |fd: &BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).unwrap_or(0);
    let mut kept: Vec<u32> = kept.iter().map(number).collect();
    kept.sort_unstable();
    let mut from = FIRST_FREE_FD;
    for fd in kept {
        close_range(from, fd.saturating_sub(1));
        from = from.max(fd + 1);
    }
    close_range(from, u32::MAX);
}

fn close_range(first: u32, last: u32) {
    if first <= last {
        // SAFETY: integers only; that no owner uses these again is keep_only's contract.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// A pipe, closed on exec: its end to read from and its end to write to.
pub(crate) fn pipe() -> io::Result<(File, File)> {
    let mut ends = [-1; 2];
    // SAFETY: the array has room for the two descriptors that the kernel writes.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let [reader, writer] = ends;
    // SAFETY: the kernel has just returned both descriptors to us alone.
    Ok(unsafe { (File::from_raw_fd(reader), File::from_raw_fd(writer)) })
}

/// Blocks every signal and returns a descriptor from which those that arrive are read.
pub(crate) fn signals_as_fd() -> io::Result<OwnedFd> {
    // SAFETY: sigset_t is plain data that sigfillset initialises wholly.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: pointers to one live set; the old mask is not asked for.
    let fd = unsafe {
        libc::sigfillset(&raw mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()))?;
        check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?
    };
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A signal as read from [`signals_as_fd`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signal {
    /// Its number.
    pub(crate) number: i32,
    /// Sent by the kernel (a terminal's ^C, say), not by a process.
    pub(crate) from_kernel: bool,
}

/// The next waiting signal, if there is one.
pub(crate) fn next_signal(signals: &OwnedFd) -> Option<Signal> {
    // SAFETY: signalfd_siginfo is plain data; all zeros is a value of it.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer is live and exactly `size` bytes long.
    let n = unsafe { libc::read(signals.as_raw_fd(), (&raw mut info).cast(), size) };
    (usize::try_from(n) == Ok(size)).then(|| Signal {
        number: i32::try_from(info.ssi_signo).unwrap_or(0),
        from_kernel: info.ssi_code == libc::SI_KERNEL,
    })
}

/// Gives the signal mask back that programs expect to start with.
pub(crate) fn unblock_signals() -> io::Result<()> {
    // SAFETY: as in `signals_as_fd`.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: pointers to one live set.
    check(unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut())
    })?;
    Ok(())
}

/// Sends `signal` to `pid`, which the caller knows to be its own child, not reaped yet.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    assert!(pid > 1, "kill({pid}) would reach a group or init");
    // SAFETY: integers only.
    check(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Ends the caller by `signal` with its default action, so that its parent sees what ended the
/// command it ran for. Writes no core of its own. Returns only if the signal does not kill.
pub(crate) fn die_by(signal: i32) {
    // SAFETY: integers and null pointers; SIG_DFL is a valid disposition. kill(getpid()) stands in
    // for raise(), whose thread id may be stale after `fork_into`.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        libc::signal(signal, libc::SIG_DFL);
        libc::kill(libc::getpid(), signal);
    }
    let _ = unblock_signals();
}

/// One child that has ended: (pid, wait status).
pub(crate) fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` is live for the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Waits for the end of the child `pid` and reaps it.
pub(crate) fn wait_for(pid: i32) -> io::Result<()> {
    // SAFETY: integers and a null pointer: the status is not asked for.
    check(unsafe { libc::waitpid(pid, ptr::null_mut(), 0) })?;
    Ok(())
}

/// Waits until one of `fds` is readable or at its end, at most `timeout_ms` (-1: for ever). Says
/// which of them are.
pub(crate) fn poll<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
    timeout_ms: i32,
) -> io::Result<[bool; N]> {
    // A negative descriptor is one that poll(2) passes over.
    let mut set = fds.map(|fd| libc::pollfd {
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: pointer and length are of one live array.
    let result = unsafe { libc::poll(set.as_mut_ptr(), N as libc::nfds_t, timeout_ms) };
    match check(result) {
        Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
        _ => Ok(set.map(|entry| entry.revents != 0)),
    }
}

/// A clock's reading in seconds.
pub(crate) fn clock_s(clock: libc::clockid_t) -> io::Result<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is live for the call.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    #[allow(clippy::cast_precision_loss)] // seconds of uptime are far below 2^52
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}
