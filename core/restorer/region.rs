//! The blob's region as a type: who lies where is said in `abi`.

use core::sync::atomic::AtomicU32;

use crate::abi::{
    INIT_SHARED, InitShared, MAIL, MAIL_LEN, PARAMS, PROGRAM, PROGRAM_LEN, Params, RawOp,
    THREAD_STACK_LEN, THREADS, THREADS_SHARED_LEN, ThreadsShared,
};
use crate::syscall;

/// The region that this process was entered with. There is one, and it outlives all else.
#[derive(Clone, Copy)]
pub struct Region {
    base: u64,
}

impl Region {
    /// The region at `base`.
    ///
    /// # Safety
    /// A whole region is mapped there, filled by the agent, and whoever uses it is this process.
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

    /// Its first address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// What threads share while they are made.
    pub fn threads_shared(&self) -> *mut ThreadsShared {
        (self.base + THREADS) as *mut ThreadsShared
    }

    /// How many threads stand at their gates, and how many are to.
    pub fn arrivals(&self) -> [&'static AtomicU32; 2] {
        let shared = self.threads_shared();
        // SAFETY: `at`'s promise; both are aligned, and only changed as atomics once a thread was made.
        unsafe {
            [
                AtomicU32::from_ptr(&raw mut (*shared).arrived),
                AtomicU32::from_ptr(&raw mut (*shared).expected),
            ]
        }
    }

    /// Where threads wait behind the first one at the gate.
    pub fn leaving(&self) -> &'static AtomicU32 {
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.threads_shared()).leaving) }
    }

    /// The lowest address of a further thread's stack.
    pub fn thread_stack(&self, index: u64) -> u64 {
        self.base + THREADS + THREADS_SHARED_LEN + index * THREAD_STACK_LEN
    }

    /// What the template shares with its children's inits.
    pub fn init_shared(&self) -> *mut InitShared {
        (self.base + INIT_SHARED) as *mut InitShared
    }

    /// Whether a tail of `ops` ops in `len` bytes of mail is one.
    pub fn holds_mail(ops: u64, len: u64) -> bool {
        len <= MAIL_LEN && ops <= len / size_of::<RawOp>() as u64
    }
}
