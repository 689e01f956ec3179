//! The steps that make one open file.

use crate::descriptor::carried::{Listening, PathWatch, TERMIOS_BYTES, Terminal};
use crate::descriptor::{CarriedFile, FileKind, Number};
use crate::resume::calls;
use crate::resume::file_calls;
use crate::resume::program::{Expect, Op};

/// What the kernel gives a pipe.
const PIPE_CAPACITY: u32 = 64 << 10;
const STDIO: u32 = 3;
/// Status flags that fcntl(2) sets, beside those that go with opening.
const SETTABLE: i32 = libc::O_NONBLOCK | libc::O_APPEND | libc::O_DIRECT | libc::O_NOATIME;
/// Flags of open(2) that a file that is opened again keeps: it is neither made nor emptied.
const KEPT: i32 = libc::O_ACCMODE
    | libc::O_APPEND
    | libc::O_DIRECT
    | libc::O_DIRECTORY
    | libc::O_NOATIME
    | libc::O_PATH
    | libc::O_SYNC
    | libc::O_DSYNC;

/// Makes files of a table.
pub(super) struct Maker<'a> {
    pub(super) files: &'a [CarriedFile],
    /// A number for an end that goes again.
    pub(super) spare: u32,
    /// Holds numbers until their files come: what is made would be given the lowest free one.
    pub(super) nothing: u32,
    /// Records that listen for good, and where their sockets are.
    pub(super) given: &'a [(u32, u32)],
    /// What has passed since timers were looked at, ns.
    pub(super) passed_ns: u64,
}

impl Maker<'_> {
    /// One record. The first end of a pair makes both.
    pub(super) fn make(&self, index: usize, ops: &mut Vec<Op>) {
        let file = &self.files[index];
        let first = file.numbers[0];
        let (fd, flags) = (first.fd, fd_flags(first.close_on_exec));
        match &file.kind {
            FileKind::Stdio { of } => ops.push(file_calls::dup3_flags(u32::from(*of), fd, flags)),
            FileKind::Closed(_) => return,
            FileKind::Path { path, position } => open_path(file, path, *position, ops),
            FileKind::Memory { name, position, content, seals } => {
                ops.push(file_calls::memfd_create(name, fd, flags));
                if !content.is_empty() {
                    ops.push(file_calls::pwrite(fd, content));
                }
                if *position != 0 {
                    ops.push(file_calls::lseek(fd, *position));
                }
                if *seals != 0 {
                    ops.push(file_calls::fcntl(fd, libc::F_ADD_SEALS, *seals, Expect::Ignored));
                }
            }
            FileKind::Pipe { other, .. }
            | FileKind::Packets { other, .. }
            | FileKind::Connection { other, .. } => {
                let other = other.map(|other| other as usize);
                if other.is_none_or(|other| other > index) {
                    self.make_pair(file, other.map(|other| &self.files[other]), ops);
                }
            }
            FileKind::Socket { domain, socket_type, protocol, connected_to } => {
                ops.push(file_calls::socket(*domain, *socket_type, *protocol, fd, flags, true));
                if let Some(address) = connected_to {
                    ops.push(file_calls::connect(fd, address));
                }
            }
            FileKind::Listener(listening) => self.listener(index, listening, ops),
            FileKind::Event { count, is_semaphore } => {
                // The kernel takes 32 bits to begin with.
                let initial = u32::try_from(*count);
                ops.push(file_calls::eventfd(initial.unwrap_or(0), *is_semaphore, fd, flags));
                if initial.is_err() {
                    ops.push(file_calls::write(fd, count.to_le_bytes().to_vec()));
                }
            }
            FileKind::Epoll { .. } | FileKind::EpollOfOthers { .. } => {
                ops.push(file_calls::epoll_create(fd, flags))
            }
            FileKind::Timer { clock, left_ns, interval_ns, ticks } => {
                ops.push(file_calls::timerfd_create(without_alarm(*clock), fd, flags));
                if *left_ns != 0 || *ticks > 0 {
                    let (left_ns, ticks) = after(*left_ns, *interval_ns, *ticks, self.passed_ns);
                    // One that has expired and was not read expires at once.
                    ops.push(file_calls::timerfd_settime(fd, left_ns.max(1), *interval_ns));
                    // As many steps whatever has passed: a step is told by its number.
                    ops.push(match ticks {
                        0 => Op::Store { addr: 0, bytes: Vec::new() },
                        ticks => file_calls::timerfd_set_ticks(fd, ticks),
                    });
                }
            }
            FileKind::Signals { mask } => ops.push(file_calls::signalfd(*mask, fd, flags)),
            FileKind::Inotify { .. } => ops.push(file_calls::inotify_init(fd, flags)),
            FileKind::Watching { watches, .. } => inotify(fd, flags, watches, ops),
            FileKind::OwnProcess => ops.push(file_calls::own_pidfd(fd, flags)),
            FileKind::ReadWritePipe { .. } => self.read_write_pipe(file, ops),
            FileKind::Terminal(terminal) => match terminal.master {
                None => self.terminal(fd, flags, terminal, ops),
                Some(_) => return,
            },
        }
        set_flags(file, ops);
        for number in &file.numbers[1..] {
            ops.push(file_calls::dup3_flags(fd, number.fd, fd_flags(number.close_on_exec)));
        }
    }

    /// Both ends of a pair, with what lies in it. An end that is nobody's is closed again.
    fn make_pair(&self, file: &CarriedFile, other: Option<&CarriedFile>, ops: &mut Vec<Op>) {
        let place = |file: &CarriedFile| (file.numbers[0].fd, file.numbers[0].close_on_exec);
        let (this, that) = (place(file), other.map_or((self.spare, true), place));
        if other.is_none() {
            ops.push(calls::dup3(self.nothing, self.spare));
        }
        match &file.kind {
            FileKind::Pipe { .. } | FileKind::Packets { .. } => {
                let writes = matches!(file.kind, FileKind::Pipe { writes: true, .. });
                let (reader, writer) = if writes { (that, this) } else { (this, that) };
                ops.push(file_calls::pipe([reader, writer]));
                let capacity = capacity(file).max(other.map_or(0, capacity));
                if !matches!(capacity, 0 | PIPE_CAPACITY) {
                    let set = libc::F_SETPIPE_SZ;
                    ops.push(file_calls::fcntl(writer.0, set, capacity, Expect::Ignored));
                }
            }
            FileKind::ReadWritePipe { .. } => {
                ops.push(file_calls::pipe([this, that]));
                if !matches!(capacity(file), 0 | PIPE_CAPACITY) {
                    let set = libc::F_SETPIPE_SZ;
                    ops.push(file_calls::fcntl(that.0, set, capacity(file), Expect::Ignored));
                }
            }
            FileKind::Connection { socket_type, .. } => {
                ops.push(file_calls::socketpair(*socket_type, [this, that]));
            }
            _ => {}
        }
        for (from, to, into) in [(Some(file), other, that.0), (other, Some(file), this.0)] {
            if let Some(from) = from {
                fill(from, to, into, ops);
            }
        }
        if other.is_none() {
            ops.push(calls::close(self.spare));
        }
    }

    /// A pipe that is opened once more, by way of /proc, to read and to write.
    fn read_write_pipe(&self, file: &CarriedFile, ops: &mut Vec<Op>) {
        let first = file.numbers[0];
        self.make_pair(file, None, ops);
        let path = format!("/proc/self/fd/{}", first.fd);
        let how = (libc::O_RDWR | libc::O_NONBLOCK).cast_unsigned();
        ops.push(file_calls::open_if_there(&path, how, first.fd, fd_flags(first.close_on_exec)));
    }

    /// The master of a new pseudo-terminal, if this host has such.
    fn terminal(&self, fd: u32, flags: u32, terminal: &Terminal, ops: &mut Vec<Op>) {
        let how = (libc::O_RDWR | libc::O_NOCTTY).cast_unsigned();
        ops.push(file_calls::open_if_there("/dev/ptmx", how, fd, flags));
        ops.push(file_calls::unlock_terminal(fd));
        if let Some((settings, size)) = terminal.settings.split_at_checked(TERMIOS_BYTES) {
            ops.push(file_calls::terminal_settings(fd, settings));
            ops.push(file_calls::terminal_size(fd, size));
        }
        if terminal.is_hung_up {
            // A slave that was open and is closed.
            ops.push(calls::dup3(self.nothing, self.spare));
            ops.push(file_calls::slave_of(fd, self.spare, 0));
            ops.push(calls::close(self.spare));
        }
    }

    /// Slaves of terminals, whose masters are there.
    pub(super) fn slaves(&self, ops: &mut Vec<Op>) {
        for file in self.files {
            let FileKind::Terminal(Terminal { master: Some(master), .. }) = &file.kind else {
                continue;
            };
            let (master, first) = (&self.files[*master as usize], file.numbers[0]);
            let flags = fd_flags(first.close_on_exec);
            ops.push(file_calls::slave_of(master.numbers[0].fd, first.fd, flags));
            set_flags(file, ops);
            for number in &file.numbers[1..] {
                let flags = fd_flags(number.close_on_exec);
                ops.push(file_calls::dup3_flags(first.fd, number.fd, flags));
            }
        }
    }

    /// Three steps, whichever it becomes.
    fn listener(&self, index: usize, listening: &Listening, ops: &mut Vec<Op>) {
        let file = &self.files[index];
        let (fd, flags) = (file.numbers[0].fd, fd_flags(file.numbers[0].close_on_exec));
        let given = self.given.iter().find(|(record, _)| *record as usize == index);
        if let Some((_, place)) = given {
            ops.push(file_calls::dup3_flags(*place, fd, flags));
            ops.push(calls::close(*place));
            let own = file.flags & SETTABLE.cast_unsigned();
            ops.push(file_calls::fcntl(fd, libc::F_SETFL, own, Expect::Success));
            return;
        }
        let kind = listening.socket_type;
        if listening.domain != libc::AF_UNIX.cast_unsigned()
            && kind == libc::SOCK_DGRAM.cast_unsigned()
        {
            // Its port is the kernel's choice, and nobody knows it.
            let (domain, protocol) = (listening.domain, listening.protocol);
            ops.push(file_calls::socket(domain, kind, protocol, fd, flags, true));
            let nothing = file_calls::fcntl(fd, libc::F_GETFD, 0, Expect::Ignored);
            ops.extend([nothing.clone(), nothing]);
            return;
        }
        // Nobody knows the name that the kernel makes up, so no connection ever comes.
        let unix = libc::AF_UNIX.cast_unsigned();
        let stream = libc::SOCK_STREAM.cast_unsigned();
        let kind = if listening.domain == unix { listening.socket_type } else { stream };
        ops.push(file_calls::socket(unix, kind, 0, fd, flags, false));
        let any = u16::try_from(libc::AF_UNIX).unwrap_or(1).to_ne_bytes().to_vec();
        ops.push(file_calls::bind(fd, any));
        ops.push(match listening.backlog {
            Some(backlog) => file_calls::listen(fd, backlog),
            None => file_calls::fcntl(fd, libc::F_GETFD, 0, Expect::Ignored),
        });
    }

    /// What epolls watch.
    pub(super) fn register(&self, ops: &mut Vec<Op>) {
        for file in self.files {
            for (watch, by) in file.kind.watches() {
                let leads = |to: u32| {
                    let is_it = |number: &Number| number.fd == to;
                    self.files.iter().find(|other| other.numbers.iter().any(is_it))
                };
                let expect = match leads(by).map(|file| &file.kind) {
                    // What the child was given may be a file, which nothing can watch.
                    None if by < STDIO => Expect::Ignored,
                    Some(
                        FileKind::Stdio { .. }
                        | FileKind::Path { .. }
                        | FileKind::Socket { .. }
                        | FileKind::Listener(_)
                        | FileKind::Terminal(_)
                        | FileKind::OwnProcess,
                    ) => Expect::Ignored,
                    None | Some(FileKind::Closed(_)) => continue,
                    Some(_) => Expect::Success,
                };
                let (epoll, number) = (file.numbers[0].fd, watch.fd);
                let add = file_calls::epoll_add(epoll, number, watch.events, watch.data, expect);
                if number == by {
                    ops.push(add);
                    continue;
                }
                // Registered by a number that is another file's, or nobody's: it is lent for the moment.
                let taken = leads(number)
                    .and_then(|file| file.numbers.iter().find(|known| known.fd == number).copied());
                let is_taken = taken.is_some() || number < STDIO;
                if is_taken {
                    ops.push(calls::dup3(number, self.spare));
                }
                ops.extend([file_calls::dup3_flags(by, number, 0), add]);
                if is_taken {
                    let flags = taken.map_or(0, |number| fd_flags(number.close_on_exec));
                    ops.push(file_calls::dup3_flags(self.spare, number, flags));
                    ops.push(calls::close(self.spare));
                } else {
                    ops.push(calls::close(number));
                }
            }
        }
    }
}

/// An inotify whose watches have the numbers that they had, in two rounds: those between are taken and let go, each of
/// which makes an event, and only when these are gone it is told what to watch for.
fn inotify(fd: u32, flags: u32, watches: &[PathWatch], ops: &mut Vec<Op>) {
    ops.push(file_calls::inotify_init(fd, flags));
    // Something that is not watched, and there in any root.
    let is_root_watched = watches.iter().any(|watch| watch.path == "/");
    let spare = if is_root_watched { "/dev/null" } else { "/" };
    let mut next = 1;
    for watch in watches {
        let between = watch.number - next;
        ops.push(Op::Watch { fd, path: watch.path.clone(), between, spare });
        next = watch.number + 1;
    }
    ops.extend(watches.iter().map(|watch| file_calls::inotify_add(fd, &watch.path, watch.mask)));
}

fn fd_flags(close_on_exec: bool) -> u32 {
    if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 }
}

/// What lies at `from` is written to its other end, by way of the number `into`.
fn fill(from: &CarriedFile, to: Option<&CarriedFile>, into: u32, ops: &mut Vec<Op>) {
    let content = content(from);
    if content.is_empty() {
        return;
    }
    let direct = libc::O_DIRECT.cast_unsigned();
    let writer_is_direct = to.is_some_and(|to| to.flags & direct != 0);
    let is_pipe = !matches!(from.kind, FileKind::Connection { .. });
    let one = [u32::try_from(content.len()).unwrap_or(u32::MAX)];
    let lengths = match &from.kind {
        FileKind::Packets { lengths, .. } => &lengths[..],
        _ if is_pipe && writer_is_direct => &one,
        _ => {
            ops.push(file_calls::write(into, content.to_vec()));
            return;
        }
    };
    let set = |flags: u32, ops: &mut Vec<Op>| {
        let flags = flags | libc::O_NONBLOCK.cast_unsigned();
        ops.push(file_calls::fcntl(into, libc::F_SETFL, flags, Expect::Success));
    };
    set(direct, ops);
    let mut rest = content;
    for length in lengths {
        let (packet, behind) = rest.split_at((*length as usize).min(rest.len()));
        ops.push(file_calls::write(into, packet.to_vec()));
        rest = behind;
    }
    set(0, ops);
}

/// What can be read at this end.
fn content(file: &CarriedFile) -> &[u8] {
    match &file.kind {
        FileKind::Pipe { content, .. }
        | FileKind::Packets { content, .. }
        | FileKind::ReadWritePipe { content, .. }
        | FileKind::Connection { content, .. } => content,
        _ => &[],
    }
}

fn capacity(file: &CarriedFile) -> u32 {
    match &file.kind {
        FileKind::Pipe { capacity, .. }
        | FileKind::Packets { capacity, .. }
        | FileKind::ReadWritePipe { capacity, .. } => *capacity,
        _ => 0,
    }
}

/// Waking a sleeping machine takes a capability that a child need not have.
fn without_alarm(clock: u32) -> u32 {
    match i32::try_from(clock) {
        Ok(libc::CLOCK_REALTIME_ALARM) => libc::CLOCK_REALTIME.cast_unsigned(),
        Ok(libc::CLOCK_BOOTTIME_ALARM) => libc::CLOCK_BOOTTIME.cast_unsigned(),
        _ => clock,
    }
}

/// A path of another host's may lead to a fifo here: opening one must not wait.
fn open_path(file: &CarriedFile, path: &str, position: u64, ops: &mut Vec<Op>) {
    let number = file.numbers[0];
    let kept = file.flags & KEPT.cast_unsigned();
    let is_place = kept & libc::O_PATH.cast_unsigned() != 0;
    // What was opened with O_PATH may be a link itself: its path leads to it without another one.
    let how = match is_place {
        true => libc::O_NOFOLLOW,
        false => libc::O_NONBLOCK | libc::O_NOCTTY,
    };
    let how = kept | how.cast_unsigned();
    ops.push(file_calls::open_if_there(path, how, number.fd, fd_flags(number.close_on_exec)));
    if !is_place {
        if position != 0 {
            ops.push(file_calls::lseek(number.fd, position));
        }
        let flags = file.flags & SETTABLE.cast_unsigned();
        ops.push(file_calls::fcntl(number.fd, libc::F_SETFL, flags, Expect::Ignored));
    }
}

fn set_flags(file: &CarriedFile, ops: &mut Vec<Op>) {
    let flags = file.flags & SETTABLE.cast_unsigned();
    // Pairs are made so that filling them never waits.
    let is_set = matches!(
        file.kind,
        FileKind::Pipe { .. }
            | FileKind::ReadWritePipe { .. }
            | FileKind::Connection { .. }
            | FileKind::Watching { .. }
            | FileKind::Packets { .. }
    );
    let is_own = matches!(file.kind, FileKind::Stdio { .. } | FileKind::Path { .. });
    let nonblocking = flags == libc::O_NONBLOCK.cast_unsigned();
    if !is_own && (flags != 0 || is_set) && !(is_set && nonblocking) {
        // A socket of a kind that this host has not is not there.
        let expect = match file.kind {
            FileKind::Socket { .. }
            | FileKind::Listener(_)
            | FileKind::Terminal(_)
            | FileKind::ReadWritePipe { .. }
            | FileKind::OwnProcess => Expect::Ignored,
            _ => Expect::Success,
        };
        ops.push(file_calls::fcntl(file.numbers[0].fd, libc::F_SETFL, flags, expect));
    }
}

/// What is left of a timer, and how often it has expired, when so much has passed.
fn after(left_ns: u64, interval_ns: u64, ticks: u64, passed_ns: u64) -> (u64, u64) {
    if left_ns == 0 || passed_ns < left_ns {
        return (left_ns.saturating_sub(passed_ns), ticks);
    }
    let late_ns = passed_ns - left_ns;
    match (late_ns.checked_div(interval_ns), late_ns.checked_rem(interval_ns)) {
        (Some(more), Some(since)) => (interval_ns - since, ticks.saturating_add(1 + more)),
        _ => (0, ticks.saturating_add(1)),
    }
}
