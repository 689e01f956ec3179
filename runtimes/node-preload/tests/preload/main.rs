//! Programs that know nothing of Mitosis, prepared by a real agent on this host: needs root and FUSE.

mod children;
mod harmless;
mod moments;
mod refusals;
mod two_hosts;
mod world;
