//! Open files that children have again: one record for each *open file description*, with all of the
//! numbers that lead to it.
//!
//! [`CarriedFiles::new`] is the only way in, so that whoever has one need not look: numbers are the child's
//! own and each stands once, both ends of a pair know each other, contents have a limit.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// Numbers that a descriptor may carry, and watches of one epoll. prepare() of this version takes fewer, for
/// which its work area has room; the format leaves room for more.
pub const MAX_CARRIED_NUMBERS: usize = 4096;
/// Bytes that lie in pipes, sockets and unnamed files, of one seed: they travel in its descriptor.
pub const MAX_CARRIED_BYTES: usize = 512 << 10;
/// The kernel has no larger number (fs.nr_open).
const MAX_NUMBER: u32 = 1 << 20;
const MAX_PATH_BYTES: usize = 4096;
/// memfd_create(2)'s limit.
const MAX_MEMORY_NAME_BYTES: usize = 249;
/// A `struct sockaddr_storage`.
const MAX_ADDRESS_BYTES: usize = 128;
const STDIO: u32 = 3;

/// All of a seed's open files above 2, ascending by their first numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CarriedFiles(Vec<CarriedFile>);

/// One open file description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedFile {
    /// The numbers that lead to it, ascending; at least one.
    pub numbers: Vec<Number>,
    /// F_GETFL: access mode and status flags.
    pub flags: u32,
    /// What it is.
    pub kind: FileKind,
}

/// A descriptor's number and its one flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Number {
    /// The number.
    pub fd: u32,
    /// FD_CLOEXEC.
    pub close_on_exec: bool,
}

/// What an open file is, and with it what a child gets; new kinds go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A copy of the child's own 0, 1 or 2.
    Stdio {
        /// Which.
        of: u8,
    },
    /// What lies at a path: opened again, if it is there on the child's host.
    Path {
        /// Where.
        path: String,
        /// Its offset.
        position: u64,
    },
    /// A file without a name, or an memfd: the child's own copy.
    Memory {
        /// For /proc.
        name: String,
        /// Its offset.
        position: u64,
        /// Its bytes.
        content: Vec<u8>,
        /// F_GET_SEALS.
        seals: u32,
    },
    /// One end of a pipe.
    Pipe {
        /// Which end; true: the one to write to.
        writes: bool,
        /// The record of the other end; `None`: it is another process's, and gone in a child.
        other: Option<u32>,
        /// F_GETPIPE_SZ.
        capacity: u32,
        /// What can be read. At the end to read from alone.
        content: Vec<u8>,
    },
    /// One end of a connection.
    Connection {
        /// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
        socket_type: u32,
        /// The record of the other end; `None`: it is another process's, and gone in a child.
        other: Option<u32>,
        /// What can be read here.
        content: Vec<u8>,
        /// Why some of what could be read does not come along.
        lost: Option<LostContent>,
    },
    /// A socket that is neither connected nor listens, or one of datagrams: a new one.
    Socket {
        /// As socket(2).
        domain: u32,
        /// As socket(2), without flags.
        socket_type: u32,
        /// As socket(2).
        protocol: u32,
        /// A `struct sockaddr` that datagrams go to.
        connected_to: Option<Vec<u8>>,
    },
    /// A socket that listens, or is bound to.
    Listener(Listening),
    /// eventfd(2).
    Event {
        /// Its counter.
        count: u64,
        /// EFD_SEMAPHORE.
        is_semaphore: bool,
    },
    /// epoll(7).
    Epoll {
        /// What it watches.
        watches: Vec<EpollWatch>,
    },
    /// timerfd_create(2).
    Timer {
        /// Its clock.
        clock: u32,
        /// Until its next expiry, ns; 0: disarmed.
        left_ns: u64,
        /// Its interval, ns.
        interval_ns: u64,
        /// Expiries that nobody has read.
        ticks: u64,
    },
    /// signalfd(2).
    Signals {
        /// Its signals.
        mask: u64,
    },
    /// inotify(7): a new one.
    Inotify {
        /// Watches that it had, which are not carried.
        watches: u32,
    },
    /// Nothing: the number answers EBADF.
    Closed(NotCarried),
    /// A pipe or fifo that was opened to read and to write: a pipe of the child's own.
    ReadWritePipe {
        /// F_GETPIPE_SZ.
        capacity: u32,
        /// What can be read.
        content: Vec<u8>,
    },
    /// A pidfd of the process itself: one of the child.
    OwnProcess,
    /// One side of a pseudo-terminal.
    Terminal(Terminal),
    /// inotify(7) with what it watches, as far as that has a path.
    Watching {
        /// Ascending by number.
        watches: Vec<PathWatch>,
        /// Watches of what has none.
        lost: u32,
        /// Bytes of events that nobody had read, which are lost.
        unread: u64,
    },
    /// The end to read from of a pipe in which packets lie (O_DIRECT).
    Packets {
        /// As a pipe's.
        other: Option<u32>,
        /// As a pipe's.
        capacity: u32,
        /// All their bytes.
        content: Vec<u8>,
        /// The length of each.
        lengths: Vec<u32>,
    },
    /// epoll(7), of which a watch was registered by a number that leads elsewhere by now, or nowhere.
    EpollOfOthers {
        /// What it watches, and the number that it is open by.
        watches: Vec<(EpollWatch, u32)>,
    },
}

impl FileKind {
    /// What an epoll watches, each with the number that it is open by; none of what is no epoll.
    pub fn watches(&self) -> Vec<(EpollWatch, u32)> {
        match self {
            FileKind::Epoll { watches } => watches.iter().map(|watch| (*watch, watch.fd)).collect(),
            FileKind::EpollOfOthers { watches } => watches.clone(),
            _ => Vec::new(),
        }
    }
}

/// The largest packet: PIPE_BUF.
const MAX_PACKET_BYTES: u32 = 4096;

/// One watch of an inotify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathWatch {
    /// Its number, by which events name it.
    pub number: u32,
    /// IN_* bits.
    pub mask: u32,
    /// What it watches.
    pub path: String,
}

/// A watch of a higher number is not carried: a child takes all those below it, one after the other.
pub const MAX_WATCH_NUMBER: u32 = 1 << 16;
/// Bytes of all paths that one inotify watches.
pub const MAX_WATCHED_BYTES: usize = 256 << 10;

/// One side of a pseudo-terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// Of a slave the record of its master; `None`: it is the master.
    pub master: Option<u32>,
    /// At the master: nobody here has the slave, so that it has hung up.
    pub is_hung_up: bool,
    /// A `struct termios` and a `struct winsize` of the kernel's, both of the pair. At the master alone.
    pub settings: Vec<u8>,
}

/// Bytes of [`Terminal::settings`]: a `struct termios`, and behind it a `struct winsize`.
pub const TERMIOS_BYTES: usize = 36;
/// The latter's bytes.
pub const WINSIZE_BYTES: usize = 8;

/// Why bytes in a socket are not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LostContent {
    /// Descriptors are on their way with them.
    Descriptors,
    /// Their messages cannot be looked at without taking them.
    Messages,
}

/// Why a number answers EBADF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotCarried {
    /// A pidfd: its process is not there.
    Process,
    /// A userfaultfd.
    Userfaultfd,
    /// perf_event_open(2).
    Perf,
    /// bpf(2).
    Bpf,
    /// A device, or a file of a kind that mitosis does not know.
    Unknown,
    /// A file without a name, of more bytes than travel.
    TooLarge,
    /// A directory without a name.
    Deleted,
    /// An io_uring: its rings are the kernel's, too.
    IoUring,
}

/// A socket that listens, or is bound to where it will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listening {
    /// AF_INET, AF_INET6 or AF_UNIX.
    pub domain: u32,
    /// SOCK_STREAM, SOCK_SEQPACKET, or SOCK_DGRAM, which is bound alone.
    pub socket_type: u32,
    /// As socket(2).
    pub protocol: u32,
    /// Its `struct sockaddr`.
    pub address: Vec<u8>,
    /// listen(2)'s argument; `None`: it is bound and does not listen yet.
    pub backlog: Option<u32>,
    /// SO_REUSEADDR.
    pub reuse_address: bool,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// IPV6_V6ONLY.
    pub v6_only: bool,
    /// TCP_NODELAY.
    pub no_delay: bool,
    /// SO_KEEPALIVE.
    pub keep_alive: bool,
}

/// One registration of an epoll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpollWatch {
    /// The number that it was registered by.
    pub fd: u32,
    /// EPOLL* bits.
    pub events: u32,
    /// epoll_data.
    pub data: u64,
}

impl CarriedFiles {
    /// Holds what the type promises.
    ///
    /// # Errors
    /// What is wrong.
    pub fn new(files: Vec<CarriedFile>) -> Result<Self, String> {
        let (mut seen, mut bytes) = (HashSet::new(), 0usize);
        for (index, file) in (0u32..).zip(&files) {
            if file.numbers.is_empty() {
                return Err("a carried file has no number".to_owned());
            }
            for number in &file.numbers {
                if number.fd < STDIO || number.fd >= MAX_NUMBER || !seen.insert(number.fd) {
                    return Err(format!("descriptor {} is carried twice or cannot be", number.fd));
                }
            }
            bytes = bytes.saturating_add(file.kind.content().len());
            check_kind(index, file, &files)?;
        }
        if seen.len() > MAX_CARRIED_NUMBERS {
            let many = seen.len();
            return Err(format!(
                "{many} descriptors are open, {MAX_CARRIED_NUMBERS} is the limit: close some before prepare"
            ));
        }
        if bytes > MAX_CARRIED_BYTES {
            return Err(format!(
                "pipes, sockets and unnamed files hold {bytes} bytes, {MAX_CARRIED_BYTES} is the limit: read \
                 what lies in them before prepare"
            ));
        }
        Ok(CarriedFiles(files))
    }

    /// In order.
    pub fn files(&self) -> &[CarriedFile] {
        &self.0
    }

    /// All numbers, in no order.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|file| &file.numbers).map(|number| number.fd)
    }

    /// The record that a number leads to.
    pub fn at(&self, fd: u32) -> Option<&CarriedFile> {
        self.0.iter().find(|file| file.numbers.iter().any(|number| number.fd == fd))
    }

    /// Sockets that listen, with their indices.
    pub fn listeners(&self) -> impl Iterator<Item = (u32, &Listening)> {
        (0u32..).zip(&self.0).filter_map(|(index, file)| match &file.kind {
            FileKind::Listener(listening) => Some((index, listening)),
            _ => None,
        })
    }
}

impl FileKind {
    fn content(&self) -> &[u8] {
        match self {
            FileKind::Memory { content, .. }
            | FileKind::Pipe { content, .. }
            | FileKind::Packets { content, .. }
            | FileKind::Connection { content, .. }
            | FileKind::ReadWritePipe { content, .. } => content,
            _ => &[],
        }
    }
}

fn is_text(text: &str, max_bytes: usize) -> bool {
    (1..=max_bytes).contains(&text.len()) && !text.contains('\0')
}

fn are_watches(watches: &[PathWatch]) -> bool {
    let bytes: usize = watches.iter().map(|watch| watch.path.len()).sum();
    let ascend = watches.windows(2).all(|pair| pair[0].number < pair[1].number);
    let is_one = |watch: &PathWatch| {
        (1..=MAX_WATCH_NUMBER).contains(&watch.number) && is_text(&watch.path, MAX_PATH_BYTES - 1)
    };
    watches.len() <= MAX_CARRIED_NUMBERS
        && bytes <= MAX_WATCHED_BYTES
        && ascend
        && watches.iter().all(is_one)
}

fn check_kind(index: u32, file: &CarriedFile, files: &[CarriedFile]) -> Result<(), String> {
    let of = |other: u32| usize::try_from(other).ok().and_then(|at| files.get(at)).map(|f| &f.kind);
    let sound = match &file.kind {
        FileKind::Stdio { of } => u32::from(*of) < STDIO,
        FileKind::Path { path, .. } => is_text(path, MAX_PATH_BYTES - 1),
        FileKind::Memory { name, .. } => is_text(name, MAX_MEMORY_NAME_BYTES),
        FileKind::Pipe { writes, other: Some(other), content, .. } => {
            let knows = match of(*other) {
                Some(FileKind::Pipe { writes: theirs, other: Some(back), .. }) => {
                    theirs != writes && *back == index
                }
                Some(FileKind::Packets { other: Some(back), .. }) => *writes && *back == index,
                _ => false,
            };
            knows && (!*writes || content.is_empty())
        }
        FileKind::Packets { other, content, lengths, .. } => {
            let knows = other.is_none_or(|other| {
                matches!(of(other), Some(FileKind::Pipe { writes: true, other: Some(back), .. })
                    if *back == index)
            });
            let total: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
            let is_length = |length: &u32| (1..=MAX_PACKET_BYTES).contains(length);
            knows && total == content.len() as u64 && lengths.iter().all(is_length)
        }
        FileKind::Pipe { writes, other: None, content, .. } => !*writes || content.is_empty(),
        FileKind::Connection { socket_type, other: Some(other), .. } => {
            *other != index
                && matches!(of(*other), Some(FileKind::Connection { socket_type: theirs, other: Some(back), .. })
                if theirs == socket_type && *back == index)
        }
        FileKind::Socket { connected_to: Some(address), .. } => {
            (2..=MAX_ADDRESS_BYTES).contains(&address.len())
        }
        FileKind::Listener(Listening { address, .. }) => {
            (2..=MAX_ADDRESS_BYTES).contains(&address.len())
        }
        FileKind::Epoll { watches } => watches.len() <= MAX_CARRIED_NUMBERS,
        FileKind::EpollOfOthers { watches } => {
            let is_number = |(watch, by): &(EpollWatch, u32)| watch.fd.max(*by) < MAX_NUMBER;
            watches.len() <= MAX_CARRIED_NUMBERS && watches.iter().all(is_number)
        }
        FileKind::Watching { watches, .. } => are_watches(watches),
        FileKind::Terminal(Terminal { master: Some(master), settings, .. }) => {
            let is_master =
                |of: &FileKind| matches!(of, FileKind::Terminal(Terminal { master: None, .. }));
            of(*master).is_some_and(is_master) && settings.is_empty()
        }
        FileKind::Terminal(Terminal { master: None, settings, .. }) => {
            settings.is_empty() || settings.len() == TERMIOS_BYTES + WINSIZE_BYTES
        }
        _ => true,
    };
    match sound {
        true => Ok(()),
        false => Err(format!("descriptor {} is not what it can be", file.numbers[0].fd)),
    }
}

impl From<CarriedFiles> for Vec<CarriedFile> {
    fn from(files: CarriedFiles) -> Self {
        files.0
    }
}
