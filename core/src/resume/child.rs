//! A child's mail: its tail program, and what it will find in its `ResumeInfo`.
//!
//! ```text
//! base + MAIL   tail: ops, bytes      payload      environment: NAME=VALUE\0 or NAME\0 ...
//! ```

use std::os::fd::BorrowedFd;

use super::ResumeError;
use super::abi::{MAIL, MAIL_LEN, NumberRange};
use super::calls;
use super::compile::{COMMAND_FD, CompileError};
use super::files::FilePlan;
use super::program::{Expect, Op, Program};
use crate::descriptor::{Descriptor, OpenFile, SeedAddr, SeedRange, Thread, VmaFlags};
use crate::id::{ChildId, SeedId};
use crate::prepare::{MAX_MAIL_BYTES, RESUME_MAGIC, ResumeInfo};

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
    /// [`MAX_LISTENERS`](super::files::MAX_LISTENERS).
    pub listeners: &'a [(u32, BorrowedFd<'a>)],
    /// Flags for clone3(2): namespaces of its own.
    pub extra_clone_flags: u64,
}

/// What all tails of a template share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailFacts {
    thread: Thread,
    dont_fork: Vec<SeedRange>,
    resume_area: SeedAddr,
    /// Numbers that memory of the child's takes for open.
    numbers: Vec<NumberRange>,
    /// How they become files again, where they are carried.
    files: Option<FilePlan>,
}

/// Ranges of numbers that a tail reserves: 64 KiB of its mail. Numbers in the gaps behind are reserved, too.
pub const MAX_NUMBER_RANGES: usize = 8192;

impl TailFacts {
    /// Of the children of `desc`.
    ///
    /// # Errors
    /// `Threads` for any number but one.
    pub fn of(desc: &Descriptor) -> Result<TailFacts, CompileError> {
        let [thread] = desc.threads.as_slice() else {
            return Err(CompileError::Threads(desc.threads.len()));
        };
        let dont_fork = desc.vmas.iter().filter(|vma| vma.flags.has(VmaFlags::DONT_FORK));
        Ok(TailFacts {
            thread: thread.clone(),
            dont_fork: dont_fork.map(|vma| vma.range).collect(),
            resume_area: desc.resume_area.addr,
            numbers: numbers_in_use(&desc.open_files),
            files: desc.carried.as_ref().map(FilePlan::of),
        })
    }

    /// Where the kernel writes a child's tid.
    pub fn tid_address(&self) -> u64 {
        self.thread.tid_address.0
    }

    /// The tail, whose last act before it leaves for the seed's code is to close what is not the child's, and
    /// to put what is nothing on each number that its memory takes for open: whoever uses one is refused
    /// with EBADF, and whoever closes one closes no file that the child has opened since.
    ///
    /// The parent-death signal comes first and is checked against a keeper that was gone before; rseq comes
    /// late, when nothing of the tail can be interrupted in a way that the area's owner would see.
    ///
    /// Its 0, 1 and 2 come as the descriptors from `stdio` on, and behind them the nothing: a descriptor
    /// that was opened with O_PATH. Then sockets for the carried files `listeners`.
    pub fn tail(
        &self,
        keeper: u32,
        stdio: u32,
        info: &[u8; INFO_LEN],
        listeners: &[u32],
    ) -> Program {
        let kill = u64::from(libc::SIGKILL.cast_unsigned());
        let mut ops = vec![
            calls::prctl(libc::PR_SET_PDEATHSIG, [kill.into()], Expect::Success),
            calls::check_parent(keeper),
            // A child that signals its process group must not reach the keeper and its siblings.
            calls::setsid(),
        ];
        ops.extend((0..3).map(|number| calls::dup2(stdio + number, number)));
        if let Some(files) = &self.files {
            ops.extend(files.make(stdio, COMMAND_FD, listeners));
        }
        ops.extend(self.dont_fork.iter().map(|range| {
            calls::madvise(range.start.0, range.len(), libc::MADV_DONTFORK, Expect::Success)
        }));
        let (head, len) = self.thread.robust_list;
        if len != 0 {
            ops.push(calls::set_robust_list(head.0, len));
        }
        ops.push(Op::Store { addr: self.resume_area.0, bytes: info.to_vec() });
        if let Some(rseq) = self.thread.rseq {
            ops.push(calls::rseq(rseq.addr.0, rseq.len, rseq.signature));
        }
        match &self.files {
            Some(files) => ops.extend(files.close_helpers()),
            None => ops.extend(self.close_all_but_stdio(stdio + 3)),
        }
        ops.push(Op::SignalReturn { frame: self.thread.frame.0 });
        Program { ops }
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

    /// The mail for a child, and its number of ops. `base` is the region's, `stdio` as for [`Self::tail`].
    ///
    /// # Errors
    /// `MailTooLarge`.
    pub fn mail(
        &self,
        keeper: u32,
        base: u64,
        stdio: u32,
        spec: &ChildSpec<'_>,
    ) -> Result<(Vec<u8>, u64), ResumeError> {
        let carried = spec.payload.len() + spec.environment.len();
        if carried > MAX_MAIL_BYTES {
            return Err(ResumeError::MailTooLarge { bytes: carried });
        }
        let at = base + MAIL;
        let keeper = if spec.extra_clone_flags & NEW_PID != 0 { 0 } else { keeper };
        let listeners: Vec<u32> = spec.listeners.iter().map(|(record, _)| *record).collect();
        let tail_of = |info: &[u8; INFO_LEN]| self.tail(keeper, stdio, info, &listeners);
        // The length of the tail does not depend on what its info says.
        let tail_len = tail_of(&[0; INFO_LEN]).encode(at).len() as u64;
        let payload = (at + tail_len, spec.payload.len() as u64);
        let environment_at = (payload.0 + payload.1, spec.environment.len() as u64);
        let tail = tail_of(&info_bytes(spec, payload, environment_at));
        let mut mail = tail.encode(at);
        mail.extend_from_slice(spec.payload);
        mail.extend_from_slice(spec.environment);
        if mail.len() as u64 > MAIL_LEN {
            return Err(ResumeError::MailTooLarge { bytes: mail.len() });
        }
        Ok((mail, tail.ops.len() as u64))
    }
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
) -> [u8; INFO_LEN] {
    let mut words = RESUME_MAGIC.to_le_bytes().to_vec();
    words.extend_from_slice(&spec.role.to_le_bytes());
    words.extend_from_slice(&spec.index.to_le_bytes());
    let (seed, child) = (spec.seed.0, spec.child.0);
    for word in [spec.generation, seed, child, payload.0, payload.1, environment.0, environment.1] {
        words.extend_from_slice(&word.to_le_bytes());
    }
    let mut bytes = [0; INFO_LEN];
    bytes.copy_from_slice(&words);
    bytes
}
