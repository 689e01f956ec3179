//! A handle, whose key no log and no traceback shows by accident.

use std::hash::{DefaultHasher, Hash, Hasher};

use mitosis::id;
use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::failure::Raise;

/// The token with which a seed is resumed.
#[pyclass(frozen, eq, module = "mitosis", from_py_object)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) id::Handle);

#[pymethods]
impl Handle {
    #[new]
    fn new(py: Python<'_>, text: &str) -> PyResult<Self> {
        Ok(Handle(text.parse::<id::Handle>().or_raise(py)?))
    }

    /// "HOST:PORT" of the agent that holds the seed; None: the agent of this host.
    #[getter]
    fn agent(&self) -> Option<&str> {
        self.0.agent.as_deref()
    }

    /// The seed's id.
    #[getter]
    fn seed(&self) -> String {
        self.0.seed.to_string()
    }

    fn reveal(&self) -> String {
        self.0.reveal()
    }

    fn __str__(&self) -> String {
        self.0.to_string()
    }

    fn __repr__(&self) -> String {
        format!("Handle('{}')", self.0)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.0.agent, self.0.seed).hash(&mut hasher);
        hasher.finish()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, (String,)) {
        (py.get_type::<Handle>(), (self.0.reveal(),))
    }
}
