//! Strings from C and for C.

use std::ffi::{CStr, CString, c_char};

use crate::error::{Failed, MitosisErr};

/// # Safety
/// `text` is null or a string that ends with a zero byte and is not changed meanwhile.
pub(crate) unsafe fn optional<'a>(
    text: *const c_char,
    what: &str,
) -> Result<Option<&'a str>, Failed> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's.
    let text = unsafe { CStr::from_ptr(text) };
    let not_utf8 = |_| Failed::new(MitosisErr::Argument, format!("{what} is not UTF-8: {text:?}"));
    text.to_str().map(Some).map_err(not_utf8)
}

/// For C; a zero byte in the middle would end it there, so it is replaced.
pub(crate) fn for_c(text: String) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let replaced = error.into_vec().into_iter().map(|byte| if byte == 0 { b'?' } else { byte });
        CString::new(replaced.collect::<Vec<u8>>()).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_bytes_do_not_cut_a_message() {
        assert_eq!(for_c("a\0b".to_owned()).as_c_str(), c"a?b");
    }

    #[test]
    fn bytes_that_are_no_text_are_an_argument_error() {
        // SAFETY: literals.
        let (bad, none) =
            unsafe { (optional(c"\xff".as_ptr(), "host"), optional(std::ptr::null(), "host")) };
        let failed = bad.unwrap_err();
        assert_eq!(failed.code, MitosisErr::Argument);
        assert!(failed.message.contains("host is not UTF-8"), "{}", failed.message);
        assert!(none.unwrap().is_none());
    }
}
