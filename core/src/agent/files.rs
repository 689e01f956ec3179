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

/// The same for a file of another host, as its descriptors tell it and its agent checks it: device and
/// inode, size, modification time.
type TheirIdentity = ((u64, u64), u64, i64);

/// Digests of files, remembered while the files stay as they are.
#[derive(Debug, Default)]
pub struct Digests {
    known: Mutex<HashMap<Identity, [u8; 32]>>,
    /// What other agents have told of theirs: a round trip less for each seed after the first.
    theirs: Mutex<HashMap<(String, TheirIdentity), [u8; 32]>>,
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

    /// Digests that `agent` has told of these files, if it has told all of them.
    fn told(&self, agent: &str, files: &[&MappedFile]) -> Option<Vec<Option<[u8; 32]>>> {
        let theirs = self.theirs.lock();
        let told = |file: &&MappedFile| {
            theirs.get(&(agent.to_owned(), their_identity(file))).map(|digest| Some(*digest))
        };
        files.iter().map(told).collect()
    }

    fn remember(&self, agent: &str, files: &[&MappedFile], digests: &[Option<[u8; 32]>]) {
        let mut theirs = self.theirs.lock();
        if theirs.len() + files.len() > MAX_DIGESTS {
            theirs.clear();
        }
        for (file, digest) in files.iter().zip(digests).take(MAX_DIGESTS) {
            if let Some(digest) = digest {
                theirs.insert((agent.to_owned(), their_identity(file)), *digest);
            }
        }
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
        let agent = handle.agent.as_deref().unwrap_or_default();
        let files = candidates.iter().map(|(index, _)| &descriptor.files[usize::from(*index)]);
        let files: Vec<&MappedFile> = files.collect();
        let theirs = match self.digests.told(agent, &files) {
            Some(told) => told,
            None => {
                let indices = candidates.iter().map(|(index, _)| *index).collect();
                let theirs = self.ask_digests(agent, handle, indices)?;
                self.digests.remember(agent, &files, &theirs);
                theirs
            }
        };
        let equal = |file: &File, theirs: &Option<[u8; 32]>| {
            theirs.is_some_and(|theirs| self.digests.of(file).is_ok_and(|ours| ours == theirs))
        };
        let pairs = candidates.into_iter().zip(theirs);
        Ok(pairs.filter(|((_, file), theirs)| equal(file, theirs)).map(|(pair, _)| pair).collect())
    }
}

impl Agent {
    fn ask_digests(
        &self,
        agent: &str,
        handle: &Handle,
        files: Vec<u16>,
    ) -> Result<Vec<Option<[u8; 32]>>, Failure> {
        let request = ControlRequest::Digests { seed: handle.seed, key: handle.key.clone(), files };
        match self.peers.call(agent, &request)? {
            ControlReply::Digests(theirs) => Ok(theirs),
            _ => {
                let text = format!(
                    "agent {agent} answered out of turn: run the same version on both hosts"
                );
                Err(fail(FailureKind::Protocol, text))
            }
        }
    }
}

fn their_identity(file: &MappedFile) -> TheirIdentity {
    (file.dev_ino, file.size, file.mtime_ns)
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
