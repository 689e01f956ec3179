//! Which processes of this host have a pipe or a socket open, or map a file: looked for where prepare is
//! refused for it, and nowhere else.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// Of many, a text names so many.
const NAMED: usize = 4;

/// Processes with a descriptor that links to `link`, or leads to `inode` where the link is a path; without `but`
/// and seeds.
pub(super) fn of(link: &str, inode: u64, but: &[u32]) -> Vec<String> {
    among(but, &|pid| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| match link.starts_with('/') {
            true => fs::metadata(&path).is_ok_and(|meta| meta.ino() == inode),
            false => fs::read_link(&path).is_ok_and(|to| to.to_str() == Some(link)),
        })
    })
}

/// Processes that map the inode of a device: `device` as maps writes it.
pub(super) fn mapping(device: &str, inode: u64, but: &[u32]) -> Vec<String> {
    let inode = inode.to_string();
    among(but, &|pid| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        maps.lines().any(|line| {
            let mut words = line.split_ascii_whitespace().skip(3);
            words.next() == Some(device) && words.next() == Some(&inode)
        })
    })
}

fn among(but: &[u32], is_one: &dyn Fn(u32) -> bool) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = pids.filter(|pid| !but.contains(pid) && *pid != std::process::id());
    let named = others.filter(|pid| is_one(*pid)).filter_map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        let name = name.trim_end();
        (name != SEED_NAME).then(|| format!("'{name}' (process {pid})"))
    });
    named.take(NAMED).collect()
}

/// As a seed calls itself.
const SEED_NAME: &str = "mitosis-seed";

/// The process that a seed was made of, as this host numbers it; 0 if it has ended.
pub(super) fn parent_of(seed: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{seed}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    parent.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
