//! The threads beside a child's first one.
//!
//! ```text
//!  first thread --clone3--> thread: its ops ... GATE --(the gate opens)--> rt_sigreturn
//!       \--- waits until each stands at its gate, goes on with the tail
//! ```
//! Each has a small stack in the region until it leaves for its own code, and all signals blocked as the
//! template has: nothing else ever runs on that stack. One whose op fails ends the child.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::abi::{RawOp, RawThread, Reply, TAIL_FAILED, THREAD_STACK_LEN, op};
use crate::region::Region;
use crate::runner::{self, Context};
use crate::{EXIT_BROKEN, commands, syscall};

/// The thread's index stands above its step.
const INDEX_SHIFT: u32 = 16;

/// Makes `count` threads, those of the table from `first` on; answers the first error.
///
/// # Safety
/// `first + count` records lie at `table`, and stay there; none of these threads was made before.
pub unsafe fn create(
    context: &Context,
    table: *const RawThread,
    first: u64,
    count: u64,
    waits: bool,
) -> Result<(), i64> {
    let region = context.region;
    let [arrived, expected] = region.arrivals();
    if waits {
        arrived.store(0, Ordering::Relaxed);
        region.leaving().store(0, Ordering::Relaxed);
        expected.store(count as u32, Ordering::Relaxed);
    }
    // SAFETY: threads read it, and none of them has been made.
    unsafe { (&raw mut (*region.threads_shared()).child).write(context.child) };
    for index in first..first + count {
        let stack = (region.thread_stack(index), THREAD_STACK_LEN);
        // SAFETY: the caller's promise; each index has a stack of its own.
        let answer = unsafe {
            let record = &*table.add(index as usize);
            syscall::clone_thread(record, region.base(), context.has_own_ids, stack)
        };
        if answer < 0 {
            return Err(answer);
        }
    }
    while waits {
        let standing = arrived.load(Ordering::Acquire);
        if u64::from(standing) >= count {
            break;
        }
        syscall::futex_wait(address(arrived), standing);
    }
    Ok(())
}

/// A thread's first code, on its small stack.
///
/// # Safety
/// Called by a thread that [`create`] has made, with its record and the region's base.
pub unsafe extern "C" fn begin(record: *const RawThread, base: u64) -> ! {
    // SAFETY: the caller's promise.
    let (region, record) = unsafe { (Region::at(base), &*record) };
    let shared = region.threads_shared();
    // SAFETY: written before this thread was made.
    let child = unsafe { (&raw const (*shared).child).read() };
    let context = Context { region, child, has_own_ids: false };
    // No op of a thread moves the command socket.
    let mut line = region.params().command_fd;
    let ops = record.ops as *const RawOp;
    // SAFETY: the agent has put the ops there.
    let ended = unsafe { runner::run(ops, record.op_count, &context, &mut line) };
    if let Err(failure) = ended {
        let Reply { step, value, .. } = failure.reply();
        let index = (record.index as u32).wrapping_add(1);
        let step = step | index << INDEX_SHIFT;
        let reply = Reply { kind: TAIL_FAILED, step, value, child };
        // The one that waits for nobody is made last: the command socket's number is a file of the child's.
        // SAFETY: the agent has put the ops there.
        if unsafe { waits_at_gate(ops, record.op_count) } {
            commands::reply(region.params(), reply);
        }
    }
    syscall::exit(EXIT_BROKEN)
}

/// Whether a gate is among `count` ops.
///
/// # Safety
/// `count` ops lie at `ops`.
unsafe fn waits_at_gate(ops: *const RawOp, count: u64) -> bool {
    // SAFETY: each index is below `count`.
    (0..count).any(|at| unsafe { (*ops.add(at as usize)).kind } == op::GATE)
}

/// Waits while the word at `gate` is 0: the first to come there, the others behind it. Each that goes wakes the next one:
/// whoever opens the gate, in whose way they would all come at once, wakes one.
pub fn wait_at(region: &Region, gate: u64) {
    let [arrived, expected] = region.arrivals();
    let before = arrived.fetch_add(1, Ordering::AcqRel);
    if before + 1 == expected.load(Ordering::Relaxed) {
        // Whoever makes the threads is the only one there.
        syscall::futex_wake_one(address(arrived));
    }
    let leaving = region.leaving();
    if before == 0 {
        // SAFETY: the descriptor says that an aligned word of the child's lies there, for as long as it runs.
        let word = unsafe { AtomicU32::from_ptr(gate as *mut u32) };
        while word.load(Ordering::Acquire) == 0 {
            syscall::futex_wait(gate, 0);
        }
        leaving.store(1, Ordering::Release);
    } else {
        while leaving.load(Ordering::Acquire) == 0 {
            syscall::futex_wait(address(leaving), 0);
        }
    }
    syscall::futex_wake_one(address(leaving));
}

fn address(word: &AtomicU32) -> u64 {
    word.as_ptr().addr() as u64
}
