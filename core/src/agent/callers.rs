//! Who is at the other end of the local socket (SO_PEERCRED), and what that one may do.
//!
//! | | root, the agent's own user | others, whom `socket_group` lets in |
//! |---|---|---|
//! | prepare | any process that connects | the same: what a process says of itself is believed, whoever has sent it |
//! | resume | any handle | handles of their own seeds of this host, here, with nothing that takes the agent's rights |
//! | see, drop, kill | all | seeds that they have prepared, children that they have started; of others they are told that there is none |
//! | end the agent | yes | no |
//!
//! So this keeps users out of each other's way, and is no wall between them: see docs/security.md.

use std::os::unix::net::UnixStream;

use super::Agent;
use super::failure::{fail, seed_gone};
use crate::id::{ChildId, SeedId};
use crate::sys::{self, socket};
use crate::wire::local::{Failure, FailureKind, ResumeRequest};

/// Who has connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Effective user id when it connected, as this process's user namespace numbers it.
    pub(super) user: u32,
    pub(super) is_trusted: bool,
}

impl Caller {
    /// `is_open`: the socket lets in others than its owner, and whom the kernel lets pass for that one.
    pub(super) fn of(stream: &UnixStream, is_open: bool) -> std::io::Result<Self> {
        let user = socket::peer(stream)?.user;
        Ok(Caller { user, is_trusted: !is_open || user == 0 || user == sys::user_id() })
    }

    /// Whether what `owner` has made is this one's, too.
    pub(super) fn may_have(self, owner: u32) -> bool {
        self.is_trusted || self.user == owner
    }

    /// For what only root and the agent's own user do.
    pub(super) fn must_be_trusted(self, what: &str) -> Result<(), Failure> {
        if self.is_trusted {
            return Ok(());
        }
        let text = format!("user {} may not {what}: root and the agent's own user may", self.user);
        Err(fail(FailureKind::KeyRefused, text))
    }
}

impl Agent {
    /// Whether `caller` may have this resume, of the seed of which it shows the key.
    pub(super) fn check_resumer(
        &self,
        caller: Caller,
        request: &ResumeRequest,
    ) -> Result<(), Failure> {
        if caller.is_trusted {
            return Ok(());
        }
        if self.other_host(request.host.as_deref())?.is_some()
            || !self.is_own(request.handle.agent.as_deref())
        {
            return caller.must_be_trusted("resume across hosts");
        }
        if !request.listen.is_empty() {
            return caller.must_be_trusted("have the agent bind sockets (--listen)");
        }
        if request.hostname.is_some() || request.cgroup.is_some() || !request.namespaces.is_empty()
        {
            return caller.must_be_trusted("have children enter groups or namespaces");
        }
        if !request.id_map.is_empty() {
            return caller.must_be_trusted("have children be in a user namespace (--id-map)");
        }
        // It is entered by the agent's rights.
        if request.cwd.is_some() {
            return caller.must_be_trusted("choose the directory of children (--cwd)");
        }
        let seed = request.handle.seed;
        self.seeds.authorize(seed, &request.handle.key)?;
        if !self.seeds.owner(seed).is_some_and(|owner| caller.may_have(owner)) {
            return caller.must_be_trusted(
                "resume another user's seed, whose children have rights that it may lack",
            );
        }
        Ok(())
    }

    /// Whether `caller` may see and drop a seed by its id; of another's it is not told that it is there.
    pub(super) fn check_owner(&self, caller: Caller, seed: SeedId) -> Result<(), Failure> {
        let owner = self.seeds.owner(seed);
        owner.filter(|owner| caller.may_have(*owner)).map(drop).ok_or_else(|| seed_gone(seed))
    }

    /// Whether `caller` may send signals to a child; of another's it is not told that it is there.
    pub(super) fn check_starter(&self, caller: Caller, child: ChildId) -> Result<(), Failure> {
        let user = self.children.user_of(child);
        match user.is_some_and(|user| caller.may_have(user)) {
            true => Ok(()),
            false => Err(super::children::child_gone(child)),
        }
    }
}
