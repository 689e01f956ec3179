//! Whom the kernel takes a process for, and what it may do: section 21, which is left out where all of it is its
//! agent's.

use serde::{Deserialize, Serialize};

/// Supplementary groups at most (NGROUPS_MAX).
pub const MAX_GROUPS: usize = 65_536;

/// All credentials of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User ids: real, effective, saved, of file accesses.
    pub users: [u32; 4],
    /// Its groups.
    pub groups: Groups,
    /// Its capabilities.
    pub rights: Rights,
}

/// Group ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups {
    /// Real, effective, saved, of file accesses.
    pub ids: [u32; 4],
    /// Supplementary ones, ascending.
    pub supplementary: Vec<u32>,
}

/// capabilities(7); each set has a bit for each capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// What an executed file may be given.
    pub inheritable: u64,
    /// What it may take up.
    pub permitted: u64,
    /// What it has taken up.
    pub effective: u64,
    /// What it can be given at all.
    pub bounding: u64,
    /// What executed files have in any case.
    pub ambient: u64,
    /// PR_GET_SECUREBITS, without PR_GET_KEEPCAPS.
    pub secure_bits: u32,
}

/// The bit of PR_GET_SECUREBITS that is PR_GET_KEEPCAPS.
pub const KEEP_CAPS: u32 = 1 << 4;

/// Of capset(2) and capget(2): `_LINUX_CAPABILITY_VERSION_3`.
pub const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// The numbers of the capabilities in a set.
pub fn capabilities_of(set: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |number| set >> number & 1 == 1)
}

/// What of a process's credentials is not its agent's. What is, is in its children that of their host's agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnCredentials {
    /// As [`Credentials::users`].
    pub users: Option<[u32; 4]>,
    /// As [`Credentials::groups`].
    pub groups: Option<Groups>,
    /// As [`Credentials::rights`].
    pub rights: Option<Rights>,
}

impl Credentials {
    /// What of these is not `agent`'s. Another user is told with what it may do: it is not to do what another host's agent may.
    pub fn beside(self, agent: &Credentials) -> OwnCredentials {
        let Credentials { users, groups, rights } = self;
        let is_another = users != agent.users;
        OwnCredentials {
            users: is_another.then_some(users),
            groups: (groups != agent.groups).then_some(groups),
            rights: (is_another || rights != agent.rights).then_some(rights),
        }
    }
}

impl OwnCredentials {
    /// Whether a process can have them.
    ///
    /// # Errors
    /// What none has.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let lists = self.groups.iter().map(|groups| &groups.supplementary);
        for list in lists {
            if list.len() > MAX_GROUPS || !list.is_sorted() {
                return Err("its groups are too many, or in no order");
            }
        }
        let is_sound = |rights: &Rights| {
            let Rights { inheritable, permitted, effective, ambient, .. } = *rights;
            effective & !permitted == 0 && ambient & !(permitted & inheritable) == 0
        };
        match self.rights.as_ref().is_none_or(is_sound) {
            true => Ok(()),
            false => Err("its capabilities contradict each other"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_agents_is_not_told() {
        let agent = Credentials {
            users: [1; 4],
            groups: Groups { ids: [2; 4], supplementary: vec![3, 4] },
            rights: Rights { bounding: 7, ..Rights::default() },
        };
        assert_eq!(agent.clone().beside(&agent), OwnCredentials::default());
        let other = Credentials { users: [1, 1, 1, 9], ..agent.clone() };
        let (users, rights) = (Some(other.users), Some(agent.rights));
        assert_eq!(other.beside(&agent), OwnCredentials { users, groups: None, rights });
        let other = Credentials { rights: Rights::default(), ..agent.clone() };
        let rights = Some(Rights::default());
        assert_eq!(other.beside(&agent), OwnCredentials { users: None, groups: None, rights });
    }

    #[test]
    fn credentials_that_cannot_be_are_told() {
        let with =
            |rights: Rights| OwnCredentials { rights: Some(rights), ..OwnCredentials::default() };
        let groups = |supplementary: Vec<u32>| {
            let groups = Some(Groups { ids: [0; 4], supplementary });
            OwnCredentials { groups, ..OwnCredentials::default() }.check()
        };
        let sound =
            Rights { permitted: 3, effective: 1, inheritable: 6, ambient: 2, ..Rights::default() };
        assert_eq!(with(sound).check(), Ok(()));
        assert!(with(Rights { effective: 4, ..sound }).check().is_err());
        assert!(with(Rights { ambient: 4, ..sound }).check().is_err());
        assert!(groups(vec![2, 1]).is_err());
        assert!(groups(vec![5; MAX_GROUPS]).is_ok() && groups(vec![5; MAX_GROUPS + 1]).is_err());
    }
}
