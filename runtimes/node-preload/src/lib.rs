//! libmitosis_preload.so: makes any dynamically linked program forkable from outside, unmodified.
//!
//! ```text
//! mitosis prepare PID --signal--> on_signal (any thread, any instruction) > own stack > prepare > answer
//! MITOSIS_PREPARE_WHEN ---------> a thread that waits for the moment ------> prepare > handle written, ends
//! the program ------------------> mitosis_preload_prepare() --------------> prepare > returns twice
//! ```
//!
//! What it does in a signal handler must be able to run wherever the program stood, inside malloc too: it has
//! an allocator of its own, asks the dynamic linker nothing after its constructor, and switches to a stack
//! of its own. A program that is not prepared has its mapping, one signal action, and nothing else.
#![deny(unsafe_code)]

mod allocator;
mod at_start;
mod interpose;
mod openssl;
mod outside;
mod preparing;
mod program;
mod raw;
mod seccomp;
mod stack;
mod told;
mod watch;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;
