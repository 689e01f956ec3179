//! What this process is, if it is a child.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use mitosis_core::prepare::{LossKind, Refuse, Resumed, generation};

use crate::boundary::{boundary, guard, not_null};
use crate::error::{Failed, MITOSIS_OK, MitosisErr};
use crate::options::{SizeFirst, size_of_callers, write};

/// For mitosis_prepare_options.refuse and mitosis_loss.kind. Connections to other processes or hosts, and messages that lie in one of the process's own.
pub const MITOSIS_LOSS_CONNECTIONS: u64 = 1;
/// For mitosis_prepare_options.refuse and mitosis_loss.kind. Pipes and fifos whose other end is another process's.
pub const MITOSIS_LOSS_PIPES: u64 = 2;
/// For mitosis_prepare_options.refuse and mitosis_loss.kind. Pidfds of other processes.
pub const MITOSIS_LOSS_PROCESSES: u64 = 4;
/// For mitosis_prepare_options.refuse and mitosis_loss.kind. Devices, userfaultfds, perf events, BPF objects.
pub const MITOSIS_LOSS_DEVICES: u64 = 8;
/// For mitosis_prepare_options.refuse and mitosis_loss.kind. Files without a name of more than 256 KiB, and directories without a name.
pub const MITOSIS_LOSS_UNNAMED: u64 = 16;
/// For mitosis_prepare_options.refuse and mitosis_loss.kind. Locks and leases on files: the child has the file without the lock.
pub const MITOSIS_LOSS_LOCKS: u64 = 32;
/// For mitosis_prepare_options.refuse and mitosis_loss.kind. Watches of inotify.
pub const MITOSIS_LOSS_WATCHES: u64 = 64;
/// For mitosis_prepare_options.refuse and mitosis_loss.kind. Pseudo-terminals whose other side is another process's.
pub const MITOSIS_LOSS_TERMINALS: u64 = 128;
/// For mitosis_prepare_options.refuse and mitosis_loss.kind. Memory that another living process maps, too. Told of only where it is refused.
pub const MITOSIS_LOSS_SHARED_MEMORY: u64 = 256;
/// For mitosis_prepare_options.refuse and mitosis_loss.kind. Files that were mapped shared and could be written, where the child's host has not the same: the child has a copy. Where it is refused, mitosis_resume() fails there.
pub const MITOSIS_LOSS_SHARED_FILES: u64 = 512;
/// For mitosis_prepare_options.refuse, .close and mitosis_loss.kind. An io_uring: its rings are shared with the kernel. Refused unless mitosis_prepare_options.close has it.
pub const MITOSIS_LOSS_IO_URING: u64 = 1024;
/// For mitosis_prepare_options.refuse and mitosis_loss.kind. Threads other than the caller of the class SCHED_DEADLINE, which are of the ordinary class in the child, and a cookie of core scheduling, which it has not.
pub const MITOSIS_LOSS_SCHEDULING: u64 = 2048;

// Each kind has a bit of its own, and there is no other kind.
const _: () = assert!(
    MITOSIS_LOSS_CONNECTIONS
        | MITOSIS_LOSS_PIPES
        | MITOSIS_LOSS_PROCESSES
        | MITOSIS_LOSS_DEVICES
        | MITOSIS_LOSS_UNNAMED
        | MITOSIS_LOSS_LOCKS
        | MITOSIS_LOSS_WATCHES
        | MITOSIS_LOSS_TERMINALS
        | MITOSIS_LOSS_SHARED_MEMORY
        | MITOSIS_LOSS_SHARED_FILES
        | MITOSIS_LOSS_IO_URING
        | MITOSIS_LOSS_SCHEDULING
        == (1 << LossKind::ALL.len()) - 1
);

/// What the process had and this child has not.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// sizeof(struct mitosis_loss).
    pub size: usize,
    /// One of MITOSIS_LOSS_*; treat one that you do not know as a device.
    pub kind: u64,
    /// Its number, which is closed or hung up; -1: none, it is memory.
    pub fd: i32,
    /// Zero.
    pub reserved: u32,
    /// What it was, for people and for connecting again: the address of a peer, a path. Valid for the life of the
    /// process.
    pub was: *const c_char,
}

// SAFETY: repr(C), a usize first; a pointer and integers without padding (asserted).
unsafe impl SizeFirst for Loss {
    const NAME: &'static str = "mitosis_loss";
}
const _: () = assert!(size_of::<Loss>() == 2 * size_of::<usize>() + 8 + 4 + 4);

/// A child, and its losses number by number.
struct Woken {
    resumed: Resumed,
    lost: Vec<(u64, i32, CString)>,
}

/// Not a lock: another thread's fork would copy it locked. What it pointed to before is leaked, as C may
/// still read that payload; a process is resumed once, its ancestors' payloads came with its memory.
static RESUMED: AtomicPtr<Woken> = AtomicPtr::new(ptr::null_mut());

/// In a child, before C goes on in it.
pub(crate) fn store(resumed: Resumed) {
    let lost = lost(&resumed);
    RESUMED.store(Box::into_raw(Box::new(Woken { resumed, lost })), Ordering::Release);
}

fn lost(resumed: &Resumed) -> Vec<(u64, i32, CString)> {
    let numbers = |fds: &[u32]| match fds {
        [] => vec![-1],
        fds => fds.iter().map(|fd| i32::try_from(*fd).unwrap_or(-1)).collect(),
    };
    let each = resumed.lost.iter().flat_map(|loss| {
        let was = CString::new(loss.was.replace('\0', "@")).unwrap_or_default();
        let bit = Refuse::NONE.and(loss.kind).bits();
        numbers(&loss.fds).into_iter().map(move |fd| (bit, fd, was.clone()))
    });
    each.collect()
}

/// What [`store`] was given, in a child.
pub(crate) fn told() -> Resumed {
    let none = || unreachable!("only asked for in a child, which has been told");
    current().cloned().unwrap_or_else(none)
}

fn current() -> Option<&'static Resumed> {
    woken().map(|woken| &woken.resumed)
}

fn woken() -> Option<&'static Woken> {
    // SAFETY: `store` is the only writer and what it leaks is never changed.
    unsafe { RESUMED.load(Ordering::Acquire).as_ref() }
}

/// The payload that mitosis_resume() gave this child.
///
/// payload: receives a pointer to the bytes, valid for the life of the process; NULL if there are none.
/// size:    receives their number.
///
/// RETURN VALUE: MITOSIS_OK, or a negative code. In a process that is no child there are no bytes.
///
/// ERRORS:
/// MITOSIS_ERR_NULL  payload or size is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_payload(payload: *mut *const c_void, size: *mut usize) -> c_int {
    boundary(|| {
        let (payload, size) = (not_null!(payload), not_null!(size));
        let bytes = current().map_or(&[][..], |resumed| &resumed.payload);
        let first = if bytes.is_empty() { ptr::null() } else { bytes.as_ptr().cast::<c_void>() };
        // SAFETY: C's: places for a pointer and a size.
        unsafe {
            payload.write(first);
            size.write(bytes.len());
        }
        Ok(MITOSIS_OK)
    })
}

/// How many forks of mitosis lie between this process and the first one.
///
/// RETURN VALUE: 0 in a process that is no child, 1 in a child, 2 in a child's child.
#[unsafe(no_mangle)]
pub extern "C" fn mitosis_generation() -> u64 {
    guard(|| Ok(generation())).unwrap_or(0)
}

/// What CLOCK_MONOTONIC has jumped by in this child, ns. Moments of that clock that were noted before are to be moved by it.
///
/// RETURN VALUE: 0 where this process has its parent's clock, as ever where its host has time namespaces for it; 0 in a
/// process that is no child.
#[unsafe(no_mangle)]
pub extern "C" fn mitosis_clock_delta_ns() -> i64 {
    guard(|| Ok(current().map_or(0, |resumed| resumed.clock_delta_ns))).unwrap_or(0)
}

/// Which of the children of one mitosis_resume() this process is.
///
/// RETURN VALUE: from 0 on; 0 in the child of mitosis_fork(). A negative code in a process that is no child.
///
/// ERRORS:
/// MITOSIS_ERR_ARGUMENT  this process is no child.
#[unsafe(no_mangle)]
pub extern "C" fn mitosis_child_index() -> c_int {
    boundary(|| {
        let index = current().and_then(|resumed| c_int::try_from(resumed.index).ok());
        index
            .ok_or_else(|| Failed::new(MitosisErr::Argument, "this process is no child of mitosis"))
    })
}

/// What the process had open and this child has not, number by number: to make it again, and to know what will
/// fail. Where files are carried; without, all numbers above 2 are lost and none is told.
///
/// index: from 0 on.
/// loss:  its size must be set; receives the loss of this index. Unchanged on failure.
///
/// RETURN VALUE: MITOSIS_OK, or a negative code.
///
/// ERRORS:
/// MITOSIS_ERR_NULL      loss is NULL.
/// MITOSIS_ERR_ARGUMENT  there are no more, or loss->size is not that of a mitosis_loss.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_lost(index: usize, loss: *mut Loss) -> c_int {
    boundary(|| {
        let loss = not_null!(loss);
        // SAFETY: C's: a struct of the size that it says.
        let size = unsafe { size_of_callers(loss.as_ptr())? };
        let lost = woken().and_then(|woken| woken.lost.get(index));
        let (kind, fd, was) = lost.ok_or_else(|| {
            Failed::new(MitosisErr::Argument, "this process has lost no more than that")
        })?;
        let value = Loss { size, kind: *kind, fd: *fd, reserved: 0, was: was.as_ptr() };
        // SAFETY: as above.
        unsafe { write(&value, loss.as_ptr(), size) };
        Ok(MITOSIS_OK)
    })
}

#[cfg(test)]
mod tests {
    use mitosis_core::id::{ChildId, SeedId};
    use mitosis_core::prepare;

    use super::*;

    fn payload() -> Vec<u8> {
        let (mut bytes, mut size) = (ptr::null(), 9usize);
        // SAFETY: places of our own.
        assert_eq!(unsafe { mitosis_payload(&raw mut bytes, &raw mut size) }, 0);
        if bytes.is_null() {
            assert_eq!(size, 0);
            return Vec::new();
        }
        // SAFETY: what was just told.
        unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), size) }.to_vec()
    }

    #[test]
    fn a_child_finds_what_it_was_given() {
        assert_eq!(payload(), b"");
        assert_eq!(mitosis_child_index(), MitosisErr::Argument.number());
        assert_eq!(mitosis_clock_delta_ns(), 0);
        store(Resumed {
            seed: SeedId(1),
            child: ChildId(2),
            index: 3,
            generation: 1,
            payload: b"\0mail".to_vec(),
            rehearsal: false,
            clock_delta_ns: -7,
            environment: Vec::new(),
            lost: vec![prepare::Loss {
                kind: LossKind::Pipes,
                fds: vec![4, 9],
                was: "pipe:[1]".to_owned(),
            }],
        });
        assert_eq!(payload(), b"\0mail");
        assert_eq!(mitosis_child_index(), 3);
        assert_eq!(mitosis_clock_delta_ns(), -7);
        let loss = |index| {
            let (size, was) = (size_of::<Loss>(), ptr::null());
            let mut loss = Loss { size, kind: 0, fd: 0, reserved: 0, was };
            // SAFETY: a whole struct.
            (unsafe { mitosis_lost(index, &raw mut loss) }, loss)
        };
        let (done, last) = loss(1);
        assert_eq!((done, last.kind, last.fd), (0, MITOSIS_LOSS_PIPES, 9));
        // SAFETY: it lives as long as the process.
        assert_eq!(unsafe { std::ffi::CStr::from_ptr(last.was) }, c"pipe:[1]");
        assert_eq!(loss(2).0, MitosisErr::Argument.number());
    }
}
