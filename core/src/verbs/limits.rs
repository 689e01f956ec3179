//! How much memory this process may pin: RLIMIT_MEMLOCK and CAP_IPC_LOCK.

use std::fmt;

/// The number of CAP_IPC_LOCK in the kernel's capability sets.
const CAP_IPC_LOCK: u32 = 14;

/// The limit on pinned memory, and what is used of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memlock {
    /// Bytes that are needed in one go.
    pub needed_bytes: u64,
    /// Bytes that are allowed altogether; none is no limit.
    pub allowed_bytes: Option<u64>,
    /// Bytes that this process has pinned already.
    pub pinned_bytes: u64,
}

impl Memlock {
    /// What holds for this process now.
    pub fn of_this_process(needed_bytes: u64) -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::from_facts(needed_bytes, soft_limit(), &status)
    }

    /// `limit` in bytes (none: unlimited) and the text of /proc/PID/status.
    fn from_facts(needed_bytes: u64, limit: Option<u64>, status: &str) -> Self {
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
                .unwrap_or_default()
        };
        let capabilities = u64::from_str_radix(field("CapEff:"), 16).unwrap_or(0);
        let may_pin_all = capabilities & (1 << CAP_IPC_LOCK) != 0;
        let kib =
            field("VmPin:").split_whitespace().next().and_then(|text| text.parse::<u64>().ok());
        Self {
            needed_bytes,
            allowed_bytes: if may_pin_all { None } else { limit },
            pinned_bytes: kib.unwrap_or(0) * 1024,
        }
    }

    /// Whether what is needed fits.
    pub fn suffices(&self) -> bool {
        self.allowed_bytes
            .is_none_or(|allowed| self.pinned_bytes.saturating_add(self.needed_bytes) <= allowed)
    }
}

impl fmt::Display for Memlock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(allowed) = self.allowed_bytes else {
            return write!(
                out,
                "memlock: {} bytes needed, no limit, {} pinned",
                self.needed_bytes, self.pinned_bytes
            );
        };
        write!(
            out,
            "memlock: {} bytes needed, {allowed} allowed, {} of them pinned",
            self.needed_bytes, self.pinned_bytes
        )?;
        if !self.suffices() {
            out.write_str(
                ": raise it with 'ulimit -l unlimited', LimitMEMLOCK=infinity in the unit, --ulimit memlock=-1 \
                 for a container, or give CAP_IPC_LOCK",
            )?;
        }
        Ok(())
    }
}

/// The soft limit in bytes; none where there is no limit, or where it cannot be told.
fn soft_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is written during the call alone.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "Name:\tx\nVmPin:\t      64 kB\nCapEff:\t0000000000000000\n";

    #[test]
    fn the_message_has_both_figures_and_the_remedy_only_when_it_is_short() {
        let short = Memlock::from_facts(1 << 30, Some(8 << 20), PLAIN);
        assert!(!short.suffices());
        let text = short.to_string();
        assert!(
            text.contains("1073741824 bytes needed, 8388608 allowed, 65536 of them pinned"),
            "{text}"
        );
        assert!(text.contains("ulimit -l unlimited"), "{text}");
        let enough = Memlock::from_facts(4096, Some(8 << 20), PLAIN);
        assert!(enough.suffices() && !enough.to_string().contains("ulimit"));
    }

    #[test]
    fn the_limit_is_exact_and_counts_what_is_pinned() {
        assert!(Memlock::from_facts(4096, Some(65536 + 4096), PLAIN).suffices());
        assert!(!Memlock::from_facts(4097, Some(65536 + 4096), PLAIN).suffices());
    }

    #[test]
    fn cap_ipc_lock_lifts_the_limit() {
        let status = "CapEff:\t0000000000004000\n";
        assert_eq!(Memlock::from_facts(1 << 40, Some(1), status).allowed_bytes, None);
        assert!(Memlock::from_facts(1 << 40, Some(1), status).suffices());
    }
}
