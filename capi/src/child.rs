//! A child as its starter in C holds it.

use std::ffi::{CString, c_char, c_int};
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::time::Duration;

use mitosis_core::client;
use mitosis_core::wire::local::ChildEnd;

use crate::boundary::{boundary, guard, not_null};
use crate::error::{Failed, MITOSIS_OK, MitosisErr};
use crate::options::{SizeFirst, size_of_callers, write};
use crate::process::Process;
use crate::text::for_c;

/// The last signal of Linux.
const LAST_SIGNAL: c_int = 64;

/// A child that this process has started, wherever it runs. Several threads may use it at once.
#[derive(Debug)]
pub struct Child {
    child: client::Child,
    host: CString,
    /// Of its end, once that is known.
    message: OnceLock<CString>,
    maker: Process,
}

impl Child {
    pub(crate) fn for_c(child: client::Child) -> *mut Child {
        let host = for_c(child.host().to_owned());
        let maker = Process::current();
        Box::into_raw(Box::new(Child { child, host, message: OnceLock::new(), maker }))
    }

    fn ours(&self) -> Result<&client::Child, Failed> {
        self.maker.check("child")?;
        Ok(&self.child)
    }
}

/// How a child ended: the kinds of mitosis_child_status.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MitosisEnd {
    /// It exited; value is its status, as of exit(3).
    Exited = 1,
    /// A signal killed it; value is the signal.
    Signalled = 2,
    /// A page of its memory could not be had, and SIGBUS killed it (value); message says which page.
    PageLost = 3,
    /// Its host's agent, or this one's, is gone: nothing is known of it; message says more. value is 0.
    HostLost = 4,
}

/// A child's end. Set size before the call; the rest is written by it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ChildStatus {
    /// sizeof(struct mitosis_child_status).
    pub size: usize,
    /// MITOSIS_END_*; treat one that you do not know as MITOSIS_END_HOST_LOST.
    pub kind: c_int,
    /// As its kind says.
    pub value: c_int,
    /// For people. Belongs to the child, valid until mitosis_child_free().
    pub message: *const c_char,
}

// SAFETY: repr(C), a usize first; a pointer and integers without padding (asserted).
unsafe impl SizeFirst for ChildStatus {
    const NAME: &'static str = "mitosis_child_status";
    const LEAST_BYTES: usize = size_of::<usize>() + 2 * size_of::<c_int>();
}
const _: () = assert!(size_of::<ChildStatus>() == 2 * size_of::<usize>() + 4 + 4);

/// Waits for a child's end. It may be asked again, and answers the same.
///
/// child:      from mitosis_fork() or mitosis_resume(), in the process that called it.
/// timeout_ms: how long to wait at most; negative: as long as it takes; 0: not at all.
/// status:     its size must be set; receives how the child ended. Unchanged on failure.
///
/// RETURN VALUE: MITOSIS_OK when the child has ended, else a negative code.
///
/// ERRORS:
/// MITOSIS_ERR_NULL           child or status is NULL.
/// MITOSIS_ERR_ARGUMENT       status->size is not that of a mitosis_child_status.
/// MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that started the child.
/// MITOSIS_ERR_TIMEOUT        it has not ended in that time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_child_wait(
    child: *const Child,
    timeout_ms: i64,
    status: *mut ChildStatus,
) -> c_int {
    boundary(|| {
        let (child, status) = (not_null!(child), not_null!(status));
        // SAFETY: C's: a child of ours that no other thread frees meanwhile.
        let child: &Child = unsafe { child.as_ref() };
        // SAFETY: C's: a status with its size.
        let size = unsafe { size_of_callers(status.as_ptr().cast_const())? };
        let ours = child.ours()?;
        let end = match u64::try_from(timeout_ms) {
            Err(_) => Some(ours.wait()),
            Ok(0) => ours.try_wait(),
            Ok(ms) => ours.wait_timeout(Duration::from_millis(ms)),
        };
        let end = end.ok_or_else(|| {
            let message = format!("the child has not ended within {timeout_ms} ms");
            Failed::new(MitosisErr::Timeout, message)
        })?;
        let (kind, value, message) = described(end);
        let message = child.message.get_or_init(|| for_c(message)).as_ptr();
        let value = ChildStatus { size, kind: kind as c_int, value, message };
        // SAFETY: C's: that many bytes are its status.
        unsafe { write(&value, status.as_ptr(), size) };
        Ok(MITOSIS_OK)
    })
}

fn described(end: ChildEnd) -> (MitosisEnd, c_int, String) {
    match end {
        ChildEnd::Exited(status) => {
            (MitosisEnd::Exited, status, format!("exited with status {status}"))
        }
        ChildEnd::Signalled(signal) => {
            (MitosisEnd::Signalled, signal, format!("killed by signal {signal}"))
        }
        ChildEnd::PageLost(text) => (MitosisEnd::PageLost, libc::SIGBUS, text),
        ChildEnd::HostLost(text) => (MitosisEnd::HostLost, 0, text),
    }
}

/// Sends a child a signal, wherever it runs.
///
/// child:  from mitosis_fork() or mitosis_resume(), in the process that called it.
/// signal: number as of signal(7), 1 to 64.
///
/// RETURN VALUE: MITOSIS_OK, or a negative code.
///
/// ERRORS:
/// MITOSIS_ERR_NULL           child is NULL.
/// MITOSIS_ERR_ARGUMENT       there is no such signal.
/// MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that started the child.
/// MITOSIS_ERR_CHILD_GONE     it has ended.
/// MITOSIS_ERR_KEY_REFUSED    it runs on another host, to which this user may not send signals.
/// MITOSIS_ERR_SECRET         the hosts have no cluster secret in common.
/// MITOSIS_ERR_UNREACHABLE    its host does not answer.
/// MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_AGENT_CLOSED, MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION,
/// MITOSIS_ERR_PROTOCOL       the agent of this host could not be asked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_child_kill(child: *const Child, signal: c_int) -> c_int {
    boundary(|| {
        let child = not_null!(child);
        if !(1..=LAST_SIGNAL).contains(&signal) {
            let message = format!("there is no signal {signal}: see signal(7)");
            return Err(Failed::new(MitosisErr::Argument, message));
        }
        // SAFETY: C's: a child of ours that no other thread frees meanwhile.
        let child: &Child = unsafe { child.as_ref() };
        child.ours()?.kill(signal)?;
        Ok(MITOSIS_OK)
    })
}

/// The process id of a child on its host.
///
/// child: from mitosis_fork() or mitosis_resume().
///
/// RETURN VALUE: positive, or a negative code.
///
/// ERRORS:
/// MITOSIS_ERR_NULL      child is NULL.
/// MITOSIS_ERR_PROTOCOL  the agent told none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_child_pid(child: *const Child) -> c_int {
    boundary(|| {
        let child = not_null!(child);
        // SAFETY: C's: a child of ours that no other thread frees meanwhile.
        let child: &Child = unsafe { child.as_ref() };
        let pid = c_int::try_from(child.child.pid()).ok().filter(|pid| *pid > 0);
        pid.ok_or_else(|| {
            let message = format!("the agent told {} as the child's pid", child.child.pid());
            Failed::new(MitosisErr::Protocol, message)
        })
    })
}

/// The name of the host that runs a child.
///
/// child: from mitosis_fork() or mitosis_resume().
///
/// RETURN VALUE: text that belongs to the child and is valid until mitosis_child_free(); NULL if child is
/// NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_child_host(child: *const Child) -> *const c_char {
    let host = guard(|| {
        let child = not_null!(child);
        // SAFETY: C's: a child of ours that no other thread frees meanwhile.
        let child: &Child = unsafe { child.as_ref() };
        Ok(child.host.as_ptr())
    });
    host.unwrap_or(ptr::null())
}

/// A descriptor for poll(2) and its like, which becomes readable (POLLIN) when a child has ended.
///
/// With several children of one resume it may be readable for a moment because another one has ended:
/// ask mitosis_child_wait() with a timeout of 0.
///
/// child: from mitosis_fork() or mitosis_resume(), in the process that called it.
///
/// RETURN VALUE: a descriptor that belongs to the child (do not read or close it) until
/// mitosis_child_free(), or a negative code.
///
/// ERRORS:
/// MITOSIS_ERR_NULL           child is NULL.
/// MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that started the child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_child_fd(child: *const Child) -> c_int {
    boundary(|| {
        let child = not_null!(child);
        // SAFETY: C's: a child of ours that no other thread frees meanwhile.
        let child: &Child = unsafe { child.as_ref() };
        Ok(child.ours()?.as_fd().as_raw_fd())
    })
}

/// Frees the object. The child itself goes on. Allowed in a fork of the process that made it, too.
///
/// child: NULL does nothing. A pointer that has been freed must not be freed again, as with free(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_child_free(child: *mut Child) {
    boundary(|| {
        let Some(child) = NonNull::new(child) else { return Ok(0) };
        // SAFETY: C's: it came from `for_c` and is not used again.
        let child = unsafe { Box::from_raw(child.as_ptr()) };
        if !child.maker.shares_descriptors() {
            // Closing its descriptors would close other files.
            mem::forget(child);
        }
        Ok(0)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_kind_value_and_text() {
        let page = described(ChildEnd::PageLost("seed 1, host a, address 2".to_owned()));
        assert_eq!((page.0, page.1), (MitosisEnd::PageLost, libc::SIGBUS));
        assert!(page.2.contains("address 2"));
        let exited = described(ChildEnd::Exited(7));
        assert_eq!(exited, (MitosisEnd::Exited, 7, "exited with status 7".to_owned()));
        assert_eq!(described(ChildEnd::Signalled(9)).1, 9);
        assert_eq!(described(ChildEnd::HostLost(String::new())).1, 0);
    }
}
