//! An arena without a card: copies of seeds from which the page service answers. A READ of /proc/PID/mem is
//! a walk through the seed's page tables and two copies; one of the agent's own memory is one.

use super::arena::{Card, CardError, RegisteredSlab, Registration};
use crate::verbs::Region;

/// Stands where a card would: what it gives nobody can READ but by way of the agent.
#[derive(Debug)]
pub struct HostMemory;

/// What no card knows.
#[derive(Debug)]
struct Unregistered;

impl Card for HostMemory {
    fn slab(&self, bytes: u64) -> Result<RegisteredSlab, CardError> {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let memory = Region::new(len).map_err(|error| {
            CardError(format!("no memory for {bytes} bytes of a seed's copy ({error})"))
        })?;
        Ok(RegisteredSlab { registration: Box::new(Unregistered), memory })
    }

    fn is_read_by_others(&self) -> bool {
        false
    }
}

impl Registration for Unregistered {
    fn rkey(&self) -> u32 {
        0
    }

    fn iova(&self) -> u64 {
        0
    }
}
