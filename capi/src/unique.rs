//! OpenSSL's random generators in children that have their parent's process id: by that alone OpenSSL notices a fork.
//!
//! Children of one thread have ids of their own, and need nothing. Those of all threads may not, and then every child of a
//! seed would draw the same bytes.

use std::ffi::{c_double, c_int, c_void};

use mitosis_core::prepare::Threads;

/// RAND_add(3).
type Add = unsafe extern "C" fn(buffer: *const c_void, bytes: c_int, entropy: c_double);

/// More than any of its generators has as its strength.
const SEED_BYTES: c_int = 64;

/// The OpenSSL of this process, if it has one that the loader finds: not one that is linked statically, or loaded by
/// a plugin for itself.
pub(crate) struct OpenSsl(Option<Add>);

impl OpenSsl {
    /// Looked for in the parent, whose memory has the loader's tables at hand.
    pub(crate) fn find(threads: Threads) -> Self {
        if threads != Threads::All {
            return OpenSsl(None);
        }
        // SAFETY: a name that ends with a zero; what has it is of this type.
        let add = unsafe {
            let found = libc::dlsym(libc::RTLD_DEFAULT, c"RAND_add".as_ptr());
            (!found.is_null()).then(|| std::mem::transmute::<*mut c_void, Add>(found))
        };
        OpenSsl(add)
    }

    /// In a child: mixes new bytes into the first generator; the others, one of each thread, notice it and seed
    /// themselves before they answer again.
    ///
    /// # Errors
    /// The kernel has no random bytes: this child must not go on.
    pub(crate) fn renew(&self) -> Result<(), String> {
        let Some(add) = self.0 else { return Ok(()) };
        let mut bytes = [0u8; SEED_BYTES.unsigned_abs() as usize];
        // SAFETY: a live buffer.
        let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if usize::try_from(filled) != Ok(bytes.len()) {
            let error = std::io::Error::last_os_error();
            return Err(format!("the kernel's random generator does not answer: {error}"));
        }
        // SAFETY: a live buffer of as many bytes as it says.
        unsafe { add(bytes.as_ptr().cast(), SEED_BYTES, 0.0) };
        Ok(())
    }
}
