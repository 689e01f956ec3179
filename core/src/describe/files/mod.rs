//! A seed's open files, as its report tells of them -> what children have of them.
//!
//! Numbers that lead to one open file description become one record. A pipe or a connection whose two ends are
//! both the seed's own is made again; of one that led elsewhere the child has an end whose other one is gone.

mod fdinfo;
mod holders;
pub(super) mod losses;
mod watched;

use std::collections::HashMap;

use super::DescribeError;
use crate::descriptor::carried::{Listening, LostContent, NotCarried, Terminal};
use crate::descriptor::{CarriedFile, CarriedFiles, FileKind, Number, OpenFile};
use crate::prepare::reported::{ReportedContent, ReportedFile, ReportedSocket, socket_bit};

pub(super) use watched::Paths;

const STDIO: u32 = 3;
/// Of a file without a name that a child has: memfd_create(2) takes 249.
const MAX_NAME_BYTES: usize = 200;
/// Linux's numbers of devices that are the same everywhere: major 1.
const MEMORY_DEVICES: [(u64, &str); 5] =
    [(3, "null"), (5, "zero"), (7, "full"), (8, "random"), (9, "urandom")];
/// Majors of terminals: virtual consoles and /dev/tty, and pseudo-terminals.
const TERMINALS: [u64; 10] = [4, 5, 136, 137, 138, 139, 140, 141, 142, 143];
/// How /proc marks what has no name any more.
pub(super) const DELETED: &str = " (deleted)";
/// /dev/ptmx.
const PTMX: (u32, u32) = (5, 2);

/// What children have of these files.
///
/// # Errors
/// `Refused`, with the descriptor that a process cannot be carried with.
pub(super) fn carried(
    files: &[ReportedFile],
    open: &[OpenFile],
    pid: u32,
    paths: &Paths<'_>,
) -> Result<CarriedFiles, DescribeError> {
    let open: HashMap<u32, &OpenFile> = open.iter().map(|file| (file.fd, file)).collect();
    let mut groups = grouped(files, &open);
    groups.sort_by_key(|group| group.numbers.first().map(|number| number.fd));
    let stdio: Vec<Group<'_>> =
        groups.iter().filter(|group| group.stdio().is_some()).cloned().collect();
    let mut records = Vec::new();
    let mut ends = Ends::default();
    for group in groups {
        let numbers: Vec<Number> =
            group.numbers.iter().filter(|number| number.fd >= STDIO).copied().collect();
        let Some(first) = numbers.first() else { continue };
        if let Some(index) = ends.another_name(&group) {
            records_numbers(&mut records, index).extend(numbers);
            continue;
        }
        let index = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let kind = group
            .kind(&stdio, files, pid, paths)
            .map_err(|what| DescribeError::Refused(format!("descriptor {}, {what}", first.fd)))?;
        ends.note(&group, &kind, index);
        records.push(CarriedFile { numbers, flags: group.open.flags & !CLOSE_ON_EXEC, kind });
    }
    ends.join(&mut records);
    CarriedFiles::new(records).map_err(DescribeError::Refused)
}

const CLOSE_ON_EXEC: u32 = libc::O_CLOEXEC.cast_unsigned();
const ACCESS: u32 = libc::O_ACCMODE.cast_unsigned();

fn records_numbers(records: &mut [CarriedFile], index: u32) -> &mut Vec<Number> {
    &mut records[index as usize].numbers
}

/// One open file description.
#[derive(Clone, Debug)]
struct Group<'a> {
    numbers: Vec<Number>,
    file: &'a ReportedFile,
    open: &'a OpenFile,
}

fn grouped<'a>(files: &'a [ReportedFile], open: &HashMap<u32, &'a OpenFile>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut of: HashMap<u32, usize> = HashMap::new();
    for file in files {
        let Some(entry) = open.get(&file.fd) else { continue };
        let number = Number { fd: file.fd, close_on_exec: file.close_on_exec };
        let at = match file.same_as.and_then(|lower| of.get(&lower)) {
            Some(at) => *at,
            None => {
                groups.push(Group { numbers: Vec::new(), file, open: entry });
                groups.len() - 1
            }
        };
        groups[at].numbers.push(number);
        of.insert(file.fd, at);
    }
    for group in &mut groups {
        group.numbers.sort_by_key(|number| number.fd);
    }
    groups
}

impl Group<'_> {
    /// The lowest of 0, 1 and 2 that leads here.
    fn stdio(&self) -> Option<u8> {
        let first = self.numbers.first()?.fd;
        (first < STDIO).then_some(u8::try_from(first).unwrap_or(0))
    }

    fn access(&self) -> u32 {
        self.open.flags & ACCESS
    }

    /// What it is, and with it what a child gets.
    fn kind(
        &self,
        stdio: &[Group<'_>],
        files: &[ReportedFile],
        pid: u32,
        paths: &Paths<'_>,
    ) -> Result<FileKind, String> {
        if let Some(of) = self.stdio() {
            return Ok(FileKind::Stdio { of });
        }
        let info = &self.file.info;
        let of_kind = self.file.mode & libc::S_IFMT;
        if self.open.flags & libc::O_PATH.cast_unsigned() != 0 {
            return Ok(self.place());
        }
        if self.open.link == "anon_inode:inotify" {
            let unread = self.file.content.as_ref().map_or(0, |content| content.total);
            return Ok(paths.inotify(info, unread));
        }
        if let Some(name) = self.open.link.strip_prefix("anon_inode:") {
            let leads = |fd: u32, inode: u64| {
                files.iter().any(|file| file.fd == fd && file.dev_ino.1 == inode)
            };
            let by_another = |fd: u32, nth: u32| {
                let all = &self.file.watched_by;
                all.iter().find(|(number, of, _)| (*number, *of) == (fd, nth)).map(|(_, _, by)| *by)
            };
            return match name.trim_matches(['[', ']']) {
                "eventpoll" => Ok(fdinfo::epoll(info, &leads, &by_another)),
                _ => Ok(anonymous(name, info, pid)),
            };
        }
        if self.open.link.starts_with("pidfd:") {
            return Ok(fdinfo::process(info, pid));
        }
        let same = |other: &&Group<'_>| {
            other.file.dev_ino == self.file.dev_ino && other.access() == self.access()
        };
        Ok(match of_kind {
            libc::S_IFIFO => match stdio.iter().find(same).and_then(Group::stdio) {
                Some(of) => FileKind::Stdio { of },
                None => self.pipe()?,
            },
            libc::S_IFSOCK => match stdio.iter().find(same).and_then(Group::stdio) {
                Some(of) => FileKind::Stdio { of },
                None => self.socket()?,
            },
            libc::S_IFCHR => self.device(stdio),
            libc::S_IFREG if self.file.is_unlinked => self.memory(),
            libc::S_IFDIR if self.open.link.ends_with(DELETED) => {
                FileKind::Closed(NotCarried::Deleted)
            }
            libc::S_IFREG | libc::S_IFDIR if self.open.link.starts_with('/') => self.path(pid),
            _ => FileKind::Closed(NotCarried::Unknown),
        })
    }

    /// Opened with O_PATH: of a file without a path that can be opened there is nothing.
    fn place(&self) -> FileKind {
        let link = &self.open.link;
        match link.starts_with('/') && !link.ends_with(DELETED) {
            true => FileKind::Path { path: link.clone(), position: 0 },
            false => FileKind::Closed(NotCarried::Deleted),
        }
    }

    fn pipe(&self) -> Result<FileKind, String> {
        let content = whole(self.file.content.as_ref(), "a pipe")?;
        let (capacity, other) = (self.file.extra, None);
        Ok(match i32::try_from(self.access()) {
            Ok(libc::O_WRONLY) => FileKind::Pipe { writes: true, other, capacity, content },
            Ok(libc::O_RDONLY) => match self.file.content.as_ref().map(|it| it.packets.clone()) {
                Some(lengths) if !lengths.is_empty() => {
                    FileKind::Packets { other, capacity, content, lengths }
                }
                _ => FileKind::Pipe { writes: false, other, capacity, content },
            },
            _ => FileKind::ReadWritePipe { capacity, content },
        })
    }

    fn device(&self, stdio: &[Group<'_>]) -> FileKind {
        let (major, minor) = (libc::major(self.file.device), libc::minor(self.file.device));
        let known = MEMORY_DEVICES.iter().find(|(number, _)| *number == u64::from(minor));
        if major == 1
            && let Some((_, name)) = known
        {
            return FileKind::Path { path: format!("/dev/{name}"), position: 0 };
        }
        if (major, minor) == PTMX {
            let settings = self.file.terminal.clone().unwrap_or_default();
            // Ends::join finds its slave.
            return FileKind::Terminal(Terminal { master: None, is_hung_up: true, settings });
        }
        if !TERMINALS.contains(&u64::from(major)) {
            return FileKind::Closed(NotCarried::Unknown);
        }
        let same = stdio.iter().find(|other| other.file.device == self.file.device);
        let by_access = u8::from(self.access() != libc::O_RDONLY.cast_unsigned());
        FileKind::Stdio { of: same.and_then(Group::stdio).unwrap_or(by_access) }
    }

    fn memory(&self) -> FileKind {
        let content = self.file.content.clone().unwrap_or_default();
        if (content.bytes.len() as u64) < content.total {
            return FileKind::Closed(NotCarried::TooLarge);
        }
        let name = self.open.link.trim_end_matches(DELETED);
        let name = name.rsplit(['/', ':']).next().filter(|name| !name.is_empty());
        let name = cut(name.unwrap_or("unnamed"), MAX_NAME_BYTES).to_owned();
        let (content, seals) = (content.bytes, self.file.extra);
        FileKind::Memory { name, position: self.open.position, content, seals }
    }

    /// A path below the seed's own /proc/PID is the child's own there.
    fn path(&self, pid: u32) -> FileKind {
        let link = &self.open.link;
        let path = match link.strip_prefix(&format!("/proc/{pid}/")) {
            Some(rest) => format!("/proc/self/{rest}"),
            None => link.clone(),
        };
        FileKind::Path { path, position: self.open.position }
    }

    fn socket(&self) -> Result<FileKind, String> {
        let none = ReportedSocket::default();
        let socket = self.file.socket.as_ref().unwrap_or(&none);
        let domain = i32::try_from(socket.domain).unwrap_or(0);
        let is_stream = socket.socket_type == libc::SOCK_STREAM.cast_unsigned();
        let is_datagram = socket.socket_type == libc::SOCK_DGRAM.cast_unsigned();
        if socket.has(socket_bit::LISTENS) {
            return Ok(FileKind::Listener(listening(socket)));
        }
        let new = |connected_to| FileKind::Socket {
            domain: socket.domain,
            socket_type: socket.socket_type,
            protocol: socket.protocol,
            connected_to,
        };
        let is_connected = socket.has(socket_bit::CONNECTED);
        let is_inet = matches!(domain, libc::AF_INET | libc::AF_INET6);
        if is_inet && is_datagram && !is_connected && has_name(socket) {
            return Ok(FileKind::Listener(listening(socket)));
        }
        if is_inet && is_datagram {
            return Ok(new(is_connected.then(|| socket.peer.clone())));
        }
        if !is_connected {
            let is_bound = has_name(socket);
            match is_stream || domain == libc::AF_UNIX {
                true if is_bound && (!is_inet || socket.has(socket_bit::IDLE)) => {
                    return Ok(FileKind::Listener(listening(socket)));
                }
                // It waits for its peer, or has lost it.
                true if is_inet && is_bound => {}
                _ => return Ok(new(None)),
            }
        }
        let lost = match &self.file.content {
            Some(content) if content.has_descriptors => Some(LostContent::Descriptors),
            Some(_) if !is_stream => Some(LostContent::Messages),
            _ => None,
        };
        let content = match lost {
            None => whole(self.file.content.as_ref(), "a socket")?,
            Some(_) => Vec::new(),
        };
        let socket_type = match domain {
            libc::AF_UNIX => socket.socket_type,
            _ => libc::SOCK_STREAM.cast_unsigned(),
        };
        Ok(FileKind::Connection { socket_type, other: None, content, lost })
    }
}

/// As much of `text` as goes into `max_bytes`.
fn cut(text: &str, max_bytes: usize) -> &str {
    let ends = text.char_indices().map(|(at, character)| at + character.len_utf8());
    &text[..ends.take_while(|end| *end <= max_bytes).last().unwrap_or(0)]
}

/// Whether it was bound: to a port, or to a path.
fn has_name(socket: &ReportedSocket) -> bool {
    match i32::try_from(socket.domain) {
        Ok(libc::AF_INET | libc::AF_INET6) => {
            socket.name.get(2..4).is_some_and(|port| port != [0, 0])
        }
        Ok(libc::AF_UNIX) => socket.name.len() > 2,
        _ => false,
    }
}

fn listening(socket: &ReportedSocket) -> Listening {
    /// Where the kernel does not tell: its own limit (somaxconn).
    const BACKLOG: u32 = 4096;
    Listening {
        domain: socket.domain,
        socket_type: socket.socket_type,
        protocol: socket.protocol,
        address: socket.name.clone(),
        backlog: socket.has(socket_bit::LISTENS).then_some(match socket.backlog {
            0 => BACKLOG,
            known => known,
        }),
        reuse_address: socket.has(socket_bit::REUSE_ADDRESS),
        reuse_port: socket.has(socket_bit::REUSE_PORT),
        v6_only: socket.has(socket_bit::V6_ONLY),
        no_delay: socket.has(socket_bit::NO_DELAY),
        keep_alive: socket.has(socket_bit::KEEP_ALIVE),
    }
}

fn whole(content: Option<&ReportedContent>, what: &str) -> Result<Vec<u8>, String> {
    let Some(content) = content else { return Ok(Vec::new()) };
    if (content.bytes.len() as u64) < content.total {
        return Err(format!(
            "{what} that holds {} bytes, more than travel: read them before prepare",
            content.total
        ));
    }
    Ok(content.bytes.clone())
}

fn anonymous(name: &str, info: &str, pid: u32) -> FileKind {
    let is = |what: &str| name.trim_matches(['[', ']']) == what;
    match name {
        _ if is("eventfd") => fdinfo::event(info),
        _ if is("timerfd") => fdinfo::timer(info),
        _ if is("signalfd") => fdinfo::signals(info),
        _ if is("pidfd") => fdinfo::process(info, pid),
        _ if is("userfaultfd") => FileKind::Closed(NotCarried::Userfaultfd),
        _ if is("perf_event") => FileKind::Closed(NotCarried::Perf),
        _ if name.contains("bpf") => FileKind::Closed(NotCarried::Bpf),
        _ if is("io_uring") => FileKind::Closed(NotCarried::IoUring),
        _ => FileKind::Closed(NotCarried::Unknown),
    }
}

/// Which records are ends of one pipe or connection.
#[derive(Debug, Default)]
struct Ends {
    /// By device and inode, and whether one writes.
    pipes: HashMap<((u64, u64), bool), u32>,
    /// By inode; the peer's inode behind it.
    sockets: HashMap<u64, (u32, u64)>,
    /// Masters of pseudo-terminals, by their numbers.
    masters: HashMap<u32, u32>,
    /// What may be a slave, and the number of its master.
    slaves: Vec<(u32, u32)>,
}

impl Ends {
    /// The record that is the same end of the same pipe, opened anew by way of /proc.
    fn another_name(&self, group: &Group<'_>) -> Option<u32> {
        if group.stdio().is_some() || group.file.mode & libc::S_IFMT != libc::S_IFIFO {
            return None;
        }
        let writes = group.access() == libc::O_WRONLY.cast_unsigned();
        self.pipes.get(&(group.file.dev_ino, writes)).copied()
    }

    fn note(&mut self, group: &Group<'_>, kind: &FileKind, index: u32) {
        match kind {
            FileKind::Packets { .. } => {
                self.pipes.insert((group.file.dev_ino, false), index);
            }
            FileKind::Pipe { writes, .. } => {
                self.pipes.insert((group.file.dev_ino, *writes), index);
            }
            FileKind::Connection { .. } => {
                let peer = group.file.socket.as_ref().map_or(0, |socket| socket.peer_inode);
                self.sockets.insert(group.file.dev_ino.1, (index, peer));
            }
            FileKind::Terminal(Terminal { master: None, .. }) => {
                let number = fdinfo::terminal(&group.file.info);
                self.masters.extend(number.map(|number| (number, index)));
            }
            FileKind::Stdio { .. } => {
                self.slaves.extend(slave(group).map(|number| (number, index)))
            }
            _ => {}
        }
    }

    fn join(&self, records: &mut [CarriedFile]) {
        for ((inode, writes), index) in &self.pipes {
            let found = self.pipes.get(&(*inode, !writes)).copied();
            if let FileKind::Pipe { other, .. } | FileKind::Packets { other, .. } =
                &mut records[*index as usize].kind
            {
                *other = found;
            }
        }
        for (inode, (index, peer)) in &self.sockets {
            let found = self.sockets.get(peer).filter(|(_, back)| back == inode && peer != inode);
            if let FileKind::Connection { other, .. } = &mut records[*index as usize].kind {
                *other = found.map(|(index, _)| *index);
            }
        }
        for (number, slave) in &self.slaves {
            let Some(master) = self.masters.get(number).copied() else { continue };
            let (is_hung_up, settings) = (false, Vec::new());
            records[*slave as usize].kind =
                FileKind::Terminal(Terminal { master: Some(master), is_hung_up, settings });
            if let FileKind::Terminal(terminal) = &mut records[master as usize].kind {
                terminal.is_hung_up = false;
            }
        }
        for record in records {
            record.numbers.sort_by_key(|number| number.fd);
        }
    }
}

/// The number of a pseudo-terminal whose slave this is.
fn slave(group: &Group<'_>) -> Option<u32> {
    const SLAVES: std::ops::RangeInclusive<u32> = 136..=143;
    let (major, minor) = (libc::major(group.file.device), libc::minor(group.file.device));
    let is_slave = group.file.mode & libc::S_IFMT == libc::S_IFCHR && SLAVES.contains(&major);
    is_slave.then(|| (major - SLAVES.start()) * 256 + minor)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
