//! Shared memory of a seed -> steps of a child's tail that make it shared again.
//!
//! ```text
//! for each object that was mapped:   memfd_create, ftruncate, pwrite of what the image shows of it,
//!                                    mmap(MAP_SHARED | MAP_FIXED) of each mapping over what the image showed
//! ```
//!
//! A template maps such memory from the image, privately, as all else. If that stayed, processes that the child forks
//! would not see what it writes there, nor would two mappings of one object agree. An object that the child has as a
//! carried file, too, is that file. Guards are a mapping's, and come with it.

use std::fs::File;

use super::calls;
use super::compile::advised;
use super::file_calls;
use super::program::{Expect, Op};
use crate::descriptor::carried::FileKind;
use crate::descriptor::{Descriptor, SeedAddr, SeedRange, SharedPart, Source, VmaFlags};

const READ: u8 = 1;
/// What write(2) takes at once: it is 2 GiB less a page.
const MAX_WRITE: u64 = 1 << 30;
/// Numbers of steps say what failed; this says it to /proc.
const NAME: &str = "mitosis-shared";

/// A file of this host that is one of a seed's, which had mapped it shared. A template maps it itself: clones share it.
#[derive(Debug)]
pub struct SharedHere {
    /// Open to be written.
    pub file: File,
    /// What of the seed's memory shows it. No more among its shared memory.
    pub parts: Vec<SharedPart>,
}

/// The shared memory of a seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SharedPlan {
    objects: Vec<Object>,
}

/// What was mapped, once or several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Object {
    bytes: u64,
    /// The carried file that is the same.
    file: Option<u32>,
    mappings: Vec<Mapping>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    range: SeedRange,
    offset: u64,
    prot: u8,
    flags: VmaFlags,
    /// Of it, what holds data that no mapping before it shows.
    data: Vec<SeedRange>,
    guards: Vec<SeedRange>,
}

impl SharedPlan {
    pub(super) fn of(desc: &Descriptor) -> SharedPlan {
        let count = desc.shared.iter().map(|part| part.object + 1).max().unwrap_or(0);
        let mut objects = vec![Object::default(); count as usize];
        for part in &desc.shared {
            let object = &mut objects[part.object as usize];
            object.add(desc, part);
        }
        let objects = objects.into_iter().flat_map(Object::without_gaps).collect();
        SharedPlan { objects }
    }

    /// The steps, with `number` free for a moment and `nothing` a descriptor that may stand there.
    pub(super) fn make(&self, number: u32, nothing: u32) -> Vec<Op> {
        let mut ops = Vec::new();
        for object in &self.objects {
            let fd = object.file.unwrap_or(number);
            if object.file.is_none() {
                ops.push(calls::dup3(nothing, number));
                ops.push(file_calls::memfd_create(NAME, number, libc::O_CLOEXEC.cast_unsigned()));
                ops.push(file_calls::ftruncate(number, object.bytes));
                object.mappings.iter().for_each(|mapping| mapping.fill(number, &mut ops));
            }
            object.mappings.iter().for_each(|mapping| mapping.map(fd, &mut ops));
        }
        if self.objects.iter().any(|object| object.file.is_none()) {
            ops.push(calls::close(number));
        }
        ops
    }
}

impl Object {
    fn add(&mut self, desc: &Descriptor, part: &SharedPart) {
        let Some(vma) = desc.vmas.iter().find(|vma| vma.range == part.range) else { return };
        self.file = self.file.or_else(|| carried_file(desc, part.file?));
        let known: Vec<(u64, u64)> = self
            .mappings
            .iter()
            .map(|mapping| (mapping.offset, mapping.offset + mapping.range.len()))
            .collect();
        let mut data: Vec<SeedRange> = Vec::new();
        for run in desc.page_table.overlapping(part.range) {
            if run.source == Source::Zero {
                continue;
            }
            // By offsets in the object.
            let place = |addr: SeedAddr| part.offset + (addr.0 - part.range.start.0);
            let mut new = vec![(place(run.range.start), place(run.range.end))];
            for hole in &known {
                new = new.into_iter().flat_map(|piece| without(piece, *hole)).collect();
            }
            for (start, end) in new {
                let [start, end] = [start, end].map(|at| at - part.offset + part.range.start.0);
                add_data(&mut data, start, end);
            }
        }
        let (range, offset) = (part.range, part.offset);
        let guards = desc.marks.guards.iter().map(|guard| guard.intersect(range));
        let guards = guards.filter(|guard| !guard.is_empty()).collect();
        let (prot, flags) = (vma.prot, vma.flags);
        self.mappings.push(Mapping { range, offset, prot, flags, data, guards });
    }
}

impl Object {
    /// Nobody has told what lies between mappings of it: each run of them becomes an object of its own, which ends where
    /// they do. What grows beyond meets an end (SIGBUS), and not zeros that were none.
    fn without_gaps(mut self) -> Vec<Object> {
        self.mappings.sort_by_key(|mapping| mapping.offset);
        let mut runs: Vec<Object> = Vec::new();
        for mapping in self.mappings {
            let end = mapping.offset.saturating_add(mapping.range.len());
            match runs.last_mut() {
                Some(run) if self.file.is_some() || mapping.offset <= run.bytes => {
                    run.bytes = run.bytes.max(end);
                    run.mappings.push(mapping);
                }
                _ => runs.push(Object { bytes: end, file: self.file, mappings: vec![mapping] }),
            }
        }
        runs
    }
}

/// What is in `(start, end)` and not in `hole`.
fn without((start, end): (u64, u64), hole: (u64, u64)) -> impl Iterator<Item = (u64, u64)> {
    // A hole that lies apart would leave all of it twice.
    let apart = hole.1 <= start || hole.0 >= end;
    let pieces = match apart {
        true => [(start, end), (end, end)],
        false => [(start, hole.0), (hole.1, end)],
    };
    pieces.into_iter().filter(|(start, end)| start < end)
}

/// Adds `[start, end)` in pieces that one write(2) takes.
fn add_data(data: &mut Vec<SeedRange>, mut start: u64, end: u64) {
    if let Some(last) = data.last_mut().filter(|last| last.end.0 == start) {
        start = end.min(last.start.0 + MAX_WRITE).max(start);
        last.end.0 = start;
    }
    while start < end {
        let next = end.min(start + MAX_WRITE);
        data.push(SeedRange::new(start, next));
        start = next;
    }
}

/// The number of a carried file that can be mapped in place of an object.
fn carried_file(desc: &Descriptor, record: u32) -> Option<u32> {
    const NOT_TO_BE_WRITTEN: i32 = libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE;
    let file = desc.carried.as_ref()?.files().get(usize::try_from(record).ok()?)?;
    match &file.kind {
        FileKind::Memory { seals, .. } if seals & NOT_TO_BE_WRITTEN.cast_unsigned() == 0 => {
            file.numbers.first().map(|number| number.fd)
        }
        _ => None,
    }
}

impl Mapping {
    fn fill(&self, fd: u32, ops: &mut Vec<Op>) {
        let is_readable = self.prot & READ != 0 || self.data.is_empty();
        if !is_readable {
            ops.push(calls::mprotect(self.range.start.0, self.range.len(), READ));
        }
        for data in &self.data {
            let offset = self.offset + (data.start.0 - self.range.start.0);
            ops.push(file_calls::pwrite_memory(fd, data.start.0, data.len(), offset));
        }
    }

    fn map(&self, fd: u32, ops: &mut Vec<Op>) {
        let (start, len) = (self.range.start.0, self.range.len());
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        ops.push(calls::mmap(start, len, self.prot, flags, Some(fd), self.offset));
        if self.flags.has(VmaFlags::DONT_FORK) {
            // What was marked ahead lay where this lies now.
            ops.push(calls::madvise(start, len, libc::MADV_DONTFORK, Expect::Success));
        }
        ops.extend(advised(self.flags, start, len));
        // Locked memory takes none.
        ops.extend(self.guards.iter().map(|guard| calls::guard(guard.start.0, guard.len())));
        if self.flags.has(VmaFlags::LOCKED) {
            ops.push(calls::lock(start, len));
        }
        if self.flags.has(VmaFlags::SEALED) {
            ops.push(calls::seal(start, len));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::{OwnerIndex, PageTable, Run, SeedAddr, Vma, VmaKind};
    use crate::resume::compile::tests::descriptor;

    const PAGE: u64 = 4096;

    fn range(start: u64, pages: u64) -> SeedRange {
        SeedRange::new(start * PAGE, (start + pages) * PAGE)
    }

    /// Mappings of two pages each of one object, the second one page further on, unreadable.
    fn seed() -> Descriptor {
        let (owner, flags) = (OwnerIndex(0), VmaFlags(0));
        let places = [(range(16, 2), 0, 3), (range(32, 2), 1, 0)];
        let vma = |(range, _, prot)| Vma { range, prot, kind: VmaKind::Shared, flags };
        let run = |(range, ..): (SeedRange, u64, u8)| Run {
            range,
            source: Source::Owner { owner, addr: SeedAddr(1 << 20) },
        };
        let part = |(range, page, _): (SeedRange, u64, u8)| SharedPart {
            range,
            object: 0,
            offset: page * PAGE,
            file: None,
        };
        Descriptor {
            vmas: places.map(vma).to_vec(),
            page_table: PageTable::new(places.map(run).to_vec(), PAGE).unwrap(),
            shared: places.map(part).to_vec(),
            ..descriptor()
        }
    }

    #[test]
    fn one_object_is_mapped_where_it_was() {
        let steps = SharedPlan::of(&seed()).make(9, 7);
        let steps: Vec<String> = steps.iter().map(Op::to_string).collect();
        assert_eq!(
            steps,
            [
                "dup3(7, 9, 0x80000) = 0x9",
                "9 O_CLOEXEC = memfd_create(<15 bytes>, 3)",
                "ftruncate(9, 0x3000)",
                "pwrite64(9, 0x10000, 0x2000, 0) = 0x2000",
                // One page of it was shown by the first.
                "mprotect(0x20000, 0x2000, 1)",
                "pwrite64(9, 0x21000, 0x1000, 0x2000) = 0x1000",
                "mmap(0x10000, 0x2000, 3, 17, 9, 0) = 0x10000",
                "mmap(0x20000, 0x2000, 0, 17, 9, 0x1000) = 0x20000",
                "close(9)",
            ]
        );
        assert!(SharedPlan::of(&descriptor()).make(9, 7).is_empty());
    }

    #[test]
    fn guards_stand_before_what_the_tail_maps_and_come_before_a_lock() {
        let mut desc = seed();
        desc.marks.guards = vec![range(17, 1), range(40, 1)];
        desc.vmas[0].flags = VmaFlags(VmaFlags::LOCKED);
        let steps = SharedPlan::of(&desc).make(9, 7);
        let steps: Vec<String> = steps.iter().map(Op::to_string).collect();
        let at = steps.iter().position(|step| step.starts_with("madvise(")).unwrap();
        assert_eq!(steps[at - 1], "mmap(0x10000, 0x2000, 3, 17, 9, 0) = 0x10000");
        assert_eq!(steps[at], "madvise(0x11000, 0x1000, 102)");
        assert_eq!(steps[at + 1], "mlock2(0x10000, 0x2000, 1)");
        assert_eq!(steps.iter().filter(|step| step.starts_with("madvise(")).count(), 1);
    }

    #[test]
    fn what_lies_between_two_mappings_is_in_no_object() {
        let mut desc = seed();
        desc.shared[1].offset = 3 * PAGE;
        let steps = SharedPlan::of(&desc).make(9, 7);
        let steps: Vec<String> = steps.iter().map(Op::to_string).collect();
        let made = steps.iter().filter(|step| step.contains("memfd_create")).count();
        assert_eq!(made, 2, "{steps:?}");
        let sizes: Vec<&String> = steps.iter().filter(|step| step.contains("ftruncate")).collect();
        assert_eq!(sizes, ["ftruncate(9, 0x2000)", "ftruncate(9, 0x5000)"]);
        assert_eq!(steps.iter().filter(|step| *step == "close(9)").count(), 1);
    }

    #[test]
    fn an_object_that_is_a_carried_file_is_that_file() {
        use crate::descriptor::{CarriedFile, CarriedFiles, Number};
        let seal = libc::F_SEAL_WRITE.cast_unsigned();
        for (seals, number) in [(0, 4), (seal, 9)] {
            let (name, content) = ("m".to_owned(), vec![1]);
            let kind = FileKind::Memory { name, position: 0, content, seals };
            let numbers = vec![Number { fd: 4, close_on_exec: false }];
            let carried = CarriedFiles::new(vec![CarriedFile { numbers, flags: 2, kind }]).unwrap();
            let mut desc = Descriptor { carried: Some(carried), ..seed() };
            desc.shared.iter_mut().for_each(|part| part.file = Some(0));
            let steps = SharedPlan::of(&desc).make(9, 7);
            let steps: Vec<String> = steps.iter().map(Op::to_string).collect();
            let mapped = format!("mmap(0x10000, 0x2000, 3, 17, {number}, 0) = 0x10000");
            assert!(steps.contains(&mapped), "{steps:?}");
            assert_eq!(steps.len() == 2, seals == 0, "{steps:?}");
        }
    }
}
