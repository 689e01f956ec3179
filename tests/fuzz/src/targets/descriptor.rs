//! Descriptors: the header alone, all of one, and its page table. Lengths and checksums, which no fuzzer guesses, are
//! mended where they would keep it out of everything behind them.

use std::sync::OnceLock;

use mitosis::descriptor::codec::{self, HEADER_LEN, MAGIC, MAJOR};
use mitosis::descriptor::{Descriptor, MAX_OWNERS, MappedFile, PageTable, SeedAddr, SeedRange};
use mitosis::image::ImageLayout;

use crate::allocation::bounded;

/// One with a bit of everything that has no section of its own to be left out.
const SAMPLE: &[u8] = include_bytes!("../../../wire/descriptor-1.0.bin");

/// ```text
/// u8 bit 0: mend the length, bit 1: the checksum   [24] header   the rest: a body, or the sample's
/// ```
pub(crate) fn header(input: &[u8]) -> bool {
    let Some((&mend, rest)) = input.split_first() else { return false };
    let Some((header, body)) = rest.split_first_chunk::<HEADER_LEN>() else {
        assert!(codec::decode(rest).is_err(), "less than a header is no descriptor");
        return false;
    };
    let body = if body.is_empty() { &SAMPLE[HEADER_LEN..] } else { body };
    let mut bytes = [&header[..], body].concat();
    if mend & 1 != 0 {
        mend_length(&mut bytes);
    }
    if mend & 2 != 0 {
        mend_checksum(&mut bytes);
    }
    let Some(descriptor) = decoded(&bytes) else { return false };
    assert_eq!((&bytes[..8], &bytes[8..10]), (&MAGIC[..], &MAJOR.to_le_bytes()[..]));
    assert_eq!(bytes[12..14], descriptor.needs.machine.to_le_bytes());
    assert_eq!((bytes[14], bytes[15]), (descriptor.page_shift, 0));
    let mut mended = bytes.clone();
    mend_length(&mut mended);
    mend_checksum(&mut mended);
    assert_eq!(mended, bytes, "a length or a checksum was wrong and nobody saw it");
    true
}

/// The input is a descriptor but for its length and checksum.
pub(crate) fn whole(input: &[u8]) -> bool {
    let mut bytes = input.to_vec();
    if bytes.len() >= HEADER_LEN {
        mend_length(&mut bytes);
        mend_checksum(&mut bytes);
    }
    let Some(descriptor) = decoded(&bytes) else { return false };
    hold_what_is_relied_on(&descriptor);
    true
}

/// ```text
/// u8 page shift   the body of the page table's section
/// ```
pub(crate) fn page_table(input: &[u8]) -> bool {
    let Some((&page_shift, section)) = input.split_first() else { return false };
    let Some(descriptor) = decoded(&around(page_shift, section)) else { return false };
    let (table, page) = (&descriptor.page_table, descriptor.page_size());
    let mut end = SeedAddr(0);
    let mut pages = 0;
    for run in table.runs() {
        assert!(end <= run.range.start && run.range.start < run.range.end);
        assert_eq!((run.range.start.0 | run.range.end.0) % page, 0);
        pages += run.range.len() / page;
        let last = SeedAddr(run.range.end.0 - page);
        assert_eq!(table.lookup(run.range.start), Some(*run));
        let source = run.source.advanced(run.range.len() - page);
        let found = table.lookup(last).expect("the last page of a run");
        assert_eq!((found.range, found.source), (SeedRange::new(last.0, run.range.end.0), source));
        if end < run.range.start {
            assert_eq!(table.lookup(end), None, "between runs there is nothing");
        }
        end = run.range.end;
    }
    assert_eq!(table.lookup(end), None);
    assert_eq!(table.pages(page), pages);
    let all: Vec<_> = table.overlapping(SeedRange::new(0, end.0)).collect();
    assert_eq!(all, table.runs());
    true
}

/// Parsed in bounds; what was parsed is written, and read as the same.
fn decoded(bytes: &[u8]) -> Option<Descriptor> {
    let descriptor = bounded(bytes, codec::decode).ok()?;
    let written = codec::encode(&descriptor).expect("what fits the limit fits it again");
    let again = codec::decode(&written).expect("what is written is read");
    assert_eq!(again, descriptor);
    assert_eq!(codec::encode(&again).expect("as before"), written);
    Some(descriptor)
}

/// What a host does with a descriptor before any of its children runs, without asking again whether it may.
fn hold_what_is_relied_on(descriptor: &Descriptor) {
    let beneath = descriptor.beneath();
    let table = descriptor.page_table_with(&beneath);
    let vmas = [&descriptor.vmas[..], &beneath].concat();
    let layout = ImageLayout::new(&vmas, descriptor.page_size());
    for slot in layout.slots() {
        assert_eq!(layout.offset_of(slot.range.start), Some(slot.offset));
        assert_eq!(layout.address_of(slot.offset), Some(slot.range.start));
    }
    let places = layout.slots().windows(2);
    assert!(places.into_iter().all(|two| two[0].offset < two[1].offset), "slots overlap");
    for run in table.runs() {
        let _ = layout.offset_of(run.range.start);
    }
    let _ = descriptor.warm.pages(descriptor.page_size());
    let _ = table.pages(descriptor.page_size());
    if let Some(carried) = &descriptor.carried {
        let _ = (carried.numbers().count(), carried.listeners().count());
    }
    let _ = descriptor.losses.mail();
}

fn mend_length(bytes: &mut [u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[16..20].copy_from_slice(&length.to_le_bytes());
}

fn mend_checksum(bytes: &mut [u8]) {
    let checksum = crc32fast::hash(&bytes[HEADER_LEN..]);
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
}

/// A descriptor with this page table, and with as many owners and files as runs may name in a byte.
fn around(page_shift: u8, section: &[u8]) -> Vec<u8> {
    const PAGE_TABLE: u16 = 5;
    static WITHOUT: OnceLock<Vec<u8>> = OnceLock::new();
    let without = WITHOUT.get_or_init(|| {
        let mut descriptor = codec::decode(SAMPLE).expect("the sample is one");
        descriptor.page_table = PageTable::default();
        descriptor.vmas.clear();
        descriptor.owners = vec![descriptor.owners[0].clone(); MAX_OWNERS];
        let file: &MappedFile = &descriptor.files[0];
        descriptor.files = vec![file.clone(); 256];
        codec::encode(&descriptor).expect("it is small")
    });
    // Every section but that one, which comes last; their order says nothing.
    let mut bytes = without[..HEADER_LEN].to_vec();
    let mut rest = &without[HEADER_LEN..];
    while let Some((head, _)) = rest.split_first_chunk::<8>() {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let (one, behind) = rest.split_at(8 + len);
        if u16::from_le_bytes([head[0], head[1]]) != PAGE_TABLE {
            bytes.extend_from_slice(one);
        }
        rest = behind;
    }
    bytes.extend_from_slice(&PAGE_TABLE.to_le_bytes());
    bytes.extend_from_slice(&1u16.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(section.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(section);
    bytes[14] = page_shift;
    mend_length(&mut bytes);
    mend_checksum(&mut bytes);
    bytes
}
