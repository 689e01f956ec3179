//! Mitosis for C: `include/mitosis.h` is made from these modules, and their comments are its text.
//!
//! Every function runs inside a panic boundary (`boundary`): a panic becomes a code and a message. Two
//! functions return twice, `mitosis_fork` and `mitosis_prepare`; in the child they return through the
//! same boundary, on the stack that the seed was frozen with, and there they never fail (a child must not
//! go on as if it were the parent).
#![deny(missing_docs)]
// What C must keep to is told to C: at the top of the header and at each argument.
#![allow(clippy::missing_safety_doc)]
// What C sees is public to the tool that makes the header; no Rust crate can see it.
#![allow(unreachable_pub)]

#[cfg(panic = "abort")]
compile_error!("libmitosis turns panics into error codes: build it with panic = \"unwind\"");

mod boundary;
mod child;
mod error;
mod fork;
mod hooks;
mod options;
mod process;
mod resume;
mod resumed;
mod resuming;
mod seed;
mod text;
