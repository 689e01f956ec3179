//! Programs under a seccomp filter: what prepare calls may kill them, so they are left alone.

use std::env;
use std::fs;

use mitosis::wire::preload::SECCOMP_CALLS;

/// Set to anything where the filter is known to allow what preparing takes.
const ALLOW_VARIABLE: &str = "MITOSIS_ALLOW_SECCOMP";

/// Why this process must not be prepared, if that is so.
pub(crate) fn in_the_way() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = env::var_os(ALLOW_VARIABLE).is_some_and(|value| !value.is_empty());
    (is_filtered(&status) && !allowed).then(|| {
        format!(
            "this process is under a seccomp filter, which may kill it for the system calls that preparing takes: \
             set {ALLOW_VARIABLE}=1 if the filter allows {SECCOMP_CALLS} (docs/preload.md)"
        )
    })
}

fn is_filtered(status: &str) -> bool {
    let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
    mode.is_some_and(|mode| mode.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_seen() {
        assert!(is_filtered("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!is_filtered("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"));
        assert!(!is_filtered(""));
    }
}
