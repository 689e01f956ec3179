//! A child that this process has started, wherever it runs.
//!
//! All children of one resume share its connection, on which the agent tells each one's end. Whoever
//! reads an end of another child raises that child's flag; a child's descriptor is readable while its
//! flag is raised or the connection has something to read.

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{AgentAddress, ClientError};
use crate::id::ChildId;
use crate::sys::readiness::{Flag, any_of, readable};
use crate::wire::frame;
use crate::wire::local::{ChildEnd, LocalReply, StartReport, StartedChild};

/// A running child.
#[derive(Debug)]
pub struct Child {
    started: StartedChild,
    asked_host: Option<String>,
    agent: AgentAddress,
    report: Arc<StartReport>,
    events: Arc<Events>,
    ready: OwnedFd,
}

impl Child {
    /// The children of one resume, whose answer has just been read from `stream`.
    pub(super) fn all(
        stream: UnixStream,
        agent: &AgentAddress,
        asked_host: Option<&str>,
        started: Vec<StartedChild>,
        report: StartReport,
    ) -> Result<Vec<Child>, ClientError> {
        stream.set_nonblocking(true).map_err(ClientError::Io)?;
        let flags: HashMap<ChildId, Flag> = started
            .iter()
            .map(|child| Ok((child.child, Flag::new()?)))
            .collect::<io::Result<_>>()
            .map_err(ClientError::Io)?;
        let state = State { ends: HashMap::new(), unparsed: Vec::new(), lost: None };
        let events = Arc::new(Events { stream, flags, state: Mutex::new(state) });
        let report = Arc::new(report);
        let child = |started: StartedChild| {
            let flag = events.flags[&started.child].as_fd();
            let ready = any_of(&[flag, events.stream.as_fd()]).map_err(ClientError::Io)?;
            Ok(Child {
                started,
                asked_host: asked_host.map(str::to_owned),
                agent: agent.clone(),
                report: report.clone(),
                events: events.clone(),
                ready,
            })
        };
        started.into_iter().map(child).collect()
    }

    /// Its name on its host.
    pub fn id(&self) -> ChildId {
        self.started.child
    }

    /// The host that runs it.
    pub fn host(&self) -> &str {
        &self.report.host
    }

    /// Its process id there.
    pub fn pid(&self) -> u32 {
        self.started.pid
    }

    /// How the resume that started it went.
    pub fn report(&self) -> &StartReport {
        &self.report
    }

    /// Sends it a signal (signal(7) number).
    ///
    /// # Errors
    /// It is gone, or the agent is.
    pub fn kill(&self, signal: i32) -> Result<(), ClientError> {
        super::kill(&self.agent, self.id(), self.asked_host.as_deref(), signal)
    }

    /// Waits for its end, however long that takes.
    pub fn wait(&self) -> ChildEnd {
        loop {
            if let Some(end) = self.poll(None) {
                return end;
            }
        }
    }

    /// Its end, if it has ended.
    pub fn try_wait(&self) -> Option<ChildEnd> {
        self.events.take_in();
        self.events.end_of(self.id())
    }

    /// Its end, if it ends within `timeout`.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<ChildEnd> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let Some(end) = self.poll(Some(left)) {
                return Some(end);
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    fn poll(&self, timeout: Option<Duration>) -> Option<ChildEnd> {
        if let Some(end) = self.try_wait() {
            return Some(end);
        }
        match readable(self.ready.as_fd(), timeout) {
            Ok(_) => self.try_wait(),
            Err(error) => Some(ChildEnd::HostLost(format!("waiting failed: {error}"))),
        }
    }
}

/// Readable once the child has ended. With several children in one resume it may be readable for a
/// moment because another one has ended: ask [`Child::try_wait`].
impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

#[derive(Debug)]
struct Events {
    stream: UnixStream,
    flags: HashMap<ChildId, Flag>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ends: HashMap<ChildId, ChildEnd>,
    unparsed: Vec<u8>,
    /// Why no more events come.
    lost: Option<String>,
}

impl Events {
    fn state(&self) -> MutexGuard<'_, State> {
        // What is behind the lock is whole after every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_of(&self, child: ChildId) -> Option<ChildEnd> {
        let state = self.state();
        let lost = || state.lost.clone().map(ChildEnd::HostLost);
        state.ends.get(&child).cloned().or_else(lost)
    }

    /// Reads what has come, without waiting.
    fn take_in(&self) {
        let mut state = self.state();
        if state.lost.is_some() {
            return;
        }
        let mut buffer = [0u8; 4096];
        loop {
            match (&self.stream).read(&mut buffer) {
                Ok(0) => {
                    self.parse(&mut state);
                    return self.lose(&mut state, "the mitosis agent of this host has ended");
                }
                Ok(got) => state.unparsed.extend_from_slice(&buffer[..got]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.parse(&mut state);
                }
                Err(error) => {
                    return self
                        .lose(&mut state, &format!("the agent's connection failed: {error}"));
                }
            }
        }
    }

    fn parse(&self, state: &mut State) {
        while let Some(len) = state.unparsed.first_chunk::<4>() {
            let len = u32::from_le_bytes(*len) as usize;
            if len > frame::MAX_FRAME_BYTES {
                return self.lose(state, "the agent sent a message above the limit");
            }
            let Some(body) = state.unparsed.get(4..4 + len) else { return };
            match frame::decode::<LocalReply>(body) {
                Ok(LocalReply::Exited { child, end }) => {
                    state.ends.insert(child, end);
                    if let Some(flag) = self.flags.get(&child) {
                        flag.raise();
                    }
                }
                Ok(_) => {}
                Err(error) => return self.lose(state, &error.to_string()),
            }
            state.unparsed.drain(..4 + len);
        }
    }

    fn lose(&self, state: &mut State, reason: &str) {
        state.lost = Some(format!("{reason}; nothing is known of the child"));
        self.flags.values().for_each(Flag::raise);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn children(count: u64) -> (UnixStream, Vec<Child>) {
        let (ours, agents) = UnixStream::pair().unwrap();
        let started = (0..count).map(|i| StartedChild { child: ChildId(i), pid: 100 }).collect();
        let nowhere = AgentAddress("/nonexistent".into());
        let report = StartReport::default();
        (agents, Child::all(ours, &nowhere, None, started, report).unwrap())
    }

    fn exited(child: u64, status: i32) -> Vec<u8> {
        let end = ChildEnd::Exited(status);
        frame::encode(&LocalReply::Exited { child: ChildId(child), end }).unwrap()
    }

    const SOON: Option<Duration> = Some(Duration::from_millis(1));

    #[test]
    fn an_end_that_another_child_has_read_is_not_lost() {
        let (mut agent, children) = children(2);
        agent.write_all(&exited(1, 7)).unwrap();
        assert_eq!(children[0].wait_timeout(Duration::from_millis(5)), None);
        assert!(!readable(children[0].as_fd(), SOON).unwrap());
        assert!(readable(children[1].as_fd(), SOON).unwrap());
        assert_eq!(children[1].wait(), ChildEnd::Exited(7));
        assert_eq!(children[1].wait(), ChildEnd::Exited(7));
    }

    #[test]
    fn ends_may_come_in_pieces() {
        let (mut agent, children) = children(1);
        let bytes = exited(0, 3);
        for byte in &bytes[..bytes.len() - 1] {
            agent.write_all(&[*byte]).unwrap();
            assert_eq!(children[0].try_wait(), None);
        }
        agent.write_all(&bytes[bytes.len() - 1..]).unwrap();
        assert_eq!(children[0].try_wait(), Some(ChildEnd::Exited(3)));
    }

    #[test]
    fn a_lost_agent_ends_every_wait_but_keeps_known_ends() {
        let (mut agent, children) = children(2);
        agent.write_all(&exited(0, 1)).unwrap();
        drop(agent);
        assert!(matches!(children[1].wait(), ChildEnd::HostLost(_)));
        assert_eq!(children[0].wait(), ChildEnd::Exited(1));
    }

    #[test]
    fn hostile_lengths_are_refused() {
        let (mut agent, children) = children(1);
        agent.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(children[0].wait(), ChildEnd::HostLost(_)));
    }
}
