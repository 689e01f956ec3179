//! User namespaces that nobody is in: user_namespaces(7).

use std::fs::{self, File};
use std::io;

/// One with these maps, of users and of groups, in the words of /proc/PID/uid_map. It lasts as long as its file.
///
/// # Errors
/// clone(2)'s where there may be none, and of who may not write such a map.
pub(crate) fn with_map(map: &str) -> io::Result<File> {
    let holder = Holder::start()?;
    let path = |name: &str| format!("/proc/{}/{name}", holder.0);
    fs::write(path("uid_map"), map)?;
    fs::write(path("gid_map"), map)?;
    File::open(path("ns/user"))
}

/// A process in a namespace that it has made, which does nothing.
struct Holder(libc::pid_t);

impl Holder {
    fn start() -> io::Result<Holder> {
        let flags = libc::CLONE_NEWUSER;
        let agent = i64::from(std::process::id());
        // SAFETY: a copy of this process without an exit signal, on a copy of this stack; it makes no call but those below,
        // which take no lock that another thread may have held.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 {
            // SAFETY: they take numbers; what comes back from pause(2) ends, as does one that is nobody's child by now.
            unsafe {
                libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                if libc::syscall(libc::SYS_getppid) == agent {
                    libc::syscall(libc::SYS_pause);
                }
                libc::syscall(libc::SYS_exit_group, 0);
            }
        }
        match libc::pid_t::try_from(pid) {
            Ok(pid @ 1..) => Ok(Holder(pid)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SAFETY: our own child, which nobody else waits for: it has no exit signal.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), libc::__WALL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::sys::nsfs;

    #[test]
    fn it_is_made_with_its_map_or_refused() {
        // An own id may be mapped by whoever it is; groups take more.
        let (user, is_root) = (super::super::user_id(), super::super::user_id() == 0);
        if !is_root {
            assert!(with_map(&format!("0 {} 1", user + 1)).is_err());
            return;
        }
        let made = with_map("0 100000 65536\n70000 7 1\n");
        if is_in_chroot() {
            assert_eq!(made.unwrap_err().raw_os_error(), Some(libc::EPERM));
            return;
        }
        let made = made.unwrap();
        assert_eq!(nsfs::kind_of(&made).unwrap(), libc::CLONE_NEWUSER);
        assert!(with_map("0 100000 65536\n5 7 1\n").is_err(), "parts that overlap");
    }
    /// Where the kernel makes none: user_namespaces(7) would undo a chroot(2).
    fn is_in_chroot() -> bool {
        let place = |path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
        place("/proc/1/root/").is_some_and(|outside| place("/") != Some(outside))
    }
}
