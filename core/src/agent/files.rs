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
use crate::descriptor::{Descriptor, MappedFile};
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
        local: bool,
    ) -> Result<HashMap<u16, File>, Failure> {
        let numbered = descriptor.files.iter().zip(0u16..);
        if local {
            return Ok(numbered
                .filter_map(|(mapped, i)| Some((i, open_unchanged(mapped)?)))
                .collect());
        }
        let candidates: Vec<(u16, File)> =
            numbered.filter_map(|(mapped, i)| Some((i, open_alike(mapped)?))).collect();
        if candidates.is_empty() {
            return Ok(HashMap::new());
        }
        let request = ControlRequest::Digests {
            seed: handle.seed,
            key: handle.key.clone(),
            files: candidates.iter().map(|(index, _)| *index).collect(),
        };
        let agent = handle.agent.as_deref().unwrap_or_default();
        let ControlReply::Digests(theirs) = self.peers.call(agent, &request)? else {
            let text =
                format!("agent {agent} answered out of turn: run the same version on both hosts");
            return Err(fail(FailureKind::Protocol, text));
        };
        let equal = |file: &File, theirs: &Option<[u8; 32]>| {
            theirs.is_some_and(|theirs| self.digests.of(file).is_ok_and(|ours| ours == theirs))
        };
        let pairs = candidates.into_iter().zip(theirs);
        Ok(pairs.filter(|((_, file), theirs)| equal(file, theirs)).map(|(pair, _)| pair).collect())
    }
}

fn open_alike(mapped: &MappedFile) -> Option<File> {
    let file = File::open(&mapped.path).ok()?;
    let meta = file.metadata().ok()?;
    (meta.is_file() && meta.size() == mapped.size).then_some(file)
}

fn open_unchanged(mapped: &MappedFile) -> Option<File> {
    let file = File::open(&mapped.path).ok()?;
    let meta = file.metadata().ok()?;
    let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    let same = (meta.dev(), meta.ino()) == mapped.dev_ino && meta.size() == mapped.size;
    (same && mtime_ns == mapped.mtime_ns).then_some(file)
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
