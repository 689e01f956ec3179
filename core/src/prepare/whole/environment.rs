//! The environment, changed while other threads stand: setenv(3) takes a lock that one of them may hold,
//! and allocates. So a new array is written into memory of its own, and `environ` led there.

use std::ffi::c_char;
use std::ptr;

use crate::sys::rawcall::rawcall;

unsafe extern "C" {
    static mut environ: *const *const c_char;
}

/// What children are told by their agent.
const TOLD: [&[u8]; 3] = [b"MITOSIS_GENERATION", b"MITOSIS_CHILD_INDEX", b"MITOSIS_PAYLOAD"];

/// Makes `changes`: `NAME=VALUE\0` sets, `NAME\0` unsets; without what the agent tells, if `is_told` is false. The
/// memory stays for good.
///
/// # Safety
/// No other thread changes the environment meanwhile.
pub(in crate::prepare) unsafe fn change(changes: &[u8], is_told: bool) {
    let counts =
        |entry: &&[u8]| !name(entry).is_empty() && (is_told || !TOLD.contains(&name(entry)));
    let names = || changes.split(|byte| *byte == 0).filter(counts);
    if names().next().is_none() {
        return;
    }
    // SAFETY: the caller's; `environ` is null or ends with null, and its strings with a zero byte.
    unsafe {
        let old = environ;
        let count =
            if old.is_null() { 0 } else { (0..).take_while(|i| !(*old.add(*i)).is_null()).count() };
        let slots = count + names().count() + 1;
        let bytes = (slots * size_of::<*const c_char>() + changes.len() + 1).next_multiple_of(4096);
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let memory = rawcall!(libc::SYS_mmap, 0usize, bytes, prot, flags, -1, 0usize);
        let Ok(memory @ 1..) = usize::try_from(memory) else { return };
        let array = memory as *mut *const c_char;
        let text = array.add(slots).cast::<u8>();
        ptr::copy_nonoverlapping(changes.as_ptr(), text, changes.len());
        let text = std::slice::from_raw_parts(text, changes.len() + 1);
        let mut len = 0;
        for i in 0..count {
            let entry = *old.add(i);
            let bytes = std::ffi::CStr::from_ptr(entry).to_bytes();
            if !names().any(|change| name(change) == name(bytes)) {
                *array.add(len) = entry;
                len += 1;
            }
        }
        // Of several changes of one name the last one stands.
        let new = || text[..changes.len()].split(|byte| *byte == 0).filter(counts);
        for (i, entry) in new().enumerate() {
            let is_last = new().skip(i + 1).all(|later| name(later) != name(entry));
            if entry.contains(&b'=') && is_last {
                *array.add(len) = entry.as_ptr().cast();
                len += 1;
            }
        }
        environ = array;
    }
}

fn name(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a process of its own: the environment is everybody's.
    #[test]
    fn changes_are_seen_by_libc() {
        // SAFETY: the copy has one thread, which makes no call that could wait for another one.
        unsafe {
            let pid = rawcall!(libc::SYS_clone, 0, 0, 0, 0, 0);
            if pid == 0 {
                let status = if all_seen() { 0 } else { 1 };
                rawcall!(libc::SYS_exit_group, status);
            }
            let mut status = 0;
            let pid = i32::try_from(pid).unwrap();
            assert_eq!(libc::waitpid(pid, &raw mut status, libc::__WALL), pid);
            assert_eq!(status, 0);
        }
    }

    unsafe fn all_seen() -> bool {
        const OWN: [*const c_char; 4] =
            [c"PATH=/bin".as_ptr(), c"GONE=1".as_ptr(), c"PATHS=no prefix".as_ptr(), ptr::null()];
        static mut ARRAY: [*const c_char; 4] = OWN;
        // SAFETY: one thread.
        unsafe {
            environ = (&raw const ARRAY).cast();
            change(b"A=1\0GONE\0PATH=x=y\0A=2\0=bad\0B=\0MITOSIS_PAYLOAD=p\0", true);
            let value = |name: &std::ffi::CStr| {
                let value = libc::getenv(name.as_ptr());
                (!value.is_null()).then(|| std::ffi::CStr::from_ptr(value))
            };
            value(c"A") == Some(c"2")
                && value(c"GONE").is_none()
                && value(c"PATH") == Some(c"x=y")
                && value(c"PATHS") == Some(c"no prefix")
                && value(c"B") == Some(c"")
                && {
                    let now = environ;
                    change(b"", true);
                    change(b"MITOSIS_GENERATION=1\0MITOSIS_PAYLOAD\0", false);
                    now == environ && value(c"MITOSIS_PAYLOAD") == Some(c"p")
                }
        }
    }
}
