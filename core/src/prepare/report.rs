//! The seed's report: what the frozen process tells the agent about itself, once, with its
//! `/proc/self/{mem,pagemap,smaps}` descriptors.
//!
//! ```text
//! "MITOSEED" u32 version   then records: u16 tag  u16 0  u32 len  len bytes
//! ```
//!
//! Written without allocation on the seed's scratch memory ([`ReportWriter`]); read by the agent
//! ([`parse`]). All numbers little-endian; unknown tags are passed over.

use super::reported::{self, ReportedFile};
use crate::descriptor::addr::SeedRange;
use crate::descriptor::process::{RESOURCE_LIMITS, SIGNALS};
use crate::descriptor::state::{CORE_FILTER, MEMORY_FAILURE};
use crate::descriptor::treatment::SPECULATIONS;
use crate::descriptor::{
    Clocks, Credentials, Groups, MmLayout, OpenFile, PendingSignals, Process, Refuse, ResumeArea,
    Rights, Rseq, Sched, SeedAddr, SignalAction, State, Thread, ThreadState, Treatment, Whole,
};

/// First bytes.
pub const MAGIC: [u8; 8] = *b"MITOSEED";
/// Version of the records' contents; both ends come from one installation, others are refused.
pub const VERSION: u32 = 2;
/// A report is never longer.
pub const MAX_REPORT_BYTES: usize = 1 << 20;

/// Records.
pub mod tag {
    /// 14 x u64 (tid, tid address, frame, fs base, gs base, robust head, robust len, rseq addr, rseq len,
    /// rseq signature, altstack base, flags, size, 0), then the name's bytes. Once for each thread.
    pub const THREAD: u16 = 1;
    /// 11 x u64: code start, end; data start, end; brk start, now; stack; args start, end; env start, end.
    pub const LAYOUT: u16 = 2;
    /// The auxiliary vector.
    pub const AUXV: u16 = 3;
    /// 64 x 4 u64: handler, flags, restorer, mask.
    pub const SIGNAL_ACTIONS: u16 = 4;
    /// Path.
    pub const CWD: u16 = 5;
    /// Path.
    pub const EXE: u16 = 6;
    /// 4 x u64: parent's pid, umask, personality, generation of the parent (0: never forked).
    pub const SCALARS: u16 = 7;
    /// 16 x 2 u64.
    pub const LIMITS: u16 = 8;
    /// u64 fd, flags, position, then the link's bytes. Once for each descriptor.
    pub const OPEN_FILE: u16 = 9;
    /// u64 address of the `ResumeInfo`.
    pub const RESUME_AREA: u16 = 10;
    /// u64 start, end: memory of libmitosis's that no child has. May stand several times.
    pub const NOT_CARRIED: u16 = 11;
    /// u64 start, end, copy: a shared VMA and the address of its copy made at prepare.
    pub const SHARED_COPY: u16 = 12;
    /// 3 x 4 u64: ITIMER_REAL, VIRTUAL, PROF of the parent.
    pub const TIMERS: u16 = 13;
    /// u64: threads in the seed beside the one that reports (a handler started them): refused; then the
    /// text for people.
    pub const FOREIGN_THREADS: u16 = 14;
    /// Text: why this process cannot be a seed (a shared VMA too large, ...). Refused with it.
    pub const REFUSED: u16 = 15;
    /// 5 x u64: tid, policy, priority, nice (sign-extended), SCHED_FLAG_*. Of a whole process, once for each
    /// thread, in the order of [`THREAD`].
    pub const SCHED: u16 = 16;
    /// u64 address of the u32 at which the threads of a whole process wait in a child.
    pub const GATE: u16 = 17;
    /// u64 start, end: memory that the parent had marked MADV_DONTFORK. May stand several times.
    pub const DONT_FORK: u16 = 18;
    /// 9 x u64: fd, mode, device, inode, size, rdev, FD_CLOEXEC, pipe's capacity or file's seals, 1 if it has no
    /// name; then the text of its fdinfo. Once for each descriptor, where files are carried.
    pub const FILE: u16 = 24;
    /// 3 x u64: fd, bytes that lie in it, 1 if descriptors do, too, and above this bit how many packets they are, if they are
    /// several; then the bytes, and a u32 for the length of each packet. Behind its `FILE`.
    pub const CONTENT: u16 = 25;
    /// 8 x u64: fd, domain, type, protocol, bits, backlog, peer's inode, length of its name; then name and
    /// peer as addresses. Behind its `FILE`.
    pub const SOCKET: u16 = 26;
    /// 2 x u64: fd, and a lower one that leads to the same open file description. Behind all `FILE`s.
    pub const SAME_FILE: u16 = 27;
    /// u64 address where children are told what they have lost, and `Refuse::bits`. Where files are carried.
    pub const LOSSES: u16 = 28;
    /// Nothing: the caller has a cookie of core scheduling.
    pub const CORE_COOKIE: u16 = 29;
    /// u64 fd, then its `struct termios` and `struct winsize`. Behind its `FILE`.
    pub const TERMINAL: u16 = 30;
    /// 12 x u64: CLOCK_MONOTONIC and CLOCK_BOOTTIME at the freeze, ns; 1 if it is not dumpable; no_new_privs;
    /// THP disabled; MDWE; membarrier registrations; dynamic vector components permitted; keepcaps; PR_MCE_KILL_GET;
    /// oom_score_adj (sign-extended); coredump_filter.
    pub const STATE: u16 = 40;
    /// 3 x u64: ioprio (0: none), timer slack ns, 1 if AMX tiles lie in its frame. Once for each thread, in the order of [`THREAD`].
    pub const THREAD_STATE: u16 = 41;
    /// 4 x u64: policy, priority, nice (sign-extended), SCHED_FLAG_*. Of the caller, if it is no whole process.
    pub const OWN_SCHED: u16 = 42;
    /// 14 x u64: user ids and group ids (real, effective, saved, of file accesses); inheritable, permitted, effective,
    /// bounding and ambient capabilities, secure bits without keepcaps; then a u32 for each supplementary group.
    pub const CREDENTIALS: u16 = 43;
    /// u64 start, end: memory that the parent had locked; all of it that lies between and is not mapped is none. Of a
    /// whole process alone, as fork(2) drops locks. May stand several times.
    pub const LOCKED: u16 = 50;
    /// u64: the flags of mlockall(2) that hold for memory to come. Of a whole process alone.
    pub const LOCKS_FUTURE: u16 = 51;
    /// 3 x u64: tid (0: the process), address of the first siginfo_t, how many: pending signals. Of a whole process alone.
    /// May stand several times.
    pub const PENDING: u16 = 52;
    /// 4 x u64: an epoll's fd, a number that it watches by, which of those that it watches by this number (from 0), and the
    /// fd that the file is open by, which is another. Behind all `FILE`s.
    pub const WATCHED_BY: u16 = 53;
    /// 5 x u64: PR_GET_MEMORY_MERGE, PR_GET_IO_FLUSHER, and what PR_GET_SPECULATION_CTRL says of each kind.
    pub const TREATMENT: u16 = 54;
}

/// Everything that a report says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Threads, the caller of prepare first.
    pub threads: Vec<Thread>,
    /// Process-wide state.
    pub process: Process,
    /// More of it.
    pub state: State,
    /// What it has asked of the kernel.
    pub treatment: Treatment,
    /// The caller shares its core with nobody but those of its cookie.
    pub has_core_cookie: bool,
    /// Whom it is taken for, as its own user namespace numbers it.
    pub credentials: Option<Credentials>,
    /// Its root directory as the agent sees it, if that is another one; told by nobody but the agent.
    pub root: Option<String>,
    /// Open descriptors of the parent.
    pub open_files: Vec<OpenFile>,
    /// What is known of each of them, where they are carried: not empty, for 0, 1 and 2 stand here, too, or
    /// the files are not carried.
    pub files: Option<Vec<ReportedFile>>,
    /// Where the child's libmitosis looks.
    pub resume_area: ResumeArea,
    /// Ranges that are not carried.
    pub not_carried: Vec<SeedRange>,
    /// Shared memory and where its copy lies.
    pub shared_copies: Vec<(SeedRange, SeedAddr)>,
    /// What makes it a whole process, if it is one.
    pub whole: Option<Whole>,
    /// Memory that the parent had marked MADV_DONTFORK, and that a child must mark again.
    pub dont_fork: Vec<SeedRange>,
    /// Memory that a child must lock again.
    pub locked: Vec<SeedRange>,
    /// MCL_FUTURE and MCL_ONFAULT, or 0.
    pub locks_future: u32,
    /// Signals that wait for the process and its threads.
    pub pending: Vec<PendingSignals>,
    /// Where children are told of losses; 0: nowhere.
    pub losses_area: SeedAddr,
    /// Losses with which there is to be no seed.
    pub refuse: Refuse,
    /// Generation of the parent.
    pub generation: u64,
    /// Why there can be no seed.
    pub refused: Option<String>,
}

/// Writes records into memory that the caller owns; never allocates.
#[derive(Debug)]
pub struct ReportWriter<'a> {
    buffer: &'a mut [u8],
    written: Written,
}

/// How far a writer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    len: usize,
    overflow: bool,
}

impl<'a> ReportWriter<'a> {
    /// A writer that has put the magic and version.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        let mut writer = ReportWriter { buffer, written: Written::default() };
        writer.put(&MAGIC);
        writer.put(&VERSION.to_le_bytes());
        writer
    }

    /// One that goes on in a buffer where another one has stopped.
    pub fn after(buffer: &'a mut [u8], written: Written) -> Self {
        ReportWriter { buffer, written }
    }

    /// How far this one is.
    pub fn written(&self) -> Written {
        self.written
    }

    /// As when it was so far: what was written since is not.
    pub fn go_back(&mut self, written: Written) {
        self.written = written;
    }

    /// One record of `numbers` and then `bytes`.
    pub fn record(&mut self, tag: u16, numbers: &[u64], bytes: &[u8]) {
        let len = numbers.len() * 8 + bytes.len();
        self.put(&tag.to_le_bytes());
        self.put(&[0, 0]);
        self.put(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        for number in numbers {
            self.put(&number.to_le_bytes());
        }
        self.put(bytes);
    }

    /// One record of `numbers` and then what `fill` writes into the room that it is given; it answers how much.
    /// The numbers can be changed by then.
    pub fn record_filled(
        &mut self,
        tag: u16,
        numbers: &mut [u64],
        fill: &mut dyn FnMut(&mut [u64], &mut [u8]) -> usize,
    ) {
        let head = 8 + numbers.len() * 8;
        let at = self.written.len;
        let Some(room) = self.buffer.get_mut(at + head..) else {
            self.written.overflow = true;
            return;
        };
        let filled = fill(numbers, room).min(room.len());
        self.record(tag, numbers, &[]);
        let len = u32::try_from(numbers.len() * 8 + filled).unwrap_or(u32::MAX).to_le_bytes();
        if let Some(place) = self.buffer.get_mut(at + 4..at + 8) {
            place.copy_from_slice(&len);
        }
        self.written.len += filled;
    }

    /// Bytes written; `None` if they did not fit.
    pub fn finish(self) -> Option<usize> {
        (!self.written.overflow).then_some(self.written.len)
    }

    fn put(&mut self, bytes: &[u8]) {
        let len = self.written.len;
        match self.buffer.get_mut(len..len + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.written.len += bytes.len();
            }
            None => self.written.overflow = true,
        }
    }
}

/// Why bytes are no report.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReportError {
    /// Another program, or another version of libmitosis.
    #[error(
        "the seed's libmitosis speaks another version than this agent (install one version of both)"
    )]
    Version,
    /// A record is cut off or too short for its tag.
    #[error("the seed's report is broken at byte {at} (record {tag})")]
    Broken {
        /// Byte offset of the record.
        at: usize,
        /// Its tag.
        tag: u16,
    },
}

/// Parses a report.
///
/// # Errors
/// Another version, or a record that is cut off.
pub fn parse(bytes: &[u8]) -> Result<Report, ReportError> {
    let body = bytes.strip_prefix(&MAGIC).ok_or(ReportError::Version)?;
    let body = body.strip_prefix(&VERSION.to_le_bytes()).ok_or(ReportError::Version)?;
    let mut report = Report::default();
    let mut rest = body;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let header: &[u8; 8] = rest.first_chunk().ok_or(ReportError::Broken { at, tag: 0 })?;
        let tag = u16::from_le_bytes([header[0], header[1]]);
        let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let record = rest.get(8..8 + len).ok_or(ReportError::Broken { at, tag })?;
        take(&mut report, tag, record).ok_or(ReportError::Broken { at, tag })?;
        rest = &rest[8 + len..];
    }
    Ok(report)
}

fn take(report: &mut Report, tag: u16, record: &[u8]) -> Option<()> {
    match tag {
        tag::THREAD => report.threads.push(thread(record)?),
        tag::LAYOUT => report.process.layout = layout(&numbers(record, 11)?),
        tag::AUXV => report.process.auxv = record.to_vec(),
        tag::SIGNAL_ACTIONS => {
            report.process.signal_actions = numbers(record, 4 * SIGNALS)?
                .chunks_exact(4)
                .map(|a| SignalAction { handler: a[0], flags: a[1], restorer: a[2], mask: a[3] })
                .collect();
        }
        tag::CWD => report.process.cwd = text(record),
        tag::EXE => report.process.exe = text(record),
        tag::SCALARS => {
            let n = numbers(record, 4)?;
            report.process.parent_pid = u32::try_from(n[0]).ok()?;
            report.process.umask = u32::try_from(n[1]).ok()?;
            report.process.personality = u32::try_from(n[2] & 0xffff_ffff).ok()?;
            report.generation = n[3];
        }
        tag::LIMITS => {
            let n = numbers(record, 2 * RESOURCE_LIMITS)?;
            report.process.limits = n.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        }
        tag::OPEN_FILE => {
            let n = numbers(record, 3)?;
            report.open_files.push(OpenFile {
                fd: u32::try_from(n[0]).ok()?,
                flags: u32::try_from(n[1]).ok()?,
                position: n[2],
                link: text(&record[24..]),
            });
        }
        tag::RESUME_AREA => report.resume_area.addr = SeedAddr(numbers(record, 1)?[0]),
        tag::NOT_CARRIED => {
            let n = numbers(record, 2)?;
            report.not_carried.push(range(n[0], n[1])?);
        }
        tag::SHARED_COPY => {
            let n = numbers(record, 3)?;
            report.shared_copies.push((range(n[0], n[1])?, SeedAddr(n[2])));
        }
        tag::TIMERS => {
            report.process.timers = numbers(record, 12)?
                .chunks_exact(4)
                .map(|timer| [timer[0], timer[1], timer[2], timer[3]])
                .collect();
        }
        tag::FOREIGN_THREADS => report.refused = Some(text(record.get(8..)?)),
        tag::REFUSED => report.refused = Some(text(record)),
        tag::FILE => report.files.get_or_insert_default().push(reported::file(record)?),
        tag::CONTENT => {
            let (fd, content) = reported::content(record)?;
            last_file(report, fd)?.content = Some(content);
        }
        tag::SOCKET => {
            let (fd, socket) = reported::socket(record)?;
            last_file(report, fd)?.socket = Some(socket);
        }
        tag::SAME_FILE => {
            let n = numbers(record, 2)?;
            let (fd, lower) = (u32::try_from(n[0]).ok()?, u32::try_from(n[1]).ok()?);
            let files = report.files.as_mut()?;
            files.iter_mut().find(|file| file.fd == fd)?.same_as = Some(lower);
        }
        tag::LOSSES => {
            let n = numbers(record, 2)?;
            (report.losses_area, report.refuse) = (SeedAddr(n[0]), Refuse::from_bits(n[1])?);
        }
        tag::TERMINAL => {
            let fd = u32::try_from(numbers(record, 1)?[0]).ok()?;
            last_file(report, fd)?.terminal = Some(record.get(8..)?.to_vec());
        }
        tag::SCHED => {
            report.whole.get_or_insert_default().sched.push(sched(record.get(8..)?)?);
        }
        tag::STATE => state(&mut report.state, &numbers(record, 12)?)?,
        tag::THREAD_STATE => {
            let n = numbers(record, 3)?;
            report.state.threads.push(ThreadState {
                io_priority: u32::try_from(n[0]).ok()?,
                timer_slack_ns: n[1],
                has_tiles: n[2] != 0,
            });
        }
        tag::OWN_SCHED => report.state.sched = sched(record)?,
        tag::CORE_COOKIE => report.has_core_cookie = true,
        tag::TREATMENT => {
            let n = numbers(record, 2 + SPECULATIONS)?;
            report.treatment = Treatment {
                merges_memory: n[0] != 0,
                is_io_flusher: n[1] != 0,
                speculation: std::array::from_fn(|kind| Treatment::decided(kind, n[2 + kind])),
            };
        }
        tag::CREDENTIALS => report.credentials = Some(credentials(record)?),
        tag::GATE => {
            report.whole.get_or_insert_default().gate = SeedAddr(numbers(record, 1)?[0]);
        }
        tag::DONT_FORK => {
            let n = numbers(record, 2)?;
            report.dont_fork.push(range(n[0], n[1])?);
        }
        tag::LOCKED => {
            let n = numbers(record, 2)?;
            report.locked.push(range(n[0], n[1])?);
        }
        tag::WATCHED_BY => {
            let n = numbers(record, 4)?;
            let word = |at: usize| u32::try_from(n[at]).ok();
            let (epoll, number, nth, by) = (word(0)?, word(1)?, word(2)?, word(3)?);
            let file = report.files.as_mut()?.iter_mut().find(|file| file.fd == epoll)?;
            file.watched_by.push((number, nth, by));
        }
        tag::PENDING => {
            let n = numbers(record, 3)?;
            let (tid, count) = (u32::try_from(n[0]).ok()?, u32::try_from(n[2]).ok()?);
            report.pending.push(PendingSignals { tid, at: SeedAddr(n[1]), count });
        }
        tag::LOCKS_FUTURE => {
            report.locks_future = u32::try_from(numbers(record, 1)?[0]).ok()?;
        }
        _ => {}
    }
    Some(())
}

/// The file that a record is about: the one that was told of last.
fn last_file(report: &mut Report, fd: u32) -> Option<&mut ReportedFile> {
    report.files.as_mut()?.last_mut().filter(|file| file.fd == fd)
}

fn thread(record: &[u8]) -> Option<Thread> {
    let n = numbers(record, 14)?;
    let rseq = (n[7] != 0).then_some(Rseq {
        addr: SeedAddr(n[7]),
        len: u32::try_from(n[8]).ok()?,
        signature: u32::try_from(n[9]).ok()?,
    });
    Some(Thread {
        tid: u32::try_from(n[0]).ok()?,
        tid_address: SeedAddr(n[1]),
        frame: SeedAddr(n[2]),
        fs_base: n[3],
        gs_base: n[4],
        robust_list: (SeedAddr(n[5]), n[6]),
        rseq,
        alt_stack: (SeedAddr(n[10]), u32::try_from(n[11]).ok()?, n[12]),
        name: record[14 * 8..].to_vec(),
    })
}

fn sched(record: &[u8]) -> Option<Sched> {
    let n = numbers(record, 4)?;
    Some(Sched {
        policy: u32::try_from(n[0]).ok()?,
        priority: u32::try_from(n[1]).ok()?,
        nice: i32::try_from(n[2].cast_signed()).ok()?,
        flags: n[3],
    })
}

fn credentials(record: &[u8]) -> Option<Credentials> {
    let n = numbers(record, 14)?;
    let word = |at: usize| u32::try_from(n[at]).ok();
    let ids = |at: usize| Some([word(at)?, word(at + 1)?, word(at + 2)?, word(at + 3)?]);
    let (list, rest) = record[14 * 8..].as_chunks::<4>();
    let mut supplementary: Vec<u32> = list.iter().map(|id| u32::from_le_bytes(*id)).collect();
    supplementary.sort_unstable();
    rest.is_empty().then_some(Credentials {
        users: ids(0)?,
        groups: Groups { ids: ids(4)?, supplementary },
        rights: Rights {
            inheritable: n[8],
            permitted: n[9],
            effective: n[10],
            bounding: n[11],
            ambient: n[12],
            secure_bits: word(13)?,
        },
    })
}

/// All but what stands in records of its own.
fn state(state: &mut State, n: &[u64]) -> Option<()> {
    let word = |at: usize| u32::try_from(n[at]).ok();
    state.frozen_at = Clocks { monotonic_ns: n[0].cast_signed(), boottime_ns: n[1].cast_signed() };
    (state.is_undumpable, state.no_new_privs) = (n[2] != 0, n[3] != 0);
    (state.thp_disable, state.deny_write_execute) = (word(4)?, word(5)?);
    (state.membarrier, state.vector_permits) = (word(6)?, n[7]);
    state.keeps_capabilities = n[8] != 0;
    state.memory_failure = Some(word(9)?).filter(|policy| *policy != MEMORY_FAILURE);
    state.oom_score = i32::try_from(n[10].cast_signed()).ok()?;
    state.core_filter = Some(word(11)?).filter(|filter| *filter != CORE_FILTER);
    Some(())
}

fn layout(n: &[u64]) -> MmLayout {
    MmLayout {
        code: (n[0], n[1]),
        data: (n[2], n[3]),
        brk: (n[4], n[5]),
        stack: n[6],
        args: (n[7], n[8]),
        env: (n[9], n[10]),
    }
}

fn range(start: u64, end: u64) -> Option<SeedRange> {
    (start <= end).then(|| SeedRange::new(start, end))
}

pub(super) fn numbers(record: &[u8], count: usize) -> Option<Vec<u64>> {
    let bytes = record.get(..8 * count)?;
    let (words, _) = bytes.as_chunks::<8>();
    Some(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A report up to the end of a record is one; cut anywhere else it is broken.
    #[test]
    fn every_truncation_of_each_record() {
        let bytes = golden();
        let (mut ends, mut at) = (vec![12], 12);
        while let Some(head) = bytes.get(at..at + 8) {
            at += 8 + u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            ends.push(at);
        }
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]).is_ok(), ends.contains(&cut), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_records_are_a_report_or_an_error(
            records in prop::collection::vec((0u16..54, prop::collection::vec(any::<u8>(), 0..200)), 0..6),
            cut in 0usize..20,
        ) {
            let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
            for (tag, record) in &records {
                bytes.extend_from_slice(&tag.to_le_bytes());
                bytes.extend_from_slice(&[0; 2]);
                bytes.extend_from_slice(&u32::try_from(record.len()).unwrap().to_le_bytes());
                bytes.extend_from_slice(record);
            }
            let _ = parse(&bytes);
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = parse(&bytes);
        }

        #[test]
        fn changed_reports(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
            let mut bytes = golden();
            let len = bytes.len();
            changes.iter().for_each(|(at, value)| bytes[at % len] = *value);
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn records_come_back() {
        let mut buffer = [0u8; 4096];
        let mut writer = ReportWriter::new(&mut buffer);
        let mut n = [0u64; 14];
        n[0] = 7;
        n[2] = 0x7000;
        n[7] = 0x9000;
        n[8] = 32;
        n[9] = 0x5305_3053;
        writer.record(tag::THREAD, &n, b"python3");
        writer.record(tag::OPEN_FILE, &[3, 0o2, 17], b"/tmp/x");
        writer.record(999, &[1], b"unknown");
        writer.record(tag::SHARED_COPY, &[0x1000, 0x2000, 0x5000], b"");
        writer.record(tag::LOCKED, &[0x1000, 0x3000], b"");
        writer.record(tag::LOCKS_FUTURE, &[6], b"");
        writer.record(tag::PENDING, &[7, 0x6000, 2], b"");
        let len = writer.finish().unwrap();
        let report = parse(&buffer[..len]).unwrap();
        assert_eq!(report.threads[0].name, b"python3");
        assert_eq!(report.threads[0].rseq.unwrap().len, 32);
        assert_eq!(report.open_files[0].link, "/tmp/x");
        assert_eq!(report.shared_copies, [(SeedRange::new(0x1000, 0x2000), SeedAddr(0x5000))]);
        assert_eq!(report.locked, [SeedRange::new(0x1000, 0x3000)]);
        assert_eq!(report.locks_future, 6);
        let pending = PendingSignals { tid: 7, at: SeedAddr(0x6000), count: 2 };
        assert_eq!(report.pending, [pending]);
    }

    /// One record of each tag, all numbers different.
    fn golden() -> Vec<u8> {
        let mut buffer = vec![0u8; 16 << 10];
        let mut writer = ReportWriter::new(&mut buffer);
        let mut next = 0x100u64;
        let mut numbers = |count: usize| -> Vec<u64> {
            next += 0x1000;
            (next..).take(count).collect()
        };
        for (tag, count, bytes) in [
            (tag::THREAD, 14, &b"main"[..]),
            (tag::LAYOUT, 11, b""),
            (tag::AUXV, 2, b""),
            (tag::SIGNAL_ACTIONS, 4 * SIGNALS, b""),
            (tag::CWD, 0, b"/work"),
            (tag::EXE, 0, b"/bin/true"),
            (tag::SCALARS, 4, b""),
            (tag::LIMITS, 2 * RESOURCE_LIMITS, b""),
            (tag::OPEN_FILE, 3, b"/dev/null"),
            (tag::RESUME_AREA, 1, b""),
            (tag::NOT_CARRIED, 2, b""),
            (tag::SHARED_COPY, 3, b""),
            (tag::TIMERS, 12, b""),
            (tag::FOREIGN_THREADS, 1, b"of a handler"),
            (tag::REFUSED, 0, b"a reason"),
            (tag::SCHED, 5, b""),
            (tag::GATE, 1, b""),
            (tag::DONT_FORK, 2, b""),
        ] {
            writer.record(tag, &numbers(count), bytes);
        }
        writer.record(tag::FILE, &[3, 0o140_777, 8, 9, 10, 11, 1, 12, 0], b"pos:\t0\n");
        writer.record(tag::CONTENT, &[3, 5, 1], b"bytes");
        writer.record(tag::SOCKET, &[3, 1, 2, 4, 65, 128, 77, 2], b"namepeer");
        writer.record(tag::FILE, &[4, 0o100_644, 8, 9, 10, 11, 0, 0, 1], b"");
        writer.record(tag::SAME_FILE, &[4, 3], b"");
        let len = writer.finish().unwrap();
        buffer.truncate(len);
        buffer
    }

    /// The bytes of version 2 are what they were, and say what they said.
    #[test]
    fn golden_bytes_of_2() {
        let bytes = include_bytes!("../../../tests/wire/report-2.bin");
        assert_eq!(golden(), bytes);
        let report = parse(bytes).unwrap();
        let (thread, process) = (&report.threads[0], &report.process);
        assert_eq!(
            (thread.tid, thread.alt_stack.2, &thread.name[..]),
            (0x1100, 0x110c, &b"main"[..])
        );
        assert_eq!((process.layout.code.0, process.layout.env.1), (0x2100, 0x210a));
        assert_eq!((process.auxv.len(), process.signal_actions[63].mask), (16, 0x41ff));
        assert_eq!((process.cwd.as_str(), process.exe.as_str()), ("/work", "/bin/true"));
        assert_eq!(
            (process.parent_pid, process.umask, process.personality),
            (0x7100, 0x7101, 0x7102)
        );
        assert_eq!((report.generation, process.limits[15].1), (0x7103, 0x811f));
        assert_eq!(
            (report.open_files[0].position, &*report.open_files[0].link),
            (0x9102, "/dev/null")
        );
        assert_eq!(report.resume_area.addr, SeedAddr(0xa100));
        assert_eq!(report.not_carried, [SeedRange::new(0xb100, 0xb101)]);
        assert_eq!(report.shared_copies, [(SeedRange::new(0xc100, 0xc101), SeedAddr(0xc102))]);
        assert_eq!(process.timers[2][3], 0xd10b);
        assert_eq!(report.refused.as_deref(), Some("a reason"), "the last word stands");
        let sched = Sched { policy: 0x10101, priority: 0x10102, nice: 0x10103, flags: 0x10104 };
        assert_eq!(report.whole, Some(Whole { gate: SeedAddr(0x11100), sched: vec![sched] }));
        assert_eq!(report.dont_fork, [SeedRange::new(0x12100, 0x12101)]);
        let [socket, file] = &report.files.as_ref().unwrap()[..] else { panic!("{report:?}") };
        let content = socket.content.as_ref().unwrap();
        assert_eq!((content.total, &content.bytes[..]), (5, &b"bytes"[..]));
        assert!(content.has_descriptors && socket.close_on_exec && socket.info == "pos:\t0\n");
        let ends = socket.socket.as_ref().unwrap();
        assert_eq!((&ends.name[..], &ends.peer[..]), (&b"na"[..], &b"mepeer"[..]));
        assert_eq!((ends.domain, ends.socket_type, ends.protocol), (1, 2, 4));
        assert_eq!((ends.bits, ends.backlog, ends.peer_inode), (65, 128, 77));
        assert_eq!((file.dev_ino, file.size, file.device), ((8, 9), 10, 11));
        assert_eq!((file.same_as, file.is_unlinked, socket.extra), (Some(3), true, 12));
    }

    #[test]
    fn losses_and_terminals() {
        let mut buffer = [0u8; 1024];
        let mut writer = ReportWriter::new(&mut buffer);
        writer.record(tag::FILE, &[3, 0o100_644, 8, 9, 10, 11, 1, 12, 0], b"");
        writer.record(tag::TERMINAL, &[3], b"settings");
        writer.record(tag::LOSSES, &[0x1000, Refuse::all().bits()], b"");
        let len = writer.finish().unwrap();
        let report = parse(&buffer[..len]).unwrap();
        assert_eq!((report.losses_area, report.refuse), (SeedAddr(0x1000), Refuse::all()));
        let file = &report.files.unwrap()[0];
        assert_eq!(file.terminal.as_deref(), Some(&b"settings"[..]));
        let mut writer = ReportWriter::new(&mut buffer);
        writer.record(tag::LOSSES, &[0, u64::MAX], b"");
        let len = writer.finish().unwrap();
        assert!(parse(&buffer[..len]).is_err(), "a kind that nobody knows is not refused silently");
    }

    #[test]
    fn what_was_asked_of_the_kernel_comes_back() {
        let mut buffer = [0u8; 128];
        let mut writer = ReportWriter::new(&mut buffer);
        writer.record(tag::TREATMENT, &[1, 0, 9, 3, 4], b"");
        let len = writer.finish().unwrap();
        let treatment = parse(&buffer[..len]).unwrap().treatment;
        assert!(treatment.merges_memory && !treatment.is_io_flusher);
        assert_eq!(treatment.speculation, [8, 0, 0]);
        assert!(!parse(&buffer[..len]).unwrap().has_core_cookie);
        let mut writer = ReportWriter::new(&mut buffer);
        writer.record(tag::CORE_COOKIE, &[], b"");
        let len = writer.finish().unwrap();
        assert!(parse(&buffer[..len]).unwrap().has_core_cookie);
    }

    #[test]
    fn state_comes_back_and_a_number_that_is_none_is_refused() {
        let report = |state: &[u64], thread: &[u64]| {
            let mut buffer = [0u8; 512];
            let mut writer = ReportWriter::new(&mut buffer);
            writer.record(tag::STATE, state, b"");
            writer.record(tag::THREAD_STATE, thread, b"");
            writer.record(tag::OWN_SCHED, &[3, 0, 7, 1], b"");
            let len = writer.finish().unwrap();
            parse(&buffer[..len])
        };
        let minus_seven = (-7i64).cast_unsigned();
        let numbers = [u64::MAX, 5, 1, 1, 3, 1, 16, 1 << 18, 1, 1, minus_seven, 0x7f];
        let state = report(&numbers, &[0x4003, 9, 1]).unwrap().state;
        let frozen_at = Clocks { monotonic_ns: -1, boottime_ns: 5 };
        let thread = ThreadState { io_priority: 0x4003, timer_slack_ns: 9, has_tiles: true };
        let expected = State {
            frozen_at,
            is_undumpable: true,
            no_new_privs: true,
            thp_disable: 3,
            deny_write_execute: 1,
            keeps_capabilities: true,
            memory_failure: Some(1),
            oom_score: -7,
            core_filter: Some(0x7f),
            membarrier: 16,
            vector_permits: 1 << 18,
            sched: Sched { policy: 3, priority: 0, nice: 7, flags: 1 },
            threads: vec![thread],
        };
        assert_eq!(state, expected);
        assert!(report(&numbers[1..], &[0, 0, 0]).is_err(), "too short");
        assert!(report(&[0, 0, 0, 0, u64::MAX, 0, 0, 0, 0, 0, 0, 0], &[0, 0, 0]).is_err());
        assert!(report(&numbers, &[u64::MAX, 0, 0]).is_err());
    }

    #[test]
    fn credentials_come_back_with_groups_in_order() {
        let mut buffer = [0u8; 512];
        let numbers: Vec<u64> = (1..15).collect();
        let parsed = |numbers: &[u64], groups: &[u8], buffer: &mut [u8]| {
            let mut writer = ReportWriter::new(buffer);
            writer.record(tag::CREDENTIALS, numbers, groups);
            let len = writer.finish().unwrap();
            parse(&buffer[..len]).map(|report| report.credentials.unwrap())
        };
        let expected = Credentials {
            users: [1, 2, 3, 4],
            groups: Groups { ids: [5, 6, 7, 8], supplementary: vec![3, 9] },
            rights: Rights {
                inheritable: 9,
                permitted: 10,
                effective: 11,
                bounding: 12,
                ambient: 13,
                secure_bits: 14,
            },
        };
        assert_eq!(parsed(&numbers, &[9, 0, 0, 0, 3, 0, 0, 0], &mut buffer), Ok(expected));
        assert!(parsed(&numbers, &[9, 0, 0], &mut buffer).is_err(), "half a group");
        assert!(parsed(&numbers[1..], &[], &mut buffer).is_err());
        assert!(parsed(&[u64::MAX; 14], &[], &mut buffer).is_err());
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_report() {
        let mut buffer = [0u8; 256];
        let mut writer = ReportWriter::new(&mut buffer);
        writer.record(tag::LAYOUT, &[0; 11], b"");
        let len = writer.finish().unwrap();
        assert_eq!(parse(&buffer[..4]), Err(ReportError::Version));
        for cut in 13..len {
            assert!(matches!(parse(&buffer[..cut]), Err(ReportError::Broken { .. })), "{cut}");
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let mut buffer = [0u8; 64];
        let mut writer = ReportWriter::new(&mut buffer);
        writer.record(tag::AUXV, &[], &[0; 100]);
        assert_eq!(writer.finish(), None);
    }
}
