//! What is asked of the agent: an address, children, lists, counters. Addresses are paths of unix sockets.

use std::ffi::OsString;
use std::fmt::Display;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;

use mitosis::client::{
    self, AgentAddress, ClientError, Clock, IdMap, Listen, Namespace, ResumeOptions,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::failure::Raise;
use crate::handle::Handle;
use crate::resuming::Resuming;

/// Where an agent listens or would listen; this process's own counts.
#[pyfunction]
pub(crate) fn find_agent() -> OsString {
    client::find_agent().0.into()
}

/// Raises if `host` cannot be the name of a host.
#[pyfunction]
pub(crate) fn check_host(py: Python<'_>, host: &str) -> PyResult<()> {
    client::check_host(host).or_raise(py)
}

/// The address of an agent that runs; starts one of this process's own, of `binary`, if there is none.
#[pyfunction]
pub(crate) fn ensure_agent(py: Python<'_>, binary: Option<PathBuf>) -> PyResult<OsString> {
    let address = py.detach(|| client::ensure_agent_of(binary.as_deref()));
    Ok(address.or_raise(py)?.0.into())
}

/// Asks for `count` children, and does not wait for them. `stdio` are numbers of open files, which stay the caller's.
#[pyfunction]
#[pyo3(signature = (agent, handle, *, host, count, payload, environment, seed_ends_with_children, stdio=None, listen=Vec::new(), clock="live", cwd=None, hostname=None, cgroup=None, namespaces=Vec::new(), argv=Vec::new(), id_map=Vec::new()))]
#[expect(clippy::too_many_arguments, reason = "keywords, of a private function")]
pub(crate) fn resume_start(
    py: Python<'_>,
    agent: PathBuf,
    handle: Handle,
    host: Option<String>,
    count: u32,
    payload: Vec<u8>,
    environment: Vec<(String, Option<String>)>,
    seed_ends_with_children: bool,
    stdio: Option<[i32; 3]>,
    listen: Vec<String>,
    clock: &str,
    cwd: Option<String>,
    hostname: Option<String>,
    cgroup: Option<String>,
    namespaces: Vec<String>,
    argv: Vec<String>,
    id_map: Vec<String>,
) -> PyResult<Resuming> {
    let stdio = stdio.map(duplicates).transpose().or_raise(py)?;
    let listen = parsed::<Listen>(&listen).or_raise(py)?;
    let namespaces = parsed::<Namespace>(&namespaces).or_raise(py)?;
    let id_map = parsed::<IdMap>(&id_map).or_raise(py)?;
    let clock = clock.parse::<Clock>();
    let clock = clock.map_err(|error| ClientError::Argument(error.to_string())).or_raise(py)?;
    let options = ResumeOptions {
        host,
        count,
        payload,
        environment,
        seed_ends_with_children,
        stdio,
        listen,
        clock,
        cwd,
        hostname,
        cgroup,
        namespaces,
        argv,
        id_map,
        ..ResumeOptions::new(handle.0)
    };
    let asked = py.detach(|| client::resume_start(&AgentAddress(agent), options));
    Ok(Resuming::new(asked.or_raise(py)?))
}

fn duplicates([stdin, stdout, stderr]: [i32; 3]) -> Result<[OwnedFd; 3], ClientError> {
    Ok([client::duplicate(stdin)?, client::duplicate(stdout)?, client::duplicate(stderr)?])
}

fn parsed<T: FromStr<Err: Display>>(texts: &[String]) -> Result<Vec<T>, ClientError> {
    let all = texts.iter().map(|text| text.parse::<T>());
    all.collect::<Result<_, _>>().map_err(|error| ClientError::Argument(error.to_string()))
}

/// Seeds and children of this host: two lists of keyword arguments.
#[pyfunction]
pub(crate) fn list_all<'py>(
    py: Python<'py>,
    agent: PathBuf,
) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>)> {
    let listing = py.detach(|| client::list(&AgentAddress(agent))).or_raise(py)?;
    let (seeds, children) = (PyList::empty(py), PyList::empty(py));
    for line in &listing.seeds {
        let dict = PyDict::new(py);
        dict.set_item("seed", line.seed.to_string())?;
        dict.set_item("pid", line.pid)?;
        dict.set_item("parent_pid", line.parent_pid)?;
        dict.set_item("exe", &line.exe)?;
        dict.set_item("generation", line.generation)?;
        dict.set_item("pages", line.pages)?;
        dict.set_item("state", &line.state)?;
        dict.set_item("holders", line.holders)?;
        dict.set_item("age_s", line.age_s)?;
        seeds.append(dict)?;
    }
    for line in &listing.children {
        let dict = PyDict::new(py);
        dict.set_item("child", line.child.to_string())?;
        dict.set_item("pid", line.pid)?;
        dict.set_item("seed", line.seed.to_string())?;
        dict.set_item("age_s", line.age_s)?;
        children.append(dict)?;
    }
    Ok((seeds, children))
}

/// The agent's counters by name.
#[pyfunction]
pub(crate) fn stats<'py>(py: Python<'py>, agent: PathBuf) -> PyResult<Bound<'py, PyDict>> {
    let stats = py.detach(|| client::stats(&AgentAddress(agent))).or_raise(py)?;
    let dict = PyDict::new(py);
    for (name, value) in stats.by_name() {
        dict.set_item(name, value)?;
    }
    Ok(dict)
}
