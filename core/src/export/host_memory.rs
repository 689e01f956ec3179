//! An arena without a card: copies of seeds from which the page service answers. A READ of /proc/PID/mem is
//! a walk through the seed's page tables and two copies; one of the agent's own memory is one copy, and of
//! many bytes none.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::arena::{Card, CardError, RegisteredSlab, Registration, SlabMemory};
use crate::sys::memory_file::MemoryFile;

/// Stands where a card would: what it gives nobody can READ but by way of the agent.
#[derive(Debug)]
pub struct HostMemory;

/// What no card knows.
#[derive(Debug)]
struct Unregistered;

impl Card for HostMemory {
    fn slab(&self, bytes: u64) -> Result<RegisteredSlab, CardError> {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let memory = MemoryFile::new(len).map_err(|error| {
            CardError(format!("no memory for {bytes} bytes of a seed's copy ({error})"))
        })?;
        Ok(RegisteredSlab { registration: Box::new(Unregistered), memory: Arc::new(memory) })
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

impl SlabMemory for MemoryFile {
    fn fill(&self, range: Range<usize>, file: &File, from: u64) -> io::Result<()> {
        self.fill_from(file.as_fd(), from, range)
    }

    fn read(&self, from: usize, into: &mut [u8]) {
        MemoryFile::read(self, from, into);
    }

    fn send(&self, range: Range<usize>, socket: &TcpStream) -> io::Result<usize> {
        MemoryFile::send(self, range, socket)
    }
}
