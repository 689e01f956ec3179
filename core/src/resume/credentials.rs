//! Whom a child is taken for, where its parent was another than its agent: the last of a tail's steps that can be
//! refused, since all others are its host's agent's, who may do more.
//!
//! ```text
//! bounding set > groups > users (keepcaps) > all rights again > user of files > ambient > secure bits > the rights that stay
//! ```
//! A child has what its parent had, less what this host's agent has not. A right that can not be taken away, and an id
//! that can not be given, are refused before anything is built. As each thread has credentials of its own, each runs
//! these steps.

use std::sync::OnceLock;

use super::calls;
use super::program::{Expect, Op};
use crate::descriptor::credentials::{CAPABILITY_VERSION, KEEP_CAPS, capabilities_of};
use crate::descriptor::{Credentials, Descriptor, Groups, OwnCredentials, Rights};

const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;
const CAP_SETPCAP: u32 = 8;
const PR_CAPBSET_DROP: i32 = 24;

/// What this host's agent may not make a child.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialsError {
    /// Another user.
    #[error(
        "the seed's process has user ids {ids:?}, and this host's agent runs as user {agent} without CAP_SETUID: run \
         it as root, or as the seed's user"
    )]
    Users {
        /// Real, effective, saved, of file accesses.
        ids: [u32; 4],
        /// The agent's effective one.
        agent: u32,
    },
    /// Other groups.
    #[error(
        "the seed's process has group ids {ids:?} and groups {supplementary:?}, and this host's agent, of group \
         {agent} and {beside} more, lacks CAP_SETGID: run it as root, or with groups that the seed's process has, too"
    )]
    Groups {
        /// Real, effective, saved, of file accesses.
        ids: [u32; 4],
        /// The first few.
        supplementary: Vec<u32>,
        /// The agent's effective one.
        agent: u32,
        /// Its supplementary ones.
        beside: usize,
    },
    /// More than it had.
    #[error(
        "the seed's process cannot get capabilities {0:#x} (its bounding set), and this host's agent lacks CAP_SETPCAP \
         to take them from a child: run it as root, or with a bounding set as narrow"
    )]
    Bounding(u64),
    /// Other secure bits.
    #[error(
        "the seed's process has secure bits {0:#x}, and this host's agent lacks CAP_SETPCAP to set them: run it as root"
    )]
    SecureBits(u32),
}

/// The steps that make a process of `host`'s credentials what the seed's process was; none if that was its agent's.
///
/// # Errors
/// What `host` may not do.
pub(super) fn steps(desc: &Descriptor, host: &Credentials) -> Result<Vec<Op>, CredentialsError> {
    steps_of(&desc.credentials, desc, host)
}

fn steps_of(
    own: &OwnCredentials,
    desc: &Descriptor,
    host: &Credentials,
) -> Result<Vec<Op>, CredentialsError> {
    let users = own.users.filter(|users| *users != host.users);
    let groups = own.groups.as_ref().map_or(Ok(Vec::new()), |groups| groups_steps(groups, host))?;
    let rights = own.rights.map(|rights| within(rights, &host.rights));
    let rights = rights.filter(|rights| *rights != host.rights);
    if let Some(ids) = users
        && !may(host, CAP_SETUID)
    {
        return Err(CredentialsError::Users { ids, agent: host.users[1] });
    }
    let mut ops = Vec::new();
    if let Some(rights) = &rights {
        ops.extend(narrowed(rights, host)?);
    }
    ops.extend(groups);
    let mut of_files = None;
    if let Some([real, effective, saved, files]) = users {
        ops.push(keep_capabilities(true));
        ops.push(ids("setresuid", libc::SYS_setresuid, [real, effective, saved]));
        of_files = Some(files).filter(|files| *files != effective);
    }
    if users.is_some() || rights.is_some() {
        let kept = desc.state.keeps_capabilities;
        ops.extend(taken_up(&rights.unwrap_or(host.rights), host, of_files, kept));
    }
    if !ops.is_empty() {
        // Who changes its credentials is not dumpable any more.
        let dumpable = u64::from(!desc.state.is_undumpable);
        ops.push(calls::prctl(libc::PR_SET_DUMPABLE, [dumpable.into()], Expect::Success));
    }
    Ok(ops)
}

/// Whom a child is taken for in a user namespace that it has entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InNamespace {
    /// Ids that it has there.
    pub(super) users: Vec<u32>,
    /// Those of groups.
    pub(super) groups: Vec<u32>,
    /// What makes it that.
    pub(super) steps: Vec<Op>,
}

/// In a user namespace that a child of `host`'s has entered it has every right there is, and none outside. It keeps what its
/// parent had and its agent has, as elsewhere.
///
/// # Errors
/// None: who has every right may do all of it.
pub(super) fn in_namespace(
    desc: &Descriptor,
    host: &Credentials,
) -> Result<InNamespace, CredentialsError> {
    const NOBODY: [u32; 4] = [u32::MAX; 4];
    let own = &desc.credentials;
    let groups = own.groups.clone().unwrap_or_else(|| host.groups.clone());
    let users = own.users.unwrap_or(host.users);
    let rights = within(own.rights.unwrap_or(host.rights), &host.rights);
    let all = every_capability();
    let entered = Credentials {
        users: NOBODY,
        groups: Groups { ids: NOBODY, supplementary: Vec::new() },
        rights: Rights { permitted: all, effective: all, bounding: all, ..Rights::default() },
    };
    let wanted =
        OwnCredentials { users: Some(users), groups: Some(groups.clone()), rights: Some(rights) };
    let steps = steps_of(&wanted, desc, &entered)?;
    let groups = groups.ids.into_iter().chain(groups.supplementary).collect();
    Ok(InNamespace { users: users.to_vec(), groups, steps })
}

/// Those that this kernel knows.
fn every_capability() -> u64 {
    static ALL: OnceLock<u64> = OnceLock::new();
    *ALL.get_or_init(|| {
        const LAST: &str = "/proc/sys/kernel/cap_last_cap";
        let text = std::fs::read_to_string(LAST).unwrap_or_default();
        // CAP_CHECKPOINT_RESTORE, of Linux 5.9.
        let last = text.trim().parse::<u32>().unwrap_or(40).min(63);
        u64::MAX >> (63 - last)
    })
}

fn may(host: &Credentials, capability: u32) -> bool {
    host.rights.effective >> capability & 1 == 1
}

/// What of `rights` the host has, too.
fn within(rights: Rights, host: &Rights) -> Rights {
    let permitted = rights.permitted & host.permitted;
    let bounding = rights.bounding & host.bounding;
    // What capset(2) lets be added.
    let inheritable =
        rights.inheritable & (host.inheritable | host.permitted) & (host.inheritable | bounding);
    Rights {
        inheritable,
        permitted,
        effective: rights.effective & permitted,
        bounding,
        ambient: rights.ambient & permitted & inheritable,
        secure_bits: rights.secure_bits,
    }
}

fn groups_steps(groups: &Groups, host: &Credentials) -> Result<Vec<Op>, CredentialsError> {
    let Groups { ids: [real, effective, saved, of_files], supplementary } = groups;
    if *groups == host.groups {
        return Ok(Vec::new());
    }
    if !may(host, CAP_SETGID) {
        let is_theirs = |group: &u32| supplementary.contains(group);
        // To be in fewer groups is to have less.
        if groups.ids == host.groups.ids && host.groups.supplementary.iter().all(is_theirs) {
            return Ok(Vec::new());
        }
        const NAMED: usize = 16;
        return Err(CredentialsError::Groups {
            ids: groups.ids,
            supplementary: supplementary.iter().take(NAMED).copied().collect(),
            agent: host.groups.ids[1],
            beside: host.groups.supplementary.len(),
        });
    }
    let list: Vec<u8> = supplementary.iter().flat_map(|group| group.to_le_bytes()).collect();
    let count = supplementary.len() as u64;
    let args = [count.into(), list.into()];
    let mut ops = vec![
        calls::call("setgroups", libc::SYS_setgroups, args, Expect::Success),
        ids("setresgid", libc::SYS_setresgid, [*real, *effective, *saved]),
    ];
    if of_files != effective {
        ops.extend(of_files_id("setfsgid", libc::SYS_setfsgid, *of_files));
    }
    Ok(ops)
}

fn ids(name: &'static str, number: i64, ids: [u32; 3]) -> Op {
    calls::call(name, number, ids.map(|id| u64::from(id).into()), Expect::Success)
}

/// It answers what was there before, whatever it does: that of an id that is none tells what holds.
fn of_files_id(name: &'static str, number: i64, id: u32) -> [Op; 2] {
    let call = |id: u32, expect| calls::call(name, number, [u64::from(id).into()], expect);
    [call(id, Expect::Ignored), call(u32::MAX, Expect::Exactly(id.into()))]
}

fn keep_capabilities(keep: bool) -> Op {
    calls::prctl(libc::PR_SET_KEEPCAPS, [u64::from(keep).into()], Expect::Success)
}

/// The bounding set, as narrow as it is to be.
fn narrowed(rights: &Rights, host: &Credentials) -> Result<Vec<Op>, CredentialsError> {
    let beyond = host.rights.bounding & !rights.bounding;
    if beyond != 0 && !may(host, CAP_SETPCAP) {
        return Err(CredentialsError::Bounding(beyond));
    }
    if rights.secure_bits != host.rights.secure_bits && !may(host, CAP_SETPCAP) {
        return Err(CredentialsError::SecureBits(rights.secure_bits));
    }
    let drop = |number| calls::prctl(PR_CAPBSET_DROP, [u64::from(number).into()], Expect::Success);
    Ok(capabilities_of(beyond).map(drop).collect())
}

/// The sets, in a process that has what `host` has permitted; and `of_files`, which takes a right that a process that
/// has changed its user has not taken up again.
fn taken_up(
    rights: &Rights,
    host: &Credentials,
    of_files: Option<u32>,
    keeps_capabilities: bool,
) -> Vec<Op> {
    let ambient = |what: i32, number: u64| {
        let args = [u64::from(what.cast_unsigned()).into(), number.into()];
        calls::prctl(libc::PR_CAP_AMBIENT, args, Expect::Success)
    };
    let all = host.rights.permitted;
    let mut ops = vec![capset(all, all, rights.inheritable)];
    if let Some(id) = of_files {
        ops.extend(of_files_id("setfsuid", libc::SYS_setfsuid, id));
    }
    if host.rights.ambient != 0 {
        ops.push(ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0));
    }
    let raise = |number| ambient(libc::PR_CAP_AMBIENT_RAISE, u64::from(number));
    ops.extend(capabilities_of(rights.ambient).map(raise));
    match rights.secure_bits == host.rights.secure_bits {
        true => ops.push(keep_capabilities(keeps_capabilities)),
        false => {
            let keep = if keeps_capabilities { KEEP_CAPS } else { 0 };
            let bits = u64::from(rights.secure_bits | keep);
            ops.push(calls::prctl(libc::PR_SET_SECUREBITS, [bits.into()], Expect::Success));
        }
    }
    ops.push(capset(rights.effective, rights.permitted, rights.inheritable));
    ops
}

/// capset(2) of the calling thread.
fn capset(effective: u64, permitted: u64, inheritable: u64) -> Op {
    let sets = [effective, permitted, inheritable];
    let words = |set: u64| {
        let bytes = set.to_le_bytes();
        [[bytes[0], bytes[1], bytes[2], bytes[3]], [bytes[4], bytes[5], bytes[6], bytes[7]]]
    };
    let halves = [0, 1].map(|half| sets.map(|set| words(set)[half]).concat());
    let header = u64::from(CAPABILITY_VERSION).to_le_bytes().to_vec();
    let args = [header.into(), halves.concat().into()];
    calls::call("capset", libc::SYS_capset, args, Expect::Success)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resume::compile::tests::descriptor;
    use crate::resume::program::Arg;

    const ALL: u64 = (1 << 41) - 1;

    fn root() -> Credentials {
        let rights = Rights { permitted: ALL, effective: ALL, bounding: ALL, ..Rights::default() };
        Credentials { rights, ..Credentials::default() }
    }

    fn user(id: u32) -> Credentials {
        let groups = Groups { ids: [id; 4], supplementary: vec![id, 50] };
        let rights = Rights { bounding: ALL, ..Rights::default() };
        Credentials { users: [id; 4], groups, rights }
    }

    fn texts_of(own: OwnCredentials, host: &Credentials) -> Result<Vec<String>, CredentialsError> {
        let mut desc = descriptor();
        desc.credentials = own;
        steps(&desc, host).map(|ops| ops.iter().map(Op::to_string).collect())
    }

    fn changed(of: &Credentials, change: impl FnOnce(&mut Credentials)) -> OwnCredentials {
        let mut credentials = of.clone();
        change(&mut credentials);
        credentials.beside(of)
    }

    #[test]
    fn who_is_its_agent_costs_no_step() {
        assert_eq!(texts_of(OwnCredentials::default(), &root()), Ok(Vec::new()));
        assert_eq!(texts_of(OwnCredentials::default(), &user(7)), Ok(Vec::new()));
    }

    #[test]
    fn root_makes_anybody() {
        let nobody = changed(&root(), |own| {
            *own = user(7);
            own.users[3] = 8;
            own.rights.bounding = ALL & !1;
        });
        let expected = [
            "prctl(24, 0, 0, 0, 0)",
            "setgroups(2, <8 bytes>)",
            "setresgid(7, 7, 7)",
            "prctl(8, 1, 0, 0, 0)",
            "setresuid(7, 7, 7)",
            "capset(<8 bytes>, <24 bytes>)",
            "setfsuid(8) (may fail)",
            "setfsuid(0xffffffff) = 0x8",
            "prctl(8, 0, 0, 0, 0)",
            "capset(<8 bytes>, <24 bytes>)",
            "prctl(4, 1, 0, 0, 0)",
        ];
        assert_eq!(texts_of(nobody, &root()).unwrap(), expected);
        let groups = changed(&root(), |own| own.groups.supplementary = vec![4]);
        let expected = ["setgroups(1, <4 bytes>)", "setresgid(0, 0, 0)", "prctl(4, 1, 0, 0, 0)"];
        assert_eq!(texts_of(groups, &root()).unwrap(), expected);
    }

    #[test]
    fn rights_are_those_of_both() {
        let host =
            Rights { permitted: 0b0111, effective: 0b0111, bounding: 0b1111, ..Rights::default() };
        let seed = Rights {
            inheritable: 0b1111,
            permitted: 0b1110,
            effective: 0b1010,
            bounding: 0b0110,
            ambient: 0b1110,
            secure_bits: 0,
        };
        let expected = Rights {
            inheritable: 0b0110,
            permitted: 0b0110,
            effective: 0b0010,
            bounding: 0b0110,
            ambient: 0b0110,
            secure_bits: 0,
        };
        assert_eq!(within(seed, &host), expected);
    }

    #[test]
    fn a_set_is_two_words_of_each_kind() {
        let Op::Syscall { args, .. } = capset(1 | 2 << 32, 3 | 4 << 32, 5 | 6 << 32) else {
            panic!("no call")
        };
        let words: Vec<u8> =
            [1u32, 3, 5, 2, 4, 6].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(args[1], Arg::Bytes(words));
    }

    #[test]
    fn what_an_agent_may_not_do_is_refused_by_name() {
        let refused =
            |own: OwnCredentials, host: &Credentials| texts_of(own, host).unwrap_err().to_string();
        let text = refused(changed(&user(7), |own| own.users = [9; 4]), &user(7));
        assert!(
            text.contains("[9, 9, 9, 9]") && text.contains("user 7 without CAP_SETUID"),
            "{text}"
        );
        let text = refused(changed(&user(7), |own| own.groups.ids[1] = 9), &user(7));
        assert!(text.contains("[7, 9, 7, 7]") && text.contains("CAP_SETGID"), "{text}");
        let fewer = changed(&user(7), |own| own.groups.supplementary = vec![7]);
        assert!(refused(fewer, &user(7)).contains("groups [7]"));
        let text = refused(changed(&user(7), |own| own.rights.bounding = 1), &user(7));
        assert!(text.contains("0x1fffffffffe") && text.contains("CAP_SETPCAP"), "{text}");
        let text = refused(changed(&user(7), |own| own.rights.secure_bits = 1), &user(7));
        assert!(text.contains("secure bits 0x1"), "{text}");
    }

    #[test]
    fn an_agent_that_has_less_makes_a_child_that_has_less() {
        let more = changed(&user(7), |own| own.groups.supplementary = vec![7, 50, 60]);
        assert_eq!(texts_of(more, &user(7)), Ok(Vec::new()));
        let already = changed(&root(), |own| *own = user(7));
        let steps = texts_of(already, &user(7)).unwrap();
        assert_eq!(steps, [""; 0], "it is that user already");
    }

    #[test]
    fn in_a_namespace_of_its_own_a_child_has_what_it_would_have_and_its_ids_are_set() {
        let texts = |own: OwnCredentials, host: &Credentials| {
            let mut desc = descriptor();
            desc.credentials = own;
            let made = in_namespace(&desc, host).unwrap();
            (made.users, made.groups, made.steps.iter().map(Op::to_string).collect::<Vec<_>>())
        };
        let host = Credentials { rights: Rights { bounding: !0, ..Rights::default() }, ..root() };
        let (users, groups, steps) = texts(OwnCredentials::default(), &host);
        assert_eq!((users, groups), (vec![0; 4], vec![0; 4]));
        let steps = steps.join(" ");
        for step in ["setgroups(0,", "setresgid(0, 0, 0)", "setresuid(0, 0, 0)", "capset("] {
            assert!(steps.contains(step), "{step}: {steps}");
        }
        let (users, groups, _) = texts(changed(&root(), |own| *own = user(7)), &root());
        assert_eq!((users, groups), (vec![7; 4], vec![7, 7, 7, 7, 7, 50]));
    }
}
