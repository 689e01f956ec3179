//! Guests: machines with kernels of their own, joined by a network, with an RDMA device on it.
//!
//! Where a sealed host (`mitosis-hosts`) shares this machine's kernel, a guest has one of its own, and with
//! it what this machine lacks: an RDMA device. It also can die as a machine does.
//!
//! ```text
//!  a test, or tests/rxe/run          the guests die with it, however it ends
//!    +- guest 1 (host-a, 10.77.0.1) --line--> /init there: `run ID`, `done ID STATUS`
//!    +- guest 2 (host-b, 10.77.0.2) --line--> /init there
//!         |      `-- eth0, rxe0 or siw0: datagrams on sockets, no network of this machine
//!         `-- /host: a folder of target/rxe/run/, with jobs/ID/{job,env,out,err}
//! ```
//!
//! | [`Kind`] | a guest is | up in | for |
//! |---|---|---|---|
//! | `Emulated` | QEMU without KVM, with Debian's kernel | 7 s | all that a host does, forks included |
//! | `UserMode` | User-Mode Linux, built from Debian's source | 0.5 s | many hosts, and failures |
//!
//! No KVM, no root, nothing installed: the emulator, the kernel and the programs of the guests are
//! Debian packages that `image/build.sh` unpacks under `target/rxe/`, once; `image/uml.sh` builds the
//! kernel that is a process, once for all clones. Soft-RoCE has no DC: where a job is to have it, libraries of
//! `tests/dc_provider` stand in.
#![deny(unsafe_code)]

mod cli;
mod emulated;
mod guests;
mod image;
mod job;
mod line;
mod machine;
mod switch;
mod user_mode;

pub use cli::main;
pub use guests::{Config, DC_LIBRARIES, Device, Guest, Guests, Kind};
pub use image::target;
pub use job::{Ended, Job};
