//! proc_pid_smaps(5), as far as a descriptor needs it.

use crate::descriptor::{SeedRange, VmaFlags};

/// One VMA of smaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SmapsEntry<'a> {
    pub(super) range: SeedRange,
    pub(super) prot: u8,
    pub(super) shared: bool,
    pub(super) offset: u64,
    /// As stat(2) gives it.
    pub(super) device_number: u64,
    pub(super) inode: u64,
    pub(super) name: &'a str,
    pub(super) flags: VmaFlags,
    /// `io` or `pf`: a device's memory, not ordinary pages.
    pub(super) device: bool,
}

const FLAGS: [(&str, u16); 12] = [
    ("wf", VmaFlags::WIPE_ON_FORK),
    ("dc", VmaFlags::DONT_FORK),
    ("hg", VmaFlags::HUGE_PAGE),
    ("nh", VmaFlags::NO_HUGE_PAGE),
    ("gd", VmaFlags::GROWS_DOWN),
    ("dd", VmaFlags::DONT_DUMP),
    ("lo", VmaFlags::LOCKED),
    ("dp", VmaFlags::DROPPABLE),
    ("nr", VmaFlags::NO_RESERVE),
    ("sl", VmaFlags::SEALED),
    ("mg", VmaFlags::MERGEABLE),
    ("ss", VmaFlags::SHADOW_STACK),
];

/// The VMAs of an smaps text, in its order.
pub(super) fn parse(text: &str) -> Vec<SmapsEntry<'_>> {
    let mut entries: Vec<SmapsEntry<'_>> = Vec::with_capacity(256);
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags: ") {
            if let Some(entry) = entries.last_mut() {
                take_flags(entry, flags);
            }
        } else if line
            .as_bytes()
            .first()
            .is_some_and(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
            && let Some(entry) = header(line)
        {
            entries.push(entry);
        }
    }
    entries
}

fn take_flags(entry: &mut SmapsEntry<'_>, flags: &str) {
    for flag in flags.split_ascii_whitespace() {
        match FLAGS.iter().find(|(name, _)| *name == flag) {
            Some((_, bit)) => entry.flags.0 |= bit,
            None => entry.device |= matches!(flag, "io" | "pf") && !entry.name.starts_with("[v"),
        }
    }
}

/// The entries less `holes`: an entry that only touches a hole keeps what lies outside of it (the kernel
/// merges neighbouring VMAs, so a hole need not be an entry of its own).
pub(super) fn without<'a>(
    entries: Vec<SmapsEntry<'a>>,
    holes: &[SeedRange],
) -> Vec<SmapsEntry<'a>> {
    let mut left = entries;
    for hole in holes {
        left = left.into_iter().flat_map(|entry| entry.less(*hole)).collect();
    }
    left
}

/// The entries, with `flag` on what lies in `ranges`: an entry of which a part does is split.
pub(super) fn marked<'a>(
    entries: Vec<SmapsEntry<'a>>,
    ranges: &[SeedRange],
    flag: u16,
) -> Vec<SmapsEntry<'a>> {
    let mut pieces = entries;
    for range in ranges {
        pieces = pieces.into_iter().flat_map(|entry| entry.marked(*range, flag)).collect();
    }
    pieces
}

impl SmapsEntry<'_> {
    fn marked(self, range: SeedRange, flag: u16) -> impl Iterator<Item = Self> {
        let inside = self.range.intersect(range);
        let [before, behind] = if inside.is_empty() {
            [Some(self), None]
        } else {
            let piece = |start, end| self.piece(SeedRange { start, end });
            [piece(self.range.start, inside.start), piece(inside.end, self.range.end)]
        };
        let marked = self
            .piece(inside)
            .map(|piece| SmapsEntry { flags: VmaFlags(piece.flags.0 | flag), ..piece });
        [before, marked, behind].into_iter().flatten()
    }

    /// The part of it that is `range`, which lies in it; `None` if that is empty.
    pub(super) fn piece(self, range: SeedRange) -> Option<Self> {
        (!range.is_empty()).then(|| {
            let offset = self.offset + (range.start.0 - self.range.start.0);
            SmapsEntry { range, offset, ..self }
        })
    }

    fn less(self, hole: SeedRange) -> impl Iterator<Item = Self> {
        let before = SeedRange {
            start: self.range.start,
            end: self.range.end.min(hole.start).max(self.range.start),
        };
        let after = SeedRange {
            start: self.range.start.max(hole.end).min(self.range.end),
            end: self.range.end,
        };
        let apart = self.range.intersect(hole).is_empty();
        let pieces = if apart { [Some(self.range), None] } else { [Some(before), Some(after)] };
        pieces.into_iter().flatten().filter(|piece| !piece.is_empty()).map(move |range| {
            let offset = self.offset + (range.start.0 - self.range.start.0);
            SmapsEntry { range, offset, ..self }
        })
    }
}

/// `start-end perms offset major:minor inode   name`
fn header(line: &str) -> Option<SmapsEntry<'_>> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let perms = fields.next()?.as_bytes();
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    let name = fields.next().unwrap_or("").trim_start();
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (major, minor) = (u32::try_from(hex(major)?).ok()?, u32::try_from(hex(minor)?).ok()?);
    let bit = |at: usize, is: u8, bit: u8| if perms.get(at) == Some(&is) { bit } else { 0 };
    // The seed hands the file over: it may be any.
    let (start, end) = (hex(start)?, hex(end)?);
    offset.checked_add(end.checked_sub(start)?)?;
    Some(SmapsEntry {
        range: SeedRange::new(start, end),
        prot: bit(0, b'r', 1) | bit(1, b'w', 2) | bit(2, b'x', 4),
        shared: perms.get(3) == Some(&b's'),
        offset,
        device_number: libc::makedev(major, minor),
        inode,
        name,
        flags: VmaFlags::default(),
        device: false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAMPLE: &str = "\
7f0000000000-7f0000002000 rw-s 00001000 fe:00 42                         /tmp/with space (deleted)
Size:                  8 kB
VmFlags: rd wr mr mw me ms dc wf
";

    #[test]
    fn every_truncation_has_the_mapping_whole_or_not() {
        for cut in 0..=SAMPLE.len() {
            let entries = parse(&SAMPLE[..cut]);
            assert!(entries.len() <= 1);
            for entry in entries {
                assert!(entry.range.end.0 <= 0x7f00_0000_2000, "{cut}: {}", entry.range);
            }
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "[0-9a-f\\- rwxps:/\\[\\]VmFlags\n]{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn changed_text(changes in prop::collection::vec((any::<usize>(), 0u8..128), 1..8)) {
            let mut bytes = SAMPLE.as_bytes().to_vec();
            let len = bytes.len();
            changes.iter().for_each(|(at, value)| bytes[at % len] = *value);
            let _ = parse(std::str::from_utf8(&bytes).unwrap());
        }
    }

    #[test]
    fn headers_and_flags_are_taken() {
        let text = "\
7f0000000000-7f0000002000 rw-s 00001000 fe:00 42                         /tmp/with space (deleted)
Size:                  8 kB
VmFlags: rd wr mr mw me ms dc wf
7ffc8a9d5000-7ffc8a9f6000 ---p 00000000 00:00 0
VmFlags: mr mw me gd ac
7fff00000000-7fff00001000 r--p 00000000 00:00 0                          [vvar]
VmFlags: rd mr pf io de dd sd
";
        let entries = parse(text);
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].range, SeedRange::new(0x7f00_0000_0000, 0x7f00_0000_2000));
        assert_eq!((entries[0].prot, entries[0].shared, entries[0].offset), (3, true, 0x1000));
        assert_eq!(entries[0].name, "/tmp/with space (deleted)");
        assert_eq!(entries[0].device_number, libc::makedev(0xfe, 0));
        assert!(entries[0].flags.has(VmaFlags::DONT_FORK | VmaFlags::WIPE_ON_FORK));
        assert_eq!((entries[1].prot, entries[1].name), (0, ""));
        assert!(entries[1].flags.has(VmaFlags::GROWS_DOWN));
        assert!(!entries[2].device, "the kernel's own special mappings are known by name");
    }

    #[test]
    fn holes_are_cut_out_with_their_offsets() {
        let text = "10000-20000 r--p 00001000 fe:00 42 /x\n";
        for (hole, left) in [
            (SeedRange::new(0x10000, 0x20000), vec![]),
            (SeedRange::new(0x0, 0x11000), vec![(0x11000, 0x20000, 0x2000)]),
            (SeedRange::new(0x1f000, 0x30000), vec![(0x10000, 0x1f000, 0x1000)]),
            (
                SeedRange::new(0x12000, 0x13000),
                vec![(0x10000, 0x12000, 0x1000), (0x13000, 0x20000, 0x4000)],
            ),
            (SeedRange::new(0x20000, 0x30000), vec![(0x10000, 0x20000, 0x1000)]),
        ] {
            let pieces: Vec<_> = without(parse(text), &[hole])
                .iter()
                .map(|piece| (piece.range.start.0, piece.range.end.0, piece.offset))
                .collect();
            assert_eq!(pieces, left, "{hole}");
        }
    }

    #[test]
    fn a_mark_splits_what_it_covers_in_part() {
        let text = "10000-20000 r--p 00001000 fe:00 42 /x\n20000-30000 rw-p 00000000 00:00 0 \n";
        let flag = VmaFlags::DONT_FORK;
        let marks = [SeedRange::new(0x14000, 0x16000), SeedRange::new(0x1f000, 0x40000)];
        let pieces: Vec<_> = marked(parse(text), &marks, flag)
            .iter()
            .map(|piece| (piece.range.start.0, piece.range.end.0, piece.offset, piece.flags.0))
            .collect();
        assert_eq!(
            pieces,
            [
                (0x10000, 0x14000, 0x1000, 0),
                (0x14000, 0x16000, 0x5000, flag),
                (0x16000, 0x1f000, 0x7000, 0),
                (0x1f000, 0x20000, 0x10000, flag),
                (0x20000, 0x30000, 0, flag),
            ]
        );
    }

    #[test]
    fn this_process_parses() {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let entries = parse(&text);
        assert!(entries.iter().any(|entry| entry.name == "[stack]"));
        assert!(entries.iter().any(|entry| entry.name == "[vdso]" && !entry.device));
        assert!(entries.windows(2).all(|pair| pair[0].range.end <= pair[1].range.start));
    }
}
