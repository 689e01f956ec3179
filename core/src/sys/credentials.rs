//! Credentials of a process, as /proc tells them.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use crate::descriptor::credentials::{KEEP_CAPS, MAX_GROUPS};
use crate::descriptor::{Credentials, Groups, Rights};
use crate::sys::socket::{self, Peer};

/// Those of process `pid`, with the calling process's own secure bits, of which /proc tells nothing.
///
/// # Errors
/// Its status cannot be read, or is of an unknown form.
pub fn of(pid: u32) -> io::Result<Credentials> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut credentials = parse(&text).ok_or(io::ErrorKind::InvalidData)?;
    credentials.rights.secure_bits = own_secure_bits();
    Ok(credentials)
}

/// Who has connected a unix socket, as this process's namespaces number it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Its pid; 0 if it has none here.
    pub pid: u32,
    /// Its effective user.
    pub user: u32,
    /// Its effective group.
    pub group: u32,
    /// Its supplementary groups, ascending.
    pub supplementary: Vec<u32>,
}

impl PeerCredentials {
    /// Of this socket.
    ///
    /// # Errors
    /// getsockopt(2)'s.
    pub fn of(stream: &UnixStream) -> io::Result<PeerCredentials> {
        let Peer { pid, user, group } = socket::peer(stream)?;
        let mut supplementary = groups_of_peer(stream)?;
        supplementary.sort_unstable();
        Ok(PeerCredentials { pid, user, group, supplementary })
    }

    /// Whether it is in another user namespace than this process: its capabilities hold there alone, and what it
    /// takes its effective ids for (`user`, `group`) may be other numbers.
    pub fn is_elsewhere(&self, user: u32, group: u32) -> bool {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let (own, other) = (namespace("self"), namespace(&self.pid.to_string()));
        let differs = own.zip(other).is_none_or(|(own, other)| own != other);
        differs || (user, group) != (self.user, self.group)
    }
}

/// SO_PEERGROUPS, see unix(7).
fn groups_of_peer(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; MAX_GROUPS];
    let mut len = libc::socklen_t::try_from(size_of_val(&groups[..])).unwrap_or(0);
    let (fd, name, into) = (stream.as_raw_fd(), libc::SO_PEERGROUPS, groups.as_mut_ptr().cast());
    // SAFETY: the kernel fills at most as many bytes as the numbers have.
    let answer = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, into, &raw mut len) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    groups.truncate(len as usize / size_of::<u32>());
    Ok(groups)
}

fn own_secure_bits() -> u32 {
    // SAFETY: it takes numbers.
    let bits = unsafe { libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0) };
    u32::try_from(bits).unwrap_or(0) & !KEEP_CAPS
}

/// A proc_pid_status(5).
fn parse(text: &str) -> Option<Credentials> {
    let field = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim())
    };
    let numbers = |name: &str| -> Option<Vec<u32>> {
        field(name)?.split_ascii_whitespace().map(|word| word.parse().ok()).collect()
    };
    let ids = |name: &str| <[u32; 4]>::try_from(numbers(name)?).ok();
    let set = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    let mut supplementary = numbers("Groups")?;
    supplementary.sort_unstable();
    Some(Credentials {
        users: ids("Uid")?,
        groups: Groups { ids: ids("Gid")?, supplementary },
        rights: Rights {
            inheritable: set("CapInh")?,
            permitted: set("CapPrm")?,
            effective: set("CapEff")?,
            bounding: set("CapBnd")?,
            ambient: set("CapAmb")?,
            secure_bits: 0,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let text = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t30 4 \nCapInh:\t0000000000000001\n\
                    CapPrm:\t00000000000000ff\nCapEff:\t0000000000000010\nCapBnd:\t000001ffffffffff\n\
                    CapAmb:\t0000000000000000\n";
        let parsed = parse(text).unwrap();
        assert_eq!((parsed.users, parsed.groups.ids), ([1, 2, 3, 4], [5, 6, 7, 8]));
        assert_eq!(parsed.groups.supplementary, [4, 30]);
        let Rights { inheritable, permitted, effective, bounding, ambient, .. } = parsed.rights;
        assert_eq!((inheritable, permitted, effective, ambient), (1, 0xff, 0x10, 0));
        assert_eq!(bounding, 0x1ff_ffff_ffff);
        assert_eq!(parse(&text.replace("CapAmb", "Cap")), None);
        assert!(parse(&text.replace("30 4 ", "")).unwrap().groups.supplementary.is_empty());
    }

    #[test]
    fn this_process_is_who_it_is() {
        let own = of(std::process::id()).unwrap();
        assert_eq!(own.users[1], crate::sys::user_id());
        let (socket, _other) = UnixStream::pair().unwrap();
        let peer = PeerCredentials::of(&socket).unwrap();
        assert_eq!((peer.pid, peer.user), (std::process::id(), own.users[1]));
        assert_eq!(peer.supplementary, own.groups.supplementary);
        assert!(!peer.is_elsewhere(peer.user, peer.group));
        assert!(peer.is_elsewhere(peer.user + 1, peer.group));
        let unknown = PeerCredentials { pid: 0, ..peer };
        assert!(unknown.is_elsewhere(unknown.user, unknown.group), "nobody knows where it is");
    }
}
