//! What a seed has mapped: its VMAs, what backs them, and which of their pages are its own.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use super::inherited::{FilePlace, Inherited, Piece, Shown};
use super::smaps::SmapsEntry;
use super::{DescribeError, SeedFiles};
use crate::descriptor::{MappedFile, OwnerIndex, Run, SeedAddr, SeedRange, Source, Vma, VmaKind};
use crate::sys::pagemap::{self, PageKind};

/// As /proc names the memory of an io_uring's rings.
const IO_URING: &str = "anon_inode:[io_uring]";

/// VMAs, their pages and the table of files, all in ascending order.
pub(super) struct Mapped<'a> {
    pagemap: &'a File,
    page_size: u64,
    stack_top: u64,
    inherited: Option<&'a Inherited>,
    pub(super) vmas: Vec<Vma>,
    pub(super) runs: Vec<Run>,
    pub(super) files: Vec<MappedFile>,
    pub(super) guards: Vec<SeedRange>,
    pub(super) shown: Vec<Shown>,
    known: HashMap<(u64, u64), Option<u16>>,
    /// The table's index of each inherited file that is mapped.
    known_inherited: HashMap<u16, u16>,
}

impl<'a> Mapped<'a> {
    pub(super) fn new(
        files: &'a SeedFiles,
        page_size: u64,
        stack_top: u64,
        inherited: Option<&'a Inherited>,
    ) -> Self {
        Mapped {
            pagemap: &files.pagemap,
            page_size,
            stack_top,
            inherited,
            vmas: Vec::new(),
            runs: Vec::new(),
            files: Vec::new(),
            guards: Vec::new(),
            shown: Vec::new(),
            known: HashMap::new(),
            known_inherited: HashMap::new(),
        }
    }

    pub(super) fn add(
        &mut self,
        entry: &SmapsEntry,
        copies: &[(SeedRange, SeedAddr)],
    ) -> Result<(), DescribeError> {
        if let Some(pieces) = self.inherited.and_then(|files| files.pieces(entry)) {
            return pieces.into_iter().try_for_each(|piece| self.add_inherited(piece));
        }
        let kind = match entry.name {
            "[vsyscall]" => return Ok(()),
            "[vdso]" => VmaKind::Vdso,
            name if name.starts_with("[vvar") => VmaKind::Vvar,
            // What lies in rings is the parent's, and changes as soon as it goes on.
            IO_URING => VmaKind::Hole,
            _ if entry.device => VmaKind::Hole,
            _ if entry.shared => VmaKind::Shared,
            _ if entry.range.contains(SeedAddr(self.stack_top)) => VmaKind::Stack,
            _ if entry.inode == 0 => VmaKind::Anonymous,
            _ => match self.file(entry) {
                Some(file) => VmaKind::File { file, offset: entry.offset },
                // Not to be told what it is: its bytes are carried as the seed's own.
                None => VmaKind::Anonymous,
            },
        };
        match &kind {
            VmaKind::Vvar | VmaKind::Hole => {}
            // For hosts with another kernel.
            VmaKind::Vdso => self.add_owned(entry.range, entry.range.start),
            VmaKind::Shared => self.add_shared(entry, copies)?,
            _ => self.add_private(entry, &kind)?,
        }
        self.vmas.push(Vma { range: entry.range, prot: entry.prot, kind, flags: entry.flags });
        Ok(())
    }

    /// Memory that comes from the image of a child's seed.
    fn add_inherited(&mut self, piece: Piece<'_>) -> Result<(), DescribeError> {
        let Piece { entry, file } = piece;
        let file = file.and_then(|FilePlace { file, offset, own }| {
            let file = self.inherited_file(file)?;
            self.shown.push(Shown { range: entry.range, own });
            Some(VmaKind::File { file, offset })
        });
        let kind = file.unwrap_or(VmaKind::Anonymous);
        let first = self.runs.len();
        self.add_private(&entry, &kind)?;
        if let Some(inherited) = self.inherited {
            let added = self.runs.split_off(first);
            self.runs.extend(added.into_iter().flat_map(|run| inherited.cut(&entry, run)));
        }
        self.vmas.push(Vma { range: entry.range, prot: entry.prot, kind, flags: entry.flags });
        Ok(())
    }

    /// The table index of an inherited file.
    fn inherited_file(&mut self, file: u16) -> Option<u16> {
        if let Some(known) = self.known_inherited.get(&file) {
            return Some(*known);
        }
        let mapped = self.inherited?.file(file)?.clone();
        let index = u16::try_from(self.files.len()).ok()?;
        self.files.push(mapped);
        self.known_inherited.insert(file, index);
        Some(index)
    }

    /// Shared memory that was copied at prepare is owned at the copy's address. What was not copied (a
    /// read-only shared file) is owned where it lies.
    fn add_shared(
        &mut self,
        entry: &SmapsEntry,
        copies: &[(SeedRange, SeedAddr)],
    ) -> Result<(), DescribeError> {
        let copy = copies.iter().find(|(range, _)| *range == entry.range);
        self.add_owned(entry.range, copy.map_or(entry.range.start, |(_, copy)| *copy));
        self.pages_but_guards(entry).map(drop)
    }

    /// The pages of a mapping; its guards are noted.
    fn pages_but_guards(
        &mut self,
        entry: &SmapsEntry,
    ) -> Result<Vec<(SeedRange, PageKind)>, DescribeError> {
        let mut pages = pagemap::existing_pages(self.pagemap, entry.range, self.page_size)
            .map_err(|error| DescribeError::Read { what: "pagemap", error })?;
        let guards = pages.extract_if(.., |(_, kind)| *kind == PageKind::Guard);
        self.guards.extend(guards.map(|(range, _)| range));
        Ok(pages)
    }

    /// What the seed itself has, at `addr`.
    fn add_owned(&mut self, range: SeedRange, addr: SeedAddr) {
        self.runs.push(Run { range, source: Source::Owner { owner: OwnerIndex(0), addr } });
    }

    fn add_private(&mut self, entry: &SmapsEntry, kind: &VmaKind) -> Result<(), DescribeError> {
        let pages = self.pages_but_guards(entry)?;
        let owned = |start: SeedAddr| Source::Owner { owner: OwnerIndex(0), addr: start };
        if entry.inode == 0 {
            self.runs.extend(pages.into_iter().map(|(range, kind)| Run {
                range,
                source: if kind == PageKind::Zero { Source::Zero } else { owned(range.start) },
            }));
            return Ok(());
        }
        // A private file mapping: every page that is not the seed's own is the file's, touched or not.
        let from_file = |start: SeedAddr| match *kind {
            VmaKind::File { file, offset } => Source::File {
                file,
                offset: offset + (start.0 - entry.range.start.0),
                owner: OwnerIndex(0),
                addr: start,
            },
            _ => owned(start),
        };
        let mut at = entry.range.start;
        for (range, kind) in pages {
            if kind == PageKind::File {
                continue;
            }
            if at < range.start {
                let range = SeedRange { start: at, end: range.start };
                self.runs.push(Run { range, source: from_file(at) });
            }
            self.runs.push(Run { range, source: owned(range.start) });
            at = range.end;
        }
        if at < entry.range.end {
            let range = SeedRange { start: at, end: entry.range.end };
            self.runs.push(Run { range, source: from_file(at) });
        }
        Ok(())
    }

    /// The table index of a mapped file, if the path still leads to it, or it has none any more. In a child, what is
    /// mapped and has no path is the image.
    fn file(&mut self, entry: &SmapsEntry) -> Option<u16> {
        let key = (entry.device_number, entry.inode);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let found = fs::metadata(entry.name).ok().filter(|meta| {
            meta.is_file() && meta.ino() == entry.inode && meta.dev() == entry.device_number
        });
        let found = found.map(|meta| {
            let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
            (meta.size(), mtime_ns)
        });
        let is_childs = self.inherited.is_some();
        let unnamed = (!is_childs && is_deleted(entry.name)).then_some((0, 0));
        let index = found.or(unnamed).and_then(|(size, mtime_ns)| {
            let index = u16::try_from(self.files.len()).ok()?;
            let path = entry.name.to_owned();
            self.files.push(MappedFile { path, size, mtime_ns, dev_ino: key });
            Some(index)
        });
        self.known.insert(key, index);
        index
    }
}

/// What the kernel says of a file without a name; memory of huge pages is one only to the kernel.
fn is_deleted(name: &str) -> bool {
    name.ends_with(" (deleted)") && !name.starts_with("/anon_hugepage")
}
