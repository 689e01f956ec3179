//! Guests whose kernel is a process: User-Mode Linux.
//!
//! ```text
//!   0   the guest's end of its network, a datagram socket: vec0
//!   1   the guest's end of its line: ttyS0
//!   2   its console, a file
//!   /dev/shm   its memory, a file without a name
//! ```
//! Each program in a guest is a process of this machine, too. All of a guest's are in a pid namespace, whose
//! first is the kernel: with it they end, also one that it was just making.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};

use crate::guests::Config;
use crate::image::{Image, dying_with_its_starter};
use crate::line::Line;
use crate::machine::Machine;
use crate::switch::{Switch, mac};

/// Frames that a guest takes from its network at a time.
const DEPTH: u32 = 64;

/// Starts them all in the directory of their run, with a switch between them.
pub(crate) fn start(
    config: &Config,
    image: &Image,
    directory: &Path,
) -> Result<(Switch, Vec<(Line, Machine)>)> {
    let kernel = image.user_mode_kernel()?;
    let (switch, networks) = Switch::new(config.nodes)?;
    let started = (1..).zip(networks).map(|(node, network)| {
        // The command's words are one line to the kernel, which blanks would part: no path of this
        // machine is in them.
        let initrd = format!("initrd.{node}");
        symlink(image.initrd(config, node), directory.join(&initrd))
            .context("cannot name the guest's root")?;
        start_one(config, &kernel, directory, node, network)
    });
    let machines = started.collect::<Result<_>>()?;
    Ok((switch, machines))
}

fn start_one(
    config: &Config,
    kernel: &Path,
    directory: &Path,
    node: u32,
    network: OwnedFd,
) -> Result<(Line, Machine)> {
    let (own, line) = UnixStream::pair().context("cannot make a guest's line")?;
    let console = format!("console.{node}");
    let output = File::create(directory.join(&console)).context("cannot make a console's file")?;
    let mut command = dying_with_its_starter();
    command.args(["unshare", "--pid", "--fork", "--kill-child=KILL"]);
    if fs::metadata("/proc/self").context("no /proc")?.uid() != 0 {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").arg(kernel).stdin(network).stdout(OwnedFd::from(line)).stderr(output);
    command.arg(format!("mem={}M", config.memory_mib_of(node)));
    command.arg(format!("initrd=initrd.{node}"));
    command.args(["ssl0=fd:1", "ssl=null", "con0=null,fd:2", "con=null"]);
    // A guest that oopses ends, and with it the test, instead of limping on.
    command.args(["quiet", "panic=-1", "oops=panic"]);
    // Without an MTU here none above 1500 can be set later.
    let mtu = config.mtu;
    command.arg(format!("vec0:transport=fd,fd=0,depth={DEPTH},gro=0,mtu={mtu},mac={}", mac(node)));
    command.args(["share=/proc/self/cwd/share", "uml_dir=uml/"]).arg(format!("umid={node}"));
    command.args(config.variables(node).split(' '));
    command.env("TMPDIR", "/dev/shm");
    Ok((Line::over(own), Machine::start(command, directory, &[console])?))
}
