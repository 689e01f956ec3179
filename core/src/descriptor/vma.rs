//! The virtual memory areas of a seed.

use serde::{Deserialize, Serialize};

use super::addr::SeedRange;

/// One VMA, as in a line of proc_pid_maps(5) with its VmFlags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vma {
    /// Where it lies.
    pub range: SeedRange,
    /// `PROT_READ | PROT_WRITE | PROT_EXEC` bits of mmap(2).
    pub prot: u8,
    /// What backed it in the seed.
    pub kind: VmaKind,
    /// Advice that a child needs applied again.
    pub flags: VmaFlags,
}

impl Vma {
    /// Whether it is the continuation of `before`, which maps the same file: of its image a child maps both, and they may
    /// become one mapping there.
    pub fn continues(&self, before: &Vma) -> bool {
        match (&before.kind, &self.kind) {
            (VmaKind::File { file: a, .. }, VmaKind::File { file: b, .. }) => {
                a == b && before.range.end == self.range.start
            }
            _ => false,
        }
    }
}

/// What backed a VMA in the seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmaKind {
    /// Private anonymous memory, the heap included.
    Anonymous,
    /// The main thread's stack: grows down, anonymous in the child from the start.
    Stack,
    /// A private mapping of file `file` of the descriptor's table, from byte `offset`.
    File {
        /// Index into `Descriptor::files`.
        file: u16,
        /// Byte offset in the file.
        offset: u64,
    },
    /// Shared memory (anonymous, memfd or a shared file mapping): copied at prepare, each child's own, which it
    /// shares with processes that it forks ([`SharedPart`]).
    Shared,
    /// `[vvar]` and its relatives, moved from the template's own.
    Vvar,
    /// `[vdso]`.
    Vdso,
    /// An address range that a child gets as PROT_NONE memory because nothing can be carried (a device).
    Hole,
}

/// Objects of shared memory at most, and mappings of them: as many as a seed may have copies of.
pub const MAX_SHARED_OBJECTS: u32 = 256;
/// Bytes of all their mappings at most: a host lists each GiB of them.
pub const MAX_SHARED_BYTES: u64 = 64 << 40;

/// A mapping of shared memory that was copied at prepare: those of one object are one again in a child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedPart {
    /// Of one of the VMAs.
    pub range: SeedRange,
    /// Which object it shows; below [`MAX_SHARED_OBJECTS`].
    pub object: u32,
    /// From this byte on.
    pub offset: u64,
    /// The record of a carried file that is the same object.
    pub file: Option<u32>,
}

/// Files that are mapped shared, of one seed, which children may have themselves: others are copies.
pub const MAX_SHARED_FILES: usize = 32;
const MAX_PATH_BYTES: usize = 4096;

/// A file that was mapped shared and could be written: an object of [`SharedPart`]s, which a child has itself where its
/// host has the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFile {
    /// Which object it is.
    pub object: u32,
    /// Its path on the seed's host.
    pub path: String,
    /// Device and inode there.
    pub dev_ino: (u64, u64),
    /// BLAKE3 of what its parts showed when the seed froze, each whole, in their order.
    pub digest: [u8; 32],
    /// Bytes of the file that one of them showed, or lie before such: a file that is as good has as many.
    pub bytes: u64,
    /// There is to be no child without it.
    pub is_needed: bool,
}

impl SharedFile {
    /// The mappings of it among all of a seed's, in order.
    pub fn parts<'a>(
        &self,
        parts: &'a [SharedPart],
    ) -> impl Iterator<Item = &'a SharedPart> + use<'a> {
        let object = self.object;
        parts.iter().filter(move |part| part.object == object)
    }

    /// Whether a seed can have these.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(files: &[SharedFile], parts: &[SharedPart]) -> Result<(), &'static str> {
        let is_ascending = files.windows(2).all(|pair| pair[0].object < pair[1].object);
        let is_path = |path: &str| {
            path.starts_with('/') && !path.contains('\0') && path.len() <= MAX_PATH_BYTES
        };
        match () {
            () if files.len() > MAX_SHARED_FILES => Err("there are more files than any seed has"),
            () if !is_ascending => Err("an object is two files"),
            () if !files.iter().all(|file| is_path(&file.path)) => Err("a file has no path"),
            () if !files.iter().all(|file| file.parts(parts).next().is_some()) => {
                Err("a file is no shared memory")
            }
            () => Ok(()),
        }
    }
}

/// VmFlags of proc_pid_smaps(5) that a child needs applied again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmaFlags(pub u16);

impl VmaFlags {
    /// `wf`: MADV_WIPEONFORK.
    pub const WIPE_ON_FORK: u16 = 1;
    /// `dc`: MADV_DONTFORK.
    pub const DONT_FORK: u16 = 2;
    /// `hg`: MADV_HUGEPAGE.
    pub const HUGE_PAGE: u16 = 4;
    /// `nh`: MADV_NOHUGEPAGE.
    pub const NO_HUGE_PAGE: u16 = 8;
    /// `gd`: MAP_GROWSDOWN.
    pub const GROWS_DOWN: u16 = 16;
    /// `dd`: MADV_DONTDUMP.
    pub const DONT_DUMP: u16 = 32;
    /// `lo`: locked by mlock(2). Of a whole process alone: fork(2) drops locks.
    pub const LOCKED: u16 = 64;
    /// `dp`: MAP_DROPPABLE.
    pub const DROPPABLE: u16 = 128;
    /// `nr`: MAP_NORESERVE.
    pub const NO_RESERVE: u16 = 256;
    /// `sl`: sealed by mseal(2).
    pub const SEALED: u16 = 512;
    /// `mg`: MADV_MERGEABLE. Not where all memory is ([`super::Treatment`]).
    pub const MERGEABLE: u16 = 1024;
    /// `ss`: a shadow stack, with which there is no descriptor.
    pub const SHADOW_STACK: u16 = 2048;

    /// Whether all of `bits` are set.
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }
}

/// What else is to be said of a seed's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Flags of mlockall(2) for memory to come, or 0.
    pub locks_future: u32,
    /// Pages that MADV_GUARD_INSTALL has made guards, ascending and disjoint.
    pub guards: Vec<SeedRange>,
}

/// A file that the seed had mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedFile {
    /// Its path on the seed's host; may have been deleted since.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Modification time, ns since the epoch.
    pub mtime_ns: i64,
    /// Device and inode on the seed's host (equal on the same host alone).
    pub dev_ino: (u64, u64),
}
