//! Another process's memory by process_vm_readv(2): one copy, where /proc/PID/mem makes two and goes page by
//! page. Only for a process whose /proc/PID/mem is open already, and never instead of it: where the kernel does
//! not allow it, or for pages that the process itself may not read, the descriptor is what is left.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;

use super::pidfd::PidFd;
use super::poll;

/// Reads the memory that a descriptor of /proc/PID/mem is of.
#[derive(Debug)]
pub struct ProcessMemory {
    pid: libc::pid_t,
    process: PidFd,
}

impl ProcessMemory {
    /// Of the process of `mem`; `None` if it cannot be told which one that is here: it has ended, or its /proc
    /// is not this process's.
    pub fn of(mem: &File) -> Option<Self> {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", mem.as_raw_fd())).ok()?;
        let pid: u32 = link.to_str()?.strip_prefix("/proc/")?.strip_suffix("/mem")?.parse().ok()?;
        // /proc numbers processes as this one does.
        let own = std::fs::read_link("/proc/self").ok()?;
        if own.to_str()? != std::process::id().to_string() {
            return None;
        }
        let process = PidFd::open(pid).ok()?;
        // A file of /proc has its number for as long as it is open: under the same number, in the same /proc, it
        // is the same process. That it lives afterwards tells that its pid was nobody else's in between.
        let (open, named) = (mem.metadata().ok()?, std::fs::metadata(&link).ok()?);
        let same = open.dev() == named.dev() && open.ino() == named.ino();
        let this = ProcessMemory { pid: libc::pid_t::try_from(pid).ok()?, process };
        (same && this.lives()).then_some(this)
    }

    /// Reads as much of `into` as there is from `addr` on; `None`, and `into` holds anything, if nothing can be
    /// read there in this way.
    pub fn read(&self, addr: u64, into: &mut [u8]) -> Option<usize> {
        let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        let remote = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(usize::try_from(addr).ok()?),
            iov_len: into.len(),
        };
        // SAFETY: the kernel writes at most `into`'s length of bytes there; the other address is of another
        // process, and only the kernel looks at it.
        let got = unsafe {
            libc::process_vm_readv(self.pid, &raw const local, 1, &raw const remote, 1, 0)
        };
        // Looked at afterwards: until then the pid was its own.
        usize::try_from(got).ok().filter(|&got| got > 0 && self.lives())
    }

    fn lives(&self) -> bool {
        let ended: io::Result<bool> = poll::is_readable(self.process.as_fd().as_raw_fd());
        ended.is_ok_and(|ended| !ended)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn memory_of_this_process_is_read_and_no_hole() {
        let mem = File::open("/proc/self/mem").unwrap();
        // Opened by its own number, not as "self", the link names it.
        let memory = ProcessMemory::of(&mem).expect("this process");
        let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let mut got = vec![0; bytes.len()];
        assert_eq!(memory.read(bytes.as_ptr().addr() as u64, &mut got), Some(bytes.len()));
        assert_eq!(got, bytes);
        // Below mmap_min_addr nothing is mapped.
        assert_eq!(memory.read(4096, &mut got), None);
    }

    #[test]
    fn a_process_that_has_ended_is_not_read() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mem = File::open(format!("/proc/{}/mem", child.id())).unwrap();
        let memory = ProcessMemory::of(&mem).expect("the child");
        assert!(memory.lives());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(memory.read(0x1000_0000, &mut [0; 64]), None);
        assert!(!memory.lives() && ProcessMemory::of(&mem).is_none());
    }
}
