//! OpenSSL's random generators. By the process id alone they notice a fork: children that have their parent's would all
//! draw the same bytes.

use std::ffi::{c_double, c_int, c_void};

/// RAND_add(3).
type Add = unsafe extern "C" fn(buffer: *const c_void, bytes: c_int, entropy: c_double);

/// More than any of its generators has as its strength.
const SEED_BYTES: c_int = 64;

/// The OpenSSL of this process that the loader finds: not one that is linked into a program which does not export it, or
/// that a plugin has loaded for itself.
#[derive(Clone, Copy, Debug)]
pub struct OpenSsl {
    add: Add,
}

impl OpenSsl {
    /// Looked for before a fork, it costs the child no look into the loader's tables.
    pub fn find() -> Option<Self> {
        // SAFETY: a name that ends with a zero; what has it is of this type.
        unsafe {
            let found = libc::dlsym(libc::RTLD_DEFAULT, c"RAND_add".as_ptr());
            let add = std::mem::transmute::<*mut c_void, Option<Add>>(found);
            add.map(|add| OpenSsl { add })
        }
    }

    /// Mixes new bytes into the first generator; the others, one of each thread, notice that it was seeded and seed
    /// themselves before they answer again. Takes its locks, which other threads may hold.
    ///
    /// # Errors
    /// The kernel has no random bytes.
    pub fn renew(self) -> Result<(), getrandom::Error> {
        let mut bytes = [0u8; SEED_BYTES.unsigned_abs() as usize];
        getrandom::fill(&mut bytes)?;
        // SAFETY: a live buffer of as many bytes as it says.
        unsafe { (self.add)(bytes.as_ptr().cast(), SEED_BYTES, 0.0) };
        Ok(())
    }
}
