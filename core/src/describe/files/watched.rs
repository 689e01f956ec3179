//! What an inotify watches: the kernel tells inodes, and another host knows paths.
//!
//! A file system finds an inode by its handle (open_by_handle_at(2), which takes CAP_DAC_READ_SEARCH). Where that is not
//! to be had, the path is looked for among those that are known of the process: its working directory, files that it has
//! open or maps, and all directories above them. A path counts if the inode is found there, as the process sees it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::fdinfo::{self, Watched};
use crate::descriptor::carried::{
    MAX_CARRIED_NUMBERS, MAX_WATCH_NUMBER, MAX_WATCHED_BYTES, PathWatch,
};
use crate::descriptor::{FileKind, MappedFile, OpenFile};
use crate::sys::file_handle;

/// Where paths of a seed are looked for.
#[derive(Debug)]
pub(in crate::describe) struct Paths<'a> {
    /// The frozen process, which sees what its parent saw; 0: it is not seen from here.
    pub(in crate::describe) seed: u32,
    /// Its root directory, if that is not the agent's.
    pub(in crate::describe) root: Option<&'a str>,
    pub(in crate::describe) cwd: &'a str,
    pub(in crate::describe) open: &'a [OpenFile],
    pub(in crate::describe) mapped: &'a [MappedFile],
}

impl Paths<'_> {
    /// An inotify of which this stands in its fdinfo, with so many bytes of events in it.
    pub(super) fn inotify(&self, info: &str, unread: u64) -> FileKind {
        let (count, watched) = fdinfo::watched(info);
        let mut bytes = 0;
        let found = watched.iter().filter_map(|watch| {
            let path = self.path_of(watch).filter(|_| watch.number <= MAX_WATCH_NUMBER)?;
            bytes += path.len();
            let watch = PathWatch { number: watch.number, mask: watch.mask, path };
            (bytes <= MAX_WATCHED_BYTES).then_some(watch)
        });
        let mut watches: Vec<PathWatch> = found.take(MAX_CARRIED_NUMBERS).collect();
        watches.sort_by_key(|watch| watch.number);
        let lost = count.saturating_sub(u32::try_from(watches.len()).unwrap_or(0));
        match watches.is_empty() && unread == 0 {
            true => FileKind::Inotify { watches: lost },
            false => FileKind::Watching { watches, lost, unread },
        }
    }

    fn path_of(&self, watch: &Watched) -> Option<String> {
        let by_handle = watch.handle.as_ref().and_then(|handle| self.by_handle(watch, handle));
        let here = by_handle.map(|path| match self.root {
            Some(root) => path.strip_prefix(root).unwrap_or_default().to_owned(),
            None => path,
        });
        let mut all = here.into_iter().chain(self.known());
        all.find(|path| self.is_there(path, watch))
    }

    /// Its path by way of a mount of its file system.
    fn by_handle(&self, watch: &Watched, (kind, bytes): &(i32, Vec<u8>)) -> Option<String> {
        let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", self.seed)).ok()?;
        let device = format!("{}:{}", watch.device.0, watch.device.1);
        // Number, parent, device, root in the file system, mount point.
        let points = mounts.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(2);
            (words.next() == Some(&device)).then(|| words.nth(1)).flatten()
        });
        points.map(|point| self.in_its_root(point)).find_map(|mount| {
            let found = file_handle::path_of(Path::new(&mount), *kind, bytes).ok()?;
            found.to_str().map(str::to_owned)
        })
    }

    /// Paths that the process is known to have to do with, and all above them.
    fn known(&self) -> BTreeSet<String> {
        let open = self.open.iter().map(|file| file.link.as_str());
        let mapped = self.mapped.iter().map(|file| file.path.as_str());
        let all = open.chain(mapped).chain([self.cwd]).filter(|path| path.starts_with('/'));
        all.flat_map(|path| Path::new(path).ancestors())
            .filter_map(|path| path.to_str().map(str::to_owned))
            .collect()
    }

    /// Whether the inode lies there. A path that leads to it by a link is one, too.
    fn is_there(&self, path: &str, watch: &Watched) -> bool {
        let found = fs::symlink_metadata(self.in_its_root(path));
        path.starts_with('/')
            && found.is_ok_and(|found| {
                let device = (libc::major(found.dev()), libc::minor(found.dev()));
                (found.ino(), device) == (watch.inode, watch.device)
            })
    }

    /// A path of the process's, for this one.
    fn in_its_root(&self, path: &str) -> String {
        format!("/proc/{}/root{path}", self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(folder: &Path, number: u32) -> String {
        let meta = fs::metadata(folder).unwrap();
        let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
        let device = major << 20 | minor;
        format!(
            "inotify wd:{number:x} ino:{:x} sdev:{device:x} mask:100 ignored_mask:0 \n",
            meta.ino()
        )
    }

    fn paths<'a>(open: &'a [OpenFile], cwd: &'a str) -> Paths<'a> {
        Paths { seed: std::process::id(), root: None, cwd, open, mapped: &[] }
    }

    #[test]
    fn a_directory_above_what_is_open_is_found() {
        let folder = std::env::temp_dir().join(format!("mitosis-watched-{}", std::process::id()));
        let inner = folder.join("inner");
        fs::create_dir_all(&inner).unwrap();
        let link = inner.join("file").to_str().unwrap().to_owned();
        let open = [OpenFile { fd: 3, flags: 0, position: 0, link }];
        let text = [info(&folder, 1), info(&inner, 0x10)].concat();
        let FileKind::Watching { watches, lost, unread } = paths(&open, "/").inotify(&text, 0)
        else {
            panic!("none is found")
        };
        let found: Vec<_> =
            watches.iter().map(|watch| (watch.number, Path::new(&watch.path))).collect();
        assert_eq!(found, [(1, folder.as_path()), (0x10, inner.as_path())]);
        assert_eq!((lost, unread, watches[0].mask), (0, 0, 0x100));
        let nowhere = paths(&[], "/").inotify(&text, 0);
        assert_eq!(nowhere, FileKind::Inotify { watches: 2 });
        let far = paths(&open, "/").inotify(&info(&folder, MAX_WATCH_NUMBER + 1), 16);
        assert_eq!(far, FileKind::Watching { watches: Vec::new(), lost: 1, unread: 16 });
        fs::remove_dir_all(&folder).unwrap();
    }
}
