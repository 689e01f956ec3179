//! Signals that are pending while threads stand: a child of a whole process has them, too.
//!
//! ```text
//!  parker   any pending that are blocked? > /proc: whose are they > helper .............> report: where they lie
//!  helper                                            for each queue: stop its thread > PTRACE_PEEKSIGINFO > let go
//!  child                                                                  each thread, before its own code: queue them
//! ```
//!
//! They are looked at, never taken: the parent's queues are not touched. Only another process may look, so a helper
//! does, where there is anything to see. What it finds lies in the table, and so in the memory of the children. A signal that
//! a thread does not block is on its way to a handler of the parent, and no child's.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::failure::{self, Kind};
use super::open::{self, Queue};
use super::park::Reason;
use super::table::Table;
use crate::descriptor::{MAX_PENDING, MAX_THREADS};
use crate::prepare::proc_files::read_file;
use crate::prepare::proc_text::{Path, hex};
use crate::prepare::report::{ReportWriter, tag};
use crate::sys::queued_signal::QueuedSignal;
use crate::sys::rawcall::signal_bit;

/// What libc keeps for itself, and what cannot be blocked.
const NOT_CARRIED: [i32; 4] = [libc::SIGKILL, libc::SIGSTOP, 32, 33];
/// Signals that are looked at by one call.
const AT_ONCE: usize = 64;

/// What was found; all zero: nothing.
#[repr(C)]
pub(super) struct Waiting {
    lists: UnsafeCell<[List; MAX_THREADS + 1]>,
    list_count: AtomicUsize,
    /// One more than are carried: whoever fills it has too many.
    signals: UnsafeCell<[QueuedSignal; MAX_PENDING + 1]>,
}

/// One queue.
#[repr(C)]
#[derive(Clone, Copy)]
struct List {
    /// Through which thread it is seen, and as which /proc knows that.
    tid: u32,
    in_proc: u32,
    /// 1: the process's queue. 0: the thread's.
    is_shared: u32,
    /// The signals that are carried.
    set: u64,
    first: usize,
    count: usize,
    /// -errno.
    error: i32,
}

impl Waiting {
    /// Says where they lie, in a seed.
    ///
    /// # Safety
    /// Nobody writes to it.
    pub(super) unsafe fn report(&self, writer: &mut ReportWriter<'_>) {
        // SAFETY: the caller's.
        let lists = unsafe { &*self.lists.get() };
        for list in &lists[..self.list_count.load(SeqCst)] {
            let tid = if list.is_shared == 1 { 0 } else { list.tid };
            let first = self.signals.get().addr() + list.first * size_of::<QueuedSignal>();
            writer.record(tag::PENDING, &[tid.into(), first as u64, list.count as u64], &[]);
        }
    }

    fn add(&self, list: List) {
        let at = self.list_count.load(SeqCst);
        // SAFETY: the parker's alone while it looks; there is room for all threads and the process.
        if let Some(place) = unsafe { &mut *self.lists.get() }.get_mut(at) {
            *place = list;
            self.list_count.store(at + 1, SeqCst);
        }
    }
}

/// Looks while all threads of `table` stand, the caller's state included. `text` is for files of /proc.
pub(super) fn take(table: &Table, deadline: u64, text: &mut [u8]) -> Result<(), Reason> {
    table.waiting.list_count.store(0, SeqCst);
    let libcs = NOT_CARRIED.iter().fold(0, |set, signal| set | signal_bit(*signal));
    // SAFETY: all of them have arrived, and nobody writes to the caller's.
    let (caller, parked) = unsafe { (table.caller(), table.parked()) };
    let (mut any, mut by_all) = (caller.pending & caller.blocked, caller.blocked);
    for thread in parked {
        any |= thread.pending & thread.blocked;
        by_all &= thread.blocked;
    }
    if any & !libcs == 0 {
        return Ok(());
    }
    let here = c"/proc/thread-self/status".as_ptr().cast();
    let caller_tid = u32::try_from(caller.tid()).unwrap_or(0);
    let [own, shared] = sets(here, text)?;
    let list = |(tid, in_proc), is_shared: bool, set| List {
        tid,
        in_proc,
        is_shared: is_shared.into(),
        set,
        first: 0,
        count: 0,
        error: 0,
    };
    let numbers = (caller_tid, caller_tid);
    let mut found = [(true, shared & by_all), (false, own & caller.blocked)]
        .map(|(is, set)| (is, set & !libcs));
    for (is_shared, set) in found.iter_mut().filter(|(_, set)| *set != 0) {
        table.waiting.add(list(numbers, *is_shared, *set));
    }
    for (tid, slot) in table.threads() {
        // SAFETY: it has arrived.
        let state = unsafe { &*slot.state.get() };
        if state.pending & state.blocked & !libcs == 0 {
            continue;
        }
        let in_proc = slot.in_proc.load(SeqCst);
        let path = Path::new(b"/proc/self/task/", in_proc.into(), b"/status");
        let [own, _] = sets(path.as_ptr(), text)?;
        if own & state.blocked & !libcs != 0 {
            table.waiting.add(list((tid, in_proc), false, own & state.blocked & !libcs));
        }
    }
    if table.waiting.list_count.load(SeqCst) == 0 {
        return Ok(());
    }
    let described = |kind, list: &List, answer, text: &mut [u8]| {
        Err(failure::describe(kind, list.tid, answer, list.in_proc, text))
    };
    // SAFETY: the helper has ended, or there was none.
    let lists =
        || unsafe { &(&*table.waiting.lists.get())[..table.waiting.list_count.load(SeqCst)] };
    if let Err(answer) = open::by_helper(table, deadline, look) {
        return described(Kind::SignalsUnseen, &lists()[0], answer, text);
    }
    match lists().iter().find(|list| list.error != 0) {
        None => Ok(()),
        Some(list) if list.error == -libc::E2BIG => Err(failure::plain(Kind::TooManySignals)),
        Some(list) => described(Kind::SignalsUnseen, list, list.error as isize, text),
    }
}

/// SigPnd and ShdPnd of proc_pid_status(5).
fn sets(path: *const u8, text: &mut [u8]) -> Result<[u64; 2], Reason> {
    let len = read_file(path, text).map_err(failure::no_proc)?;
    let set = |name: &[u8]| {
        let line =
            text[..len].split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name));
        line.and_then(|value| hex(value.trim_ascii()))
    };
    let sets = set(b"SigPnd:").zip(set(b"ShdPnd:"));
    sets.map(|(own, shared)| [own, shared]).ok_or_else(|| failure::no_proc(-libc::EIO))
}

/// In the helper process.
fn look(table: &Table) {
    let waiting = &table.waiting;
    // SAFETY: the parker waits for this process.
    let (lists, signals) = unsafe { (&mut *waiting.lists.get(), &mut *waiting.signals.get()) };
    let mut used = 0usize;
    for list in &mut lists[..waiting.list_count.load(SeqCst)] {
        list.first = used;
        match open::stop(table, list.tid) {
            Ok(deliver) => {
                list.error = queue(list, signals, &mut used).map_or_else(|error| error, |()| 0);
                open::let_go(list.tid, deliver);
            }
            Err(0) => list.error = -libc::ESRCH,
            Err(refused) => list.error = i32::try_from(refused).unwrap_or(-libc::EPERM),
        }
        list.count = used - list.first;
    }
}

/// Of a thread that is stopped: those of the list's set, in their order.
fn queue(list: &List, signals: &mut [QueuedSignal], used: &mut usize) -> Result<(), i32> {
    let which = if list.is_shared == 1 { Queue::Shared } else { Queue::Own };
    let (mut offset, mut seen) = (0, 0);
    loop {
        let end = signals.len().min(*used + AT_ONCE);
        let room = &mut signals[*used..end];
        if room.is_empty() {
            return Err(-libc::E2BIG);
        }
        let found = match open::peek(list.tid, which, offset, room) {
            0 => break,
            found @ 1.. => found.unsigned_abs(),
            error => return Err(i32::try_from(error).unwrap_or(-libc::EIO)),
        };
        offset += found as u64;
        let mut kept = 0;
        for at in 0..found {
            let bit = signal_bit(room[at].signal);
            if list.set & bit != 0 {
                seen |= bit;
                room[kept] = room[at];
                kept += 1;
            }
        }
        *used += kept;
    }
    // Those that the kernel had no memory to tell of: sigwaitinfo(2) makes up the same.
    for signal in (1..=64).filter(|signal| list.set & !seen & signal_bit(*signal) != 0) {
        let place = signals.get_mut(*used).ok_or(-libc::E2BIG)?;
        *place = QueuedSignal::default();
        (place.signal, place.code) = (signal, libc::SI_USER);
        *used += 1;
    }
    if *used == signals.len() { Err(-libc::E2BIG) } else { Ok(()) }
}
