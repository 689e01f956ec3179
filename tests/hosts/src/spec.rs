//! What is asked for and what is answered: files for a host, and the record of hosts that are up.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Environment variable in which a command run by `up` finds the [`Hosts`], as JSON.
pub const HOSTS_ENV: &str = "MITOSIS_HOSTS_JSON";

/// Environment variable that names the `mitosis-hosts` binary: set by `up` for its command, and
/// read by [`crate::Pair::up`].
pub const BIN_ENV: &str = "MITOSIS_HOSTS_BIN";

/// Most hosts that one harness may ask for. A full mesh of links and one address byte would carry
/// more; no story that is told here needs them.
pub(crate) const HOSTS_MAX: usize = 4;

/// Days that the clocks of `host-b` are ahead, and each further host again: far beyond any timer,
/// so that a deadline that was carried over unshifted is noticed.
pub(crate) const TIME_OFFSET_S: i64 = 7 * 24 * 3600;

/// The hosts that are up, in order: `host-a`, `host-b`, ...
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// One record for each.
    pub hosts: Vec<HostRecord>,
}

/// One host that is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its host name, which resolves on every host of the same harness.
    pub name: String,
    /// Its pid 1, as numbered outside.
    pub init_pid: i32,
    /// Its IPv4 address; the same one in each harness, as their networks are apart.
    pub address: String,
    /// Its root directory as reached from outside.
    pub root: PathBuf,
    /// How far its CLOCK_MONOTONIC and CLOCK_BOOTTIME are ahead of this machine's.
    pub time_offset_s: i64,
}

impl Hosts {
    /// The hosts of the `up` that runs this process.
    pub fn from_env() -> Result<Self> {
        let json = std::env::var(HOSTS_ENV).with_context(|| {
            format!("{HOSTS_ENV} is not set; run this under `mitosis-hosts up -- CMD`")
        })?;
        serde_json::from_str(&json).with_context(|| format!("{HOSTS_ENV} is not a list of hosts"))
    }

    /// The host called `name`: in full, or by its letter alone.
    pub fn named(&self, name: &str) -> Result<&HostRecord> {
        let found = self
            .hosts
            .iter()
            .find(|h| h.name == name || h.name.strip_prefix("host-") == Some(name));
        found.with_context(|| {
            let names: Vec<_> = self.hosts.iter().map(|h| h.name.as_str()).collect();
            format!("no host {name:?} is up; there are {}", names.join(", "))
        })
    }
}

/// What the `index`-th host is called and where it is, before it exists.
#[derive(Debug, Clone)]
pub(crate) struct HostPlan {
    pub(crate) letter: char,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) time_offset_s: i64,
}

impl HostPlan {
    /// Plans for `count` hosts, the clocks of each `offset_s` ahead of those of the one before.
    pub(crate) fn mesh(count: usize, offset_s: i64) -> Result<Vec<Self>> {
        if !(1..=HOSTS_MAX).contains(&count) {
            bail!("{count} hosts asked for; from 1 to {HOSTS_MAX} can be had");
        }
        let plan = |(i, letter): (i64, char)| Self {
            letter,
            name: format!("host-{letter}"),
            address: format!("10.77.0.{}", i + 1),
            time_offset_s: i * offset_s,
        };
        Ok((0..).zip('a'..='z').map(plan).take(count).collect())
    }

    /// /etc/hosts for a host of this mesh.
    pub(crate) fn hosts_file(mesh: &[Self]) -> String {
        let lines = mesh.iter().map(|plan| format!("{} {}\n", plan.address, plan.name));
        std::iter::once("127.0.0.1 localhost\n".to_owned()).chain(lines).collect()
    }
}

/// A file that the hosts with a tree of their own shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// The file outside.
    pub source: PathBuf,
    /// Its absolute path inside.
    pub destination: PathBuf,
}

impl FileSpec {
    /// `source` at the path that it has outside. A bare relative path is made absolute.
    pub fn same(source: impl AsRef<Path>) -> Result<Self> {
        let source = source.as_ref();
        let destination = std::path::absolute(source)
            .with_context(|| format!("no absolute path for {}", source.display()))?;
        Self::new(source, destination)
    }

    /// `source` at `destination`, which must be absolute and without `..`.
    pub fn new(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Result<Self> {
        let (source, destination) = (source.into(), destination.into());
        let plain = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
        if !destination.is_absolute()
            || destination.file_name().is_none()
            || !destination.components().all(plain)
        {
            bail!(
                "{} cannot be a file's place on a host; give an absolute path without '..'",
                destination.display()
            );
        }
        Ok(Self { source, destination })
    }

    /// Parses `SRC[:DST]`; a colon separates only where `/` follows it.
    pub fn parse(argument: &OsStr) -> Result<Self> {
        let bytes = argument.as_bytes();
        match bytes.windows(2).rposition(|pair| pair == b":/") {
            Some(colon) => Self::new(
                PathBuf::from(OsStr::from_bytes(&bytes[..colon])),
                PathBuf::from(OsStr::from_bytes(&bytes[colon + 1..])),
            ),
            None => Self::same(Path::new(argument)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_specs_parse() {
        let spec = FileSpec::parse(OsStr::new("/bin/sh:/usr/bin/x")).unwrap();
        assert_eq!(spec, FileSpec::new("/bin/sh", "/usr/bin/x").unwrap());
        let spec = FileSpec::parse(OsStr::new("/odd:name")).unwrap();
        assert_eq!(spec.destination, Path::new("/odd:name"));
        for bad in ["/bin/sh:/../x", "/bin/sh:/"] {
            FileSpec::parse(OsStr::new(bad)).unwrap_err();
        }
    }

    #[test]
    fn meshes_are_bounded() {
        HostPlan::mesh(0, 0).unwrap_err();
        HostPlan::mesh(HOSTS_MAX + 1, 0).unwrap_err();
        let mesh = HostPlan::mesh(HOSTS_MAX, 10).unwrap();
        assert_eq!(mesh[0].time_offset_s, 0);
        assert_eq!(mesh[2].time_offset_s, 20);
        assert_eq!(
            HostPlan::hosts_file(&mesh[..2]),
            "127.0.0.1 localhost\n10.77.0.1 host-a\n10.77.0.2 host-b\n"
        );
    }
}
