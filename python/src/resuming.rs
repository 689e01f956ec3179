//! A resume that is under way. Waiting is Python's, over `fileno`, or `finish`'s.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, PoisonError};

use mitosis::client::{self, OfProcess};
use mitosis::wire::local::FailureKind;
use pyo3::prelude::*;

use crate::child::Child;
use crate::failure::{Raise, exception};

/// Children that have been asked for.
#[pyclass(frozen, module = "mitosis._native")]
#[derive(Debug)]
pub(crate) struct Resuming(Mutex<Option<OfProcess<client::Resuming>>>);

impl Resuming {
    pub(crate) fn new(resuming: client::Resuming) -> Self {
        Resuming(Mutex::new(Some(OfProcess::new(resuming))))
    }
}

#[pymethods]
impl Resuming {
    /// Readable when `finish` need not wait.
    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        let resuming = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = resuming.as_ref().and_then(OfProcess::own).ok_or_else(|| over(py))?;
        Ok(own.as_fd().as_raw_fd())
    }

    /// Waits for the children. Once.
    fn finish(&self, py: Python<'_>) -> PyResult<Vec<Child>> {
        let resuming = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let own = resuming.and_then(OfProcess::take).ok_or_else(|| over(py))?;
        let started = py.detach(|| own.finish());
        Ok(started.or_raise(py)?.into_iter().map(Child::new).collect())
    }

    /// Gives it up: what this host has not started is not started any more. Behind `finish` it does nothing.
    fn give_up(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn over(py: Python<'_>) -> PyErr {
    let message = "this resume is finished, or another process's";
    exception(py, FailureKind::Argument, message.to_owned())
}
