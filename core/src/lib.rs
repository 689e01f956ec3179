//! Mitosis: remote fork in user space.
//!
//! One warmed-up process (the *seed*) becomes N running processes (*children*) on M machines. A child
//! starts from a *descriptor* of a few kilobytes and pulls only the pages that it touches, one-sidedly,
//! from the memory of its frozen seed.
//!
//! The crate has two faces. The `client` feature (default) is what a runtime process links: it freezes
//! the process and talks to the local agent. The `agent` feature is the host's side: fabrics, images,
//! templates and tables. Arrows run one way: `agent -> {resume, image, export} -> {fabric, descriptor}
//! -> sys`; `prepare` and `client` use `descriptor`, `wire` and `sys` alone.
#![deny(unsafe_code)]

pub mod client;
pub mod descriptor;
pub mod host;
pub mod id;
pub mod prepare;
pub mod sys;
pub mod times;
pub mod wire;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "agent")]
pub mod describe;
#[cfg(feature = "agent")]
pub mod export;
#[cfg(feature = "agent")]
pub mod fabric;
#[cfg(feature = "agent")]
mod halt;
#[cfg(feature = "agent")]
pub mod image;
#[cfg(feature = "agent")]
pub mod keeper;
#[cfg(feature = "agent")]
pub mod resume;
#[cfg(feature = "agent")]
mod tally;
#[cfg(feature = "rdma")]
pub mod verbs;
