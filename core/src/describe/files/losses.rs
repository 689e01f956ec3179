//! What of a seed's files its children do not have, and whether there is to be a seed nevertheless.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{DELETED, fdinfo, holders};
use crate::describe::DescribeError;
use crate::describe::smaps::SmapsEntry;
use crate::descriptor::carried::{NotCarried, Terminal};
use crate::descriptor::losses::MAX_WAS_BYTES;
use crate::descriptor::{CarriedFile, CarriedFiles, FileKind, Loss, LossKind, OpenFile, Refuse};
use crate::prepare::report::Report;
use crate::prepare::reported::{ReportedFile, ReportedSocket};

/// Of those that are refused, a text names so many.
const NAMED: usize = 6;
/// Threads that children are told of: few processes have one.
const MAX_THREADS_TOLD: usize = 64;

/// A seed's open files, as they were.
pub(in crate::describe) struct Was<'a> {
    pub(in crate::describe) files: &'a [ReportedFile],
    pub(in crate::describe) open: &'a [OpenFile],
}

impl Was<'_> {
    /// All losses, where there is to be a seed with them. `others` are known already, `shared` is memory that was
    /// copied; `seed` is the frozen process.
    ///
    /// # Errors
    /// `Refused`, with what is refused and who holds it.
    pub(in crate::describe) fn not_refused<'a>(
        &self,
        carried: &CarriedFiles,
        others: Vec<Loss>,
        shared: impl Iterator<Item = &'a SmapsEntry<'a>>,
        refuse: Refuse,
        seed: u32,
    ) -> Result<Vec<Loss>, DescribeError> {
        let mut losses = self.losses(carried);
        losses.extend(others);
        let is_refused = |losses: &[Loss]| losses.iter().any(|loss| refuse.has(loss.kind));
        if !refuse.has(LossKind::SharedMemory) && !is_refused(&losses) {
            return Ok(losses);
        }
        let parent = holders::parent_of(seed);
        if refuse.has(LossKind::SharedMemory) {
            losses.extend(shared.filter_map(|entry| with_others(entry, seed, parent)));
        }
        match self.refusal(&losses, refuse, parent) {
            Some(text) => Err(DescribeError::Refused(text)),
            None => Ok(losses),
        }
    }

    /// All losses, in the order of their numbers.
    fn losses(&self, carried: &CarriedFiles) -> Vec<Loss> {
        let mut losses = Vec::new();
        for file in carried.files() {
            let Some(first) = file.numbers.first().map(|number| number.fd) else { continue };
            let fds: Vec<u32> = file.numbers.iter().map(|number| number.fd).collect();
            let Some(reported) = self.files.iter().find(|known| known.fd == first) else {
                continue;
            };
            let mut add = |kind, was: String| {
                let was = super::cut(&was, MAX_WAS_BYTES).to_owned();
                losses.push(Loss { kind, fds: fds.clone(), was });
            };
            if let Some((kind, was)) = self.loss(file, reported, first) {
                add(kind, was);
            }
            if fdinfo::locks(&reported.info) > 0
                && !matches!(file.kind, FileKind::Stdio { .. } | FileKind::Closed(_))
            {
                add(LossKind::Locks, format!("a lock on {}", self.link(first)));
            }
        }
        losses
    }

    fn loss(
        &self,
        file: &CarriedFile,
        reported: &ReportedFile,
        fd: u32,
    ) -> Option<(LossKind, String)> {
        let was = self.link(fd).to_owned();
        Some(match &file.kind {
            FileKind::Pipe { other: None, writes, .. } => {
                let end = if *writes { "to write to" } else { "to read from" };
                let name = if was.starts_with('/') { format!("fifo {was}") } else { was };
                (LossKind::Pipes, format!("{name}, {end}"))
            }
            FileKind::Packets { other: None, .. } => {
                (LossKind::Pipes, format!("{was}, to read from"))
            }
            FileKind::Connection { other: None, .. } => {
                (LossKind::Connections, reported.socket.as_ref().map_or(was, connection))
            }
            FileKind::Connection { lost: Some(_), .. } => (
                LossKind::Connections,
                "what lies in a unix socket: messages, or descriptors on their way".to_owned(),
            ),
            FileKind::Inotify { watches: watches @ 1.. } => {
                (LossKind::Watches, format!("{watches} watches of inotify"))
            }
            FileKind::Watching { lost: lost @ 1.., .. } => {
                (LossKind::Watches, format!("{lost} watches of inotify"))
            }
            FileKind::Watching { unread: unread @ 1.., .. } => {
                let text = format!("{unread} bytes of events of inotify that nobody has read");
                (LossKind::Watches, text)
            }
            FileKind::Terminal(Terminal { master: None, is_hung_up: true, .. }) => {
                (LossKind::Terminals, "the master of a pseudo-terminal".to_owned())
            }
            FileKind::Closed(NotCarried::Process) => (LossKind::Processes, process(reported)),
            FileKind::Closed(NotCarried::TooLarge) => {
                let name = was.trim_end_matches(DELETED);
                let size = reported.size;
                let text = format!("{name} without a name, of {size} bytes; 256 KiB travel");
                (LossKind::Unnamed, text)
            }
            FileKind::Closed(NotCarried::Deleted) => (LossKind::Unnamed, was),
            FileKind::Closed(NotCarried::IoUring) => (LossKind::IoUring, "an io_uring".to_owned()),
            FileKind::Closed(_) => (LossKind::Devices, was),
            _ => return None,
        })
    }

    fn link(&self, fd: u32) -> &str {
        self.open.iter().find(|file| file.fd == fd).map_or("", |file| file.link.as_str())
    }

    /// Why there is no seed, if one of the losses is of a kind that is refused.
    fn refusal(&self, losses: &[Loss], refuse: Refuse, parent: u32) -> Option<String> {
        let refused: Vec<&Loss> = losses.iter().filter(|loss| refuse.has(loss.kind)).collect();
        let first = refused.first()?;
        let named = refused.iter().take(NAMED).map(|loss| {
            let held = self.held_by(loss, parent);
            let number = match loss.fds.first() {
                Some(fd) => format!("descriptor {fd}, "),
                None => String::new(),
            };
            format!("{number}{}{held} ({})", loss.was, loss.kind.name())
        });
        let named = named.collect::<Vec<_>>().join("; ");
        let more = match refused.len().checked_sub(NAMED) {
            Some(more @ 1..) => format!("; and {more} more"),
            _ => String::new(),
        };
        let kind = first.kind.name();
        let remedy = match first.kind {
            LossKind::IoUring => {
                "Have the program do without, close it before prepare, or have prepare close it in children, with a hook \
                 that makes a new one (io_uring: close). Node: use 20; later ones keep a ring that UV_USE_IO_URING=0 does \
                 not take away, and end where it is closed"
                    .to_owned()
            }
            LossKind::Scheduling => {
                "Have these threads change their class before prepare, and clear the cookie, or have children do without \
                 (scheduling: close)"
                    .to_owned()
            }
            _ => format!(
                "Close it before prepare, or have prepare close it in children ({kind}: close)"
            ),
        };
        Some(format!("it was to be refused where something cannot cross: {named}{more}. {remedy}"))
    }

    /// Who has the other end, as far as /proc tells.
    fn held_by(&self, loss: &Loss, parent: u32) -> String {
        let first = loss.fds.first().and_then(|fd| self.files.iter().find(|file| file.fd == *fd));
        let Some(file) = first else { return String::new() };
        let inode = file.dev_ino.1;
        let link = match loss.kind {
            LossKind::Pipes => self.link(file.fd).to_owned(),
            LossKind::Connections => match file.socket.as_ref().map_or(0, |it| it.peer_inode) {
                0 => return String::new(),
                peer => format!("socket:[{peer}]"),
            },
            _ => return String::new(),
        };
        let holders = holders::of(&link, inode, &[parent]);
        if holders.is_empty() { String::new() } else { format!(", held by {}", holders.join(", ")) }
    }
}

/// What of its scheduling is not carried: a cookie, and reservations of threads.
pub(in crate::describe) fn of_scheduling(report: &Report) -> Vec<Loss> {
    let cookie = report.has_core_cookie.then(|| {
        Loss::of_memory(LossKind::Scheduling, "a cookie of core scheduling (PR_SCHED_CORE)")
    });
    let scheduled = report.whole.iter().flat_map(|whole| &whole.sched);
    let all = report.threads.iter().zip(scheduled);
    let of_deadlines =
        all.filter(|(_, sched)| sched.policy == libc::SCHED_DEADLINE.cast_unsigned());
    let told = of_deadlines.map(|(thread, _)| {
        let name = String::from_utf8_lossy(&thread.name);
        let was = format!("SCHED_DEADLINE of thread {} ('{name}')", thread.tid);
        Loss::of_memory(LossKind::Scheduling, &was)
    });
    cookie.into_iter().chain(told.take(MAX_THREADS_TOLD)).collect()
}

/// Memory that others map, too.
fn with_others(entry: &SmapsEntry<'_>, seed: u32, parent: u32) -> Option<Loss> {
    let device = entry.device_number;
    let device = format!("{:02x}:{:02x}", libc::major(device), libc::minor(device));
    let others = holders::mapping(&device, entry.inode, &[seed, parent]);
    (!others.is_empty()).then(|| {
        let (start, end, name) = (entry.range.start, entry.range.end, entry.name);
        let was = format!("memory {start}-{end} of {name}, mapped by {}", others.join(", "));
        Loss {
            kind: LossKind::SharedMemory,
            fds: Vec::new(),
            was: super::cut(&was, MAX_WAS_BYTES).to_owned(),
        }
    })
}

fn process(file: &ReportedFile) -> String {
    let pid = file.info.lines().find_map(|line| line.strip_prefix("Pid:")).map_or("?", str::trim);
    format!("a pidfd of process {pid}")
}

/// Its two addresses.
fn connection(socket: &ReportedSocket) -> String {
    let (name, peer) = (address(&socket.name), address(&socket.peer));
    let peer = peer.unwrap_or_else(|| "nobody yet".to_owned());
    match (i32::try_from(socket.domain), name) {
        (Ok(libc::AF_UNIX), Some(name)) => format!("a unix socket at {name}"),
        (Ok(libc::AF_UNIX), None) => {
            format!("a unix socket to {peer}").replace("nobody yet", "a peer")
        }
        (_, name) => format!("a connection from {} to {peer}", name.unwrap_or_default()),
    }
}

/// A `struct sockaddr`, for people and for connect(2) by hooks.
fn address(bytes: &[u8]) -> Option<String> {
    let family = bytes.first_chunk().map(|family| u16::from_ne_bytes(*family))?;
    let port = || bytes.get(2..4).and_then(<[u8]>::first_chunk).map(|p| u16::from_be_bytes(*p));
    match i32::from(family) {
        libc::AF_INET => {
            let ip = bytes.get(4..8).and_then(<[u8]>::first_chunk::<4>)?;
            Some(SocketAddr::from((Ipv4Addr::from(*ip), port()?)).to_string())
        }
        libc::AF_INET6 => {
            let ip = bytes.get(8..24).and_then(<[u8]>::first_chunk::<16>)?;
            Some(SocketAddr::from((Ipv6Addr::from(*ip), port()?)).to_string())
        }
        libc::AF_UNIX => {
            let name = String::from_utf8_lossy(bytes.get(2..)?).replace('\0', "@");
            let name = name.trim_end_matches('@');
            (!name.is_empty()).then(|| name.to_owned())
        }
        _ => None,
    }
}
