//! Threads that wait for files which the process has open at both ends.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mitosis_process_suite::fail;

use crate::crossing::{Crossing, Side, equal, must};
use crate::worker::{Flag, Worker, errno, span};

fn opened(fd: libc::c_int) -> File {
    if fd < 0 {
        fail(&std::io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that is ours.
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// (reader, writer)
fn pipe() -> (File, File) {
    let mut ends = [-1; 2];
    // SAFETY: fills two numbers.
    equal("pipe2", unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    (opened(ends[0]), opened(ends[1]))
}

/// Calls again what a handler has interrupted.
fn again(what: &str, call: impl Fn() -> i64) -> i64 {
    loop {
        match call() {
            -1 if errno() == libc::EINTR => {}
            -1 => fail(&format!("{what}: {}", std::io::Error::last_os_error())),
            done => return done,
        }
    }
}

/// poll, ppoll, select and pselect on a pipe each, without a time; and poll with one that passes.
pub(crate) fn polls(crossing: &mut Crossing) {
    type Wait = fn(i32) -> i64;
    fn poll(fd: i32, limit_ms: i32) -> i64 {
        let mut polled = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: the struct lives through the call.
        unsafe { libc::poll(&raw mut polled, 1, limit_ms) }.into()
    }
    fn set(fd: i32) -> libc::fd_set {
        // SAFETY: the set is a plain bit mask, and the descriptor is small.
        unsafe {
            let mut set: libc::fd_set = std::mem::zeroed();
            libc::FD_SET(fd, &raw mut set);
            set
        }
    }
    let waits: [(libc::c_long, Wait); 4] = [
        (libc::SYS_poll, |fd| poll(fd, -1)),
        (libc::SYS_ppoll, |fd| {
            let mut polled = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let far = span(Duration::from_secs(1000));
            // SAFETY: the structs live through the call.
            unsafe { libc::ppoll(&raw mut polled, 1, &raw const far, ptr::null()) }.into()
        }),
        (libc::SYS_pselect6, |fd| {
            let (mut set, none) = (set(fd), ptr::null_mut());
            // SAFETY: as above.
            unsafe { libc::select(fd + 1, &raw mut set, none, none, ptr::null_mut()) }.into()
        }),
        (libc::SYS_pselect6, |fd| {
            let (mut set, none) = (set(fd), ptr::null_mut());
            let far = span(Duration::from_secs(1000));
            // SAFETY: as above.
            let got = unsafe {
                libc::pselect(fd + 1, &raw mut set, none, none, &raw const far, ptr::null())
            };
            got.into()
        }),
    ];
    let (quiet, _writer) = pipe();
    let fd = quiet.as_raw_fd();
    let passes = Worker::start(move || {
        let begun = Instant::now();
        let limit = Duration::from_millis(600);
        let left = || limit.saturating_sub(begun.elapsed()).as_millis() as i32 + 1;
        let got = again("poll", || poll(fd, left()));
        equal("what a poll whose time passes found", got, 0);
        must(begun.elapsed() >= limit, "it passed too early");
    });
    let waiting = waits.map(|(call, wait)| {
        let (mut reader, writer) = pipe();
        let worker = Worker::start(move || {
            let got = again("a poll", || wait(reader.as_raw_fd()));
            equal("descriptors that are ready", got, 1);
            let mut byte = [0];
            must(reader.read(&mut byte).is_ok_and(|got| got == 1), "nothing to read");
            equal("the byte", byte[0], 77);
        });
        worker.stands_in(call);
        (worker, writer)
    });
    crossing.cross();
    for (worker, mut writer) in waiting {
        if let Err(error) = writer.write_all(&[77]) {
            fail(&format!("write into a pipe of ours: {error}"));
        }
        worker.join();
    }
    passes.join();
}

/// epoll_wait and epoll_pwait, level and edge triggered, and for one event alone: registrations and their
/// data are as they were.
pub(crate) fn epolls(crossing: &mut Crossing) {
    let modes = [0, libc::EPOLLET, libc::EPOLLONESHOT];
    let waiting: Vec<_> = modes
        .iter()
        .zip(0u64..)
        .map(|(mode, number)| {
            // SAFETY: takes numbers.
            let epoll = opened(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) });
            let (mut reader, writer) = pipe();
            let data = 0xdada_0000_0000_0000 + number;
            let mut event = libc::epoll_event { events: (libc::EPOLLIN | mode) as u32, u64: data };
            let (add, fd) = (libc::EPOLL_CTL_ADD, reader.as_raw_fd());
            // SAFETY: reads the struct.
            let added = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), add, fd, &raw mut event) };
            equal("epoll_ctl", added, 0);
            let seen = Arc::new(Flag::new());
            let has_seen = Arc::clone(&seen);
            let worker = Worker::start(move || {
                for byte in [1, 2] {
                    let mut got = libc::epoll_event { events: 0, u64: 0 };
                    let at = &raw mut got;
                    let count = again("epoll_wait", || {
                        // SAFETY: fills one struct.
                        unsafe { libc::epoll_wait(epoll.as_raw_fd(), at, 1, -1) }.into()
                    });
                    let (events, of) = (got.events, got.u64);
                    equal("events", (count, events, of), (1, libc::EPOLLIN as u32, data));
                    let mut read = [0];
                    must(reader.read(&mut read).is_ok_and(|got| got == 1), "nothing to read");
                    equal("the byte", read[0], byte);
                    has_seen.raise();
                    if event.events & libc::EPOLLONESHOT as u32 != 0 {
                        let (change, fd) = (libc::EPOLL_CTL_MOD, reader.as_raw_fd());
                        // SAFETY: reads the struct.
                        unsafe { libc::epoll_ctl(epoll.as_raw_fd(), change, fd, &raw mut event) };
                    }
                }
            });
            worker.stands_in(libc::SYS_epoll_wait);
            (worker, writer, seen)
        })
        .collect();
    crossing.cross();
    for (_, writer, _) in &waiting {
        must((&*writer).write_all(&[1]).is_ok(), "write into a pipe of ours");
    }
    for (worker, mut writer, seen) in waiting {
        // Two bytes at once would be one event to who is told of edges.
        seen.wait();
        must(writer.write_all(&[2]).is_ok(), "write into a pipe of ours");
        worker.join();
    }
}

/// Reads that wait: of a pipe, an eventfd, a timer that is set and one that is not, and a pair of sockets.
pub(crate) fn reads(crossing: &mut Crossing) {
    // SAFETY: takes numbers.
    let (event, running, set) = unsafe {
        (
            opened(libc::eventfd(0, libc::EFD_CLOEXEC)),
            opened(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC)),
            opened(libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC)),
        )
    };
    let begun = Instant::now();
    arm(&running, Duration::from_millis(700));
    let (reader, mut writer) = pipe();
    let (one, mut other) =
        std::os::unix::net::UnixStream::pair().unwrap_or_else(|error| fail(&error));
    let reading = |file: &File, bytes: usize, wanted: u8| {
        let mut file = file.try_clone().unwrap_or_else(|error| fail(&error));
        let worker = Worker::start(move || {
            let mut got = [0; 8];
            // std's read_exact goes on where it is interrupted.
            if let Err(error) = file.read_exact(&mut got[..bytes]) {
                fail(&format!("a read that waits: {error}"));
            }
            equal("the first byte", got[0], wanted);
        });
        worker.stands_in(libc::SYS_read);
        worker
    };
    let socket = File::from(OwnedFd::from(one));
    let time = reading(&running, 8, 1);
    let workers = [
        reading(&reader, 5, b'h'),
        reading(&event, 8, 3),
        reading(&set, 8, 1),
        reading(&socket, 5, b'h'),
    ];
    crossing.cross();
    must(writer.write_all(b"hello").is_ok(), "write into a pipe of ours");
    must((&event).write_all(&3u64.to_ne_bytes()).is_ok(), "write into an eventfd");
    arm(&set, Duration::from_millis(20));
    must(other.write_all(b"hello").is_ok(), "write into a socket of ours");
    workers.into_iter().for_each(Worker::join);
    time.join();
    must(begun.elapsed() >= Duration::from_millis(699), "the timer was early");
}

fn arm(timer: &File, ahead: Duration) {
    let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let setting = libc::itimerspec { it_interval: none, it_value: span(ahead) };
    // SAFETY: reads the struct.
    let set =
        unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const setting, ptr::null_mut()) };
    equal("timerfd_settime", set, 0);
}

/// A write into a full pipe goes on, behind what was in the pipe.
pub(crate) fn writes(crossing: &mut Crossing) {
    const PAGE: usize = 4096;
    let (mut reader, mut writer) = pipe();
    // SAFETY: takes numbers.
    let room = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, PAGE) };
    equal("room in the pipe", room, PAGE as i32);
    let bytes: Arc<Vec<u8>> = Arc::new((0..5 * PAGE).map(|at| (at / 7) as u8).collect());
    let all = Arc::clone(&bytes);
    let worker = Worker::start(move || {
        if let Err(error) = writer.write_all(&all) {
            fail(&format!("a write that waits: {error}"));
        }
    });
    worker.stands_in(libc::SYS_write);
    crossing.cross();
    let mut got = Vec::new();
    must(reader.read_to_end(&mut got).is_ok(), "a pipe of ours cannot be read");
    must(got == *bytes, "the bytes of the pipe differ");
    worker.join();
}

/// Locks of files are their host's: a thread of the parent waits on, and one of a child on another host has
/// the lock, as nobody holds it there. FILE is there on both hosts.
pub(crate) fn file_locks(crossing: &mut Crossing) {
    let path = crossing.file().to_owned();
    let open = |path: &str| {
        let opened = File::options().read(true).write(true).open(path);
        opened.unwrap_or_else(|error| fail(&format!("{path}: {error}")))
    };
    // Another process holds both, as its output; it ends when its input does.
    let held = [open(&path), open(&path)];
    flock(&held[0], libc::LOCK_EX);
    equal("a lock by description", lock_description(&held[1]), 0);
    let [for_stdout, for_stderr] = held;
    let mut holder = Command::new("/bin/cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(for_stdout))
        .stderr(Stdio::from(for_stderr))
        .spawn()
        .unwrap_or_else(|error| fail(&error));
    let files = [open(&path), open(&path)];
    let [whole, described] = files;
    let workers = [
        (libc::SYS_flock, Worker::start(move || flock(&whole, libc::LOCK_EX))),
        (
            libc::SYS_fcntl,
            Worker::start(move || {
                let got = again("F_OFD_SETLKW", || lock_description(&described).into());
                equal("a lock by description", got, 0);
            }),
        ),
    ];
    for (call, worker) in &workers {
        worker.stands_in(*call);
    }
    if crossing.cross() == Side::Parent {
        std::thread::sleep(Duration::from_millis(50));
        // Closes its input first.
        must(holder.wait().is_ok(), "the holder does not end");
    } else {
        // It is the parent's, and nobody here could wait for it.
        std::mem::forget(holder);
    }
    workers.into_iter().for_each(|(_, worker)| worker.join());
}

fn flock(file: &File, operation: i32) {
    // SAFETY: takes numbers.
    let got = again("flock", || unsafe { libc::flock(file.as_raw_fd(), operation) }.into());
    equal("flock", got, 0);
}

/// F_OFD_SETLKW of the whole file.
fn lock_description(file: &File) -> i32 {
    // SAFETY: the struct is plain data; the call reads it.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as i16;
        libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &raw mut lock)
    }
}
