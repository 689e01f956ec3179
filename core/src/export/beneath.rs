//! READs of what lies beneath written pages of files (`descriptor/beneath.rs`): answered from the file itself, as no
//! mapping of the seed's shows these bytes any more.
//!
//! A file is opened for each READ: they are rare, and a seed has a hundred files mapped. It must still be the one
//! that the seed has mapped; how long it has become, and what was written to it since, shows as it does in a mapping.
//! One that has no name any more (deleted, replaced, a memfd) is opened by the seed's mapping of it, which takes
//! CAP_CHECKPOINT_RESTORE. Of what a child has from the image of its seed, that one has the file's bytes.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use crate::descriptor::{BENEATH, MappedFile, SeedAddr, SeedRange};

/// A file beneath a mapping.
#[derive(Clone, Debug)]
pub struct FileBeneath {
    /// The addresses that READs name.
    pub range: SeedRange,
    /// What has its bytes.
    pub bytes: BytesBeneath,
    /// Where in that the range begins.
    pub offset: u64,
}

/// Who has the bytes of a file.
#[derive(Clone, Debug)]
pub enum BytesBeneath {
    /// Itself.
    File {
        /// The file.
        file: MappedFile,
        /// The process that has it mapped, as this /proc numbers it.
        pid: u32,
    },
    /// The image that a child has it from.
    Image(Arc<File>),
}

impl FileBeneath {
    fn open(&self) -> Option<Arc<File>> {
        let (mapped, pid) = match &self.bytes {
            BytesBeneath::File { file, pid } => (file, pid),
            BytesBeneath::Image(image) => return Some(image.clone()),
        };
        let by_mapping = || {
            let [start, end] = [self.range.start, self.range.end].map(|addr| addr.0 - BENEATH);
            open_regular(&format!("/proc/{pid}/map_files/{start:x}-{end:x}"))
        };
        let is_it = |file: &File| {
            let meta = file.metadata();
            meta.is_ok_and(|meta| (meta.dev(), meta.ino()) == mapped.dev_ino)
        };
        let file = open_regular(&mapped.path).filter(is_it).or_else(|| by_mapping().filter(is_it));
        file.map(Arc::new)
    }
}

/// Reads from `addr` on as much of `into` as lies in one of `files`, which ascend; at least a byte.
///
/// # Errors
/// `NotFound`: there is nothing at `addr`, or its file is another one by now; and read(2)'s.
pub(super) fn read(files: &[FileBeneath], addr: SeedAddr, into: &mut [u8]) -> io::Result<usize> {
    let after = files.partition_point(|beneath| beneath.range.end <= addr);
    let found = files.get(after).filter(|beneath| beneath.range.contains(addr));
    let beneath = found.ok_or(ErrorKind::NotFound)?;
    let left = usize::try_from(beneath.range.end.0 - addr.0).unwrap_or(usize::MAX);
    let len = into.len().min(left);
    let into = &mut into[..len];
    let file = beneath.open().ok_or(ErrorKind::NotFound)?;
    let offset = beneath.offset.checked_add(addr.0 - beneath.range.start.0);
    let offset = offset.ok_or(ErrorKind::NotFound)?;
    let mut at = 0;
    while at < len {
        match file.read_at(&mut into[at..], offset + at as u64) {
            // Behind its end a file shows zeros.
            Ok(0) => {
                into[at..].fill(0);
                break;
            }
            Ok(got) => at += got,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Opens a path that somebody else has named: nothing but a regular file, and never waiting (a fifo would).
pub(crate) fn open_regular(path: &str) -> Option<File> {
    std::fs::metadata(path).ok().filter(Metadata::is_file)?;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(path).ok()?;
    file.metadata().is_ok_and(|meta| meta.is_file()).then_some(file)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const PAGE: u64 = 4096;

    fn beneath(path: &Path, at: u64, pages: u64, offset: u64) -> FileBeneath {
        let meta = std::fs::metadata(path).unwrap();
        let start = BENEATH + at;
        let file = MappedFile {
            path: path.to_str().unwrap().to_owned(),
            size: meta.size(),
            mtime_ns: 0,
            dev_ino: (meta.dev(), meta.ino()),
        };
        let range = SeedRange::new(start, start + pages * PAGE);
        FileBeneath { range, bytes: BytesBeneath::File { file, pid: 0 }, offset }
    }

    #[test]
    fn a_read_is_of_the_file_as_it_is_and_of_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mapped");
        let bytes: Vec<u8> = (0..2 * PAGE + 10).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let files = [beneath(&path, 0x10_0000, 2, PAGE), beneath(&path, 0x20_0000, 1, 0)];
        let mut page = [0xff; 4096];
        let at = |addr: u64| SeedAddr(BENEATH + addr);
        assert_eq!(read(&files, at(0x20_0000), &mut page).unwrap(), 4096);
        assert_eq!(page, bytes[..4096]);
        // A file's last page goes on with zeros, and a range ends where it ends.
        let mut pages = [0xff; 3 * 4096];
        assert_eq!(read(&files, at(0x10_1000), &mut pages).unwrap(), 4096);
        assert_eq!(pages[..10], bytes[2 * 4096..]);
        assert!(pages[10..4096].iter().all(|byte| *byte == 0));
        assert!(pages[4096..].iter().all(|byte| *byte == 0xff));
        for addr in [0xf_f000, 0x10_2000, 0x20_1000] {
            let error = read(&files, at(addr), &mut page).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{addr:x}");
        }
        let other = folder.path().join("other");
        std::fs::write(&other, "another file").unwrap();
        std::fs::rename(&other, &path).unwrap();
        let error = read(&files, at(0x20_0000), &mut page).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
