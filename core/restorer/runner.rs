//! The interpreter of restore programs.

use core::ptr;

use crate::abi::{NumberRange, RawOp, RawThread, Reply, op};
use crate::region::Region;
use crate::{arch, files, syscall, threads};

/// Errors are `FIRST_ERROR..=-1`, each the negative errno.
const FIRST_ERROR: i64 = -4095;
/// What a step of an unknown kind answers.
const ENOSYS: i64 = 38;

/// Whose ops are run.
#[derive(Clone, Copy)]
pub struct Context {
    /// The process's region.
    pub region: Region,
    /// Its name, if it is a child.
    pub child: u64,
    /// It is in a namespace of its own: its threads get the ids that they are said to have.
    pub has_own_ids: bool,
}

impl Context {
    /// The template itself.
    pub fn of_template(region: Region) -> Context {
        Context { region, child: 0, has_own_ids: false }
    }
}

/// An op that did not answer as expected.
pub struct Failure {
    step: u32,
    result: i64,
}

impl Failure {
    /// The part of a reply that tells of it.
    pub fn reply(&self) -> Reply {
        Reply { step: self.step, value: self.result, ..Reply::default() }
    }
}

/// Runs ops in order, up to the first that does not answer as expected. Does not return from
/// [`op::SIGNAL_RETURN`]. `line` is the command socket's number, and follows it where it moves.
///
/// # Safety
/// `count` ops lie at `ops` and stay mapped and unchanged while they run; what they do to this process is
/// what their author wants.
pub unsafe fn run(
    ops: *const RawOp,
    count: u64,
    context: &Context,
    line: &mut u64,
) -> Result<(), Failure> {
    let mut step = 0;
    while u64::from(step) < count {
        // SAFETY: `step < count`.
        let op = unsafe { &*ops.add(step as usize) };
        // Not by a call of this function's own: a thread's first stack is small.
        let (first, inner) = match op.kind {
            op::ALL => (op.args[0] as *const RawOp, op.args[1]),
            _ => (ptr::from_ref(op), 1),
        };
        for at in 0..inner {
            // SAFETY: the caller's promise.
            unsafe { perform(&*first.add(at as usize), context, line) }
                .map_err(|result| Failure { step, result })?;
        }
        step += 1;
    }
    Ok(())
}

/// One op; an unexpected result is the error.
///
/// # Safety
/// As [`run`].
unsafe fn perform(op: &RawOp, context: &Context, line: &mut u64) -> Result<(), i64> {
    let [a, b, c, d, ..] = op.args;
    // SAFETY: each arm is what the op's author wants.
    unsafe {
        match op.kind {
            op::SYSCALL => match call(op) {
                error @ FIRST_ERROR..=-1 => Err(error),
                _ => Ok(()),
            },
            op::SYSCALL_EXACT => match call(op) {
                result if result as u64 == op.expect => Ok(()),
                other => Err(other),
            },
            op::SYSCALL_IGNORED => {
                call(op);
                Ok(())
            }
            op::STORE => {
                arch::copy(a as *mut u8, b as *const u8, c as usize);
                Ok(())
            }
            op::SIGNAL_RETURN => arch::signal_return(a),
            op::RESERVE => {
                reserve(a, b as *const NumberRange, c);
                Ok(())
            }
            op::THREADS => {
                let table = a as *const RawThread;
                threads::create(context, table, b, c, d & op::THREADS_WAIT != 0)
            }
            op::GATE => {
                threads::wait_at(&context.region, a);
                Ok(())
            }
            op::PARENT => {
                let wanted = if context.has_own_ids { 0 } else { a };
                let parent = syscall::parent();
                if parent == wanted { Ok(()) } else { Err(parent as i64) }
            }
            op::OPEN => files::open(op),
            op::OPEN_IF_THERE => {
                let _ = files::open(op);
                Ok(())
            }
            op::PAIR => files::pair(op),
            op::COMMAND_AT => {
                let moved = syscall::copy_to(*line, a);
                if moved < 0 {
                    return Err(moved);
                }
                *line = a;
                Ok(())
            }
            op::WATCH => files::watch(op),
            op::SIGNALS => signals(a, b, c != 0),
            op::TILES => {
                arch::use_tiles();
                Ok(())
            }
            _ => Err(-ENOSYS),
        }
    }
}

/// Queues signals as whoever sent them: a process may so deceive nobody but itself.
///
/// # Safety
/// `count` records lie at `at`.
unsafe fn signals(at: u64, count: u64, to_thread: bool) -> Result<(), i64> {
    const INFO_LEN: u64 = 128;
    for info in (0..count).map(|index| at + index * INFO_LEN) {
        // SAFETY: the caller's promise; a record begins with the signal's number.
        let signal = unsafe { (info as *const u32).read() };
        let answer = syscall::queue_signal(signal, info, to_thread);
        if answer < 0 {
            return Err(answer);
        }
    }
    Ok(())
}

/// Gives copies of `fd` the numbers of `count` ranges, in order, up to the first that it cannot get: those
/// above it are beyond this process's limit, too.
///
/// # Safety
/// `count` ranges lie at `ranges`.
unsafe fn reserve(fd: u64, ranges: *const NumberRange, count: u64) {
    for at in 0..count {
        // SAFETY: `at < count`.
        let NumberRange { first, last } = unsafe { *ranges.add(at as usize) };
        for number in (u64::from(first)..=u64::from(last)).filter(|number| *number != fd) {
            if syscall::copy_to(fd, number) < 0 {
                return;
            }
        }
    }
}

/// The op's system call.
///
/// # Safety
/// As [`run`].
unsafe fn call(op: &RawOp) -> i64 {
    // SAFETY: the caller's promise.
    unsafe { arch::syscall(u64::from(op.number), op.args) }
}
