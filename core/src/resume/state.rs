//! A template is given the state that few programs change. What is as in any process costs no step.

use super::calls;
use super::program::{Arg, Expect, Op};
use crate::descriptor::state::TIMER_SLACK_NS;
use crate::descriptor::{Descriptor, State, ThreadState, Treatment};

const PR_SET_MDWE: i32 = 65;
const PR_SET_SPECULATION_CTRL: i32 = 53;
const PR_SET_IO_FLUSHER: i32 = 57;
const PR_SET_MEMORY_MERGE: i32 = 67;
const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
/// MEMBARRIER_CMD_REGISTER_*: each bit is its command.
const MEMBARRIER_REGISTER: u32 = 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8;
const IOPRIO_WHO_PROCESS: u64 = 1;
const MCE_KILL_SET: u64 = 1;
/// A template's 0, 1 and 2 are /dev/null; its children's are others. It has no further number to spare under its limit.
const FILE_FD: u32 = 0;

/// The process's, and that of the thread `first`, which clones inherit.
pub(super) fn restore(ops: &mut Vec<Op>, desc: &Descriptor, first: usize) {
    let State { vector_permits, membarrier, thp_disable, .. } = desc.state;
    for component in (0..64).filter(|bit| vector_permits >> bit & 1 == 1) {
        ops.push(calls::arch_prctl(ARCH_REQ_XCOMP_PERM, component));
    }
    for command in (0..32).map(|bit| 1u32 << bit).filter(|bit| membarrier & bit != 0) {
        if command & MEMBARRIER_REGISTER != 0 {
            ops.push(calls::membarrier(command));
        }
    }
    let set = |what: i32, value: u64, flags: u64| {
        calls::prctl(what, [value.into(), flags.into()], Expect::Success)
    };
    // A hint, whose flags an older kernel does not know.
    if thp_disable & 1 == 1 {
        let args = [1.into(), u64::from(thp_disable & !1).into()];
        ops.push(calls::prctl(libc::PR_SET_THP_DISABLE, args, Expect::Ignored));
    }
    // Secure bits may forbid it.
    if desc.state.keeps_capabilities {
        ops.push(calls::prctl(libc::PR_SET_KEEPCAPS, [1.into(), 0.into()], Expect::Ignored));
    }
    if let Some(policy) = desc.state.memory_failure {
        ops.push(set(libc::PR_MCE_KILL, MCE_KILL_SET, policy.into()));
    }
    if let Some(filter) = desc.state.core_filter {
        ops.extend(write_to("/proc/self/coredump_filter", format!("{filter:#x}")));
    }
    // Of 0, too: the agent's own may be another. To be spared takes CAP_SYS_RESOURCE.
    ops.extend(write_to("/proc/self/oom_score_adj", desc.state.oom_score.to_string()));
    if let Some(thread) = desc.state.threads.get(first) {
        ops.extend(of_thread(thread, &ThreadState::default()));
    }
    treat(ops, &desc.treatment);
    if desc.state.deny_write_execute != 0 {
        ops.push(set(PR_SET_MDWE, desc.state.deny_write_execute.into(), 0));
    }
    if desc.state.no_new_privs {
        ops.push(set(libc::PR_SET_NO_NEW_PRIVS, 1, 0));
    }
    // Last: /proc/self is root's from here on.
    if desc.state.is_undumpable {
        ops.push(set(libc::PR_SET_DUMPABLE, 0, 0));
    }
}

/// What clones inherit. To have pages merged is a hint, and a processor that does not guess needs no order.
fn treat(ops: &mut Vec<Op>, treatment: &Treatment) {
    if treatment.merges_memory {
        ops.push(calls::prctl(PR_SET_MEMORY_MERGE, [1.into()], Expect::Ignored));
    }
    if treatment.is_io_flusher {
        ops.push(calls::prctl(PR_SET_IO_FLUSHER, [1.into()], Expect::Success));
    }
    for (kind, how) in (0u64..).zip(treatment.speculation).filter(|(_, how)| *how != 0) {
        let args = [kind.into(), u64::from(how).into()];
        ops.push(calls::prctl(PR_SET_SPECULATION_CTRL, args, Expect::Ignored));
    }
}

/// Writes to a file of the template's own, as far as it may.
fn write_to(path: &str, text: String) -> [Op; 3] {
    let path = [path.as_bytes(), b"\0"].concat();
    let flags = u64::from((libc::O_WRONLY | libc::O_CLOEXEC).cast_unsigned());
    let (args, length) = ([path.into(), flags.into()], text.len() as u64);
    let [path, flags] = args;
    let unused = || Arg::Unused;
    let write = [u64::from(FILE_FD).into(), text.into_bytes().into(), length.into()];
    [
        Op::Open {
            name: "open",
            number: u32::try_from(libc::SYS_open).unwrap_or(u32::MAX),
            args: [path, flags, unused(), unused(), unused()],
            to: FILE_FD,
            flags: 0,
            if_there: true,
        },
        calls::call("write", libc::SYS_write, write, Expect::Ignored),
        calls::dup2(FILE_FD + 1, FILE_FD),
    ]
}

/// What makes a thread's state `thread`, in one that has inherited `before`.
pub(super) fn of_thread(thread: &ThreadState, before: &ThreadState) -> Vec<Op> {
    let mut ops = Vec::new();
    if thread.io_priority != before.io_priority {
        ops.push(calls::ioprio_set(IOPRIO_WHO_PROCESS, thread.io_priority.into()));
    }
    // A real-time thread has none, whatever it is told.
    let slack = if thread.timer_slack_ns == 0 { TIMER_SLACK_NS } else { thread.timer_slack_ns };
    if slack != before.timer_slack_ns {
        ops.push(calls::prctl(libc::PR_SET_TIMERSLACK, [slack.into()], Expect::Success));
    }
    ops
}

/// What makes room for the vector state that lies in a thread's frame, before it is read from there: the kernel
/// drops more than the legacy part of a frame that is larger than the room that the thread has.
pub(super) fn room_for_vectors(thread: &ThreadState) -> Option<Op> {
    thread.has_tiles.then_some(Op::Tiles)
}
