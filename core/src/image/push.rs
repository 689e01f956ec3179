//! Pages that come unasked: hot pages behind the descriptor, `drop --pull`.

use std::io;

use super::Shared;
use super::counters::count;
use super::layout::Place;
use super::miss::pages;
use crate::descriptor::{SeedAddr, SeedRange};
use crate::wire::traced::Way;

/// Puts whole pages of `bytes` into the page cache, slot by slot. A first or last page that is not whole
/// is left out (a store of a part of a page that is not there is lost), and so is what has no place.
pub(super) fn store(image: &Shared, addr: SeedAddr, bytes: &[u8]) -> io::Result<()> {
    let mask = image.page_size - 1;
    let skipped = addr.0.wrapping_neg() & mask;
    let Some(bytes) = usize::try_from(skipped).ok().and_then(|skipped| bytes.get(skipped..)) else {
        return Ok(());
    };
    let whole = bytes.len() as u64 & !mask;
    let mut rest = &bytes[..usize::try_from(whole).unwrap_or(0)];
    let mut addr = SeedAddr(addr.0 + skipped);
    while !rest.is_empty() {
        let next_slot = || {
            let slots = image.layout.slots();
            slots.get(slots.partition_point(|slot| slot.range.start <= addr))
        };
        let (place, len) = match image.layout.offset_of(addr) {
            None => (None, next_slot().map_or(u64::MAX, |slot| slot.range.start.0 - addr.0)),
            Some(offset) => match image.layout.place_of(offset) {
                Place::Slot { left, .. } => (Some(offset.0), left),
                Place::Gap { left } => (None, left),
            },
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
        let (now, behind) = rest.split_at(len);
        if let Some(offset) = place {
            store_patched(image, offset, addr, now)?;
            image.note_unasked(offset, len, Way::Push);
            count(&image.counters.pages_pushed, pages(len));
        }
        (rest, addr) = (behind, SeedAddr(addr.0 + len as u64));
    }
    Ok(())
}

/// Stores as it is what no patch touches, and a patched copy of the rest, page by page.
fn store_patched(image: &Shared, offset: u64, addr: SeedAddr, bytes: &[u8]) -> io::Result<()> {
    let range = |at: usize, len: usize| {
        let start = addr.0 + at as u64;
        SeedRange::new(start, start + len as u64)
    };
    if !image.patches.touch(range(0, bytes.len())) {
        return image.device.store(offset, bytes);
    }
    let page_size = usize::try_from(image.page_size).unwrap_or(4096);
    let mut plain = 0;
    for at in (0..bytes.len()).step_by(page_size) {
        if !image.patches.touch(range(at, page_size)) {
            continue;
        }
        if plain < at {
            image.device.store(offset + plain as u64, &bytes[plain..at])?;
        }
        let mut page = bytes[at..at + page_size].to_vec();
        image.patch(SeedAddr(addr.0 + at as u64), &mut page);
        image.device.store(offset + at as u64, &page)?;
        plain = at + page_size;
    }
    if plain < bytes.len() {
        image.device.store(offset + plain as u64, &bytes[plain..])?;
    }
    Ok(())
}
