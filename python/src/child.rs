//! A child, as the process that started it holds it. Waiting is Python's, over `fileno`.

use std::os::fd::{AsFd, AsRawFd};

use mitosis::client::{self, OfProcess};
use mitosis::wire::local::{ChildEnd, FailureKind};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::failure::{Raise, exception};

/// A started child.
#[pyclass(frozen, module = "mitosis._native")]
#[derive(Debug)]
pub(crate) struct Child(OfProcess<client::Child>);

impl Child {
    /// Takes over what the core has started.
    pub(crate) fn new(child: client::Child) -> Self {
        Child(OfProcess::new(child))
    }

    fn own(&self, py: Python<'_>) -> PyResult<&client::Child> {
        self.0.own().ok_or_else(|| {
            let message = "this child was started by another process, of which this one is a fork: \
                           only that one can wait for it and signal it";
            exception(py, FailureKind::Argument, message.to_owned())
        })
    }
}

#[pymethods]
impl Child {
    /// What is told of it once and for all, as keyword arguments.
    fn identity<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let child = self.own(py)?;
        let dict = PyDict::new(py);
        dict.set_item("id", child.id().to_string())?;
        dict.set_item("host", child.host())?;
        dict.set_item("pid", child.pid())?;
        Ok(dict)
    }

    /// The resume's report, as keyword arguments.
    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let report = self.own(py)?.report();
        let dict = PyDict::new(py);
        dict.set_item("host", &report.host)?;
        dict.set_item("requested_at_ns", report.requested_at_ns)?;
        dict.set_item("started_at_ns", report.started_at_ns)?;
        dict.set_item("descriptor_bytes", report.descriptor_bytes)?;
        dict.set_item("pages_total", report.pages_total)?;
        dict.set_item("new_template", report.new_template)?;
        Ok(dict)
    }

    fn fileno(&self, py: Python<'_>) -> PyResult<i32> {
        Ok(self.own(py)?.as_fd().as_raw_fd())
    }

    fn kill(&self, py: Python<'_>, signal: i32) -> PyResult<()> {
        let child = self.own(py)?;
        py.detach(|| child.kill(signal)).or_raise(py)
    }

    /// ("exited", status, ""), ("signalled", number, ""), ("page_lost", 0, why), ("host_lost", 0, why);
    /// None while it runs.
    fn end(&self, py: Python<'_>) -> PyResult<Option<(&'static str, i32, String)>> {
        Ok(self.own(py)?.try_wait().map(|end| match end {
            ChildEnd::Exited(status) => ("exited", status, String::new()),
            ChildEnd::Signalled(signal) => ("signalled", signal, String::new()),
            ChildEnd::PageLost(why) => ("page_lost", 0, why),
            ChildEnd::HostLost(why) => ("host_lost", 0, why),
        }))
    }
}
