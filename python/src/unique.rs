//! What makes two children of one seed differ, before any Python code runs in them.
//!
//! The interpreter has not yet heard of the fork here, and another thread may have asked for its lock: one
//! line of Python might hand the lock to a thread that is not there. So only functions that are written
//! in C are called, none of which runs Python code or gives the lock up. What needs Python code is
//! `mitosis._unique`, the first handler that PyOS_AfterFork_Child runs.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyType};

use crate::interpreter::uncollected;

/// Words of state of the generator in `random` and numpy (Mersenne Twister).
const TWISTER_WORDS: usize = 624;
/// Enough for every state that is made of it.
const SEED_BYTES: usize = 64;

/// Gives each generator that is loaded new state from the kernel.
///
/// With `all_threads` the others are here and run: what one of them holds is waited for, else it is taken
/// from whoever is not here.
///
/// # Errors
/// One could not be seeded: this child must not go on.
#[pyfunction]
#[pyo3(signature = (modules, all_threads=false))]
pub(crate) fn reseed(modules: &Bound<'_, PyDict>, all_threads: bool) -> PyResult<()> {
    uncollected(modules.py(), || {
        random(modules)?;
        openssl(modules)?;
        numpy(modules, all_threads)
    })
}

/// The instance behind the functions of `random`.
fn random(modules: &Bound<'_, PyDict>) -> PyResult<()> {
    let py = modules.py();
    let (Some(random), Some(native)) = (modules.get_item("random")?, modules.get_item("_random")?)
    else {
        return Ok(());
    };
    let (instance, class) = (random.getattr("_inst")?, native.getattr("Random")?);
    let class = class.cast::<PyType>()?;
    if !instance.is_instance(class)? {
        return Ok(());
    }
    let seed = py.get_type::<PyInt>().call_method1("from_bytes", (entropy(py)?, "little"))?;
    class.getattr("seed")?.call1((&instance, seed))?;
    instance.setattr("gauss_next", py.None())
}

/// The instance behind the functions of `numpy.random`, while it is the one that numpy makes.
fn numpy(modules: &Bound<'_, PyDict>, all_threads: bool) -> PyResult<()> {
    let py = modules.py();
    let Some(mtrand) = modules.get_item("numpy.random.mtrand")? else { return Ok(()) };
    let instance = mtrand.getattr("_rand")?;
    let generator = instance.getattr("_bit_generator")?;
    if !all_threads {
        // A thread that is not here may hold it.
        generator.getattr("lock")?.call_method0("_at_fork_reinit")?;
    }
    if generator.get_type().name()? != "MT19937" {
        return Ok(());
    }
    let mut bytes = [0u8; 4 * TWISTER_WORDS];
    fill(&mut bytes)?;
    let words = bytes.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word));
    let state = PyDict::new(py);
    state.set_item("key", PyList::new(py, words)?)?;
    state.set_item("pos", TWISTER_WORDS)?;
    let whole = PyDict::new(py);
    whole.set_item("bit_generator", "MT19937")?;
    whole.set_item("state", state)?;
    whole.set_item("has_gauss", 0)?;
    whole.set_item("gauss", 0.0)?;
    instance.call_method1("set_state", (whole,))?;
    Ok(())
}

/// OpenSSL notices a fork by the process id alone, which may be the same in two children.
fn openssl(modules: &Bound<'_, PyDict>) -> PyResult<()> {
    let Some(ssl) = modules.get_item("_ssl")? else { return Ok(()) };
    ssl.call_method1("RAND_add", (entropy(modules.py())?, 0.0))?;
    Ok(())
}

fn entropy(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    let mut bytes = [0u8; SEED_BYTES];
    fill(&mut bytes)?;
    Ok(PyBytes::new(py, &bytes))
}

fn fill(bytes: &mut [u8]) -> PyResult<()> {
    getrandom::fill(bytes).map_err(|error| {
        PyOSError::new_err(format!("the kernel's random generator does not answer: {error}"))
    })
}
