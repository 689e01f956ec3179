//! What a process asks of the agent of its host: children, lists, ends; and `fork`, which is all in one.
//!
//! Every wait is bounded but [`Child::wait`].

mod address;
mod child;
mod connection;
mod embedded;
mod error;
mod of_process;
mod outside;
mod resuming;
mod seed;
mod tracing;
mod when;

use std::os::fd::OwnedFd;

pub use address::{AGENT_VARIABLE, AgentAddress, HOST_SOCKET};
pub use child::Child;
pub use connection::REPLY_DEADLINE;
pub use embedded::{
    AGENT_BINARY_VARIABLE, ensure_agent, ensure_agent_of, find_agent, leave_nothing,
};
pub use error::{ClientError, ForkError};
pub use of_process::OfProcess;
pub use outside::{
    OutsideError, OutsideOptions, PreparedOutside, Unloadable, find_program, loads_library,
    may_ask, prepare_process,
};
pub use resuming::{Resuming, resume_start};
pub use seed::{Seed, published};
pub use tracing::{Tracing, trace};
pub use when::{NoMoment, WHEN_VARIABLE, When};

use crate::host::HostAddress;
use crate::id::{ChildId, Handle, SeedId};
use crate::prepare::{MAX_MAIL_BYTES, PrepareOptions, Prepared, Resumed, prepare};
use crate::wire::id_map::MAX_ID_MAPS;
use crate::wire::local::{DropMode, Listing, LocalReply, LocalRequest, Stats, argv_bytes};
use connection::{ask, done, unexpected};

pub use crate::wire::id_map::{IdMap, IdMapError};
pub use crate::wire::listen::{Listen, ListenError, MAX_CHOICES};
pub use crate::wire::local::{Clock, ClockError, MAX_ARGV_BYTES, MAX_COUNT, MAX_HOSTNAME_BYTES};
pub use crate::wire::namespaces::{MAX_PATH_BYTES, Namespace, NamespaceError, NamespaceKind};
pub use crate::wire::traced::{TraceOf, Traced, TracedPages, TracedVma, Way};

/// What to resume, where and how.
#[derive(Debug)]
pub struct ResumeOptions {
    /// Of which seed.
    pub handle: Handle,
    /// "host" or "host:port"; `None` is this host.
    pub host: Option<String>,
    /// How many children.
    pub count: u32,
    /// For [`Resumed::payload`]; with the environment at most [`MAX_MAIL_BYTES`].
    pub payload: Vec<u8>,
    /// Environment changes; `None` unsets.
    pub environment: Vec<(String, Option<String>)>,
    /// Their stdin, stdout and stderr; `None` is this process's own.
    pub stdio: Option<[OwnedFd; 3]>,
    /// Where sockets of the seed's listen in its children; without, no connection comes to them.
    pub listen: Vec<Listen>,
    /// The seed ends with the last of these children.
    pub seed_ends_with_children: bool,
    /// Children of a whole process get new process and thread ids instead of those that it had.
    pub new_ids: bool,
    /// What their CLOCK_MONOTONIC and CLOCK_BOOTTIME tell.
    pub clock: Clock,
    /// Their working directory, which must be there on their host; `None` is the seed's, if that is there.
    pub cwd: Option<String>,
    /// What they find as their host's name, in a UTS namespace of their own; `None` is the host's.
    pub hostname: Option<String>,
    /// The control group that they enter, a directory of their host (`/sys/fs/cgroup/...`); `None` is the agent's.
    pub cgroup: Option<String>,
    /// Namespaces of their host that they join, one of a kind; of other kinds they are in the agent's.
    pub namespaces: Vec<Namespace>,
    /// What `/proc/self/cmdline` tells in them, as ps(1) shows it, its first word included; empty: as in the seed. The
    /// `argv` that their code was given before it was prepared stays as it is.
    pub argv: Vec<String>,
    /// They are in a user namespace with these ids, where they have what rights their seed's process had, and none outside;
    /// empty: in their agent's. For a seed of one thread.
    pub id_map: Vec<IdMap>,
}

impl ResumeOptions {
    /// One child of `handle` on this host, with nothing changed.
    pub fn new(handle: Handle) -> Self {
        ResumeOptions {
            handle,
            host: None,
            count: 1,
            payload: Vec::new(),
            environment: Vec::new(),
            stdio: None,
            listen: Vec::new(),
            seed_ends_with_children: false,
            new_ids: false,
            clock: Clock::Live,
            cwd: None,
            hostname: None,
            cgroup: None,
            namespaces: Vec::new(),
            argv: Vec::new(),
            id_map: Vec::new(),
        }
    }
}

/// Starts children.
///
/// # Errors
/// None were started; the text says why and what to do.
pub fn resume(agent: &AgentAddress, options: ResumeOptions) -> Result<Vec<Child>, ClientError> {
    resume_start(agent, options)?.finish()
}

/// Whether `host` can be the name of a host, with or without a port.
///
/// # Errors
/// It cannot; the text says what can.
pub fn check_host(host: &str) -> Result<(), ClientError> {
    let parsed = host.parse::<HostAddress>();
    parsed.map(drop).map_err(|error| ClientError::Argument(error.to_string()))
}

fn check(options: &ResumeOptions) -> Result<(), ClientError> {
    options.host.as_deref().map_or(Ok(()), check_host)?;
    if options.count == 0 || options.count > MAX_COUNT {
        let count = options.count;
        return Err(ClientError::Argument(format!(
            "{count} children cannot be started: ask for 1 to {MAX_COUNT}"
        )));
    }
    if options.listen.len() > MAX_CHOICES {
        let count = options.listen.len();
        return Err(ClientError::Argument(format!(
            "{count} places to listen are too many: {MAX_CHOICES} is the limit"
        )));
    }
    if options.cwd.as_ref().is_some_and(|cwd| !cwd.starts_with('/') || cwd.contains('\0')) {
        return Err(ClientError::Argument(format!(
            "'{}' cannot be a working directory: give an absolute path",
            options.cwd.as_deref().unwrap_or_default()
        )));
    }
    let is_name = |name: &String| (1..=MAX_HOSTNAME_BYTES).contains(&name.len());
    if !options.hostname.as_ref().is_none_or(is_name) {
        return Err(ClientError::Argument(format!(
            "a host's name has 1 to {MAX_HOSTNAME_BYTES} bytes"
        )));
    }
    let is_path = |path: &String| {
        path.starts_with('/') && path.len() < MAX_PATH_BYTES && !path.contains('\0')
    };
    if !options.cgroup.as_ref().is_none_or(is_path) {
        return Err(ClientError::Argument(format!(
            "'{}' cannot be a control group: give an absolute path, /sys/fs/cgroup/...",
            options.cgroup.as_deref().unwrap_or_default()
        )));
    }
    if options.id_map.len() > MAX_ID_MAPS {
        let count = options.id_map.len();
        return Err(ClientError::Argument(format!(
            "an id map of {count} parts is too long: {MAX_ID_MAPS} is the limit"
        )));
    }
    argv_bytes(&options.argv).map_err(ClientError::Argument)?;
    let mut bytes = options.payload.len();
    for (name, value) in &options.environment {
        let value = value.as_deref().unwrap_or("");
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(ClientError::Argument(format!(
                "'{name}' cannot be set in an environment: names are not empty and hold no '=', and \
                 nothing holds a zero byte"
            )));
        }
        bytes += name.len() + value.len() + 2;
    }
    if bytes > MAX_MAIL_BYTES {
        return Err(ClientError::Argument(format!(
            "payload and environment are {bytes} bytes, above the limit of {MAX_MAIL_BYTES}: pass a \
             path or a key instead"
        )));
    }
    Ok(())
}

/// A descriptor of its own for what the caller has open at `number`, for [`ResumeOptions::stdio`].
///
/// # Errors
/// Nothing is open there; fcntl(2)'s otherwise.
pub fn duplicate(number: i32) -> Result<OwnedFd, ClientError> {
    crate::sys::readiness::duplicate(number).map_err(|error| {
        ClientError::Argument(format!("descriptor {number} cannot be a child's: {error}"))
    })
}

/// All seeds and children of this host.
///
/// # Errors
/// The agent is gone or silent.
pub fn list(agent: &AgentAddress) -> Result<Listing, ClientError> {
    const WHILE: &str = "lists";
    match ask(agent, &LocalRequest::List, WHILE)? {
        LocalReply::Listing(listing) => Ok(listing),
        other => Err(unexpected(&other, WHILE)),
    }
}

/// Which seed to inspect.
#[derive(Clone, Debug)]
pub enum Inspected {
    /// Of any host.
    Handle(Handle),
    /// Of this host.
    Seed(SeedId),
}

/// The bytes of a seed's descriptor.
///
/// # Errors
/// There is no such seed, the key is wrong, or the agent is gone or silent.
pub fn inspect(agent: &AgentAddress, which: Inspected) -> Result<Vec<u8>, ClientError> {
    const WHILE: &str = "fetches a descriptor";
    let (handle, seed) = match which {
        Inspected::Handle(handle) => (Some(handle), None),
        Inspected::Seed(seed) => (None, Some(seed)),
    };
    match ask(agent, &LocalRequest::Inspect { handle, seed }, WHILE)? {
        LocalReply::Inspected { descriptor } => Ok(descriptor),
        other => Err(unexpected(&other, WHILE)),
    }
}

/// The agent's counters.
///
/// # Errors
/// The agent is gone or silent.
pub fn stats(agent: &AgentAddress) -> Result<Stats, ClientError> {
    const WHILE: &str = "counts";
    match ask(agent, &LocalRequest::Stats, WHILE)? {
        LocalReply::Stats(stats) => Ok(*stats),
        other => Err(unexpected(&other, WHILE)),
    }
}

/// Ends a seed of this host.
///
/// # Errors
/// There is no such seed, or the agent is gone or silent.
pub fn drop_seed(agent: &AgentAddress, seed: SeedId, how: DropMode) -> Result<(), ClientError> {
    const WHILE: &str = "drops a seed";
    done(ask(agent, &LocalRequest::Drop { seed, how }, WHILE)?, WHILE)
}

/// Ends a seed by its handle, which must be one of this host's agent.
///
/// # Errors
/// Another agent keeps that seed, the key is wrong, and as [`drop_seed`].
pub fn drop_by_handle(
    agent: &AgentAddress,
    handle: Handle,
    how: DropMode,
) -> Result<(), ClientError> {
    const WHILE: &str = "drops a seed";
    done(ask(agent, &LocalRequest::DropByHandle { handle, how }, WHILE)?, WHILE)
}

/// Sends a child a signal (signal(7) number); it runs on `host`, or on this one.
///
/// # Errors
/// There is no such child, or an agent is gone or silent.
pub fn kill(
    agent: &AgentAddress,
    child: ChildId,
    host: Option<&str>,
    signal: i32,
) -> Result<(), ClientError> {
    const WHILE: &str = "sends a signal";
    host.map_or(Ok(()), check_host)?;
    let host = host.map(str::to_owned);
    done(ask(agent, &LocalRequest::Kill { child, host, signal }, WHILE)?, WHILE)
}

/// Ends the agent, with its seeds and children.
///
/// # Errors
/// It is gone or silent.
pub fn shutdown(agent: &AgentAddress) -> Result<(), ClientError> {
    const WHILE: &str = "shuts down";
    done(ask(agent, &LocalRequest::Shutdown, WHILE)?, WHILE)
}

/// [`fork`] returns twice.
#[derive(Debug)]
pub enum Forked {
    /// In the caller.
    Parent(Child),
    /// In the child.
    Child(Resumed),
}

/// Forks this process onto `host` (`None`: this one), with an agent of its own if none runs. The seed
/// ends with the child.
///
/// # Errors
/// In the parent alone: a failure leaves no child and no seed behind.
pub fn fork(host: Option<&str>) -> Result<Forked, ForkError> {
    fork_by(host, |options| Ok(prepare(options)?))
}

/// [`fork`] for callers that do more than prepare where it prepares: run hooks.
///
/// # Errors
/// As [`fork`]'s, and those of `prepares`.
pub fn fork_by<E: From<ClientError>>(
    host: Option<&str>,
    prepares: impl FnOnce(&PrepareOptions) -> Result<Prepared, E>,
) -> Result<Forked, E> {
    host.map_or(Ok(()), check_host)?;
    let agent = ensure_agent()?;
    let options = PrepareOptions { agent: Some(agent.clone()), ..PrepareOptions::default() };
    let seed = match prepares(&options)? {
        Prepared::Child(resumed) => return Ok(Forked::Child(resumed)),
        Prepared::Parent(seed) => seed,
    };
    let resumed = seed.handle().and_then(|handle| {
        let mut options = ResumeOptions::new(handle);
        options.host = host.map(str::to_owned);
        options.seed_ends_with_children = true;
        let mut children = resume(&agent, options)?;
        let none = || ClientError::Protocol("no child was started".to_owned());
        children.pop().ok_or_else(none)
    });
    match resumed {
        Ok(child) => Ok(Forked::Parent(child)),
        Err(error) => {
            // Its own failure would hide the cause.
            seed.discard();
            Err(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ForkKey;
    use crate::wire::local::FailureKind;

    fn options() -> ResumeOptions {
        let key = ForkKey::random();
        ResumeOptions::new(Handle { agent: None, seed: SeedId(1), key })
    }

    #[test]
    fn limits_of_a_resume_hold() {
        assert!(check(&ResumeOptions { count: MAX_COUNT, ..options() }).is_ok());
        let whole = ResumeOptions { payload: vec![0; MAX_MAIL_BYTES], ..options() };
        assert!(check(&whole).is_ok());
        for bad in [
            ResumeOptions { count: 0, ..options() },
            ResumeOptions { host: Some("host-b:99999".to_owned()), ..options() },
            ResumeOptions { count: MAX_COUNT + 1, ..options() },
            ResumeOptions { payload: vec![0; MAX_MAIL_BYTES + 1], ..options() },
            ResumeOptions { environment: vec![("A=B".to_owned(), None)], ..options() },
            ResumeOptions {
                environment: vec![("A".to_owned(), Some("\0".to_owned()))],
                ..options()
            },
        ] {
            assert_eq!(check(&bad).unwrap_err().kind(), FailureKind::Argument);
        }
    }
}
