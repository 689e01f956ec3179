//! What a template begins as: a copy of the keeper, as /proc shows it.

use std::fs;

use super::ResumeError;
use super::compile::HostFacts;
use crate::descriptor::{SeedRange, VmaKind};
use crate::keeper::KeeperError;
use crate::sys::{credentials, limits};

/// A keeper's heap and stack may grow by this much before the next template is placed.
const SLACK: u64 = 1 << 30;

impl HostFacts {
    /// Facts of the keeper `pid`; they hold for as long as it lives.
    ///
    /// # Errors
    /// `Facts` when its maps, limits or credentials cannot be read; the keeper's when it is dead.
    pub fn of_keeper(pid: u32) -> Result<HostFacts, ResumeError> {
        let failed = |what| move |source| ResumeError::Facts { what, source };
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(failed("maps"))?;
        if maps.is_empty() {
            // Dead and not reaped yet.
            return Err(KeeperError::Gone.into());
        }
        let limits = limits::of(pid).map_err(failed("the resource limits"))?;
        let mounts =
            fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_err(failed("mounts"))?;
        let proc_is_plain = proc_is_plain(&mounts);
        let credentials = credentials::of(pid).map_err(failed("the credentials"))?;
        let mut facts = HostFacts { limits, credentials, proc_is_plain, ..HostFacts::default() };
        for (range, name) in maps.lines().filter_map(parse_line) {
            match name {
                "[vdso]" => facts.special.push((VmaKind::Vdso, range)),
                name if name.starts_with("[vvar") => facts.special.push((VmaKind::Vvar, range)),
                "[vsyscall]" => {}
                _ => facts.mapped.push(range),
            }
        }
        Ok(facts)
    }

    /// What a placement must stay clear of.
    pub fn avoid(&self) -> Vec<SeedRange> {
        let special = self.special.iter().map(|(_, range)| range);
        let all = self.mapped.iter().chain(special);
        all.map(|r| SeedRange::new(r.start.0.saturating_sub(SLACK), r.end.0 + SLACK)).collect()
    }
}

/// Whether proc_pid_mountinfo(5) has one /proc, whole, with no options, over which nothing is mounted that
/// hides a part of it, as containers have it.
fn proc_is_plain(mounts: &str) -> bool {
    let mut seen = 0;
    for line in mounts.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { return false };
        let mount: Vec<&str> = mount.split_ascii_whitespace().collect();
        let [_, _, _, root, at, options, ..] = mount[..] else { return false };
        if at == "/proc" {
            let is_writable = options.split(',').any(|option| option == "rw");
            let filesystem: Vec<&str> = filesystem.split_ascii_whitespace().collect();
            if root != "/" || !is_writable || !matches!(filesystem[..], ["proc", _, "rw"]) {
                return false;
            }
            seen += 1;
        } else if at.starts_with("/proc/") && at != "/proc/sys/fs/binfmt_misc" {
            return false;
        }
    }
    seen == 1
}

/// A line of proc_pid_maps(5): range and name.
fn parse_line(line: &str) -> Option<(SeedRange, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    Some((SeedRange::new(hex(start)?, hex(end)?), words.nth(4).unwrap_or("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_vdso_and_limits() {
        let facts = HostFacts::of_keeper(std::process::id()).unwrap();
        assert!(facts.special.iter().any(|(kind, _)| *kind == VmaKind::Vdso));
        assert!(facts.special.iter().any(|(kind, _)| *kind == VmaKind::Vvar));
        assert!(facts.mapped.len() > 10);
        assert_eq!(facts.limits.len(), crate::descriptor::process::RESOURCE_LIMITS);
    }

    #[test]
    fn a_proc_of_which_nothing_is_hidden_is_plain() {
        const ROOT: &str = "21 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";
        const PROC: &str = "22 21 0:5 / /proc rw,nosuid,nodev,noexec shared:4 - proc proc rw\n";
        const MISC: &str = "30 22 0:9 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw,fd=29\n";
        const MASK: &str = "31 22 0:5 /sys /proc/sys ro,nosuid - proc proc rw\n";
        let is_plain = |lines: &[&str]| proc_is_plain(&lines.concat());
        assert!(is_plain(&[ROOT, PROC]) && is_plain(&[ROOT, PROC, MISC]));
        for hidden in [
            &[ROOT][..],
            &[ROOT, PROC, MASK],
            &[ROOT, PROC, PROC],
            &[ROOT, &PROC.replace("proc rw", "proc rw,hidepid=invisible")],
            &[ROOT, &PROC.replace("rw,nosuid", "ro,nosuid")],
            &[ROOT, &PROC.replace("0:5 / ", "0:5 /4711 ")],
            &[ROOT, "not a line of it"],
        ] {
            assert!(!is_plain(hidden), "{hidden:?}");
        }
    }

    #[test]
    fn lines_without_a_name_have_none() {
        let line = "7ffc0000-7ffd0000 rw-p 00000000 00:00 0 ";
        assert_eq!(parse_line(line), Some((SeedRange::new(0x7ffc_0000, 0x7ffd_0000), "")));
    }
}
