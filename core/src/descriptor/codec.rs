//! A descriptor's bytes. All numbers little-endian.
//!
//! ```text
//! header   8 "MITODESC"   u16 major  u16 minor   u16 machine   u8 page shift  u8 0
//!          u32 length (whole)   u32 CRC-32 (of everything behind the header)
//! section  u16 id  u16 flags (bit 0: critical)  u32 length   body          repeated to the end
//! ```
//!
//! A reader passes over sections that it does not know unless they are *critical*; a new minor version
//! adds sections, a new major version may change anything. Bodies are postcard, but for the page table:
//!
//! ```text
//! varint runs, then for each: varint gap (pages since the last run's end)  varint pages  u8 kind
//!   kind 0 zero
//!   kind 1 owner    u8 owner  zigzag (owner's page - run's page)
//!   kind 2 file     as owner, then varint file  varint page in the file
//! ```

use serde::{Serialize, de::DeserializeOwned};

use super::owner::{self, OwnerRecord, RdmaRecord};
use super::pending;
use super::treatment::Treatment;
use super::vma::{MAX_SHARED_BYTES, MAX_SHARED_OBJECTS, Marks};
use super::warm::WarmRecord;
use super::{
    CallSite, CarriedFile, CarriedFiles, Descriptor, HostNeeds, Losses, MAX_OWNERS, MAX_THREADS,
    MappedFile, OpenFile, OwnCredentials, OwnerIndex, PageTable, PendingSignals, Process,
    ResumeArea, Run, SeedAddr, SeedRange, SharedFile, SharedPart, Source, State, StubPlace, Thread,
    Vma, WarmSet, Whole,
};
use crate::id::SeedId;

/// First bytes.
pub const MAGIC: [u8; 8] = *b"MITODESC";
/// Version of this format.
pub const MAJOR: u16 = 1;
/// Additions since.
pub const MINOR: u16 = 0;
/// A descriptor is never longer: room for a quarter of a million runs.
pub const MAX_DESCRIPTOR_BYTES: usize = 4 << 20;
/// Bytes of header.
pub const HEADER_LEN: usize = 24;

const SECTION_HEADER_LEN: usize = 8;
const CRITICAL: u16 = 1;
/// Bytes of a thread's name that the kernel keeps, without the NUL (TASK_COMM_LEN).
const MAX_THREAD_NAME_BYTES: usize = 15;
/// Pages stay below this, of memory (x86-64 user space ends at 2^47, with LA57 at 2^56 bytes) and of
/// files, so that no byte address made of them can overflow, whatever the page size.
const MAX_PAGE: u64 = 1 << 44;

mod section {
    pub(super) const IDENTITY: u16 = 1;
    pub(super) const NEEDS: u16 = 2;
    pub(super) const OWNERS: u16 = 3;
    pub(super) const VMAS: u16 = 4;
    pub(super) const PAGE_TABLE: u16 = 5;
    pub(super) const FILES: u16 = 6;
    pub(super) const THREADS: u16 = 7;
    pub(super) const PROCESS: u16 = 8;
    pub(super) const OPEN_FILES: u16 = 9;
    pub(super) const SITES: u16 = 10;
    pub(super) const RESUME_AREA: u16 = 11;
    pub(super) const STUB_PLACE: u16 = 12;
    /// Not critical: who cannot read these exports has others.
    pub(super) const RDMA_EXPORTS: u16 = 13;
    /// Not critical: a hint.
    pub(super) const WARM_SET: u16 = 14;
    pub(super) const WHOLE: u16 = 15;
    /// Critical: a child without its files is another program.
    pub(super) const CARRIED_FILES: u16 = 16;
    /// Not critical: what children have not, they have not without being told, too.
    pub(super) const LOSSES: u16 = 17;
    /// Not critical: without, such memory is private to each process that a child forks.
    pub(super) const SHARED: u16 = 18;
    /// Critical: a child without it could do what its parent could not (no_new_privs).
    pub(super) const STATE: u16 = 20;
    /// Critical: a child without it would have its agent's rights.
    pub(super) const CREDENTIALS: u16 = 21;
    /// Critical: a page that must fault would be one that can be written.
    pub(super) const MARKS: u16 = 22;
    /// Critical: a child without it could leave its parent's root directory.
    pub(super) const ROOT: u16 = 23;
    /// Critical: a child without them waits for signals that its parent has had.
    pub(super) const PENDING: u16 = 25;
    /// Critical where a child must not be without one of them; else who does not know it makes copies.
    pub(super) const SHARED_FILES: u16 = 26;
    /// Critical: a child without it would guess where its parent must not.
    pub(super) const TREATMENT: u16 = 27;
    /// Sections are numbered below this.
    pub(super) const END: usize = 28;
    /// Sections that a descriptor cannot do without.
    pub(super) const REQUIRED: [u16; 6] = [IDENTITY, NEEDS, OWNERS, VMAS, PAGE_TABLE, THREADS];
}

/// Why bytes are no descriptor for this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DescriptorError {
    /// The magic is missing.
    #[error("these bytes are no mitosis descriptor")]
    Magic,
    /// Another major version.
    #[error(
        "the descriptor has format {major}.{minor}, this mitosis reads {MAJOR}.x: run the same major \
         version on both hosts"
    )]
    Version {
        /// Its major version.
        major: u16,
        /// Its minor version.
        minor: u16,
    },
    /// Longer than the limit.
    #[error("a descriptor of {0} bytes exceeds the limit of {MAX_DESCRIPTOR_BYTES} bytes")]
    TooLong(usize),
    /// Cut off, or bytes behind its end.
    #[error(
        "the descriptor is cut off or has bytes behind its end: {got} bytes instead of {expected}"
    )]
    Length {
        /// By its header.
        expected: usize,
        /// Arrived.
        got: usize,
    },
    /// The checksum differs.
    #[error("the descriptor's checksum differs: it was damaged on its way")]
    Checksum,
    /// A critical section of a newer minor version.
    #[error("the descriptor needs section {0}, which this mitosis does not know: update this host")]
    UnknownCritical(u16),
    /// A section does not parse.
    #[error("section {section} of the descriptor is broken: {reason}")]
    Section {
        /// Its id.
        section: u16,
        /// What is wrong.
        reason: String,
    },
    /// A section is missing.
    #[error("the descriptor has no section {0}")]
    Missing(u16),
}

/// The bytes of `descriptor`.
///
/// # Errors
/// One that would exceed [`MAX_DESCRIPTOR_BYTES`].
pub fn encode(descriptor: &Descriptor) -> Result<Vec<u8>, DescriptorError> {
    let mut body = Vec::with_capacity(32 << 10);
    let page_table = encode_page_table(&descriptor.page_table, descriptor.page_shift);
    put(&mut body, section::IDENTITY, &(descriptor.seed, descriptor.generation));
    put(&mut body, section::NEEDS, &descriptor.needs);
    let (owners, rdma) = owner::to_records(&descriptor.owners);
    put(&mut body, section::OWNERS, &owners);
    put(&mut body, section::FILES, &descriptor.files);
    put(&mut body, section::VMAS, &descriptor.vmas);
    put_bytes(&mut body, section::PAGE_TABLE, CRITICAL, &page_table);
    put(&mut body, section::THREADS, &descriptor.threads);
    put(&mut body, section::PROCESS, &descriptor.process);
    put(&mut body, section::OPEN_FILES, &descriptor.open_files);
    put(&mut body, section::SITES, &descriptor.sites);
    put(&mut body, section::RESUME_AREA, &descriptor.resume_area);
    if let Some(place) = &descriptor.stub_place {
        put(&mut body, section::STUB_PLACE, place);
    }
    if !rdma.is_empty() {
        put_bytes(&mut body, section::RDMA_EXPORTS, 0, &serialised(&rdma));
    }
    let warm = descriptor.warm.to_records(descriptor.page_shift);
    if !warm.is_empty() {
        put_bytes(&mut body, section::WARM_SET, 0, &serialised(&warm));
    }
    if let Some(whole) = &descriptor.whole {
        put(&mut body, section::WHOLE, whole);
    }
    if let Some(carried) = &descriptor.carried {
        put(&mut body, section::CARRIED_FILES, &carried.files());
    }
    // Of a file that is not there a child's host tells, which must know where.
    if !descriptor.losses.all.is_empty() || !descriptor.shared_files.is_empty() {
        put_bytes(&mut body, section::LOSSES, 0, &serialised(&descriptor.losses));
    }
    if !descriptor.shared.is_empty() {
        put_bytes(&mut body, section::SHARED, 0, &serialised(&descriptor.shared));
    }
    if descriptor.marks != Marks::default() {
        put(&mut body, section::MARKS, &descriptor.marks);
    }
    if descriptor.state != State::default() {
        put(&mut body, section::STATE, &descriptor.state);
    }
    if descriptor.credentials != OwnCredentials::default() {
        put(&mut body, section::CREDENTIALS, &descriptor.credentials);
    }
    if let Some(root) = &descriptor.root {
        put(&mut body, section::ROOT, root);
    }
    if !descriptor.pending.is_empty() {
        put(&mut body, section::PENDING, &descriptor.pending);
    }
    if !descriptor.shared_files.is_empty() {
        let is_needed = descriptor.shared_files.iter().any(|file| file.is_needed);
        let flags = if is_needed { CRITICAL } else { 0 };
        put_bytes(&mut body, section::SHARED_FILES, flags, &serialised(&descriptor.shared_files));
    }
    if descriptor.treatment != Treatment::default() {
        put(&mut body, section::TREATMENT, &descriptor.treatment);
    }
    let total = HEADER_LEN + body.len();
    let length = u32::try_from(total).ok().filter(|_| total <= MAX_DESCRIPTOR_BYTES);
    let length = length.ok_or(DescriptorError::TooLong(total))?;

    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&MAJOR.to_le_bytes());
    bytes.extend_from_slice(&MINOR.to_le_bytes());
    bytes.extend_from_slice(&descriptor.needs.machine.to_le_bytes());
    bytes.extend_from_slice(&[descriptor.page_shift, 0]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// The descriptor that `bytes` are.
///
/// # Errors
/// Anything but one whole, undamaged descriptor of a version that this code reads. After it, indices
/// (owners, files) are in range, VMAs and runs ascend.
pub fn decode(bytes: &[u8]) -> Result<Descriptor, DescriptorError> {
    let (header, body) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(DescriptorError::Magic)?;
    if header[..8] != MAGIC {
        return Err(DescriptorError::Magic);
    }
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (major, minor) = (half(8), half(10));
    if major != MAJOR {
        return Err(DescriptorError::Version { major, minor });
    }
    let expected = word(16) as usize;
    if expected > MAX_DESCRIPTOR_BYTES || bytes.len() > MAX_DESCRIPTOR_BYTES {
        return Err(DescriptorError::TooLong(expected.max(bytes.len())));
    }
    if expected != bytes.len() {
        return Err(DescriptorError::Length { expected, got: bytes.len() });
    }
    if crc32fast::hash(body) != word(20) {
        return Err(DescriptorError::Checksum);
    }
    let sections = Sections::split(body)?;
    let descriptor = sections.assemble(header[14])?;
    if descriptor.needs.machine != half(12) || header[15] != 0 {
        let reason = "it contradicts the header".to_owned();
        return Err(DescriptorError::Section { section: section::NEEDS, reason });
    }
    Ok(descriptor)
}

/// The sections that this version knows, by id.
struct Sections<'a>([Option<&'a [u8]>; section::END]);

impl<'a> Sections<'a> {
    fn split(mut body: &'a [u8]) -> Result<Self, DescriptorError> {
        let mut sections = Sections([None; section::END]);
        while !body.is_empty() {
            let broken =
                |reason: &str| DescriptorError::Section { section: 0, reason: reason.to_owned() };
            let (header, rest) = body
                .split_first_chunk::<SECTION_HEADER_LEN>()
                .ok_or_else(|| broken("a section header is cut off"))?;
            let id = u16::from_le_bytes([header[0], header[1]]);
            let flags = u16::from_le_bytes([header[2], header[3]]);
            let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
            let (section, rest) =
                rest.split_at_checked(len).ok_or_else(|| broken("a section is cut off"))?;
            match sections.0.get_mut(usize::from(id)) {
                Some(_) if id == 0 => return Err(broken("a section of id 0")),
                Some(Some(_)) => return Err(broken("a section stands twice")),
                Some(place) => *place = Some(section),
                None if flags & CRITICAL != 0 => return Err(DescriptorError::UnknownCritical(id)),
                None => {}
            }
            body = rest;
        }
        match section::REQUIRED.iter().find(|id| sections.0[usize::from(**id)].is_none()) {
            Some(missing) => Err(DescriptorError::Missing(*missing)),
            None => Ok(sections),
        }
    }

    fn parse<T: DeserializeOwned + Default>(&self, id: u16) -> Result<T, DescriptorError> {
        let Some(bytes) = self.0[usize::from(id)] else { return Ok(T::default()) };
        postcard::from_bytes(bytes)
            .map_err(|error| DescriptorError::Section { section: id, reason: error.to_string() })
    }

    fn parse_optional<T: DeserializeOwned + Default>(
        &self,
        id: u16,
    ) -> Result<Option<T>, DescriptorError> {
        self.0[usize::from(id)].map(|_| self.parse(id)).transpose()
    }

    fn carried_files(&self) -> Result<Option<CarriedFiles>, DescriptorError> {
        if self.0[usize::from(section::CARRIED_FILES)].is_none() {
            return Ok(None);
        }
        let files = self.parse::<Vec<CarriedFile>>(section::CARRIED_FILES)?;
        let section = section::CARRIED_FILES;
        let files = CarriedFiles::new(files);
        files.map(Some).map_err(|reason| DescriptorError::Section { section, reason })
    }

    fn losses(&self) -> Result<Losses, DescriptorError> {
        let losses = self.parse::<Losses>(section::LOSSES)?;
        let section = section::LOSSES;
        let broken = |reason: &str| DescriptorError::Section { section, reason: reason.to_owned() };
        losses.check().map_err(broken)?;
        // Where nothing is lost, nor can be on the child's host, nobody is told, and there is no place for it.
        let is_told =
            !losses.all.is_empty() || self.0[usize::from(section::SHARED_FILES)].is_some();
        Ok(if is_told { losses } else { Losses::default() })
    }

    fn assemble(&self, page_shift: u8) -> Result<Descriptor, DescriptorError> {
        let identity: (u64, u64) = self.parse(section::IDENTITY)?;
        if !(12..=16).contains(&page_shift) {
            let reason = format!("a page of 2^{page_shift} bytes");
            return Err(DescriptorError::Section { section: section::IDENTITY, reason });
        }
        let page_table =
            decode_page_table(self.0[usize::from(section::PAGE_TABLE)].unwrap_or(&[]), page_shift);
        let rdma = self.parse::<Vec<RdmaRecord>>(section::RDMA_EXPORTS)?;
        let owners = owner::from_records(self.parse::<Vec<OwnerRecord>>(section::OWNERS)?, rdma);
        let warm = self.parse::<Vec<WarmRecord>>(section::WARM_SET)?;
        let warm = WarmSet::from_records(warm, page_shift, MAX_PAGE)
            .map_err(|reason| DescriptorError::Section { section: section::WARM_SET, reason })?;
        let descriptor = Descriptor {
            warm,
            seed: SeedId(identity.0),
            generation: identity.1,
            needs: self.parse::<HostNeeds>(section::NEEDS)?,
            page_shift,
            owners: owners.map_err(|reason| DescriptorError::Section {
                section: section::RDMA_EXPORTS,
                reason,
            })?,
            vmas: self.parse::<Vec<Vma>>(section::VMAS)?,
            shared: self.parse::<Vec<SharedPart>>(section::SHARED)?,
            shared_files: self.parse::<Vec<SharedFile>>(section::SHARED_FILES)?,
            marks: self.parse::<Marks>(section::MARKS)?,
            page_table: page_table.map_err(|reason| DescriptorError::Section {
                section: section::PAGE_TABLE,
                reason,
            })?,
            files: self.parse::<Vec<MappedFile>>(section::FILES)?,
            threads: self.parse::<Vec<Thread>>(section::THREADS)?,
            process: self.parse::<Process>(section::PROCESS)?,
            state: self.parse::<State>(section::STATE)?,
            treatment: self.parse::<Treatment>(section::TREATMENT)?,
            pending: self.parse::<Vec<PendingSignals>>(section::PENDING)?,
            credentials: self.parse::<OwnCredentials>(section::CREDENTIALS)?,
            root: self.parse_optional::<String>(section::ROOT)?,
            open_files: self.parse::<Vec<OpenFile>>(section::OPEN_FILES)?,
            carried: self.carried_files()?,
            losses: self.losses()?,
            sites: self.parse::<Vec<CallSite>>(section::SITES)?,
            resume_area: self.parse::<ResumeArea>(section::RESUME_AREA)?,
            stub_place: self.parse_optional::<StubPlace>(section::STUB_PLACE)?,
            whole: self.parse_optional::<Whole>(section::WHOLE)?,
        };
        check(&descriptor)?;
        Ok(descriptor)
    }
}

/// Holds what the rest of the code takes for granted.
fn check(descriptor: &Descriptor) -> Result<(), DescriptorError> {
    let fail = |section: u16, reason: &str| {
        Err(DescriptorError::Section { section, reason: reason.to_owned() })
    };
    let owners = descriptor.owners.len();
    if owners == 0 || owners > MAX_OWNERS || descriptor.owners[0].seed != descriptor.seed {
        return fail(section::OWNERS, "it names no owner, too many, or another seed first");
    }
    if descriptor.threads.is_empty() {
        return fail(section::THREADS, "there is no thread");
    }
    if !descriptor.threads.iter().all(|thread| is_thread_name(&thread.name)) {
        return fail(section::THREADS, "a thread has a name that none can have");
    }
    check_whole(descriptor)?;
    if ![0, descriptor.threads.len()].contains(&descriptor.state.threads.len()) {
        return fail(section::STATE, "there is not one record for each thread");
    }
    let is_thread = |tid| descriptor.threads.iter().any(|thread| thread.tid == tid);
    if let Err(reason) = pending::check(&descriptor.pending, is_thread) {
        return fail(section::PENDING, reason);
    }
    if let Err(reason) = descriptor.credentials.check() {
        return fail(section::CREDENTIALS, reason);
    }
    if descriptor.root.as_ref().is_some_and(|root| !root.starts_with('/') || root.contains('\0')) {
        return fail(section::ROOT, "it is no path from the root");
    }
    let sites = descriptor.sites.len();
    if descriptor.stub_place.as_ref().is_some_and(|place| place.trampolines.len() != sites) {
        return fail(section::STUB_PLACE, "there is not one trampoline for each call site");
    }
    let page = descriptor.page_size();
    let mut end = SeedAddr(0);
    for vma in &descriptor.vmas {
        let aligned = (vma.range.start.0 | vma.range.end.0) & (page - 1) == 0;
        let orderly = vma.range.start >= end && vma.range.end > vma.range.start;
        if !aligned || !orderly || vma.range.end.0 / page > MAX_PAGE || vma.prot & !7 != 0 {
            return fail(section::VMAS, "VMAs are unaligned, out of order or overlap");
        }
        let file = match vma.kind {
            super::VmaKind::File { file, .. } => Some(usize::from(file)),
            _ => None,
        };
        if file.is_some_and(|file| file >= descriptor.files.len()) {
            return fail(section::VMAS, "a VMA names a file that is not in the table");
        }
        end = vma.range.end;
    }
    let mut behind = SeedAddr(0);
    for guard in &descriptor.marks.guards {
        let is_aligned = (guard.start.0 | guard.end.0) & (page - 1) == 0;
        if !is_aligned || guard.start < behind || guard.end <= guard.start || guard.end > end {
            return fail(section::MARKS, "guards are unaligned, out of order or overlap");
        }
        behind = guard.end;
    }
    let mut behind = SeedAddr(0);
    let shared_bytes = descriptor
        .shared
        .iter()
        .map(|part| u128::from(part.range.end.0.saturating_sub(part.range.start.0)));
    if descriptor.shared.len() > MAX_SHARED_OBJECTS as usize
        || shared_bytes.sum::<u128>() > u128::from(MAX_SHARED_BYTES)
    {
        return fail(section::SHARED, "it is more shared memory than any seed has copied");
    }
    for part in &descriptor.shared {
        let at = descriptor.vmas.partition_point(|vma| vma.range.start < part.range.start);
        let is_one = descriptor
            .vmas
            .get(at)
            .is_some_and(|vma| vma.range == part.range && vma.kind == super::VmaKind::Shared);
        // One of each, or a peer could have us look for ever.
        let is_next = part.range.start >= behind;
        behind = part.range.end;
        let is_whole = (part.offset & (page - 1)) == 0 && part.offset / page <= MAX_PAGE;
        if part.object >= MAX_SHARED_OBJECTS || !is_whole || !is_one || !is_next {
            return fail(
                section::SHARED,
                "it names memory that is not shared, or no part of an object",
            );
        }
    }
    if let Err(reason) = SharedFile::check(&descriptor.shared_files, &descriptor.shared) {
        return fail(section::SHARED_FILES, reason);
    }
    for run in descriptor.page_table.runs() {
        let (owner, file) = match run.source {
            Source::Zero => continue,
            Source::Owner { owner, .. } => (owner, None),
            Source::File { owner, file, .. } => (owner, Some(file)),
        };
        let file_known = file.is_none_or(|file| usize::from(file) < descriptor.files.len());
        if usize::from(owner.0) >= owners || !file_known {
            return fail(
                section::PAGE_TABLE,
                "a run names an owner or a file that is not in the table",
            );
        }
    }
    Ok(())
}

/// As PR_SET_NAME takes it whole.
fn is_thread_name(name: &[u8]) -> bool {
    name.len() <= MAX_THREAD_NAME_BYTES && !name.contains(&0)
}

fn check_whole(descriptor: &Descriptor) -> Result<(), DescriptorError> {
    let fail = |reason: &str| {
        Err(DescriptorError::Section { section: section::WHOLE, reason: reason.to_owned() })
    };
    let threads = descriptor.threads.len();
    match &descriptor.whole {
        None if threads > 1 => fail("it is missing, but there are several threads"),
        Some(_) if threads > MAX_THREADS => fail("there are more threads than a child can have"),
        Some(whole) if whole.sched.len() != threads => {
            fail("there is not one scheduling record for each thread")
        }
        Some(whole) if whole.gate.0 % 4 != 0 => fail("its gate is not aligned"),
        _ => Ok(()),
    }
}

fn put<T: Serialize>(body: &mut Vec<u8>, id: u16, value: &T) {
    put_bytes(body, id, CRITICAL, &serialised(value));
}

fn serialised<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data serialises into a growing vector")
}

fn put_bytes(body: &mut Vec<u8>, id: u16, flags: u16, bytes: &[u8]) {
    body.extend_from_slice(&id.to_le_bytes());
    body.extend_from_slice(&flags.to_le_bytes());
    body.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    body.extend_from_slice(bytes);
}

fn encode_page_table(table: &PageTable, page_shift: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 * table.runs().len());
    put_varint(&mut out, table.runs().len() as u64);
    let mut end = 0;
    for run in table.runs() {
        let start = run.range.start.0 >> page_shift;
        put_varint(&mut out, start - end);
        put_varint(&mut out, run.range.len() >> page_shift);
        end = run.range.end.0 >> page_shift;
        let at = |owner: OwnerIndex, addr: SeedAddr, out: &mut Vec<u8>| {
            out.push(owner.0);
            put_varint(out, zigzag((addr.0 >> page_shift).cast_signed() - start.cast_signed()));
        };
        match run.source {
            Source::Zero => out.push(0),
            Source::Owner { owner, addr } => {
                out.push(1);
                at(owner, addr, &mut out);
            }
            Source::File { file, offset, owner, addr } => {
                out.push(2);
                at(owner, addr, &mut out);
                put_varint(&mut out, u64::from(file));
                put_varint(&mut out, offset >> page_shift);
            }
        }
    }
    out
}

fn decode_page_table(bytes: &[u8], page_shift: u8) -> Result<PageTable, String> {
    let mut rest = bytes;
    let count = take_varint(&mut rest)?;
    let mut runs = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(bytes.len() / 3));
    let mut page = 0u64;
    for _ in 0..count {
        page += take_varint(&mut rest)?;
        let start = page;
        page += take_varint(&mut rest)?;
        if page > MAX_PAGE {
            return Err("a run lies outside of the address space".to_owned());
        }
        let source = take_source(&mut rest, start, page_shift)?;
        runs.push(Run { range: SeedRange::new(start << page_shift, page << page_shift), source });
    }
    if !rest.is_empty() {
        return Err("bytes behind the last run".to_owned());
    }
    PageTable::new(runs, 1 << page_shift).map_err(|error| error.to_string())
}

fn take_source(rest: &mut &[u8], start: u64, page_shift: u8) -> Result<Source, String> {
    let at = |rest: &mut &[u8]| -> Result<(OwnerIndex, SeedAddr), String> {
        let owner = take_byte(rest)?;
        let page = start.cast_signed() + unzigzag(take_varint(rest)?);
        let page = u64::try_from(page).ok().filter(|page| *page <= MAX_PAGE);
        let page = page.ok_or("an owner's address lies outside of the address space")?;
        Ok((OwnerIndex(owner), SeedAddr(page << page_shift)))
    };
    match take_byte(rest)? {
        0 => Ok(Source::Zero),
        1 => at(rest).map(|(owner, addr)| Source::Owner { owner, addr }),
        2 => {
            let (owner, addr) = at(rest)?;
            let file = u16::try_from(take_varint(rest)?).map_err(|_| "a file index above 65535")?;
            let page = take_varint(rest)?;
            if page > MAX_PAGE {
                return Err("a file offset that no file has".to_owned());
            }
            let offset = page << page_shift;
            Ok(Source::File { file, offset, owner, addr })
        }
        kind => Err(format!("a run of unknown kind {kind}")),
    }
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, String> {
    let (first, tail) = rest.split_first().ok_or("cut off")?;
    *rest = tail;
    Ok(*first)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// Up to 2^56: enough for pages, too little for an overflow in the sums above.
fn take_varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..56).step_by(7) {
        let byte = take_byte(rest)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number of more than 56 bits".to_owned())
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
