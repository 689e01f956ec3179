//! Maps a random mixture of memory, is prepared, and looks in the child whether all of it arrived.
//!
//! `suite-memory SEED OWN_FILE COMMON_FILE`: OWN_FILE is made and exists on the first host alone,
//! COMMON_FILE is a file that the other host has, too. Says `region KIND START END` for each mapping,
//! in the child `exact PAGES`, then waits for `/tmp/looked` so that it can be looked at from outside.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use mitosis_process_suite::{Chance, PAGE, digest, fail, prepare_and_hold, say, wait_for_file};

const READ: i32 = libc::PROT_READ;
const WRITE: i32 = libc::PROT_WRITE;
const EXEC: i32 = libc::PROT_EXEC;
/// Regions besides heap and stack.
const REGIONS: u64 = 48;
const MAX_PAGES: u64 = 96;
const SPARSE_BYTES: usize = 4 << 30;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Anonymous,
    ReadOnly,
    Hidden,
    ExecOnly,
    ReadExec,
    OwnFile,
    CommonFile,
    Cow,
    Sparse,
    Shared,
    Wiped,
    Unforked,
    Heap,
    Stack,
}

const KINDS: [Kind; 12] = [
    Kind::Anonymous,
    Kind::ReadOnly,
    Kind::Hidden,
    Kind::ExecOnly,
    Kind::ReadExec,
    Kind::OwnFile,
    Kind::CommonFile,
    Kind::Cow,
    Kind::Sparse,
    Kind::Shared,
    Kind::Wiped,
    Kind::Unforked,
];

struct Region {
    kind: Kind,
    start: usize,
    bytes: usize,
    /// What each page hashes to, as the parent sees it.
    pages: Vec<u64>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seed, own, common] = &arguments[..] else { fail(&"SEED OWN_FILE COMMON_FILE") };
    let mut chance = Chance(seed.parse().unwrap_or_else(|_| fail(&"SEED is a number")));
    write_file(own, &mut chance);
    let files = [open(own), open(common)];
    let mut regions: Vec<Region> = (0..REGIONS)
        .map(|at| {
            let kind = if at < KINDS.len() as u64 {
                KINDS[at as usize]
            } else {
                KINDS[chance.below(12) as usize]
            };
            map(kind, &mut chance, &files)
        })
        .collect();
    regions.push(heap(&mut chance));
    deep_stack(24, &mut chance, regions);
}

/// Goes down the stack by frames of 16 KiB full of numbers, and is prepared at the bottom.
#[inline(never)]
fn deep_stack(frames: u32, chance: &mut Chance, mut regions: Vec<Region>) {
    let mut frame = [0u64; 2048];
    frame.iter_mut().for_each(|word| *word = chance.number());
    let start = std::hint::black_box(&mut frame).as_ptr() as usize;
    // The frame's edges share pages with what is live.
    let first = (start + PAGE) / PAGE * PAGE;
    let bytes = (start + size_of_val(&frame)) / PAGE * PAGE - first;
    regions.push(Region { kind: Kind::Stack, start: first, bytes, pages: Vec::new() });
    if frames > 0 {
        deep_stack(frames - 1, chance, regions);
    } else {
        look(regions);
    }
    std::hint::black_box(&mut frame);
}

fn look(mut regions: Vec<Region>) -> ! {
    for region in &mut regions {
        region.pages = hashes(region);
        let end = region.start + region.bytes;
        say(&format!("region {:?} {:x} {end:x}", region.kind, region.start));
    }
    let resumed = prepare_and_hold();
    let mut wrong = 0;
    let mut exact = 0;
    for region in &regions {
        let Region { kind, start, bytes, .. } = region;
        if *kind == Kind::Unforked {
            if readable(*start) {
                wrong += 1;
                say(&format!("{kind:?} at {start:x} is mapped"));
            }
            continue;
        }
        if matches!(kind, Kind::Hidden | Kind::ExecOnly) {
            // Looked at from outside; here only that the protection is what it was.
            let access = access(*start);
            let expected = if *kind == Kind::Hidden { "---p" } else { "--xp" };
            if access != expected {
                wrong += 1;
                say(&format!("{kind:?} at {start:x} is {access}"));
            }
            continue;
        }
        for (page, (was, now)) in region.pages.iter().zip(hashes(region)).enumerate() {
            let was = if *kind == Kind::Wiped { digest(&[0; PAGE]) } else { *was };
            exact += 1;
            if was != now {
                wrong += 1;
                say(&format!(
                    "{kind:?} at {start:x}+{bytes:x}: page {page} is {now:x} and was {was:x}"
                ));
            }
        }
        if matches!(kind, Kind::Anonymous | Kind::Cow | Kind::OwnFile | Kind::Shared) {
            written_stays_written(*start, *bytes);
        }
    }
    say(&format!("exact {exact} wrong {wrong} child {}", resumed.index));
    wait_for_file("/tmp/looked");
    // The files that main() has open are closed here: it must not close them again.
    std::process::exit(0)
}

fn map(kind: Kind, chance: &mut Chance, files: &[File; 2]) -> Region {
    let mut bytes = (1 + chance.below(MAX_PAGES)) as usize * PAGE;
    let private = libc::MAP_PRIVATE;
    let (flags, fd) = match kind {
        Kind::OwnFile | Kind::Cow => (private, files[0].as_raw_fd()),
        Kind::CommonFile => (private, files[1].as_raw_fd()),
        Kind::Shared => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1),
        Kind::Sparse => (private | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1),
        _ => (private | libc::MAP_ANONYMOUS, -1),
    };
    if kind == Kind::Sparse {
        bytes = SPARSE_BYTES;
    }
    let offset = if fd == -1 { 0 } else { chance.below(4) as i64 * PAGE as i64 };
    // SAFETY: new memory, page aligned; with a page of nothing behind it, so that no two merge.
    let start = unsafe {
        let wanted = libc::mmap(
            std::ptr::null_mut(),
            bytes + PAGE,
            libc::PROT_NONE,
            private | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        let at = libc::mmap(wanted, bytes, READ | WRITE, flags | libc::MAP_FIXED, fd, offset);
        if at == libc::MAP_FAILED {
            fail(&format!("mmap: {}", std::io::Error::last_os_error()));
        }
        at as usize
    };
    let region = Region { kind, start, bytes, pages: Vec::new() };
    advise(&region);
    fill(&region, chance);
    protect(&region);
    region
}

fn advise(region: &Region) {
    let advice = match region.kind {
        Kind::Wiped => libc::MADV_WIPEONFORK,
        Kind::Unforked => libc::MADV_DONTFORK,
        // Huge pages would fill the holes between the few pages of it that exist.
        Kind::Sparse => libc::MADV_NOHUGEPAGE,
        _ => return,
    };
    // SAFETY: our own mapping.
    if unsafe { libc::madvise(region.start as *mut _, region.bytes, advice) } != 0 {
        fail(&format!("madvise: {}", std::io::Error::last_os_error()));
    }
}

/// Some pages are written, some only read (the zero page, the file's page), some never touched.
fn fill(region: &Region, chance: &mut Chance) {
    if matches!(region.kind, Kind::OwnFile | Kind::CommonFile) {
        return;
    }
    let count = region.bytes / PAGE;
    let touched: Vec<usize> = match region.kind {
        Kind::Sparse => (0..64).map(|_| chance.below(count as u64) as usize).collect(),
        _ => (0..count).collect(),
    };
    for page in touched {
        let at = region.start + page * PAGE;
        match chance.below(4) {
            0 => {}
            // SAFETY: readable memory of ours.
            1 => drop(std::hint::black_box(unsafe { (at as *const u64).read_volatile() })),
            _ => {
                for word in 0..PAGE / 8 {
                    // SAFETY: writable memory of ours.
                    unsafe { (at as *mut u64).add(word).write(chance.number()) };
                }
            }
        }
    }
}

fn protect(region: &Region) {
    let access = match region.kind {
        Kind::ReadOnly => READ,
        Kind::Hidden => libc::PROT_NONE,
        Kind::ExecOnly => EXEC,
        Kind::ReadExec => READ | EXEC,
        _ => return,
    };
    // SAFETY: our own mapping.
    if unsafe { libc::mprotect(region.start as *mut _, region.bytes, access) } != 0 {
        fail(&format!("mprotect: {}", std::io::Error::last_os_error()));
    }
}

fn heap(chance: &mut Chance) -> Region {
    let bytes = 64 * PAGE;
    // SAFETY: extends the heap by pages that are ours alone.
    let end = unsafe {
        let now = libc::sbrk(0) as usize;
        let gap = now.next_multiple_of(PAGE) - now;
        libc::sbrk((gap + bytes) as isize) as usize + gap
    };
    let region = Region { kind: Kind::Heap, start: end, bytes, pages: Vec::new() };
    fill(&region, chance);
    region
}

fn hashes(region: &Region) -> Vec<u64> {
    let page = |at: usize| {
        // SAFETY: a readable page of ours that nobody writes meanwhile.
        digest(unsafe { std::slice::from_raw_parts((region.start + at * PAGE) as *const u8, PAGE) })
    };
    match region.kind {
        Kind::Hidden | Kind::ExecOnly => Vec::new(),
        // All of it would be 4 GiB of page tables: each 61st page, and all of the first megabyte.
        Kind::Sparse => {
            (0..256).chain((256..region.bytes / PAGE).step_by(6101)).map(page).collect()
        }
        _ => (0..region.bytes / PAGE).map(page).collect(),
    }
}

/// Whether the kernel can read a byte there.
fn readable(at: usize) -> bool {
    let (_read, write) = std::io::pipe().unwrap_or_else(|error| fail(&error));
    // SAFETY: the kernel checks the address.
    unsafe { libc::write(write.as_raw_fd(), at as *const _, 1) == 1 }
}

fn access(at: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_else(|error| fail(&error));
    let line = maps.lines().find(|line| {
        let bounds = line.split(' ').next().and_then(|range| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        bounds.is_some_and(|(start, end)| (number(start)..number(end)).contains(&at))
    });
    line.and_then(|line| line.split(' ').nth(1)).unwrap_or("not mapped").to_owned()
}

/// A private page that is written and written back: the child has its own, and it is whole.
fn written_stays_written(start: usize, bytes: usize) {
    let at = (start + bytes / 2 / PAGE * PAGE) as *mut u64;
    // SAFETY: writable memory of ours.
    unsafe {
        let was = at.read_volatile();
        at.write_volatile(!was);
        if at.read_volatile() != !was {
            fail(&"a write was lost");
        }
        at.write_volatile(was);
    }
}

fn write_file(path: &str, chance: &mut Chance) {
    let bytes: Vec<u8> = (0..(MAX_PAGES as usize + 8) * PAGE / 8)
        .flat_map(|_| chance.number().to_le_bytes())
        .collect();
    File::create(path)
        .and_then(|mut file| file.write_all(&bytes))
        .unwrap_or_else(|error| fail(&error));
}

fn open(path: &str) -> File {
    File::open(path).unwrap_or_else(|error| fail(&format!("{path}: {error}")))
}
