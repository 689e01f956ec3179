//! The links between hosts, made and changed with `ip` and `tc` of iproute2.
//!
//! Each pair of hosts has a veth of its own, made inside the two network namespaces at once: no end
//! of it ever shows outside. In `host-a` the end towards `host-b` is called `to-b`.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::ns;
use crate::spec::HostPlan;

/// The name, in the host of `here`, of the link to the host of `there`.
pub(crate) fn device_towards(there: char) -> String {
    format!("to-{there}")
}

/// Joins all hosts of `mesh` (with the pids of their inits) by links, and configures each end.
pub(crate) fn join(mesh: &[HostPlan], inits: &[i32]) -> Result<()> {
    let hosts: Vec<_> = mesh.iter().zip(inits).collect();
    let mut batch = String::new();
    for (i, (a, a_init)) in hosts.iter().enumerate() {
        for (b, b_init) in &hosts[i + 1..] {
            let (to_a, to_b) = (device_towards(a.letter), device_towards(b.letter));
            batch += &format!(
                "link add {to_b} netns {a_init} type veth peer name {to_a} netns {b_init}\n"
            );
        }
    }
    if !batch.is_empty() {
        ip_batch(None, &batch).context("cannot make the links between hosts")?;
    }
    for (here, init) in &hosts {
        let mut batch = "link set lo up\n".to_owned();
        for there in mesh.iter().filter(|plan| plan.letter != here.letter) {
            let device = device_towards(there.letter);
            batch += &format!(
                "addr add {} peer {} dev {device}\nlink set {device} up\n",
                here.address, there.address
            );
        }
        ip_batch(Some(**init), &batch)
            .with_context(|| format!("cannot configure the network of {}", here.name))?;
    }
    Ok(())
}

/// Drops, silently, all that the host of `init` sends towards `there`.
pub(crate) fn cut(init: i32, there: char) -> Result<()> {
    tc(init, &["replace", "dev", &device_towards(there), "root", "blackhole"])
}

/// Holds what the host of `init` sends towards `there` back by `delay_ms`.
pub(crate) fn delay(init: i32, there: char, delay_ms: u32) -> Result<()> {
    let delay = format!("{delay_ms}ms");
    tc(init, &["replace", "dev", &device_towards(there), "root", "netem", "delay", &delay])
        .context("a link can be delayed only where the kernel has sch_netem")
}

/// Ends [`cut`] and [`delay`].
pub(crate) fn restore(init: i32, there: char) -> Result<()> {
    tc(init, &["replace", "dev", &device_towards(there), "root", "noqueue"])
}

/// Drops so many of a thousand packets that the host of `init` sends towards `there`, by chance.
pub(crate) fn lose(init: i32, there: char, per_mille: u32) -> Result<()> {
    let device = device_towards(there);
    tc(init, &["replace", "dev", &device, "clsact"])?;
    // Classic BPF: a random word from the kernel; what is not below the bound is shot (2), the rest goes on (-1).
    let bound = u64::from(u32::MAX) - u64::from(u32::MAX) * u64::from(per_mille) / 1000;
    let program = format!("4,32 0 0 4294963256,53 0 1 {bound},6 0 0 2,6 0 0 4294967295");
    let mut command = Command::new("tc");
    command.args(["filter", "replace", "dev", &device, "egress", "prio", "1", "handle", "1"]);
    command.args(["bpf", "da", "bytecode", &program]);
    run(Some(init), command, "")
}

fn tc(init: i32, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("tc");
    command.arg("qdisc").args(arguments);
    run(Some(init), command, "")
}

fn ip_batch(init: Option<i32>, batch: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    run(init, command, batch)
}

/// Runs a tool of this machine in the network namespace of `init`, or in the caller's.
fn run(init: Option<i32>, mut command: Command, input: &str) -> Result<()> {
    let tool = command.get_program().to_string_lossy().into_owned();
    if let Some(init) = init {
        let net = File::open(format!("/proc/{init}/ns/net"))
            .with_context(|| format!("no host has the init {init} any more"))?;
        ns::run_in_net(&mut command, net.into());
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {tool}; install iproute2"))?;
    let mut stdin = child.stdin.take().context("no pipe to the tool")?;
    // A tool that has failed already closes its end; what it says tells more than our EPIPE.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("cannot wait for {tool}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed ({}): {}", output.status, said.trim());
    }
    Ok(())
}
