//! What children of one request enter on this host, opened once for all of them.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::Path;

use super::failure::fail;
use crate::resume::Enters;
use crate::sys::{self, nsfs};
use crate::wire::id_map::{IdMap, MAX_ID_MAPS};
use crate::wire::local::{Failure, FailureKind, ResumeRequest};
use crate::wire::namespaces::{Namespace, NamespaceKind};

/// A control group and namespaces.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    cgroup: Option<File>,
    namespaces: [Option<File>; NamespaceKind::ALL.len()],
    user: Option<File>,
}

impl Surroundings {
    /// Those of `request`.
    ///
    /// # Errors
    /// `Argument`: a path that is not there, or is something else.
    pub(super) fn of(request: &ResumeRequest) -> Result<Surroundings, Failure> {
        let mut all = Surroundings {
            cgroup: request.cgroup.as_deref().map(open_cgroup).transpose()?,
            ..Surroundings::default()
        };
        if !request.id_map.is_empty() {
            all.user = Some(user_namespace(&request.id_map)?);
        }
        for namespace in &request.namespaces {
            let place = &mut all.namespaces[namespace.kind as usize];
            if place.is_some() {
                let text =
                    format!("two namespaces of the kind {} are given", namespace.kind.name());
                return Err(fail(FailureKind::Argument, text));
            }
            *place = Some(open_namespace(namespace)?);
        }
        if request.hostname.is_some() && all.namespaces[NamespaceKind::Uts as usize].is_some() {
            let text =
                "a host's name is set in a UTS namespace of its own: give that or one to join";
            return Err(fail(FailureKind::Argument, text));
        }
        Ok(all)
    }

    /// Whether the rest of what `request` asks for can be had there, by children of a seed that has a root directory of
    /// its own or not, and maps files of this host shared or not.
    ///
    /// # Errors
    /// `Argument`.
    pub(super) fn check(
        &self,
        request: &ResumeRequest,
        has_own_root: bool,
        maps_shared_files: bool,
    ) -> Result<(), Failure> {
        let joins = |kind: NamespaceKind| self.namespaces[kind as usize].is_some();
        let refuse = |text: &str| Err(fail(FailureKind::Argument, text));
        let has_mounts = joins(NamespaceKind::Mount);
        if has_own_root && has_mounts {
            return refuse(
                "the seed has changed its root directory, out of which another mount namespace would lead: resume it \
                 without --ns mnt",
            );
        }
        if maps_shared_files && has_mounts {
            return refuse(
                "the seed has files mapped shared, which its children have from the agent's mount namespace: resume it \
                 without --ns mnt",
            );
        }
        if !request.listen.is_empty() && (has_mounts || joins(NamespaceKind::Net)) {
            return refuse(
                "sockets are bound in the agent's network and file system, and the children are to have others: leave \
                 out --listen, or --ns net and mnt",
            );
        }
        match &request.cwd {
            // In another root directory or mount namespace the child finds out.
            Some(cwd) if !has_own_root && !has_mounts && !Path::new(cwd).is_dir() => refuse(
                &format!("no directory {cwd} is on this host: make it, or name another for --cwd"),
            ),
            _ => Ok(()),
        }
    }

    /// For the children's start.
    pub(super) fn enters(&self) -> Enters<'_> {
        Enters {
            cgroup: self.cgroup.as_ref().map(AsFd::as_fd),
            namespaces: self.namespaces.each_ref().map(|file| file.as_ref().map(AsFd::as_fd)),
            user: self.user.as_ref().map(AsFd::as_fd),
        }
    }
}

/// One for all children of a request.
fn user_namespace(map: &[IdMap]) -> Result<File, Failure> {
    if map.len() > MAX_ID_MAPS {
        let text =
            format!("an id map of {} parts is too long: {MAX_ID_MAPS} is the limit", map.len());
        return Err(fail(FailureKind::Argument, text));
    }
    let lines = map.iter().map(|part| format!("{} {} {}\n", part.inside, part.outside, part.count));
    sys::user_namespace::with_map(&lines.collect::<String>()).map_err(|error| {
        let named: Vec<String> = map.iter().map(ToString::to_string).collect();
        let text = format!(
            "children cannot be in a user namespace of the id map {}: {error}; it takes an agent with CAP_SETUID and \
             CAP_SETGID, parts that do not overlap, and a host that lets it make user namespaces \
             (user.max_user_namespaces)",
            named.join(" ")
        );
        fail(FailureKind::Argument, text)
    })
}

fn open_cgroup(path: &str) -> Result<File, Failure> {
    let procs = format!("{path}/cgroup.procs");
    let wrong = |why: &dyn std::fmt::Display| {
        let text = format!("children cannot enter the control group {path}: {why}");
        fail(FailureKind::Argument, text)
    };
    let file = OpenOptions::new().write(true).open(procs).map_err(|error| wrong(&error))?;
    match nsfs::is_of_cgroups(&file) {
        Ok(true) => Ok(file),
        Ok(false) => Err(wrong(&"it is none: give a directory of /sys/fs/cgroup")),
        Err(error) => Err(wrong(&error)),
    }
}

fn open_namespace(namespace: &Namespace) -> Result<File, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        let text = format!("children cannot join the namespace {namespace}: {why}");
        fail(FailureKind::Argument, text)
    };
    let file = File::open(&namespace.path).map_err(|error| wrong(&error))?;
    match nsfs::kind_of(&file) {
        Ok(kind) if kind == namespace.kind.flag() => Ok(file),
        Ok(_) => Err(wrong(&"it is of another kind")),
        Err(_) => Err(wrong(&"it is none: give /proc/PID/ns/KIND, or what is mounted from there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_none_is_refused() {
        let error = open_cgroup("/proc/self").unwrap_err().to_string();
        assert!(error.contains("the control group /proc/self"), "{error}");
        let namespace = |text: &str| open_namespace(&text.parse().unwrap());
        namespace("net=/proc/self/ns/net").unwrap();
        for (text, why) in [
            ("net=/proc/self/ns/ipc", "another kind"),
            ("net=/dev/null", "it is none"),
            ("net=/not/there", "No such file"),
        ] {
            let error = namespace(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
