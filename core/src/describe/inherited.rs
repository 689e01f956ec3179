//! What a child has from the image of its seed and was a file to that one: to a seed made of the child it is one still, so
//! that a page of it that is discarded in *its* children shows the file.
//!
//! ```text
//!  a file of the first seed's --> its image --> a mapping of the child's, by its offset in the image --> a file, here
//! ```
//! No path of this host leads to such a file. Its bytes are this seed's to give, and where a page of it was written, the
//! image's, which has those beneath, too (`descriptor/beneath.rs`).

use super::smaps::SmapsEntry;
use crate::descriptor::{
    BENEATH, Descriptor, ImageOffset, MappedFile, Run, SeedAddr, SeedRange, Source, VmaKind,
};

/// The files in the image of a child's seed.
#[derive(Debug)]
pub struct Inherited {
    /// Device, as stat(2) tells it, and inode of the image's file.
    image: (u64, u64),
    files: Vec<MappedFile>,
    /// Ascending in their places, disjoint.
    parts: Vec<Part>,
    /// From where to where the image has what was written, and not a file: likewise.
    written: Vec<(u64, u64)>,
}

/// A part of a file in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// Where in the image it begins.
    place: u64,
    bytes: u64,
    file: u16,
    /// Where in the file it begins.
    offset: u64,
    /// Where the image has the file's own bytes.
    own: u64,
}

/// A VMA of a file whose own bytes an image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The VMA.
    pub range: SeedRange,
    /// The place of its first byte.
    pub own: ImageOffset,
}

/// A piece of a mapping of the image.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    pub(super) entry: SmapsEntry<'a>,
    /// What it was to the first seed; `None`: no file.
    pub(super) file: Option<FilePlace>,
}

/// Where a mapping of a file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FilePlace {
    pub(super) file: u16,
    pub(super) offset: u64,
    /// Where the image has the file's own bytes.
    pub(super) own: ImageOffset,
}

impl Inherited {
    /// The files of `seed`, whose image's file is `image`; `place_of` tells where in it an address lies.
    pub fn of(
        seed: &Descriptor,
        image: (u64, u64),
        place_of: &dyn Fn(SeedAddr) -> Option<ImageOffset>,
    ) -> Inherited {
        let beneath = seed.beneath();
        let parts = seed.vmas.iter().chain(&beneath).filter_map(|vma| {
            let VmaKind::File { file, offset } = vma.kind else { return None };
            let place = place_of(vma.range.start)?.0;
            let own = place_of(SeedAddr(vma.range.start.0 + BENEATH)).map_or(place, |own| own.0);
            Some(Part { place, bytes: vma.range.len(), file, offset, own })
        });
        let mut parts: Vec<Part> = parts.collect();
        parts.sort_unstable_by_key(|part| part.place);
        let files = seed.vmas.iter().filter(|vma| matches!(vma.kind, VmaKind::File { .. }));
        let runs = files.flat_map(|vma| seed.page_table.overlapping(vma.range));
        let written = runs.filter(|run| !matches!(run.source, Source::File { .. }));
        let place = |run: Run| place_of(run.range.start).map(|at| (at.0, at.0 + run.range.len()));
        let mut written: Vec<(u64, u64)> = written.filter_map(place).collect();
        written.sort_unstable();
        // Nothing of this host is to be taken for one.
        let nowhere = |file: &MappedFile| MappedFile {
            path: file.path.clone(),
            size: 0,
            mtime_ns: 0,
            dev_ino: (0, 0),
        };
        Inherited { image, files: seed.files.iter().map(nowhere).collect(), parts, written }
    }

    pub(super) fn file(&self, index: u16) -> Option<&MappedFile> {
        self.files.get(usize::from(index))
    }

    /// The pieces of a mapping, each of one file or of none; `None` if it is not of the image.
    pub(super) fn pieces<'a>(&self, entry: &SmapsEntry<'a>) -> Option<Vec<Piece<'a>>> {
        if entry.shared || (entry.device_number, entry.inode) != self.image {
            return None;
        }
        let end = entry.offset + entry.range.len();
        let mut pieces = Vec::new();
        let mut at = entry.offset;
        let mut add = |from: u64, to: u64, file| {
            let [start, end] = [from, to].map(|at| entry.range.start.0 + (at - entry.offset));
            let piece = entry.piece(SeedRange::new(start, end));
            pieces.extend(piece.map(|entry| Piece { entry, file }));
        };
        let first = self.parts.partition_point(|part| part.place + part.bytes <= at);
        for part in self.parts[first..].iter().take_while(|part| part.place < end) {
            let from = part.place.max(at);
            let to = end.min(part.place + part.bytes);
            let inside = from - part.place;
            add(at, from, None);
            let (offset, own) = (part.offset + inside, ImageOffset(part.own + inside));
            add(from, to, Some(FilePlace { file: part.file, offset, own }));
            at = to;
        }
        add(at, end, None);
        Some(pieces)
    }

    /// A run of `piece`, where it is a file's: cut to what is, and what was written before the child had it.
    pub(super) fn cut(&self, piece: &SmapsEntry<'_>, run: Run) -> Vec<Run> {
        let Source::File { file, offset, owner, addr } = run.source else { return vec![run] };
        let start = piece.offset + (run.range.start.0 - piece.range.start.0);
        let end = start + run.range.len();
        let mut cut = Vec::new();
        let mut at = start;
        let mut add = |from: u64, to: u64, is_written: bool| {
            let [first, last] = [from, to].map(|place| run.range.start.0 + (place - start));
            let addr = SeedAddr(addr.0 + (from - start));
            let source = match is_written {
                true => Source::Owner { owner, addr },
                false => Source::File { file, offset: offset + (from - start), owner, addr },
            };
            if from < to {
                cut.push(Run { range: SeedRange::new(first, last), source });
            }
        };
        let first = self.written.partition_point(|(_, to)| *to <= start);
        for (from, to) in self.written[first..].iter().take_while(|(from, _)| *from < end) {
            let (from, to) = (at.max(*from), end.min(*to));
            add(at, from, false);
            add(from, to, true);
            at = to;
        }
        add(at, end, false);
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{OwnerIndex, PageTable, Vma, VmaFlags};
    use crate::resume::compile::tests::descriptor;

    const PAGE: u64 = 4096;

    fn range(first: u64, pages: u64) -> SeedRange {
        SeedRange::new(first * PAGE, (first + pages) * PAGE)
    }

    /// Two mappings of one file side by side, of which pages of the first were written; one of another file.
    fn seed() -> Descriptor {
        let vma = |range, file, page: u64| Vma {
            range,
            prot: 3,
            kind: VmaKind::File { file, offset: page * PAGE },
            flags: VmaFlags::default(),
        };
        let owner = Source::Owner { owner: OwnerIndex(0), addr: SeedAddr(100 * PAGE) };
        let runs = vec![Run { range: range(100, 1), source: owner }];
        let mut seed = descriptor();
        seed.vmas =
            vec![vma(range(100, 2), 0, 5), vma(range(102, 2), 0, 20), vma(range(200, 3), 1, 0)];
        seed.page_table = PageTable::new(runs, PAGE).unwrap();
        let file = |path: &str| MappedFile {
            path: path.to_owned(),
            size: 9,
            mtime_ns: 9,
            dev_ino: (8, 9),
        };
        seed.files = vec![file("/one"), file("/two")];
        seed
    }

    /// Places are addresses, those of what lies beneath from page 1000 on.
    fn inherited() -> Inherited {
        let place_of = |addr: SeedAddr| match addr.0.checked_sub(BENEATH) {
            None => Some(ImageOffset(addr.0)),
            Some(at) if at < 104 * PAGE => Some(ImageOffset(at + 900 * PAGE)),
            Some(_) => None,
        };
        Inherited::of(&seed(), (7, 77), &place_of)
    }

    fn entry(first_place: u64, pages: u64) -> SmapsEntry<'static> {
        SmapsEntry {
            range: range(5000, pages),
            prot: 3,
            shared: false,
            offset: first_place * PAGE,
            device_number: 7,
            inode: 77,
            name: "/",
            flags: VmaFlags::default(),
            device: false,
        }
    }

    fn place(file: u16, page: u64, own: u64) -> Option<FilePlace> {
        Some(FilePlace { file, offset: page * PAGE, own: ImageOffset(own * PAGE) })
    }

    /// First page, pages, what.
    fn pieces(entry: &SmapsEntry<'_>) -> Vec<(u64, u64, Option<FilePlace>)> {
        let pieces = inherited().pieces(entry).unwrap();
        let in_pages = |Piece { entry: SmapsEntry { range, .. }, file }: &Piece<'_>| {
            (range.start.0 / PAGE, range.len() / PAGE, *file)
        };
        pieces.iter().map(in_pages).collect()
    }

    #[test]
    fn a_mapping_of_the_image_is_what_lies_there() {
        // A part of one, and two that have become one mapping.
        assert_eq!(pieces(&entry(101, 1)), [(5000, 1, place(0, 6, 1001))]);
        assert_eq!(
            pieces(&entry(100, 4)),
            [(5000, 2, place(0, 5, 1000)), (5002, 2, place(0, 20, 1002))]
        );
        // Of what was not written the image has the file's own bytes where it was mapped, and beneath each what it is.
        assert_eq!(pieces(&entry(201, 1)), [(5000, 1, place(1, 1, 201))]);
        assert_eq!(pieces(&entry(1001, 1)), [(5000, 1, place(0, 6, 1001))]);
        // Memory that was no file, and such around one.
        assert_eq!(pieces(&entry(300, 2)), [(5000, 2, None)]);
        assert_eq!(
            pieces(&entry(199, 5)),
            [(5000, 1, None), (5001, 3, place(1, 0, 200)), (5004, 1, None)]
        );
    }

    #[test]
    fn what_was_written_before_is_the_seeds_and_no_file() {
        let (inherited, piece, owner) = (inherited(), entry(100, 2), OwnerIndex(0));
        let file = |page: u64| Source::File {
            file: 0,
            offset: (page - 4995) * PAGE,
            owner,
            addr: SeedAddr(page * PAGE),
        };
        let whole = Run { range: range(5000, 2), source: file(5000) };
        let owned = Source::Owner { owner, addr: SeedAddr(5000 * PAGE) };
        assert_eq!(
            inherited.cut(&piece, whole),
            [
                Run { range: range(5000, 1), source: owned },
                Run { range: range(5001, 1), source: file(5001) },
            ]
        );
        let behind = Run { range: range(5001, 1), source: file(5001) };
        assert_eq!(inherited.cut(&piece, behind), [behind]);
        // Of the file's own bytes, which the image has beneath, nothing was written; what is the child's is the child's.
        assert_eq!(inherited.cut(&entry(1000, 2), whole), [whole]);
        let own = Run { range: range(5000, 2), source: owned };
        assert_eq!(inherited.cut(&piece, own), [own]);
    }

    #[test]
    fn only_private_mappings_of_the_image_are_its_and_no_file_of_a_host_is_one() {
        let inherited = inherited();
        assert!(inherited.pieces(&SmapsEntry { inode: 78, ..entry(100, 1) }).is_none());
        assert!(inherited.pieces(&SmapsEntry { shared: true, ..entry(100, 1) }).is_none());
        let nowhere = MappedFile { path: "/two".into(), size: 0, mtime_ns: 0, dev_ino: (0, 0) };
        assert_eq!(inherited.file(1), Some(&nowhere));
        assert_eq!(inherited.file(2), None);
    }
}
