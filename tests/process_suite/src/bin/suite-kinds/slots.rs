//! The memory: a slot of address space for each kind.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use mitosis_process_suite::{Chance, PAGE, digest, fail, say};

use crate::calls::{MADV_GUARD_INSTALL, MADV_GUARD_REMOVE};
use crate::others::kernel_takes;

/// Far from all that the kernel places by itself.
const ARENA: usize = 0x2100_0000_0000;
/// Between two slots: twice what one may grow to, and a huge page's alignment.
const STRIDE: usize = 16 << 20;
pub const MAX_PAGES: usize = 96;
/// A kernel that has it has pages that may be dropped.
const MAP_DROPPABLE: i32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Anonymous,
    NoReserve,
    Huge,
    Shared,
    /// A memfd, mapped shared.
    Memory,
    /// The same object as `Memory`, once more.
    MemoryAgain,
    /// A memfd, mapped privately.
    MemoryPrivate,
    File,
    FileShared,
    Growing,
    Hidden,
    ExecOnly,
    ReadOnly,
    Locked,
    Wiped,
    Unforked,
    Droppable,
    Guarded,
    /// Some of its pages are made guards before the fork.
    Guards,
    /// Likewise, of shared memory.
    GuardsShared,
    /// The same file as `FileShared`, mapped to be read.
    View,
    /// A deleted file, mapped shared.
    Deleted,
}

pub const KINDS: [Kind; 22] = [
    Kind::Anonymous,
    Kind::NoReserve,
    Kind::Huge,
    Kind::Shared,
    Kind::Memory,
    Kind::MemoryAgain,
    Kind::MemoryPrivate,
    Kind::File,
    Kind::FileShared,
    Kind::Growing,
    Kind::Hidden,
    Kind::ExecOnly,
    Kind::ReadOnly,
    Kind::Locked,
    Kind::Wiped,
    Kind::Unforked,
    Kind::Droppable,
    Kind::Guarded,
    Kind::Guards,
    Kind::GuardsShared,
    Kind::View,
    Kind::Deleted,
];

impl Kind {
    /// Other processes that are forked off see what is written there.
    pub fn is_shared(self) -> bool {
        let is_memory = matches!(self, Kind::Shared | Kind::Memory | Kind::MemoryAgain);
        is_memory
            || matches!(self, Kind::FileShared | Kind::GuardsShared | Kind::View | Kind::Deleted)
    }

    /// Growth shows more of a file: a child has of it what was mapped.
    pub fn is_of_file(self) -> bool {
        matches!(self, Kind::File | Kind::MemoryPrivate)
    }

    fn has_guards(self) -> bool {
        matches!(self, Kind::Guards | Kind::GuardsShared)
    }

    pub fn rights(self) -> i32 {
        match self {
            Kind::Hidden => libc::PROT_NONE,
            Kind::ExecOnly => libc::PROT_EXEC,
            Kind::ReadOnly | Kind::View => libc::PROT_READ,
            _ => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub kind: Kind,
    pub start: usize,
    pub pages: usize,
    pub is_mapped: bool,
}

impl Slot {
    pub fn bytes(&self) -> usize {
        self.pages * PAGE
    }

    /// Every byte, whatever its rights are.
    fn digest(&self) -> u64 {
        let is_readable = self.kind.rights() & libc::PROT_READ != 0;
        if !is_readable {
            self.protect(libc::PROT_READ);
        }
        // SAFETY: mapped, readable, and written by this thread alone. No guard page is in it: these are put up for
        // the time of a call.
        let bytes = unsafe { std::slice::from_raw_parts(self.start as *const u8, self.bytes()) };
        let sum = digest(bytes);
        if !is_readable {
            self.protect(self.kind.rights());
        }
        sum
    }

    pub fn protect(&self, rights: i32) {
        // SAFETY: memory of ours that no reference leads to.
        if unsafe { libc::mprotect(self.start as *mut _, self.bytes(), rights) } != 0 {
            fail(&format!("mprotect of {self:?}: {}", std::io::Error::last_os_error()));
        }
    }

    /// What maps says of its first page.
    pub fn rights(&self) -> String {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let line = maps.lines().find(|line| {
            let bounds = line.split(' ').next().and_then(|range| range.split_once('-'));
            let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            bounds.is_some_and(|(start, end)| (number(start)..number(end)).contains(&self.start))
        });
        let rights = line.and_then(|line| line.split(' ').nth(1)).unwrap_or("not mapped");
        // Shared memory is a child's own object, and shared with those that it forks.
        rights.to_owned()
    }
}

pub struct Slots {
    pub all: Vec<Slot>,
    _files: [File; 5],
}

impl Slots {
    pub fn new(chance: &mut Chance, path: &str) -> Slots {
        let bytes: Vec<u8> =
            (0..MAX_PAGES * PAGE / 8).flat_map(|_| chance.number().to_le_bytes()).collect();
        // Each of a mapping's own: a private mapping that has not been written may show what others write to its file,
        // which a child has as it was.
        let deleted = format!("{path}-deleted");
        let files =
            [named(path), memory(), named(&format!("{path}-shared")), memory(), named(&deleted)];
        std::fs::remove_file(deleted).unwrap_or_else(|error| fail(&error));
        for mut file in &files {
            file.write_all(&bytes).unwrap_or_else(|error| fail(&error));
        }
        let slots = KINDS.iter().enumerate().map(|(index, kind)| {
            let mut slot = Slot {
                kind: *kind,
                start: ARENA + index * STRIDE,
                pages: 4 + chance.below(44) as usize,
                is_mapped: true,
            };
            map(&mut slot, &files);
            fill(&slot, chance);
            advise(&slot);
            if slot.kind.has_guards() {
                put_guards(&slot, chance);
            }
            slot
        });
        Slots { all: slots.collect(), _files: files }
    }

    /// What fork(2) does to memory, by its definition.
    pub fn as_after_a_fork(&mut self, is_whole: bool) {
        // SAFETY: memory of ours alone.
        unsafe {
            if !is_whole {
                libc::munlockall();
            }
            for slot in &self.all {
                let at = slot.start as *mut libc::c_void;
                if matches!(slot.kind, Kind::Wiped | Kind::Droppable) {
                    libc::madvise(at, slot.bytes(), libc::MADV_DONTNEED);
                }
                if slot.kind == Kind::Unforked && slot.is_mapped && !is_whole {
                    libc::munmap(at, slot.bytes());
                }
            }
        }
        self.are_forked(is_whole);
    }

    /// What is not there. What is a guard is told, and is none any more: every byte of the rest is looked at.
    pub fn are_forked(&mut self, is_whole: bool) {
        for slot in &mut self.all {
            slot.is_mapped = slot.is_mapped && (is_whole || slot.kind != Kind::Unforked);
        }
        self.all.iter().filter(|slot| slot.kind.has_guards()).for_each(tell_guards);
    }

    /// Of those that are mapped, with a digest.
    pub fn each(&self, mut then: impl FnMut(&Slot, u64)) {
        self.all.iter().filter(|slot| slot.is_mapped).for_each(|slot| then(slot, slot.digest()));
    }

    pub fn digest(&self) -> u64 {
        let mut sum = 0u64;
        self.each(|_, bytes| sum = sum.rotate_left(7) ^ bytes);
        sum
    }
}

fn named(path: &str) -> File {
    let file = File::options().create(true).truncate(true).read(true).write(true).open(path);
    file.unwrap_or_else(|error| fail(&format!("{path}: {error}")))
}

fn memory() -> File {
    // SAFETY: a new descriptor of nobody else's.
    File::from(unsafe {
        let fd = libc::memfd_create(c"kinds".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 { fail(&"memfd_create") } else { OwnedFd::from_raw_fd(fd) }
    })
}

fn map(slot: &mut Slot, files: &[File; 5]) {
    let (private, shared) = (libc::MAP_PRIVATE, libc::MAP_SHARED);
    let anonymous = libc::MAP_ANONYMOUS;
    let files = files.each_ref().map(AsRawFd::as_raw_fd);
    let [file, memory, file_shared, memory_private, deleted] = files;
    let (flags, fd) = match slot.kind {
        Kind::NoReserve => (private | anonymous | libc::MAP_NORESERVE, -1),
        Kind::Shared | Kind::GuardsShared => (shared | anonymous, -1),
        Kind::Memory | Kind::MemoryAgain => (shared, memory),
        Kind::MemoryPrivate => (private, memory_private),
        Kind::File => (private, file),
        Kind::FileShared | Kind::View => (shared, file_shared),
        Kind::Deleted => (shared, deleted),
        Kind::Growing => (private | anonymous | libc::MAP_GROWSDOWN, -1),
        Kind::Droppable => (MAP_DROPPABLE | anonymous, -1),
        _ => (private | anonymous, -1),
    };
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let (place, bytes) = (slot.start as *mut libc::c_void, slot.bytes());
    let try_map = |flags| {
        // SAFETY: a place that nothing else uses.
        unsafe { libc::mmap(place, bytes, rights, flags | libc::MAP_FIXED, fd, 0) }
    };
    let mut at = try_map(flags);
    if at == libc::MAP_FAILED && slot.kind == Kind::Droppable {
        // Linux before 6.11.
        slot.kind = Kind::Wiped;
        at = try_map(private | anonymous);
    }
    if at != place {
        fail(&format!("{slot:?}: {}", std::io::Error::last_os_error()));
    }
}

/// Some pages are written, some only read, some never touched.
fn fill(slot: &Slot, chance: &mut Chance) {
    for page in 0..slot.pages {
        let at = slot.start + page * PAGE;
        // Bytes that a child has from its host's file and from its seed.
        match chance.below(4) {
            0 => {}
            // SAFETY: readable memory of ours.
            1 => drop(std::hint::black_box(unsafe { (at as *const u64).read_volatile() })),
            _ => fill_page(at, chance.number()),
        }
    }
}

pub fn fill_page(at: usize, value: u64) {
    for word in 0..PAGE / 8 {
        // SAFETY: a writable page of ours.
        unsafe { (at as *mut u64).add(word).write(value.wrapping_mul(word as u64 + 1)) };
    }
}

/// Some of the pages become guards, where the kernel has any; what was there is gone.
fn put_guards(slot: &Slot, chance: &mut Chance) {
    for page in 0..slot.pages {
        if chance.below(3) == 0 {
            // SAFETY: memory of ours, which nothing reads before its guards are gone.
            unsafe {
                libc::madvise((slot.start + page * PAGE) as *mut _, PAGE, MADV_GUARD_INSTALL)
            };
        }
    }
}

fn tell_guards(slot: &Slot) {
    // A discard takes no guard away.
    // SAFETY: memory of ours; the kernel looks at it, and this program does when the guards are gone.
    unsafe {
        libc::madvise(slot.start as *mut _, slot.bytes() / 2 / PAGE * PAGE, libc::MADV_DONTNEED)
    };
    let pages = (0..slot.pages).map(|page| kernel_takes(slot.start + page * PAGE));
    let taken: String = pages.map(|taken| if taken == 0 { '.' } else { '|' }).collect();
    say(&format!("guards {taken}"));
    // SAFETY: as above.
    unsafe { libc::madvise(slot.start as *mut _, slot.bytes(), MADV_GUARD_REMOVE) };
}

fn advise(slot: &Slot) {
    let at = slot.start as *mut libc::c_void;
    let advice = match slot.kind {
        Kind::Huge => libc::MADV_HUGEPAGE,
        Kind::Wiped => libc::MADV_WIPEONFORK,
        Kind::Unforked => libc::MADV_DONTFORK,
        Kind::Guarded => libc::MADV_DONTDUMP,
        _ => libc::MADV_NORMAL,
    };
    // SAFETY: our own mapping.
    let done = unsafe {
        let locked = slot.kind != Kind::Locked || libc::mlock(at, slot.bytes()) == 0;
        libc::madvise(at, slot.bytes(), advice) == 0 && locked
    };
    // A kernel without huge pages has no such advice.
    if !done && slot.kind != Kind::Huge {
        fail(&format!("{slot:?}: {}", std::io::Error::last_os_error()));
    }
    if slot.kind.rights() != libc::PROT_READ | libc::PROT_WRITE {
        // SAFETY: as above.
        unsafe { libc::mprotect(at, slot.bytes(), slot.kind.rights()) };
    }
}
