//! What a fork is: the published record of a seed.
//!
//! `codec` turns a [`Descriptor`] into bytes and back; everything else here is plain data.

pub mod addr;
pub mod beneath;
pub mod carried;
pub mod codec;
pub mod credentials;
pub mod losses;
pub mod owner;
pub mod page_table;
pub mod pending;
pub mod process;
pub mod state;
pub mod thread;
pub mod treatment;
pub mod vma;
pub mod warm;

use serde::{Deserialize, Serialize};

pub use addr::{ImageOffset, SeedAddr, SeedRange};
pub use beneath::BENEATH;
pub use carried::{CarriedFile, CarriedFiles, FileKind, Number};
pub use credentials::{Credentials, Groups, OwnCredentials, Rights};
pub use losses::{Loss, LossKind, Losses, Refuse};
pub use owner::{ArenaMap, ArenaNews, DcTarget, Export, Owner, RcEndpoint, Slab};
pub use page_table::{OwnerIndex, PageTable, Run, Source};
pub use pending::{MAX_PENDING, PendingSignals};
pub use process::{MmLayout, OpenFile, Process, ResumeArea, SignalAction};
pub use state::{Clocks, State, ThreadState};
pub use thread::{Rseq, Sched, Thread, Whole};
pub use treatment::Treatment;
pub use vma::{MappedFile, Marks, SharedFile, SharedPart, Vma, VmaFlags, VmaKind};
pub use warm::{WarmRun, WarmSet};

use crate::id::SeedId;

/// Threads of a whole process at most; a child's restorer has a stack for each.
pub const MAX_THREADS: usize = 4096;
/// Owners that a descriptor can name: the seed and 15 ancestors (design: 15 hops).
pub const MAX_OWNERS: usize = 16;

/// The published record of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The seed.
    pub seed: SeedId,
    /// Forks between its children and the first process: 1 for the children of a process that was
    /// never forked.
    pub generation: u64,
    /// What a host must have to run it.
    pub needs: HostNeeds,
    /// log2 of the page size.
    pub page_shift: u8,
    /// Who holds bytes; index 0 is the seed itself.
    pub owners: Vec<Owner>,
    /// Its memory, ascending.
    pub vmas: Vec<Vma>,
    /// Which of it is shared memory that was copied, ascending.
    pub shared: Vec<SharedPart>,
    /// Which objects of it are files.
    pub shared_files: Vec<SharedFile>,
    /// What else is to be said of it.
    pub marks: Marks,
    /// Who owns which page.
    pub page_table: PageTable,
    /// Files that it had mapped.
    pub files: Vec<MappedFile>,
    /// Its threads, the caller of prepare first: of a whole process all, else that one alone.
    pub threads: Vec<Thread>,
    /// Set for a whole process, all of whose threads live on in its children.
    pub whole: Option<Whole>,
    /// Its state, as every process has it.
    pub process: Process,
    /// The rest of its state.
    pub state: State,
    /// What it has asked of the kernel.
    pub treatment: Treatment,
    /// Signals that wait for it and its threads; of a whole process alone, as fork(2) drops them.
    pub pending: Vec<PendingSignals>,
    /// What of its credentials is not its agent's.
    pub credentials: OwnCredentials,
    /// Its root directory as its agent saw it, if that is not the agent's own.
    pub root: Option<String>,
    /// File descriptors that its parent had open.
    pub open_files: Vec<OpenFile>,
    /// Those of them that children have again; `None`: children have none.
    pub carried: Option<CarriedFiles>,
    /// What of its files, locks and memory children do not have.
    pub losses: Losses,
    /// System-call sites in its text that a child needs patched (design §6.1).
    pub sites: Vec<CallSite>,
    /// Where libmitosis looks in the child.
    pub resume_area: ResumeArea,
    /// Where the stub must lie, if the seed's text leads to it already: it is a child's seed.
    pub stub_place: Option<StubPlace>,
    /// What its children touch at first; empty where it was not rehearsed.
    pub warm: WarmSet,
}

impl Descriptor {
    /// Bytes in a page.
    pub fn page_size(&self) -> u64 {
        1 << self.page_shift
    }

    /// What a VMA is called where people read of it: a path, `[heap]`, `[stack]`, `anonymous`, ...
    pub fn name_of(&self, vma: &Vma) -> String {
        let shared = || {
            let part = self.shared.iter().find(|part| part.range == vma.range);
            let of = |part: &SharedPart| {
                self.shared_files.iter().find(|file| file.object == part.object)
            };
            part.and_then(of).map_or("shared", |file| &file.path)
        };
        let (heap, heap_end) = self.process.layout.brk;
        let name = match vma.kind {
            VmaKind::Anonymous if vma.range.start.0 < heap_end && vma.range.end.0 > heap => {
                "[heap]"
            }
            VmaKind::Anonymous => "anonymous",
            VmaKind::Stack => "[stack]",
            VmaKind::File { file, .. } => {
                self.files.get(usize::from(file)).map_or("?", |file| &file.path)
            }
            VmaKind::Shared => shared(),
            VmaKind::Vvar => "[vvar]",
            VmaKind::Vdso => "[vdso]",
            VmaKind::Hole => "not carried",
        };
        name.to_owned()
    }
}

/// What a host must have to run a descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNeeds {
    /// ELF machine: 62 is x86-64.
    pub machine: u16,
    /// CPUID feature words that libc's ifuncs may have chosen by; all must be present.
    pub cpu_features: Vec<u32>,
    /// XCR0: the enabled extended state components, all must be enabled.
    pub xcr0: u64,
    /// Bytes of an XSAVE area of all enabled components.
    pub xsave_size: u32,
    /// BLAKE3 of the vDSO's bytes: an equal one can take its place, another one it must lead to.
    pub vdso: [u8; 32],
    /// `uname -r`, for people.
    pub kernel: String,
}

/// A raw system-call instruction in the seed's text whose call must go through the stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallSite {
    /// Address of its first patched byte.
    pub addr: SeedAddr,
    /// The bytes found there.
    pub kind: SiteKind,
}

/// Where a child's restorer and its trampolines lie. The text of a child names these addresses, so its own
/// children must have them there, too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StubPlace {
    /// The restorer's region.
    pub base: SeedAddr,
    /// The trampoline of each of `Descriptor::sites`.
    pub trampolines: Vec<SeedAddr>,
    /// The pages that hold them.
    pub trampoline_pages: Vec<SeedRange>,
}

/// Bytes of a call site.
pub const SITE_LEN: usize = 7;

/// A change to the bytes of a call site, applied as an image serves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Where.
    pub addr: SeedAddr,
    /// What must stand there; where something else does, nothing is changed.
    pub expect: [u8; SITE_LEN],
    /// What a child sees instead.
    pub bytes: [u8; SITE_LEN],
}

/// What a call site looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SiteKind {
    /// `mov $28,%eax; syscall`.
    Madvise,
    /// `mov $25,%eax; syscall`.
    Mremap,
    /// `mov 8(%rsp),%r9; syscall`: the tail of libc's `syscall(3)`; number in `rax`.
    Generic,
}

impl SiteKind {
    /// The seven bytes.
    pub fn bytes(self) -> [u8; SITE_LEN] {
        match self {
            SiteKind::Madvise => [0xb8, 28, 0, 0, 0, 0x0f, 0x05],
            SiteKind::Mremap => [0xb8, 25, 0, 0, 0, 0x0f, 0x05],
            SiteKind::Generic => [0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05],
        }
    }
}
