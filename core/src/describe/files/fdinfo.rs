//! What proc_pid_fdinfo(5) tells of files that are no files: counters, timers, sets of signals and of files.

use std::collections::HashMap;

use crate::descriptor::FileKind;
use crate::descriptor::carried::{EpollWatch, NotCarried};

/// CLOCK_MONOTONIC, where the text does not tell.
const DEFAULT_CLOCK: u32 = 1;

/// An eventfd.
pub(super) fn event(info: &str) -> FileKind {
    let count = value(info, "eventfd-count").and_then(|text| u64::from_str_radix(text, 16).ok());
    let is_semaphore = value(info, "eventfd-semaphore").is_some_and(|text| text == "1");
    FileKind::Event { count: count.unwrap_or(0), is_semaphore }
}

/// A timerfd. What has expired and was not read stays to be read.
pub(super) fn timer(info: &str) -> FileKind {
    let number = |name| value(info, name).and_then(|text| text.parse::<u64>().ok());
    let time = |name| value(info, name).and_then(pair).unwrap_or(0);
    FileKind::Timer {
        clock: number("clockid").and_then(|clock| clock.try_into().ok()).unwrap_or(DEFAULT_CLOCK),
        left_ns: time("it_value"),
        interval_ns: time("it_interval"),
        ticks: number("ticks").unwrap_or(0),
    }
}

/// A signalfd.
pub(super) fn signals(info: &str) -> FileKind {
    let mask = value(info, "sigmask").and_then(|text| u64::from_str_radix(text, 16).ok());
    FileKind::Signals { mask: mask.unwrap_or(0) }
}

/// A watch of an inotify, as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) number: u32,
    pub(super) inode: u64,
    /// Major and minor of its file system.
    pub(super) device: (u32, u32),
    pub(super) mask: u32,
    /// Its handle, see open_by_handle_at(2): type and bytes.
    pub(super) handle: Option<(i32, Vec<u8>)>,
}

/// How many watches an inotify has, and those whose line is whole.
pub(super) fn watched(info: &str) -> (u32, Vec<Watched>) {
    let all: Vec<&str> = lines(info).filter(|line| line.starts_with("inotify wd:")).collect();
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
    (count, all.into_iter().filter_map(one_watched).collect())
}

/// `inotify wd:2 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6d`;
/// the numbers are hexadecimal.
fn one_watched(line: &str) -> Option<Watched> {
    const MINOR_BITS: u32 = 20;
    let field = |name: &str| {
        let mut words = line.split_ascii_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix(':'))
    };
    let number = |name| u64::from_str_radix(field(name)?, 16).ok();
    let short = |name| u32::try_from(number(name)?).ok();
    let device = short("sdev")?;
    let handle = field("f_handle").and_then(|text| {
        let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
        let bytes = digits.map(|pair| u8::from_str_radix(pair?, 16).ok());
        Some((short("fhandle-type")?.cast_signed(), bytes.collect::<Option<Vec<u8>>>()?))
    });
    Some(Watched {
        number: short("wd")?,
        inode: number("ino")?,
        device: (device >> MINOR_BITS, device & ((1 << MINOR_BITS) - 1)),
        mask: short("mask")?,
        handle,
    })
}

/// A pidfd: of the process itself, whose id is `own`, or of another one.
pub(super) fn process(info: &str, own: u32) -> FileKind {
    match value(info, "Pid").and_then(|text| text.parse().ok()) == Some(own) {
        true => FileKind::OwnProcess,
        false => FileKind::Closed(NotCarried::Process),
    }
}

/// The number of the pseudo-terminal whose master it is.
pub(super) fn terminal(info: &str) -> Option<u32> {
    value(info, "tty-index").and_then(|text| text.parse().ok())
}

/// Locks and leases that this very open file holds: flock(2)'s, and fcntl(2)'s of open file descriptions.
pub(super) fn locks(info: &str) -> usize {
    lines(info).filter(|line| line.starts_with("lock:")).count()
}

/// An epoll. `by_another` tells by which number a file is open that was registered by one that leads elsewhere by now, the
/// so-manieth of that number. `leads` tells whether a number still leads to the inode that was registered by it, for where the kernel does not tell
/// more: of what cannot be told apart then, the first counts.
pub(super) fn epoll(
    info: &str,
    leads: &dyn Fn(u32, u64) -> bool,
    by_another: &dyn Fn(u32, u32) -> Option<u32>,
) -> FileKind {
    let mut watches: Vec<(EpollWatch, u32)> = Vec::new();
    let mut seen: HashMap<u32, u32> = HashMap::new();
    for (watch, inode) in lines(info).filter_map(watch) {
        let nth = seen.entry(watch.fd).or_default();
        let by = by_another(watch.fd, *nth);
        *nth += 1;
        let is_itself = || {
            let is_known =
                watches.iter().any(|(known, by)| (known.fd, *by) == (watch.fd, watch.fd));
            !is_known && inode.is_none_or(|inode| leads(watch.fd, inode))
        };
        let by = by.or_else(|| is_itself().then_some(watch.fd));
        watches.extend(by.map(|by| (watch, by)));
    }
    match watches.iter().all(|(watch, by)| watch.fd == *by) {
        true => FileKind::Epoll { watches: watches.into_iter().map(|(watch, _)| watch).collect() },
        false => FileKind::EpollOfOthers { watches },
    }
}

/// `tfd:        5 events:       19 data: ffffffffffffffff  pos:0 ino:61af sdev:7`
fn watch(line: &str) -> Option<(EpollWatch, Option<u64>)> {
    let rest = line.strip_prefix("tfd:")?;
    let (fd, rest) = rest.split_once("events:")?;
    let (events, rest) = rest.split_once("data:")?;
    let data = rest.split_ascii_whitespace().next()?;
    let inode = rest.split_once("ino:").and_then(|(_, rest)| rest.split_ascii_whitespace().next());
    let watch = EpollWatch {
        fd: fd.trim().parse().ok()?,
        events: u32::from_str_radix(events.trim(), 16).ok()?,
        data: u64::from_str_radix(data, 16).ok()?,
    };
    Some((watch, inode.and_then(|inode| u64::from_str_radix(inode, 16).ok())))
}

/// Whole lines: one without its end was cut off, and its numbers are others than the kernel's.
fn lines(info: &str) -> impl Iterator<Item = &str> {
    info.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

/// The text behind `name:`.
fn value<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    lines(info).find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// `(seconds, nanoseconds)` in ns.
fn pair(text: &str) -> Option<u64> {
    let (seconds, rest) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let (seconds, rest) = (seconds.trim().parse::<u64>().ok()?, rest.trim().parse::<u64>().ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_as_the_kernel_writes_them() {
        let info = "pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t37\neventfd-count:               1f\n\
                    eventfd-id: 3\neventfd-semaphore: 1\n";
        assert_eq!(event(info), FileKind::Event { count: 31, is_semaphore: true });
        let info = "clockid: 0\nticks: 2\nsettime flags: 01\nit_value: (1, 49406829)\nit_interval: (3, 0)\n";
        let (left_ns, interval_ns) = (1_049_406_829, 3_000_000_000);
        assert_eq!(timer(info), FileKind::Timer { clock: 0, left_ns, interval_ns, ticks: 2 });
        assert_eq!(signals("sigmask:\t0000000000000a02\n"), FileKind::Signals { mask: 0xa02 });
        let info = "pos:\t0\ntfd:        5 events:       19 data: fffffffffffffffe  pos:0 ino:61af sdev:7\n\
                    tfd:       12 events: 80000001 data:                c  pos:0 ino:1 sdev:7\n";
        let watches = vec![
            EpollWatch { fd: 5, events: 0x19, data: u64::MAX - 1 },
            EpollWatch { fd: 12, events: 0x8000_0001, data: 12 },
        ];
        assert_eq!(
            epoll(info, &|_, _| true, &|_, _| None),
            FileKind::Epoll { watches: watches.clone() }
        );
        // A number that leads elsewhere by now, and one that was registered twice.
        let first = watches[..1].to_vec();
        let is_first = |fd: u32, inode: u64| fd == 5 && inode == 0x61af;
        assert_eq!(epoll(info, &is_first, &|_, _| None), FileKind::Epoll { watches: first });
        let twice = format!("{info}{info}");
        assert_eq!(
            epoll(&twice, &|_, _| true, &|_, _| None),
            FileKind::Epoll { watches: watches.clone() }
        );
        // Of two by one number, the second is open by another.
        let by_another = |fd: u32, nth: u32| ((fd, nth) == (5, 1)).then_some(9);
        let with = vec![(watches[0], 5), (watches[1], 12), (watches[0], 9)];
        let expected = FileKind::EpollOfOthers { watches: with };
        assert_eq!(epoll(&twice, &|_, _| true, &by_another), expected);
        let info = "inotify wd:1a ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 \
                    fhandle-type:1 f_handle:7e9e0000640d1b6d\ninotify wd:2 ino:1\n";
        let handle = Some((1, vec![0x7e, 0x9e, 0, 0, 0x64, 0x0d, 0x1b, 0x6d]));
        let (number, inode, device, mask) = (0x1a, 0x9e7e, (8, 0x13), 0x800_afce);
        let first = Watched { number, inode, device, mask, handle };
        assert_eq!(watched(info), (2, vec![first]));
    }

    #[test]
    fn a_line_that_is_cut_off_is_none() {
        let info = "tfd: 5 events: 19 data: 5\ntfd: 6 events: 19 data: 7fff";
        let FileKind::Epoll { watches } = epoll(info, &|_, _| true, &|_, _| None) else {
            panic!("no epoll")
        };
        assert_eq!(watches, [EpollWatch { fd: 5, events: 0x19, data: 5 }]);
        assert_eq!(event("eventfd-count: 1"), event(""));
    }

    #[test]
    fn watches_without_a_handle() {
        let info = "inotify wd:1 ino:2 sdev:15 mask:100 ignored_mask:0 \n";
        let (count, watches) = watched(info);
        assert_eq!((count, watches[0].device, watches[0].handle.as_ref()), (1, (0, 0x15), None));
    }

    #[test]
    fn texts_of_other_kernels_are_defaults() {
        assert_eq!(event(""), FileKind::Event { count: 0, is_semaphore: false });
        let none = FileKind::Timer { clock: 1, left_ns: 0, interval_ns: 0, ticks: 0 };
        assert_eq!(timer("it_value: (18446744073709551615, 1)\nclockid: x"), none);
        assert_eq!(
            epoll("tfd: 5\ntfd: x events: 1 data: 1\n", &|_, _| true, &|_, _| None),
            FileKind::Epoll { watches: vec![] }
        );
    }
}
