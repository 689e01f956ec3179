//! System calls of carried files as ops, see `calls`.

use super::calls::{call, flag};
use super::program::{Arg, Expect, Op};

fn number(value: impl Into<u64>) -> Arg {
    Arg::Value(value.into())
}

/// A system call that answers a descriptor, which goes to `to`, with the flags of dup3(2).
fn open<const N: usize>(
    name: &'static str,
    call: i64,
    args: [Arg; N],
    to: u32,
    flags: u32,
    if_there: bool,
) -> Op {
    let mut args = args.into_iter();
    let args = std::array::from_fn(|_| args.next().unwrap_or(Arg::Unused));
    let number = u32::try_from(call).unwrap_or(u32::MAX);
    Op::Open { name, number, args, to, flags, if_there }
}

/// openat(2) of an absolute path.
pub(super) fn open_if_there(path: &str, how: u32, to: u32, flags: u32) -> Op {
    let path = [path.as_bytes(), b"\0"].concat();
    let here = Arg::Value(i64::from(libc::AT_FDCWD).cast_unsigned());
    let args = [here, path.into(), number(how), number(0u32)];
    open("openat", libc::SYS_openat, args, to, flags, true)
}

/// memfd_create(2).
pub(super) fn memfd_create(name: &str, to: u32, flags: u32) -> Op {
    let name = [name.as_bytes(), b"\0"].concat();
    let how = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let args = [name.into(), number(how)];
    open("memfd_create", libc::SYS_memfd_create, args, to, flags, false)
}

/// socket(2).
pub(super) fn socket(
    domain: u32,
    kind: u32,
    protocol: u32,
    to: u32,
    flags: u32,
    if_there: bool,
) -> Op {
    let args = [number(domain), number(kind), number(protocol)];
    open("socket", libc::SYS_socket, args, to, flags, if_there)
}

/// eventfd(2).
pub(super) fn eventfd(initial: u32, is_semaphore: bool, to: u32, flags: u32) -> Op {
    let how = if is_semaphore { libc::EFD_SEMAPHORE } else { 0 };
    open("eventfd2", libc::SYS_eventfd2, [number(initial), flag(how)], to, flags, false)
}

/// epoll_create1(2).
pub(super) fn epoll_create(to: u32, flags: u32) -> Op {
    open("epoll_create1", libc::SYS_epoll_create1, [number(0u32)], to, flags, false)
}

/// timerfd_create(2).
pub(super) fn timerfd_create(clock: u32, to: u32, flags: u32) -> Op {
    let args = [number(clock), number(0u32)];
    open("timerfd_create", libc::SYS_timerfd_create, args, to, flags, false)
}

/// signalfd(2).
pub(super) fn signalfd(mask: u64, to: u32, flags: u32) -> Op {
    let mask = mask.to_le_bytes().to_vec();
    let args = [number(u64::MAX), mask.into(), number(8u32), number(0u32)];
    open("signalfd4", libc::SYS_signalfd4, args, to, flags, false)
}

/// inotify_init1(2).
pub(super) fn inotify_init(to: u32, flags: u32) -> Op {
    let how = [flag(libc::IN_NONBLOCK)];
    open("inotify_init1", libc::SYS_inotify_init1, how, to, flags, false)
}

/// inotify_add_watch(2) of what is watched already, or is not there.
pub(super) fn inotify_add(fd: u32, path: &str, mask: u32) -> Op {
    let path = [path.as_bytes(), b"\0"].concat();
    let args = [number(fd), path.into(), number(mask)];
    call("inotify_add_watch", libc::SYS_inotify_add_watch, args, Expect::Ignored)
}

/// pipe2(2), neither end of which waits: the reader's and the writer's number, and whether each is closed at exec.
pub(super) fn pipe(to: [(u32, bool); 2]) -> Op {
    let args = [Arg::Unused, flag(libc::O_NONBLOCK), Arg::Unused];
    pair("pipe2", libc::SYS_pipe2, args, to)
}

/// socketpair(2) of unix sockets, neither of which waits.
pub(super) fn socketpair(kind: u32, to: [(u32, bool); 2]) -> Op {
    let kind = kind | libc::SOCK_NONBLOCK.cast_unsigned();
    let args = [flag(libc::AF_UNIX), number(kind), number(0u32)];
    pair("socketpair", libc::SYS_socketpair, args, to)
}

fn pair(name: &'static str, call: i64, args: [Arg; 3], to: [(u32, bool); 2]) -> Op {
    let number = u32::try_from(call).unwrap_or(u32::MAX);
    let flags = to.map(|(_, exec)| if exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 });
    Op::Pair { name, number, args, to: to.map(|(fd, _)| fd), flags }
}

/// A pidfd of the child itself: the restorer puts its id in.
pub(super) fn own_pidfd(to: u32, flags: u32) -> Op {
    let args = [number(0u32), number(0u32)];
    open("pidfd_open", libc::SYS_pidfd_open, args, to, flags, false)
}

/// ioctl(2), TIOCGPTPEER: the slave of a terminal that may not be there.
pub(super) fn slave_of(master: u32, to: u32, flags: u32) -> Op {
    let how = flag(libc::O_RDWR | libc::O_NOCTTY);
    let args = [number(master), number(TIOCGPTPEER), how];
    open("ioctl", libc::SYS_ioctl, args, to, flags, true)
}

const TIOCGPTPEER: u64 = 0x5441;
const TIOCSPTLCK: u64 = 0x4004_5431;

fn terminal(fd: u32, request: u64, bytes: &[u8]) -> Op {
    let args = [number(fd), number(request), bytes.to_vec().into()];
    call("ioctl", libc::SYS_ioctl, args, Expect::Ignored)
}

/// ioctl(2), TIOCSPTLCK: unlockpt(3).
pub(super) fn unlock_terminal(fd: u32) -> Op {
    terminal(fd, TIOCSPTLCK, &0i32.to_le_bytes())
}

/// ioctl(2), TCSETS.
pub(super) fn terminal_settings(fd: u32, termios: &[u8]) -> Op {
    terminal(fd, libc::TCSETS, termios)
}

/// ioctl(2), TIOCSWINSZ.
pub(super) fn terminal_size(fd: u32, winsize: &[u8]) -> Op {
    terminal(fd, libc::TIOCSWINSZ, winsize)
}

/// dup3(2).
pub(super) fn dup3_flags(fd: u32, to: u32, flags: u32) -> Op {
    let args = [number(fd), number(to), number(flags)];
    call("dup3", libc::SYS_dup3, args, Expect::Exactly(to.into()))
}

/// fcntl(2) with a number.
pub(super) fn fcntl(fd: u32, command: i32, value: u32, expect: Expect) -> Op {
    let args = [number(fd), flag(command), number(value)];
    call("fcntl", libc::SYS_fcntl, args, expect)
}

/// lseek(2) from the start: a shorter file takes it, too.
pub(super) fn lseek(fd: u32, position: u64) -> Op {
    let args = [number(fd), number(position), flag(libc::SEEK_SET)];
    call("lseek", libc::SYS_lseek, args, Expect::Ignored)
}

/// write(2), whole.
pub(super) fn write(fd: u32, bytes: Vec<u8>) -> Op {
    let len = bytes.len() as u64;
    let args = [number(fd), bytes.into(), number(len)];
    call("write", libc::SYS_write, args, Expect::Exactly(len))
}

/// pwrite(2) at the start, whole.
pub(super) fn pwrite(fd: u32, bytes: &[u8]) -> Op {
    let len = bytes.len() as u64;
    let args = [number(fd), bytes.to_vec().into(), number(len), number(0u32)];
    call("pwrite64", libc::SYS_pwrite64, args, Expect::Exactly(len))
}

/// pwrite(2) of memory of the child's, whole.
pub(super) fn pwrite_memory(fd: u32, addr: u64, len: u64, offset: u64) -> Op {
    let args = [number(fd), number(addr), number(len), number(offset)];
    call("pwrite64", libc::SYS_pwrite64, args, Expect::Exactly(len))
}

/// ftruncate(2).
pub(super) fn ftruncate(fd: u32, bytes: u64) -> Op {
    call("ftruncate", libc::SYS_ftruncate, [number(fd), number(bytes)], Expect::Success)
}

/// connect(2) of a datagram socket, which only remembers.
pub(super) fn connect(fd: u32, address: &[u8]) -> Op {
    let len = address.len() as u64;
    let args = [number(fd), address.to_vec().into(), number(len)];
    call("connect", libc::SYS_connect, args, Expect::Ignored)
}

/// bind(2).
pub(super) fn bind(fd: u32, address: Vec<u8>) -> Op {
    let len = address.len() as u64;
    call("bind", libc::SYS_bind, [number(fd), address.into(), number(len)], Expect::Success)
}

/// listen(2).
pub(super) fn listen(fd: u32, backlog: u32) -> Op {
    call("listen", libc::SYS_listen, [number(fd), number(backlog)], Expect::Success)
}

/// timerfd_settime(2), from now.
pub(super) fn timerfd_settime(fd: u32, left_ns: u64, interval_ns: u64) -> Op {
    const SECOND: u64 = 1_000_000_000;
    let times = [interval_ns / SECOND, interval_ns % SECOND, left_ns / SECOND, left_ns % SECOND];
    let times = times.map(u64::to_le_bytes).concat();
    let args = [number(fd), number(0u32), times.into(), number(0u32)];
    call("timerfd_settime", libc::SYS_timerfd_settime, args, Expect::Success)
}

/// TFD_IOC_SET_TICKS, where the kernel has it: without, one expiry is there to be read.
pub(super) fn timerfd_set_ticks(fd: u32, ticks: u64) -> Op {
    const SET_TICKS: u64 = 0x4008_5400;
    let args = [number(fd), number(SET_TICKS), ticks.to_le_bytes().to_vec().into()];
    call("ioctl", libc::SYS_ioctl, args, Expect::Ignored)
}

/// epoll_ctl(2), EPOLL_CTL_ADD.
pub(super) fn epoll_add(epoll: u32, fd: u32, events: u32, data: u64, expect: Expect) -> Op {
    let event = [&events.to_le_bytes()[..], &data.to_le_bytes()].concat();
    let args = [number(epoll), flag(libc::EPOLL_CTL_ADD), number(fd), event.into()];
    call("epoll_ctl", libc::SYS_epoll_ctl, args, expect)
}
