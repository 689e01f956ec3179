//! The agent's half of the stub (the child's half: `restorer/stub.rs`): the changes to call sites, the
//! trampolines that they lead to, and the table of what is image-backed.
//!
//! ```text
//! site          b8 1c 00 00 00 0f 05        mov $28,%eax; syscall
//! patched       e9 <trampoline> 0f 05       the syscall stays for who jumps to it
//! trampoline    mov $28,%eax
//!               lea -128(%rsp),%rsp         the red zone is the program's
//!               call *stub_entry
//!               lea 128(%rsp),%rsp          lea: no flag changes
//!               jmp site + 7
//! ```
//! The tail of `syscall(3)` compares the number first; any other call than madvise or mremap is made in the
//! trampoline itself, on the caller's own stack, for it may be clone or vfork.

use crate::descriptor::{
    BENEATH, CallSite, Descriptor, ImageOffset, Patch, SITE_LEN, SeedAddr, SeedRange, SiteKind,
    VmaFlags, VmaKind,
};
use crate::resume::abi::{
    MAX_MOVED, MIN_CHUNK_SHIFT, RANGE_ANONYMOUS, RANGE_CLEAN, RANGE_FILE, RANGE_SHARED, STUB_LEN,
    StubMoved, StubRange, StubTable,
};
use crate::resume::placement::{Beneath, TRAMPOLINE_LEN};

/// Bytes of `jmp rel32`.
const JUMP_LEN: usize = 5;
/// Where in a trampoline the stub's address stands.
const POINTER: usize = 56;
const _: () = assert!(TRAMPOLINE_LEN == POINTER as u64 + 8);

/// Why a child could not be given its stub.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StubError {
    /// A jump has 32 bits.
    #[error("the trampoline at {trampoline} is out of reach of the call site at {site}")]
    OutOfReach {
        /// The site.
        site: SeedAddr,
        /// Its trampoline.
        trampoline: SeedAddr,
    },
    /// The layout knows nothing of a VMA.
    #[error("the image has no place for the memory at {0}")]
    NoPlace(SeedAddr),
    /// The stub searches ranges by address and by offset.
    #[error("the image's layout does not ascend at {0}")]
    NotAscending(SeedAddr),
    /// The table has a fixed size.
    #[error(
        "the seed has {ranges} ranges of anonymous memory, more than the stub's table can hold: \
             it cannot be resumed"
    )]
    TooManyRanges {
        /// How many.
        ranges: usize,
    },
}

/// What leads call sites to the stub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diversions {
    /// One a site.
    pub patches: Vec<Patch>,
    /// One a site: address and bytes.
    pub trampolines: Vec<(u64, Vec<u8>)>,
}

/// The patch of each of `sites`, and address and bytes of its trampoline. `trampolines` are their addresses
/// in the same order (`Placement::trampolines`), `stub_entry` is the stub's address in the child.
///
/// # Errors
/// `OutOfReach` if a trampoline is more than 2 GiB from its site.
pub fn patches(
    sites: &[CallSite],
    trampolines: &[SeedAddr],
    stub_entry: u64,
) -> Result<Diversions, StubError> {
    let mut made = Diversions::default();
    for (site, trampoline) in sites.iter().zip(trampolines) {
        let out_of_reach = StubError::OutOfReach { site: site.addr, trampoline: *trampoline };
        let bytes = trampoline_bytes(site, trampoline.0, stub_entry);
        match (patch(site, *trampoline), bytes) {
            (Some(patch), Some(bytes)) => {
                made.patches.push(patch);
                made.trampolines.push((trampoline.0, bytes));
            }
            _ => return Err(out_of_reach),
        }
    }
    Ok(made)
}

fn patch(site: &CallSite, trampoline: SeedAddr) -> Option<Patch> {
    let expect = site.kind.bytes();
    let [.., syscall0, syscall1] = expect;
    let [j0, j1, j2, j3, j4] = jump(site.addr.0, trampoline.0)?;
    Some(Patch { addr: site.addr, expect, bytes: [j0, j1, j2, j3, j4, syscall0, syscall1] })
}

/// `jmp to`, at `from`.
fn jump(from: u64, to: u64) -> Option<[u8; JUMP_LEN]> {
    let distance = i128::from(to) - i128::from(from + JUMP_LEN as u64);
    let [a, b, c, d] = i32::try_from(distance).ok()?.to_le_bytes();
    Some([0xe9, a, b, c, d])
}

fn trampoline_bytes(site: &CallSite, at: u64, stub_entry: u64) -> Option<Vec<u8>> {
    let back = site.addr.0 + SITE_LEN as u64;
    let mut code = Vec::with_capacity(64);
    let [load @ .., _, _] = site.kind.bytes();
    code.extend(load);
    if site.kind == SiteKind::Generic {
        // cmp $28,%eax; je 1f; cmp $25,%eax; je 1f; syscall; jmp back; 1:
        code.extend([0x83, 0xf8, 28, 0x74, 12, 0x83, 0xf8, 25, 0x74, 7, 0x0f, 0x05]);
        code.extend(jump(at + code.len() as u64, back)?);
    }
    code.extend([0x48, 0x8d, 0x64, 0x24, 0x80]); // lea -128(%rsp),%rsp
    let behind_call = code.len() + 6;
    let [a, b, c, d] = u32::try_from(POINTER - behind_call).ok()?.to_le_bytes();
    code.extend([0xff, 0x15, a, b, c, d]); // call *POINTER
    code.extend([0x48, 0x8d, 0xa4, 0x24, 0x80, 0, 0, 0]); // lea 128(%rsp),%rsp
    code.extend(jump(at + code.len() as u64, back)?);
    code.resize(POINTER, 0xcc);
    code.extend(stub_entry.to_le_bytes());
    Some(code)
}

/// The bytes of the stub's table (at `base + STUB`) for a child of `desc`. `offset_of` tells where an address
/// lies in the image; `dev_inode` is the image file's major, minor and inode; `beneath` is the placement's; `is_here` tells
/// which files a child maps themselves.
///
/// # Errors
/// `NoPlace`, `NotAscending` if the layout is not one of this descriptor; `TooManyRanges`.
pub fn table(
    desc: &Descriptor,
    offset_of: &dyn Fn(SeedAddr) -> Option<ImageOffset>,
    dev_inode: (u32, u32, u64),
    beneath: Option<Beneath>,
    is_here: &dyn Fn(u16) -> bool,
) -> Result<Vec<u8>, StubError> {
    const FRESH: [u16; 3] = [VmaFlags::WIPE_ON_FORK, VmaFlags::DROPPABLE, VmaFlags::GROWS_DOWN];
    let mut ranges = Vec::new();
    for vma in &desc.vmas {
        let shows = match vma.kind {
            VmaKind::Anonymous => Shows::Anonymous,
            // What the tail makes shared again is the kernel's.
            VmaKind::Shared if desc.shared.iter().any(|part| part.range == vma.range) => continue,
            VmaKind::Shared => Shows::Shared,
            VmaKind::File { file, .. } => match offset_of(SeedAddr(vma.range.start.0 + BENEATH)) {
                Some(place) => Shows::File { beneath: beneath.map(|all| all.address_of(place)) },
                // Of one of which no page was written each page is the file's, wherever it comes from.
                None if is_here(file) && !has_site(desc, vma.range) => continue,
                None => Shows::Clean,
            },
            _ => continue,
        };
        if FRESH.iter().any(|flag| vma.flags.has(*flag)) {
            continue;
        }
        let offset = offset_of(vma.range.start).ok_or(StubError::NoPlace(vma.range.start))?;
        ranges.push(ImageRange { range: vma.range, offset, shows });
    }
    encode_table(&ranges, dev_inode)
}

/// Text that is changed for children comes from the image in any case.
fn has_site(desc: &Descriptor, range: SeedRange) -> bool {
    desc.sites.iter().any(|site| range.contains(site.addr))
}

/// Memory that a child maps from the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageRange {
    /// Where.
    pub range: SeedRange,
    /// The place of its first byte.
    pub offset: ImageOffset,
    /// What it was in the seed.
    pub shows: Shows,
}

/// What image-backed memory was in the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// Private anonymous memory.
    Anonymous,
    /// Shared memory.
    Shared,
    /// A private mapping of a file, of which pages were written.
    File {
        /// Where in the child the file's own bytes lie; `None`: nowhere.
        beneath: Option<u64>,
    },
    /// A private mapping of a file, of which no page was written.
    Clean,
}

/// The bytes of a table of `ranges`, which ascend.
///
/// # Errors
/// `NotAscending`, `TooManyRanges`.
pub fn encode_table(
    ranges: &[ImageRange],
    (dev_major, dev_minor, inode): (u32, u32, u64),
) -> Result<Vec<u8>, StubError> {
    let mut ranges = merged(ranges)?;
    let head_len = size_of::<StubTable>() + ranges.len() * size_of::<StubRange>();
    let too_many = StubError::TooManyRanges { ranges: ranges.len() };
    let space = usize::try_from(STUB_LEN).expect("a table fits memory");
    let room = space.checked_sub(head_len).ok_or(too_many)? / size_of::<u64>();
    let mut chunk_shift = MIN_CHUNK_SHIFT;
    let words = loop {
        let bits = number_bits(&mut ranges, chunk_shift);
        match usize::try_from(bits.div_ceil(64)) {
            Ok(words) if words <= room => break words,
            _ => {}
        }
        // Each range has a bit of its own at least.
        if chunk_shift == 47 {
            return Err(StubError::TooManyRanges { ranges: ranges.len() });
        }
        chunk_shift += 1;
    };
    let table = StubTable {
        dev_major,
        dev_minor,
        inode,
        ranges: ranges.len() as u64,
        words: words as u64,
        chunk_shift,
        maps_as_text: 0,
        moves_span: 0,
        always_ask: 0,
        moved: [StubMoved::default(); MAX_MOVED],
    };
    let mut bytes = head_bytes(&table);
    for range in ranges {
        for word in [range.start, range.end, range.offset, range.beneath] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(range.first_bit.to_le_bytes());
        bytes.extend(range.kind.to_le_bytes());
    }
    bytes.resize(bytes.len() + words * size_of::<u64>(), 0xff);
    Ok(bytes)
}

/// Neighbours in memory and image as one range.
fn merged(ranges: &[ImageRange]) -> Result<Vec<StubRange>, StubError> {
    let mut merged: Vec<StubRange> = Vec::new();
    for range in ranges.iter().filter(|range| !range.range.is_empty()) {
        let (kind, beneath) = match range.shows {
            Shows::Anonymous => (RANGE_ANONYMOUS, 0),
            Shows::Shared => (RANGE_SHARED, 0),
            Shows::File { beneath } => (RANGE_FILE, beneath.unwrap_or(0)),
            Shows::Clean => (RANGE_CLEAN, 0),
        };
        let (start, end, offset) = (range.range.start.0, range.range.end.0, range.offset.0);
        if let Some(last) = merged.last_mut() {
            let offset_end = last.offset + (last.end - last.start);
            if start < last.end || offset < offset_end {
                return Err(StubError::NotAscending(range.range.start));
            }
            let beneath_end = match last.beneath {
                0 => 0,
                at => at + (last.end - last.start),
            };
            let follows = (start, offset, beneath) == (last.end, offset_end, beneath_end);
            if follows && kind == last.kind {
                last.end = end;
                continue;
            }
        }
        merged.push(StubRange { start, end, offset, beneath, first_bit: 0, kind });
    }
    Ok(merged)
}

/// Gives each chunk of each range a bit; answers how many.
fn number_bits(ranges: &mut [StubRange], chunk_shift: u32) -> u64 {
    let mut next = 0;
    for range in ranges {
        // More bits than 32 can count do not fit the table either.
        range.first_bit = u32::try_from(next).unwrap_or(u32::MAX);
        next += ((range.end - 1) >> chunk_shift) - (range.start >> chunk_shift) + 1;
    }
    next
}

fn head_bytes(table: &StubTable) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of::<StubTable>());
    bytes.extend(table.dev_major.to_le_bytes());
    bytes.extend(table.dev_minor.to_le_bytes());
    for word in [table.inode, table.ranges, table.words] {
        bytes.extend(word.to_le_bytes());
    }
    for half in [table.chunk_shift, table.maps_as_text, table.moves_span, table.always_ask] {
        bytes.extend(half.to_le_bytes());
    }
    for moved in table.moved {
        for word in [moved.state, moved.start, moved.end] {
            bytes.extend(word.to_le_bytes());
        }
    }
    debug_assert_eq!(bytes.len(), size_of::<StubTable>());
    bytes
}

#[cfg(test)]
#[path = "stub_tests.rs"]
mod tests;
