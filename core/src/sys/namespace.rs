//! Kinds of namespaces: namespaces(7).

use serde::{Deserialize, Serialize};

/// Kinds that a process with threads and memory of its own can be in. Of a pid namespace only what it forks would be, and of a
/// time namespace whatever is forked has the seed's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NamespaceKind {
    /// cgroup_namespaces(7).
    Cgroup,
    /// ipc_namespaces(7).
    Ipc,
    /// network_namespaces(7).
    Net,
    /// uts_namespaces(7).
    Uts,
    /// mount_namespaces(7): the last to be joined, as the paths of the others are the host's.
    Mount,
}

impl NamespaceKind {
    /// In the order in which they are joined.
    pub const ALL: [NamespaceKind; 5] = [
        NamespaceKind::Cgroup,
        NamespaceKind::Ipc,
        NamespaceKind::Net,
        NamespaceKind::Uts,
        NamespaceKind::Mount,
    ];

    /// As its file in /proc/PID/ns is called.
    pub fn name(self) -> &'static str {
        match self {
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Net => "net",
            NamespaceKind::Uts => "uts",
            NamespaceKind::Mount => "mnt",
        }
    }

    /// Its flag of clone(2).
    pub fn flag(self) -> i32 {
        match self {
            NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
            NamespaceKind::Ipc => libc::CLONE_NEWIPC,
            NamespaceKind::Net => libc::CLONE_NEWNET,
            NamespaceKind::Uts => libc::CLONE_NEWUTS,
            NamespaceKind::Mount => libc::CLONE_NEWNS,
        }
    }
}
