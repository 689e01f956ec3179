//! A child's mail: its tail program, and what it will find in its `ResumeInfo`.
//!
//! ```text
//! base + MAIL   tail: ops, bytes      payload      environment: NAME=VALUE\0 or NAME\0 ...      losses
//! ```

use std::os::fd::BorrowedFd;

use super::ResumeError;
use super::abi::{MAIL, MAIL_LEN, NumberRange, TABLE};
use super::calls;
use super::compile::{
    self, COMMAND_FD, CompileError, FIXED_ANONYMOUS, HostFacts, READ_WRITE, late_file_limit,
};
use super::credentials::{self, InNamespace};
use super::entering::{Entering, Enters};
use super::files::FilePlan;
use super::program::{Expect, Op, Program};
use super::shared::SharedPlan;
use super::state;
use super::threads::{self, FurtherThreads};
use crate::descriptor::{
    Descriptor, MmLayout, OpenFile, Process, Sched, SeedAddr, SeedRange, Thread, Vma, VmaFlags,
};
use crate::id::{ChildId, SeedId};
use crate::prepare::{MAX_MAIL_BYTES, RESUME_MAGIC, ROLE_REHEARSAL, ResumeInfo};
use crate::wire::id_map::IdMap;

/// What one child is to be.
#[derive(Clone, Copy, Debug)]
pub struct ChildSpec<'a> {
    /// `prepare::ROLE_CHILD` or `ROLE_REHEARSAL`.
    pub role: u32,
    /// Which of the children of one resume.
    pub index: u32,
    /// Forks between it and the first process.
    pub generation: u64,
    /// Its seed.
    pub seed: SeedId,
    /// Its name.
    pub child: ChildId,
    /// For `Resumed::payload`.
    pub payload: &'a [u8],
    /// Changes of its environment: `NAME=VALUE\0...`; a bare `NAME\0` unsets.
    pub environment: &'a [u8],
    /// Its descriptors 0, 1 and 2; of its others none is open.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Sockets that listen, in the place of these records of the carried files; at most
    /// `MAX_LISTENERS`.
    pub listeners: &'a [(u32, BorrowedFd<'a>)],
    /// Flags for clone3(2): namespaces of its own.
    pub extra_clone_flags: u64,
    /// Its working directory, if not the seed's.
    pub cwd: Option<&'a str>,
    /// Its host's name, with CLONE_NEWUTS among the flags.
    pub hostname: Option<&'a str>,
    /// What /proc/self/cmdline has in it, up to `MAX_ARGV_BYTES`; empty: what it has in the seed.
    pub argv: &'a [u8],
    /// A whole process gets new ids instead of those that it had.
    pub new_ids: bool,
    /// What it enters.
    pub enters: Enters<'a>,
    /// Of the user namespace among it.
    pub id_map: &'a [IdMap],
}

/// What all tails of a template share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailFacts {
    /// The child's first.
    thread: Thread,
    further: FurtherThreads,
    /// Where the first one waits, if it has not called prepare.
    gate: Option<SeedAddr>,
    /// How the first one is scheduled, if that is anything special.
    sched: Option<Sched>,
    /// For what lies in the first one's frame.
    room_for_vectors: Option<Op>,
    is_whole: bool,
    dont_fork: Vec<SeedRange>,
    /// Locked memory, less what the tail maps anew.
    locked: Vec<SeedRange>,
    /// Flags of mlockall(2) for memory to come, or 0.
    locks_future: u32,
    /// The limit of a file's size, if it was left to the tail.
    file_limit: Option<(u64, u64)>,
    /// Interval timers that run on, by their `which`; of a whole process alone, as fork(2) drops them.
    timers: Vec<(u64, [u64; 4])>,
    /// Signals that wait for it and its first thread.
    signals: Vec<Op>,
    resume_area: SeedAddr,
    /// Its working directory, where it finds one of that name.
    cwd: String,
    /// Where it is told what it has lost, and what; empty: nothing.
    losses: (SeedAddr, Vec<u8>),
    /// Numbers that memory of the child's takes for open.
    numbers: Vec<NumberRange>,
    /// How they become files again, where they are carried.
    files: Option<FilePlan>,
    shared: SharedPlan,
    argv: ArgvPlace,
    /// Whom it is taken for in a user namespace.
    in_namespace: InNamespace,
    /// What makes it whom its parent was, if that is not its agent; behind it nothing takes a right that it lacks.
    credentials: Vec<Op>,
}

/// Where a tail runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailPlace {
    /// The keeper's pid.
    pub keeper: u32,
    /// The region's address.
    pub base: u64,
    /// Number of the first of the command's descriptors.
    pub stdio: u32,
    /// In a child that was cloned ahead, which has done what it could before its command came.
    pub is_ahead: bool,
    /// Its timers run; in a rehearsal nothing may disturb what prepare() does before it returns.
    pub runs_timers: bool,
    /// What has passed since the freeze on the clock that it is to have, ns.
    pub passed_ns: u64,
    /// What its clock has jumped by, ns.
    pub clock_delta_ns: i64,
}

/// What one child has other than its siblings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own<'a> {
    /// Its working directory.
    pub cwd: Option<&'a str>,
    /// Its host's name.
    pub hostname: Option<&'a str>,
    /// What /proc/self/cmdline has in it; empty: what it has in the seed.
    pub argv: &'a [u8],
    /// What it enters, before it does anything there.
    pub enters: Entering,
}

impl Own<'_> {
    /// As many, whatever is told: a step's number tells it.
    fn steps(&self, seeds_cwd: &str, argv: &ArgvPlace) -> [Op; 5] {
        let cwd = match self.cwd {
            Some(path) => calls::chdir(path, Expect::Success),
            None if self.enters.has_other_files() => calls::chdir(seeds_cwd, Expect::Ignored),
            None => no_step(),
        };
        let hostname = self.hostname.map_or_else(no_step, calls::sethostname);
        let [memory, bytes, layout] = argv.steps(self.argv);
        [hostname, cwd, memory, bytes, layout]
    }
}

/// Where an argv goes that its resumer gives: to memory of its own, as the program may lead anywhere into the one that it
/// was started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ArgvPlace {
    /// `None`: there is no room for it.
    at: Option<SeedAddr>,
    layout: MmLayout,
}

impl ArgvPlace {
    /// Memory for these bytes, the bytes, and the kernel told.
    fn steps(&self, argv: &[u8]) -> [Op; 3] {
        let Some(SeedAddr(at)) = self.at.filter(|_| !argv.is_empty()) else {
            return [no_step(), no_step(), no_step()];
        };
        let len = argv.len() as u64;
        let layout = MmLayout { args: (at, at + len), ..self.layout };
        [
            calls::mmap(at, len, READ_WRITE, FIXED_ANONYMOUS, None, 0),
            Op::Store { addr: at, bytes: argv.to_vec() },
            compile::tell_layout(&layout, Expect::Success),
        ]
    }
}

/// A step that does nothing.
fn no_step() -> Op {
    Op::Store { addr: 0, bytes: Vec::new() }
}

/// Ranges of numbers that a tail reserves: 64 KiB of its mail. Numbers in the gaps behind are reserved, too.
pub const MAX_NUMBER_RANGES: usize = 8192;

impl TailFacts {
    /// Of the children of `desc`.
    ///
    /// # Errors
    /// `Threads` for any number but one of what is no whole process; `Credentials` that the host cannot give.
    pub fn of(desc: &Descriptor, host: &HostFacts) -> Result<TailFacts, CompileError> {
        let credentials = credentials::steps(desc, &host.credentials)?;
        let first = threads::first(desc)?;
        let whole = desc.whole.as_ref();
        let sched = match whole {
            Some(whole) => whole.sched.get(first).copied(),
            None => Some(desc.state.sched),
        };
        let is_new = |vma: &&Vma| desc.shared.iter().any(|part| part.range == vma.range);
        let locked = desc.vmas.iter().filter(|vma| vma.flags.has(VmaFlags::LOCKED));
        let locked = locked.filter(|vma| !is_new(vma));
        let dont_fork = desc.vmas.iter().filter(|vma| vma.flags.has(VmaFlags::DONT_FORK));
        Ok(TailFacts {
            thread: desc.threads[first].clone(),
            further: FurtherThreads::of(desc, &credentials)?,
            gate: whole.filter(|_| first != 0).map(|whole| whole.gate),
            sched: sched.filter(|sched| *sched != Sched::default()),
            room_for_vectors: desc.state.threads.get(first).and_then(state::room_for_vectors),
            is_whole: whole.is_some(),
            dont_fork: dont_fork.map(|vma| vma.range).collect(),
            locked: locked.map(|vma| vma.range).collect(),
            locks_future: desc.marks.locks_future,
            file_limit: late_file_limit(desc, host),
            timers: if whole.is_some() { running_timers(&desc.process) } else { Vec::new() },
            signals: [0, desc.threads[first].tid]
                .iter()
                .filter_map(|tid| threads::signals_of(desc, *tid))
                .collect(),
            resume_area: desc.resume_area.addr,
            cwd: desc.process.cwd.clone(),
            losses: told_losses(desc),
            numbers: numbers_in_use(&desc.open_files),
            files: desc.carried.as_ref().map(FilePlan::of),
            shared: SharedPlan::of(desc),
            argv: ArgvPlace { at: None, layout: desc.process.layout },
            in_namespace: credentials::in_namespace(desc, &host.credentials)?,
            credentials,
        })
    }

    /// With room for `MAX_ARGV_BYTES` of an argv that a resumer gives.
    #[must_use]
    pub fn with_room_for_argv(mut self, at: Option<SeedAddr>) -> TailFacts {
        self.argv.at = at;
        self
    }

    /// Where the kernel writes a child's tid.
    pub fn tid_address(&self) -> u64 {
        self.thread.tid_address.0
    }

    /// The id that its children are to have, in a namespace of their own, which is the process's own; `None`
    /// if any will do. Ids end below `pid_max`.
    ///
    /// # Errors
    /// Why they cannot have it on any account.
    pub fn own_pid(&self, pid_max: u32) -> Result<Option<u32>, String> {
        let first = self.thread.tid;
        let highest = self.further.highest_id().max(first);
        match self.is_whole {
            false => Ok(None),
            true if first == 1 => Err("1 is the id of a namespace's init".to_owned()),
            true if highest >= pid_max => {
                Err(format!("thread {highest} is beyond /proc/sys/kernel/pid_max ({pid_max}) here"))
            }
            true => Ok(Some(first)),
        }
    }

    /// Its further threads.
    pub fn further(&self) -> &FurtherThreads {
        &self.further
    }

    /// What a child that is cloned ahead has behind it when its command comes.
    pub(super) fn ahead(&self, base: u64) -> Vec<Op> {
        let mut ops = vec![own_session()];
        ops.extend(self.mark_memory());
        ops.extend(self.lock_memory());
        ops.extend(self.make_threads(base));
        ops
    }

    /// Marks of memory that a fork would leave out, which it takes away.
    fn mark_memory(&self) -> Vec<Op> {
        let mark = |range: &SeedRange| {
            calls::madvise(range.start.0, range.len(), libc::MADV_DONTFORK, Expect::Success)
        };
        self.dont_fork.iter().map(mark).collect()
    }

    /// Locks, which a fork takes away, too.
    fn lock_memory(&self) -> Vec<Op> {
        self.locked.iter().map(|range| calls::lock(range.start.0, range.len())).collect()
    }

    /// What makes its threads, so far as they wait at a gate. Before, while nobody shares it, the table of descriptors grows to
    /// what the child's files need: a shared one grows after a grace period of RCU, some 10 ms.
    fn make_threads(&self, base: u64) -> Vec<Op> {
        let count = self.further.waiting();
        if count == 0 {
            return Vec::new();
        }
        let mut ops = Vec::new();
        if let Some(highest) = self.files.as_ref().map(FilePlan::highest) {
            ops.extend([calls::dup3(COMMAND_FD, highest), calls::close(highest)]);
        }
        ops.push(Op::Threads { table: base + TABLE, first: 0, count, waits: true });
        ops
    }

    /// The tail, whose last act before it leaves for the seed's code is to close what is not the child's, and
    /// to put what is nothing on each number that its memory takes for open: whoever uses one is refused
    /// with EBADF, and whoever closes one closes no file that the child has opened since.
    ///
    /// The parent-death signal comes first and is checked against a keeper that was gone before; rseq comes
    /// late, when nothing of the tail can be interrupted in a way that the area's owner would see.
    ///
    /// Its 0, 1 and 2 come as the descriptors from `stdio` on, and behind them the nothing: a descriptor
    /// that was opened with O_PATH. Then sockets for the carried files `listeners`, and what it enters.
    pub fn tail(
        &self,
        place: &TailPlace,
        info: &[u8; INFO_LEN],
        listeners: &[u32],
        own: &Own<'_>,
    ) -> Program {
        let TailPlace { keeper, stdio, .. } = *place;
        let mut ops = vec![
            die_with_parent(),
            self.check_parent(keeper),
            if place.is_ahead { no_step() } else { own_session() },
        ];
        let entered = (stdio + 4..).nth(listeners.len()).unwrap_or(u32::MAX);
        let user_namespace = own.enters.user_at(entered);
        ops.extend(own.enters.steps(entered));
        let (head, len) = self.thread.robust_list;
        if len != 0 {
            ops.push(calls::set_robust_list(head.0, len));
        }
        // Before the command socket moves, on which a thread that cannot be made says so. None to make is a
        // step, too: a step's number tells it, wherever the tail runs.
        ops.extend(self.make_threads(place.base).into_iter().map(|op| match op {
            Op::Threads { table, first, .. } if place.is_ahead => {
                Op::Threads { table, first, count: 0, waits: false }
            }
            op => op,
        }));
        // Threads are scheduled as the one that makes them, and then each as it was.
        // Whoever is alone goes on as its host lets it, where that takes a capability.
        let expect = if self.is_whole { Expect::Success } else { Expect::Ignored };
        ops.extend(self.early_sched().map(|sched| threads::scheduling(sched, expect)));
        ops.extend((0..3).map(|number| calls::dup2(stdio + number, number)));
        if let Some(files) = &self.files {
            ops.extend(files.make(stdio, COMMAND_FD, listeners, place.passed_ns, user_namespace));
        }
        // Where no file is carried: the numbers behind what came along.
        let spare = self.files.as_ref().map(FilePlan::spare);
        let above = user_namespace.map_or(stdio + 4, |number| number + 1);
        let (number, nothing) = spare.unwrap_or((above, stdio + 3));
        ops.extend(self.shared.make(number, nothing));
        ops.extend(
            self.file_limit
                .map(|(soft, hard)| calls::set_limit(libc::RLIMIT_FSIZE.into(), soft, hard)),
        );
        if self.locks_future != 0 {
            ops.push(calls::lock_all(self.locks_future));
        }
        // All signals are blocked until the threads are in their own code.
        ops.extend(self.timers.iter().map(|(which, timer)| {
            let timer = left_after(*which, *timer, place.passed_ns);
            calls::setitimer(*which, if place.runs_timers { timer } else { [0; 4] })
        }));
        ops.extend(self.signals.iter().cloned());
        ops.push(Op::Store { addr: self.resume_area.0, bytes: info.to_vec() });
        if !self.losses.1.is_empty() {
            // Its place in the mail is filled in by `mail`.
            ops.push(Op::Store { addr: self.losses.0.0, bytes: vec![0; LOSSES_LEN] });
        }
        if let Some(rseq) = self.thread.rseq {
            ops.push(calls::rseq(rseq.addr.0, rseq.len, rseq.signature));
        }
        ops.extend(own.steps(&self.cwd, &self.argv));
        // By its agent's rights, as what a child that is cloned ahead has locked by now.
        ops.extend(
            self.lock_memory().into_iter().map(|op| if place.is_ahead { no_step() } else { op }),
        );
        let mut credentials = self.credentials.clone();
        if let Some(came_as) = user_namespace {
            let number = self.files.as_ref().map_or(came_as, FilePlan::user_namespace);
            credentials = vec![calls::setns(number, USER_NAMESPACE), calls::close(number)];
            credentials.extend(self.in_namespace.steps.iter().cloned());
        }
        if !credentials.is_empty() {
            ops.extend(credentials);
            // Who changes its user has no such signal any more.
            ops.extend([die_with_parent(), self.check_parent(keeper)]);
        }
        // Last of what can fail, for there may be hundreds, and other steps keep their numbers without them.
        if !place.is_ahead {
            ops.extend(self.mark_memory());
        }
        match &self.files {
            Some(files) => ops.extend(files.close_helpers()),
            None => ops.extend(self.close_all_but_stdio(stdio + 3)),
        }
        if self.further.ends_with_caller() {
            let (table, first) = (place.base + TABLE, self.further.waiting());
            ops.push(Op::Threads { table, first, count: 1, waits: false });
            let late = self.sched.as_ref().filter(|_| self.early_sched().is_none());
            ops.extend(late.map(|sched| threads::scheduling(sched, Expect::Ignored)));
        }
        ops.extend(self.room_for_vectors.clone());
        ops.extend(self.gate.map(|gate| Op::Gate { addr: gate.0 }));
        ops.push(Op::SignalReturn { frame: self.thread.frame.0 });
        Program { ops }
    }

    /// What the first thread is scheduled as before the tail's end, where a refusal can still be told.
    ///
    /// A lowered one that makes a caller of prepare waits until that is made: from below, the caller could not
    /// go back to where it was without a capability. To lower itself a thread needs none.
    fn early_sched(&self) -> Option<&Sched> {
        let is_early =
            |sched: &&Sched| !self.further.ends_with_caller() || threads::is_raised(sched);
        self.sched.as_ref().filter(is_early)
    }

    fn check_parent(&self, keeper: u32) -> Op {
        match self.is_whole {
            true => Op::Parent { pid: keeper },
            false => calls::check_parent(keeper),
        }
    }

    fn close_all_but_stdio(&self, nothing: u32) -> Vec<Op> {
        let Some(lowest) = self.numbers.first() else {
            return vec![calls::close_from(COMMAND_FD)];
        };
        // A failure is told on the command socket: its number goes last.
        let mut ops = vec![
            calls::dup3(nothing, COMMAND_FD),
            calls::close_from(COMMAND_FD + 1),
            Op::Reserve { fd: COMMAND_FD, ranges: self.numbers.clone() },
        ];
        if lowest.first != COMMAND_FD {
            ops.push(calls::close(COMMAND_FD));
        }
        ops
    }

    /// Whether it can be in a user namespace of this map, if there is one.
    fn check_id_map(&self, map: &[IdMap]) -> Result<(), ResumeError> {
        let is_missing = |id: &&u32| !map.iter().any(|part| part.has(**id));
        let InNamespace { users, groups, .. } = &self.in_namespace;
        let user = users.iter().find(is_missing).map(|id| ("user", *id));
        let missing = user.or_else(|| groups.iter().find(is_missing).map(|id| ("group", *id)));
        let threads = 1 + self.further.waiting() + u64::from(self.further.ends_with_caller());
        match missing {
            _ if map.is_empty() => Ok(()),
            Some((what, id)) => Err(ResumeError::NotInIdMap { what, id }),
            None if threads > 1 => Err(ResumeError::IdMapOfThreads(threads)),
            None => Ok(()),
        }
    }

    /// The mail for a child, and its number of ops.
    ///
    /// # Errors
    /// `MailTooLarge`.
    pub fn mail(
        &self,
        place: &TailPlace,
        spec: &ChildSpec<'_>,
    ) -> Result<(Vec<u8>, u64), ResumeError> {
        let carried = spec.payload.len() + spec.environment.len();
        if carried > MAX_MAIL_BYTES {
            return Err(ResumeError::MailTooLarge { bytes: carried });
        }
        if self.argv.at.is_none() && !spec.argv.is_empty() {
            return Err(ResumeError::NoRoom { near: None });
        }
        self.check_id_map(spec.id_map)?;
        let at = place.base + MAIL;
        let keeper = if spec.extra_clone_flags & NEW_PID != 0 { 0 } else { place.keeper };
        let runs_timers = place.runs_timers && spec.role != ROLE_REHEARSAL;
        let place = TailPlace { keeper, runs_timers, ..*place };
        let listeners: Vec<u32> = spec.listeners.iter().map(|(record, _)| *record).collect();
        let own = Own {
            cwd: spec.cwd,
            hostname: spec.hostname,
            argv: spec.argv,
            enters: spec.enters.entering(),
        };
        let mut tail = self.tail(&place, &[0; INFO_LEN], &listeners, &own);
        // The length of the tail does not depend on what its info says.
        let payload = (at + tail.encoded_len() as u64, spec.payload.len() as u64);
        let environment_at = (payload.0 + payload.1, spec.environment.len() as u64);
        let losses = (environment_at.0 + environment_at.1, self.losses.1.len() as u64);
        let info = info_bytes(spec, payload, environment_at, place.clock_delta_ns);
        for op in &mut tail.ops {
            match op {
                Op::Store { addr, bytes } if *addr == self.resume_area.0 => *bytes = info.to_vec(),
                Op::Store { addr, bytes } if *addr == self.losses.0.0 && losses.1 > 0 => {
                    *bytes = [losses.0, losses.1].map(u64::to_le_bytes).concat();
                }
                _ => {}
            }
        }
        let mut mail = tail.encode(at);
        mail.extend_from_slice(spec.payload);
        mail.extend_from_slice(spec.environment);
        mail.extend_from_slice(&self.losses.1);
        if mail.len() as u64 > MAIL_LEN {
            return Err(ResumeError::MailTooLarge { bytes: mail.len() });
        }
        Ok((mail, tail.ops.len() as u64))
    }
}

/// CLONE_NEWUSER.
const USER_NAMESPACE: u32 = libc::CLONE_NEWUSER.cast_unsigned();

/// A child that signals its process group must not reach the keeper and its siblings. With a session a kernel may give it a
/// group of its own among those that share the processors, in which it begins behind all others: some milliseconds, if they
/// want them, which one that is cloned ahead has behind it.
fn own_session() -> Op {
    calls::setsid()
}

fn die_with_parent() -> Op {
    let kill = u64::from(libc::SIGKILL.cast_unsigned());
    calls::prctl(libc::PR_SET_PDEATHSIG, [kill.into()], Expect::Success)
}

/// Where and what children are told of losses.
fn told_losses(desc: &Descriptor) -> (SeedAddr, Vec<u8>) {
    let losses = &desc.losses;
    match losses.told_at.0 != 0 && !losses.all.is_empty() {
        true => (losses.told_at, losses.mail()),
        false => (SeedAddr(0), Vec::new()),
    }
}

/// Those with a value: ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF are 0, 1, 2.
fn running_timers(process: &Process) -> Vec<(u64, [u64; 4])> {
    let runs = |timer: &[u64; 4]| timer[2..] != [0, 0];
    (0..).zip(process.timers.iter().copied()).filter(|(_, timer)| runs(timer)).collect()
}

/// What is left of an interval timer, with its interval, when so much has passed: one whose moment has come
/// meanwhile fires at once. CPU time has not passed.
fn left_after(which: u64, [every_s, every_us, s, us]: [u64; 4], passed_ns: u64) -> [u64; 4] {
    const US_PER_S: u64 = 1_000_000;
    let is_real = which == u64::from(libc::ITIMER_REAL.cast_unsigned());
    if !is_real || passed_ns == 0 {
        return [every_s, every_us, s, us];
    }
    let left = s.saturating_mul(US_PER_S).saturating_add(us).saturating_sub(passed_ns / 1000);
    let left = left.max(1);
    [every_s, every_us, left / US_PER_S, left % US_PER_S]
}

/// The numbers above 2, as ascending ranges.
fn numbers_in_use(files: &[OpenFile]) -> Vec<NumberRange> {
    let mut numbers: Vec<u32> =
        files.iter().map(|file| file.fd).filter(|number| *number >= COMMAND_FD).collect();
    numbers.sort_unstable();
    let mut ranges: Vec<NumberRange> = Vec::new();
    for number in numbers {
        let is_full = ranges.len() == MAX_NUMBER_RANGES;
        match ranges.last_mut() {
            Some(range) if is_full || range.last.checked_add(1) == Some(number) => {
                range.last = number;
            }
            _ => ranges.push(NumberRange { first: number, last: number }),
        }
    }
    ranges
}

/// An address and a length.
const LOSSES_LEN: usize = 16;
/// Bytes of a `ResumeInfo`.
pub const INFO_LEN: usize = size_of::<ResumeInfo>();

/// Where the descriptors of a child's command begin, in a template.
pub(super) const STDIO_FD: u32 = COMMAND_FD + 1;
/// And in a child that was cloned ahead, which has a socket of its own.
pub(super) const STDIO_FD_AHEAD: u32 = COMMAND_FD + 2;

const NEW_PID: u64 = libc::CLONE_NEWPID.cast_unsigned() as u64;

/// A `ResumeInfo` as it lies in memory.
fn info_bytes(
    spec: &ChildSpec<'_>,
    payload: (u64, u64),
    environment: (u64, u64),
    clock_delta_ns: i64,
) -> [u8; INFO_LEN] {
    let mut words = RESUME_MAGIC.to_le_bytes().to_vec();
    words.extend_from_slice(&spec.role.to_le_bytes());
    words.extend_from_slice(&spec.index.to_le_bytes());
    let (seed, child) = (spec.seed.0, spec.child.0);
    for word in [spec.generation, seed, child, payload.0, payload.1, environment.0, environment.1] {
        words.extend_from_slice(&word.to_le_bytes());
    }
    words.extend_from_slice(&clock_delta_ns.to_le_bytes());
    let mut bytes = [0; INFO_LEN];
    bytes.copy_from_slice(&words);
    bytes
}
