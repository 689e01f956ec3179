//! Makes the calling process what a child is, as far as the stub can tell: memory mapped privately from an
//! image's file, libc's call sites patched, the blob and its table in place.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use mitosis::descriptor::{CallSite, ImageOffset, SeedAddr, SeedRange, SiteKind};
use mitosis::resume::abi::{STACK, STUB, StubTable, TEXT_LEN};
use mitosis::resume::placement::TRAMPOLINE_LEN;
use mitosis::resume::stub::{ImageRange, Shows};
use mitosis::resume::{blob, sites, stub};

pub(crate) const PAGE: u64 = 4096;
/// What an image holds where no memory of the seed lies: nobody must ever see it.
const POISON: u8 = 0xee;

/// Memory that is to be image-backed; it holds its bytes already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Snapshot {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) shared: bool,
    /// Listed in the stub's table. What is not is a carried file mapping.
    pub(crate) listed: bool,
}

impl Snapshot {
    pub(crate) fn anonymous(start: u64, len: u64) -> Self {
        Snapshot { start, len, shared: false, listed: true }
    }
}

/// What was made.
#[derive(Debug)]
pub(crate) struct StandIn {
    /// The table's address.
    pub(crate) table: *mut StubTable,
    pub(crate) stub_entry: u64,
    /// Each site's trampoline.
    pub(crate) trampolines: Vec<(SiteKind, u64)>,
}

impl StandIn {
    /// Turns `snapshots` (ascending) into image-backed memory and patches libc.
    pub(crate) fn make(snapshots: &[Snapshot], maps_as_text: bool) -> StandIn {
        let mut made = Self::unpatched(snapshots, maps_as_text);
        made.trampolines = divert(made.stub_entry);
        made
    }

    /// As `make`, but libc's calls go to the kernel.
    pub(crate) fn unpatched(snapshots: &[Snapshot], maps_as_text: bool) -> StandIn {
        let (image, ranges) = image_of(snapshots);
        let facts = image.metadata().expect("fstat of the image");
        let device = (libc::major(facts.dev()), libc::minor(facts.dev()), facts.ino());
        let listed: Vec<ImageRange> = ranges
            .iter()
            .zip(snapshots)
            .filter(|(_, snapshot)| snapshot.listed)
            .map(|(range, _)| *range)
            .collect();
        let table = stub::encode_table(&listed, device).expect("a table");
        let base = map(0, STACK, libc::PROT_READ | libc::PROT_WRITE, 0);
        write(base, blob::text());
        write(base + STUB, &table);
        let table = (base + STUB) as *mut StubTable;
        // SAFETY: the table was just written there.
        unsafe { (*table).maps_as_text = maps_as_text.into() };
        protect(base, TEXT_LEN, libc::PROT_READ | libc::PROT_EXEC);
        for range in &ranges {
            map_image(&image, range);
        }
        let stub_entry = base + blob::stub_entry();
        StandIn { table, stub_entry, trampolines: Vec::new() }
    }

    /// Chunks that hold no image page any more, as the stub sees it.
    pub(crate) fn cleared(&self) -> u64 {
        // SAFETY: `make` wrote the table; the ranges and the bitmap stand behind it.
        unsafe {
            let ranges = (*self.table).ranges as usize;
            let words = self.table.add(1).cast::<u8>().add(ranges * 40).cast::<u64>();
            (0..(*self.table).words as usize)
                .map(|i| u64::from((*words.add(i)).count_zeros()))
                .sum()
        }
    }

    /// Chunks that began with a bit.
    pub(crate) fn chunks(&self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.table).words * 64 }
    }

    /// Moved ranges that were ever remembered, up to a table's worth.
    pub(crate) fn moved(&self) -> u64 {
        // SAFETY: as above.
        unsafe { (*self.table).moved }.iter().filter(|moved| moved.state != 0).count() as u64
    }
}

/// The image's file. Here stands a memfd for the real one: private mappings of both behave alike in all that
/// the stub does.
fn image_file() -> File {
    // SAFETY: a new descriptor, owned by nobody else.
    let fd = unsafe { libc::memfd_create(c"image".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "memfd_create: {}", io::Error::last_os_error());
    // SAFETY: as above.
    File::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn image_of(snapshots: &[Snapshot]) -> (File, Vec<ImageRange>) {
    let image = image_file();
    let mut offset = 2 << 20;
    let mut ranges = Vec::new();
    for snapshot in snapshots {
        let bytes = read(snapshot.start, snapshot.len);
        let poison = vec![POISON; 1 << 20];
        image.write_all_at(&bytes, offset).expect("the image takes bytes");
        image.write_all_at(&poison, offset + snapshot.len).expect("the image takes bytes");
        ranges.push(ImageRange {
            range: SeedRange::new(snapshot.start, snapshot.start + snapshot.len),
            offset: ImageOffset(offset),
            shows: match snapshot.shared {
                true => Shows::Shared,
                false => Shows::Anonymous,
            },
        });
        offset += (snapshot.len + (2 << 20)).next_multiple_of(2 << 20);
    }
    (image, ranges)
}

fn map_image(image: &File, range: &ImageRange) {
    // SAFETY: replaces memory of this process by the same bytes.
    let mapped = unsafe {
        libc::mmap(
            range.range.start.0 as *mut c_void,
            range.range.len() as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED,
            image.as_raw_fd(),
            range.offset.0.cast_signed(),
        )
    };
    assert_eq!(mapped as u64, range.range.start.0, "mmap: {}", io::Error::last_os_error());
}

/// libc's text and the call sites in it.
pub(crate) fn libc_sites() -> (SeedRange, Vec<CallSite>) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let here = libc::madvise as *const () as u64;
    let mut texts = maps.lines().filter(|line| line.contains("r-xp")).map(|line| {
        let (start, rest) = line.split_once('-').expect("a range");
        let (end, _) = rest.split_once(' ').expect("an end");
        let number = |digits| u64::from_str_radix(digits, 16).expect("an address");
        SeedRange::new(number(start), number(end))
    });
    let text = texts.find(|text| text.contains(SeedAddr(here))).expect("libc is mapped");
    // SAFETY: r-x memory that stays mapped.
    let bytes =
        unsafe { std::slice::from_raw_parts(text.start.0 as *const u8, text.len() as usize) };
    (text, sites::scan(bytes, text.start))
}

/// Patches this process's copy of libc's text as the image would serve it.
fn divert(stub_entry: u64) -> Vec<(SiteKind, u64)> {
    let (text, sites) = libc_sites();
    let page = room_near(text.start.0);
    let slots: Vec<SeedAddr> =
        (0..sites.len() as u64).map(|i| SeedAddr(page + i * TRAMPOLINE_LEN)).collect();
    let diversions = stub::patches(&sites, &slots, stub_entry).expect("trampolines in reach");
    for (addr, bytes) in &diversions.trampolines {
        write(*addr, bytes);
    }
    protect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC);
    let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    for patch in &diversions.patches {
        let start = patch.addr.0 & !(PAGE - 1);
        assert_eq!(read(patch.addr.0, 7), patch.expect);
        protect(start, 2 * PAGE, all);
        write(patch.addr.0, &patch.bytes);
        protect(start, 2 * PAGE, libc::PROT_READ | libc::PROT_EXEC);
    }
    sites.iter().zip(slots).map(|(site, slot)| (site.kind, slot.0)).collect()
}

/// A fresh page within a jump's reach below `text`.
fn room_near(text: u64) -> u64 {
    let mut candidates = (1..800).map(|step| text - step * (2 << 20));
    candidates
        .find(|addr| {
            let flags = libc::MAP_FIXED_NOREPLACE;
            try_map(*addr, PAGE, libc::PROT_READ | libc::PROT_WRITE, flags) == Ok(*addr)
        })
        .expect("a hole near libc")
}

/// Private anonymous memory; panics where there is none.
pub(crate) fn map(addr: u64, len: u64, prot: i32, flags: i32) -> u64 {
    try_map(addr, len, prot, flags).unwrap_or_else(|errno| panic!("mmap {addr:#x}: errno {errno}"))
}

/// Private anonymous memory, or an errno.
pub(crate) fn try_map(addr: u64, len: u64, prot: i32, flags: i32) -> Result<u64, i32> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: callers name memory that is theirs to replace.
    let mapped = unsafe { libc::mmap(addr as *mut c_void, len as usize, prot, flags, -1, 0) };
    if mapped == libc::MAP_FAILED { Err(errno()) } else { Ok(mapped as u64) }
}

pub(crate) fn protect(addr: u64, len: u64, prot: i32) {
    // SAFETY: callers name memory that is theirs to change.
    let result = unsafe { libc::mprotect(addr as *mut c_void, len as usize, prot) };
    assert_eq!(result, 0, "mprotect: {}", io::Error::last_os_error());
}

pub(crate) fn write(addr: u64, bytes: &[u8]) {
    // SAFETY: callers name writable memory that no reference points to.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), addr as *mut u8, bytes.len()) };
}

pub(crate) fn fill(addr: u64, len: u64, byte: u8) {
    // SAFETY: as above.
    unsafe { std::ptr::write_bytes(addr as *mut u8, byte, len as usize) };
}

pub(crate) fn read(addr: u64, len: u64) -> Vec<u8> {
    // SAFETY: callers name readable memory that nobody changes meanwhile.
    unsafe { std::slice::from_raw_parts(addr as *const u8, len as usize) }.to_vec()
}

pub(crate) fn errno() -> i32 {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() }
}
