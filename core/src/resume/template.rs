//! A process laid out as a seed's children will be, stopped just before their first instruction.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use parking_lot::Mutex;

use super::abi::{
    CLONE_FAILED, COMMAND_MAGIC, Command, FAILED, MAIL, MAIL_LEN, PARAMS, PARAMS_MAGIC, PROGRAM,
    PROGRAM_LEN, Params, READY, REGION_LEN, Reply, SETUP_FAILED, STARTED, STUB, STUB_LEN, TABLE,
    TABLE_LEN, TAIL_FAILED,
};
use super::ahead::{Ahead, warming};
use super::child::{ChildSpec, Own, STDIO_FD, STDIO_FD_AHEAD, TailFacts, TailPlace};
use super::clock::ChildClock;
use super::compile::{self, COMMAND_FD, HostFacts, TemplateFds, compile};
use super::entering::Entering;
use super::placement::{PARKING_LEN, Placement};
use super::program::Program;
use super::shared::SharedHere;
use super::vdso::Vdso;
use super::{ResumeError, blob, stand_in};
use crate::descriptor::{Clocks, Descriptor, ImageOffset, SeedAddr};
use crate::id::ChildId;
use crate::keeper::{self, NewTemplate, TemplateRequest};
use crate::sys::{enter, scm};
use crate::wire::local::MAX_ARGV_BYTES;

/// How long laying out a template may take: hundreds of system calls, and reads of its stack that may go
/// to another host and be asked there twice.
pub const TEMPLATE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a template may take to clone a child: it waits for nothing but memory.
pub const CHILD_TIMEOUT: Duration = Duration::from_secs(5);
/// Failures of tails that are remembered until someone asks; beyond it they are forgotten.
const MAX_FAILURES: usize = 1024;

/// What a template is made of.
pub struct TemplateSpec<'a> {
    /// The seed.
    pub descriptor: &'a Descriptor,
    /// Where things lie.
    pub placement: &'a Placement,
    /// Where in the image's file an address of the seed's lies.
    pub offset_of: &'a dyn Fn(SeedAddr) -> Option<ImageOffset>,
    /// The image's file.
    pub image: BorrowedFd<'a>,
    /// Local files that are identical to files of the descriptor's table, by index.
    pub local_files: &'a HashMap<u16, File>,
    /// Files of this host that the seed had mapped shared.
    pub shared_files: &'a [SharedHere],
    /// The stub's trampolines: address and bytes.
    pub trampolines: &'a [(u64, Vec<u8>)],
    /// How it comes by its vDSO.
    pub vdso: &'a Vdso,
    /// What lies at `base + STUB`.
    pub stub_table: &'a [u8],
    /// How far the clocks of its children are to be ahead of this host's.
    pub clock_offset: Clocks,
}

impl fmt::Debug for TemplateSpec<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TemplateSpec").field("seed", &self.descriptor.seed).finish_non_exhaustive()
    }
}

impl TemplateSpec<'_> {
    /// What stands in for the seed's program, where that is not here.
    pub fn stand_in(&self) -> Option<File> {
        let is_here = |index| self.local_files.contains_key(&index);
        match compile::program(self.descriptor).is_some_and(is_here) {
            true => None,
            false => stand_in::at(&self.descriptor.process.exe),
        }
    }

    /// The restore program for a template that `host` becomes, and the files that it maps in the order of
    /// their descriptors.
    ///
    /// # Errors
    /// What this host cannot restore.
    pub fn program<'a>(
        &'a self,
        host: &HostFacts,
        stand_in: Option<&'a File>,
    ) -> Result<(Program, Vec<BorrowedFd<'a>>), ResumeError> {
        let indices: Vec<u16> = self.local_files.keys().copied().collect();
        let (desc, placement) = (self.descriptor, self.placement);
        let fds = TemplateFds::number(&indices);
        let fds = if stand_in.is_some() { fds.with_stand_in() } else { fds };
        let fds = fds.with_shared(self.shared_files);
        let (trampolines, vdso) = (self.trampolines, self.vdso);
        let program = compile(desc, self.offset_of, placement, trampolines, vdso, host, &fds)?;
        let files = std::iter::once(self.image).chain(self.local_files.values().map(AsFd::as_fd));
        let files = files.chain(stand_in.map(AsFd::as_fd));
        let shared = self.shared_files.iter().map(|shared| shared.file.as_fd());
        Ok((program, files.chain(shared).collect()))
    }
}

/// A child that was started.
#[derive(Debug)]
pub struct NewProcess {
    /// Its pid, among the keeper's processes: the keeper tells its end.
    pub pid: u32,
    /// The init of its pid namespace, another process of the keeper's, which ends after it.
    pub init: Option<u32>,
    /// Why its ids are not those that it had, though nobody wanted new ones.
    pub renumbered: Option<String>,
    /// What it enters before it is the seed's process again.
    pub entering: Entering,
}

/// A template, ready for children. Dropping it ends it; its children live on.
#[derive(Debug)]
pub struct Template {
    keeper: keeper::Client,
    pid: u32,
    base: u64,
    tail: TailFacts,
    /// The id that children get in a namespace of their own, if they are to have a certain one; why they
    /// cannot have it.
    own_pid: Result<Option<u32>, String>,
    /// Whether those have a /proc of their own.
    own_proc: bool,
    clock: ChildClock,
    line: Mutex<Line>,
    /// What children find where the seed had a descriptor.
    nothing: File,
    /// Children that are cloned and not started yet, the oldest first.
    ahead: Mutex<VecDeque<Ahead>>,
    /// What warms them: mail, and its number of ops.
    warming: (Vec<u8>, u64),
}

/// The command socket, and what came on it that nobody has asked for.
#[derive(Debug)]
struct Line {
    socket: UnixStream,
    failures: HashMap<ChildId, Reply>,
}

impl Template {
    /// Makes a template and waits until it is ready.
    ///
    /// # Errors
    /// The keeper's, and a step of the program that failed, by its text.
    pub fn start(
        keeper: &keeper::Client,
        spec: &TemplateSpec<'_>,
    ) -> Result<Template, ResumeError> {
        let host = HostFacts::of_keeper(keeper.pid())?;
        // A changed root is left as it is: what is not in it is not shown there either.
        let own_proc = host.proc_is_plain && spec.descriptor.root.is_none();
        let stand_in = spec.stand_in();
        let (program, files) = spec.program(&host, stand_in.as_ref())?;
        let room = room_for_argv(spec.placement, spec.descriptor);
        let tail = TailFacts::of(spec.descriptor, &host)?.with_room_for_argv(room);
        let base = spec.placement.base;
        let nothing = nothing()?;
        let region = region(spec, &program, &tail)?;
        let (ours, theirs) = UnixStream::pair().map_err(ResumeError::Socket)?;
        let mut descriptors = vec![theirs.as_fd()];
        descriptors.extend(files);
        let request = TemplateRequest {
            region: region.as_fd(),
            base,
            entry: blob::entry(),
            clock_offset: spec.clock_offset,
            descriptors: &descriptors,
        };
        let NewTemplate { pid, clock_refused } = keeper.template(&request)?;
        let clock = ChildClock {
            frozen_at: spec.descriptor.state.frozen_at,
            offset: spec.clock_offset,
            refused: clock_refused.map(|error| error.to_string()),
        };
        drop(theirs);
        let line = Mutex::new(Line { socket: ours, failures: HashMap::new() });
        let (ahead, warming) = (Mutex::default(), warming_mail(spec.descriptor, &tail, base));
        let own_pid = tail.own_pid(pid_max());
        let keeper = keeper.clone();
        let template = Template {
            keeper,
            pid,
            base,
            tail,
            own_pid,
            own_proc,
            clock,
            line,
            nothing,
            ahead,
            warming,
        };
        template.wait_ready(&program).inspect_err(|_| template.kill())?;
        Ok(template)
    }

    /// Why its children have this host's clocks, where they were to have others.
    pub fn clock_refused(&self) -> Option<&str> {
        self.clock.refused.as_deref()
    }

    /// Its pid: one of those that the keeper will tell the end of.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts a child, by one that was cloned ahead if there is one. It runs from now on.
    ///
    /// # Errors
    /// The template is gone or silent, or the kernel refuses the clone.
    pub fn child(&self, spec: &ChildSpec<'_>) -> Result<NewProcess, ResumeError> {
        let [stdin, stdout, stderr] = spec.stdio;
        let mut fds = vec![stdin, stdout, stderr, self.nothing.as_fd()];
        fds.extend(spec.listeners.iter().map(|(_, socket)| *socket));
        fds.extend(spec.enters.all());
        if spec.extra_clone_flags == 0
            && spec.enters.is_nothing()
            && !spec.new_ids
            && let Some(ahead) = self.take_warm()
        {
            let (mail, ops) = self.tail.mail(&self.tail_place(true), spec)?;
            let command = command(spec.child, mail.len(), ops, fds.len());
            if send(ahead.command_socket(), command, mail, &fds).is_ok() {
                return Ok(self.told(ahead.process));
            }
            // It has ended, or makes no sense of a part of a command.
            let _ = self.keeper.kill(ahead.process.pid, libc::SIGKILL);
        }
        let (mail, ops) = self.tail.mail(&self.tail_place(false), spec)?;
        let command = Command {
            clone_flags: spec.extra_clone_flags,
            own_pid: if spec.new_ids { 0 } else { self.wanted_pid() },
            own_proc: self.own_proc.into(),
            ..command(spec.child, mail.len(), ops, fds.len())
        };
        let process = self.clone_by(command, mail, &fds)?;
        let process = NewProcess { entering: spec.enters.entering(), ..process };
        Ok(if spec.new_ids { process } else { self.told(process) })
    }

    /// With why its ids are new ones, if none of its template's children can have others.
    fn told(&self, process: NewProcess) -> NewProcess {
        match &self.own_pid {
            Err(why) => NewProcess { renumbered: Some(why.clone()), ..process },
            Ok(_) => process,
        }
    }

    fn wanted_pid(&self) -> u64 {
        self.own_pid.as_ref().ok().copied().flatten().unwrap_or(0).into()
    }

    fn tail_place(&self, is_ahead: bool) -> TailPlace {
        let (keeper, base) = (self.keeper.pid(), self.base);
        let stdio = if is_ahead { STDIO_FD_AHEAD } else { STDIO_FD };
        TailPlace {
            keeper,
            base,
            stdio,
            is_ahead,
            runs_timers: true,
            passed_ns: self.clock.passed_ns(),
            clock_delta_ns: self.clock.delta_ns(),
        }
    }

    /// Has children cloned ahead until there are `count`.
    ///
    /// # Errors
    /// As [`Self::child`].
    pub fn clone_ahead(&self, count: usize) -> Result<(), ResumeError> {
        while self.ahead.lock().len() < count {
            let (ours, theirs) = Ahead::socket().map_err(ResumeError::Socket)?;
            let (mail, ops) = self.warming.clone();
            let command = Command {
                ahead: 1,
                own_pid: self.wanted_pid(),
                own_proc: self.own_proc.into(),
                ..command(ChildId::random(), mail.len(), ops, 1)
            };
            let process = self.clone_by(command, mail, &[theirs.as_fd()])?;
            self.ahead.lock().push_back(Ahead::new(process, ours));
        }
        Ok(())
    }

    /// The first of those cloned ahead that is warm; those that have ended are forgotten.
    fn take_warm(&self) -> Option<Ahead> {
        let mut all = self.ahead.lock();
        let mut at = 0;
        while at < all.len() {
            match all[at].is_warm() {
                Ok(true) => return all.remove(at),
                Ok(false) => at += 1,
                Err(_) => drop(all.remove(at)),
            }
        }
        None
    }

    /// Has the template clone itself.
    fn clone_by(
        &self,
        command: Command,
        mail: Vec<u8>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<NewProcess, ResumeError> {
        let mut line = self.line.lock();
        if let Err(error) = send(&line.socket, command, mail, fds) {
            // What it has of the command makes no sense without the rest.
            self.kill();
            let (pid, what, timeout) = (self.pid, "take a command", CHILD_TIMEOUT);
            return Err(match error.kind() {
                io::ErrorKind::WouldBlock => ResumeError::Timeout { pid, what, timeout },
                _ => ResumeError::TemplateGone { pid },
            });
        }
        loop {
            let reply = line.receive(CHILD_TIMEOUT, "clone a child", self.pid)?;
            match reply.kind {
                STARTED if reply.child == command.child => return Ok(started(reply)),
                CLONE_FAILED if reply.child == command.child => {
                    return Err(ResumeError::Clone { source: errno(reply.value) });
                }
                TAIL_FAILED => line.remember(reply),
                // The answer to a child that was given up after its deadline.
                STARTED => drop(self.keeper.kill(started(reply).pid, libc::SIGKILL)),
                CLONE_FAILED => {}
                _ => return Err(ResumeError::Protocol),
            }
        }
    }

    /// Why a child ended with status 127 before it ran, if it was its tail that failed.
    pub fn why_failed(&self, child: ChildId, entering: Entering) -> Option<String> {
        let mut line = self.line.lock();
        // What has arrived is read without waiting.
        line.socket.set_nonblocking(true).ok()?;
        while let Ok(reply) = line.receive(CHILD_TIMEOUT, "", self.pid) {
            if reply.kind == TAIL_FAILED {
                line.remember(reply);
            }
        }
        line.socket.set_nonblocking(false).ok()?;
        let reply = line.failures.remove(&child)?;
        let (thread, step) = (reply.step >> 16, reply.step & 0xffff);
        let text = match thread {
            0 => step_text(&a_tail(&self.tail, entering), step),
            _ => self.tail.further().step_text(thread, step),
        };
        Some(format!("step {step} of its start, {text}: {}", outcome(reply.value)))
    }

    fn kill(&self) {
        let _ = self.keeper.kill(self.pid, libc::SIGKILL);
    }

    fn wait_ready(&self, program: &Program) -> Result<(), ResumeError> {
        let reply = self.line.lock().receive(TEMPLATE_TIMEOUT, "lay itself out", self.pid)?;
        match reply.kind {
            READY => Ok(()),
            FAILED => Err(ResumeError::Step {
                step: reply.step,
                text: step_text(program, reply.step),
                why: outcome(reply.value),
            }),
            SETUP_FAILED => Err(ResumeError::Setup {
                what: match reply.step {
                    1 => "the keeper went away",
                    2 => "its region cannot be mapped where the placement says",
                    _ => "its descriptors cannot be put into place",
                },
                source: errno(reply.value),
            }),
            _ => Err(ResumeError::Protocol),
        }
    }
}

impl Line {
    /// The next reply.
    fn receive(
        &mut self,
        timeout: Duration,
        what: &'static str,
        pid: u32,
    ) -> Result<Reply, ResumeError> {
        self.socket.set_read_timeout(Some(timeout)).map_err(ResumeError::Socket)?;
        let mut bytes = [0u8; size_of::<Reply>()];
        match self.socket.read_exact(&mut bytes) {
            Ok(()) => Ok(parse_reply(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(ResumeError::Timeout { pid, what, timeout })
            }
            Err(_) => Err(ResumeError::TemplateGone { pid }),
        }
    }

    fn remember(&mut self, reply: Reply) {
        if self.failures.len() < MAX_FAILURES {
            self.failures.insert(ChildId(reply.child), reply);
        }
    }
}

/// A child as its template tells of it.
fn started(reply: Reply) -> NewProcess {
    let value = reply.value.cast_unsigned();
    let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    NewProcess {
        pid: half(value),
        init: Some(half(value >> 32)).filter(|init| *init != 0),
        renumbered: (reply.step != 0).then(|| {
            let why = errno(-i64::from(reply.step));
            format!(
                "a pid namespace with ids of its own was refused ({why}): it takes CAP_SYS_ADMIN"
            )
        }),
        entering: Entering::default(),
    }
}

/// Ids of processes end below it.
fn pid_max() -> u32 {
    const LARGEST: u32 = 1 << 22;
    let text = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    text.trim().parse().unwrap_or(LARGEST)
}

/// A tail like any of this template's, for its steps' texts.
fn a_tail(tail: &TailFacts, enters: Entering) -> Program {
    let place = TailPlace {
        keeper: 0,
        base: 0,
        stdio: STDIO_FD,
        is_ahead: false,
        runs_timers: true,
        passed_ns: 0,
        clock_delta_ns: 0,
    };
    let own = Own { cwd: Some(""), hostname: Some(""), argv: b"\0", enters };
    tail.tail(&place, &[0; super::child::INFO_LEN], &[], &own)
}

/// The mail that warms a child and does what can be done of its tail; one that is too long for that only does the latter.
fn warming_mail(descriptor: &Descriptor, tail: &TailFacts, base: u64) -> (Vec<u8>, u64) {
    let ahead = Program { ops: tail.ahead(base) };
    let mut program = warming(descriptor);
    program.ops.extend(ahead.ops.iter().cloned());
    if program.encoded_len() as u64 > MAIL_LEN {
        program = ahead;
    }
    (program.encode(base + MAIL), program.ops.len() as u64)
}

/// A descriptor that can be closed and copied, and nothing else: not even used as a directory.
fn nothing() -> Result<File, ResumeError> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_PATH).open("/dev/null").map_err(ResumeError::Nothing)
}

/// A command without flags.
fn command(child: ChildId, mail_len: usize, ops: u64, fds: usize) -> Command {
    Command {
        magic: COMMAND_MAGIC,
        mail_len: mail_len as u64,
        ops,
        clone_flags: 0,
        fd_count: fds as u64,
        child: child.0,
        ahead: 0,
        own_pid: 0,
        own_proc: 0,
    }
}

/// Where the argv of a resumer's finds room: behind the host's vvar and vDSO, which `vdso::plan` may have put at the same
/// place. They are no larger than the parking that they came by.
pub(super) fn room_for_argv(placement: &Placement, desc: &Descriptor) -> Option<SeedAddr> {
    let room = placement.room_for(desc, PARKING_LEN + MAX_ARGV_BYTES as u64)?;
    Some(SeedAddr(room.0 + PARKING_LEN))
}

/// Sends a command in one piece: whoever takes it is woken once.
fn send(
    socket: &UnixStream,
    command: Command,
    mail: Vec<u8>,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    socket.set_write_timeout(Some(CHILD_TIMEOUT))?;
    scm::send_all(socket.as_fd(), &[command_bytes(command), mail].concat(), fds)
}

/// The region's bytes, in a memfd.
fn region(
    spec: &TemplateSpec<'_>,
    program: &Program,
    tail: &TailFacts,
) -> Result<OwnedFd, ResumeError> {
    let program_ops = program.ops.len() as u64;
    let program = program.encode(spec.placement.base + PROGRAM);
    if program.len() as u64 > PROGRAM_LEN {
        return Err(ResumeError::ProgramTooLarge { bytes: program.len() });
    }
    if spec.stub_table.len() as u64 > STUB_LEN {
        return Err(ResumeError::StubTableTooLarge { bytes: spec.stub_table.len() });
    }
    let params = Params {
        magic: PARAMS_MAGIC,
        program_ops,
        command_fd: COMMAND_FD.into(),
        tid_address: tail.tid_address(),
    };
    let table = tail.further().encode(spec.placement.base);
    if table.len() as u64 > TABLE_LEN {
        return Err(ResumeError::ThreadTableTooLarge { bytes: table.len() });
    }
    let parts: [(u64, &[u8]); 5] = [
        (0, blob::text()),
        (PARAMS, &params_bytes(params)),
        (STUB, spec.stub_table),
        (TABLE, &table),
        (PROGRAM, &program),
    ];
    enter::memfd(c"mitosis-restorer", &parts, REGION_LEN).map_err(ResumeError::Region)
}

fn params_bytes(params: Params) -> Vec<u8> {
    let Params { magic, program_ops, command_fd, tid_address } = params;
    [magic, program_ops, command_fd, tid_address].map(u64::to_le_bytes).concat()
}

fn command_bytes(command: Command) -> Vec<u8> {
    let Command { magic, mail_len, ops, clone_flags, fd_count, child, ahead, own_pid, own_proc } =
        command;
    [magic, mail_len, ops, clone_flags, fd_count, child, ahead, own_pid, own_proc]
        .map(u64::to_le_bytes)
        .concat()
}

/// A reply as it goes over the socket.
pub(crate) fn reply_bytes(reply: Reply) -> Vec<u8> {
    let Reply { kind, step, value, child } = reply;
    let head = u64::from(kind) | u64::from(step) << 32;
    [head, value.cast_unsigned(), child].map(u64::to_le_bytes).concat()
}

pub(super) fn parse_reply(bytes: &[u8; size_of::<Reply>()]) -> Reply {
    let word = |at: usize| {
        bytes[at..at + 4].iter().rev().fold(0u32, |word, byte| word << 8 | u32::from(*byte))
    };
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    Reply { kind: word(0), step: word(4), value: long(8).cast_signed(), child: long(16) }
}

fn step_text(program: &Program, step: u32) -> String {
    let op = usize::try_from(step).ok().and_then(|step| program.ops.get(step));
    op.map_or_else(|| "a step that is not in its program".to_owned(), ToString::to_string)
}

/// What a system call answered, for people.
fn outcome(result: i64) -> String {
    match result {
        -4095..=-1 => errno(result).to_string(),
        other => format!("it answered {other:#x}"),
    }
}

fn errno(result: i64) -> io::Error {
    io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EIO))
}
