//! Raw system calls, one noun a file. With `verbs`, `prepare`, `restorer` and `capi`, the only place
//! where unsafe code stands.
#![allow(unsafe_code)]

pub mod clone3;
#[cfg(feature = "agent")]
pub mod enter;
pub mod limits;
pub mod pidfd;
pub mod scm;
pub mod socket;
pub mod timens;
pub mod wait;
