//! Other agents, as a client: connections, descriptors, tokens.
//!
//! A connection that is idle is kept for the next request to the same agent, up to [`MAX_IDLE`]; the
//! connection of a `Fetch` becomes the seed's lease and lives as long as its image here.

use std::collections::HashMap;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::failure::fail;
use crate::descriptor::{ArenaNews, Clocks};
use crate::fabric::ReadError;
use crate::fabric::tcp::TokenSource;
use crate::id::{Handle, StreamToken};
use crate::sys::{clock, poll};
use crate::wire::control::{Channel, ChannelError, ClusterSecret, ControlReply, ControlRequest};
use crate::wire::frame;
use crate::wire::local::{Failure, FailureKind};

/// Idle connections kept for each peer.
const MAX_IDLE: usize = 4;
/// How long a peer may take for a resume: it fetches, lays out a template, and reads the seed's stack from
/// a host that may be asked twice; longer than all of its own deadlines for that.
const RESUME_DEADLINE: Duration = Duration::from_secs(40);
/// READ tokens kept for each peer, from fetches.
const MAX_TOKENS: usize = 4;
/// Tokens older than this are not used: the server forgets them after 30 s.
const TOKEN_AGE: Duration = Duration::from_secs(20);

/// Other agents.
#[derive(Debug)]
pub struct Peers {
    secrets: Vec<ClusterSecret>,
    deadline: Duration,
    idle: Mutex<HashMap<String, Vec<Channel>>>,
    tokens: Mutex<HashMap<String, Vec<(Instant, StreamToken)>>>,
}

/// What a fetch brought.
#[derive(Debug)]
pub struct Fetched {
    /// `descriptor::codec` bytes.
    pub bytes: Vec<u8>,
    /// Digests of its mapped files that its agent knew already.
    pub digests: Vec<Option<[u8; 32]>>,
    /// What of the seed lies in its owner's arena, beyond what the descriptor says.
    pub arena: ArenaNews,
    /// How far the seed's clocks are ahead of this host's.
    pub clock_offset: Clocks,
    /// The connection, to be kept as lease.
    pub lease: Channel,
}

impl Peers {
    /// A client with these secrets (the first is shown) and this patience.
    pub fn new(secrets: Vec<ClusterSecret>, deadline: Duration) -> Arc<Self> {
        let (idle, tokens) = (Mutex::default(), Mutex::default());
        Arc::new(Peers { secrets, deadline, idle, tokens })
    }

    /// One request, one reply.
    ///
    /// # Errors
    /// The peer's own failure, or that it cannot be reached.
    pub fn call(&self, agent: &str, request: &ControlRequest) -> Result<ControlReply, Failure> {
        let (reply, channel) = self.converse(agent, request)?;
        self.put_back(agent, channel);
        Ok(reply)
    }

    /// One request and its reply, and the connection for what follows.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn converse(
        &self,
        agent: &str,
        request: &ControlRequest,
    ) -> Result<(ControlReply, Channel), Failure> {
        // A request is sent once: what a peer has read it may have done.
        let mut channel = match self.take_idle(agent) {
            Some(channel) => channel,
            None => self.connect(agent)?,
        };
        let patience = match request {
            ControlRequest::Resume(_) => RESUME_DEADLINE.max(self.deadline),
            _ => self.deadline,
        };
        let set = channel.stream().set_read_timeout(Some(patience));
        set.map_err(|error| unreachable(agent, &error))?;
        frame::write(&mut channel, request).map_err(|error| unreachable(agent, &error))?;
        let reply = frame::read(&mut channel).map_err(|error| unreachable(agent, &error))?;
        answered(reply, channel)
    }

    /// The descriptor behind a handle.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn fetch(&self, agent: &str, handle: &Handle, ends: bool) -> Result<Fetched, Failure> {
        let request = ControlRequest::Fetch {
            seed: handle.seed,
            key: handle.key.clone(),
            ends_with_children: ends,
        };
        let asked = clock::now();
        match self.converse(agent, &request)? {
            (ControlReply::Descriptor { bytes, token, clocks, digests, arena }, lease) => {
                let took_ns = clock::monotonic_ns() - asked.monotonic_ns;
                self.keep_token(agent, token);
                let half = Clocks { monotonic_ns: took_ns / 2, boottime_ns: took_ns / 2 };
                let clock_offset = clocks.ahead_of(asked.moved_by(half));
                Ok(Fetched { bytes, digests, arena, clock_offset, lease })
            }
            (other, _) => Err(unexpected(agent, &other)),
        }
    }

    /// An idle connection that its peer has not closed.
    fn take_idle(&self, agent: &str) -> Option<Channel> {
        loop {
            let channel = self.idle.lock().get_mut(agent).and_then(Vec::pop)?;
            // Nobody speaks on an idle connection: what is readable is its end.
            if matches!(poll::is_readable(channel.stream().as_raw_fd()), Ok(false)) {
                return Some(channel);
            }
        }
    }

    fn connect(&self, agent: &str) -> Result<Channel, Failure> {
        let secret = self.secrets.first().ok_or_else(|| {
            let text = format!(
                "agent {agent} is on another host and this agent has no cluster secret: start both with \
                 --secret-file"
            );
            fail(FailureKind::Secret, text)
        })?;
        let stream = dial(agent, self.deadline).map_err(|error| unreachable(agent, &error))?;
        let timeouts = stream
            .set_read_timeout(Some(self.deadline))
            .and_then(|()| stream.set_write_timeout(Some(self.deadline)));
        timeouts.map_err(|error| unreachable(agent, &error))?;
        Channel::connect(stream, secret).map_err(|error| match error {
            ChannelError::Secret => fail(FailureKind::Secret, format!("agent {agent}: {error}")),
            ChannelError::Version(..) => {
                fail(FailureKind::Protocol, format!("agent {agent}: {error}"))
            }
            ChannelError::Io(_) => unreachable(agent, &error),
        })
    }

    fn put_back(&self, agent: &str, channel: Channel) {
        let mut idle = self.idle.lock();
        let kept = idle.entry(agent.to_owned()).or_default();
        if kept.len() < MAX_IDLE {
            kept.push(channel);
        }
    }

    fn keep_token(&self, agent: &str, token: StreamToken) {
        let mut tokens = self.tokens.lock();
        let kept = tokens.entry(agent.to_owned()).or_default();
        kept.retain(|(since, _)| since.elapsed() < TOKEN_AGE);
        // The newest: there they are, too, of whom the oldest gives way.
        if kept.len() >= MAX_TOKENS {
            kept.remove(0);
        }
        kept.push((Instant::now(), token));
    }

    /// Another agent may be there by now, which knows none of them.
    pub(super) fn forget_tokens(&self, agent: &str) {
        self.tokens.lock().remove(agent);
    }
}

impl TokenSource for Peers {
    fn token(&self, agent: &str) -> Result<StreamToken, ReadError> {
        let kept = {
            let mut tokens = self.tokens.lock();
            let kept = tokens.entry(agent.to_owned()).or_default();
            kept.retain(|(since, _)| since.elapsed() < TOKEN_AGE);
            kept.pop()
        };
        if let Some((_, token)) = kept {
            return Ok(token);
        }
        match self.call(agent, &ControlRequest::Token) {
            Ok(ControlReply::Token(token)) => Ok(token),
            Ok(_) => Err(ReadError::Unreachable(format!("agent {agent} answered out of turn"))),
            Err(failure) => Err(ReadError::Unreachable(failure.message)),
        }
    }
}

fn answered(reply: ControlReply, channel: Channel) -> Result<(ControlReply, Channel), Failure> {
    match reply {
        ControlReply::Failed(failure) => Err(failure),
        reply => Ok((reply, channel)),
    }
}

fn dial(agent: &str, deadline: Duration) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in agent.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, deadline) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unreachable(agent: &str, error: &dyn std::fmt::Display) -> Failure {
    let text = format!(
        "agent {agent} does not answer ({error}): is it running there with --listen, and is its port open \
         to this host?"
    );
    fail(FailureKind::Unreachable, text)
}

fn unexpected(agent: &str, reply: &ControlReply) -> Failure {
    let text = format!(
        "agent {agent} answered out of turn ({reply:.40?}): run the same version on both hosts"
    );
    fail(FailureKind::Protocol, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_said_before_anything_is_dialled() {
        let peers = Peers::new(Vec::new(), Duration::from_secs(1));
        let failure = peers.call("192.0.2.1:1", &ControlRequest::Token).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Secret);
    }

    #[test]
    fn nobody_there_is_unreachable() {
        let peers = Peers::new(vec![ClusterSecret([0; 32])], Duration::from_secs(1));
        let failure = peers.call("127.0.0.1:1", &ControlRequest::Token).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable, "{}", failure.message);
        assert!(failure.message.contains("127.0.0.1:1"));
    }
}
