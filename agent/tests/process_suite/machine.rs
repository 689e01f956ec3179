//! What a machine may lack, so that a program says `absent`, and what is lent to it for a run.

use std::fs;

/// Huge pages that may be made on demand: memory is taken while one is mapped, and no longer.
const OVERCOMMIT: &str = "/proc/sys/vm/nr_overcommit_hugepages";
/// Of 2 MiB: each way of one program has one in the parent and one in the child.
const HUGE_PAGES: u64 = 16;

/// Programs whose state not every machine has, and from which Linux on each has; `None`: processors, or how a kernel was
/// configured, decide.
const NOT_EVERYWHERE: [(&str, Option<(u32, u32)>); 36] = [
    ("files/bpf_map", None),
    ("files/io_uring", None),
    ("files/io_uring_hook", None),
    ("files/io_uring_refused", None),
    ("files/perf_event", None),
    ("memory/droppable", Some((6, 11))),
    ("memory/guard_region", Some((6, 13))),
    ("memory/guard_region_shared", Some((6, 15))),
    ("memory/guard_region_shared_beneath", Some((6, 15))),
    ("memory/mergeable", None),
    ("memory/named", None),
    ("memory/numa", None),
    ("memory/sealed", Some((6, 10))),
    ("process/core_filter_default", None),
    ("process/core_cookie", None),
    ("process/deadline_refused", None),
    ("process/deadline_thread", None),
    ("process/dispatch", Some((6, 4))),
    ("process/dispatch_thread", Some((6, 4))),
    ("process/io_flusher", None),
    ("process/keys", None),
    ("process/landlock", None),
    ("process/memory_deny_exec", Some((6, 3))),
    ("process/memory_deny_exec_own", Some((6, 6))),
    ("process/merges", None),
    ("process/scheduler_deadline", None),
    ("process/scheduler_real_time", None),
    ("process/speculation", None),
    ("process/tagged_addresses", None),
    ("registers/amx", None),
    ("registers/avx", None),
    ("registers/avx512", None),
    ("registers/protection_keys", None),
    ("registers/shadow_stack", None),
    ("threads/membarrier_kinds", None),
    (HUGE_TABLE, None),
];
const HUGE_TABLE: &str = "memory/huge_table";

/// This machine, for a run.
#[derive(Debug)]
pub(crate) struct Machine {
    kernel: (u32, u32),
    /// Before the run; `None`: this process may not change it.
    overcommit: Option<u64>,
}

impl Machine {
    pub(crate) fn lent() -> Machine {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
        let mut next = || numbers.next().and_then(|text| text.parse().ok()).unwrap_or(0);
        let kernel = (next(), next());
        let before: Option<u64> =
            fs::read_to_string(OVERCOMMIT).ok().and_then(|text| text.trim().parse().ok());
        let is_raised = |before: &u64| {
            let wanted = HUGE_PAGES.max(*before);
            fs::write(OVERCOMMIT, wanted.to_string()).is_ok()
        };
        Machine { kernel, overcommit: before.filter(is_raised) }
    }

    /// Whether this machine may lack a program's state.
    pub(crate) fn may_lack(&self, program: &str) -> bool {
        if program == HUGE_TABLE && self.overcommit.is_some() {
            return false;
        }
        let known = NOT_EVERYWHERE.iter().find(|(name, _)| *name == program);
        known.is_some_and(|(_, from)| from.is_none_or(|from| self.kernel < from))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(before) = self.overcommit {
            let _ = fs::write(OVERCOMMIT, before.to_string());
        }
    }
}
