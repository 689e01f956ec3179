//! What of a seed's credentials is not its agent's.

use std::io;

use crate::descriptor::{Credentials, Groups, OwnCredentials, Rights};
use crate::sys::credentials::{self, PeerCredentials};

/// Those of the seed that has connected as `peer`, as this process's user namespace numbers them: `reported` is its own view.
///
/// # Errors
/// /proc cannot be read.
pub fn as_seen_here(reported: Credentials, peer: &PeerCredentials) -> io::Result<Credentials> {
    if !peer.is_elsewhere(reported.users[1], reported.groups.ids[1]) {
        return Ok(reported);
    }
    // What it may do holds in its own namespace alone.
    let agent = credentials::of(std::process::id())?.rights;
    let rights = Rights { bounding: agent.bounding, ..Rights::default() };
    let groups = Groups { ids: [peer.group; 4], supplementary: peer.supplementary.clone() };
    Ok(Credentials { users: [peer.user; 4], groups, rights })
}

/// Those that a seed has beside its agent, which is this process.
///
/// # Errors
/// /proc cannot be read.
pub(super) fn beside_agent(seed: Credentials) -> io::Result<OwnCredentials> {
    Ok(seed.beside(&credentials::of(std::process::id())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_are_none() {
        let own = credentials::of(std::process::id()).unwrap();
        assert_eq!(beside_agent(own.clone()).unwrap(), OwnCredentials::default());
        let other = Credentials { users: [own.users[0] + 1; 4], ..own };
        assert_eq!(beside_agent(other.clone()).unwrap().users, Some(other.users));
    }

    #[test]
    fn who_is_root_in_a_namespace_of_its_own_is_not_root_here() {
        let own = credentials::of(std::process::id()).unwrap();
        let [user, group] = [own.users[1], own.groups.ids[1]];
        let peer = PeerCredentials { pid: std::process::id(), user, group, supplementary: vec![7] };
        assert_eq!(as_seen_here(own.clone(), &peer).unwrap(), own);
        let peer = PeerCredentials { user: user + 1, ..peer };
        let seen = as_seen_here(own.clone(), &peer).unwrap();
        assert_eq!((seen.users, seen.groups.ids), ([user + 1; 4], [group; 4]));
        assert_eq!((seen.groups.supplementary, seen.rights.permitted), (vec![7], 0));
        assert_eq!(seen.rights.bounding, own.rights.bounding);
    }
}
