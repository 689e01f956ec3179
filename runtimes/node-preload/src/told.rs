//! What the library tells: one line on standard error, and the handle where somebody wants it.
#![allow(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mitosis::id::Handle;

/// Names the file that the handle is written to.
pub(crate) const HANDLE_FILE_VARIABLE: &str = "MITOSIS_HANDLE_FILE";

/// A line on standard error, in one write: the program's own lines stay whole.
pub(crate) fn line(text: &str) {
    let line = format!("mitosis: {text}\n");
    // SAFETY: the bytes live through the call. Where standard error is closed nobody listens.
    unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

/// The handle, to the file that `MITOSIS_HANDLE_FILE` names, else on standard error.
pub(crate) fn handle(handle: &Handle, file: Option<&Path>) {
    let text = handle.reveal();
    match file.map(|file| (file, write(file, &text))) {
        None => line(&format!("prepared; resume it by: mitosis resume '{text}'")),
        Some((file, Ok(()))) => line(&format!("prepared; its handle stands in {}", file.display())),
        Some((file, Err(error))) => line(&format!(
            "prepared, but the handle could not be written to {} ({error}); 'mitosis ls' shows the seed",
            file.display()
        )),
    }
}

/// Nobody but its user reads it, and nobody reads half of it.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(name);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut new| writeln!(new, "{text}"))
        .and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        // It may not have come to be.
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_handle_is_for_its_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("handle");
        fs::write(&file, "old").unwrap();
        write(&file, "text").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "text\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write(&folder.path().join("none/handle"), "text").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
