//! One miss on its way: its plan, its buffers and what has gone wrong so far.

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Shared;
use super::counters::count;
use super::plan::{MAX_MISS_BYTES, Plan};
use super::prefetch::Wanted;
use super::recording::Pages;
use crate::descriptor::{SeedAddr, Source};
use crate::fabric::{Buffer, ReadError};
use crate::sys::fuse::{Parts, ReadRequest};
use crate::wire::traced::Way;

/// Times that one READ is posted again because its connection was flushed, before another way is tried.
pub(super) const MAX_FLUSHED: u32 = 16;

static ZEROS: [u8; MAX_MISS_BYTES] = [0; MAX_MISS_BYTES];

/// A miss. Kept and reused: its buffers are allocated and touched before the image answers anything.
///
/// Segments are filled in rounds, one owner each: `buffer` holds the present round's segments back to
/// back, `assembly` those of files and earlier rounds, each at its place.
#[derive(Debug)]
pub(super) struct Miss {
    pub(super) wanted: Wanted,
    pub(super) plan: Plan,
    pub(super) deadline: Instant,
    /// When the READ in flight is given up for another way.
    pub(super) read_deadline: Instant,
    /// `None` while a fabric has it.
    pub(super) buffer: Option<Buffer>,
    assembly: Box<[u8]>,
    /// Segments whose bytes are in `assembly`, a bit each.
    assembled: u32,
    /// Segments whose bytes are in `buffer`.
    buffered: u32,
    /// Which of the present owner's ways is taken.
    pub(super) route: usize,
    flushed: u32,
    /// Nobody waits for it any more; its READ is still in flight.
    pub(super) answered: bool,
    /// What went wrong last.
    pub(super) fault: Option<Fault>,
}

/// Why a way failed.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) reason: Arc<str>,
    /// The owner was silent: asking again soon is as slow.
    pub(super) is_silence: bool,
}

impl Miss {
    pub(super) fn new(buffer: Buffer) -> Box<Miss> {
        let now = Instant::now();
        Box::new(Miss {
            wanted: Wanted { request: ReadRequest::default(), arrived: now },
            plan: Plan::new(),
            deadline: now,
            read_deadline: now,
            buffer: Some(buffer),
            assembly: vec![0; MAX_MISS_BYTES].into_boxed_slice(),
            assembled: 0,
            buffered: 0,
            route: 0,
            flushed: 0,
            answered: false,
            fault: None,
        })
    }

    /// Begins anew with another READ: plans it and takes what this host's files have.
    pub(super) fn begin(&mut self, image: &Shared, wanted: Wanted, limit: Duration) -> bool {
        self.wanted = wanted;
        self.deadline = wanted.arrived + limit;
        (self.assembled, self.buffered) = (0, 0);
        (self.route, self.flushed, self.answered, self.fault) = (0, 0, false, None);
        let ReadRequest { offset, size, .. } = wanted.request;
        let is_here = |file| image.local_files.contains_key(&file);
        if self.plan.make(&image.layout, &image.page_table, is_here, offset, size).is_err() {
            return false;
        }
        self.take_from_files(image);
        true
    }

    fn take_from_files(&mut self, image: &Shared) {
        for (index, segment) in self.plan.segments_mut().iter_mut().enumerate() {
            let Source::File { file, offset, owner, addr } = segment.source else { continue };
            let into = &mut self.assembly[segment.at..segment.at + segment.len];
            let whole = image
                .local_files
                .get(&file)
                .is_some_and(|file| read_pages(|at, into| file.read_at(into, offset + at), into));
            if whole {
                image.patch(segment.addr, into);
                count(&image.counters.pages_from_files, pages(segment.len));
                self.assembled |= 1 << index;
            } else {
                count(&image.counters.fallbacks, 1);
                segment.source = Source::Owner { owner, addr };
            }
        }
    }

    /// The owner of the first segment that is still missing.
    pub(super) fn next_owner(&self) -> Option<usize> {
        let have = self.assembled | self.buffered;
        self.plan.segments().iter().enumerate().find_map(|(index, segment)| match segment.source {
            Source::Owner { owner, .. } if have & (1 << index) == 0 => Some(usize::from(owner.0)),
            _ => None,
        })
    }

    /// The owner's ranges of all its segments that are missing.
    pub(super) fn ranges(&self, owner: usize) -> Vec<(SeedAddr, u32)> {
        let mut ranges = Vec::with_capacity(self.plan.segments().len());
        self.each_of(owner, |_, addr, len| {
            ranges.push((addr, u32::try_from(len).unwrap_or(u32::MAX)));
        });
        ranges
    }

    fn each_of(&self, owner: usize, mut with: impl FnMut(usize, SeedAddr, usize)) {
        let have = self.assembled | self.buffered;
        for (index, segment) in self.plan.segments().iter().enumerate() {
            match segment.source {
                Source::Owner { owner: other, addr }
                    if usize::from(other.0) == owner && have & (1 << index) == 0 =>
                {
                    with(index, addr, segment.len);
                }
                _ => {}
            }
        }
    }

    /// The present owner's bytes are in `buffer`.
    pub(super) fn accept(&mut self, image: &Shared, is_rdma: bool) {
        let (Some(owner), Some(mut buffer)) = (self.next_owner(), self.buffer.take()) else {
            return;
        };
        let mut round = 0;
        self.each_of(owner, |index, _, _| round |= 1 << index);
        let mut rest = &mut buffer[..];
        for (index, segment) in self.plan.segments().iter().enumerate() {
            if round & (1 << index) != 0 {
                let (bytes, behind) = rest.split_at_mut(segment.len);
                image.patch(segment.addr, bytes);
                count(&image.counters.pages_pulled, pages(segment.len));
                if is_rdma {
                    count(&image.counters.pages_rdma, pages(segment.len));
                }
                rest = behind;
            }
        }
        self.buffered = round;
        (self.route, self.flushed, self.fault) = (0, 0, None);
        if self.next_owner().is_some() {
            self.put_aside(&buffer);
        }
        self.buffer = Some(buffer);
    }

    /// Makes `buffer` free for the next owner's bytes.
    fn put_aside(&mut self, buffer: &Buffer) {
        let mut rest = &buffer[..];
        for (index, segment) in self.plan.segments().iter().enumerate() {
            if self.buffered & (1 << index) != 0 {
                let (bytes, behind) = rest.split_at(segment.len);
                self.assembly[segment.at..segment.at + segment.len].copy_from_slice(bytes);
                rest = behind;
            }
        }
        self.assembled |= self.buffered;
        self.buffered = 0;
    }

    /// The way that was taken failed; what to do next is in `route`.
    pub(super) fn set_back(&mut self, error: &ReadError) {
        if matches!(error, ReadError::Flushed) && self.flushed < MAX_FLUSHED {
            self.flushed += 1;
            return;
        }
        self.flushed = 0;
        self.route += 1;
        let is_silence = matches!(error, ReadError::Unreachable(_));
        self.fault = Some(Fault { reason: error.to_string().into(), is_silence });
    }

    /// How each part of it has come.
    pub(super) fn ways(&self) -> impl Iterator<Item = Pages> + '_ {
        let begin = self.wanted.request.offset;
        self.plan.segments().iter().map(move |segment| {
            let way = match segment.source {
                Source::Owner { .. } => Way::Read,
                Source::File { .. } => Way::File,
                Source::Zero => Way::Zero,
            };
            Pages { offset: begin + segment.at as u64, len: segment.len, way }
        })
    }

    /// The whole answer, each part where it lies.
    pub(super) fn parts(&self, image: &Shared) -> Parts<'_> {
        let mut parts = Parts::new();
        let mut rest = self.buffer.as_ref().map_or(&[][..], |buffer| &buffer[..]);
        for (index, segment) in self.plan.segments().iter().enumerate() {
            if self.buffered & (1 << index) != 0 {
                let (bytes, behind) = rest.split_at(segment.len);
                parts.push(bytes);
                rest = behind;
            } else if self.assembled & (1 << index) != 0 {
                parts.push(&self.assembly[segment.at..segment.at + segment.len]);
            } else {
                count(&image.counters.zero_pages, pages(segment.len));
                parts.push(&ZEROS[..segment.len]);
            }
        }
        parts
    }
}

/// Pages in so many bytes.
pub(super) fn pages(len: usize) -> u64 {
    len as u64 / 4096
}

/// Fills `into` from a file; behind the file's end, but only in its last page, are zeros, as in a
/// mapping. Tells whether all pages were there.
fn read_pages(
    mut read_at: impl FnMut(u64, &mut [u8]) -> std::io::Result<usize>,
    into: &mut [u8],
) -> bool {
    let mut done = 0;
    while done < into.len() {
        match read_at(done as u64, &mut into[done..]) {
            Ok(0) => break,
            Ok(len) => done += len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    into[done..].fill(0);
    into.len() - done < 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_files_last_page_is_filled_up() {
        let file = vec![7u8; 5000];
        let read = |len: usize| {
            let mut into = vec![1u8; len];
            let whole = read_pages(
                |at, into| {
                    let rest = &file[file.len().min(usize::try_from(at).unwrap())..];
                    // One byte short of what is wanted, as a signal would make it.
                    let len = rest.len().min(into.len()).min(3000);
                    into[..len].copy_from_slice(&rest[..len]);
                    Ok(len)
                },
                &mut into,
            );
            (whole, into)
        };
        let (whole, bytes) = read(8192);
        assert!(whole);
        assert!(bytes[..5000].iter().all(|&byte| byte == 7));
        assert!(bytes[5000..].iter().all(|&byte| byte == 0));
        assert!(!read(12288).0);
        assert!(!read_pages(|_, _| Err(std::io::ErrorKind::Other.into()), &mut [0; 4096]));
    }
}
