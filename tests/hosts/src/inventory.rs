//! The files of a host's tree, opened outside: each one asked for, and the shared libraries that
//! `ldd` finds for it.
//!
//! They are opened before the host exists, as its mounts may cover the places that they come from.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::spec::FileSpec;

/// Top directories that merged-/usr systems have as links; a host's tree has the same links, so
/// that a library has one path on all hosts.
const MERGED_DIRECTORIES: [&str; 5] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// What stands at one path of the tree.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A copy of the open file, with this mode.
    File(File, u32),
    /// A symbolic link to this target.
    Link(PathBuf),
}

/// Entries by their absolute paths, a directory's link before what lies behind it.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) links: BTreeMap<PathBuf, PathBuf>,
    pub(crate) entries: BTreeMap<PathBuf, Entry>,
}

impl Inventory {
    /// Opens all `files` and what they need.
    pub(crate) fn collect(files: &[FileSpec]) -> Result<Self> {
        let mut inventory = Self::default();
        for top in MERGED_DIRECTORIES {
            if let Ok(target) = fs::read_link(top) {
                inventory.links.insert(top.into(), target);
            }
        }
        for spec in files {
            inventory.add(&spec.source, &spec.destination)?;
            if is_elf(&spec.source)? {
                for library in libraries_of(&spec.source)? {
                    inventory.add_library(&library)?;
                }
            }
        }
        Ok(inventory)
    }

    /// A library goes to its real path; the name that the loader asks for becomes a link where it
    /// is one here.
    fn add_library(&mut self, name: &Path) -> Result<()> {
        let real = fs::canonicalize(name)
            .with_context(|| format!("ldd names {}, which cannot be found", name.display()))?;
        self.add(&real, &real)?;
        let parent = name.parent().unwrap_or(Path::new("/"));
        let parent = fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned());
        let place = parent.join(name.file_name().unwrap_or_default());
        if place != real {
            self.entries.entry(place).or_insert(Entry::Link(real));
        }
        Ok(())
    }

    fn add(&mut self, source: &Path, destination: &Path) -> Result<()> {
        if self.entries.contains_key(destination) {
            return Ok(());
        }
        let what = || format!("cannot take {} to a host", source.display());
        let file = File::open(source).with_context(what)?;
        let metadata = file.metadata().with_context(what)?;
        if !metadata.is_file() {
            bail!("{}: it is no regular file; name each file of a directory", what());
        }
        let entry = Entry::File(file, metadata.mode() & 0o7777);
        self.entries.insert(destination.to_owned(), entry);
        Ok(())
    }
}

fn is_elf(path: &Path) -> Result<bool> {
    let mut magic = [0; 4];
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(file.read_exact(&mut magic).is_ok() && magic == *b"\x7fELF")
}

/// What `ldd` lists for `path`. Nothing for a static program; ldd fails there, on which no other
/// program depends, so its exit status says nothing.
fn libraries_of(path: &Path) -> Result<Vec<PathBuf>> {
    let path = fs::canonicalize(path)?;
    let output = Command::new("ldd")
        .arg(&path)
        .env_remove("LD_PRELOAD")
        .env("LC_ALL", "C")
        .output()
        .context("cannot run ldd; install libc-bin")?;
    parse_ldd(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("{} would not start on a host", path.display()))
}

fn parse_ldd(listing: &str) -> Result<Vec<PathBuf>> {
    let mut libraries = Vec::new();
    for line in listing.lines() {
        // "libc.so.6 => /lib/libc.so.6 (0x7f..)", "/lib64/ld-linux.so.2 (0x7f..)", and
        // "linux-vdso.so.1 (0x7f..)" or "statically linked", which name no file.
        let name = line.split_once("=>").map_or(line, |(_, place)| place).trim();
        if name == "not found" {
            bail!("it needs{}; install that library", line.trim_end_matches("=> not found"));
        }
        if let Some((name, _)) = name.rsplit_once(" (0x").filter(|(name, _)| name.starts_with('/'))
        {
            libraries.push(PathBuf::from(name));
        }
    }
    Ok(libraries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_of_ldd_parse() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffc)\n\
            \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let libraries = parse_ldd(listing).unwrap();
        assert_eq!(
            libraries,
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(parse_ldd("\tstatically linked\n").unwrap().is_empty());
        let error = parse_ldd("\tlibx.so.1 => not found\n").unwrap_err();
        assert!(error.to_string().contains("libx.so.1"), "{error}");
    }
}
