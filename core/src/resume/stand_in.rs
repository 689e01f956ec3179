//! What /proc/self/exe is in a child whose host has not its program, byte for byte.
//!
//! A file at the program's path, on a file system of this process's own that nobody's paths lead to: the kernel tells
//! the path that the parent was told. Its bytes are no program's. Who executes it is answered ENOENT, as by a path at
//! which nothing is: its interpreter is not there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use parking_lot::Mutex;

use crate::sys::fuse;

const TEXT: &[u8] = b"#!/mitosis/the-program-of-this-child-is-not-on-its-host\n";

/// The file system, once it was wanted.
static ROOT: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// The file at `path`. `None` where it cannot be had: children then show the agent's program.
pub(super) fn at(path: &str) -> Option<File> {
    match open(Path::new(path)) {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::info!(path, %error, "no file can stand in for a seed's program");
            None
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut parts = path.components();
    let is_plain = parts.next() == Some(Component::RootDir)
        && parts.all(|part| matches!(part, Component::Normal(_)));
    let (Some(name), true) = (path.file_name(), is_plain) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // Held while it is written: what is open for writing can be nobody's program.
    let mut root = ROOT.lock();
    let root = match &mut *root {
        Some(root) => root,
        none => none.insert(fuse::mount_memory().map_err(|fault| fault.error)?),
    };
    let folder = path.parent().and_then(|folder| folder.strip_prefix("/").ok());
    let folder = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()))
        .join(folder.unwrap_or(Path::new("")));
    let path = folder.join(name);
    if fs::symlink_metadata(&path).is_err() {
        DirBuilder::new().recursive(true).mode(0o755).create(&folder)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o555).open(&path)?;
        file.write_all(TEXT)?;
    }
    File::open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_are_none_stand_for_nothing() {
        for path in ["", "/", "relative", "/a/../b", "anon_inode:x"] {
            let error = open(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
    }

    /// Needs root.
    #[test]
    fn it_is_called_what_it_stands_for_and_runs_as_what_is_not_there() {
        for path in ["/usr/bin/a program (deleted)", "/usr/bin/a program (deleted)", "/usr/lib/x"] {
            let file = at(path).expect("a file; it takes root");
            let own = format!("/proc/self/fd/{}", file.as_raw_fd());
            assert_eq!(fs::read_link(&own).unwrap(), Path::new(path));
            let error = std::process::Command::new(own).spawn().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }
}
