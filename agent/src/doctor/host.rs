//! The host: kernel, rights, limits. What each is for stands in docs/capabilities.md.

use std::fs;
use std::path::Path;

use mitosis::image::Mount;
use mitosis::sys::limits;

use super::Check;

/// The oldest kernel that the code is written for.
const KERNEL_NEEDED: (u32, u32) = (6, 1);
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_NICE: u32 = 23;
const CAP_SYS_TIME: u32 = 25;
/// RLIMIT_NOFILE and RLIMIT_SIGPENDING, as prlimit(2) numbers them.
const RLIMIT_NOFILE: usize = 7;
const RLIMIT_SIGPENDING: usize = 11;
/// Descriptors that an agent with some dozens of seeds and children uses.
const DESCRIPTORS_WANTED: u64 = 1024;

/// What newer kernels have, since when, and what it costs to be without.
const FEATURES: [(&str, (u32, u32), &str); 3] = [
    ("PAGEMAP_SCAN", (6, 7), "seeds are described more slowly, and zero pages count as their own"),
    ("FUSE_NOTIFY_RESEND", (6, 9), "nothing today"),
    ("PROCMAP_QUERY", (6, 11), "the first discards of a child take up to a millisecond"),
];

/// What there is.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The kernel's release, as `uname -r` says.
    pub release: String,
    /// Effective capabilities, a bit each.
    pub capabilities: u64,
    /// Whether a mount for an image can be made, or why not.
    pub image: Result<(), String>,
    /// Whether there are time namespaces.
    pub time_namespaces: bool,
    /// CONFIG_CHECKPOINT_RESTORE.
    pub checkpoint_restore: bool,
    /// Whether there is swap.
    pub swap: bool,
    /// The limit on open files.
    pub descriptors: u64,
    /// The limit on pending signals.
    pub pending_signals: u64,
}

impl Facts {
    /// Of this host and process.
    pub fn gather() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let limits = limits::of(std::process::id()).unwrap_or_default();
        // What cannot be read is not held against the host.
        let soft = |number: usize| limits.get(number).map_or(u64::MAX, |(soft, _)| *soft);
        Self {
            release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            capabilities: capabilities
                .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
                .unwrap_or(0),
            image: Mount::new().map(drop).map_err(|error| error.to_string()),
            time_namespaces: Path::new("/proc/self/ns/time").exists(),
            checkpoint_restore: Path::new("/proc/sys/kernel/ns_last_pid").exists(),
            swap: read("/proc/swaps").lines().count() > 1,
            descriptors: soft(RLIMIT_NOFILE),
            pending_signals: soft(RLIMIT_SIGPENDING),
        }
    }

    fn has(&self, capability: u32) -> bool {
        self.capabilities & (1 << capability) != 0
    }
}

/// Judges them.
pub fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = kernel(&facts.release);
    checks.push(match &facts.image {
        Ok(()) => Check::fine("images", "a FUSE file can be mounted"),
        // Its text says what to do.
        Err(text) => split("images", "children of any seed", text),
    });
    checks.push(clocks(facts));
    checks.push(if facts.checkpoint_restore {
        Check::fine("CHECKPOINT_RESTORE", "the kernel lays out a child's memory")
    } else {
        Check::missing(
            "CHECKPOINT_RESTORE",
            "the kernel does not lay out a child's memory: no children here",
            "use a kernel with CONFIG_CHECKPOINT_RESTORE, as distributions' have it",
        )
    });
    checks.push(if facts.has(CAP_SYS_NICE) {
        Check::fine("priority", "an image's threads run at nice -19")
    } else {
        Check::lacking("priority", "an image's threads run as others do", "give CAP_SYS_NICE")
    });
    checks.extend(limits_of(facts));
    checks.push(if facts.swap {
        Check::lacking(
            "swap",
            "is on: shared memory of a seed is copied whole",
            "swapoff, where seeds with much shared memory are made",
        )
    } else {
        Check::fine("swap", "is off")
    });
    checks
}

/// A check out of an error that says what to do behind its first colon outside of parentheses.
fn split(name: &str, what_for: &str, text: &str) -> Check {
    let (finding, remedy) = text.split_once("): ").unwrap_or((text, "see docs/troubleshooting.md"));
    let closing = if text.contains("): ") { ")" } else { "" };
    Check::missing(name, format!("{finding}{closing}; needed for {what_for}"), remedy)
}

/// Major and minor number of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(release: &str) -> Vec<Check> {
    let found = format!("Linux {release}");
    let (needed_major, needed_minor) = KERNEL_NEEDED;
    let Some(version) = version(release) else {
        let remedy = "mount /proc";
        return vec![Check::missing("kernel", "its release cannot be read", remedy)];
    };
    if version < KERNEL_NEEDED {
        let remedy = format!("run Linux {needed_major}.{needed_minor} or later");
        return vec![Check::missing("kernel", found, remedy)];
    }
    let mut checks = vec![Check::fine("kernel", found)];
    for (name, (major, minor), without) in FEATURES {
        if version < (major, minor) {
            let remedy = format!("Linux {major}.{minor} or later has it");
            checks.push(Check::lacking(name, format!("not in this kernel: {without}"), remedy));
        }
    }
    checks
}

fn clocks(facts: &Facts) -> Check {
    const NAME: &str = "a seed's clock";
    if !facts.time_namespaces {
        return Check::missing(
            NAME,
            "the kernel has no time namespaces: children of other hosts' seeds have this host's clock",
            "use a kernel with CONFIG_TIME_NS",
        );
    }
    if facts.has(CAP_SYS_ADMIN) && facts.has(CAP_SYS_TIME) {
        return Check::fine(NAME, "a child goes on with it");
    }
    Check::missing(
        NAME,
        "cannot be continued: children of other hosts' seeds have this host's clock",
        "run the agent as root, or with CAP_SYS_ADMIN and CAP_SYS_TIME; or in 'unshare -UrmT --fork'",
    )
}

fn limits_of(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    if facts.pending_signals == 0 {
        checks.push(Check::missing(
            "pending signals",
            "the limit is 0: a process cannot be prepared",
            "ulimit -i 1024",
        ));
    }
    checks.push(if facts.descriptors < DESCRIPTORS_WANTED {
        let found = format!("at most {}", facts.descriptors);
        Check::lacking("open files", found, format!("ulimit -n {DESCRIPTORS_WANTED}, or more"))
    } else {
        Check::fine("open files", format!("at most {}", facts.descriptors))
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

    fn good() -> Facts {
        Facts {
            release: "6.12.0-57-amd64".to_owned(),
            capabilities: u64::MAX,
            image: Ok(()),
            time_namespaces: true,
            checkpoint_restore: true,
            swap: false,
            descriptors: 1024,
            pending_signals: 1,
        }
    }

    /// The checks that are not fine.
    fn faults(facts: &Facts) -> Vec<(String, Standing)> {
        let checks = judge(facts).into_iter().filter(|check| check.standing != Standing::Fine);
        checks
            .inspect(|check| assert!(check.remedy.is_some(), "{check:?}"))
            .map(|check| (check.name, check.standing))
            .collect()
    }

    #[test]
    fn a_good_host_has_nothing_to_say() {
        assert_eq!(faults(&good()), []);
    }

    #[test]
    fn kernels_are_told_apart_by_number() {
        assert_eq!(version("6.1.0-56-amd64"), Some((6, 1)));
        assert_eq!(version("6.18"), Some((6, 18)));
        assert_eq!(version("linux"), None);
        let of = |release: &str| faults(&Facts { release: release.to_owned(), ..good() });
        assert_eq!(of("6.11.4"), []);
        assert_eq!(of("6.9.0").len(), 1);
        assert_eq!(of("6.1.0").len(), 3);
        assert_eq!(of("6.0.19"), [("kernel".to_owned(), Standing::Missing)]);
        assert_eq!(of(""), [("kernel".to_owned(), Standing::Missing)]);
    }

    #[test]
    fn each_right_and_limit_is_missed_by_its_own_name() {
        let without = |bit: u32| Facts { capabilities: !(1 << bit), ..good() };
        let clock = [("a seed's clock".to_owned(), Standing::Missing)];
        assert_eq!(faults(&without(CAP_SYS_ADMIN)), clock);
        assert_eq!(faults(&without(CAP_SYS_TIME)), clock);
        assert_eq!(faults(&Facts { time_namespaces: false, ..good() }), clock);
        let lacking = |name: &str| vec![(name.to_owned(), Standing::Lacking)];
        assert_eq!(faults(&without(CAP_SYS_NICE)), lacking("priority"));
        assert_eq!(faults(&Facts { descriptors: 1023, ..good() }), lacking("open files"));
        assert_eq!(faults(&Facts { swap: true, ..good() }), lacking("swap"));
        let missing = |name: &str| vec![(name.to_owned(), Standing::Missing)];
        assert_eq!(faults(&Facts { pending_signals: 0, ..good() }), missing("pending signals"));
        assert_eq!(
            faults(&Facts { checkpoint_restore: false, ..good() }),
            missing("CHECKPOINT_RESTORE")
        );
    }

    #[test]
    fn what_an_image_lacks_is_cut_into_finding_and_remedy() {
        let text =
            "there is no /dev/fuse (No such file (os error 2)): load the module (modprobe fuse)";
        let check = judge(&Facts { image: Err(text.to_owned()), ..good() })
            .into_iter()
            .find(|check| check.name == "images")
            .unwrap();
        assert_eq!(
            check.finding,
            "there is no /dev/fuse (No such file (os error 2)); needed for children of any seed"
        );
        assert_eq!(check.remedy.as_deref(), Some("load the module (modprobe fuse)"));
        assert_eq!(check.standing, Standing::Missing);
    }
}
