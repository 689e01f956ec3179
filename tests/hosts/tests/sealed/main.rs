//! That sealed hosts are sealed, and that nothing of them outlives its harness.
//!
//! These tests need root (namespaces, veth) and iproute2; without them they fail.

mod isolation;
mod lifetime;
mod setting;
