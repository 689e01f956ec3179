//! Steps of small tables, line by line.

use super::*;
use crate::descriptor::carried::{EpollWatch, Listening};
use crate::descriptor::{CarriedFile, FileKind, Number};
use crate::resume::program::Arg;

fn file(fds: &[u32], flags: u32, kind: FileKind) -> CarriedFile {
    let number = |fd: &u32| Number { fd: *fd, close_on_exec: fd % 2 == 1 };
    CarriedFile { numbers: fds.iter().map(number).collect(), flags, kind }
}

fn pipe(fd: u32, writes: bool, other: Option<u32>, content: &[u8]) -> CarriedFile {
    let (capacity, content) = (4096, content.to_vec());
    file(&[fd], 0o4000, FileKind::Pipe { writes, other, capacity, content })
}

fn listener(fd: u32) -> CarriedFile {
    let kind = FileKind::Listener(Listening {
        domain: 2,
        socket_type: 1,
        protocol: 6,
        address: vec![2, 0, 0, 80, 0, 0, 0, 0],
        backlog: Some(9),
        reuse_address: true,
        reuse_port: false,
        v6_only: false,
        no_delay: false,
        keep_alive: false,
    });
    file(&[fd], 0o4002, kind)
}

fn steps(files: Vec<CarriedFile>, given: &[u32]) -> Vec<String> {
    steps_after(files, given, 0)
}

fn steps_after(files: Vec<CarriedFile>, given: &[u32], passed_ns: u64) -> Vec<String> {
    let plan = FilePlan::of(&CarriedFiles::new(files).unwrap());
    let ops = plan.make(4, 3, given, passed_ns, None).into_iter().chain(plan.close_helpers());
    ops.map(|op| op.to_string()).collect()
}

#[test]
fn what_was_the_templates_moves_out_of_the_way_and_is_closed_last() {
    let event = |fds: &[u32]| file(fds, 2, FileKind::Event { count: 5, is_semaphore: true });
    assert_eq!(
        steps(vec![event(&[3, 64, 65])], &[]),
        [
            "the command socket moves to 66",
            "dup3(7, 67, 0x80000) = 0x43",
            "close_range(3, 63)",
            "dup3(67, 3 64-65, O_CLOEXEC) (may fail)",
            "3 O_CLOEXEC = eventfd2(5, 1)",
            "dup3(3, 64, 0) = 0x40",
            "dup3(3, 65, 0x80000) = 0x41",
            "close(67)",
            "close(66)",
        ]
    );
}

#[test]
fn a_socket_that_may_not_be_there_takes_no_flags_then() {
    let (domain, socket_type, protocol, connected_to) = (40, 1, 0, None);
    let kind = FileKind::Socket { domain, socket_type, protocol, connected_to };
    let steps = steps(vec![file(&[4], 0o4002, kind)], &[]);
    assert_eq!(steps[4..6], ["4 = socket(40, 1, 0) (may fail)", "fcntl(4, 4, 2048) (may fail)"]);
}

#[test]
fn a_bound_unix_socket_is_of_its_own_type_where_it_is_not_given() {
    let bound = |domain, socket_type| {
        let mut file = listener(4);
        let FileKind::Listener(listening) = &mut file.kind else { panic!() };
        (listening.domain, listening.socket_type, listening.backlog) = (domain, socket_type, None);
        steps(vec![file], &[])
    };
    for (domain, socket_type, becomes) in [(1, 1, 1), (1, 2, 2), (1, 5, 5), (2, 1, 1)] {
        let made = format!("4 = socket(1, {becomes}, 0)");
        assert!(bound(domain, socket_type).contains(&made), "{domain} {socket_type}");
    }
}

#[test]
fn both_ends_of_a_pipe_are_made_at_once_and_filled() {
    let steps = steps(vec![pipe(4, true, Some(1), b""), pipe(8, false, Some(0), b"four")], &[]);
    let made = [
        "8, 4 = pipe2(2048)",
        "fcntl(4, 1031, 0x1000) (may fail)",
        "write(4, <4 bytes>, 4) = 0x4",
        "close(65)",
        "close(64)",
    ];
    assert_eq!(steps[4..], made);
}

#[test]
fn an_end_whose_other_one_was_elsewhere_has_ended() {
    let steps = steps(vec![pipe(4, false, None, b"rest")], &[]);
    // Its number is taken, or what is made might be given it at once.
    let made = [
        "dup3(65, 66, 0x80000) = 0x42",
        "4, 66 O_CLOEXEC = pipe2(2048)",
        "fcntl(66, 1031, 0x1000) (may fail)",
        "write(66, <4 bytes>, 4) = 0x4",
        "close(66)",
    ];
    assert_eq!(steps[4..9], made);
}

#[test]
fn a_path_is_neither_made_nor_emptied() {
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND | libc::O_EXCL;
    let kind = FileKind::Path { path: "/a".to_owned(), position: 7 };
    let steps = steps(vec![file(&[4], flags.cast_unsigned(), kind)], &[]);
    let how = libc::O_WRONLY | libc::O_APPEND | libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = format!("4 = openat(0xffffffffffffff9c, <3 bytes>, {how}, 0) (may fail)");
    let made = [opened.as_str(), "lseek(4, 7, 0) (may fail)", "fcntl(4, 4, 1024) (may fail)"];
    assert_eq!(steps[4..7], made);
}

#[test]
fn a_listener_is_the_one_that_came_along_or_one_that_nobody_knows() {
    let files = || vec![listener(5), listener(6)];
    let (none, second) = (steps(files(), &[]), steps(files(), &[1]));
    let stand_in = [
        "5 O_CLOEXEC = socket(1, 1, 0)",
        "bind(5, <2 bytes>, 2)",
        "listen(5, 9)",
        "fcntl(5, 4, 2048) (may fail)",
    ];
    assert_eq!(none[6..10], stand_in);
    // What comes along moves first; each listener is as many steps either way.
    assert_eq!(second[2], "dup3(8, 67, 0x80000) = 0x43");
    assert_eq!(second[6..10], stand_in);
    let given =
        ["dup3(67, 6, 0) = 0x6", "close(67)", "fcntl(6, 4, 2048)", "fcntl(6, 4, 2048) (may fail)"];
    assert_eq!(second[10..14], given);
    assert_eq!(second.len(), none.len());
}

#[test]
fn epolls_watch_what_is_there() {
    let watch = |fd| EpollWatch { fd, events: 1, data: 2 };
    let watches = vec![watch(0), watch(4), watch(6), watch(9)];
    let closed = FileKind::Closed(crate::descriptor::carried::NotCarried::Process);
    let files = vec![
        file(&[4], 0, FileKind::Signals { mask: 1 }),
        file(&[5], 0, FileKind::Epoll { watches }),
        file(&[6], 0, closed),
    ];
    let steps = steps(files, &[]);
    let made = [
        "4 = signalfd4(-1, <8 bytes>, 8, 0)",
        "5 O_CLOEXEC = epoll_create1(0)",
        "epoll_ctl(5, 1, 0, <12 bytes>) (may fail)",
        "epoll_ctl(5, 1, 4, <12 bytes>)",
    ];
    assert_eq!(steps[4..8], made);
    assert_eq!(steps.len(), 10);
}

#[test]
fn a_number_that_is_watched_by_is_lent() {
    let watch = |fd| EpollWatch { fd, events: 1, data: 2 };
    let watches = vec![(watch(6), 4), (watch(70), 4)];
    let files = vec![
        file(&[4], 0, FileKind::Signals { mask: 1 }),
        file(&[5], 0, FileKind::EpollOfOthers { watches }),
        file(&[6, 7], 0, FileKind::Event { count: 0, is_semaphore: false }),
    ];
    let steps = steps(files, &[]);
    let at = steps
        .iter()
        .position(|step| step.starts_with("7 O_CLOEXEC = ") || step.contains(", 7, "))
        .unwrap();
    let lent = [
        "dup3(6, 66, 0x80000) = 0x42",
        "dup3(4, 6, 0) = 0x6",
        "epoll_ctl(5, 1, 6, <12 bytes>)",
        "dup3(66, 6, 0) = 0x6",
        "close(66)",
        "dup3(4, 70, 0) = 0x46",
        "epoll_ctl(5, 1, 70, <12 bytes>)",
        "close(70)",
    ];
    assert_eq!(steps[at + 1..at + 9], lent);
}

#[test]
fn packets_are_written_one_by_one() {
    let direct = libc::O_DIRECT.cast_unsigned();
    let (capacity, content) = (4096, b"onefour".to_vec());
    let packets = FileKind::Packets { other: Some(1), capacity, content, lengths: vec![3, 4] };
    let writer = FileKind::Pipe { writes: true, other: Some(0), capacity, content: Vec::new() };
    let steps = steps(vec![file(&[4], 0, packets), file(&[6], 1 | direct, writer)], &[]);
    let at = steps.iter().position(|step| step.starts_with("write(")).unwrap();
    let filled = [
        "fcntl(6, 4, 0x4800)".to_owned(),
        "write(6, <3 bytes>, 3) = 0x3".to_owned(),
        "write(6, <4 bytes>, 4) = 0x4".to_owned(),
        "fcntl(6, 4, 2048)".to_owned(),
    ];
    assert_eq!(steps[at - 1..at + 3], filled);
}

#[test]
fn a_timer_that_has_expired_expires_at_once() {
    let timer = |left_ns, ticks| {
        let kind = FileKind::Timer { clock: 9, left_ns, interval_ns: 0, ticks };
        steps(vec![file(&[4], 0, kind)], &[])
    };
    assert_eq!(timer(0, 0)[4..5], ["4 = timerfd_create(7, 0)"]);
    assert_eq!(timer(0, 0).len(), 7);
    assert_eq!(timer(0, 3)[5], "timerfd_settime(4, 0, <32 bytes>, 0)");
    assert!(timer(0, 3)[6].starts_with("ioctl(4, "));
    assert_eq!(timer(9, 0).len(), 9);
}

/// One that goes on meanwhile (`clock=live`) has expired as often as it would have.
#[test]
fn time_passes_for_a_timer() {
    let timer = |left_ns, interval_ns, passed_ns| {
        let kind = FileKind::Timer { clock: 1, left_ns, interval_ns, ticks: 2 };
        let plan = FilePlan::of(&CarriedFiles::new(vec![file(&[4], 0, kind)]).unwrap());
        let mut numbers = Vec::new();
        for op in plan.make(4, 3, &[], passed_ns, None) {
            let Op::Syscall { name, args, .. } = op else { continue };
            let bytes = args.into_iter().find_map(|arg| match arg {
                Arg::Bytes(bytes) if matches!(name, "timerfd_settime" | "ioctl") => Some(bytes),
                _ => None,
            });
            numbers.extend(bytes.into_iter().flat_map(|bytes| {
                let (words, _) = bytes.as_chunks::<8>();
                words.iter().map(|word| u64::from_le_bytes(*word)).collect::<Vec<_>>()
            }));
        }
        numbers
    };
    // Interval s and ns, left s and ns; expirations.
    assert_eq!(timer(100, 0, 40), [0, 0, 0, 60, 2]);
    assert_eq!(timer(100, 0, 100), [0, 0, 0, 1, 3]);
    assert_eq!(timer(100, 30, 165), [0, 30, 0, 25, 5]);
    assert_eq!(timer(0, 30, 165), [0, 30, 0, 1, 2], "it had expired, and was not read");
}

#[test]
fn a_bound_datagram_socket_that_is_not_given_is_bound_nowhere() {
    let mut bound = listener(4);
    let FileKind::Listener(listening) = &mut bound.kind else { panic!() };
    (listening.socket_type, listening.protocol, listening.backlog) = (2, 17, None);
    let steps = steps(vec![bound], &[]);
    assert_eq!(steps[5], "4 = socket(2, 2, 17) (may fail)");
    assert!(!steps.iter().any(|step| step.starts_with("bind(")), "{steps:?}");
    assert_eq!(steps.len(), self::steps(vec![listener(4)], &[]).len());
}

#[test]
fn a_place_is_opened_without_following_it() {
    let kind = FileKind::Path { path: "/a".to_owned(), position: 0 };
    let steps = steps(vec![file(&[4], libc::O_PATH.cast_unsigned(), kind)], &[]);
    let how = libc::O_PATH | libc::O_NOFOLLOW;
    assert_eq!(
        steps[4],
        format!("4 = openat(0xffffffffffffff9c, <3 bytes>, {how:#x}, 0) (may fail)")
    );
    assert_eq!(steps.len(), 7);
}

#[test]
fn a_pipe_to_read_and_to_write_is_opened_once_more() {
    let kind = FileKind::ReadWritePipe { capacity: 4096, content: b"ab".to_vec() };
    let steps = steps(vec![file(&[4], 2, kind)], &[]);
    let made = [
        "dup3(65, 66, 0x80000) = 0x42",
        "4, 66 O_CLOEXEC = pipe2(2048)",
        "fcntl(66, 1031, 0x1000) (may fail)",
        "write(66, <2 bytes>, 2) = 0x2",
        "close(66)",
    ];
    assert_eq!(steps[4..9], made);
    assert!(steps[9].starts_with("4 = openat(") && steps[10] == "fcntl(4, 4, 0) (may fail)");
}

#[test]
fn a_slave_is_made_when_its_master_is_there() {
    use crate::descriptor::carried::{TERMIOS_BYTES, Terminal, WINSIZE_BYTES};
    let terminal =
        |master, settings| FileKind::Terminal(Terminal { master, is_hung_up: false, settings });
    let settings = vec![0; TERMIOS_BYTES + WINSIZE_BYTES];
    let files = vec![
        file(&[4], 2, terminal(Some(1), Vec::new())),
        file(&[6], 2, terminal(None, settings)),
        file(&[8], 2, FileKind::OwnProcess),
    ];
    let made = [
        "6 = openat(0xffffffffffffff9c, <10 bytes>, 258, 0) (may fail)",
        "ioctl(6, 0x40045431, <4 bytes>) (may fail)",
        "ioctl(6, 0x5402, <36 bytes>) (may fail)",
        "ioctl(6, 0x5414, <8 bytes>) (may fail)",
        "8 = pidfd_open(0, 0)",
        "4 = ioctl(6, 0x5441, 258) (may fail)",
    ];
    assert_eq!(steps(files, &[])[4..10], made);
}
