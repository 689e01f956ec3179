//! An agent of this process's own, for programs that fork on a machine where nobody runs one.
//!
//! It is started as nobody's child (wait(2) never tells of it) and ends when its stdin does: this process
//! holds the other end of that pipe and nothing else. Its folder goes with it: whoever is left takes it
//! away, the agent, else its keeper, else this process where no agent came to be.

use std::collections::VecDeque;
use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::address::{AGENT_VARIABLE, AgentAddress};
use super::{ClientError, HOST_SOCKET};
use crate::prepare;
use crate::sys::readiness::readable;
use crate::sys::spawn::Program;

/// Names the agent's binary for programs that do not have it beside the library or in PATH.
pub const AGENT_BINARY_VARIABLE: &str = "MITOSIS_AGENT_BIN";
/// An agent that does not listen by then is given up.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// Its socket and what it said; both and their directory go when it ends.
const EMBEDDED_SOCKET: &str = "agent.sock";
const EMBEDDED_LOG: &str = "agent.log";
const START_PAUSE: Duration = Duration::from_millis(2);
/// Lines of its stderr that an error repeats.
const LAST_LINES: usize = 5;

#[derive(Debug)]
struct Embedded {
    address: AgentAddress,
    /// A child of Mitosis has this value, but not the agent.
    generation: u64,
    owner: u32,
    watch: OwnedFd,
    /// Its end ends the agent.
    _stdin: OwnedFd,
}

impl Embedded {
    fn is_ours(&self) -> bool {
        self.owner == process::id() && self.generation == prepare::generation()
    }

    /// Its address, if it can be used. A child of the process that started it uses it, too, where it is
    /// on the same host: it ends with that process, and with it the child's memory anyway.
    fn still_there(&self) -> Option<AgentAddress> {
        let there = if self.is_ours() {
            !readable(self.watch.as_fd(), Some(Duration::ZERO)).unwrap_or(true)
        } else {
            self.address.answers()
        };
        there.then(|| self.address.clone())
    }

    /// In a child, the descriptors are numbers of somebody else's: they must not be closed.
    fn forget(self) {
        if !self.is_ours() {
            std::mem::forget(self);
        }
    }
}

static EMBEDDED: Mutex<Option<Embedded>> = Mutex::new(None);

/// The address of an agent: the one that [`AgentAddress::find`] finds if it answers or is named by
/// `MITOSIS_AGENT`, else one of this process's own, started now or before.
///
/// # Errors
/// None can be started; the text repeats what it said last.
pub fn ensure_agent() -> Result<AgentAddress, ClientError> {
    ensure_agent_of(None)
}

/// The address of the agent that [`ensure_agent`] would answer, for a question: nothing is started.
pub fn find_agent() -> AgentAddress {
    if env::var_os(AGENT_VARIABLE).is_none_or(|named| named.is_empty()) {
        let embedded = EMBEDDED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = embedded.as_ref().and_then(Embedded::still_there) {
            return known;
        }
    }
    AgentAddress::find()
}

/// [`ensure_agent`] for a library that carries the program of the agent itself: `carried` is taken
/// unless `MITOSIS_AGENT_BIN` names another, or there is no such file.
///
/// # Errors
/// As [`ensure_agent`].
pub fn ensure_agent_of(carried: Option<&Path>) -> Result<AgentAddress, ClientError> {
    if env::var_os(AGENT_VARIABLE).is_some_and(|named| !named.is_empty()) {
        return Ok(AgentAddress::find());
    }
    let mut embedded = EMBEDDED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = embedded.as_ref().and_then(Embedded::still_there) {
        return Ok(known);
    }
    if let Some(stale) = embedded.take() {
        stale.forget();
    }
    let found = AgentAddress::find();
    if found.answers() {
        return Ok(found);
    }
    let started = start(&binary(carried)?, &place())?;
    Ok(embedded.insert(started).address.clone())
}

/// Takes away what was made for an embedded agent that is over. What else is in that directory stays, and
/// the directory with it.
pub fn leave_nothing(directory: &Path) {
    for file in [EMBEDDED_SOCKET, EMBEDDED_LOG] {
        let _ = fs::remove_file(directory.join(file));
    }
    let _ = fs::remove_dir(directory);
}

/// A directory that nobody else takes away yet.
struct Unused(PathBuf);

impl Drop for Unused {
    fn drop(&mut self) {
        leave_nothing(&self.0);
    }
}

fn start(binary: &Path, place: &Path) -> Result<Embedded, ClientError> {
    let io_failed =
        |what: &str, error: io::Error| ClientError::Embedded(format!("{what}: {error}"));
    let directory =
        own_directory(place).map_err(|error| io_failed("a directory for its socket", error))?;
    let directory = Unused(directory);
    let socket = directory.0.join(EMBEDDED_SOCKET);
    let log = directory.0.join(EMBEDDED_LOG);
    let stderr = File::create(&log).map_err(|error| io_failed("its log file", error))?;
    let null = File::options()
        .write(true)
        .open("/dev/null")
        .map_err(|error| io_failed("/dev/null", error))?;
    let (stdin, ours) = io::pipe().map_err(|error| io_failed("a pipe", error))?;
    let text = |text: &OsStr| {
        CString::new(text.as_bytes())
            .map_err(|_| ClientError::Argument("a path or variable holds a zero byte".to_owned()))
    };
    let arguments = [
        OsStr::new("mitosis"),
        "agent".as_ref(),
        "--embedded".as_ref(),
        "--socket".as_ref(),
        socket.as_os_str(),
    ];
    let environment = env::vars_os().map(|(name, value)| {
        let mut entry: OsString = name;
        entry.push("=");
        entry.push(value);
        text(&entry)
    });
    let program = Program {
        path: text(binary.as_os_str())?,
        args: arguments.into_iter().map(text).collect::<Result<_, _>>()?,
        environment: environment.collect::<Result<_, _>>()?,
        stdin: stdin.as_fd(),
        stdout: null.as_fd(),
        stderr: stderr.as_fd(),
    };
    let watch = program
        .start()
        .map_err(|error| io_failed(&format!("'{}' did not start", binary.display()), error))?;
    let address = AgentAddress(socket);
    await_socket(&address, &watch, &log)?;
    // It listens, so it has taken the directory for its own.
    std::mem::forget(directory);
    Ok(Embedded {
        address,
        generation: prepare::generation(),
        owner: process::id(),
        watch,
        _stdin: ours.into(),
    })
}

fn await_socket(address: &AgentAddress, watch: &OwnedFd, log: &Path) -> Result<(), ClientError> {
    let deadline = Instant::now() + START_PATIENCE;
    while !address.answers() {
        if readable(watch.as_fd(), Some(Duration::ZERO)).unwrap_or(true) {
            let said = last_lines(log);
            return Err(ClientError::Embedded(format!("it ended at once and said: {said}")));
        }
        if Instant::now() >= deadline {
            let (said, after) = (last_lines(log), START_PATIENCE.as_secs());
            return Err(ClientError::Embedded(format!(
                "it did not listen within {after} s and said: {said}"
            )));
        }
        thread::sleep(START_PAUSE);
    }
    Ok(())
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let mut last = VecDeque::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
    }
    if last.is_empty() { "nothing".to_owned() } else { Vec::from(last).join("\n") }
}

/// Where the directories of embedded agents are made.
fn place() -> PathBuf {
    env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|runtime| runtime.is_dir())
        .unwrap_or_else(env::temp_dir)
}

/// A new directory that only this user may enter.
fn own_directory(place: &Path) -> io::Result<PathBuf> {
    let name = format!("mitosis-{}-{}", process::id(), crate::id::SeedId::random());
    let directory = place.join(name);
    DirBuilder::new().mode(0o700).create(&directory)?;
    Ok(directory)
}

fn binary(carried: Option<&Path>) -> Result<PathBuf, ClientError> {
    if let Some(named) = env::var_os(AGENT_BINARY_VARIABLE).filter(|named| !named.is_empty()) {
        return Ok(named.into());
    }
    if let Some(carried) = carried.filter(|carried| is_program(carried)) {
        return Ok(carried.to_owned());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let beside = own_library().and_then(|library| Some(library.parent()?.to_owned()));
    let places = beside.into_iter().chain(env::split_paths(&path));
    places.map(|place| place.join("mitosis")).find(|binary| is_program(binary)).ok_or_else(|| {
        ClientError::Embedded(format!(
            "no agent listens at {HOST_SOCKET} and the program 'mitosis' is neither beside the library \
             nor in PATH: install it, start 'mitosis agent', or set {AGENT_BINARY_VARIABLE}"
        ))
    })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The file that holds this code: the shared library, or the program that it is part of.
fn own_library() -> Option<PathBuf> {
    let here = own_library as *const () as usize;
    let maps = fs::read("/proc/self/maps").ok()?;
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let start_of_name = line.iter().position(|byte| *byte == b'/')?;
        let (numbers, name) = line.split_at(start_of_name);
        let range = std::str::from_utf8(numbers).ok()?.split(' ').next()?;
        let (start, end) = range.split_once('-')?;
        let hex = |text| usize::from_str_radix(text, 16).ok();
        let ours = (hex(start)?..hex(end)?).contains(&here);
        ours.then(|| OsString::from_vec(name.to_vec()).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mitosis");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (directory, path)
    }

    /// Why it does not start; nothing of it is left then.
    fn refused(binary: &Path) -> String {
        let place = tempfile::tempdir().unwrap();
        let text = start(binary, place.path()).unwrap_err().to_string();
        let left: Vec<_> = fs::read_dir(place.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        text
    }

    #[test]
    fn the_library_is_found() {
        assert_eq!(own_library().unwrap(), env::current_exe().unwrap());
    }

    #[test]
    fn an_agent_that_dies_is_quoted() {
        let (_keep, path) = script("echo one >&2; echo 'no /dev/fuse: modprobe fuse' >&2; exit 1");
        let text = refused(&path);
        assert!(text.contains("modprobe fuse") && text.contains("ended at once"), "{text}");
    }

    #[test]
    fn a_binary_that_is_missing_is_named() {
        let text = refused(Path::new("/nonexistent/mitosis"));
        assert!(text.contains("/nonexistent/mitosis"), "{text}");
    }
}
