//! `prepare`: once in, once out in the caller, once out in each child.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use mitosis::client::{self, AgentAddress, ClientError, OfProcess};
use mitosis::prepare::{self as core, Files, LossKind, PrepareOptions, Prepared, Refuse, Threads};
use mitosis::wire::local::{DropMode, FailureKind};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::failure::{Raise, exception};
use crate::handle::Handle;
use crate::{interpreter, unique};

/// Forks between this process and the first one.
#[pyfunction]
pub(crate) fn generation() -> u64 {
    core::generation()
}

/// Ends a rehearsal that stands where prepare() would return.
#[pyfunction]
pub(crate) fn end_rehearsal() {
    core::end_rehearsal()
}

/// A seed, as the process that prepared it holds it. It is made empty and filled by [`prepare`]: behind a fork each
/// object that is touched is a page that the caller waits for.
#[pyclass(frozen, module = "mitosis._native")]
#[derive(Debug, Default)]
pub(crate) struct Seed {
    made: OnceLock<Made>,
}

#[derive(Debug)]
struct Made {
    /// `None` once it is dropped. A fork of this process does not touch the lock, which one of its threads may hold.
    seed: OfProcess<Mutex<Option<client::Seed>>>,
    pid: i32,
    pause: Option<core::Pause>,
}

impl Seed {
    fn fill(&self, seed: client::Seed) {
        let (pid, pause) = (seed.pid(), seed.pause());
        let seed = OfProcess::new(Mutex::new(Some(seed)));
        // One that is filled already is another prepare's, which no caller asks for.
        let _ = self.made.set(Made { seed, pid, pause });
    }

    /// The seed until it is dropped, in its own process.
    fn own(&self) -> Option<MutexGuard<'_, Option<client::Seed>>> {
        Some(self.made.get()?.seed.own()?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl Seed {
    #[new]
    fn new() -> Self {
        Seed::default()
    }

    /// Of the frozen process, on this host.
    #[getter]
    fn pid(&self) -> i32 {
        self.made.get().map_or(0, |made| made.pid)
    }

    /// Nanoseconds that the other threads of this process stood still for it, and of these until the last one
    /// stood; None if only the caller is in its children.
    #[getter]
    fn pause(&self) -> Option<(u64, u64)> {
        let ns = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let pause = self.made.get()?.pause?;
        Some((ns(pause.whole), ns(pause.parking)))
    }

    /// Waits until the agent has published the seed.
    fn handle(&self, py: Python<'_>) -> PyResult<Handle> {
        let published = py.detach(|| self.own()?.as_ref().map(client::Seed::handle));
        match published {
            Some(handle) => Ok(Handle(handle.or_raise(py)?)),
            None => Err(exception(
                py,
                FailureKind::SeedGone,
                "this seed has been dropped, or belongs to the process of which this one is a fork: \
                 take its handle before"
                    .to_owned(),
            )),
        }
    }

    /// Ends the seed; False if that has been done, or is another process's to do. After an error other than
    /// SeedGone it can be dropped again.
    fn drop(&self, py: Python<'_>, revoke: bool) -> PyResult<bool> {
        let how = if revoke { DropMode::Revoke } else { DropMode::AfterChildren };
        let dropped = py.detach(|| {
            let mut seed = self.own()?;
            let dropped = seed.as_ref()?.drop_seed(how);
            let is_gone = |error: &ClientError| error.kind() == FailureKind::SeedGone;
            if dropped.as_ref().err().is_none_or(is_gone) {
                *seed = None;
            }
            Some(dropped)
        });
        dropped.transpose().or_raise(py).map(|done| done.is_some())
    }

    /// Ends a seed of which nobody has the handle, even if its agent is gone. Nothing that fails is told.
    fn discard(&self, py: Python<'_>) {
        py.detach(|| {
            if let Some(seed) = self.own().and_then(|mut seed| seed.take()) {
                seed.discard();
            }
        });
    }
}

/// What a child was given.
#[pyclass(frozen, get_all, module = "mitosis._native")]
#[derive(Debug)]
pub(crate) struct Resumed {
    seed: String,
    child: String,
    index: u32,
    generation: u64,
    payload: Py<PyBytes>,
    rehearsal: bool,
    clock_delta_ns: i64,
    environment: Vec<(String, Option<String>)>,
    /// Kind, numbers, what it was.
    lost: Vec<(&'static str, Vec<u32>, String)>,
}

/// Kinds of what cannot cross, by their names; the package has checked them.
fn refused(names: &[String]) -> Refuse {
    let kinds = names.iter().filter_map(|name| LossKind::named(name));
    kinds.fold(Refuse::NONE, Refuse::and)
}

/// Names of those of them that are refused where nobody has said a word.
#[pyfunction]
pub(crate) fn losses_refused_unless_told() -> Vec<&'static str> {
    let kinds = LossKind::ALL.into_iter().filter(|kind| Refuse::UNLESS_TOLD.has(*kind));
    kinds.map(LossKind::name).collect()
}

/// Names of the kinds of what cannot cross.
#[pyfunction]
pub(crate) fn loss_kinds() -> Vec<&'static str> {
    LossKind::ALL.map(LossKind::name).to_vec()
}

/// Freezes a copy of this process: fills `seed` and answers None here, and `Resumed` in a child. Holds the interpreter
/// lock from the first handler to the last.
///
/// `modules` is `sys.modules`: what is loaded decides what has to be made unique in a child.
#[pyfunction]
#[pyo3(signature = (seed, agent, modules, *, shared_copy_limit, allow_visible_seed, all_threads, carry_files, refuse))]
#[expect(clippy::too_many_arguments, reason = "keywords, of a private function")]
pub(crate) fn prepare(
    py: Python<'_>,
    seed: &Seed,
    agent: PathBuf,
    modules: &Bound<'_, PyDict>,
    shared_copy_limit: u64,
    allow_visible_seed: bool,
    all_threads: bool,
    carry_files: bool,
    refuse: Vec<String>,
) -> PyResult<Option<Py<Resumed>>> {
    let options = PrepareOptions {
        files: if carry_files { Files::Carried } else { Files::Closed },
        threads: if all_threads { Threads::All } else { Threads::Caller },
        agent: Some(AgentAddress(agent)),
        shared_copy_limit,
        allow_visible_seed,
        refuse: refused(&refuse),
        rehearsal_returns: true,
        ..PrepareOptions::default()
    };
    if all_threads {
        return prepare_all_threads(py, seed, &options, modules);
    }
    interpreter::before_fork(py);
    // Behind the handlers, which may let another thread prepare: from here to the fork nobody else has the lock.
    interpreter::begin_prepare(py);
    interpreter::hold_signals(py);
    let prepared = core::prepare(&options);
    if let Ok(Prepared::Child(resumed)) = prepared {
        let unique = unique::reseed(modules, false);
        interpreter::after_fork_child(py);
        match unique.and_then(|()| woken(py, resumed)) {
            Ok(resumed) => return Ok(Some(resumed)),
            Err(error) => end_half_child(py, &error),
        }
    }
    interpreter::release_signals();
    interpreter::end_prepare(py);
    interpreter::after_fork_parent(py);
    filled(py, seed, prepared)
}

/// All threads live on, so the interpreter hears of no fork: its handlers would take their states away. This
/// thread holds the interpreter lock in a child as well, where the others run again by now: no Python code
/// of theirs does until the generators are new.
fn prepare_all_threads(
    py: Python<'_>,
    seed: &Seed,
    options: &PrepareOptions,
    modules: &Bound<'_, PyDict>,
) -> PyResult<Option<Py<Resumed>>> {
    interpreter::hold_signals(py);
    let prepared = core::prepare(options);
    let Ok(Prepared::Child(resumed)) = prepared else {
        interpreter::release_signals();
        return filled(py, seed, prepared);
    };
    // In a rehearsal the others never run: what they hold must not be waited for.
    let unique = if resumed.rehearsal { Ok(()) } else { unique::reseed(modules, true) };
    match unique.and_then(|()| woken(py, resumed)) {
        Ok(resumed) => Ok(Some(resumed)),
        Err(error) => end_half_child(py, &error),
    }
}

/// In the caller.
fn filled(
    py: Python<'_>,
    seed: &Seed,
    prepared: Result<Prepared, core::PrepareError>,
) -> PyResult<Option<Py<Resumed>>> {
    if let Prepared::Parent(made) = prepared.or_raise(py)? {
        seed.fill(made);
    }
    Ok(None)
}

fn woken(py: Python<'_>, resumed: core::Resumed) -> PyResult<Py<Resumed>> {
    let resumed = Resumed {
        seed: resumed.seed.to_string(),
        child: resumed.child.to_string(),
        index: resumed.index,
        generation: resumed.generation,
        payload: PyBytes::new(py, &resumed.payload).unbind(),
        rehearsal: resumed.rehearsal,
        clock_delta_ns: resumed.clock_delta_ns,
        environment: resumed.environment,
        lost: resumed.lost.into_iter().map(|loss| (loss.kind.name(), loss.fds, loss.was)).collect(),
    };
    Py::new(py, resumed)
}

/// Two children that could agree on a secret are worse than none, and no error of a fork is raised twice.
fn end_half_child(py: Python<'_>, error: &PyErr) -> ! {
    eprintln!("mitosis: this child ends, for it could not be set up: {error}");
    error.print(py);
    std::process::exit(core::STATUS_HALF_CHILD)
}
