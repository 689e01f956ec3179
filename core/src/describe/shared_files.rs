//! Files that were mapped shared and could be written -> what a child's host must have to map them itself.
//!
//! What a file of that name is there is told by its bytes where it was mapped, as they were when the seed froze: the
//! seed's own file may have changed since.

use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::DescribeError;
use super::files::DELETED;
use super::smaps::SmapsEntry;
use crate::descriptor::vma::MAX_SHARED_FILES;
use crate::descriptor::{
    CarriedFile, FileKind, Loss, LossKind, SeedAddr, SeedRange, SharedFile, SharedPart,
};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 << 10;

/// Of a seed's shared memory, what is a file's.
#[derive(Debug, Default)]
pub(super) struct SharedFiles {
    pub(super) files: Vec<SharedFile>,
    /// What no host can have: files without a path, and those whose path leads to something else for this agent.
    pub(super) lost: Vec<Loss>,
}

impl SharedFiles {
    /// Those among `parts`, of which `copies` in `mem` have the bytes. A file without a path that is `carried` is as good as
    /// memory.
    ///
    /// # Errors
    /// `Read`: the seed is gone. `Refused`, where there is to be no child without such a file, and one is lost.
    pub(super) fn of(
        parts: &[SharedPart],
        entries: &[SmapsEntry<'_>],
        (copies, mem): (&[(SeedRange, SeedAddr)], &File),
        carried: &[CarriedFile],
        is_needed: bool,
    ) -> Result<SharedFiles, DescribeError> {
        let mut found = SharedFiles::default();
        let objects = parts.iter().map(|part| part.object + 1).max().unwrap_or(0);
        for object in 0..objects {
            let own: Vec<&SharedPart> = parts.iter().filter(|part| part.object == object).collect();
            let first = own.first().map(|part| part.range);
            let entry = entries.iter().find(|entry| Some(entry.range) == first);
            let Some(entry) = entry.filter(|entry| is_file(entry.name)) else { continue };
            let Some(meta) = leads_to(entry).filter(|_| found.files.len() < MAX_SHARED_FILES)
            else {
                let is_deleted = entry.name.ends_with(DELETED);
                if is_deleted && own.iter().any(|part| is_carried(part, carried)) {
                    continue;
                }
                found.lost.push(Loss::of_memory(LossKind::SharedFiles, entry.name));
                continue;
            };
            let end = own.iter().map(|part| part.offset + part.range.len()).max().unwrap_or(0);
            found.files.push(SharedFile {
                object,
                path: entry.name.to_owned(),
                dev_ino: (entry.device_number, entry.inode),
                digest: digest(&own, copies, mem)?,
                bytes: meta.size().min(end),
                is_needed,
            });
        }
        match found.lost.first() {
            Some(loss) if is_needed => Err(DescribeError::Refused(format!(
                "it was to be refused where something cannot cross: {} is mapped shared, and it is deleted, or its path \
                 leads this host's agent to another file, or it is one of more than {MAX_SHARED_FILES} (shared_files). \
                 Unmap it before prepare, or have children get a copy (shared_files: close)",
                loss.was
            ))),
            _ => Ok(found),
        }
    }
}

/// Memory only looks like one.
fn is_file(name: &str) -> bool {
    const MEMORY: [&str; 5] = ["/memfd:", "/dev/zero", "/SYSV", "/dev/shm/", "/anon_hugepage"];
    name.starts_with('/') && !MEMORY.iter().any(|memory| name.starts_with(memory))
}

/// Whether children have all of it, at its numbers.
fn is_carried(part: &SharedPart, carried: &[CarriedFile]) -> bool {
    let record = part.file.and_then(|record| carried.get(usize::try_from(record).ok()?));
    record.is_some_and(|file| matches!(file.kind, FileKind::Memory { .. }))
}

fn leads_to(entry: &SmapsEntry<'_>) -> Option<Metadata> {
    let meta = fs::metadata(entry.name).ok().filter(Metadata::is_file)?;
    ((meta.dev(), meta.ino()) == (entry.device_number, entry.inode)).then_some(meta)
}

fn digest(
    parts: &[&SharedPart],
    copies: &[(SeedRange, SeedAddr)],
    mem: &File,
) -> Result<[u8; 32], DescribeError> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    for part in parts {
        let copy = copies.iter().find(|(range, _)| *range == part.range);
        let mut at = copy.map_or(part.range.start.0, |(_, copy)| copy.0);
        let end = at + part.range.len();
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
            mem.read_exact_at(&mut piece[..len], at)
                .map_err(|error| DescribeError::Read { what: "shared memory", error })?;
            hasher.update(&piece[..len]);
            at += len as u64;
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::descriptor::VmaFlags;
    use crate::descriptor::carried::NotCarried;

    const PAGE: u64 = 4096;
    const PAGE_BYTES: usize = 4096;

    fn part(object: u32, start: u64) -> SharedPart {
        let range = SeedRange::new(start * PAGE, (start + 1) * PAGE);
        SharedPart { range, object, offset: 0, file: None }
    }

    fn entry(part: &SharedPart, name: &'static str, meta: &Metadata) -> SmapsEntry<'static> {
        SmapsEntry {
            range: part.range,
            prot: 3,
            shared: true,
            offset: 0,
            device_number: meta.dev(),
            inode: meta.ino(),
            name,
            flags: VmaFlags(0),
            device: false,
        }
    }

    #[test]
    fn a_file_is_told_by_the_bytes_that_were_copied_and_what_leads_elsewhere_is_lost() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[5; 100]).unwrap();
        let meta = file.as_file().metadata().unwrap();
        let path: &'static str = String::leak(file.path().to_str().unwrap().to_owned());
        let other: &'static str = String::leak(format!("{path}-other"));
        fs::write(other, b"another").unwrap();
        // The memory of the seed is a file here, the copies of its first and second page behind them.
        let mem = tempfile::tempfile().unwrap();
        mem.write_all_at(&[7; PAGE_BYTES], 8 * PAGE).unwrap();
        let mut parts = [part(0, 1), part(1, 2), part(2, 3), part(3, 4), part(4, 5), part(5, 6)];
        let gone = "/gone (deleted)";
        let names = [path, other, "/dev/shm/x", gone, "/open (deleted)", "/large (deleted)"];
        parts[4].file = Some(0);
        parts[5].file = Some(1);
        let kind = |kind| CarriedFile { numbers: Vec::new(), flags: 2, kind };
        let (name, content) = ("open".to_owned(), vec![1]);
        let carried = [
            kind(FileKind::Memory { name, position: 0, content, seals: 0 }),
            kind(FileKind::Closed(NotCarried::TooLarge)),
        ];
        let entries: Vec<SmapsEntry<'_>> =
            parts.iter().zip(names).map(|(part, name)| entry(part, name, &meta)).collect();
        let copies = [(parts[0].range, SeedAddr(8 * PAGE))];
        let copies = (&copies[..], &mem);
        let found = SharedFiles::of(&parts, &entries, copies, &carried, false).unwrap();
        let digest = *blake3::hash(&[7; PAGE_BYTES]).as_bytes();
        let (object, dev_ino) = (0, (meta.dev(), meta.ino()));
        let wanted =
            SharedFile { object, path: path.into(), dev_ino, digest, bytes: 100, is_needed: false };
        assert_eq!(found.files, [wanted]);
        let lost: Vec<&str> = found.lost.iter().map(|loss| loss.was.as_str()).collect();
        assert_eq!(lost, [other, gone, "/large (deleted)"]);
        let refused = SharedFiles::of(&parts, &entries, copies, &carried, true).unwrap_err();
        assert!(refused.to_string().contains(other), "{refused}");
        fs::remove_file(other).unwrap();
    }
}
