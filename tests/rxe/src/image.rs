//! What a guest is started from, made by the scripts in `image/`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::guests::Config;

/// Libraries of packages that are unpacked and not installed.
const LIBRARY_DIRECTORIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
const EMULATOR: &str = "qemu-system-x86_64";
/// Where its firmware is, in a tree of unpacked packages.
const FIRMWARE_DIRECTORIES: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// Names the series of kernels that guests have, for the scripts.
const SERIES: &str = "RXE_KERNEL";
/// Debian 12's; `NEWER` is that of its backports, and of Debian 13.
const OLDER: &str = "6.1";
const NEWER: &str = "6.12";

/// Kernel, root file system and emulator.
#[derive(Debug)]
pub(crate) struct Image {
    directory: PathBuf,
}

/// Where cargo, and `make install-python`, put what they build.
pub fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let workspace = workspace.canonicalize().unwrap_or(workspace);
    workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

impl Image {
    /// Builds it if it is not there or not up to date.
    pub(crate) fn ready(python: Option<&Path>) -> Result<Self> {
        Self::built(&target().join("rxe"), &[], python)
    }

    /// One with a kernel of the other series, without an interpreter, beside one that is ready.
    pub(crate) fn of_another_kernel(&self) -> Result<Self> {
        let is_older = std::env::var_os(SERIES).is_some_and(|series| series == OLDER);
        let other = if is_older { NEWER } else { OLDER };
        let variables = [(SERIES, other.as_ref()), ("RXE_BESIDE", self.directory.as_os_str())];
        Self::built(&self.directory.join(format!("kernel-{other}")), &variables, None)
    }

    fn built(
        directory: &Path,
        variables: &[(&str, &OsStr)],
        python: Option<&Path>,
    ) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/build.sh");
        let mut build = Command::new("bash");
        build.arg(&script).arg(directory).args(python).envs(variables.iter().copied());
        let status = build.status().context("cannot run bash")?;
        if !status.success() {
            bail!("{} failed ({status}); what it said stands above", script.display());
        }
        let directory = directory.canonicalize();
        Ok(Self { directory: directory.context("the image's folder is not there")? })
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.directory.join("vmlinux")
    }

    /// A guest's root; with the interpreter for which it was made ready, if that guest has it.
    pub(crate) fn initrd(&self, config: &Config, node: u32) -> PathBuf {
        self.directory.join(if config.has_python(node) { "initrd-python" } else { "initrd" })
    }

    /// The libraries of the software DC.
    pub(crate) fn dc_provider(&self) -> PathBuf {
        self.directory.join("dc_provider")
    }

    /// Where runs have their directories.
    pub(crate) fn runs(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// The kernel that is a process; built if nobody on this machine has.
    pub(crate) fn user_mode_kernel(&self) -> Result<PathBuf> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/uml.sh");
        let mut build = Command::new("bash");
        build.arg(&script).arg(&self.directory).stderr(Stdio::inherit());
        let built = build.output().context("cannot run bash")?;
        let said = String::from_utf8(built.stdout).unwrap_or_default();
        match said.lines().last() {
            Some(kernel) if built.status.success() => Ok(kernel.into()),
            _ => bail!("{} failed ({}); see above", script.display(), built.status),
        }
    }

    /// The emulator without arguments: this machine's, else the unpacked one. It is killed when the
    /// thread that starts it ends.
    pub(crate) fn emulator(&self) -> Command {
        let mut command = dying_with_its_starter();
        let unpacked = self.directory.join("host");
        let program = unpacked.join("usr/bin").join(EMULATOR);
        if !program.is_file() {
            command.arg(EMULATOR);
            return command;
        }
        let mut libraries = OsString::from("LD_LIBRARY_PATH=");
        for directory in LIBRARY_DIRECTORIES {
            libraries.push(unpacked.join(directory));
            libraries.push(":");
        }
        command.arg("env").arg(libraries).arg(program);
        for directory in FIRMWARE_DIRECTORIES {
            command.arg("-L").arg(unpacked.join(directory));
        }
        command
    }
}

/// The beginning of a command that is killed when the thread that starts it ends.
pub(crate) fn dying_with_its_starter() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command
}
