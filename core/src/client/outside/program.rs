//! What a program's file says of whether the preload library can be loaded into it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A script's interpreter may be a script; the kernel follows so many.
const MAX_INTERPRETERS: u32 = 4;
/// Of the first line of a script: BINPRM_BUF_SIZE.
const SCRIPT_LINE_BYTES: usize = 256;
const MAX_PROGRAM_HEADERS: u16 = 128;
const PT_INTERP: u32 = 3;
const EM_X86_64: u16 = 62;
const SET_ID_BITS: u32 = 0o6000;
const SET_GROUP_ID: u32 = 0o2010;

/// Why a program does not take the library. Its text names no program: that stands before it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unloadable {
    /// It has no dynamic linker.
    #[error(
        "is linked statically: LD_PRELOAD has no effect on it; use a dynamically linked build, or prepare from \
         within by libmitosis"
    )]
    Static,
    /// The kernel starts it in secure mode.
    #[error(
        "is set-user-ID, set-group-ID or has file capabilities: LD_PRELOAD is ignored for it; run a copy \
         without these rights"
    )]
    Privileged,
    /// Another libc.
    #[error("runs on the dynamic linker {0}: the library needs glibc; use a build for glibc")]
    OtherLibc(String),
    /// Another processor.
    #[error("is for another architecture than this host's (x86-64)")]
    OtherArchitecture,
    /// No program.
    #[error("is neither a program (ELF) nor a script")]
    NotAProgram,
    /// It cannot be read.
    #[error("cannot be looked at: {0}")]
    Unreadable(#[from] io::Error),
}

/// Finds `name` as execvp(3) does.
pub fn find(name: &Path, path: &str) -> Option<PathBuf> {
    let is_program = |file: &Path| {
        fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
    };
    if name.as_os_str().as_encoded_bytes().contains(&b'/') {
        return is_program(name).then(|| name.to_owned());
    }
    let folders = path.split(':').map(|folder| if folder.is_empty() { "." } else { folder });
    folders.map(|folder| Path::new(folder).join(name)).find(|file| is_program(file))
}

/// Whether the dynamic linker will load the library into the program at `file`; `path` is what `PATH` says.
///
/// # Errors
/// It will not; the text goes behind the program's name.
pub fn loads(file: &Path, path: &str) -> Result<(), Unloadable> {
    let mut file = file.to_owned();
    for _ in 0..MAX_INTERPRETERS {
        if is_privileged(&file)? {
            return Err(Unloadable::Privileged);
        }
        match interpreter(&file, path)? {
            Some(interpreter) => file = interpreter,
            None => return elf_loads(&file),
        }
    }
    Err(Unloadable::NotAProgram)
}

fn is_privileged(file: &Path) -> io::Result<bool> {
    let mode = fs::metadata(file)?.permissions().mode();
    // Set-group-ID without the group's x bit marks files for locking, and is no right.
    let set_id = mode & SET_ID_BITS & !0o2000 != 0 || mode & SET_GROUP_ID == SET_GROUP_ID;
    Ok(set_id || crate::sys::xattr::has(file, c"security.capability"))
}

/// The program that runs a script: of its first line, through env(1).
fn interpreter(file: &Path, path: &str) -> io::Result<Option<PathBuf>> {
    let mut start = Vec::new();
    File::open(file)?.take(SCRIPT_LINE_BYTES as u64).read_to_end(&mut start)?;
    let Some(line) = start.strip_prefix(b"#!") else { return Ok(None) };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let Some(program) = words.next() else { return Ok(None) };
    let by_env = Path::new(program).file_name().is_some_and(|name| name == "env");
    let named = words.find(|word| !word.starts_with('-') && !word.contains('='));
    Ok(match named.filter(|_| by_env) {
        Some(named) => find(Path::new(named), path),
        None => Some(program.into()),
    })
}

fn elf_loads(file: &Path) -> Result<(), Unloadable> {
    let mut elf = File::open(file)?;
    let mut header = [0u8; 64];
    if elf.read_exact(&mut header).is_err() || &header[..4] != b"\x7fELF" {
        return Err(Unloadable::NotAProgram);
    }
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    const CLASS_64: u8 = 2;
    if header[4] != CLASS_64 || half(18) != EM_X86_64 {
        return Err(Unloadable::OtherArchitecture);
    }
    let table = u64::from_le_bytes(header[32..40].try_into().unwrap_or_default());
    for index in 0..half(56).min(MAX_PROGRAM_HEADERS) {
        let mut entry = [0u8; 56];
        elf.seek(SeekFrom::Start(table + u64::from(index) * u64::from(half(54))))?;
        elf.read_exact(&mut entry)?;
        let word = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap_or_default());
        if entry[..4] == PT_INTERP.to_le_bytes() {
            elf.seek(SeekFrom::Start(word(8)))?;
            let mut name = Vec::new();
            elf.take(word(32).min(SCRIPT_LINE_BYTES as u64)).read_to_end(&mut name)?;
            let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
            return if name.contains("ld-linux") {
                Ok(())
            } else {
                Err(Unloadable::OtherLibc(name))
            };
        }
    }
    Err(Unloadable::Static)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> PathBuf {
        let file = folder.join(name);
        fs::write(&file, bytes).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    /// A header with one program header of `kind`, and a name behind it.
    fn elf(machine: u16, kind: u32, interpreter: &str) -> Vec<u8> {
        let mut bytes = vec![0u8; 64 + 56];
        bytes[..5].copy_from_slice(b"\x7fELF\x02");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[54..56].copy_from_slice(&56u16.to_le_bytes());
        bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&kind.to_le_bytes());
        bytes[72..80].copy_from_slice(&120u64.to_le_bytes());
        bytes[96..104].copy_from_slice(&(interpreter.len() as u64 + 1).to_le_bytes());
        bytes.extend_from_slice(interpreter.as_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn programs_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let path = folder.display().to_string();
        let good = elf(EM_X86_64, PT_INTERP, "/lib64/ld-linux-x86-64.so.2");
        let check = |name: &str, bytes: &[u8], mode| match loads(
            &write(folder, name, bytes, mode),
            &path,
        ) {
            Ok(()) => "loads".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(check("good", &good, 0o755), "loads");
        assert_eq!(check("script", format!("#! {path}/good -u\n").as_bytes(), 0o755), "loads");
        assert_eq!(check("env", b"#!/usr/bin/env -S A=1 good x\n", 0o755), "loads");
        for (name, bytes, mode, says) in [
            ("static", elf(EM_X86_64, 1, ""), 0o755, "is linked statically"),
            (
                "musl",
                elf(EM_X86_64, PT_INTERP, "/lib/ld-musl-x86_64.so.1"),
                0o755,
                "/lib/ld-musl-x86_64.so.1",
            ),
            (
                "arm",
                elf(183, PT_INTERP, "/lib/ld-linux-aarch64.so.1"),
                0o755,
                "another architecture",
            ),
            ("suid", good.clone(), 0o4755, "set-user-ID"),
            ("sgid", good.clone(), 0o2755, "set-user-ID"),
            ("text", b"hello".to_vec(), 0o755, "neither a program"),
            ("loop", format!("#!{path}/loop\n").into_bytes(), 0o755, "neither a program"),
            ("lost", b"#!/nonexistent/sh\n".to_vec(), 0o755, "No such file"),
        ] {
            let said = check(name, &bytes, mode);
            assert!(said.contains(says), "{name}: {said}");
        }
    }

    #[test]
    fn a_program_is_found_in_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "tool", b"#!/bin/sh\n", 0o755);
        write(folder.path(), "data", b"", 0o644);
        symlink(&file, folder.path().join("link")).unwrap();
        let path = format!("/nonexistent:{}", folder.path().display());
        assert_eq!(find(Path::new("tool"), &path), Some(file.clone()));
        assert_eq!(find(Path::new("link"), &path), Some(folder.path().join("link")));
        assert_eq!(find(&file, ""), Some(file));
        assert_eq!(find(Path::new("data"), &path), None);
        assert_eq!(find(Path::new("other"), &path), None);
    }
}
