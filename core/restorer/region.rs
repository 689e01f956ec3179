//! The blob's region as a type: who lies where is said in `abi`.

use crate::abi::{MAIL, MAIL_LEN, PARAMS, PROGRAM, PROGRAM_LEN, Params, RawOp};
use crate::syscall;

/// The region that this process was entered with. There is one, and it outlives all else.
pub struct Region {
    base: u64,
}

impl Region {
    /// The region at `base`.
    ///
    /// # Safety
    /// A whole region is mapped there, filled by the agent, and no other `Region` is in use.
    pub unsafe fn at(base: u64) -> Self {
        Region { base }
    }

    /// What the runner is to do.
    pub fn params(&self) -> &'static Params {
        // SAFETY: `at`'s promise; the page is read-only for as long as this process runs.
        unsafe { &*((self.base + PARAMS) as *const Params) }
    }

    /// The template's program.
    pub fn program(&self) -> *const RawOp {
        (self.base + PROGRAM) as *const RawOp
    }

    /// Unmaps the template's program: no child needs it.
    pub fn drop_program(&self) {
        syscall::munmap(self.base + PROGRAM, PROGRAM_LEN);
    }

    /// Where a child's mail lies, its tail first.
    pub fn mail(&self) -> *mut u8 {
        (self.base + MAIL) as *mut u8
    }

    /// Whether a tail of `ops` ops in `len` bytes of mail is one.
    pub fn holds_mail(ops: u64, len: u64) -> bool {
        len <= MAIL_LEN && ops <= len / size_of::<RawOp>() as u64
    }
}
