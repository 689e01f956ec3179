//! Structs that both sides know in versions of their own: the first field is the caller's size.
//!
//! A caller that is older than the library passes a smaller struct; the fields that it does not know are
//! zero, which always means the default. A caller that is newer passes a larger one, and may leave zero
//! what the library does not know; anything else there is refused.

use std::mem::{MaybeUninit, offset_of};
use std::ptr;

use crate::error::{Failed, MitosisErr};

/// No version of a struct will be larger: what claims to be was not initialised.
const MAX_STRUCT_BYTES: usize = 4096;

/// A struct whose first field is its size.
///
/// # Safety
/// `repr(C)`, begins with a `usize`, has no padding, and every pattern of bits is a valid value.
pub(crate) unsafe trait SizeFirst: Copy {
    /// For messages.
    const NAME: &'static str;
    /// The least size that is of use.
    const LEAST_BYTES: usize = size_of::<usize>();
}

/// What the caller has filled in.
///
/// # Safety
/// `from` points to as many readable bytes as its first field says.
pub(crate) unsafe fn read<T: SizeFirst>(from: *const T) -> Result<T, Failed> {
    // SAFETY: the caller's.
    let size = unsafe { size_of_callers(from)? };
    let known = size.min(size_of::<T>());
    let mut whole = MaybeUninit::<T>::zeroed();
    // SAFETY: both sides have `known` bytes; the trait allows any of them in a T, zeros included.
    let whole = unsafe {
        ptr::copy_nonoverlapping(from.cast::<u8>(), whole.as_mut_ptr().cast::<u8>(), known);
        whole.assume_init()
    };
    // SAFETY: the caller's: its struct has `size` bytes.
    let unknown = (known..size).any(|at| unsafe { from.cast::<u8>().add(at).read() } != 0);
    if unknown {
        return Err(Failed::new(
            MitosisErr::Argument,
            format!(
                "{} sets a field that this libmitosis ({}) does not know: leave it zero or install a \
                 newer libmitosis",
                T::NAME,
                env!("CARGO_PKG_VERSION")
            ),
        ));
    }
    Ok(whole)
}

/// Checks the size that the caller has written into a struct.
///
/// # Safety
/// `from` points to at least the first field.
pub(crate) unsafe fn size_of_callers<T: SizeFirst>(from: *const T) -> Result<usize, Failed> {
    // SAFETY: the caller's; the first field is a usize.
    let size = unsafe { from.cast::<usize>().read_unaligned() };
    if (T::LEAST_BYTES..=MAX_STRUCT_BYTES).contains(&size) {
        return Ok(size);
    }
    Err(Failed::new(
        MitosisErr::Argument,
        format!(
            "{}.size is {size}: set it to sizeof(struct {}), and all else to zero first",
            T::NAME,
            T::NAME
        ),
    ))
}

/// Gives the caller the part of `value` that it has room for; what it has beyond becomes zero. Its size
/// stays as it is.
///
/// # Safety
/// `to` points to `size` writable bytes, of which [`size_of_callers`] has approved.
pub(crate) unsafe fn write<T: SizeFirst>(value: &T, to: *mut T, size: usize) {
    let first = size_of::<usize>();
    let known = size.min(size_of::<T>());
    // SAFETY: the caller's; a T has no padding, so all its bytes are initialised.
    unsafe {
        let (from, to) = (ptr::from_ref(value).cast::<u8>(), to.cast::<u8>());
        ptr::copy_nonoverlapping(from.add(first), to.add(first), known - first);
        ptr::write_bytes(to.add(known), 0, size - known);
    }
}

/// Refuses bits that this version has no meaning for.
pub(crate) fn check_flags(flags: u32, known: u32, reserved: u32, what: &str) -> Result<(), Failed> {
    if flags & !known == 0 && reserved == 0 {
        return Ok(());
    }
    Err(Failed::new(
        MitosisErr::Argument,
        format!("{what} has unknown flags ({flags:#x}) or its reserved field is not zero"),
    ))
}

const _: () = assert!(offset_of!(crate::fork::PrepareOptions, size) == 0);
const _: () = assert!(offset_of!(crate::resume::ResumeOptions, size) == 0);
const _: () = assert!(offset_of!(crate::child::ChildStatus, size) == 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Now {
        size: usize,
        first: u64,
        second: u64,
    }

    // SAFETY: integers of 8 bytes each.
    unsafe impl SizeFirst for Now {
        const NAME: &'static str = "now";
    }

    fn read_words(words: &[usize]) -> Result<Now, Failed> {
        // SAFETY: the tests claim at most what they have.
        unsafe { read(words.as_ptr().cast::<Now>()) }
    }

    #[test]
    fn a_smaller_struct_has_defaults() {
        let now = read_words(&[16, 5, 77]).unwrap();
        assert_eq!((now.size, now.first, now.second), (16, 5, 0));
        assert_eq!(read_words(&[8, 5, 77]).unwrap().first, 0);
    }

    #[test]
    fn a_larger_struct_may_not_ask_for_the_unknown() {
        assert_eq!(read_words(&[40, 5, 6, 0, 0]).unwrap().second, 6);
        let failed = read_words(&[40, 5, 6, 0, 1]).err().unwrap();
        assert_eq!(failed.code, MitosisErr::Argument);
        assert!(failed.message.contains("does not know"), "{}", failed.message);
    }

    #[test]
    fn sizes_at_the_limits() {
        let mut words = [0; MAX_STRUCT_BYTES / 8 + 1];
        for (size, good) in [
            (0, false),
            (7, false),
            (8, true),
            (MAX_STRUCT_BYTES, true),
            (MAX_STRUCT_BYTES + 1, false),
        ] {
            words[0] = size;
            assert_eq!(read_words(&words).is_ok(), good, "{size}");
        }
    }

    #[test]
    fn writing_stays_within_the_callers_struct() {
        let value = Now { size: 0, first: 1, second: 2 };
        for (size, expected) in
            [(16, [16, 1, 9, 9, 9]), (24, [24, 1, 2, 9, 9]), (32, [32, 1, 2, 0, 9])]
        {
            let mut words = [size, 9, 9, 9, 9];
            // SAFETY: the size is at most the array's.
            unsafe { write(&value, words.as_mut_ptr().cast(), size) };
            assert_eq!(words, expected);
        }
    }
}
