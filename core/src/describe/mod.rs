//! A frozen seed -> its descriptor: off the parent's clock, in the agent.
//!
//! Reads what the seed handed over: its report, its smaps (VMAs with their flags), its pagemap (which
//! pages exist) and, for the vDSO and the call sites, its memory. Nothing is asked of the seed itself.

pub mod credentials;
mod files;
mod gpu;
pub mod inherited;
mod mapped;
mod shadow_stack;
mod shared_files;
mod smaps;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use crate::descriptor::vma::MAX_SHARED_OBJECTS;
use crate::descriptor::{
    CallSite, CarriedFiles, Descriptor, HostNeeds, LossKind, Losses, MappedFile, Marks, Owner,
    PageTable, SeedAddr, SeedRange, SharedPart, Source, StubPlace, ThreadState, Vma, VmaFlags,
    VmaKind, WarmSet,
};
use crate::id::SeedId;
use crate::prepare::report::Report;
use crate::prepare::reported::ReportedFile;
use crate::resume::abi::REGION_LEN as RESTORER_LEN;
use crate::sys::arch;
use files::losses::{self, Was};
use inherited::{Inherited, Shown};
use mapped::Mapped;
use shared_files::SharedFiles;
use smaps::SmapsEntry;

/// What a seed handed over.
#[derive(Debug)]
pub struct SeedFiles {
    /// Its /proc/self/mem.
    pub mem: File,
    /// Its /proc/self/pagemap.
    pub pagemap: File,
    /// Its /proc/self/smaps.
    pub smaps: File,
}

/// Finds call sites in text; results for an unchanged file are kept.
pub trait SiteScanner {
    /// The sites in `text`, whose first byte is at `base`.
    ///
    /// # Errors
    /// The text cannot be read.
    fn scan(
        &mut self,
        file: &MappedFile,
        offset: u64,
        base: SeedAddr,
        text: &dyn TextSource,
    ) -> io::Result<Vec<CallSite>>;
}

/// The bytes of one executable VMA, read only when asked for.
pub trait TextSource {
    /// All bytes of the VMA.
    ///
    /// # Errors
    /// The seed is gone.
    fn bytes(&self) -> io::Result<Vec<u8>>;
}

/// Why a seed cannot be described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DescribeError {
    /// The report refuses.
    #[error("{0}")]
    Refused(String),
    /// The report lacks what every process has.
    #[error("the seed's report has no {0}; both sides must run the same version of mitosis")]
    Incomplete(&'static str),
    /// A read failed: the seed is gone.
    #[error("the seed could not be read ({what}): {error}; was it killed?")]
    Read {
        /// What was read.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

/// Everything about a seed that is known without looking at it.
#[derive(Debug)]
pub struct SeedIdentity {
    /// Its id.
    pub seed: SeedId,
    /// The frozen process, as this host numbers it.
    pub pid: u32,
    /// Itself, as owner 0.
    pub owner: Owner,
    /// For a seed of a child: where its stub lies, and the call sites that lead there.
    pub stub: Option<(StubPlace, Vec<CallSite>)>,
    /// Memory of a child's that its own children get anew.
    pub not_carried: Option<SeedRange>,
    /// For a seed of a child: the files in the image that the child has its memory from.
    pub inherited: Option<Inherited>,
}

/// What is found out about a seed.
#[derive(Debug)]
pub struct Described {
    /// What its children are made of.
    pub descriptor: Descriptor,
    /// Its VMAs of inherited files, ascending.
    pub shown: Vec<Shown>,
}

/// The descriptor of a frozen seed.
///
/// # Errors
/// See [`DescribeError`].
pub fn describe(
    identity: SeedIdentity,
    report: Report,
    files: &SeedFiles,
    scanner: &mut dyn SiteScanner,
) -> Result<Described, DescribeError> {
    if let Some(reason) = report.refused {
        return Err(DescribeError::Refused(reason));
    }
    if report.threads.is_empty() {
        return Err(DescribeError::Incomplete("thread"));
    }
    let page_size = page_size();
    let text = read_all(&files.smaps)?;
    if text.is_empty() {
        // Of a process that has ended nothing is left to read, and that is no error of read(2)'s.
        let error = io::Error::from_raw_os_error(libc::ESRCH);
        return Err(DescribeError::Read { what: "smaps", error });
    }
    let entries = smaps::parse(&text);
    gpu::refuse(&entries, &report.open_files)?;
    shadow_stack::refuse(&entries)?;
    let of_scheduling = losses::of_scheduling(&report);
    let mut not_carried = report.not_carried;
    not_carried.extend(identity.not_carried);
    if let Some((place, _)) = &identity.stub {
        let end = place.base.0 + RESTORER_LEN;
        not_carried.push(SeedRange { start: place.base, end: SeedAddr(end) });
        not_carried.extend(&place.trampoline_pages);
    }
    let carried = smaps::without(entries, &not_carried);
    let carried = smaps::marked(carried, &report.dont_fork, VmaFlags::DONT_FORK);
    let mut carried = smaps::marked(carried, &report.locked, VmaFlags::LOCKED);
    if report.treatment.merges_memory {
        carried.iter_mut().for_each(|entry| entry.flags.0 &= !VmaFlags::MERGEABLE);
    }

    let inherited = identity.inherited.as_ref();
    let mut memory = Mapped::new(files, page_size, report.process.layout.stack, inherited);
    for entry in &carried {
        memory.add(entry, &report.shared_copies)?;
    }
    let Mapped { vmas, runs, files: mapped, guards, shown, .. } = memory;
    let page_table = PageTable::new(runs, page_size)
        .map_err(|_| DescribeError::Incomplete("orderly list of VMAs"))?;
    let (stub_place, sites) = match identity.stub {
        Some((place, sites)) => (Some(place), sites),
        None => (None, call_sites(&vmas, &mapped, &page_table, files, scanner)?),
    };
    let needs =
        HostNeeds { vdso: vdso_digest(&vmas, files)?, kernel: kernel_release(), ..arch::cpu() };
    let reported = report.credentials.ok_or(DescribeError::Incomplete("credentials"))?;
    let credentials = credentials::beside_agent(reported)
        .map_err(|error| DescribeError::Read { what: "credentials", error })?;
    let mut state = report.state;
    if state.threads.iter().all(|thread| *thread == ThreadState::default()) {
        state.threads.clear();
    }
    let (carried_files, mut losses) = match &report.files {
        Some(reported) => {
            let own = report.process.parent_pid;
            let paths = files::Paths {
                seed: identity.pid,
                root: report.root.as_deref(),
                cwd: &report.process.cwd,
                open: &report.open_files,
                mapped: &mapped,
            };
            let carried_files = files::carried(reported, &report.open_files, own, &paths)?;
            let was = Was { files: reported, open: &report.open_files };
            let shared = carried.iter().filter(|entry| {
                report.shared_copies.iter().any(|(range, _)| *range == entry.range)
            });
            let (refuse, pid) = (report.refuse, identity.pid);
            let losses = was.not_refused(&carried_files, of_scheduling, shared, refuse, pid)?;
            (Some(carried_files), losses)
        }
        None => (None, Vec::new()),
    };
    let shared = shared_parts(
        &carried,
        &report.shared_copies,
        report.files.as_deref(),
        carried_files.as_ref(),
    );
    let is_needed = report.refuse.has(LossKind::SharedFiles);
    let carried_memory = carried_files.as_ref().map_or(&[][..], CarriedFiles::files);
    let of_files = SharedFiles::of(
        &shared,
        &carried,
        (&report.shared_copies, &files.mem),
        carried_memory,
        is_needed,
    )?;
    losses.extend(of_files.lost);
    // Children that have lost nothing are not told.
    let is_told = !losses.is_empty() || !of_files.files.is_empty();
    let told_at = if is_told { report.losses_area } else { SeedAddr(0) };
    let descriptor = Descriptor {
        shared,
        shared_files: of_files.files,
        carried: carried_files,
        losses: Losses { told_at, all: losses },
        seed: identity.seed,
        generation: report.generation + 1,
        needs,
        page_shift: u8::try_from(page_size.trailing_zeros()).unwrap_or(12),
        owners: vec![identity.owner],
        vmas,
        marks: Marks { locks_future: report.locks_future, guards },
        page_table,
        files: mapped,
        threads: report.threads,
        whole: report.whole,
        process: report.process,
        state,
        treatment: report.treatment,
        pending: report.pending,
        credentials,
        root: report.root,
        open_files: report.open_files,
        sites,
        resume_area: report.resume_area,
        stub_place,
        warm: WarmSet::default(),
    };
    Ok(Described { descriptor, shown })
}

/// Which mappings are of one object. What was not copied cannot be written here, nor in a child.
fn shared_parts(
    entries: &[SmapsEntry<'_>],
    copies: &[(SeedRange, SeedAddr)],
    files: Option<&[ReportedFile]>,
    carried: Option<&CarriedFiles>,
) -> Vec<SharedPart> {
    let mut objects: Vec<(u64, u64)> = Vec::new();
    let copied = entries.iter().filter(|entry| {
        entry.shared && !entry.device && copies.iter().any(|(range, _)| *range == entry.range)
    });
    let mut parts = Vec::new();
    for entry in copied {
        let key = (entry.device_number, entry.inode);
        let known = objects.iter().position(|other| *other == key);
        let object = known.unwrap_or_else(|| {
            objects.push(key);
            objects.len() - 1
        });
        let Ok(object) = u32::try_from(object) else { continue };
        if object >= MAX_SHARED_OBJECTS {
            continue;
        }
        let fds = files.unwrap_or(&[]).iter().filter(|file| file.dev_ino == key);
        let record = fds.filter_map(|file| {
            let records = carried?.files().iter();
            let mut numbers = records.map(|record| record.numbers.iter().map(|number| number.fd));
            let at = numbers.position(|mut numbers| numbers.any(|fd| fd == file.fd))?;
            u32::try_from(at).ok()
        });
        let file = record.into_iter().next();
        parts.push(SharedPart { range: entry.range, object, offset: entry.offset, file });
    }
    parts
}

struct VmaText<'a> {
    mem: &'a File,
    range: SeedRange,
}

impl TextSource for VmaText<'_> {
    fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0u8; usize::try_from(self.range.len()).unwrap_or(0)];
        self.mem.read_exact_at(&mut bytes, self.range.start.0)?;
        Ok(bytes)
    }
}

/// Sites in text that is a file's, unmodified; what a JIT or a debugger wrote is left alone.
fn call_sites(
    vmas: &[Vma],
    mapped: &[MappedFile],
    table: &PageTable,
    files: &SeedFiles,
    scanner: &mut dyn SiteScanner,
) -> Result<Vec<CallSite>, DescribeError> {
    const EXEC: u8 = 4;
    let mut sites = Vec::new();
    for vma in vmas.iter().filter(|vma| vma.prot & EXEC != 0) {
        let VmaKind::File { file, offset } = vma.kind else { continue };
        let text = VmaText { mem: &files.mem, range: vma.range };
        let found = scanner
            .scan(&mapped[usize::from(file)], offset, vma.range.start, &text)
            .map_err(|error| DescribeError::Read { what: "text", error })?;
        let untouched = |site: &CallSite| {
            let end = SeedAddr(site.addr.0 + 6);
            [site.addr, end].iter().all(|addr| {
                table.lookup(*addr).is_some_and(|run| matches!(run.source, Source::File { .. }))
            })
        };
        sites.extend(found.into_iter().filter(untouched));
    }
    Ok(sites)
}

fn vdso_digest(vmas: &[Vma], files: &SeedFiles) -> Result<[u8; 32], DescribeError> {
    let Some(vma) = vmas.iter().find(|vma| vma.kind == VmaKind::Vdso) else { return Ok([0; 32]) };
    let bytes = VmaText { mem: &files.mem, range: vma.range }
        .bytes()
        .map_err(|error| DescribeError::Read { what: "vDSO", error })?;
    Ok(*blake3::hash(&bytes).as_bytes())
}

/// This process's own vDSO, which is every process's: a kernel has one. `None`: it has been told to have none.
///
/// # Errors
/// /proc/self cannot be read.
pub fn own_vdso() -> Result<Option<Vec<u8>>, DescribeError> {
    let failed = |what| move |error| DescribeError::Read { what, error };
    let maps = fs::read_to_string("/proc/self/maps").map_err(failed("maps"))?;
    let range = smaps::parse(&maps).into_iter().find(|entry| entry.name == "[vdso]");
    let Some(SmapsEntry { range, .. }) = range else { return Ok(None) };
    let mem = File::open("/proc/self/mem").map_err(failed("mem"))?;
    VmaText { mem: &mem, range }.bytes().map(Some).map_err(failed("vDSO"))
}

/// The root directory of process `pid`, if it is another one than this process's, by its path from there.
///
/// # Errors
/// readlink(2)'s: EACCES takes CAP_SYS_PTRACE.
pub fn root_of(pid: u32) -> std::io::Result<Option<String>> {
    let root = fs::read_link(format!("/proc/{pid}/root"))?;
    Ok(Some(root.to_string_lossy().into_owned()).filter(|root| root != "/"))
}

/// Bytes in a page of this host.
pub fn page_size() -> u64 {
    crate::sys::page_size()
}

/// `uname -r`.
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map(|r| r.trim().to_owned())
        .unwrap_or_default()
}

/// The longest text of smaps: some 65,530 VMAs have 50 MiB.
const MAX_TEXT_BYTES: usize = 128 << 20;

/// A proc file's whole text; it has been opened by another process, whose file offset is at 0.
fn read_all(file: &File) -> Result<String, DescribeError> {
    let mut bytes = vec![0u8; 256 << 10];
    let mut len = 0;
    loop {
        if len >= MAX_TEXT_BYTES {
            let error = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(DescribeError::Read { what: "smaps", error });
        }
        if len == bytes.len() {
            bytes.resize(2 * len, 0);
        }
        match file.read_at(&mut bytes[len..], len as u64) {
            Ok(0) => break,
            Ok(got) => len += got,
            Err(error) => return Err(DescribeError::Read { what: "smaps", error }),
        }
    }
    bytes.truncate(len);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
