//! A seed's bytes made readable.
//!
//! [`Exports`] is the registry of this host's seeds: the agent adds and revokes, the page service
//! ([`service`]) and the `local` fabric read. A READ is answered from the seed's copy in the [`arena`], if it is
//! there already; else it is pread(2) on the seed's /proc/PID/mem, or for many bytes process_vm_readv(2): the
//! kernel copies, and no line of the seed's process runs.
//!
//! ```text
//!   add --> readable --revoke--> refused --remove--> unknown
//!               \--- the seed's process ends: reads find end-of-file, and fail
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use arena::{ArenaCopy, SlabMemory};

use crate::descriptor::{ArenaNews, BENEATH, SeedAddr, SeedRange};
use crate::fabric::ReadError;
use crate::id::{ReadKey, SeedId};
use crate::sys::process_memory::ProcessMemory;
use crate::sys::socket;

pub mod arena;
pub(crate) mod beneath;
mod card;
pub mod dc;
mod host_memory;
mod peers;
pub mod rc;
pub mod service;
#[cfg(test)]
pub(crate) mod stand_in;
pub mod tokens;

pub use beneath::{BytesBeneath, FileBeneath};
pub use host_memory::HostMemory;
pub use peers::PeerLimits;
pub use service::{PageService, ServiceCounters};

/// Bytes from which on a READ is worth process_vm_readv(2). It takes 95 us a MiB where /proc/PID/mem takes 150, and
/// yet an array that is read in pieces of up to 256 KiB arrived at 1,230 MB/s by it and at 1,500 without.
const DIRECT_BYTES: usize = 512 << 10;

/// The seeds of this host as readable bytes. Shared by the agent, the page service and the `local`
/// fabric; no lock is held across a system call.
#[derive(Debug, Default)]
pub struct Exports {
    seeds: RwLock<HashMap<SeedId, Arc<Exported>>>,
}

/// What makes a process readable.
#[derive(Debug)]
pub struct ProcessExport {
    /// The process' /proc/PID/mem, open for reading.
    pub mem: File,
    /// What may be read, ascending and disjoint.
    pub readable: Vec<SeedRange>,
    /// What a READ must show.
    pub read_key: ReadKey,
    /// Its copy, which RDMA cards READ if this host has one; filled from here on.
    pub arena: Option<ArenaCopy>,
}

/// What is to be told of a seed's arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaState {
    /// What is new; `None`: nothing.
    pub news: Option<ArenaNews>,
    /// Nothing will follow.
    pub is_done: bool,
}

impl ArenaState {
    /// Nothing is to be told, now or later.
    pub const NOTHING: ArenaState = ArenaState { news: None, is_done: true };
}

/// Why bytes of a seed cannot be had here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// No such seed, a wrong key, or revoked: which of them is not told.
    #[error(
        "seed {0} is not exported here, or was dropped, or the read key is not its own; prepare a new one"
    )]
    Refused(SeedId),
    /// Not all of the range is the seed's own memory.
    #[error("seed {seed} does not export all of {range}")]
    NotExported {
        /// Whose.
        seed: SeedId,
        /// What was asked for.
        range: SeedRange,
    },
    /// The seed's process is gone.
    #[error("seed {0} has ended, its memory is gone; prepare a new one")]
    Ended(SeedId),
    /// The kernel cannot read there.
    #[error("seed {seed} has no readable bytes at {addr} ({source})")]
    Unreadable {
        /// Whose.
        seed: SeedId,
        /// Where reading stopped.
        addr: SeedAddr,
        /// pread(2)'s error.
        source: io::Error,
    },
}

impl From<ExportError> for ReadError {
    fn from(error: ExportError) -> Self {
        ReadError::Revoked(error.to_string())
    }
}

impl Exports {
    /// An empty registry.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Makes `seed` readable; takes the place of what it exported before.
    pub fn add(&self, seed: SeedId, export: ProcessExport) {
        let ordered = export.readable.windows(2).all(|pair| pair[0].end <= pair[1].start);
        debug_assert!(ordered, "readable ranges ascend and are disjoint");
        let direct = ProcessMemory::of(&export.mem);
        let exported = Arc::new(Exported {
            seed,
            export,
            direct,
            hot: RwLock::default(),
            beneath: OnceLock::new(),
            revoked: AtomicBool::new(false),
        });
        if let Some(arena) = &exported.export.arena {
            arena.fill_from(exported.clone());
        }
        let before = self.seeds.write().insert(seed, exported);
        if let Some(before) = before {
            before.revoke();
        }
    }

    /// Sets what a push of `seed` sends, in this order. Nothing happens if it is not exported.
    pub fn set_hot(&self, seed: SeedId, hot: Vec<SeedRange>) {
        let exported = self.seeds.read().get(&seed).cloned();
        if let Some(exported) = exported {
            *exported.hot.write() = hot.into();
        }
    }

    /// Sets what READs beneath written pages of `seed` are answered from, once. Nothing happens if it is not exported.
    pub fn set_beneath(&self, seed: SeedId, files: Vec<FileBeneath>) {
        let exported = self.seeds.read().get(&seed).cloned();
        if let Some(exported) = exported {
            let _ = exported.beneath.set(files);
        }
    }

    /// From now on READs of `seed` fail, also on streams that are open, and at the card. A READ that the
    /// kernel is carrying out is refused when it comes back.
    pub fn revoke(&self, seed: SeedId) {
        let exported = self.seeds.read().get(&seed).cloned();
        if let Some(exported) = exported {
            exported.revoke();
        }
    }

    /// What a host that knows `slabs` slabs and `filled` bytes of `seed`'s arena has not been told.
    pub fn arena_news(&self, seed: SeedId, slabs: usize, filled: u64) -> ArenaState {
        let exported = self.seeds.read().get(&seed).cloned();
        let arena = exported.as_ref().and_then(|exported| exported.export.arena.as_ref());
        let Some(arena) = arena.filter(|arena| arena.is_read_by_others()) else {
            return ArenaState::NOTHING;
        };
        // In this order: what is done has no news after these.
        let is_done = arena.is_done();
        ArenaState { news: arena.news(slabs, filled), is_done }
    }

    /// Bytes of `seed` that are in its copy, and bytes in all; `None`: it has none.
    pub fn copied(&self, seed: SeedId) -> Option<(u64, u64)> {
        let exported = self.seeds.read().get(&seed).cloned()?;
        exported.export.arena.as_ref().map(ArenaCopy::progress)
    }

    /// Forgets `seed` and closes its memory once the last READ has ended.
    pub fn remove(&self, seed: SeedId) {
        self.revoke(seed);
        let removed = self.seeds.write().remove(&seed);
        drop(removed);
    }

    /// Reads all of `into` from `addr` on.
    ///
    /// # Errors
    /// `Revoked`, with the reason; see [`ExportError`].
    pub fn read(
        &self,
        seed: SeedId,
        key: &ReadKey,
        addr: SeedAddr,
        into: &mut [u8],
    ) -> Result<(), ReadError> {
        Ok(self.open(seed, key)?.read(addr, into)?)
    }

    /// The export of `seed`, if `key` is its own.
    ///
    /// # Errors
    /// `Refused`.
    pub(crate) fn open(&self, seed: SeedId, key: &ReadKey) -> Result<Arc<Exported>, ExportError> {
        let exported = self.seeds.read().get(&seed).cloned();
        // `==` of keys takes the same time wherever they differ.
        exported
            .filter(|exported| exported.export.read_key == *key && !exported.is_revoked())
            .ok_or(ExportError::Refused(seed))
    }
}

/// One seed's bytes.
#[derive(Debug)]
pub(crate) struct Exported {
    seed: SeedId,
    export: ProcessExport,
    /// The same memory with one copy less, where the kernel allows it.
    direct: Option<ProcessMemory>,
    hot: RwLock<Arc<[SeedRange]>>,
    beneath: OnceLock<Vec<FileBeneath>>,
    revoked: AtomicBool,
}

impl Exported {
    /// What a push sends.
    pub(crate) fn hot(&self) -> Arc<[SeedRange]> {
        self.hot.read().clone()
    }

    /// Reads all of `into` from `addr` on, or fails; never gives zeros in place of bytes.
    pub(crate) fn read(&self, addr: SeedAddr, into: &mut [u8]) -> Result<(), ExportError> {
        if addr.0 >= BENEATH {
            self.read_beneath(addr, into)?;
        } else {
            self.check(addr, into.len())?;
            match self.copy_of(addr, into.len()) {
                Some((copy, place)) => copy.read(place, into),
                None => self.read_process(addr, into)?,
            }
        }
        if self.is_revoked() {
            return Err(ExportError::Refused(self.seed));
        }
        Ok(())
    }

    /// Where the bytes lie in the copy, if they are there; `check` has admitted them.
    fn copy_of(&self, addr: SeedAddr, len: usize) -> Option<(&ArenaCopy, u64)> {
        let copy = self.export.arena.as_ref()?;
        Some((copy, copy.place(addr, len)?))
    }

    /// Sends the bytes of all `ranges`, with `header` before them, without reading them here; false, and nothing
    /// has been sent, if not all of them are in the copy.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn send(
        &self,
        ranges: &[(SeedAddr, u32)],
        header: &[u8],
        socket: &TcpStream,
    ) -> io::Result<bool> {
        let is_here = |&(addr, len): &(SeedAddr, u32)| {
            let len = len as usize;
            self.check(addr, len).is_ok() && self.copy_of(addr, len).is_some()
        };
        if self.is_revoked() || !ranges.iter().all(is_here) {
            return Ok(false);
        }
        let mut at = 0;
        while at < header.len() {
            match socket::send_more(socket, &header[at..]) {
                Ok(sent) => at += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for &(addr, len) in ranges {
            if let Some((copy, place)) = self.copy_of(addr, len as usize) {
                copy.send(place, len as usize, socket)?;
            }
        }
        Ok(true)
    }

    fn read_beneath(&self, addr: SeedAddr, into: &mut [u8]) -> Result<(), ExportError> {
        let files = self.beneath.get().map_or(&[][..], Vec::as_slice);
        let mut at = 0;
        while at < into.len() {
            // A READ's range does not wrap around.
            let here = SeedAddr(addr.0 + at as u64);
            let got = beneath::read(files, here, &mut into[at..]);
            at += got.map_err(|source| ExportError::Unreadable {
                seed: self.seed,
                addr: here,
                source,
            })?;
        }
        Ok(())
    }

    fn read_process(&self, addr: SeedAddr, into: &mut [u8]) -> Result<(), ExportError> {
        let mut at = 0;
        while at < into.len() {
            let here = SeedAddr(addr.0 + at as u64);
            if let Some(got) = self.read_directly(here, &mut into[at..]) {
                at += got;
                continue;
            }
            match self.export.mem.read_at(&mut into[at..], here.0) {
                // /proc/PID/mem of a process whose memory is gone is at its end everywhere.
                Ok(0) => return Err(ExportError::Ended(self.seed)),
                Ok(got) => at += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(ExportError::Unreadable { seed: self.seed, addr: here, source });
                }
            }
        }
        Ok(())
    }

    fn read_directly(&self, addr: SeedAddr, into: &mut [u8]) -> Option<usize> {
        let direct = self.direct.as_ref().filter(|_| into.len() >= DIRECT_BYTES)?;
        direct.read(addr.0, into)
    }

    /// Copies the bytes from `addr` on into `range` of `memory`.
    fn copy_into(
        &self,
        memory: &dyn SlabMemory,
        range: Range<usize>,
        addr: SeedAddr,
    ) -> Result<(), ExportError> {
        self.check(addr, range.len())?;
        if self.is_revoked() {
            return Err(ExportError::Refused(self.seed));
        }
        memory.fill(range, &self.export.mem, addr.0).map_err(|source| match source.kind() {
            // /proc/PID/mem of a process whose memory is gone is at its end everywhere.
            io::ErrorKind::UnexpectedEof => ExportError::Ended(self.seed),
            _ => ExportError::Unreadable { seed: self.seed, addr, source },
        })
    }

    fn revoke(&self) {
        self.revoked.store(true, Ordering::SeqCst);
        if let Some(arena) = &self.export.arena {
            arena.revoke();
        }
    }

    fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::SeqCst)
    }

    /// Whether the readable ranges cover `[addr, addr + len)` without a gap.
    fn check(&self, addr: SeedAddr, len: usize) -> Result<(), ExportError> {
        let end = SeedAddr(addr.0.saturating_add(len as u64));
        let readable = &self.export.readable;
        let first = readable.partition_point(|range| range.end <= addr);
        let mut covered = addr;
        for range in &readable[first..] {
            if covered >= end || range.start > covered {
                break;
            }
            covered = range.end;
        }
        if covered >= end {
            return Ok(());
        }
        let range = SeedRange { start: addr, end };
        Err(ExportError::NotExported { seed: self.seed, range })
    }
}

#[cfg(test)]
mod tests {
    use super::stand_in::{StandIn, expected};
    use super::*;

    const PAGE: u64 = 4096;

    #[test]
    fn a_read_gives_the_seeds_bytes_at_any_alignment() {
        let exports = Exports::new();
        let stand_in = StandIn::start(16 * PAGE);
        let (seed, key) = stand_in.export(&exports);
        let base = stand_in.range().start.0;
        for (offset, len) in [(0, 4096), (4096, 65536 - 4096), (5, 1), (4090, 12), (0, 65536)] {
            let mut bytes = vec![0; len];
            exports.read(seed, &key, SeedAddr(base + offset), &mut bytes).unwrap();
            assert_eq!(bytes, expected(offset, len));
        }
    }

    #[test]
    fn wrong_key_unknown_seed_and_revoked_are_refused_alike() {
        let exports = Exports::new();
        let stand_in = StandIn::start(PAGE);
        let (seed, key) = stand_in.export(&exports);
        let addr = stand_in.range().start;
        let mut page = [0; 4096];
        let mut refused = |seed, key: &ReadKey| match exports.read(seed, key, addr, &mut page) {
            Err(ReadError::Revoked(text)) => text.contains("is not exported here"),
            _ => false,
        };
        assert!(refused(seed, &ReadKey::random()));
        assert!(refused(SeedId(seed.0 ^ 1), &key));
        assert!(!refused(seed, &key));
        exports.revoke(seed);
        assert!(refused(seed, &key));
        exports.remove(seed);
        assert!(refused(seed, &key));
    }

    #[test]
    fn only_what_is_exported_is_readable() {
        let exports = Exports::new();
        let stand_in = StandIn::start(8 * PAGE);
        let base = stand_in.range().start.0;
        let pages = |from: u64, to: u64| SeedRange::new(base + from * PAGE, base + to * PAGE);
        let ranges = vec![pages(0, 2), pages(2, 4), pages(5, 6)];
        let (seed, key) = stand_in.export_ranges(&exports, ranges);
        let mut bytes = vec![0; 8 * 4096];
        let mut read = |page: u64, len: usize| {
            exports.read(seed, &key, SeedAddr(base + page * PAGE), &mut bytes[..len])
        };
        assert_eq!(read(0, 4 * 4096), Ok(()));
        assert_eq!(read(1, 2 * 4096), Ok(()));
        assert_eq!(read(5, 4096), Ok(()));
        for (page, len) in [(0, 4 * 4096 + 1), (3, 3 * 4096), (4, 1), (6, 1), (5, 4097)] {
            let result = read(page, len);
            assert!(matches!(&result, Err(ReadError::Revoked(text)) if text.contains("does not")));
        }
        let far = exports.read(seed, &key, SeedAddr(u64::MAX - 1), &mut [0; 8]);
        assert!(matches!(far, Err(ReadError::Revoked(_))));
    }

    #[test]
    fn a_dead_seed_gives_an_error_and_no_zeros() {
        let exports = Exports::new();
        let mut stand_in = StandIn::start(PAGE);
        let (seed, key) = stand_in.export(&exports);
        let addr = stand_in.range().start;
        let mut page = [0; 4096];
        exports.read(seed, &key, addr, &mut page).unwrap();
        stand_in.kill();
        let error = exports.read(seed, &key, addr, &mut page).unwrap_err();
        assert!(
            matches!(&error, ReadError::Revoked(text) if text.contains("has ended")),
            "{error}"
        );
    }

    #[test]
    fn an_unmapped_page_is_an_error() {
        let exports = Exports::new();
        let stand_in = StandIn::start(PAGE);
        // Page 16 is below mmap_min_addr: no process has it.
        let (seed, key) = stand_in.export_ranges(&exports, vec![SeedRange::new(PAGE, 2 * PAGE)]);
        let error = exports.read(seed, &key, SeedAddr(PAGE), &mut [0; 8]).unwrap_err();
        assert!(matches!(&error, ReadError::Revoked(text) if text.contains("no readable bytes")));
    }
}
