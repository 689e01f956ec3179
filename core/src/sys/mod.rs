//! Raw system calls, one noun a file. With `verbs`, `prepare`, `restorer` and `capi`, the only place
//! where unsafe code stands.
#![allow(unsafe_code)]

#[cfg(test)]
pub(crate) mod poll;
pub mod scm;
