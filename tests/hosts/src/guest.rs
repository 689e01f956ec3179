//! Running a command on a host for a process outside: `mitosis-hosts exec`.
//!
//! ```text
//!  outside           in the host's pid namespace
//!  exec  ---orders-->  monitor  -- fork -->  command
//!        <--status---  (child of pid 1)
//! ```
//!
//! The monitor's parent is the host's pid 1, not `exec`: were something in the host a child of
//! `exec`, then after a kill of `exec` it would be a zombie of whoever reaps outside, and the
//! kernel lets no pid namespace end before its last zombie is reaped. Not every container's pid 1
//! reaps, and some do it every few seconds.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;

use anyhow::{Context, Result};

use crate::ns;
use crate::run::{self, Ended};

/// Runs `command` in the namespaces that the caller has entered, until it ends.
pub(crate) fn run(command: Command, cpu: Option<usize>) -> Result<Ended> {
    let signals = ns::signals_as_fd().context("cannot block signals")?;
    let (orders_in, orders) = ns::pipe().context("cannot make a pipe")?;
    let (status, status_out) = ns::pipe().context("cannot make a pipe")?;
    let mut callers = Some((orders, status));
    let mut command = Some(command);
    let between = ns::fork_into(0, || {
        // With a copy of its own the monitor would never see the orders end.
        drop(callers.take());
        let forked = ns::fork_into(0, || {
            let Some(command) = command.take() else {
                return 1;
            };
            monitor(command, cpu, &signals, &orders_in, &status_out).map_or(1, |()| 0)
        });
        // The parent of the monitor ends at once, which makes it a child of the host's pid 1.
        i32::from(forked.is_err())
    })
    .context("cannot fork into the host; is it still up?")?;
    ns::wait_for(between).context("cannot wait for a child")?;
    drop((orders_in, status_out));
    let (orders, status) = callers.context("taken by the child alone")?;
    close_stdio(0..2).context("cannot let go of stdin and stdout")?;
    relay(&signals, orders, status)
}

/// Passes signals on as orders until the status comes, or the end of the host.
fn relay(signals: &OwnedFd, mut orders: File, mut status: File) -> Result<Ended> {
    loop {
        let [_, ended] = ns::poll([Some(signals.as_fd()), Some(status.as_fd())], -1)?;
        if ended {
            let mut bytes = [0; 4];
            let told = status.read_exact(&mut bytes);
            // A monitor that says nothing was killed together with its host.
            return Ok(told.map_or(Ended::Killed(libc::SIGKILL), |()| {
                Ended::from_wait_status(i32::from_ne_bytes(bytes))
            }));
        }
        for number in run::signals_to_forward(signals) {
            // The monitor may have ended just now; its status is read next.
            let _ = orders.write_all(&[number]);
        }
    }
}

/// Starts the command, sends it the signals that are ordered, tells its end. When the orders end,
/// so does the command.
fn monitor(
    command: Command,
    cpu: Option<usize>,
    signals: &OwnedFd,
    mut orders: &File,
    mut status: &File,
) -> Result<()> {
    ns::set_process_name("hosts-exec")?;
    let pid = run::start(command, cpu)?;
    close_stdio(0..3)?;
    let fds: [Option<BorrowedFd<'_>>; 2] = [Some(signals.as_fd()), Some(orders.as_fd())];
    loop {
        while let Some((ended, wait_status)) = ns::reap() {
            if ended == pid {
                status.write_all(&wait_status.to_ne_bytes())?;
                return Ok(());
            }
        }
        let [_, ordered] = ns::poll(fds, -1)?;
        // A terminal's ^C, say: the command has its own.
        while ns::next_signal(signals).is_some() {}
        let mut number = [0];
        if ordered {
            match orders.read(&mut number)? {
                0 => return Ok(ns::kill(pid, libc::SIGKILL)?),
                _ => ns::kill(pid, i32::from(number[0]))?,
            }
        }
    }
}

/// Lets go of standard descriptors, so that only the command's own copies keep a pipe open.
fn close_stdio(which: std::ops::Range<i32>) -> Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null").context("/dev/null")?;
    for stdio in which {
        ns::replace_stdio(&null, stdio)?;
    }
    Ok(())
}
