//! The unix socket: processes of this host, the command line.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Agent;
use super::callers::Caller;
use super::connections::Connections;
use super::failure::fail;
use super::lease;
use super::remote::write_output;
use super::starting::StartedBy;
use crate::host::HostAddress;
use crate::id::{ChildId, Handle, SeedId};
use crate::sys::lock::turn;
use crate::sys::scm;
use crate::wire::control::{Channel, ControlReply, ControlRequest};
use crate::wire::frame::{self, FrameError};
use crate::wire::local::{
    ChildEnd, DropMode, Failure, FailureKind, LocalReply, LocalRequest, ResumeRequest, StartedChild,
};

/// Connections at one time; each seed and each waiting caller has one.
pub const MAX_CONNECTIONS: usize = 4096;

/// How long another agent may take to bind in the same folder: it takes some microseconds.
const TURN_PATIENCE: Duration = Duration::from_secs(2);

static CONNECTIONS: Connections = Connections::new(MAX_CONNECTIONS, "local");

/// Binds the socket, for its owner alone or for `group`, too.
///
/// # Errors
/// Another agent answers there, or the path cannot be made.
pub fn bind(path: &Path, group: Option<u32>) -> Result<UnixListener, Failure> {
    let say = |error: &dyn std::fmt::Display| {
        let text = format!(
            "the agent's socket {} cannot be made: {error}; give another one with --socket",
            path.display()
        );
        fail(FailureKind::Missing, text)
    };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Closed to others from the start: between bind and chmod the socket itself is not.
    let is_new = !folder.exists();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| say(&error))?;
    if is_new && group.is_some() {
        // Whatever the umask.
        let open = fs::set_permissions(folder, Permissions::from_mode(0o711));
        open.map_err(|error| say(&error))?;
    }
    // Held until the socket listens: of two agents that start at once, the second finds the first's.
    let _turn = turn(folder, TURN_PATIENCE).map_err(|error| say(&error))?;
    if UnixStream::connect(path).is_ok() {
        return Err(say(&"another agent answers there"));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(say(&error)),
        _ => {}
    }
    let Some(group) = group else {
        let listener = UnixListener::bind(path).map_err(|error| say(&error))?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|error| say(&error))?;
        return Ok(listener);
    };
    bind_for(path, folder, group).map_err(|error| say(&error))
}

/// The folder is open: the socket gets there once it is the group's, out of one that is not.
fn bind_for(path: &Path, folder: &Path, group: u32) -> io::Result<UnixListener> {
    let meta = fs::metadata(folder)?;
    if meta.mode() & 0o001 == 0 && !(meta.mode() & 0o010 != 0 && meta.gid() == group) {
        let text = "others may not pass its folder: chmod o+x it";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    let closed = folder.join(format!(".{}", std::process::id()));
    // Of an agent of this number that was killed just here; the turn is held.
    let _ = fs::remove_dir_all(&closed);
    DirBuilder::new().mode(0o700).create(&closed)?;
    let new = closed.join("s");
    let bound = UnixListener::bind(&new).and_then(|listener| {
        std::os::unix::fs::chown(&new, None, Some(group))?;
        fs::set_permissions(&new, Permissions::from_mode(0o660))?;
        fs::rename(&new, path)?;
        Ok(listener)
    });
    fs::remove_dir_all(&closed)?;
    bound
}

/// Serves the socket until the agent ends.
pub(super) fn serve(agent: &Arc<Agent>, listener: &UnixListener) {
    let agent = agent.clone();
    CONNECTIONS.serve(listener.incoming(), move |stream| {
        if let Err(error) = converse(&agent, stream) {
            tracing::debug!(%error, "a local connection ended");
        }
    });
}

fn converse(agent: &Arc<Agent>, mut stream: UnixStream) -> Result<(), FrameError> {
    let mut fds = Vec::new();
    let request = read_request(&stream, &mut fds)?;
    let caller = Caller::of(&stream, agent.config.socket_group.is_some())?;
    let result = match request {
        LocalRequest::Report { token, report } => {
            agent.take_report(token, &report, fds, stream);
            return Ok(());
        }
        LocalRequest::Resume(request) => return resume(agent, caller, stream, *request, fds),
        LocalRequest::Trace(of) => return agent.trace(caller, stream, &of),
        LocalRequest::Shutdown if caller.is_trusted => {
            // The answer first: this process may be gone the moment after.
            let told = frame::write(&mut stream, &LocalReply::Done);
            agent.shut_down();
            return told;
        }
        request => agent.answer_local(caller, request),
    };
    frame::write(&mut stream, &result.unwrap_or_else(LocalReply::Failed))
}

/// The first frame, with the descriptors that ride on it.
///
/// # Errors
/// See [`FrameError`].
pub fn read_request(
    stream: &UnixStream,
    fds: &mut Vec<OwnedFd>,
) -> Result<LocalRequest, FrameError> {
    let mut len = [0u8; 4];
    let mut got = 0;
    while got < len.len() {
        match scm::receive(stream.as_fd(), &mut len[got..], fds)? {
            0 => return Err(FrameError::Closed),
            more => got += more,
        }
    }
    frame::decode(&frame::read_body(&mut &*stream, len)?)
}

impl Agent {
    fn answer_local(
        self: &Arc<Self>,
        caller: Caller,
        request: LocalRequest,
    ) -> Result<LocalReply, Failure> {
        match request {
            LocalRequest::Await { token } => {
                let record = self.seeds.wait_published(token)?;
                self.check_owner(caller, record.id)?;
                let handle = self.seeds.handle(&record, self.config.advertise.as_deref());
                Ok(LocalReply::Published { handle })
            }
            LocalRequest::Kill { child, host, signal } => {
                self.kill(caller, child, host.as_deref(), signal)
            }
            LocalRequest::Drop { seed, how } => {
                self.check_owner(caller, seed)?;
                self.drop_seed(seed, how)
            }
            LocalRequest::DropByHandle { handle, how } => {
                self.authorize_drop(&handle)?;
                self.check_owner(caller, handle.seed)?;
                self.drop_seed(handle.seed, how)
            }
            LocalRequest::DropPrepared { token } => match self.seeds.by_token(token) {
                Some(seed) => {
                    self.check_owner(caller, seed)?;
                    self.drop_seed(seed, DropMode::AfterChildren)
                }
                None => Ok(LocalReply::Done),
            },
            LocalRequest::List => Ok(LocalReply::Listing(crate::wire::local::Listing {
                seeds: self.seeds.lines(|owner| caller.may_have(owner)),
                children: self.children.lines(|user| caller.may_have(user)),
            })),
            LocalRequest::Inspect { handle, seed } => self.inspect(caller, handle, seed),
            LocalRequest::Stats => Ok(LocalReply::Stats(Box::new(self.stats()))),
            LocalRequest::Shutdown => {
                caller.must_be_trusted("end the agent").map(|()| LocalReply::Done)
            }
            LocalRequest::Report { .. } | LocalRequest::Resume(_) | LocalRequest::Trace(_) => {
                Err(fail(FailureKind::Protocol, "the request needs a connection of its own"))
            }
        }
    }

    fn kill(
        &self,
        caller: Caller,
        child: ChildId,
        host: Option<&str>,
        signal: i32,
    ) -> Result<LocalReply, Failure> {
        match self.other_host(host)? {
            None => {
                self.check_starter(caller, child)?;
                self.children.kill(child, signal)?;
            }
            Some(agent) => {
                caller.must_be_trusted("send signals to other hosts")?;
                self.peers.call(&agent, &ControlRequest::Kill { child, signal })?;
            }
        }
        Ok(LocalReply::Done)
    }

    fn drop_seed(&self, seed: SeedId, how: DropMode) -> Result<LocalReply, Failure> {
        match how {
            DropMode::AfterChildren => {
                let others = self.seeds.drop_after_children(seed)?;
                self.hosting.let_go(seed);
                lease::tell_and_wait(&others);
            }
            DropMode::Revoke => {
                self.exports.revoke(seed);
                let others = self.seeds.drop_after_children(seed)?;
                self.hosting.let_go(seed);
                self.seeds.end(seed).or_else(gone_is_fine)?;
                lease::tell_and_wait(&others);
            }
        }
        Ok(LocalReply::Done)
    }

    /// Whether who shows this handle may drop its seed here.
    fn authorize_drop(&self, handle: &Handle) -> Result<(), Failure> {
        match &handle.agent {
            Some(agent) if !self.is_own(Some(agent.as_str())) => {
                let text = format!(
                    "seed {} is kept by agent {agent}, not by this one: run 'mitosis drop' on that host",
                    handle.seed
                );
                Err(fail(FailureKind::Argument, text))
            }
            _ => self.seeds.authorize(handle.seed, &handle.key),
        }
    }

    fn inspect(
        &self,
        caller: Caller,
        handle: Option<Handle>,
        seed: Option<SeedId>,
    ) -> Result<LocalReply, Failure> {
        let descriptor = match (handle, seed) {
            (Some(handle), _) if !self.is_own(handle.agent.as_deref()) => {
                caller.must_be_trusted("ask other hosts")?;
                let agent = handle.agent.clone().unwrap_or_default();
                self.peers.fetch(&agent, &handle, false)?.bytes
            }
            (Some(handle), _) => {
                self.check_owner(caller, handle.seed)?;
                self.fetch_own(&handle)?.1.descriptor.to_vec()
            }
            (None, Some(seed)) => {
                self.check_owner(caller, seed)?;
                self.seeds.inspect(seed)?.descriptor.to_vec()
            }
            (None, None) => {
                return Err(fail(FailureKind::Argument, "inspect needs a handle or a seed id"));
            }
        };
        Ok(LocalReply::Inspected { descriptor })
    }

    /// The agent behind a host name, unless it is this one.
    pub(super) fn other_host(&self, host: Option<&str>) -> Result<Option<String>, Failure> {
        let Some(host) = host else { return Ok(None) };
        let address = host.parse::<HostAddress>();
        let agent =
            address.map_err(|error| fail(FailureKind::Argument, error.to_string()))?.to_string();
        let own = self.config.advertise.as_deref() == Some(agent.as_str());
        let here = host == self.config.host || matches!(host, "localhost" | "local");
        Ok((!own && !here).then_some(agent))
    }
}

fn gone_is_fine(failure: Failure) -> Result<(), Failure> {
    if failure.kind == FailureKind::SeedGone { Ok(()) } else { Err(failure) }
}

fn resume(
    agent: &Arc<Agent>,
    caller: Caller,
    mut stream: UnixStream,
    request: ResumeRequest,
    fds: Vec<OwnedFd>,
) -> Result<(), FrameError> {
    let (handle, ends) = (request.handle.clone(), request.seed_ends_with_children);
    let result = match <[OwnedFd; 3]>::try_from(fds) {
        Err(_) => Err(fail(FailureKind::Protocol, "a resume needs stdin, stdout and stderr")),
        Ok(stdio) => match agent
            .check_resumer(caller, &request)
            .and_then(|()| agent.other_host(request.host.as_deref()))
        {
            Err(failure) => Err(failure),
            Ok(None) => resume_here(agent, caller, &mut stream, &request, &stdio),
            Ok(Some(other)) => resume_there(agent, &mut stream, &other, request, stdio),
        },
    };
    match result {
        Ok(sent) => sent,
        Err(failure) => {
            let is_its = || agent.check_owner(caller, handle.seed).is_ok();
            if ends && is_its() && agent.seeds.fetch(handle.seed, &handle.key).is_ok() {
                // fork() failed: its seed has no child and will have none.
                let _ = agent.drop_seed(handle.seed, DropMode::AfterChildren);
            }
            frame::write(&mut stream, &LocalReply::Failed(failure))
        }
    }
}

fn resume_here(
    agent: &Arc<Agent>,
    caller: Caller,
    stream: &mut UnixStream,
    request: &ResumeRequest,
    stdio: &[OwnedFd; 3],
) -> Result<Result<(), FrameError>, Failure> {
    let stdio = stdio.each_ref().map(AsFd::as_fd);
    let started =
        agent.start_here(request, stdio, stream.as_fd(), None, StartedBy::User(caller.user))?;
    let count = started.children.len();
    let reply = LocalReply::Started { children: started.children, report: started.report };
    if let Err(error) = frame::write(stream, &reply) {
        return Ok(Err(error));
    }
    for event in started.events.iter().take(count) {
        let reply = LocalReply::Exited { child: event.child, end: event.end };
        if let Err(error) = frame::write(stream, &reply) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

fn resume_there(
    agent: &Arc<Agent>,
    stream: &mut UnixStream,
    other: &str,
    request: ResumeRequest,
    stdio: [OwnedFd; 3],
) -> Result<Result<(), FrameError>, Failure> {
    let seed = request.handle.seed;
    if request.handle.agent.is_none() {
        let text = format!(
            "seed {seed} cannot be resumed on another host: its agent has no remote listener; start it with \
             --listen and --secret-file"
        );
        return Err(fail(FailureKind::Argument, text));
    }
    let mut others = Vec::new();
    if agent.is_own(request.handle.agent.as_deref()) {
        // The other host may have the seed and not know yet that it takes no more children.
        agent.fetch_own(&request.handle)?;
        if request.seed_ends_with_children {
            others = agent.seeds.end_with_children(seed);
        }
    }
    let (reply, channel) =
        agent.peers.converse(other, &ControlRequest::Resume(Box::new(request)))?;
    // Only now: that host may have been one of them.
    others.iter().for_each(|lease| lease.tell());
    let ControlReply::Started { children, report } = reply else {
        let text =
            format!("agent {other} answered out of turn: run the same version on both hosts");
        return Err(fail(FailureKind::Protocol, text));
    };
    let waiting = children.clone();
    if let Err(error) = frame::write(stream, &LocalReply::Started { children, report }) {
        tracing::debug!(%error, "the caller has gone; its children go on");
    }
    let [_, stdout, stderr] = stdio;
    let output = [File::from(stdout), File::from(stderr)];
    Ok(follow(stream, channel, other, waiting, &output))
}

/// Passes on what the other host tells of the children, until all have ended or it is gone.
fn follow(
    stream: &mut UnixStream,
    mut channel: Channel,
    other: &str,
    mut waiting: Vec<StartedChild>,
    output: &[File; 2],
) -> Result<(), FrameError> {
    channel.stream().set_read_timeout(None)?;
    super::keep_alive(channel.stream());
    while !waiting.is_empty() {
        match frame::read::<ControlReply>(&mut channel) {
            Ok(ControlReply::Output { stream: 1, bytes }) => write_output(&output[0], &bytes),
            Ok(ControlReply::Output { bytes, .. }) => write_output(&output[1], &bytes),
            Ok(ControlReply::Exited { child, end }) => {
                waiting.retain(|started| started.child != child);
                let _ = frame::write(stream, &LocalReply::Exited { child, end });
            }
            Ok(_) => {}
            Err(error) => {
                let text = format!("the agent {other} that ran the child is gone ({error})");
                for started in std::mem::take(&mut waiting) {
                    let end = ChildEnd::HostLost(text.clone());
                    let _ = frame::write(stream, &LocalReply::Exited { child: started.child, end });
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn of_agents_that_start_at_once_one_has_the_socket() {
        const AGENTS: usize = 4;
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("sub/agent.sock");
            // What a killed agent leaves.
            drop(bind(&path, None).unwrap());
            let start = Barrier::new(AGENTS);
            let bound: Vec<_> = std::thread::scope(|scope| {
                let agent = || {
                    start.wait();
                    bind(&path, None)
                };
                let agents: Vec<_> = (0..AGENTS).map(|_| scope.spawn(agent)).collect();
                agents.into_iter().map(|agent| agent.join().unwrap()).collect()
            });
            let refused = bound.iter().filter_map(|bound| bound.as_ref().err());
            assert!(refused.clone().all(|failure| failure.message.contains("another agent")));
            assert_eq!(refused.count(), AGENTS - 1);
            assert!(UnixStream::connect(&path).is_ok());
        }
    }

    #[test]
    fn a_groups_socket_is_the_groups_from_the_start_and_its_folder_lets_it_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/agent.sock");
        let own = fs::metadata(folder.path()).unwrap().gid();
        let _bound = bind(&path, Some(own)).unwrap();
        let (socket, sub) = (fs::metadata(&path).unwrap(), fs::metadata(path.parent().unwrap()));
        assert_eq!((socket.mode() & 0o777, socket.gid()), (0o660, own));
        assert_eq!(sub.unwrap().mode() & 0o777, 0o711);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing beside it");
        assert!(UnixStream::connect(&path).is_ok());
        // One that is there stays as it is, and is said.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let failure = bind(&folder.path().join("agent.sock"), Some(own)).unwrap_err();
        assert!(failure.message.contains("chmod o+x"), "{failure}");
    }

    #[test]
    fn a_folder_that_stays_locked_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let _other = turn(folder.path(), TURN_PATIENCE).unwrap();
        let failure = bind(&folder.path().join("agent.sock"), None).unwrap_err();
        assert!(failure.message.contains("locked its folder"), "{failure}");
    }
}
