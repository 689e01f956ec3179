//! Whole-process mode: all threads live on in children.
//!
//! ```text
//! caller  plan > read smaps > stop all others > copy shared memory > look at files > DOFORK > clone > DONTFORK > let go
//! others                        └ in the handler of signal 33, each on its own frame ..................> go on
//! seed                                                                                    └> frame > report > sleep
//! child   (any host) every thread on its frame; others wait at the gate > environment > gate opens > Child
//! ```
//!
//! Between the first thread that stops and the last one that goes on nothing allocates, takes a lock or calls
//! libc: whoever holds that lock may be standing. So prepare works in a signal handler, too, as far as the
//! allocator of this library does.

mod ahead;
mod copies;
mod dispatched;
mod entry;
pub(super) mod environment;
mod failure;
mod faults;
mod memory;
mod open;
mod park;
mod pending;
mod signal;
mod state;
mod table;
mod timers;

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::kept;
use super::scratch::{self, SharedCopy};
use super::{Before, PrepareError, PrepareOptions, Prepared, Rseq, atfork, reap, seed, wake};
use crate::client::{AgentAddress, Seed};
use crate::sys::rawcall::{rawcall, set_signal_mask};
pub use ahead::Ahead;
use copies::{NotCopied, Plan};
pub(super) use dispatched::refuse as dispatched;
pub use failure::{Activity, StopError, ThreadName};
pub(super) use memory::Map;
use memory::Unreadable;
use park::{Parking, Reason, now};
use state::ThreadState;
pub(super) use table::Table;
use timers::Timers;

/// Attempts to find shared memory as it was when room was made for its copies.
const ATTEMPTS: u32 = 5;
/// Where names of threads, the list of them and what keeps them are read to.
const WORK_BYTES: usize = 64 << 10;

/// How long the threads of a process stood still for one prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Other threads that were stopped.
    pub threads: u32,
    /// From the first question until all of them had stopped.
    pub parking: Duration,
    /// Of that clone(2) alone.
    pub clone: Duration,
    /// From the first question until all were told to go on.
    pub whole: Duration,
}

/// What keeps the calling thread from preparing, whichever threads live on.
pub(super) fn unfit_caller() -> Option<StopError> {
    if kept::tags_addresses() {
        return Some(StopError::TaggedAddresses);
    }
    kept::faults_on_time_stamps().then(|| {
        // SAFETY: takes nothing.
        let tid = unsafe { rawcall!(libc::SYS_gettid) };
        let tid = u32::try_from(tid).unwrap_or(0);
        let kind = failure::Kind::NoTimeStamps;
        failure::describe(kind, tid, 0, tid, &mut [0; 4096]).error(Duration::ZERO)
    })
}

/// [`super::prepare`] with [`super::Threads::All`], by what was done ahead, if it is still of use.
pub(super) fn prepare(
    options: &PrepareOptions,
    agent: AgentAddress,
    socket: OwnedFd,
    mut ahead: Option<Ahead>,
) -> Result<Prepared, PrepareError> {
    if park::main_has_ended(&mut [0; 4096]) {
        return Err(PrepareError::Stop(StopError::MainThreadEnded));
    }
    // None of it may be dropped in a child, where descriptors and addresses are nothing or another's.
    let held = ManuallyDrop::new((socket, agent));
    let socket = held.0.as_raw_fd();
    for _ in 0..ATTEMPTS {
        let before = match ahead.take().and_then(Ahead::still_of_use) {
            Some(freezer) => Ok(freezer),
            None => Freezer::new(options),
        };
        let mut before = ManuallyDrop::new(before);
        let outcome = match &mut *before {
            Ok(freezer) => freezer.freeze(socket, options),
            Err(_) => Err(Refusal::Shared),
        };
        if let Ok(Side::Child) = outcome {
            return Ok(Prepared::Child(child(options, before.as_ref().ok())));
        }
        let freezer = match ManuallyDrop::into_inner(before) {
            Ok(freezer) => freezer,
            Err(error) => {
                drop(ManuallyDrop::into_inner(held));
                return Err(error);
            }
        };
        match outcome {
            Err(Refusal::Shared) => {}
            Err(refusal) => {
                drop(ManuallyDrop::into_inner(held));
                return Err(freezer.error(refusal, options.stop_threads));
            }
            Ok(Side::Parent { pid, pause }) => {
                let (socket, agent) = ManuallyDrop::into_inner(held);
                drop(socket);
                reap::remember(pid);
                let token = freezer.before.token;
                return Ok(Prepared::Parent(Seed::new(pid, token, agent, Some(pause))));
            }
            Ok(Side::Child) => unreachable!("handled above"),
        }
    }
    drop(ManuallyDrop::into_inner(held));
    Err(copies::keeps_changing().into())
}

/// In a child: the other threads wait at the gate, some of them perhaps with a lock of libc.
fn child(options: &PrepareOptions, freezer: Option<&Freezer>) -> super::Resumed {
    let Some(told) = wake::told() else { seed::end(0) };
    told.change_environment(options.tells_environment);
    if told.is_rehearsal() {
        if !options.rehearsal_returns {
            super::end_rehearsal();
        }
        return told.resumed();
    }
    if let Some(Freezer { timers, is_subreaper, own_denial, .. }) = freezer {
        if *is_subreaper {
            kept::become_subreaper();
        }
        own_denial.iter().copied().for_each(kept::deny_write_execute);
        timers.make_again(told.passed_since(timers.found_at()));
    }
    if !options.holds_threads {
        wake::release_threads();
    }
    told.resumed()
}

/// Which side of the clone this is.
enum Side {
    Parent { pid: i32, pause: Pause },
    Child,
}

/// Why there is no seed, noted while threads stood.
enum Refusal {
    /// Shared memory is not what the plan says: another attempt.
    Shared,
    Stop(Reason),
    Map(Unreadable),
    Copy(NotCopied),
    /// -errno of clone(2).
    Clone(isize),
}

/// What is made before anybody stops.
struct Freezer {
    before: Before,
    plan: Plan,
    map: Map,
    timers: Timers,
    is_subreaper: bool,
    own_denial: Option<u32>,
    table: &'static Table,
    work: Box<[u8]>,
}

impl Freezer {
    fn new(options: &PrepareOptions) -> Result<Self, PrepareError> {
        let scratch = PrepareError::Scratch;
        let plan = Plan::new(options.shared_copy_limit)?;
        let map = Map::new().map_err(scratch)?;
        let table = table::get().map_err(scratch)?;
        let before = Before::alone()?;
        let work = vec![0; WORK_BYTES].into_boxed_slice();
        Ok(Freezer {
            before,
            plan,
            map,
            timers: Timers::default(),
            is_subreaper: false,
            own_denial: None,
            table,
            work,
        })
    }

    /// Stops everybody, makes the seed, lets everybody go.
    fn freeze(&mut self, socket: i32, options: &PrepareOptions) -> Result<Side, Refusal> {
        let patience = options.stop_threads;
        self.timers = Timers::of_this_process();
        self.is_subreaper = kept::is_subreaper();
        self.own_denial = kept::own_denial();
        // What has not been read ahead is better read now than while all stand.
        if !self.map.is_known() {
            self.map.scan().map_err(Refusal::Map)?;
        }
        self.fill_in(socket, options);
        let mask = set_signal_mask(!0);
        let began = now();
        let outcome = self.stopped(began, patience, mask);
        if let Ok(Cloned::Seed) = outcome {
            reap::forget_all();
            // SAFETY: the scratch memory came along, and this is the only thread. In children it returns.
            unsafe { atfork::become_seed(self.before.scratch.freeze().as_ptr()) };
            set_signal_mask(mask);
            return Ok(Side::Child);
        }
        park::release(self.table, self.table.round.load(SeqCst));
        let paused = now() - began;
        set_signal_mask(mask);
        let Cloned::Parent { pid, parked, cloned } = outcome? else {
            unreachable!("handled above")
        };
        let pause = Pause {
            threads: self.table.arrived.load(SeqCst),
            parking: Duration::from_nanos(parked - began),
            clone: Duration::from_nanos(cloned),
            whole: Duration::from_nanos(paused),
        };
        Ok(Side::Parent { pid, pause })
    }

    /// What the seed must know, as far as it is known by now.
    fn fill_in(&mut self, socket: i32, options: &PrepareOptions) {
        self.before.note_caller(socket);
        // SAFETY: the scratch is ours alone until the clone.
        let freeze = unsafe { self.before.scratch.freeze().as_mut() };
        freeze.refuse = options.refuse.bits();
        freeze.not_carried = self.map.range();
        freeze.whole = Some(scratch::Whole {
            table: NonNull::from(self.table),
            map: NonNull::from(&self.map),
            gate: wake::gate(),
        });
        for (place, copied) in freeze.copies.iter_mut().zip(&self.plan.copies) {
            *place = SharedCopy::of(copied);
        }
        freeze.copy_count = self.plan.copies.len();
    }

    /// While the others stop or stand.
    fn stopped(&mut self, began: u64, patience: Duration, mask: u64) -> Result<Cloned, Refusal> {
        let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        let rseq = Rseq::known();
        let round = self.table.begin(rseq.offset, rseq.lengths);
        let deadline = began.saturating_add(patience);
        Parking::new(self.table, round, deadline, &mut self.work).all().map_err(Refusal::Stop)?;
        let parked = now();
        let state = |(tid, slot): (u32, &table::Slot)| {
            // SAFETY: all threads have arrived, and write no more.
            let faults = unsafe { (*slot.state.get()).faults_on_time_stamps };
            faults.then(|| (tid, slot.in_proc.load(SeqCst)))
        };
        if let Some((tid, in_proc)) = self.table.threads().find_map(state) {
            let kind = failure::Kind::NoTimeStamps;
            let reason = failure::describe(kind, tid, 0, in_proc, &mut self.work);
            return Err(Refusal::Stop(reason));
        }
        // SAFETY: nobody else touches the caller's state; this thread has no frame yet.
        unsafe {
            let mut caller = ThreadState::of_this_thread(self.table, std::ptr::null());
            caller.blocked = mask;
            *self.table.caller.get() = caller;
        }
        let until = now().saturating_add(patience);
        pending::take(self.table, until, &mut self.work).map_err(Refusal::Stop)?;
        if !self.map.is_current() {
            self.map.scan().map_err(Refusal::Map)?;
        }
        if !self.plan.fits(&self.map) {
            return Err(Refusal::Shared);
        }
        self.plan.copy().map_err(Refusal::Copy)?;
        self.look_at_files();
        self.map.unmark();
        // SAFETY: the scratch is ours alone until the clone.
        unsafe { self.before.scratch.freeze().as_mut() }.frozen_at = kept::clocks();
        let cloning = now();
        // SAFETY: a copy of this process: no memory is shared, and the seed goes on in `freeze`.
        let pid = unsafe { rawcall!(libc::SYS_clone, 0, 0, 0, 0, 0) };
        if pid == 0 {
            return Ok(Cloned::Seed);
        }
        let cloned = now() - cloning;
        self.map.mark_again();
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(Refusal::Clone(pid))?;
        Ok(Cloned::Parent { pid, parked, cloned })
    }

    /// What lies in open files becomes the begin of the seed's report.
    fn look_at_files(&mut self) {
        // SAFETY: the scratch is ours alone until the clone.
        unsafe {
            let freeze = self.before.scratch.freeze().as_mut();
            freeze.carry_files = true;
            seed::look_at_files(freeze);
        }
    }

    fn error(&self, refusal: Refusal, patience: Duration) -> PrepareError {
        match refusal {
            Refusal::Shared => copies::keeps_changing().into(),
            Refusal::Stop(reason) => PrepareError::Stop(reason.error(patience)),
            Refusal::Map(Unreadable::Text(answer)) => {
                PrepareError::NoSmaps(io::Error::from_raw_os_error(-answer))
            }
            Refusal::Map(Unreadable::TooMany) => PrepareError::TooManyMappings,
            Refusal::Map(Unreadable::Watched(range)) => PrepareError::Watched(range),
            Refusal::Copy(cause) => self.plan.error(cause).into(),
            Refusal::Clone(answer) => {
                let errno = i32::try_from(-answer).unwrap_or(libc::EAGAIN);
                PrepareError::Fork(io::Error::from_raw_os_error(errno))
            }
        }
    }
}

enum Cloned {
    Parent { pid: i32, parked: u64, cloned: u64 },
    Seed,
}
