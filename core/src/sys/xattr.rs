//! Extended attributes of files: getxattr(2).

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether `file` has an attribute `name` that this process may see.
pub fn has(file: &Path, name: &CStr) -> bool {
    let Ok(file) = CString::new(file.as_os_str().as_bytes()) else { return false };
    // SAFETY: two strings that live through the call; size 0 asks for the attribute's size alone.
    unsafe { libc::getxattr(file.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_no_rights_has_none() {
        assert!(!has(Path::new("/proc/self/exe"), c"security.capability"));
        assert!(!has(Path::new("/nonexistent"), c"security.capability"));
    }
}
