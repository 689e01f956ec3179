//! The seed's open files, where they are carried: what the kernel tells of each, and what lies in them.
//!
//! ```text
//! FILE [CONTENT] [SOCKET]   of each, by the parent: what it could change by going on
//!      ---- clone(2) ----
//! SAME_FILE                 by the seed: which numbers lead to one open file description
//! ```
//!
//! Nothing is taken out: pipes are looked at by tee(2), sockets by MSG_PEEK, files by an offset of our own.
//! As all of `seed`: raw system calls, no allocation.

use std::mem::zeroed;

use super::proc_files::{close, each_entry, open, read_file};
use super::proc_text::{Path, decimal, fdinfo};
use super::report::{ReportWriter, tag};
use super::seed::Refusal;
use crate::descriptor::carried::{TERMIOS_BYTES, WINSIZE_BYTES};
use crate::sys::rawcall::rawcall;

/// Bytes of one file's content that a report takes; what has more is told as too large.
const MAX_CONTENT: usize = 256 << 10;
/// Of the work area: names of /proc/self/fd.
const ENTRIES_BYTES: usize = 16 << 10;
/// Of the work area: what is remembered of each file for the second look.
const KNOWN_BYTES: usize = 24 << 10;
/// Packets in one pipe: each has a page of it, and who is not root has 1 MiB at most (pipe-max-size). Of more the borders
/// are lost.
const MAX_PACKETS: usize = 1024;
const KCMP_FILE: i32 = 0;
const KCMP_EPOLL_TFD: i32 = 7;
/// /dev/null and its relatives.
const MEMORY_MAJOR: u32 = 1;
/// F_WRLCK and F_UNLCK, as a `struct flock` has them.
const WRITE_LOCK: libc::c_short = 1;
const NO_LOCK: libc::c_short = 2;
const F_OFD_GETLK: i32 = 36;
const SIOCINQ: u64 = 0x541b;
const F_GETPIPE_SZ: i32 = 1032;
const F_SETPIPE_SZ: i32 = 1031;
const F_GET_SEALS: i32 = 1034;

/// Marks an epoll's number.
const EPOLL: u64 = 1 << 63;

/// What stands between the first look and the second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looked {
    count: usize,
}

/// A file as it is remembered: its number and what equals in all numbers of one description.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Known {
    /// With [`EPOLL`], if it is one.
    fd: u64,
    key: u64,
}

/// Records each file; `skip` are numbers of the seed's own. With it goes what lies in it.
///
/// # Errors
/// /proc is not there, or too many files are open.
pub(super) fn look(
    writer: &mut ReportWriter<'_>,
    work: &mut [u8],
    skip: i32,
) -> Result<Looked, Refusal> {
    let mut pipe = Aside::new();
    let directory = open(c"/proc/thread-self/fd".as_ptr().cast(), libc::O_DIRECTORY);
    if directory < 0 {
        return Err(Refusal::Unreadable { path: "/proc/self/fd", answer: directory });
    }
    let (entries, rest) = work.split_at_mut(ENTRIES_BYTES);
    let (known, text) = rest.split_at_mut(KNOWN_BYTES);
    let (mut count, mut outcome) = (0, Ok(()));
    let own = [directory, skip, pipe.reads, pipe.writes];
    let listed = each_entry(directory, entries, &mut |name| {
        let Some(fd) = decimal(name) else { return };
        if own.iter().any(|own| u64::try_from(*own).is_ok_and(|own| own == fd)) {
            return;
        }
        let before = writer.written();
        let (key, mark) = match describe(writer, text, fd, &mut pipe) {
            Ok(Some(found)) => found,
            // Another thread has closed it meanwhile, as none does where all stand.
            Ok(None) => return writer.go_back(before),
            Err(refusal) => return outcome = Err(refusal),
        };
        match known.get_mut(count * size_of::<Known>()..(count + 1) * size_of::<Known>()) {
            Some(place) => {
                place[..8].copy_from_slice(&(fd | mark).to_le_bytes());
                place[8..].copy_from_slice(&key.to_le_bytes());
                count += 1;
            }
            None => {
                outcome = Err(Refusal::Plain(
                    "more than 1,500 files are open: close some before prepare",
                ));
            }
        }
    });
    close(directory);
    pipe.close();
    listed.map_err(|answer| Refusal::Unreadable { path: "/proc/self/fd", answer })?;
    outcome.map(|()| Looked { count })
}

/// Records which numbers lead to one open file description. Where the kernel does not tell (a seccomp filter),
/// each number has its own.
pub(super) fn compare(writer: &mut ReportWriter<'_>, work: &[u8], looked: &Looked) {
    let known = |at: usize| {
        let from = ENTRIES_BYTES + at * size_of::<Known>();
        let word = |at: usize| {
            let bytes = work.get(at..at + 8).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        Known { fd: word(from) & !EPOLL, key: word(from + 8) }
    };
    // SAFETY: takes nothing.
    let own = unsafe { rawcall!(libc::SYS_getpid) };
    for at in 1..looked.count {
        let this = known(at);
        let same = (0..at).map(known).find(|other| {
            // SAFETY: kcmp only compares.
            other.key == this.key
                && unsafe { rawcall!(libc::SYS_kcmp, own, own, KCMP_FILE, this.fd, other.fd) } == 0
        });
        if let Some(other) = same {
            writer.record(tag::SAME_FILE, &[this.fd, other.fd], &[]);
        }
    }
}

/// `struct kcmp_epoll_slot`.
#[repr(C)]
struct EpollSlot {
    epoll: u32,
    number: u32,
    /// Of those that were registered by this number.
    nth: u32,
}

/// Records by which numbers files are open that epolls watch by others: the number that a file was registered by may have
/// been closed since, or lead elsewhere, while a duplicate keeps it open. `text` is for what the kernel tells of an epoll; of
/// one that has more watches than there is room for, what is behind is not looked at.
pub(super) fn watched_by_others(writer: &mut ReportWriter<'_>, work: &mut [u8], looked: &Looked) {
    let (entries, rest) = work.split_at_mut(ENTRIES_BYTES);
    let (known, text) = rest.split_at_mut(KNOWN_BYTES);
    let word = |at: usize| {
        let bytes = known.get(at..at + 8).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let files = || (0..looked.count).map(|at| word(at * size_of::<Known>()));
    for epoll in files().filter(|file| file & EPOLL != 0).map(|file| file & !EPOLL) {
        let path = Path::new(b"/proc/thread-self/fdinfo/", epoll, b"");
        let len = read_file(path.as_ptr(), text).unwrap_or(0);
        let (numbers, _) = entries.as_chunks_mut::<4>();
        let mut count = 0;
        let lines = text[..len].split(|byte| *byte == b'\n').filter_map(watch_number);
        for (place, number) in numbers.iter_mut().zip(lines) {
            *place = u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
            count += 1;
        }
        for (at, number) in numbers[..count].iter().enumerate() {
            let nth = numbers[..at].iter().filter(|before| *before == number).count() as u64;
            let number = u64::from(u32::from_le_bytes(*number));
            let leads = |fd: u64| is_watched(fd, epoll, number, nth);
            let by = match leads(number) {
                true => None,
                false => files().map(|file| file & !EPOLL).find(|fd| leads(*fd)),
            };
            if let Some(by) = by {
                writer.record(tag::WATCHED_BY, &[epoll, number, nth, by], &[]);
            }
        }
    }
}

/// The number in a line of an epoll's fdinfo.
fn watch_number(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"tfd:")?.trim_ascii_start();
    decimal(rest.split(|byte| *byte == b' ').next()?)
}

/// Whether `fd` is open on the file that the epoll watches by `number`, the `nth` of that number.
fn is_watched(fd: u64, epoll: u64, number: u64, nth: u64) -> bool {
    let word = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let slot = EpollSlot { epoll: word(epoll), number: word(number), nth: word(nth) };
    // SAFETY: kcmp only compares, and reads the slot.
    let answer = unsafe {
        let own = rawcall!(libc::SYS_getpid);
        rawcall!(libc::SYS_kcmp, own, own, KCMP_EPOLL_TFD, fd, &raw const slot)
    };
    answer == 0
}

/// All records of one file; answers what equals in all numbers of its description, and [`EPOLL`] or 0; `None` if it is not
/// open any more.
fn describe(
    writer: &mut ReportWriter<'_>,
    text: &mut [u8],
    fd: u64,
    pipe: &mut Aside,
) -> Result<Option<(u64, u64)>, Refusal> {
    let stat = stat(fd);
    // SAFETY: fcntl of this command takes and gives plain numbers.
    let flags_of_fd = || unsafe { rawcall!(libc::SYS_fcntl, fd, libc::F_GETFD) };
    let fd_flags = flags_of_fd();
    let kind = stat.st_mode & libc::S_IFMT;
    let command = if kind == libc::S_IFIFO { F_GETPIPE_SZ } else { F_GET_SEALS };
    let extra = match kind {
        // SAFETY: as above.
        libc::S_IFIFO | libc::S_IFREG => unsafe { rawcall!(libc::SYS_fcntl, fd, command) },
        _ => 0,
    };
    let unlinked = kind == libc::S_IFREG && stat.st_nlink == 0;
    let mut numbers = [
        fd,
        u64::from(stat.st_mode),
        stat.st_dev,
        stat.st_ino,
        stat.st_size.cast_unsigned(),
        stat.st_rdev,
        u64::from(fd_flags & libc::FD_CLOEXEC as isize != 0),
        u64::try_from(extra).unwrap_or(0),
        u64::from(unlinked),
    ];
    let (position, flags) = info(writer, fd, &mut numbers)?;
    let path = Path::new(b"/proc/thread-self/fd/", fd, b"");
    // SAFETY: the kernel writes at most `text.len()` bytes there.
    let link =
        unsafe { rawcall!(libc::SYS_readlink, path.as_ptr(), text.as_mut_ptr(), text.len()) };
    let link = &text[..usize::try_from(link).unwrap_or(0)];
    writer.record(tag::OPEN_FILE, &[fd, flags, position], link);
    let mark = if link == b"anon_inode:[eventpoll]" { EPOLL } else { 0 };
    // An inotify is of no kind at all; its events can only be taken.
    if link == b"anon_inode:inotify" {
        let unread = readable(fd);
        if unread > 0 {
            writer.record(tag::CONTENT, &[fd, unread, 0], &[]);
        }
    }
    match kind {
        libc::S_IFIFO if flags & u64::from(libc::O_WRONLY.cast_unsigned()) == 0 => {
            pipe_content(writer, fd, extra, pipe);
        }
        libc::S_IFSOCK => super::carried_sockets::describe(writer, text, fd, stat.st_ino),
        libc::S_IFREG if unlinked => file_content(writer, fd, flags, stat.st_size),
        _ => {}
    }
    if kind == libc::S_IFCHR && libc::major(stat.st_rdev) != MEMORY_MAJOR {
        terminal(writer, fd);
    }
    // Of one description all of these are equal, whoever moves its position meanwhile; of two, seldom.
    let flags = flags & !u64::from(libc::O_CLOEXEC.cast_unsigned());
    let key = stat.st_ino ^ stat.st_dev.rotate_left(20) ^ flags.rotate_left(40);
    Ok((flags_of_fd() >= 0).then_some((key, mark)))
}

/// What the kernel knows of a file without asking its server, which may be out of reach, or a thread of this process that
/// stands; all zero if it is not open.
fn stat(fd: u64) -> libc::stat {
    let how = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the kernel writes to these structs, for which all zero is a value.
    unsafe {
        let (mut stat, mut found): (libc::stat, libc::statx) = (zeroed(), zeroed());
        let wanted = libc::STATX_BASIC_STATS;
        let (at, into) = (c"".as_ptr(), &raw mut found);
        if rawcall!(libc::SYS_statx, fd, at, how, wanted, into) != 0 {
            // A filter that does not know the call.
            rawcall!(libc::SYS_fstat, fd, &raw mut stat);
            return stat;
        }
        stat.st_mode = found.stx_mode.into();
        stat.st_nlink = found.stx_nlink.into();
        stat.st_ino = found.stx_ino;
        stat.st_size = found.stx_size.cast_signed();
        stat.st_dev = libc::makedev(found.stx_dev_major, found.stx_dev_minor);
        stat.st_rdev = libc::makedev(found.stx_rdev_major, found.stx_rdev_minor);
        stat
    }
}

/// Records `numbers` with the text of fdinfo, which has a line for each watch of an epoll: it is read into the
/// report itself, which has more room than anything else here. Answers position and flags.
fn info(
    writer: &mut ReportWriter<'_>,
    fd: u64,
    numbers: &mut [u64],
) -> Result<(u64, u64), Refusal> {
    let (mut found, mut outcome) = ((0, 0), Ok(()));
    writer.record_filled(tag::FILE, numbers, &mut |_, room| {
        let path = Path::new(b"/proc/thread-self/fdinfo/", fd, b"");
        match read_file(path.as_ptr(), room) {
            Ok(len) => {
                found = fdinfo(&room[..len]);
                if len == room.len() {
                    outcome = Err(Refusal::TooLong { fd });
                }
                len
            }
            // A sandbox without it (gVisor): flags are unknown.
            Err(answer) if answer == -libc::ENOENT => 0,
            Err(answer) => {
                outcome = Err(Refusal::Unreadable { path: "/proc/self/fdinfo", answer });
                0
            }
        }
    });
    outcome.map(|()| found)
}

/// Settings and size, of a terminal.
fn terminal(writer: &mut ReportWriter<'_>, fd: u64) {
    let mut bytes = [0u8; TERMIOS_BYTES + WINSIZE_BYTES];
    let (settings, size) = bytes.split_at_mut(TERMIOS_BYTES);
    // SAFETY: the kernel writes a termios and a winsize, whose sizes these are.
    let is_terminal = unsafe {
        rawcall!(libc::SYS_ioctl, fd, libc::TCGETS, settings.as_mut_ptr()) == 0
            && rawcall!(libc::SYS_ioctl, fd, libc::TIOCGWINSZ, size.as_mut_ptr()) == 0
    };
    if is_terminal {
        writer.record(tag::TERMINAL, &[fd], &bytes);
    }
}

/// Whether anybody holds a lock of fcntl(2) on the file, this process included.
fn is_locked(fd: u64) -> bool {
    // SAFETY: a `flock` of zeros is the whole file; the kernel writes to it alone.
    unsafe {
        let mut held: libc::flock = zeroed();
        held.l_type = WRITE_LOCK;
        let answer = rawcall!(libc::SYS_fcntl, fd, F_OFD_GETLK, &raw mut held);
        answer != 0 || held.l_type != NO_LOCK
    }
}

/// What lies in the pipe that `fd` reads from.
fn pipe_content(writer: &mut ReportWriter<'_>, fd: u64, capacity: isize, aside: &mut Aside) {
    let total = readable(fd);
    if total == 0 {
        return;
    }
    writer.record_filled(tag::CONTENT, &mut [fd, total, 0], &mut |numbers, room| {
        if total > MAX_CONTENT as u64 || !aside.open(capacity) {
            return 0;
        }
        let (len, flags) = (total, libc::SPLICE_F_NONBLOCK);
        // SAFETY: tee(2) takes plain numbers.
        let copied = unsafe { rawcall!(libc::SYS_tee, fd, aside.writes, len, flags) };
        let mut packets = Packets { lengths: [0; MAX_PACKETS], count: 0 };
        let len = aside.drain(usize::try_from(copied).unwrap_or(0), room, &mut packets);
        let behind = room.get_mut(len..).and_then(|room| room.get_mut(..4 * packets.count));
        // One read takes all that is no packet.
        let Some(behind) = behind.filter(|_| (2..=MAX_PACKETS).contains(&packets.count)) else {
            return len;
        };
        for (place, length) in behind.chunks_exact_mut(4).zip(packets.lengths) {
            place.copy_from_slice(&length.to_le_bytes());
        }
        numbers[2] = (packets.count as u64) << 1;
        len + behind.len()
    });
}

/// The bytes of a file without a name. One that this number does not read from is opened once more, unless it is locked: a
/// process that closes any number of a file gives up its locks of fcntl(2) on it.
fn file_content(writer: &mut ReportWriter<'_>, fd: u64, flags: u64, size: i64) {
    let flags = i32::try_from(flags).unwrap_or(libc::O_PATH);
    let reads =
        flags & libc::O_ACCMODE != libc::O_WRONLY && flags & (libc::O_DIRECT | libc::O_PATH) == 0;
    let total = u64::try_from(size).unwrap_or(0);
    writer.record_filled(tag::CONTENT, &mut [fd, total, 0], &mut |_, room| {
        let Some(wanted) =
            usize::try_from(total).ok().filter(|size| *size <= MAX_CONTENT.min(room.len()))
        else {
            return 0;
        };
        // Its offset is left as it is.
        let mut read = |file: u64| {
            fill(&mut room[..wanted], &mut |room, at| {
                // SAFETY: the kernel writes at most the room's length there.
                unsafe { rawcall!(libc::SYS_pread64, file, room.as_mut_ptr(), room.len(), at) }
            })
        };
        if reads {
            return read(fd);
        }
        if is_locked(fd) {
            return 0;
        }
        let file = open(Path::new(b"/proc/thread-self/fd/", fd, b"").as_ptr(), 0);
        let len = u64::try_from(file).map_or(0, read);
        close(file);
        len
    });
}

/// FIONREAD.
pub(super) fn readable(fd: u64) -> u64 {
    let mut bytes = 0i32;
    // SAFETY: the kernel writes an int.
    let answer = unsafe { rawcall!(libc::SYS_ioctl, fd, SIOCINQ, &raw mut bytes) };
    if answer == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Reads until the room is full or nothing comes; `read` is given the room left and what was read before.
fn fill(room: &mut [u8], read: &mut dyn FnMut(&mut [u8], usize) -> isize) -> usize {
    let mut len = 0;
    while let Some(left) = room.get_mut(len..).filter(|left| !left.is_empty()) {
        match usize::try_from(read(left, len)) {
            Ok(got @ 1..) => len += got,
            _ => break,
        }
    }
    len
}

/// What may be peeked of a stream, at most.
pub(super) fn most(room: &mut [u8]) -> &mut [u8] {
    let len = room.len().min(MAX_CONTENT);
    &mut room[..len]
}

/// What each read of a pipe gave: of packets (O_DIRECT) one at a time.
struct Packets {
    lengths: [u32; MAX_PACKETS],
    count: usize,
}

/// A pipe of the seed's own, that another one's content is copied through.
#[derive(Debug)]
struct Aside {
    reads: i32,
    writes: i32,
}

impl Aside {
    /// It is opened at once: so its numbers are known to whoever lists.
    fn new() -> Self {
        let mut ends = [-1i32; 2];
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the kernel writes two ints.
        unsafe { rawcall!(libc::SYS_pipe2, ends.as_mut_ptr(), flags) };
        Aside { reads: ends[0], writes: ends[1] }
    }

    /// Makes it as large as the one that is looked at.
    fn open(&mut self, capacity: isize) -> bool {
        // SAFETY: plain numbers.
        unsafe { rawcall!(libc::SYS_fcntl, self.writes, F_SETPIPE_SZ, capacity) };
        self.writes >= 0
    }

    /// Empties it.
    fn drain(&mut self, len: usize, room: &mut [u8], packets: &mut Packets) -> usize {
        let len = len.min(room.len());
        fill(&mut room[..len], &mut |room, _| {
            // SAFETY: the kernel writes at most the room's length there.
            let got =
                unsafe { rawcall!(libc::SYS_read, self.reads, room.as_mut_ptr(), room.len()) };
            if let Some(place) = packets.lengths.get_mut(packets.count) {
                *place = u32::try_from(got).unwrap_or(0);
            }
            packets.count += usize::from(got > 0);
            got
        })
    }

    fn close(self) {
        close(self.reads);
        close(self.writes);
    }
}
