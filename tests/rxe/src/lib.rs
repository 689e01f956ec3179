//! Guests: emulated machines with kernels of their own, joined by a link, with Soft-RoCE on it.
//!
//! Where a sealed host (`mitosis-hosts`) shares this machine's kernel, a guest has one of Debian's,
//! and with it what this machine lacks: an RDMA device. It also can die as a machine does.
//!
//! ```text
//!  a test, or tests/rxe/run          the emulators die with it, however it ends
//!    +- qemu, guest 1 (host-a, 10.77.0.1) --line--> /init there: `run ID`, `done ID STATUS`
//!    +- qemu, guest 2 (host-b, 10.77.0.2) --line--> /init there
//!         |      `-- eth0, rxe0: datagrams from emulator to emulator, no network of this machine
//!         `-- /host: a folder of target/rxe/run/, with jobs/ID/{job,env,out,err}
//! ```
//!
//! No KVM, no root, nothing installed: the emulator, the kernel and the programs of the guests are
//! Debian packages that `image/build.sh` unpacks under `target/rxe/`, once. Soft-RoCE has no DC: where a job is
//! to have it, libraries of `tests/dc_provider` stand in.
#![deny(unsafe_code)]

mod cli;
mod emulator;
mod guests;
mod image;
mod job;
mod line;

pub use cli::main;
pub use guests::{Config, DC_LIBRARIES, Guest, Guests};
pub use image::target;
pub use job::{Ended, Job};
