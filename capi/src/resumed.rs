//! What this process is, if it is a child.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use mitosis_core::prepare::{Resumed, generation};

use crate::boundary::{boundary, guard, not_null};
use crate::error::{Failed, MITOSIS_OK, MitosisErr};

/// Not a lock: another thread's fork would copy it locked. What it pointed to before is leaked, as C may
/// still read that payload; a process is resumed once, its ancestors' payloads came with its memory.
static RESUMED: AtomicPtr<Resumed> = AtomicPtr::new(ptr::null_mut());

/// In a child, before C goes on in it.
pub(crate) fn store(resumed: Resumed) {
    RESUMED.store(Box::into_raw(Box::new(resumed)), Ordering::Release);
}

fn current() -> Option<&'static Resumed> {
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
/// RETURN VALUE: from 0 on; 0 in the child of mitosis_fork(). MITOSIS_ERR_ARGUMENT in a process that is no
/// child.
#[unsafe(no_mangle)]
pub extern "C" fn mitosis_child_index() -> c_int {
    boundary(|| {
        let index = current().and_then(|resumed| c_int::try_from(resumed.index).ok());
        index
            .ok_or_else(|| Failed::new(MitosisErr::Argument, "this process is no child of mitosis"))
    })
}

#[cfg(test)]
mod tests {
    use mitosis_core::id::{ChildId, SeedId};

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
        store(Resumed {
            seed: SeedId(1),
            child: ChildId(2),
            index: 3,
            generation: 1,
            payload: b"\0mail".to_vec(),
            rehearsal: false,
            clock_delta_ns: 0,
            environment: Vec::new(),
        });
        assert_eq!(payload(), b"\0mail");
        assert_eq!(mitosis_child_index(), 3);
    }
}
