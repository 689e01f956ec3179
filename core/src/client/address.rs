//! Where the agent of this host listens.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ClientError;
use crate::sys::local_socket;

/// Names the agent's socket for programs that do not.
pub const AGENT_VARIABLE: &str = "MITOSIS_AGENT";
/// Where an agent of the whole host listens.
pub const HOST_SOCKET: &str = "/run/mitosis/agent.sock";
/// An agent whose queue of connections is full for so long is stuck. A seed's sends are bounded by it, too.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// The path of an agent's unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentAddress(pub PathBuf);

impl AgentAddress {
    /// `MITOSIS_AGENT`, else `$XDG_RUNTIME_DIR/mitosis/agent.sock` if it is there, else [`HOST_SOCKET`].
    pub fn find() -> Self {
        Self::choose(env::var_os(AGENT_VARIABLE), env::var_os("XDG_RUNTIME_DIR"), Path::exists)
    }

    fn choose(
        named: Option<OsString>,
        runtime: Option<OsString>,
        exists: impl Fn(&Path) -> bool,
    ) -> Self {
        if let Some(named) = named.filter(|named| !named.is_empty()) {
            return AgentAddress(named.into());
        }
        let own = runtime
            .filter(|runtime| !runtime.is_empty())
            .map(|runtime| Path::new(&runtime).join("mitosis/agent.sock"));
        AgentAddress(own.filter(|own| exists(own)).unwrap_or_else(|| HOST_SOCKET.into()))
    }

    /// Whether an agent listens there.
    pub fn answers(&self) -> bool {
        self.connect().is_ok()
    }

    /// The connection that a seed will hold.
    pub(crate) fn connect_for_seed(&self) -> Result<OwnedFd, ClientError> {
        self.connect().map_err(|error| ClientError::NoAgent { path: self.0.clone(), error })
    }

    pub(super) fn connect(&self) -> io::Result<OwnedFd> {
        local_socket::connect(&self.0, CONNECT_PATIENCE)
    }
}

impl fmt::Display for AgentAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_then_the_users_own_then_the_hosts() {
        let choose = |named: Option<&str>, runtime: Option<&str>, exists: bool| {
            AgentAddress::choose(named.map(Into::into), runtime.map(Into::into), |_| exists)
        };
        let path = |path: &str| AgentAddress(path.into());
        assert_eq!(choose(Some("/x/a.sock"), Some("/run/user/1"), true), path("/x/a.sock"));
        assert_eq!(choose(None, Some("/run/user/1"), true), path("/run/user/1/mitosis/agent.sock"));
        assert_eq!(choose(Some(""), Some("/run/user/1"), false), path(HOST_SOCKET));
        assert_eq!(choose(None, None, true), path(HOST_SOCKET));
    }

    #[test]
    fn nobody_there_names_the_socket_and_the_remedy() {
        let error = AgentAddress("/nonexistent/a.sock".into()).connect_for_seed().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/nonexistent/a.sock") && text.contains("mitosis agent"), "{text}");
    }
}
