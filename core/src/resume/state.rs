//! A template is given the state that few programs change. What is as in any process costs no step.

use super::calls;
use super::program::{Expect, Op};
use crate::descriptor::state::TIMER_SLACK_NS;
use crate::descriptor::{Descriptor, State, ThreadState};

const PR_SET_MDWE: i32 = 65;
const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
/// MEMBARRIER_CMD_REGISTER_*: each bit is its command.
const MEMBARRIER_REGISTER: u32 = 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8;
const IOPRIO_WHO_PROCESS: u64 = 1;

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
    if thp_disable & 1 == 1 {
        ops.push(set(libc::PR_SET_THP_DISABLE, 1, (thp_disable & !1).into()));
    }
    if let Some(thread) = desc.state.threads.get(first) {
        ops.extend(of_thread(thread, &ThreadState::default()));
    }
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
