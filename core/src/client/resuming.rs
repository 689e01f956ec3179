//! A resume that is under way: asked for, not answered yet.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::connection::{Connection, unexpected};
use super::{AgentAddress, Child, ClientError, ResumeOptions, check};
use crate::id::SeedId;
use crate::sys::readiness::readable;
use crate::wire::local::{LocalReply, LocalRequest, ResumeRequest};

const WHILE: &str = "starts children";

/// A resume that the agent carries out. Dropped before its answer has come it is given up: what this host has
/// not started then is not started any more, and children that are go on without anybody who waits for them. Another host may
/// start them still.
#[derive(Debug)]
pub struct Resuming {
    connection: Connection,
    agent: AgentAddress,
    host: Option<String>,
}

/// Asks for children and does not wait for them: for event loops. The agent of this host is connected to and told, which
/// takes some microseconds unless it has been stopped.
///
/// # Errors
/// An argument cannot be right, or there is no agent. All else is told by [`Resuming::finish`].
pub fn resume_start(agent: &AgentAddress, options: ResumeOptions) -> Result<Resuming, ClientError> {
    check(&options)?;
    let (null, stdin, stdout, stderr) = (null()?, io::stdin(), io::stdout(), io::stderr());
    let own = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].map(|fd| usable(fd, &null));
    let stdio = options.stdio.as_ref().map_or(own, |given| given.each_ref().map(AsFd::as_fd));
    let host = options.host.clone();
    let request = LocalRequest::Resume(Box::new(ResumeRequest {
        handle: options.handle,
        host: options.host,
        count: options.count,
        payload: options.payload,
        environment: options.environment,
        seed_ends_with_children: options.seed_ends_with_children,
        request_id: SeedId::random().0,
        new_ids: options.new_ids,
        listen: options.listen,
        clock: options.clock,
        cwd: options.cwd,
        hostname: options.hostname,
        cgroup: options.cgroup,
        namespaces: options.namespaces,
        argv: options.argv,
        id_map: options.id_map,
    }));
    let mut connection = Connection::open(agent)?;
    connection.say(&request, &stdio, WHILE)?;
    Ok(Resuming { connection, agent: agent.clone(), host })
}

impl Resuming {
    /// Whether [`Resuming::finish`] has something to read, after `timeout` at the latest.
    ///
    /// # Errors
    /// poll(2)'s.
    pub fn is_answered(&self, timeout: Duration) -> io::Result<bool> {
        readable(self.as_fd(), Some(timeout))
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// None were started; the text says why and what to do.
    pub fn finish(mut self) -> Result<Vec<Child>, ClientError> {
        match self.connection.hear(WHILE)? {
            LocalReply::Started { children, report } => {
                let stream = self.connection.into_stream();
                Child::all(stream, &self.agent, self.host.as_deref(), children, report)
            }
            other => Err(unexpected(&other, WHILE)),
        }
    }
}

/// Readable once there is an answer, good or bad.
impl AsFd for Resuming {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// For a standard descriptor that this process has closed.
fn null() -> Result<OwnedFd, ClientError> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null");
    Ok(null.map_err(ClientError::Io)?.into())
}

fn usable<'a>(fd: BorrowedFd<'a>, null: &'a OwnedFd) -> BorrowedFd<'a> {
    if fd.try_clone_to_owned().is_ok() { fd } else { null.as_fd() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::id::{ChildId, ForkKey, Handle};
    use crate::wire::frame;
    use crate::wire::local::{Failure, FailureKind, StartReport, StartedChild};

    /// An agent that has taken a request, and the resume that waits for it.
    fn asked() -> (UnixStream, Resuming) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let handle = Handle { agent: None, seed: SeedId(1), key: ForkKey::random() };
        let resuming = resume_start(&AgentAddress(path), ResumeOptions::new(handle)).unwrap();
        let mut agent = listener.accept().unwrap().0;
        let request = frame::read::<LocalRequest>(&mut agent).unwrap();
        assert!(matches!(request, LocalRequest::Resume(_)));
        (agent, resuming)
    }

    const SOON: Duration = Duration::from_millis(1);

    #[test]
    fn it_is_readable_once_it_is_answered() {
        let (mut agent, resuming) = asked();
        assert!(!resuming.is_answered(SOON).unwrap());
        let children = vec![StartedChild { child: ChildId(7), pid: 9 }];
        let reply = LocalReply::Started { children, report: StartReport::default() };
        frame::write(&mut agent, &reply).unwrap();
        assert!(resuming.is_answered(Duration::from_secs(60)).unwrap());
        assert_eq!(resuming.finish().unwrap()[0].id(), ChildId(7));
    }

    #[test]
    fn refusals_and_ends_are_answers_too() {
        let (mut agent, resuming) = asked();
        let failure = Failure { kind: FailureKind::SeedGone, message: "gone".to_owned() };
        frame::write(&mut agent, &LocalReply::Failed(failure)).unwrap();
        assert!(resuming.is_answered(Duration::from_secs(60)).unwrap());
        assert_eq!(resuming.finish().unwrap_err().kind(), FailureKind::SeedGone);
        let (agent, resuming) = asked();
        drop(agent);
        assert!(resuming.is_answered(Duration::from_secs(60)).unwrap());
        assert!(matches!(resuming.finish(), Err(ClientError::Closed { .. })));
    }

    #[test]
    fn one_that_is_dropped_is_hung_up() {
        let (mut agent, resuming) = asked();
        drop(resuming);
        assert!(matches!(frame::read::<LocalRequest>(&mut agent), Err(frame::FrameError::Closed)));
    }
}
