//! What becomes of a seed's descriptors in its children, for people.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use mitosis::descriptor::carried::{Listening, LostContent, NotCarried, PathWatch, Terminal};
use mitosis::descriptor::{CarriedFile, Descriptor, FileKind, Loss, LossKind};

/// What a child finds under a number.
pub fn becomes(descriptor: &Descriptor, fd: u32) -> String {
    if fd < 3 {
        return "the resumer's".to_owned();
    }
    let Some(carried) = &descriptor.carried else { return "EBADF".to_owned() };
    let Some(file) = carried.at(fd) else { return "EBADF".to_owned() };
    let mut text = kind(file, carried.files());
    let lost = |loss: &&Loss| loss.kind == LossKind::Locks && loss.fds.contains(&fd);
    if descriptor.losses.all.iter().any(|loss| lost(&loss)) {
        text += "; the lock on it is not carried";
    }
    match file.numbers.first() {
        Some(first) if first.fd != fd => format!("the same as {}: {text}", first.fd),
        _ => text,
    }
}

fn kind(file: &CarriedFile, files: &[CarriedFile]) -> String {
    let other_end = |other: &Option<u32>| {
        let file = other.and_then(|other| files.get(usize::try_from(other).ok()?));
        file.and_then(|file| file.numbers.first()).map(|number| number.fd)
    };
    match &file.kind {
        FileKind::Stdio { of } => format!("the child's own {of}"),
        FileKind::Path { path, position } => {
            format!("{path} of the child's host at {position}; EBADF if it is not there")
        }
        FileKind::Memory { content, .. } => format!("a copy of its {} bytes", content.len()),
        FileKind::Pipe { writes, other, content, .. } => match (other_end(other), writes) {
            (Some(fd), true) => format!("a pipe to {fd}"),
            (Some(fd), false) => format!("a pipe from {fd} with {} bytes", content.len()),
            (None, true) => {
                "a pipe that nobody reads (EPIPE): its reader is another process".to_owned()
            }
            (None, false) => {
                format!(
                    "a pipe that ends after {} bytes: its writer is another process",
                    content.len()
                )
            }
        },
        FileKind::Connection { other, content, lost, .. } => {
            let what = match other_end(other) {
                Some(fd) => format!("connected to {fd}, with {} bytes", content.len()),
                None => "a connection whose peer has gone (end of file, EPIPE)".to_owned(),
            };
            match lost {
                None => what,
                Some(LostContent::Descriptors) => {
                    format!(
                        "{what}; what lies in it is lost, for descriptors are on their way there"
                    )
                }
                Some(LostContent::Messages) => format!("{what}; messages in it are lost"),
            }
        }
        FileKind::Socket { connected_to: None, .. } => "a new socket".to_owned(),
        FileKind::Socket { .. } => "a new socket, connected to the same peer".to_owned(),
        FileKind::Listener(listening) => listener(listening),
        FileKind::Event { count, .. } => format!("an eventfd of {count}"),
        kind @ (FileKind::Epoll { .. } | FileKind::EpollOfOthers { .. }) => {
            format!("an epoll of {} files", kind.watches().len())
        }
        FileKind::Packets { other, content, lengths, .. } => {
            let from = other_end(other).map_or("nobody".to_owned(), |fd| fd.to_string());
            format!("a pipe from {from} with {} packets, {} bytes", lengths.len(), content.len())
        }
        FileKind::Timer { ticks: 1.., .. } => "a timer that has expired".to_owned(),
        FileKind::Timer { left_ns: 0, .. } => "a timer that is not armed".to_owned(),
        FileKind::Timer { left_ns, .. } => format!("a timer, {} ms left", left_ns / 1_000_000),
        FileKind::Signals { .. } => "a signalfd of the same signals".to_owned(),
        FileKind::Inotify { watches: 0 } => "an inotify without watches".to_owned(),
        FileKind::Inotify { watches } => {
            format!("an inotify without its {watches} watches: they are not carried")
        }
        FileKind::Watching { watches, lost, unread } => watching(watches, *lost, *unread),
        FileKind::ReadWritePipe { content, .. } => {
            format!("a pipe of its own, to read and to write, with {} bytes", content.len())
        }
        FileKind::OwnProcess => "a pidfd of the child".to_owned(),
        FileKind::Terminal(Terminal { master: None, is_hung_up: true, .. }) => {
            "the master of a pseudo-terminal that has hung up: its slave is another process's"
                .to_owned()
        }
        FileKind::Terminal(Terminal { master: None, .. }) => {
            "the master of a new pseudo-terminal".to_owned()
        }
        FileKind::Terminal(terminal) => match other_end(&terminal.master) {
            Some(fd) => format!("the slave of the pseudo-terminal of {fd}"),
            None => "the slave of a new pseudo-terminal".to_owned(),
        },
        FileKind::Closed(why) => format!("EBADF: {}", reason(*why)),
    }
}

/// The first few by their paths.
fn watching(watches: &[PathWatch], lost: u32, unread: u64) -> String {
    const NAMED: usize = 4;
    let named = watches.iter().take(NAMED).map(|watch| watch.path.as_str());
    let mut text = format!("an inotify of {} watches", watches.len());
    match watches.len() {
        0 => {}
        count => {
            let paths = named.collect::<Vec<_>>().join(", ");
            let more = if count > NAMED { ", ..." } else { "" };
            text = format!("{text} ({paths}{more})");
        }
    }
    if lost > 0 {
        text = format!("{text}, without {lost} of what has no path that is known");
    }
    if unread > 0 {
        text = format!("{text}, without {unread} bytes of events that nobody has read");
    }
    text
}

fn listener(listening: &Listening) -> String {
    let address = &listening.address;
    let port =
        address.get(2..4).and_then(<[u8]>::first_chunk).map(|port| u16::from_be_bytes(*port));
    let v4 = address.get(4..8).and_then(<[u8]>::first_chunk::<4>).map(|ip| Ipv4Addr::from(*ip));
    let v6 = address.get(8..24).and_then(<[u8]>::first_chunk::<16>).map(|ip| Ipv6Addr::from(*ip));
    let (place, choice) = match (i32::try_from(listening.domain), port, v4, v6) {
        (Ok(libc::AF_INET), Some(port), Some(ip), _) => {
            (SocketAddr::new(ip.into(), port).to_string(), port.to_string())
        }
        (Ok(libc::AF_INET6), Some(port), _, Some(ip)) => {
            (SocketAddr::new(ip.into(), port).to_string(), port.to_string())
        }
        _ => {
            let path = address.get(2..).unwrap_or(&[]);
            let path = String::from_utf8_lossy(path);
            let path = path.trim_matches('\0');
            (path.to_owned(), format!("unix:{path}"))
        }
    };
    let is = if listening.backlog.is_some() { "listens" } else { "is bound" };
    format!("{is} at {place} with 'resume --listen {choice}'; without, no connection comes")
}

fn reason(why: NotCarried) -> &'static str {
    match why {
        NotCarried::Process => "a pidfd, whose process is not there",
        NotCarried::Userfaultfd => "a userfaultfd",
        NotCarried::Perf => "a perf event",
        NotCarried::Bpf => "a BPF object",
        NotCarried::Unknown => "a device or file that cannot be made again",
        NotCarried::TooLarge => "a file without a name that is too large to travel (256 KiB do)",
        NotCarried::Deleted => "a directory without a name",
        NotCarried::IoUring => "an io_uring, whose rings are the kernel's, too",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_says_how_to_have_it() {
        let mut listening = Listening {
            domain: 2,
            socket_type: 1,
            protocol: 0,
            address: vec![2, 0, 0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            backlog: Some(1),
            reuse_address: true,
            reuse_port: false,
            v6_only: false,
            no_delay: false,
            keep_alive: false,
        };
        let text = listener(&listening);
        assert!(
            text.starts_with("listens at 127.0.0.1:8080 with 'resume --listen 8080'"),
            "{text}"
        );
        listening.domain = 1;
        listening.address = b"\x01\0/run/a\0".to_vec();
        listening.backlog = None;
        let text = listener(&listening);
        assert!(
            text.starts_with("is bound at /run/a with 'resume --listen unix:/run/a'"),
            "{text}"
        );
    }
}
