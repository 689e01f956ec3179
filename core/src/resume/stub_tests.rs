use super::*;

const TRAMPOLINE: u64 = 0x7f00_1000_0000;
const ENTRY: u64 = 0x6000_0000_1ae0;

fn site(kind: SiteKind) -> CallSite {
    CallSite { addr: SeedAddr(0x7f00_0010_0000), kind }
}

fn made(kind: SiteKind) -> (Patch, Vec<u8>) {
    let made = patches(&[site(kind)], &[SeedAddr(TRAMPOLINE)], ENTRY).expect("in reach");
    assert_eq!(made.trampolines[0].0, TRAMPOLINE);
    (made.patches[0], made.trampolines[0].1.clone())
}

/// Where the jump at `at` (its address) leads.
fn jumps_to(bytes: &[u8], at: u64) -> u64 {
    assert_eq!(bytes[0], 0xe9);
    let distance = i32::from_le_bytes(bytes[1..5].try_into().expect("four bytes"));
    (at + JUMP_LEN as u64).wrapping_add_signed(distance.into())
}

#[test]
fn a_patch_jumps_to_the_trampoline_and_keeps_the_syscall() {
    for kind in [SiteKind::Madvise, SiteKind::Mremap, SiteKind::Generic] {
        let (patch, _) = made(kind);
        assert_eq!(patch.expect, kind.bytes());
        assert_eq!(jumps_to(&patch.bytes, patch.addr.0), TRAMPOLINE);
        assert_eq!(patch.bytes[5..], [0x0f, 0x05]);
    }
}

#[test]
fn a_trampoline_loads_calls_and_returns() {
    let kinds = [(SiteKind::Madvise, 24usize), (SiteKind::Mremap, 24), (SiteKind::Generic, 41)];
    for (kind, jump_at) in kinds {
        let (patch, bytes) = made(kind);
        assert_eq!(bytes.len() as u64, TRAMPOLINE_LEN);
        assert_eq!(bytes[..5], kind.bytes()[..5]);
        assert_eq!(bytes[56..], ENTRY.to_le_bytes());
        let back = jumps_to(&bytes[jump_at..], TRAMPOLINE + jump_at as u64);
        assert_eq!(back, patch.addr.0 + SITE_LEN as u64, "{kind:?}");
    }
}

#[test]
fn a_trampoline_out_of_reach_is_refused() {
    let far = SeedAddr(site(SiteKind::Madvise).addr.0 + (2 << 30) + 64);
    let refused = patches(&[site(SiteKind::Madvise)], &[far], ENTRY);
    assert!(matches!(refused, Err(StubError::OutOfReach { .. })), "{refused:?}");
    let near = SeedAddr(site(SiteKind::Madvise).addr.0 + (2 << 30) - 64);
    assert!(patches(&[site(SiteKind::Madvise)], &[near], ENTRY).is_ok());
}

fn range(start: u64, end: u64, offset: u64) -> ImageRange {
    ImageRange {
        range: SeedRange::new(start, end),
        offset: ImageOffset(offset),
        shows: Shows::Anonymous,
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

const HEAD: usize = size_of::<StubTable>();

#[test]
fn neighbours_in_memory_and_image_share_a_range() {
    let ranges = [
        range(0x1_0000, 0x2_0000, 0x20_0000),
        range(0x2_0000, 0x2_1000, 0x21_0000),
        range(0x2_1000, 0x2_2000, 0x40_0000),
        ImageRange { shows: Shows::Shared, ..range(0x2_2000, 0x2_3000, 0x40_1000) },
    ];
    let bytes = encode_table(&ranges, (0, 41, 7)).expect("a small table");
    assert_eq!(word(&bytes, 0), 41 << 32);
    assert_eq!([word(&bytes, 8), word(&bytes, 16), word(&bytes, 24)], [7, 3, 1]);
    let starts = [0, 1, 2].map(|i| word(&bytes, HEAD + i * 40));
    assert_eq!(starts, [0x1_0000, 0x2_1000, 0x2_2000]);
    // Ranges that meet inside a chunk have a bit each: 2 + 1 + 1.
    let bits = [0, 1, 2].map(|i| word(&bytes, HEAD + i * 40 + 32));
    assert_eq!(bits, [0, 2, 3 | 1 << 32]);
    assert_eq!(bytes.len(), HEAD + 3 * 40 + 8);
    assert_eq!(word(&bytes, HEAD + 3 * 40), u64::MAX);
}

#[test]
fn a_file_that_was_not_written_is_listed_where_it_comes_from_the_image() {
    let mut desc = crate::resume::compile::tests::descriptor();
    let vma = |start: u64, file| crate::descriptor::Vma {
        range: SeedRange::new(start, start + 0x1000),
        prot: 5,
        kind: VmaKind::File { file, offset: 0 },
        flags: VmaFlags::default(),
    };
    desc.vmas = vec![vma(0x1_0000, 0), vma(0x2_0000, 1), vma(0x3_0000, 1)];
    desc.sites = vec![CallSite { addr: SeedAddr(0x3_0008), kind: SiteKind::Madvise }];
    let offset_of = |addr: SeedAddr| (addr.0 < BENEATH).then_some(ImageOffset(addr.0));
    let bytes = table(&desc, &offset_of, (0, 0, 1), None, &|file| file == 1).unwrap();
    assert_eq!(word(&bytes, 16), 2, "the second is a file of this host");
    let starts = [0, 1].map(|i| word(&bytes, HEAD + i * 40));
    assert_eq!(starts, [0x1_0000, 0x3_0000]);
    assert_eq!(word(&bytes, HEAD + 32) >> 32, RANGE_CLEAN.into());
}

#[test]
fn what_does_not_ascend_is_refused() {
    let refused = StubError::NotAscending(SeedAddr(0x9000));
    let by_offset = [range(0x1000, 0x2000, 0x8000), range(0x9000, 0xa000, 0x1000)];
    assert_eq!(encode_table(&by_offset, (0, 0, 1)), Err(refused));
    let by_address = [range(0x9000, 0xa000, 0x8000), range(0x1000, 0x2000, 0x9000)];
    assert!(encode_table(&by_address, (0, 0, 1)).is_err());
}

#[test]
fn large_memory_gets_larger_chunks() {
    for tib in [1, 16, 100] {
        let bytes = encode_table(&[range(0, tib << 40, 0x20_0000)], (0, 0, 1)).expect("fits");
        assert!(bytes.len() as u64 <= STUB_LEN && bytes.len() as u64 > STUB_LEN / 4);
    }
    let small = encode_table(&[range(0, 64 << 30, 0x20_0000)], (0, 0, 1)).expect("fits");
    assert_eq!(word(&small, 32), MIN_CHUNK_SHIFT.into());
}

#[test]
fn the_number_of_ranges_is_limited() {
    let ranges = |count: u64| -> Vec<ImageRange> {
        (0..count).map(|i| range(i << 21, (i << 21) + 4096, i << 21)).collect()
    };
    let limit = (0..20_000).rev().find(|count| encode_table(&ranges(*count), (0, 0, 1)).is_ok());
    let limit = limit.expect("one range fits");
    assert!(limit > 16_000, "{limit}");
    let bytes = encode_table(&ranges(limit), (0, 0, 1)).expect("just found");
    assert!(bytes.len() as u64 <= STUB_LEN);
}
