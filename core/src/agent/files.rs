//! Mapped files that this host has too, byte for byte.
//!
//! A file is taken from here only if its path, size and BLAKE3 agree with the seed's host. On the seed's
//! own host the inode and modification time are enough.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Agent;
use super::failure::fail;
use crate::descriptor::{Descriptor, MappedFile, SeedRange, Source};
use crate::export::beneath::open_regular;
use crate::id::Handle;
use crate::wire::control::{ControlReply, ControlRequest};
use crate::wire::local::Failure;
use crate::wire::local::FailureKind;

/// Digests kept; each is a file some seed had mapped.
const MAX_DIGESTS: usize = 4096;

/// What makes a file the same file as before: device, inode, size, modification and change time.
type Identity = (u64, u64, u64, i64, i64);

/// Digests of files, remembered while the files stay as they are.
#[derive(Debug, Default)]
pub struct Digests {
    known: Mutex<HashMap<Identity, [u8; 32]>>,
}

impl Digests {
    /// BLAKE3 of an open file.
    ///
    /// # Errors
    /// read(2)'s.
    pub fn of(&self, file: &File) -> std::io::Result<[u8; 32]> {
        let identity = identity(&file.metadata()?);
        if let Some(digest) = self.known.lock().get(&identity) {
            return Ok(*digest);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(file)?;
        let digest = *hasher.finalize().as_bytes();
        let mut known = self.known.lock();
        if known.len() >= MAX_DIGESTS {
            known.clear();
        }
        known.insert(identity, digest);
        Ok(digest)
    }

    /// The digest of a mapped file that has been digested before and is unchanged; costs a stat(2).
    pub fn known(&self, mapped: &MappedFile) -> Option<[u8; 32]> {
        let meta = std::fs::metadata(&mapped.path).ok()?;
        let identity = is_unchanged(mapped, &meta).then(|| identity(&meta))?;
        self.known.lock().get(&identity).copied()
    }

    /// The digest of a seed's mapped file, if it is still the file that the seed mapped.
    pub fn of_mapped(&self, mapped: &MappedFile) -> Option<[u8; 32]> {
        open_unchanged(mapped).and_then(|file| self.of(&file).ok())
    }
}

impl Agent {
    /// The files of a descriptor that this host has identically, open.
    ///
    /// # Errors
    /// The seed's agent does not answer.
    pub(super) fn identical_files(
        self: &Arc<Self>,
        handle: &Handle,
        descriptor: &Descriptor,
        known: &[Option<[u8; 32]>],
    ) -> Result<HashMap<u16, File>, Failure> {
        let numbered = descriptor.files.iter().zip(0u16..);
        let candidates = numbered.filter_map(|(mapped, index)| Some((index, open_alike(mapped)?)));
        let theirs = |index: u16| known.get(usize::from(index)).copied().flatten();
        let (told, untold): (Vec<_>, Vec<_>) =
            candidates.partition(|(index, _)| theirs(*index).is_some());
        let equal = |file: &File, theirs: Option<[u8; 32]>| {
            theirs.is_some_and(|theirs| self.digests.of(file).is_ok_and(|ours| ours == theirs))
        };
        let mut identical: HashMap<u16, File> =
            told.into_iter().filter(|(index, file)| equal(file, theirs(*index))).collect();
        if untold.is_empty() {
            return Ok(identical);
        }
        // What cannot be told in time is carried, as any other file.
        let asked = self.ask_digests(handle, untold.iter().map(|(index, _)| *index).collect());
        let asked = asked.unwrap_or_else(|failure| {
            tracing::warn!(%failure, "digests of mapped files are not known; they are carried");
            Vec::new()
        });
        let pairs = untold.into_iter().zip(asked);
        identical
            .extend(pairs.filter(|((_, file), theirs)| equal(file, *theirs)).map(|(pair, _)| pair));
        Ok(identical)
    }

    fn ask_digests(
        &self,
        handle: &Handle,
        files: Vec<u16>,
    ) -> Result<Vec<Option<[u8; 32]>>, Failure> {
        let request = ControlRequest::Digests { seed: handle.seed, key: handle.key.clone(), files };
        let agent = handle.agent.as_deref().unwrap_or_default();
        match self.peers.call(agent, &request)? {
            ControlReply::Digests(digests) => Ok(digests),
            _ => {
                let text = format!(
                    "agent {agent} answered out of turn: run the same version on both hosts"
                );
                Err(fail(FailureKind::Protocol, text))
            }
        }
    }

    /// Digests the libraries that this very program maps: those that most seeds map, too.
    pub(super) fn digest_own_libraries(&self) {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let mut paths: Vec<&str> =
            maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).collect();
        paths.sort_unstable();
        paths.dedup();
        for file in paths.iter().filter_map(|path| File::open(path).ok()) {
            let _ = self.digests.of(&file);
        }
    }
}

/// The files of a descriptor of this host that are as they were, open.
pub(super) fn unchanged(descriptor: &Descriptor) -> HashMap<u16, File> {
    let numbered = descriptor.files.iter().zip(0u16..);
    numbered.filter_map(|(mapped, index)| Some((index, open_unchanged(mapped)?))).collect()
}

/// Where `files` are mapped: what of them need not be sent.
pub(super) fn mapped_ranges(descriptor: &Descriptor, files: &HashMap<u16, File>) -> Vec<SeedRange> {
    let mut ranges: Vec<SeedRange> = Vec::new();
    for run in descriptor.page_table.runs() {
        let Source::File { file, .. } = run.source else { continue };
        match ranges.last_mut() {
            _ if !files.contains_key(&file) => {}
            Some(last) if last.end == run.range.start => last.end = run.range.end,
            _ => ranges.push(run.range),
        }
    }
    ranges
}

fn open_alike(mapped: &MappedFile) -> Option<File> {
    let file = open_regular(&mapped.path)?;
    let meta = file.metadata().ok()?;
    (meta.is_file() && meta.size() == mapped.size).then_some(file)
}

fn open_unchanged(mapped: &MappedFile) -> Option<File> {
    let file = open_regular(&mapped.path)?;
    let meta = file.metadata().ok()?;
    is_unchanged(mapped, &meta).then_some(file)
}

fn is_unchanged(mapped: &MappedFile, meta: &Metadata) -> bool {
    let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    let same = (meta.dev(), meta.ino()) == mapped.dev_ino && meta.size() == mapped.size;
    same && mtime_ns == mapped.mtime_ns
}

fn identity(meta: &Metadata) -> Identity {
    let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    let ctime_ns = meta.ctime() * 1_000_000_000 + meta.ctime_nsec();
    (meta.dev(), meta.ino(), meta.size(), mtime_ns, ctime_ns)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_changed_file_is_digested_anew() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one").unwrap();
        let digests = Digests::default();
        let reread = |file: &File| {
            use std::io::{Seek, SeekFrom};
            (&*file).seek(SeekFrom::Start(0)).unwrap();
            digests.of(file).unwrap()
        };
        let first = reread(&file);
        assert_eq!(first, reread(&file));
        file.write_all(b"two").unwrap();
        assert_ne!(first, reread(&file));
    }
}
