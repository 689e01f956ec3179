//! Reports of open files, and what is made of them.

use super::*;

/// A report, descriptor by descriptor.
#[derive(Default)]
struct Files {
    files: Vec<ReportedFile>,
    open: Vec<OpenFile>,
}

impl Files {
    fn add(&mut self, fd: u32, mode: u32, inode: u64, flags: i32, link: &str) -> &mut ReportedFile {
        let flags = flags.cast_unsigned();
        self.open.push(OpenFile { fd, flags, position: 7, link: link.to_owned() });
        let dev_ino = (1, inode);
        self.files.push(ReportedFile { fd, mode, dev_ino, ..ReportedFile::default() });
        self.files.last_mut().unwrap()
    }

    fn carried(&self) -> Result<Vec<CarriedFile>, String> {
        let mapped = &[];
        let paths = Paths { seed: 0, root: None, cwd: "/", open: &self.open, mapped };
        let carried = carried(&self.files, &self.open, 77, &paths);
        carried.map(Vec::from).map_err(|error| error.to_string())
    }

    fn kinds(&self) -> Vec<FileKind> {
        self.carried().unwrap().into_iter().map(|file| file.kind).collect()
    }
}

fn content(total: u64, bytes: &[u8]) -> Option<ReportedContent> {
    Some(ReportedContent { total, bytes: bytes.to_vec(), ..ReportedContent::default() })
}

fn stream(inode: u64) -> Option<ReportedSocket> {
    Some(ReportedSocket {
        domain: 1,
        socket_type: 1,
        bits: socket_bit::CONNECTED,
        peer_inode: inode,
        ..ReportedSocket::default()
    })
}

#[test]
fn numbers_of_one_description_are_one_file() {
    let mut files = Files::default();
    files.add(3, libc::S_IFREG, 9, libc::O_RDWR | libc::O_CLOEXEC, "/a").close_on_exec = true;
    files.add(9, libc::S_IFREG, 9, libc::O_RDWR, "/a").same_as = Some(3);
    files.add(4, libc::S_IFREG, 9, libc::O_RDWR, "/a");
    let carried = files.carried().unwrap();
    let numbers: Vec<Vec<u32>> =
        carried.iter().map(|file| file.numbers.iter().map(|number| number.fd).collect()).collect();
    assert_eq!(numbers, [vec![3, 9], vec![4]]);
    assert_eq!(carried[0].flags, libc::O_RDWR.cast_unsigned());
    assert!(carried[0].numbers[0].close_on_exec && !carried[0].numbers[1].close_on_exec);
}

#[test]
fn ends_that_are_both_inside_know_each_other() {
    let mut files = Files::default();
    files.add(3, libc::S_IFIFO, 9, libc::O_RDONLY, "pipe:[9]").content = content(2, b"ab");
    files.add(4, libc::S_IFSOCK, 20, libc::O_RDWR, "socket:[20]").socket = stream(21);
    files.add(5, libc::S_IFIFO, 9, libc::O_WRONLY, "pipe:[9]");
    files.add(6, libc::S_IFSOCK, 21, libc::O_RDWR, "socket:[21]").socket = stream(20);
    files.add(7, libc::S_IFIFO, 10, libc::O_WRONLY, "pipe:[10]");
    files.add(8, libc::S_IFSOCK, 22, libc::O_RDWR, "socket:[22]").socket = stream(0);
    // The same end, opened anew.
    files.add(9, libc::S_IFIFO, 9, libc::O_WRONLY, "pipe:[9]");
    let carried = files.carried().unwrap();
    let others: Vec<Option<u32>> = carried
        .iter()
        .map(|file| match file.kind {
            FileKind::Pipe { other, .. } | FileKind::Connection { other, .. } => other,
            _ => None,
        })
        .collect();
    assert_eq!(others, [Some(2), Some(3), Some(0), Some(1), None, None]);
    assert_eq!(carried[2].numbers.len(), 2);
    let FileKind::Pipe { content, .. } = &carried[0].kind else { panic!() };
    assert_eq!(content, b"ab");
}

#[test]
fn standard_descriptors_are_the_childs_own_wherever_they_lead() {
    let mut files = Files::default();
    files.add(0, libc::S_IFCHR, 5, libc::O_RDWR, "/dev/pts/1").device = libc::makedev(136, 1);
    files.add(1, libc::S_IFIFO, 9, libc::O_WRONLY, "pipe:[9]");
    files.add(2, libc::S_IFREG, 8, libc::O_WRONLY, "/log");
    files.add(3, libc::S_IFREG, 8, libc::O_WRONLY, "/log").same_as = Some(2);
    files.add(4, libc::S_IFREG, 8, libc::O_WRONLY, "/log");
    files.add(5, libc::S_IFIFO, 9, libc::O_WRONLY, "pipe:[9]");
    files.add(6, libc::S_IFIFO, 9, libc::O_RDONLY, "pipe:[9]");
    files.add(7, libc::S_IFCHR, 5, libc::O_RDWR, "/dev/pts/1").device = libc::makedev(136, 1);
    files.add(8, libc::S_IFCHR, 6, libc::O_RDONLY, "/dev/tty").device = libc::makedev(5, 0);
    files.add(9, libc::S_IFCHR, 4, libc::O_RDWR, "/dev/null").device = libc::makedev(1, 3);
    let kinds = files.kinds();
    assert_eq!(kinds[0], FileKind::Stdio { of: 2 });
    assert!(matches!(&kinds[1], FileKind::Path { path, position: 7 } if path == "/log"));
    assert_eq!(kinds[2], FileKind::Stdio { of: 1 });
    // The other end of what the child's output was: nobody is there any more.
    assert!(matches!(kinds[3], FileKind::Pipe { other: None, .. }));
    assert_eq!(kinds[4..6], [FileKind::Stdio { of: 0 }, FileKind::Stdio { of: 0 }]);
    assert!(matches!(&kinds[6], FileKind::Path { path, .. } if path == "/dev/null"));
}

#[test]
fn what_cannot_cross_is_named_or_refused() {
    let mut files = Files::default();
    files.add(3, 0, 1, libc::O_RDWR, "anon_inode:[pidfd]");
    files.add(4, libc::S_IFREG, 1, libc::O_RDWR, "pidfd:[123]");
    files.add(5, libc::S_IFCHR, 2, libc::O_RDWR, "/dev/fuse").device = libc::makedev(10, 229);
    files.add(6, libc::S_IFREG, 3, libc::O_RDWR, "/a (deleted)").is_unlinked = true;
    files.files[3].content = content(1 << 30, b"");
    files.add(7, libc::S_IFDIR, 4, libc::O_RDONLY, "/b (deleted)");
    files.add(8, libc::S_IFREG, 4, libc::O_RDONLY, "net:[4026531840]");
    let closed: Vec<NotCarried> = files
        .kinds()
        .into_iter()
        .map(|kind| match kind {
            FileKind::Closed(why) => why,
            other => panic!("{other:?}"),
        })
        .collect();
    use NotCarried::{Deleted, Process, TooLarge, Unknown};
    assert_eq!(closed, [Process, Process, Unknown, TooLarge, Deleted, Unknown]);
    files.add(10, libc::S_IFIFO, 9, libc::O_RDONLY, "pipe:[9]").content = content(1 << 20, b"");
    let refused = files.carried().unwrap_err();
    assert!(refused.contains("descriptor 10") && refused.contains("1048576 bytes"), "{refused}");
}

#[test]
fn a_long_name_is_cut_where_a_character_ends() {
    let mut files = Files::default();
    let link = format!("/memfd:x{} (deleted)", "\u{e9}".repeat(120));
    let file = files.add(3, libc::S_IFREG, 3, libc::O_RDWR, &link);
    file.is_unlinked = true;
    file.content = content(1, b"a");
    let FileKind::Memory { name, .. } = files.kinds().remove(0) else { panic!() };
    assert_eq!(name, format!("x{}", "\u{e9}".repeat(99)));
    assert_eq!((cut("", 200), cut("ab", 1), cut("\u{e9}", 1)), ("", "a", ""));
}

#[test]
fn sockets_by_what_they_do() {
    let name = |port: u8| vec![2, 0, 0, port, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let inet = |socket_type, bits, port: u8| {
        let (name, peer) =
            (name(port), if bits & socket_bit::CONNECTED != 0 { name(9) } else { vec![] });
        let known =
            ReportedSocket { domain: 2, socket_type, bits, name, peer, ..Default::default() };
        Some(known)
    };
    let mut files = Files::default();
    for (fd, socket) in (3u32..).zip([
        inet(1, socket_bit::LISTENS | socket_bit::NO_DELAY, 80),
        inet(1, socket_bit::IDLE, 81),
        inet(1, socket_bit::IDLE, 0),
        inet(1, socket_bit::CONNECTED, 82),
        inet(1, 0, 83),
        inet(2, socket_bit::CONNECTED, 84),
        inet(2, 0, 85),
        inet(2, 0, 0),
    ]) {
        files.add(fd, libc::S_IFSOCK, fd.into(), libc::O_RDWR, "socket:[1]").socket = socket;
    }
    let kinds = files.kinds();
    let FileKind::Listener(listens) = &kinds[0] else { panic!() };
    assert!(listens.backlog == Some(4096) && listens.no_delay && listens.address == name(80));
    let FileKind::Listener(bound) = &kinds[1] else { panic!() };
    assert_eq!(bound.backlog, None);
    assert!(matches!(kinds[2], FileKind::Socket { connected_to: None, socket_type: 1, .. }));
    assert!(matches!(kinds[3], FileKind::Connection { other: None, .. }));
    assert!(matches!(kinds[4], FileKind::Connection { other: None, .. }), "it waits for its peer");
    assert!(
        matches!(&kinds[5], FileKind::Socket { connected_to: Some(peer), .. } if *peer == name(9))
    );
    let FileKind::Listener(bound) = &kinds[6] else { panic!() };
    assert_eq!((bound.socket_type, bound.backlog), (2, None));
    assert!(matches!(kinds[7], FileKind::Socket { connected_to: None, socket_type: 2, .. }));
}

#[test]
fn what_lies_in_messages_or_with_descriptors_is_said_to_be_lost() {
    let mut files = Files::default();
    let socket = files.add(3, libc::S_IFSOCK, 20, libc::O_RDWR, "socket:[20]");
    socket.socket = stream(21);
    socket.content = Some(ReportedContent {
        total: 4,
        has_descriptors: true,
        bytes: vec![0; 4],
        packets: Vec::new(),
    });
    let messages = files.add(4, libc::S_IFSOCK, 21, libc::O_RDWR, "socket:[21]");
    messages.socket = stream(20).map(|known| ReportedSocket { socket_type: 1, ..known });
    let kinds = files.kinds();
    let FileKind::Connection { content, lost, .. } = &kinds[0] else { panic!() };
    assert!(content.is_empty() && *lost == Some(LostContent::Descriptors));
}

#[test]
fn paths_below_the_seeds_own_proc_are_the_childs() {
    let mut files = Files::default();
    files.add(3, libc::S_IFREG, 1, libc::O_RDONLY, "/proc/77/maps");
    files.add(4, libc::S_IFREG, 2, libc::O_RDONLY, "/proc/78/maps");
    let paths: Vec<String> = files
        .kinds()
        .into_iter()
        .map(|kind| match kind {
            FileKind::Path { path, .. } => path,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(paths, ["/proc/self/maps", "/proc/78/maps"]);
}

#[test]
fn places_and_fifos_and_own_processes() {
    let place = libc::O_PATH | libc::O_NOFOLLOW;
    let mut files = Files::default();
    files.add(3, libc::S_IFLNK, 1, place, "/a/link");
    files.add(4, libc::S_IFSOCK, 2, place, "/a/socket");
    files.add(5, libc::S_IFREG, 3, place, "/a/file (deleted)");
    files.add(6, libc::S_IFIFO, 4, libc::O_RDWR, "/a/fifo").content = content(2, b"ab");
    files.add(7, 0, 5, libc::O_RDWR, "anon_inode:[pidfd]").info = "Pid:\t77\nNSpid:\t77\n".into();
    files.add(8, libc::S_IFREG, 6, libc::O_RDWR, "pidfd:[9]").info = "Pid:\t78\n".into();
    let kinds = files.kinds();
    for (at, wanted) in [(0, "/a/link"), (1, "/a/socket")] {
        assert!(matches!(&kinds[at], FileKind::Path { path, .. } if path == wanted));
    }
    assert_eq!(kinds[2], FileKind::Closed(NotCarried::Deleted));
    assert!(matches!(&kinds[3], FileKind::ReadWritePipe { content, .. } if content == b"ab"));
    assert_eq!(kinds[4..], [FileKind::OwnProcess, FileKind::Closed(NotCarried::Process)]);
}

#[test]
fn both_sides_of_a_terminal_know_each_other() {
    let mut files = Files::default();
    let slave = |files: &mut Files, fd: u32, number: u32| {
        let device = libc::makedev(136 + number / 256, number % 256);
        files.add(fd, libc::S_IFCHR, fd.into(), libc::O_RDWR, "/dev/pts/1").device = device;
    };
    let master = |files: &mut Files, fd: u32, number: u32| {
        let file = files.add(fd, libc::S_IFCHR, 5, libc::O_RDWR, "/dev/pts/ptmx");
        (file.device, file.info) =
            (libc::makedev(5, 2), format!("pos:\t0\ntty-index:\t{number}\n"));
    };
    slave(&mut files, 3, 300);
    master(&mut files, 4, 300);
    master(&mut files, 5, 7);
    slave(&mut files, 6, 8);
    let kinds = files.kinds();
    let terminal = |master, is_hung_up| {
        FileKind::Terminal(Terminal { master, is_hung_up, settings: Vec::new() })
    };
    assert_eq!(kinds[..3], [terminal(Some(1), false), terminal(None, false), terminal(None, true)]);
    // Of another process's terminal: the child's own.
    assert!(matches!(kinds[3], FileKind::Stdio { .. }));
}

#[test]
fn losses_are_what_they_were_and_are_refused_by_kind() {
    use crate::descriptor::{LossKind, Refuse};
    let mut files = Files::default();
    files.add(3, libc::S_IFIFO, 9, libc::O_RDONLY, "pipe:[9]").content = content(2, b"ab");
    let name = |port: u8| vec![2, 0, 0, port, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    files.add(4, libc::S_IFSOCK, 22, libc::O_RDWR, "socket:[22]").socket = Some(ReportedSocket {
        domain: 2,
        socket_type: 1,
        bits: socket_bit::CONNECTED,
        name: name(80),
        peer: name(9),
        ..ReportedSocket::default()
    });
    files.add(5, libc::S_IFREG, 1, libc::O_RDWR, "/a").info =
        "lock:\t1: POSIX  ADVISORY  WRITE 7 00:1:2 0 EOF\n".into();
    files.add(6, libc::S_IFREG, 1, libc::O_RDWR, "/a").info =
        "lock:\t1: FLOCK  ADVISORY  WRITE 7 00:1:2 0 EOF\n".into();
    let big = files.add(7, libc::S_IFREG, 3, libc::O_RDWR, "/b (deleted)");
    (big.is_unlinked, big.size, big.content) = (true, 1 << 20, content(1 << 20, b""));
    let carried = CarriedFiles::new(files.carried().unwrap()).unwrap();
    let was = losses::Was { files: &files.files, open: &files.open };
    let not_refused = |refuse| was.not_refused(&carried, Vec::new(), std::iter::empty(), refuse, 0);
    let losses = not_refused(Refuse::NONE).unwrap();
    let told: Vec<_> = losses.iter().map(|loss| (loss.kind, &loss.fds[..], &*loss.was)).collect();
    let wanted: [(LossKind, &[u32], &str); 5] = [
        (LossKind::Pipes, &[3], "pipe:[9], to read from"),
        (LossKind::Connections, &[4], "a connection from 127.0.0.1:80 to 127.0.0.1:9"),
        (LossKind::Locks, &[5], "a lock on /a"),
        (LossKind::Locks, &[6], "a lock on /a"),
        (LossKind::Unnamed, &[7], "/b without a name, of 1048576 bytes; 256 KiB travel"),
    ];
    assert_eq!(told, wanted);
    for (kind, fds, text) in wanted {
        let refused = not_refused(Refuse::NONE.and(kind)).unwrap_err().to_string();
        let named = format!("descriptor {}, {text}", fds[0]);
        assert!(refused.contains(&named) && refused.contains(kind.name()), "{refused}");
        let others = LossKind::ALL.into_iter().filter(|other| *other != kind);
        assert!(!others.clone().any(|other| refused.contains(&format!("({})", other.name()))));
    }
    assert!(not_refused(Refuse::NONE.and(LossKind::Devices)).is_ok());
}
