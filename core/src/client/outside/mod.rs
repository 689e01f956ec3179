//! Preparing a process from outside, by the preload library in it: `mitosis prepare PID`.
//!
//! Nothing is sent to a process that cannot take it: a real-time signal kills whoever has no handler. See
//! `wire::preload` for the talk. Every wait is bounded, and what a deadline meets is looked into.

mod error;
mod process;
mod program;

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

pub use error::OutsideError;
pub use program::{Unloadable, find as find_program, loads as loads_library};

use super::{AgentAddress, ClientError};
use crate::id::PrepareToken;
use crate::prepare::{Refuse, SHARED_COPY_LIMIT_BYTES, STOP_THREADS};
use crate::sys::pidfd::PidFd;
use crate::sys::readiness::{any_of, readable};
use crate::sys::{netns, socket, user_id};
use crate::wire::frame::{self, FrameError};
use crate::wire::preload::{Answer, Ask, Heard, MAGIC, VERSION, socket_name};
use process::Process;

/// How long the program may leave the signal alone: threads in long system calls take it at once, so it is
/// one that blocks it for a moment.
const HEAR_PATIENCE: Duration = Duration::from_secs(2);
/// Beyond stopping the threads: copying a large process, and a turn that another thread has.
const PREPARE_PATIENCE: Duration = Duration::from_secs(20);
/// Between the two ends of an established connection.
const TALK_PATIENCE: Duration = Duration::from_secs(2);

/// How to prepare a process from outside.
#[derive(Clone, Debug)]
pub struct OutsideOptions {
    /// `PrepareOptions::shared_copy_limit`.
    pub shared_copy_limit: u64,
    /// `PrepareOptions::stop_threads`.
    pub stop_threads: Duration,
    /// How long the program may leave the signal alone.
    pub patience: Duration,
    /// `PrepareOptions::refuse`.
    pub refuse: Refuse,
    /// Try a process that is under a seccomp filter, too: the filter may kill it.
    pub allow_seccomp: bool,
}

impl Default for OutsideOptions {
    fn default() -> Self {
        OutsideOptions {
            shared_copy_limit: SHARED_COPY_LIMIT_BYTES,
            stop_threads: STOP_THREADS,
            patience: HEAR_PATIENCE,
            refuse: Refuse::UNLESS_TOLD,
            allow_seccomp: false,
        }
    }
}

/// A process that has been prepared: [`super::published`] waits for its handle.
#[derive(Clone, Debug)]
pub struct PreparedOutside {
    /// Shared with the seed.
    pub token: PrepareToken,
    /// For how long a thread of the process was taken; the others stood still for less.
    pub taken: Duration,
}

/// Prepares process `pid`, in which the preload library is.
///
/// # Errors
/// See [`OutsideError`]: there is no seed then, and the process goes on.
pub fn prepare_process(
    agent: &AgentAddress,
    pid: u32,
    options: &OutsideOptions,
) -> Result<PreparedOutside, OutsideError> {
    // Before the process hears of it.
    drop(agent.connect_for_seed()?);
    let target = Target::find(pid, options)?;
    let mut nonce = [0u8; 4];
    getrandom::fill(&mut nonce).map_err(|error| OutsideError::Io(io::Error::other(error)))?;
    let nonce = u32::from_le_bytes(nonce);
    let listener = netns::listen_beside(pid, &socket_name(nonce))
        .map_err(|error| OutsideError::Namespace { pid, error })?;
    listener.set_nonblocking(true).map_err(OutsideError::Io)?;
    let value = u64::from(MAGIC) << 32 | u64::from(nonce);
    target
        .pidfd
        .queue(target.process.signal, value)
        .map_err(|e| OutsideError::of_signal(pid, e))?;
    let heard = target.wait(&listener, options.patience)?;
    let Some(stream) = heard else { return Err(target.unheard(options.patience)) };
    target.ask(stream, agent, options)?;
    let patience = options.stop_threads + PREPARE_PATIENCE;
    match target.wait(&listener, patience)? {
        Some(stream) => target.answer(stream),
        None => Err(OutsideError::Hangs { pid, after: patience }),
    }
}

/// The process, and a hold on it: its number cannot go to another one unseen.
struct Target {
    pid: u32,
    pidfd: PidFd,
    process: Process,
}

impl Target {
    /// Finds it, and that a signal to it will do no harm.
    fn find(pid: u32, options: &OutsideOptions) -> Result<Self, OutsideError> {
        let looked = |error| OutsideError::of_look(pid, error);
        let pidfd = PidFd::open(pid).map_err(looked)?;
        let process = Process::look(pid).map_err(looked)?;
        let signal = process.signal;
        match process.state {
            'Z' | 'X' => return Err(OutsideError::Ended(pid)),
            'T' | 't' => return Err(OutsideError::Stopped(pid)),
            _ => {}
        }
        if !process.loaded {
            let cause = loads_library(&process.exe, "").err();
            return Err(OutsideError::NotLoaded { pid, exe: process.exe, cause });
        }
        if process.seccomp != 0 && !options.allow_seccomp {
            return Err(OutsideError::Seccomp(pid));
        }
        if !process.handled {
            return Err(OutsideError::SignalTaken { pid, signal, ignored: process.ignored });
        }
        if process.blocked {
            return Err(OutsideError::Blocked { pid, signal });
        }
        Ok(Target { pid, pidfd, process })
    }

    /// The next connection from this process; `None` when the time is over.
    fn wait(
        &self,
        listener: &UnixListener,
        patience: Duration,
    ) -> Result<Option<UnixStream>, OutsideError> {
        let deadline = Instant::now() + patience;
        let either = any_of(&[listener.as_fd(), self.pidfd.as_fd()]).map_err(OutsideError::Io)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable(either.as_fd(), Some(left)).map_err(OutsideError::Io)? {
                return Ok(None);
            }
            match listener.accept() {
                Ok((stream, _)) if self.is_from_it(&stream) => {
                    stream.set_nonblocking(false).map_err(OutsideError::Io)?;
                    stream.set_read_timeout(Some(TALK_PATIENCE)).map_err(OutsideError::Io)?;
                    stream.set_write_timeout(Some(TALK_PATIENCE)).map_err(OutsideError::Io)?;
                    return Ok(Some(stream));
                }
                // Somebody else's: nobody guesses the name by chance.
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Err(OutsideError::Ended(self.pid));
                }
                Err(error) => return Err(OutsideError::Io(error)),
            }
        }
    }

    fn is_from_it(&self, stream: &UnixStream) -> bool {
        socket::peer(stream).is_ok_and(|peer| peer.pid == self.pid)
    }

    /// Nobody has answered the signal: why.
    fn unheard(&self, after: Duration) -> OutsideError {
        let (pid, signal) = (self.pid, self.process.signal);
        match Process::look(pid) {
            Ok(now) if matches!(now.state, 'T' | 't') => OutsideError::Stopped(pid),
            Ok(now) if now.blocked => OutsideError::Blocked { pid, signal },
            Ok(now) if now.pending => OutsideError::Pending { pid, after },
            Ok(_) => OutsideError::OwnHandler { pid, signal, after },
            Err(error) => OutsideError::of_look(pid, error),
        }
    }

    fn ask(
        &self,
        mut stream: UnixStream,
        agent: &AgentAddress,
        options: &OutsideOptions,
    ) -> Result<(), OutsideError> {
        let heard: Heard = frame::read(&mut stream).map_err(|error| self.broken(error))?;
        if heard.version != VERSION {
            return Err(OutsideError::Version { pid: self.pid, theirs: heard.version });
        }
        let ask = Ask {
            agent: absolute(agent)?,
            shared_copy_limit: options.shared_copy_limit,
            stop_threads_ms: u64::try_from(options.stop_threads.as_millis()).unwrap_or(u64::MAX),
            refuse: options.refuse.bits(),
        };
        frame::write(&mut stream, &ask).map_err(|error| self.broken(error))
    }

    fn answer(&self, mut stream: UnixStream) -> Result<PreparedOutside, OutsideError> {
        match frame::read(&mut stream).map_err(|error| self.broken(error))? {
            Answer::Prepared { token, taken_ns } => {
                Ok(PreparedOutside { token, taken: Duration::from_nanos(taken_ns) })
            }
            Answer::Failed(failure) => Err(OutsideError::Refused(failure)),
        }
    }

    fn broken(&self, error: FrameError) -> OutsideError {
        match self.pidfd.signal(0) {
            Err(_) => OutsideError::Ended(self.pid),
            Ok(()) => OutsideError::Broken { pid: self.pid, error },
        }
    }
}

/// The agent's path as another process, in another folder, finds it.
fn absolute(agent: &AgentAddress) -> Result<String, OutsideError> {
    let path = std::path::absolute(&agent.0).map_err(OutsideError::Io)?;
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| {
        let text = format!("the agent's socket '{}' is not UTF-8", path.display());
        OutsideError::Agent(ClientError::Argument(text))
    })
}

/// Whether the peer of a connection may ask this process to be prepared: the kernel lets nobody else send the
/// signal, so this is a second lock.
pub fn may_ask(stream: &UnixStream) -> bool {
    let allowed = |user: u32| user == 0 || user == user_id();
    socket::peer(stream).is_ok_and(|peer| allowed(peer.user))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::wire::local::FailureKind;

    fn agent(folder: &std::path::Path) -> (AgentAddress, UnixListener) {
        let socket = folder.join("agent.sock");
        (AgentAddress(socket.clone()), UnixListener::bind(socket).unwrap())
    }

    #[test]
    fn without_an_agent_no_process_is_asked() {
        let nowhere = AgentAddress("/nonexistent/agent.sock".into());
        let error = prepare_process(&nowhere, u32::MAX, &OutsideOptions::default()).unwrap_err();
        assert!(matches!(error, OutsideError::Agent(ClientError::NoAgent { .. })), "{error}");
    }

    #[test]
    fn a_process_without_the_library_gets_no_signal() {
        let folder = tempfile::tempdir().unwrap();
        let (agent, _listener) = agent(folder.path());
        let mut sleep = Command::new("sleep").arg("60").spawn().unwrap();
        let error = prepare_process(&agent, sleep.id(), &OutsideOptions::default()).unwrap_err();
        assert!(matches!(error, OutsideError::NotLoaded { cause: None, .. }), "{error}");
        assert_eq!(error.kind(), FailureKind::NotForkable);
        // It would have killed it.
        assert_eq!(sleep.try_wait().unwrap(), None);
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        let error = prepare_process(&agent, sleep.id(), &OutsideOptions::default()).unwrap_err();
        assert!(matches!(error, OutsideError::NoProcess(_)), "{error}");
    }
}
