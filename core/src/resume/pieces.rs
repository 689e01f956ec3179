//! A seed's VMAs as the mappings that make them up again in a child.

use std::collections::HashMap;

use super::compile::SharedView;
use crate::descriptor::{
    Descriptor, ImageOffset, Run, SeedAddr, SeedRange, Source, Vma, VmaFlags, VmaKind,
};
use crate::wire::local::MAX_ARGV_BYTES;

/// An absent stretch shorter than this many pages stays part of the image: a mapping of its own costs each
/// child's clone 0.3-0.6 us, a miss on an absent page is answered without a READ.
const MIN_ABSENT_PAGES: u64 = 32;

/// What a mapping shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backing {
    /// Fresh zero memory.
    Anonymous,
    /// The image from this offset on.
    Image(ImageOffset),
    /// A local file, by its descriptor in the template, from this offset on.
    File { fd: u32, offset: u64 },
    /// Likewise, to write to it.
    Shared { fd: u32, offset: u64 },
}

/// One mapping to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: SeedRange,
    pub(super) backing: Backing,
    pub(super) prot: u8,
    /// Of the seed's VMA.
    pub(super) flags: VmaFlags,
    /// Grows down.
    pub(super) stack: bool,
    /// Its present pages are copied in: argv and environ are read from anonymous memory alone.
    pub(super) copied: bool,
}

/// Where a seed's pages are to be had here.
pub(super) struct Places<'a> {
    pub(super) desc: &'a Descriptor,
    pub(super) offset_of: &'a dyn Fn(SeedAddr) -> Option<ImageOffset>,
    /// Descriptors, in the template, of local files that are identical.
    pub(super) files: &'a HashMap<u16, u32>,
    /// Where files of this host are mapped shared.
    pub(super) shared: &'a [SharedView],
}

impl Places<'_> {
    /// The mappings of all VMAs, ascending, neighbours merged. The error is an address that the image has
    /// no place for.
    pub(super) fn pieces(&self) -> Result<Vec<Piece>, SeedAddr> {
        let mut pieces: Vec<Piece> = Vec::new();
        for vma in &self.desc.vmas {
            let prot = if vma.kind == VmaKind::Hole { 0 } else { vma.prot };
            for (range, backing) in self.backings(vma)? {
                let (flags, stack, copied) = (vma.flags, is_stack(vma), self.is_copied(vma));
                let piece = Piece { range, backing, prot, flags, stack, copied };
                match pieces.last_mut() {
                    Some(last) if last.continues_as(&piece) => last.range.end = piece.range.end,
                    _ => pieces.push(piece),
                }
            }
        }
        Ok(pieces)
    }

    /// Runs of `range` whose bytes must come from somewhere.
    pub(super) fn present(&self, range: SeedRange) -> impl Iterator<Item = Run> + '_ {
        self.desc.page_table.overlapping(range).filter(|run| run.source != Source::Zero)
    }

    pub(super) fn image_at(&self, addr: SeedAddr) -> Result<Backing, SeedAddr> {
        (self.offset_of)(addr).map(Backing::Image).ok_or(addr)
    }

    fn backings(&self, vma: &Vma) -> Result<Vec<(SeedRange, Backing)>, SeedAddr> {
        let whole = |backing| Ok(vec![(vma.range, backing)]);
        let zeroed = vma.flags.has(VmaFlags::WIPE_ON_FORK) || vma.flags.has(VmaFlags::DROPPABLE);
        match vma.kind {
            VmaKind::Vvar | VmaKind::Vdso => Ok(Vec::new()),
            VmaKind::Hole => whole(Backing::Anonymous),
            _ if zeroed || self.is_copied(vma) => whole(Backing::Anonymous),
            VmaKind::File { file, offset } => match self.files.get(&file) {
                Some(fd) if self.is_pristine(vma.range, file, offset) => {
                    whole(Backing::File { fd: *fd, offset })
                }
                _ => whole(self.image_at(vma.range.start)?),
            },
            VmaKind::Shared => match self.shared.iter().find(|view| view.range == vma.range) {
                Some(view) => whole(Backing::Shared { fd: view.fd, offset: view.offset }),
                None => self.split(vma.range),
            },
            VmaKind::Anonymous | VmaKind::Stack => self.split(vma.range),
        }
    }

    /// A stack, and the memory that an argv was given in.
    fn is_copied(&self, vma: &Vma) -> bool {
        let (start, end) = self.desc.process.layout.args;
        let argv = SeedRange::new(start, end.max(start));
        is_stack(vma)
            || vma.kind == VmaKind::Anonymous
                && vma.range.len() <= MAX_ARGV_BYTES as u64
                && !vma.range.intersect(argv).is_empty()
    }

    /// Whether every page of `range` is still the file's, and no call site in it is patched.
    fn is_pristine(&self, range: SeedRange, file: u16, offset: u64) -> bool {
        if self.desc.sites.iter().any(|site| range.contains(site.addr)) {
            return false;
        }
        let mut upto = range.start;
        for run in self.desc.page_table.overlapping(range) {
            let wanted = offset + (run.range.start.0 - range.start.0);
            let same = matches!(run.source,
                Source::File { file: f, offset: o, .. } if f == file && o == wanted);
            if !same || run.range.start != upto {
                return false;
            }
            upto = run.range.end;
        }
        upto == range.end
    }

    /// Whether absent memory is to be a part of the image. Guards are not: what a discard puts in place of a part of the
    /// image has none.
    fn joins(&self, absent: SeedRange, shortest: u64) -> bool {
        let guards = &self.desc.marks.guards;
        let next = guards.partition_point(|guard| guard.end <= absent.start);
        let has_guard = guards.get(next).is_some_and(|guard| guard.start < absent.end);
        absent.len() < shortest && !has_guard
    }

    /// Present stretches from the image, long absent ones fresh.
    fn split(&self, range: SeedRange) -> Result<Vec<(SeedRange, Backing)>, SeedAddr> {
        let shortest = MIN_ABSENT_PAGES * self.desc.page_size();
        let mut stretches: Vec<SeedRange> = Vec::new();
        for run in self.present(range) {
            let before = stretches.last().map_or(range.start, |last| last.end);
            let is_short = self.joins(SeedRange { start: before, end: run.range.start }, shortest);
            match stretches.last_mut() {
                Some(last) if is_short => last.end = run.range.end,
                None if is_short => {
                    stretches.push(SeedRange { start: range.start, end: run.range.end });
                }
                _ => stretches.push(run.range),
            }
        }
        match stretches.last_mut() {
            Some(last) if self.joins(SeedRange { start: last.end, end: range.end }, shortest) => {
                last.end = range.end;
            }
            _ => {}
        }
        let mut backings = Vec::with_capacity(stretches.len() * 2 + 1);
        let mut upto = range.start;
        for stretch in stretches {
            if upto < stretch.start {
                backings.push((SeedRange { start: upto, end: stretch.start }, Backing::Anonymous));
            }
            backings.push((stretch, self.image_at(stretch.start)?));
            upto = stretch.end;
        }
        if upto < range.end {
            backings.push((SeedRange { start: upto, end: range.end }, Backing::Anonymous));
        }
        Ok(backings)
    }
}

impl Piece {
    /// Whether one mapping can be both: `next` goes on where this one ends, in memory and in what it
    /// shows.
    fn continues_as(&self, next: &Piece) -> bool {
        let len = self.range.len();
        let shown = match (self.backing, next.backing) {
            (Backing::Anonymous, Backing::Anonymous) => true,
            (Backing::Image(a), Backing::Image(b)) => a.0 + len == b.0,
            (Backing::File { fd: a, offset: x }, Backing::File { fd: b, offset: y })
            | (Backing::Shared { fd: a, offset: x }, Backing::Shared { fd: b, offset: y }) => {
                a == b && x + len == y
            }
            _ => false,
        };
        shown
            && self.range.end == next.range.start
            && (self.prot, self.flags) == (next.prot, next.flags)
            && !self.copied
            && !next.copied
    }
}

fn is_stack(vma: &Vma) -> bool {
    vma.kind == VmaKind::Stack || vma.flags.has(VmaFlags::GROWS_DOWN)
}
