//! The threads of a whole process beside the first one of its children: a table that is the same for all
//! children of a template, and lies in its region.
//!
//! ```text
//! base + TABLE   RawThread, RawThread ...   then of each: ops, bytes   then, for all of them: credentials
//! ```
//! The first thread of a child is the process's own first one (its id is the process's), so that its
//! further threads can have their ids, too. It need not be the one that called prepare: then the caller is
//! the last of the table, made when all else of the tail is done, and the only one that waits at no gate.

use std::fmt;

use super::abi::{RawThread, TABLE};
use super::calls;
use super::compile::{CompileError, alternate_stack};
use super::program::{Expect, Op, Program};
use super::state;
use crate::descriptor::{Descriptor, Sched, SeedAddr, Thread, ThreadState};

const ARCH_SET_GS: u64 = 0x1001;
const SCHED_DEADLINE: u32 = 6;
/// Of a program whose length is asked.
const NOWHERE: Op = Op::All { at: 0, count: 0 };

/// All threads of a descriptor but the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FurtherThreads {
    threads: Vec<Further>,
    ends_with_caller: bool,
    /// What each of them runs that waits at a gate: one list, which may be long.
    credentials: Program,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Further {
    tid: u32,
    tid_address: u64,
    fs_base: u64,
    name: String,
    program: Program,
    /// Where in its program the credentials go.
    as_whom: Option<usize>,
}

/// The thread that a child begins with, by its index.
pub(super) fn first(desc: &Descriptor) -> Result<usize, CompileError> {
    if desc.threads.is_empty() || (desc.whole.is_none() && desc.threads.len() > 1) {
        return Err(CompileError::Threads(desc.threads.len()));
    }
    let is_first = |thread: &Thread| thread.tid == desc.process.parent_pid;
    Ok(desc.threads.iter().position(is_first).unwrap_or(0))
}

impl FurtherThreads {
    /// Those of `desc`; none if it is no whole process. Each is given the credentials itself, but for the caller, which
    /// is made by a thread that has them.
    ///
    /// # Errors
    /// `Threads` if there are several all the same.
    pub fn of(desc: &Descriptor, credentials: &[Op]) -> Result<FurtherThreads, CompileError> {
        let first = first(desc)?;
        let Some(whole) = &desc.whole else { return Ok(FurtherThreads::default()) };
        let plain = whole.sched.iter().all(|sched| *sched == Sched::default());
        let further = |index: usize| {
            let (thread, gate) = (&desc.threads[index], (index != 0).then_some(whole.gate));
            let sched = whole.sched.get(index).filter(|_| !plain);
            let states = &desc.state.threads;
            let kept = states.get(first).zip(states.get(index));
            let (program, as_whom) =
                beginning(thread, sched, kept, signals_of(desc, thread.tid), gate);
            Further {
                tid: thread.tid,
                tid_address: thread.tid_address.0,
                fs_base: thread.fs_base,
                name: String::from_utf8_lossy(&thread.name).into_owned(),
                program,
                as_whom: as_whom.filter(|_| !credentials.is_empty()),
            }
        };
        let others = 1..desc.threads.len();
        let caller = (first != 0).then_some(0);
        Ok(FurtherThreads {
            threads: others.filter(|at| *at != first).chain(caller).map(further).collect(),
            ends_with_caller: caller.is_some(),
            credentials: Program { ops: credentials.to_vec() },
        })
    }

    /// How many wait at the gate.
    pub(super) fn waiting(&self) -> u64 {
        self.threads.len() as u64 - u64::from(self.ends_with_caller)
    }

    /// Whether there is one behind them, the caller of prepare.
    pub(super) fn ends_with_caller(&self) -> bool {
        self.ends_with_caller
    }

    /// The highest id among them.
    pub(super) fn highest_id(&self) -> u32 {
        self.threads.iter().map(|thread| thread.tid).max().unwrap_or(0)
    }

    /// The table as it must lie in the region at `base`.
    pub(super) fn encode(&self, base: u64) -> Vec<u8> {
        let heads = self.threads.len() * size_of::<RawThread>();
        let lengths = self.threads.iter().map(|thread| thread.program_with(NOWHERE).encoded_len());
        let shared_at = base + TABLE + (heads + lengths.sum::<usize>()) as u64;
        let mut table = Vec::with_capacity(heads);
        let mut programs = Vec::new();
        for (index, thread) in (0u64..).zip(&self.threads) {
            let ops = base + TABLE + (heads + programs.len()) as u64;
            let shared = Op::All { at: shared_at, count: self.credentials.ops.len() as u64 };
            let program = thread.program_with(shared);
            programs.extend_from_slice(&program.encode(ops));
            let count = program.ops.len() as u64;
            let Further { tid, tid_address, fs_base, .. } = *thread;
            let raw =
                RawThread { tid: tid.into(), tid_address, fs_base, ops, op_count: count, index };
            let RawThread { tid, tid_address, fs_base, ops, op_count, index } = raw;
            for word in [tid, tid_address, fs_base, ops, op_count, index] {
                table.extend_from_slice(&word.to_le_bytes());
            }
        }
        table.extend_from_slice(&programs);
        if self.threads.iter().any(|thread| thread.as_whom.is_some()) {
            table.extend_from_slice(&self.credentials.encode(shared_at));
        }
        table
    }

    /// A step of a thread, as a reply numbers both, for people.
    pub(super) fn step_text(&self, index: u32, step: u32) -> String {
        let at = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let thread = self.threads.get(at(index).wrapping_sub(1));
        let shared = Op::All { at: 0, count: self.credentials.ops.len() as u64 };
        let op = thread.and_then(|thread| thread.program_with(shared).ops.get(at(step)).cloned());
        match (thread, op) {
            (Some(thread), Some(op)) => format!("{op} of thread {} ({})", thread.tid, thread.name),
            _ => "a step that is not in its program".to_owned(),
        }
    }
}

impl fmt::Display for FurtherThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = Op::All { at: 0, count: self.credentials.ops.len() as u64 };
        self.threads.iter().try_for_each(|thread| {
            writeln!(f, "thread {} ({}), fs {:#x}:", thread.tid, thread.name, thread.fs_base)?;
            write!(f, "{}", thread.program_with(shared.clone()))
        })
    }
}

impl Further {
    /// What it runs, with `shared` for what makes it whom it is to be.
    fn program_with(&self, shared: Op) -> Program {
        let mut program = self.program.clone();
        if let Some(at) = self.as_whom {
            program.ops.insert(at, shared);
        }
        program
    }
}

/// What waits for thread `tid`, queued by itself: nobody else may say that it was a kill(2), or a child's end. 0: what
/// waits for the process, by its first thread. All signals are blocked until each is in its own code.
pub(super) fn signals_of(desc: &Descriptor, tid: u32) -> Option<Op> {
    let queue = desc.pending.iter().find(|queue| queue.tid == tid && queue.count > 0)?;
    Some(Op::Signals { at: queue.at.0, count: queue.count, to_thread: tid != 0 })
}

/// What a thread runs before its own code. The signal mask and the rest of its registers come with the
/// frame; rseq comes late, for the same reason as in a tail. `kept`: what the first thread's state is, and this one's.
/// `gate`: where it waits. With the program the place where it becomes whom it is to be; a thread that
/// waits nowhere is made by one that is it already.
fn beginning(
    thread: &Thread,
    sched: Option<&Sched>,
    kept: Option<(&ThreadState, &ThreadState)>,
    signals: Option<Op>,
    gate: Option<SeedAddr>,
) -> (Program, Option<usize>) {
    let mut ops = Vec::with_capacity(8);
    let name = [thread.name.as_slice(), b"\0"].concat();
    ops.push(calls::prctl(libc::PR_SET_NAME, [name.into()], Expect::Success));
    // What the first thread has in GS, a clone has, too.
    ops.push(calls::arch_prctl(ARCH_SET_GS, thread.gs_base));
    let (alt_base, alt_flags, alt_size) = thread.alt_stack;
    if alt_size != 0 {
        ops.push(calls::sigaltstack(alternate_stack(alt_base.0, alt_flags, alt_size)));
    }
    let (head, len) = thread.robust_list;
    if len != 0 {
        ops.push(calls::set_robust_list(head.0, len));
    }
    // One that runs behind others would hold those up that leave the gate after it. Behind the gate nobody can be told of a
    // failure, and to lower itself a thread needs no capability.
    let late = sched.filter(|sched| gate.is_some() && is_lowered(sched));
    let early = sched.filter(|_| late.is_none());
    ops.extend(early.map(|sched| scheduling(sched, Expect::Success)));
    if let Some((first, own)) = kept {
        ops.extend(state::of_thread(own, first));
        ops.extend(state::room_for_vectors(own));
    }
    ops.extend(signals);
    if let Some(rseq) = thread.rseq {
        ops.push(calls::rseq(rseq.addr.0, rseq.len, rseq.signature));
    }
    let as_whom = gate.map(|_| ops.len());
    ops.extend(gate.map(|gate| Op::Gate { addr: gate.0 }));
    ops.extend(late.map(|sched| scheduling(sched, Expect::Ignored)));
    ops.push(Op::SignalReturn { frame: thread.frame.0 });
    (Program { ops }, as_whom)
}

/// sched_setattr(2) of the calling thread. The deadline class takes reservations that another host has not
/// made: such a thread runs as any other.
pub(super) fn scheduling(sched: &Sched, expect: Expect) -> Op {
    const LEN: u32 = 48;
    let Sched { policy, priority, nice, flags } = *sched;
    let policy = if policy == SCHED_DEADLINE { 0 } else { policy };
    let mut attributes = [LEN, policy].map(u32::to_le_bytes).concat();
    attributes.extend_from_slice(&flags.to_le_bytes());
    attributes.extend_from_slice(&nice.to_le_bytes());
    attributes.extend_from_slice(&priority.to_le_bytes());
    attributes.resize(LEN as usize, 0);
    calls::sched_setattr(attributes, expect)
}

/// Whether it takes CAP_SYS_NICE, and none to leave it again.
pub(super) fn is_raised(sched: &Sched) -> bool {
    match i32::try_from(sched.policy) {
        Ok(libc::SCHED_FIFO | libc::SCHED_RR) => true,
        Ok(libc::SCHED_IDLE) => false,
        _ => sched.nice < 0,
    }
}

/// Whether others run before it.
fn is_lowered(sched: &Sched) -> bool {
    match i32::try_from(sched.policy) {
        Ok(libc::SCHED_FIFO | libc::SCHED_RR) => false,
        Ok(libc::SCHED_IDLE) => true,
        _ => sched.nice > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resume::compile::tests::descriptor;

    /// Which steps of a thread that is to be scheduled so do it; all of them; where it becomes whom it is to be.
    fn scheduled(sched: Sched, gate: Option<SeedAddr>) -> (Vec<usize>, Vec<String>, Option<usize>) {
        let thread = &descriptor().threads[0];
        let (program, as_whom) = beginning(thread, Some(&sched), None, None, gate);
        let steps: Vec<String> = program.ops.iter().map(Op::to_string).collect();
        let is_it = |step: &usize| steps[*step].starts_with("sched_setattr");
        let found = (0..steps.len()).filter(is_it).collect();
        (found, steps, as_whom)
    }

    #[test]
    fn who_is_lowered_leaves_the_gate_before() {
        let idle = Sched { policy: 5, ..Sched::default() };
        let raised = Sched { policy: 1, priority: 1, ..Sched::default() };
        let nice = |nice| Sched { nice, ..Sched::default() };
        let all = [(idle, true), (nice(19), true), (nice(0), false), (nice(-5), false)];
        for (sched, is_late) in all.into_iter().chain([(raised, false)]) {
            let (found, steps, as_whom) = scheduled(sched, Some(SeedAddr(0x400)));
            let gate = steps.iter().position(|step| step.starts_with("futex wait")).unwrap();
            let [step] = found[..] else { panic!("{steps:?}") };
            assert_eq!(step == gate + 1, is_late, "{steps:?}");
            assert_eq!(step < gate, !is_late, "{steps:?}");
            assert_eq!(steps[step].ends_with("(may fail)"), is_late, "{steps:?}");
            assert_eq!(as_whom, Some(gate), "{steps:?}");
            assert!(steps.last().unwrap().starts_with("rt_sigreturn"), "{steps:?}");
            let (found, steps, _) = scheduled(sched, None);
            assert_eq!(found.len(), 1, "{steps:?}");
            assert!(!steps[found[0]].ends_with("(may fail)"), "{steps:?}");
        }
    }
}
