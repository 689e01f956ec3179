//! What can go wrong: the call, on what, its errno, the cause and what to do about it.

use std::ffi::c_int;

use super::limits::Memlock;
use super::transitions::TransitionError;

/// A library that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// dlopen(3) refuses.
    #[error(
        "{library} cannot be opened ({reason}): install rdma-core's libraries (Debian: ibverbs-providers and librdmacm1)"
    )]
    NotThere {
        /// The soname.
        library: &'static str,
        /// dlerror(3)'s text.
        reason: String,
    },
    /// It is there but lacks a function.
    #[error("{library} has no {symbol}: it is too old, rdma-core 33 or newer is needed")]
    TooOld {
        /// The soname.
        library: &'static str,
        /// What is missing.
        symbol: &'static str,
    },
}

/// Why a verbs call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A library of rdma-core is not there.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The kernel has no RDMA, or shows none to this process.
    #[error("no RDMA here ({call}: {}): load the card's driver, or in a container share /dev/infiniband and /sys/class/infiniband_verbs", errno_text(*.errno))]
    NoRdma {
        /// What said so.
        call: &'static str,
        /// Its errno.
        errno: c_int,
    },
    /// A call failed.
    #[error("{call} on {on}: {}{}", errno_text(*.errno), remedy(call, *.errno))]
    Call {
        /// The C function.
        call: &'static str,
        /// Device, port, QP or address.
        on: String,
        /// Its errno.
        errno: c_int,
    },
    /// Memory could not be pinned.
    #[error("registering {bytes} bytes on {on}: {}; {memlock}", errno_text(*.errno))]
    Pin {
        /// The device.
        on: String,
        /// How much was to be registered.
        bytes: u64,
        /// The limit, and what is used of it.
        memlock: Memlock,
        /// The call's errno.
        errno: c_int,
    },
    /// The provider lacks a function.
    #[error(
        "the provider of {on} has no {function}: it cannot serve this fabric; choose another device with MITOSIS_DEV or another fabric with MITOSIS_FABRIC"
    )]
    NullFunction {
        /// The device.
        on: String,
        /// The function pointer that is null.
        function: &'static str,
    },
    /// A state change that the table of transitions does not know.
    #[error(transparent)]
    Transition(#[from] TransitionError),
    /// A value that a field of the wire or of a verb cannot hold.
    #[error("{what} is {value}, above {limit}")]
    TooLarge {
        /// The field.
        what: &'static str,
        /// What was given.
        value: u64,
        /// The most that it holds.
        limit: u64,
    },
}

impl Error {
    /// The error of a call that sets errno.
    pub(super) fn last(call: &'static str, on: impl Into<String>) -> Self {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        Self::Call { call, on: on.into(), errno }
    }

    /// The error of a call that returns errno.
    pub(super) fn returned(call: &'static str, on: impl Into<String>, errno: c_int) -> Self {
        Self::Call { call, on: on.into(), errno: errno.abs() }
    }

    /// The errno behind it, if it has one.
    pub fn errno(&self) -> Option<c_int> {
        match self {
            Self::NoRdma { errno, .. } | Self::Call { errno, .. } | Self::Pin { errno, .. } => {
                Some(*errno)
            }
            _ => None,
        }
    }

    /// Whether there is no RDMA for this process at all: no library, or no kernel support.
    pub fn is_no_rdma(&self) -> bool {
        matches!(self, Self::NoRdma { .. } | Self::Library(LibraryError::NotThere { .. }))
    }
}

/// Zero for success, else an errno: how most verbs answer.
pub(super) fn check(call: &'static str, on: &str, result: c_int) -> Result<(), Error> {
    if result == 0 { Ok(()) } else { Err(Error::returned(call, on, result)) }
}

/// errno as text with its number, for [`Error`]'s messages.
fn errno_text(errno: c_int) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => format!("{words}, errno {errno}"),
        None => text,
    }
}

/// What this errno of this call means, and what to do; starts with its own separator.
fn remedy(call: &str, errno: c_int) -> &'static str {
    match (call, errno) {
        ("ibv_open_device" | "rdma_create_event_channel", libc::EACCES | libc::EPERM) => {
            ": /dev/infiniband is not open to this user; run the agent as root or give its group access"
        }
        ("ibv_open_device" | "rdma_create_event_channel", libc::ENOENT | libc::ENODEV) => {
            ": its file in /dev/infiniband is missing; load ib_uverbs and rdma_ucm, or in a container share /dev/infiniband"
        }
        (
            "ibv_create_ah" | "ibv_modify_qp",
            libc::ETIMEDOUT | libc::EHOSTUNREACH | libc::ENETUNREACH,
        ) => ": the peer's GID does not resolve; look at the route to it and at its port",
        ("ibv_modify_qp", libc::EINVAL) => {
            ": the driver refuses a value; look at the GID index, the port and the MTU with 'mitosis info'"
        }
        ("rdma_bind_addr", libc::ENODEV) | ("rdma_resolve_addr", libc::ENODEV) => {
            ": no RDMA device has this address; give an address of the card's network interface"
        }
        ("rdma_bind_addr" | "rdma_listen", libc::EADDRINUSE) => {
            ": another program listens there; choose another port"
        }
        (_, libc::ENOMEM) => {
            ": the device or the kernel is out of memory or of such objects; close users of the device"
        }
        (_, libc::EIO | libc::ENODEV) => {
            ": the device is gone or was reset; restart the agent when it is back"
        }
        (_, libc::EOPNOTSUPP | libc::ENOSYS) => {
            ": the device, its driver or the kernel does not offer this"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_call_the_object_the_errno_and_the_remedy() {
        let error = Error::returned("ibv_open_device", "mlx5_0", libc::EACCES);
        let text = error.to_string();
        assert!(
            text.starts_with("ibv_open_device on mlx5_0: Permission denied, errno 13: "),
            "{text}"
        );
        assert!(text.contains("run the agent as root"), "{text}");
        // Some providers return -errno.
        assert_eq!(
            Error::returned("ibv_modify_qp", "qp 7", -libc::EINVAL).errno(),
            Some(libc::EINVAL)
        );
    }

    #[test]
    fn a_null_function_is_named_with_what_else_to_choose() {
        let error = Error::NullFunction { on: "efa_0".to_owned(), function: "wr_rdma_read" };
        let text = error.to_string();
        assert!(text.starts_with("the provider of efa_0 has no wr_rdma_read: "), "{text}");
        assert!(text.contains("MITOSIS_DEV") && text.contains("MITOSIS_FABRIC"), "{text}");
        assert!(error.errno().is_none() && !error.is_no_rdma());
    }

    #[test]
    fn no_rdma_is_told_from_a_call_that_failed() {
        let none = Error::NoRdma { call: "ibv_get_device_list", errno: libc::ENOSYS };
        assert!(none.is_no_rdma());
        assert!(none.to_string().contains("errno 38"), "{none}");
        assert!(!Error::returned("ibv_alloc_pd", "mlx5_0", libc::ENOMEM).is_no_rdma());
    }
}
