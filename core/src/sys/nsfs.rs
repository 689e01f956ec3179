//! What a descriptor of a namespace or of a control group is.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `NS_GET_NSTYPE` of ioctl_ns(2).
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// The flag of clone(2) of the namespace that `file` is.
///
/// # Errors
/// ioctl(2)'s: ENOTTY if it is none.
pub(crate) fn kind_of(file: &File) -> io::Result<i32> {
    // SAFETY: no memory is passed.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}

/// Whether `file` lies in a hierarchy of control groups, cgroups(7) version 2 or 1.
///
/// # Errors
/// fstatfs(2)'s.
pub(crate) fn is_of_cgroups(file: &File) -> io::Result<bool> {
    let mut about = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the kernel fills the struct.
    if unsafe { libc::fstatfs(file.as_raw_fd(), about.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled.
    let kind = unsafe { about.assume_init() }.f_type;
    Ok(kind == libc::CGROUP2_SUPER_MAGIC || kind == libc::CGROUP_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::super::namespace::NamespaceKind;
    use super::*;

    #[test]
    fn flags_are_those_of_their_files() {
        for kind in NamespaceKind::ALL {
            let file = File::open(format!("/proc/self/ns/{}", kind.name())).unwrap();
            assert_eq!(kind_of(&file).unwrap(), kind.flag());
        }
    }
}
