//! An RDMA card as the arena sees it.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::arena::{Card, CardError, RegisteredSlab, Registration, SlabMemory};
use crate::verbs::{Mr, Pd, Region};

impl Card for Arc<Pd> {
    fn slab(&self, bytes: u64) -> Result<RegisteredSlab, CardError> {
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        let memory = Region::new(len).map_err(|error| {
            CardError(format!("no memory for {bytes} bytes of arena ({error})"))
        })?;
        let iova = memory.address();
        let mr = Mr::readable(self, &memory, 0..len, iova);
        let mr = mr.map_err(|error| CardError(error.to_string()))?;
        Ok(RegisteredSlab { registration: Box::new(mr), memory })
    }
}

impl Registration for Mr {
    fn rkey(&self) -> u32 {
        Mr::rkey(self)
    }

    fn iova(&self) -> u64 {
        Mr::iova(self)
    }
}

impl SlabMemory for Region {
    fn fill(&self, range: Range<usize>, file: &File, from: u64) -> io::Result<()> {
        self.fill_from(file.as_fd(), from, range)
    }

    fn read(&self, from: usize, into: &mut [u8]) {
        Region::read(self, from, into);
    }

    fn send(&self, range: Range<usize>, socket: &TcpStream) -> io::Result<usize> {
        Region::send(self, range, socket)
    }
}
