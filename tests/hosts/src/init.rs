//! Pid 1 of a host: builds the host from within, says so, and then reaps orphans until its
//! supervisor is gone.
//!
//! It dies with the supervisor in three ways: parent-death signal, end of the lifeline pipe, and
//! the supervisor's own kill. When pid 1 ends, the kernel kills all that runs in the host, and the
//! mounts and links of the host go with the last of them.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};

use crate::inventory::Inventory;
use crate::ns;
use crate::spec::HostPlan;
use crate::tree::{self, Identity};

/// What a host is made from.
#[derive(Debug)]
pub(crate) struct Blueprint<'a> {
    pub(crate) plan: &'a HostPlan,
    pub(crate) hosts_file: &'a str,
    /// None: the machine's root file system.
    pub(crate) inventory: Option<&'a Inventory>,
}

/// What pid 1 says when its host is ready. Anything else is why it is not.
pub(crate) const READY: &str = "ready";

/// The life of pid 1; returns its exit status.
pub(crate) fn main(blueprint: &Blueprint<'_>, lifeline: BorrowedFd<'_>, mut report: File) -> i32 {
    match build(blueprint, lifeline) {
        Ok(signals) => {
            if report.write_all(READY.as_bytes()).is_err() {
                return 1;
            }
            drop(report);
            settle(lifeline, &signals).map_or(1, |()| 0)
        }
        Err(error) => {
            let _ = write!(report, "{error:#}");
            1
        }
    }
}

fn build(blueprint: &Blueprint<'_>, lifeline: BorrowedFd<'_>) -> Result<OwnedFd> {
    let plan = blueprint.plan;
    ns::die_with_parent().context("cannot ask for a signal on the supervisor's end")?;
    // The supervisor may have ended before that; the other end of the lifeline closed with it.
    let [gone] = ns::poll([Some(lifeline)], 0)?;
    if gone {
        bail!("the supervisor has ended");
    }
    let signals = ns::signals_as_fd().context("cannot block signals")?;
    ns::new_session().context("cannot start a session")?;
    ns::set_process_name("hosts-init")?;
    ns::set_hostname(&plan.name).context("cannot set the host name")?;
    ns::unshare_time(plan.time_offset_s).with_context(|| {
        format!(
            "cannot shift the clocks by {} s; the result must not be below zero, and the kernel \
             must have time namespaces",
            plan.time_offset_s
        )
    })?;
    tree::seal_mounts()?;
    let identity = Identity { name: &plan.name, hosts_file: blueprint.hosts_file };
    match blueprint.inventory {
        None => tree::whole_machine(&identity)?,
        Some(inventory) => tree::in_memory(&identity, inventory)?,
    }
    let null = File::options().read(true).write(true).open("/dev/null").context("/dev/null")?;
    for stdio in 0..3 {
        ns::replace_stdio(&null, stdio)?;
    }
    Ok(signals)
}

fn settle(lifeline: BorrowedFd<'_>, signals: &OwnedFd) -> Result<()> {
    ns::keep_only(&[lifeline, signals.as_fd()]);
    loop {
        // Signals but SIGCHLD are read to be ignored: a host's init is ended from outside only.
        while ns::next_signal(signals).is_some() {}
        while ns::reap().is_some() {}
        let [gone, _] = ns::poll([Some(lifeline), Some(signals.as_fd())], -1)?;
        if gone {
            return Ok(());
        }
    }
}
