//! Namespaces of their host that children join, as nsenter(1) does: `net=/run/netns/blue`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use crate::sys::namespace::NamespaceKind;

/// A path to one is no longer (PATH_MAX).
pub const MAX_PATH_BYTES: usize = 4096;

/// A namespace to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Of which kind.
    pub kind: NamespaceKind,
    /// What names it on the children's host: `/proc/PID/ns/KIND`, or what is mounted from there.
    pub path: String,
}

/// Why a text is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// It names none.
    #[error(
        "'{0}' names no namespace to join: give cgroup, ipc, net, uts or mnt, and its absolute path: net=/run/netns/NAME"
    )]
    Text(String),
    /// A user namespace.
    #[error(
        "'{0}': children cannot join a user namespace: what makes them takes their agent's rights up to the end, and who \
         joins one has only those that hold in it. Run an agent in that namespace, and resume there"
    )]
    User(String),
}

impl FromStr for Namespace {
    type Err = NamespaceError;

    fn from_str(text: &str) -> Result<Self, NamespaceError> {
        let named = || text.chars().take(200).collect();
        let bad = || NamespaceError::Text(named());
        let (name, path) = text.split_once('=').ok_or_else(bad)?;
        if name == "user" {
            return Err(NamespaceError::User(named()));
        }
        let kind = NamespaceKind::ALL.into_iter().find(|kind| kind.name() == name);
        let is_path = path.starts_with('/') && path.len() < MAX_PATH_BYTES && !path.contains('\0');
        match kind {
            Some(kind) if is_path => Ok(Namespace { kind, path: path.to_owned() }),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind.name(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_others_are_refused() {
        for text in ["net=/run/netns/blue", "mnt=/proc/1/ns/mnt", "uts=/a=b"] {
            assert_eq!(text.parse::<Namespace>().unwrap().to_string(), text);
        }
        for text in ["", "net", "net=", "net=run", "pid=/proc/1/ns/pid", "=/a", "net=/a\0"] {
            let error = text.parse::<Namespace>().unwrap_err().to_string();
            assert!(error.contains("net=/run/netns/NAME"), "{error}");
        }
        let error = "user=/proc/1/ns/user".parse::<Namespace>().unwrap_err().to_string();
        assert!(error.contains("Run an agent in that namespace"), "{error}");
    }
}
