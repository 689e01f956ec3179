//! The native half of the Python package: the process's own prepare, and the local agent's client.
//!
//! Thin on purpose: what a Python programmer sees (types, hooks, order of things in a child) is in
//! `lib/mitosis`. Whatever waits for the agent gives up the interpreter lock; what forks never does.
#![deny(unsafe_code)]

mod agent;
mod child;
mod failure;
mod fork;
mod handle;
mod interpreter;
mod resuming;
mod unique;
mod watch;

use pyo3::prelude::*;

/// `mitosis._native`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::agent::{check_host, ensure_agent, find_agent, list_all, resume_start, stats};
    #[pymodule_export]
    use super::child::Child;
    #[pymodule_export]
    use super::fork::{
        Resumed, Seed, end_rehearsal, generation, loss_kinds, losses_refused_unless_told, prepare,
    };
    #[pymodule_export]
    use super::handle::Handle;
    #[pymodule_export]
    use super::interpreter::{is_of_prepare, release_signals};
    #[pymodule_export]
    use super::resuming::Resuming;
    #[pymodule_export]
    use super::unique::reseed;
    #[pymodule_export]
    use super::watch::{Watch, raise_in, watch_caller, watch_child};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("HOOK_LIMIT_S", mitosis::prepare::HOOK_LIMIT.as_secs_f64())?;
        module.add("STATUS_HALF_CHILD", mitosis::prepare::STATUS_HALF_CHILD)?;
        module.add("SHARED_COPY_LIMIT_BYTES", mitosis::prepare::SHARED_COPY_LIMIT_BYTES)
    }
}
