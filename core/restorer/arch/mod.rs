//! The instructions that no compiler writes, one file an architecture.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::{clone_init, clone_thread, copy, signal_return, syscall, use_tiles};
