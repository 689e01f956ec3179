//! Files that a seed had mapped shared, and that this host has, too: its children map them, and write to them.
//!
//! A file is the seed's if it is the same one (on the seed's own host), or if it had the same bytes, wherever the seed
//! had mapped it, when the first child of that seed came here. From then on it is the seed's, whatever its children
//! write there: a later child is to see that.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::failure::fail;
use crate::descriptor::{Descriptor, Loss, LossKind, OwnCredentials, SharedFile, SharedPart};
use crate::id::SeedId;
use crate::resume::SharedHere;
use crate::wire::local::{Failure, FailureKind};

/// Files that are known for a seed's, of all seeds; beyond it they are told by their bytes anew.
const MAX_KNOWN: usize = 4096;
/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Device, inode and birth: a number is given anew where a file is gone.
type Known = (u64, u64, Option<SystemTime>);

/// Which files of this host are those of seeds.
#[derive(Debug, Default)]
pub(super) struct SharedFiles {
    known: Mutex<HashMap<(SeedId, u32), Known>>,
}

impl SharedFiles {
    /// Takes out of a seed's shared memory what its children have from this host's files; of the rest that has a path
    /// they are told that it is lost. `is_own`: the seed is of this host.
    ///
    /// # Errors
    /// `HostUnfit`, where there is to be no child without it.
    pub(super) fn take(
        &self,
        descriptor: &mut Descriptor,
        is_own: bool,
    ) -> Result<Vec<SharedHere>, Failure> {
        let mut here = Vec::new();
        for wanted in std::mem::take(&mut descriptor.shared_files) {
            match self.open(descriptor, &wanted, is_own) {
                Ok(file) => {
                    let is_its = |part: &SharedPart| part.object == wanted.object;
                    let parts = descriptor.shared.extract_if(.., |part| is_its(part)).collect();
                    here.push(SharedHere { file, parts });
                }
                Err(why) if wanted.is_needed => {
                    let (seed, path) = (descriptor.seed, &wanted.path);
                    let text = format!(
                        "seed {seed} cannot be resumed here: {path} is mapped shared, and {why} (shared_files). Have \
                         the same file here, or have children get a copy (shared_files: close)"
                    );
                    return Err(fail(FailureKind::HostUnfit, text));
                }
                Err(why) => {
                    let (seed, path) = (descriptor.seed, &wanted.path);
                    tracing::warn!(%seed, path, why, "a file that is mapped shared is not here: children have a copy");
                    let loss = Loss::of_memory(LossKind::SharedFiles, path);
                    descriptor.losses.all.push(loss);
                }
            }
        }
        Ok(here)
    }

    fn open(
        &self,
        descriptor: &Descriptor,
        wanted: &SharedFile,
        is_own: bool,
    ) -> Result<File, &'static str> {
        // It is opened by the agent's rights, which such a process may not have.
        if descriptor.credentials != OwnCredentials::default() {
            return Err("the process is not whom its agent is");
        }
        let file = open_to_write(&wanted.path).ok_or("no such file is here to be written")?;
        let meta = file.metadata().map_err(|_| "it cannot be looked at here")?;
        let dev_ino = (meta.dev(), meta.ino());
        let this = (meta.dev(), meta.ino(), meta.created().ok());
        let key = (descriptor.seed, wanted.object);
        let is_known = self.known.lock().get(&key) == Some(&this);
        if is_known || is_own && dev_ino == wanted.dev_ino {
            return Ok(file);
        }
        let shows_the_same = || {
            let parts = wanted.parts(&descriptor.shared);
            meta.size() >= wanted.bytes && digest(&file, parts).is_ok_and(|it| it == wanted.digest)
        };
        if !shows_the_same() {
            return Err("the file here has other bytes");
        }
        let mut known = self.known.lock();
        let is_full = known.len() >= MAX_KNOWN;
        if let Some(other) = known.keys().next().copied().filter(|_| is_full) {
            known.remove(&other);
        }
        known.insert(key, this);
        Ok(file)
    }
}

/// Nothing but a regular file, without making one, and without waiting.
fn open_to_write(path: &str) -> Option<File> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).write(true).custom_flags(flags).open(path).ok()?;
    file.metadata().is_ok_and(|meta| meta.is_file()).then_some(file)
}

/// Of what the parts would show.
fn digest<'a>(
    file: &File,
    parts: impl Iterator<Item = &'a SharedPart>,
) -> std::io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    for part in parts {
        let (mut at, end) = (part.offset, part.offset + part.range.len());
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
            let mut done = 0;
            while done < len {
                match file.read_at(&mut piece[done..len], at + done as u64)? {
                    // Behind its end nothing was copied of it.
                    0 => break,
                    got => done += got,
                }
            }
            piece[done..len].fill(0);
            hasher.update(&piece[..len]);
            at += len as u64;
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptor::SeedRange;
    use crate::resume::compile::tests::descriptor;

    const PAGE: usize = 4096;

    /// Of two pages of a file of a page and a half.
    fn seed(path: &std::path::Path, bytes: &[u8]) -> Descriptor {
        let range = SeedRange::new(1 << 30, (1 << 30) + 2 * PAGE as u64);
        let other = SeedRange::new(1 << 31, (1 << 31) + PAGE as u64);
        let part = |range, object| SharedPart { range, object, offset: 0, file: None };
        let mut shown = bytes.to_vec();
        shown.resize(2 * PAGE, 0);
        Descriptor {
            shared: vec![part(range, 0), part(other, 1)],
            shared_files: vec![SharedFile {
                object: 0,
                path: path.to_str().unwrap().to_owned(),
                dev_ino: (1, 2),
                digest: *blake3::hash(&shown).as_bytes(),
                bytes: bytes.len() as u64,
                is_needed: false,
            }],
            ..descriptor()
        }
    }

    #[test]
    fn a_file_is_here_by_its_bytes_and_stays_the_seeds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mapped");
        let bytes = [3; PAGE + PAGE / 2];
        let seed = seed(&path, &bytes);
        let files = SharedFiles::default();
        let take = |files: &SharedFiles, is_own| {
            let mut seed = seed.clone();
            let here = files.take(&mut seed, is_own).unwrap();
            assert_eq!(here.len() + seed.losses.all.len(), 1);
            assert_eq!(here.len() + seed.shared.len(), 2);
            !here.is_empty()
        };
        assert!(!take(&files, false), "it is not there");
        std::fs::write(&path, &bytes[1..]).unwrap();
        assert!(!take(&files, false), "it is shorter");
        std::fs::write(&path, bytes).unwrap();
        assert!(take(&files, false));
        std::fs::write(&path, b"a child has written").unwrap();
        assert!(take(&files, false), "it is known");
        assert!(!take(&SharedFiles::default(), false), "to who has seen it before alone");
        std::fs::rename(&path, folder.path().join("elsewhere")).unwrap();
        std::fs::write(&path, b"another").unwrap();
        assert!(!take(&files, false), "another file of that name");
    }

    #[test]
    fn on_its_own_host_a_file_is_itself_whatever_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mapped");
        std::fs::write(&path, b"other bytes").unwrap();
        let meta = std::fs::metadata(&path).unwrap();
        let mut seed = seed(&path, &[3; PAGE]);
        seed.shared_files[0].dev_ino = (meta.dev(), meta.ino());
        assert_eq!(SharedFiles::default().take(&mut seed.clone(), true).unwrap().len(), 1);
        assert!(SharedFiles::default().take(&mut seed.clone(), false).unwrap().is_empty());
        // Rights of the agent's are not for everybody.
        let mut other = seed.clone();
        other.credentials.users = Some([1; 4]);
        assert!(SharedFiles::default().take(&mut other, true).unwrap().is_empty());
        seed.shared_files[0].is_needed = true;
        let refused = SharedFiles::default().take(&mut seed, false).unwrap_err();
        assert!(refused.message.contains("has other bytes (shared_files)"), "{refused:?}");
    }

    #[test]
    fn nothing_but_a_regular_file_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open_to_write(folder.path().to_str().unwrap()).is_none());
        assert!(open_to_write("/dev/null").is_none());
    }
}
