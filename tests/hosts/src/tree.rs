//! The two kinds of file system that a host may have, built by its pid 1 before anything runs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::inventory::{Entry, Inventory};
use crate::ns;

/// Devices of a tree in memory: name, major, minor (kernel, admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 7] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("fuse", 10, 229),
];

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Where the tree stands until it is the root. Any directory that every machine has will do.
const STAGE: &str = "/tmp";

/// What a host's own /etc says.
#[derive(Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) name: &'a str,
    pub(crate) hosts_file: &'a str,
}

/// Stops mounts made from here on from reaching the machine, and the machine's from reaching us.
pub(crate) fn seal_mounts() -> Result<()> {
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    ns::mount(Path::new("none"), Path::new("/"), "", flags, "")
        .context("cannot make mounts private")
}

/// The machine's own root file system with another /proc, /run, /dev/shm and identity.
pub(crate) fn whole_machine(identity: &Identity<'_>) -> Result<()> {
    // The machine's /proc is taken away, not covered: what is covered can be uncovered.
    while ns::unmount(Path::new("/proc")).is_ok() {}
    mount_proc(Path::new("/proc"))?;
    let hide = libc::MS_NOSUID | libc::MS_NODEV;
    mount_tmpfs(Path::new("/run"), hide, "mode=755")?;
    mount_tmpfs(Path::new("/dev/shm"), hide, "mode=1777")?;
    cover_file(Path::new("/etc/hosts"), identity.hosts_file)?;
    if Path::new("/etc/hostname").exists() {
        cover_file(Path::new("/etc/hostname"), &format!("{}\n", identity.name))?;
    }
    // The working directory may be one that is covered by now.
    std::env::set_current_dir("/").context("cannot enter /")
}

/// A tree in memory that holds what `inventory` lists, and the kernel's own file systems.
pub(crate) fn in_memory(identity: &Identity<'_>, inventory: &Inventory) -> Result<()> {
    let root = Path::new(STAGE);
    mount_tmpfs(root, libc::MS_NOSUID, "mode=755")?;
    for (path, target) in &inventory.links {
        let place = place(root, path)?;
        symlink(target, &place).with_context(|| format!("cannot link {}", path.display()))?;
        fs::create_dir_all(root.join(target.strip_prefix("/").unwrap_or(target)))?;
    }
    for (name, mode) in
        [("proc", 0o555), ("sys", 0o555), ("run", 0o755), ("etc", 0o755), ("root", 0o700)]
    {
        make_directory(&root.join(name), mode)?;
    }
    for name in ["tmp", "dev", "dev/shm"] {
        make_directory(&root.join(name), if name == "dev" { 0o755 } else { 0o1777 })?;
    }
    for (name, major, minor) in DEVICES {
        ns::make_char_device(&root.join("dev").join(name), major, minor)
            .with_context(|| format!("cannot make /dev/{name}"))?;
    }
    for (name, target) in DEVICE_LINKS {
        symlink(target, root.join("dev").join(name))?;
    }
    let terminals = root.join("dev/pts");
    make_directory(&terminals, 0o755)?;
    let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
    ns::mount(Path::new("devpts"), &terminals, "devpts", flags, "ptmxmode=666,mode=620")
        .context("cannot mount /dev/pts")?;
    fs::write(root.join("etc/hosts"), identity.hosts_file)?;
    fs::write(root.join("etc/hostname"), format!("{}\n", identity.name))?;
    for (path, entry) in &inventory.entries {
        add_entry(root, path, entry).with_context(|| format!("cannot add {}", path.display()))?;
    }
    mount_proc(&root.join("proc"))?;
    // Of sysfs a host sees its own network devices and, for reading, what the machine is.
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    ns::mount(Path::new("sysfs"), &root.join("sys"), "sysfs", flags, "")
        .context("cannot mount /sys")?;
    std::env::set_current_dir(root).context("cannot enter the new root")?;
    ns::pivot_to_cwd().context("cannot make the tree the root")
}

fn add_entry(root: &Path, path: &Path, entry: &Entry) -> Result<()> {
    let place = place(root, path)?;
    match entry {
        Entry::Link(target) => symlink(target, &place)?,
        Entry::File(source, mode) => {
            let mut copy = File::options().write(true).create_new(true).mode(0o600).open(&place)?;
            // The descriptor's offset is shared with a sibling host that copies the same file.
            io::copy(&mut File::open(own_descriptor(source))?, &mut copy)?;
            copy.set_permissions(fs::Permissions::from_mode(*mode))?;
        }
    }
    Ok(())
}

/// A path by which `file` can be opened once more, with an offset of its own.
fn own_descriptor(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Where `path` of the host lies under `root`, its directory made.
fn place(root: &Path, path: &Path) -> Result<PathBuf> {
    let place = root.join(path.strip_prefix("/").context("not an absolute path")?);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(place)
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let what = || format!("cannot make {}", path.display());
    fs::create_dir_all(path).with_context(what)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(what)
}

fn mount_proc(target: &Path) -> Result<()> {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    ns::mount(Path::new("proc"), target, "proc", flags, "").context("cannot mount /proc")
}

fn mount_tmpfs(target: &Path, flags: libc::c_ulong, options: &str) -> Result<()> {
    ns::mount(Path::new("tmpfs"), target, "tmpfs", flags, options)
        .with_context(|| format!("cannot mount a tmpfs on {}", target.display()))
}

/// Binds a file with this text over `target`. It lies on the host's own /run and loses its name
/// there at once.
fn cover_file(target: &Path, text: &str) -> Result<()> {
    let what =
        || format!("cannot put a host's own file over {0}; {0} must exist", target.display());
    let source = Path::new("/run/covering");
    fs::write(source, text).with_context(what)?;
    ns::mount(source, target, "", libc::MS_BIND, "").with_context(what)?;
    fs::remove_file(source).with_context(what)
}
