//! The files, each at a number of its own, and what they are like.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::Where;
use crate::calls::{
    at, both, closes_at_exec, events, flags, number, open as open_at, read, sys, watch, write,
};

/// Where a template has its own descriptors, too.
const PIPE: [i32; 2] = [3, 4];
const OUTSIDE_READS: i32 = 5;
const OUTSIDE_WRITES: i32 = 6;
const PAIR: [i32; 2] = [7, 8];
const OUTSIDE_PEER: i32 = 9;
const CONNECTED: i32 = 10;
const EVENT: i32 = 11;
const SEMAPHORE: i32 = 12;
const EPOLL: i32 = 13;
const TIMER: i32 = 14;
const EXPIRED: i32 = 15;
const SIGNALS: i32 = 16;
const INOTIFY: i32 = 17;
const KEPT: i32 = 18;
const KEPT_AGAIN: i32 = 19;
const GONE: i32 = 20;
const DIRECTORY: i32 = 21;
const NULL: i32 = 22;
const MEMORY: i32 = 23;
const UNLINKED: i32 = 24;
const OUTPUT: i32 = 25;
const PROCESS: i32 = 26;
/// Listens on a port of the kernel's choice.
pub const LISTENER: i32 = 27;
pub const APPENDED: i32 = 28;
const DATAGRAMS: i32 = 29;
const NESTED: i32 = 64;
const LARGE: [i32; 2] = [65, 300];

/// Bytes of a pipe that is larger than others.
const LARGE_BYTES: usize = 100_000;

/// Opens all of them.
pub fn open(folder: &str) {
    pairs();
    outside();
    counters();
    names(folder);
    sockets();
    epolls();
    crate::more::open(folder);
    NUMBERS.get_or_init(numbers);
}

fn pairs() {
    let mut ends = [0; 2];
    both(sys!(pipe2, ends.as_mut_ptr(), libc::O_NONBLOCK), ends, PIPE);
    assert_eq!(sys!(fcntl, PIPE[0], libc::F_SETFD, libc::FD_CLOEXEC), 0);
    assert_eq!(write(PIPE[1], b"in the pipe"), 11);
    let kind = libc::SOCK_STREAM;
    both(sys!(socketpair, libc::AF_UNIX, kind, 0, ends.as_mut_ptr()), ends, PAIR);
    assert_eq!((write(PAIR[0], b"to the second"), write(PAIR[1], b"to the first")), (13, 12));
    both(sys!(pipe2, ends.as_mut_ptr(), 0), ends, LARGE);
    assert!(sys!(fcntl, LARGE[1], libc::F_SETPIPE_SZ, 128 << 10) >= 128 << 10);
    assert_eq!(write(LARGE[1], &vec![7; LARGE_BYTES]), LARGE_BYTES as i64);
}

/// Ends whose other ones a process holds that ends with this one.
fn outside() {
    let mut command = Command::new("/bin/sleep");
    command.arg("1000").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // SAFETY: one system call.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    };
    let mut ends = [0; 2];
    assert_eq!(sys!(socketpair, libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()), 0);
    // Not closed at exec: the other process keeps it.
    let mut child = command.spawn().unwrap();
    sys!(close, ends[1]);
    at(ends[0].into(), OUTSIDE_PEER);
    let ends = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    at(std::os::fd::IntoRawFd::into_raw_fd(ends.0).into(), OUTSIDE_READS);
    at(std::os::fd::IntoRawFd::into_raw_fd(ends.1).into(), OUTSIDE_WRITES);
    at(sys!(syscall, libc::SYS_pidfd_open, child.id(), 0), PROCESS);
    // It ends with this process.
    std::mem::forget(child);
}

fn counters() {
    at(sys!(eventfd, 5, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC), EVENT);
    at(sys!(eventfd, 3, libc::EFD_NONBLOCK | libc::EFD_SEMAPHORE), SEMAPHORE);
    let time = |tv_sec, tv_nsec| libc::timespec { tv_sec, tv_nsec };
    let arm = |fd, value, interval| {
        let new = libc::itimerspec { it_value: value, it_interval: interval };
        assert_eq!(sys!(timerfd_settime, fd, 0, &raw const new, std::ptr::null_mut()), 0);
    };
    at(sys!(timerfd_create, libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK), TIMER);
    arm(TIMER, time(1000, 0), time(7, 0));
    at(sys!(timerfd_create, libc::CLOCK_REALTIME, libc::TFD_NONBLOCK), EXPIRED);
    arm(EXPIRED, time(0, 1), time(0, 0));
    std::thread::sleep(std::time::Duration::from_millis(2));
    // SAFETY: a set of signals is plain data.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    sys!(sigaddset, &raw mut set, libc::SIGUSR1);
    sys!(sigprocmask, libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    at(sys!(signalfd, -1, &raw const set, libc::SFD_NONBLOCK), SIGNALS);
    at(sys!(inotify_init1, libc::IN_NONBLOCK), INOTIFY);
}

fn names(folder: &str) {
    let kept = format!("{folder}/kept");
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
    open_at(&kept, flags, KEPT);
    assert_eq!(write(KEPT, b"the file's text\n"), 16);
    sys!(lseek, KEPT, 4, libc::SEEK_SET);
    at(sys!(fcntl, KEPT, libc::F_DUPFD_CLOEXEC, 400), KEPT_AGAIN);
    open_at(&kept, libc::O_WRONLY | libc::O_APPEND, APPENDED);
    open_at(&format!("{folder}/gone"), libc::O_RDWR | libc::O_CREAT, GONE);
    open_at("/tmp", libc::O_RDONLY | libc::O_DIRECTORY, DIRECTORY);
    open_at("/dev/null", libc::O_RDWR, NULL);
    let flags = libc::MFD_ALLOW_SEALING;
    at(sys!(memfd_create, c"suite".as_ptr(), flags), MEMORY);
    assert_eq!(write(MEMORY, b"in memory"), 9);
    sys!(fcntl, MEMORY, libc::F_ADD_SEALS, libc::F_SEAL_GROW);
    let unlinked = format!("{folder}/unlinked");
    open_at(&unlinked, libc::O_RDWR | libc::O_CREAT, UNLINKED);
    assert_eq!(write(UNLINKED, b"without a name"), 14);
    fs::remove_file(unlinked).unwrap();
    at(sys!(fcntl, 1, libc::F_DUPFD, 400), OUTPUT);
}

fn sockets() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    at(std::os::fd::IntoRawFd::into_raw_fd(listener).into(), LISTENER);
    crate::say(&format!("port {}", address.port()));
    let connected = std::net::TcpStream::connect(address).unwrap();
    let accepted = sys!(accept, LISTENER, std::ptr::null_mut(), std::ptr::null_mut());
    // Its own other end: TCP's ends are never joined.
    assert!(accepted >= 0);
    at(std::os::fd::IntoRawFd::into_raw_fd(connected).into(), CONNECTED);
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.connect("127.0.0.1:9").unwrap();
    at(std::os::fd::IntoRawFd::into_raw_fd(datagrams).into(), DATAGRAMS);
}

/// Open before the fork.
static NUMBERS: OnceLock<Vec<i32>> = OnceLock::new();

/// Open now; the one that lists them is the lowest that was free.
fn numbers() -> Vec<i32> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let mut numbers: Vec<i32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

fn epolls() {
    at(sys!(epoll_create1, libc::EPOLL_CLOEXEC), EPOLL);
    at(sys!(epoll_create1, 0), NESTED);
    watch(EPOLL, EVENT, libc::EPOLLIN, 0x1111_2222_3333_4444);
    watch(EPOLL, PIPE[0], libc::EPOLLIN | libc::EPOLLET, u64::MAX);
    watch(EPOLL, LISTENER, libc::EPOLLIN, 77);
    watch(EPOLL, TIMER, libc::EPOLLIN, 78);
    watch(EPOLL, SIGNALS, libc::EPOLLIN, 79);
    watch(NESTED, EPOLL, libc::EPOLLIN, 80);
}

/// What is not as it should be.
pub fn differences(place: Where) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |what: &str, is: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug| {
        let (is, wanted) = (format!("{is:?}"), format!("{wanted:?}"));
        if is != wanted {
            found.push(format!("{what}: {is} instead of {wanted}"));
        }
    };
    let again = Err::<Vec<u8>, i32>(libc::EAGAIN);
    look("epoll", &events(EPOLL), &[0x1111_2222_3333_4444, u64::MAX]);
    look("nested epoll", &events(NESTED), &[80]);
    look("pipe", &read(PIPE[0]), &Ok::<_, i32>(b"in the pipe"));
    look("pipe, empty", &read(PIPE[0]), &again);
    look("pipe, written", &(write(PIPE[1], b"x"), read(PIPE[0])), &(1, Ok::<_, i32>(b"x")));
    look("pipe, exec", &PIPE.map(closes_at_exec), &[true, false]);
    look("pair", &read(PAIR[0]), &Ok::<_, i32>(b"to the first"));
    look("pair", &read(PAIR[1]), &Ok::<_, i32>(b"to the second"));
    look("pair, flags", &PAIR.map(|fd| flags(fd) & libc::O_NONBLOCK), &[0, 0]);
    look("pair, written", &(write(PAIR[1], b"y"), read(PAIR[0])), &(1, Ok::<_, i32>(b"y")));
    let mut bytes = 0;
    while bytes < LARGE_BYTES {
        match read(LARGE[0]) {
            Ok(read) if !read.is_empty() && read.iter().all(|byte| *byte == 7) => {
                bytes += read.len();
            }
            other => {
                look("large pipe", &other, &"bytes");
                break;
            }
        }
    }
    look("large pipe, capacity", &sys!(fcntl, LARGE[0], libc::F_GETPIPE_SZ), &(128 << 10));
    look("eventfd", &number(EVENT), &Ok::<_, i32>(5));
    look("eventfd, exec", &closes_at_exec(EVENT), &true);
    look("semaphore", &(number(SEMAPHORE), number(SEMAPHORE)), &(Ok::<_, i32>(1), Ok::<_, i32>(1)));
    look("epoll, later", &events(EPOLL), &[0u64; 0]);
    let mut left = std::mem::MaybeUninit::<libc::itimerspec>::zeroed();
    sys!(timerfd_gettime, TIMER, left.as_mut_ptr());
    // SAFETY: zeros, or what the kernel wrote.
    let left = unsafe { left.assume_init() };
    look(
        "timer",
        &((900..1000).contains(&left.it_value.tv_sec), left.it_interval.tv_sec),
        &(true, 7),
    );
    look("timer, expired", &number(EXPIRED), &Ok::<_, i32>(1));
    sys!(raise, libc::SIGUSR1);
    look("signals", &read(SIGNALS).map(|info| info.first().copied()), &Ok::<_, i32>(Some(10u8)));
    look("inotify", &read(INOTIFY), &again);
    look("inotify, anew", &(sys!(inotify_add_watch, INOTIFY, c"/tmp".as_ptr(), 2) > 0), &true);
    names_as_they_were(place, &mut look);
    sockets_as_they_were(place, &mut look);
    crate::more::as_they_were(place, &mut look);
    found
}

pub type Look<'a> = dyn FnMut(&str, &dyn std::fmt::Debug, &dyn std::fmt::Debug) + 'a;

fn names_as_they_were(place: Where, look: &mut Look<'_>) {
    look("file", &read(KEPT), &Ok::<_, i32>(b"file's text\n"));
    sys!(lseek, KEPT_AGAIN, 11, libc::SEEK_SET);
    look("file, by its other number", &read(KEPT), &Ok::<_, i32>(b"text\n"));
    look("file, exec", &[KEPT, KEPT_AGAIN].map(closes_at_exec), &[false, true]);
    look("appended", &write(APPENDED, b"more"), &4);
    sys!(lseek, KEPT, 0, libc::SEEK_SET);
    look("appended", &read(KEPT), &Ok::<_, i32>(b"the file's text\nmore"));
    let gone = match place {
        Where::Plain => Ok(Vec::<u8>::new()),
        Where::Child => Err(libc::EBADF),
    };
    look("a file that is not here", &read(GONE), &gone);
    look("directory", &read(DIRECTORY), &Err::<(), _>(libc::EISDIR));
    look("null", &(read(NULL), write(NULL, b"z")), &(Ok::<_, i32>([0u8; 0]), 1));
    look("memory, offset", &sys!(lseek, MEMORY, 0, libc::SEEK_CUR), &9);
    look("memory, seals", &sys!(fcntl, MEMORY, libc::F_GET_SEALS), &libc::F_SEAL_GROW);
    for (fd, text) in [(MEMORY, &b"in memory"[..]), (UNLINKED, b"without a name")] {
        let mut bytes = vec![0; text.len()];
        // SAFETY: the number stays open beyond this.
        let file = std::mem::ManuallyDrop::new(unsafe {
            <fs::File as std::os::fd::FromRawFd>::from_raw_fd(fd)
        });
        let got = file.read_at(&mut bytes, 0).ok();
        look("bytes of a file without a name", &(got, &bytes[..]), &(Some(text.len()), text));
    }
    look("output", &write(OUTPUT, b"by another number\n"), &18);
}

fn sockets_as_they_were(place: Where, look: &mut Look<'_>) {
    sys!(signal, libc::SIGPIPE, libc::SIG_IGN);
    look("datagrams", &(write(DATAGRAMS, b"lost") == 4), &true);
    let accept = || sys!(accept, LISTENER, std::ptr::null_mut(), std::ptr::null_mut());
    look("listener", &accept(), &-i64::from(libc::EAGAIN));
    if place == Where::Plain {
        return;
    }
    let end = Ok::<_, i32>([0u8; 0]);
    look("a pipe from elsewhere", &read(OUTSIDE_READS), &end);
    look("a pipe to elsewhere", &write(OUTSIDE_WRITES, b"x"), &-i64::from(libc::EPIPE));
    look("a peer elsewhere", &read(OUTSIDE_PEER), &end);
    look("a peer elsewhere", &write(OUTSIDE_PEER, b"x"), &-i64::from(libc::EPIPE));
    look("a connection", &read(CONNECTED), &end);
    look("a process", &sys!(fcntl, PROCESS, libc::F_GETFL), &i64::from(libc::O_PATH));
    look("a process, used", &read(PROCESS), &Err::<(), _>(libc::EBADF));
    // Nothing of what made the child is left.
    look("numbers", &numbers(), &NUMBERS.get().cloned().unwrap_or_default());
}
