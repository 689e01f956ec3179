//! Guests that QEMU emulates.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::guests::Config;
use crate::image::Image;
use crate::line::Line;
use crate::machine::Machine;
use crate::switch::mac;

/// Starts them all in the directory of their run, with a link between them; the second of `other`, if there is such.
pub(crate) fn start(
    config: &Config,
    image: &Image,
    other: Option<&Image>,
    directory: &Path,
) -> Result<Vec<(Line, Machine)>> {
    let image_of = |node| other.filter(|_| node == 2).unwrap_or(image);
    (1..=config.nodes).map(|node| start_one(config, image_of(node), directory, node)).collect()
}

fn start_one(
    config: &Config,
    image: &Image,
    directory: &Path,
    node: u32,
) -> Result<(Line, Machine)> {
    let line = Line::listen(directory, &format!("line.{node}"))?;
    let (console, log) = (format!("console.{node}"), format!("emulator.{node}"));
    let mut command = image.emulator();
    // One CPU each: more of them crash this kernel in the emulator of Debian 12, and are no
    // faster. KVM is never tried: where it is a nested one, this kernel dies in it.
    command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-M", "pc", "-smp", "1"]);
    command.args(["-m", &config.memory_mib_of(node).to_string(), "-nodefaults", "-no-user-config"]);
    command.args(["-no-reboot", "-display", "none", "-monitor", "none"]);
    command.args(["-serial", &format!("file:{console}")]);
    command.args(["-chardev", &format!("socket,id=line,path=line.{node}")]);
    command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=line"]);
    command.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(image.initrd(config, node));
    // A guest that oopses ends, and with it the test, instead of limping on.
    // Beside others this emulator may stand still for longer than the kernel counts ticks of a timer that it takes
    // for broken: it is not to count.
    let how = "console=ttyS0 quiet panic=-1 oops=panic no_timer_check";
    let boot = format!("{how} {}", config.variables(node));
    command.args(["-append", &boot]);
    let other = config.kind.guests_max() + 1 - node;
    let ends =
        format!("local.type=unix,local.path=net.{node},remote.type=unix,remote.path=net.{other}");
    command.args(["-netdev", &format!("dgram,id=net,{ends}")]);
    let card = format!("mac={},host_mtu={},romfile=", mac(node), config.mtu);
    command.args(["-device", &format!("virtio-net-pci,netdev=net,{card}")]);
    command.args(["-fsdev", "local,id=share,path=share,security_model=none"]);
    command.args(["-device", "virtio-9p-pci,fsdev=share,mount_tag=share"]);
    let output = File::create(directory.join(&log)).context("cannot make the emulator's log")?;
    let errors = output.try_clone().context("cannot make the emulator's log")?;
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    Ok((line, Machine::start(command, directory, &[console, log])?))
}
