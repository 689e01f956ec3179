//! What bounds the time of hooks: in a child it ends the process, in the caller it calls Python.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mitosis::prepare::Watchdog;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::interpreter::raise_in_thread;

/// A watchdog that has been started.
#[pyclass(frozen, module = "mitosis._native")]
#[derive(Debug)]
pub(crate) struct Watch(Mutex<Option<Watchdog>>);

#[pymethods]
impl Watch {
    /// Ends it: when this returns it does nothing any more. Twice is once.
    fn stop(&self, py: Python<'_>) {
        // It may be waiting for the interpreter.
        py.detach(|| drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }
}

/// A collector drops it with the interpreter's lock, for which the thread that ends here may be waiting.
impl Drop for Watch {
    fn drop(&mut self) {
        Python::attach(|py| self.stop(py));
    }
}

/// In a child: after `limit_s` writes `text` to standard error and ends the process, even if the hook keeps the
/// interpreter to itself.
#[pyfunction]
pub(crate) fn watch_child(limit_s: f64, text: String) -> PyResult<Watch> {
    started(Watchdog::ending_this_child(duration(limit_s)?, text))
}

/// Calls `expired` after `limit_s`, and again after as many seconds as it answers; None is never.
#[pyfunction]
pub(crate) fn watch_caller(limit_s: f64, expired: Py<PyAny>) -> PyResult<Watch> {
    let call = move || {
        Python::attach(|py| match expired.call0(py).and_then(|next| next.extract(py)) {
            Ok(next) => Option::<f64>::and_then(next, |next| duration(next).ok()),
            Err(error) => {
                error.write_unraisable(py, None);
                None
            }
        })
    };
    started(Watchdog::start(duration(limit_s)?, call))
}

/// Raises `exception`, a class, in a thread when it next runs Python code; None takes one back that was not raised.
#[pyfunction]
#[pyo3(signature = (thread, exception))]
pub(crate) fn raise_in(py: Python<'_>, thread: u64, exception: Option<Bound<'_, PyAny>>) {
    raise_in_thread(py, thread, exception.as_ref());
}

fn started(dog: std::io::Result<Watchdog>) -> PyResult<Watch> {
    let dog = dog.map_err(|error| {
        PyOSError::new_err(format!(
            "no thread can be started to bound a hook's time: {error}; raise the process limit (ulimit -u, \
             pids.max), or give the hook timeout=None"
        ))
    })?;
    Ok(Watch(Mutex::new(Some(dog))))
}

fn duration(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
}
