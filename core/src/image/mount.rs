//! Mounted, empty file systems, made ahead: an image takes one and begins to answer.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::ImageError;
use super::opener::Opening;
use super::plan::MAX_MISS_BYTES;
use crate::sys::event::Poller;
use crate::sys::fuse::{self, Device, InitLimits, MountFault, Parts, Received, Request};

/// Bytes that the kernel reads around a miss: what random misses of code and heap cost over a network.
/// Sequential readers are fed by `prefetch`.
pub const READAHEAD_BYTES: u32 = 16 << 10;
/// READs that the kernel may have on its way without anyone waiting for them.
const MAX_BACKGROUND: u16 = 64;
/// A kernel that does not shake hands within this has a fault that waiting does not cure.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// The kernel protocol's oldest minor version with FUSE_INIT's `max_pages`.
const OLDEST_MINOR: u32 = 28;

/// A pool of mounts: [`Mounts::take`] hands one out, a thread makes the next.
#[derive(Debug)]
pub struct Mounts {
    ready: Receiver<Result<Mount, ImageError>>,
}

impl Mounts {
    /// Makes the first mount at once, to tell here and now what this host lacks, and keeps `ready` of
    /// them (at least one) ahead from then on.
    ///
    /// # Errors
    /// No /dev/fuse, no right to mount, or a kernel that refuses.
    pub fn new(ready: usize) -> Result<Mounts, ImageError> {
        let first = Mount::new()?;
        let (sender, receiver) = bounded(ready.max(1));
        let _ = sender.send(Ok(first));
        std::thread::Builder::new()
            .name("mitosis-mounts".to_owned())
            .spawn(move || refill(&sender))
            .map_err(ImageError::Thread)?;
        Ok(Mounts { ready: receiver })
    }

    /// A mount that was made ahead, or else a new one.
    ///
    /// # Errors
    /// As [`Mounts::new`].
    pub fn take(&self) -> Result<Mount, ImageError> {
        match self.ready.try_recv() {
            Ok(Ok(mount)) => Ok(mount),
            _ => Mount::new(),
        }
    }
}

/// Ends when the pool has gone.
fn refill(ready: &Sender<Result<Mount, ImageError>>) {
    while ready.send(Mount::new()).is_ok() {}
}

/// One mounted file: FUSE_INIT and OPEN are answered. Dropped, it is gone.
#[derive(Debug)]
pub struct Mount {
    pub(super) device: Device,
    pub(super) file: File,
    pub(super) dev_inode: (u32, u32, u64),
    pub(super) abort: Option<File>,
}

impl Mount {
    /// Mounts and shakes hands.
    ///
    /// # Errors
    /// As [`Mounts::new`].
    pub fn new() -> Result<Mount, ImageError> {
        Mount::reading_around(READAHEAD_BYTES)
    }

    /// A mount whose misses are single pages, so that a trace tells exactly what was touched.
    ///
    /// # Errors
    /// As [`Mounts::new`].
    pub fn exact() -> Result<Mount, ImageError> {
        Mount::reading_around(0)
    }

    fn reading_around(readahead: u32) -> Result<Mount, ImageError> {
        let device = Device::open().map_err(ImageError::from_open)?;
        let max_read = u32::try_from(MAX_MISS_BYTES).unwrap_or(u32::MAX);
        let mount = fuse::mount(&device, max_read).map_err(ImageError::from_mount)?;
        // The file is opened by another thread: open and fstat wait for answers given here.
        let opening = Opening::begin(&mount).map_err(ImageError::Thread)?;
        if let Err(error) = shake_hands(&device, &opening, readahead) {
            // Ends the connection: the opener must not wait for answers any more.
            drop(device);
            let _ = opening.finish();
            return Err(error);
        }
        let file = opening.finish().map_err(ImageError::Handshake)?;
        let metadata = file.metadata().map_err(ImageError::Handshake)?;
        if metadata.len() != fuse::FILE_BYTES {
            let text = format!("the new file has {} bytes", metadata.len());
            return Err(ImageError::Handshake(io::Error::other(text)));
        }
        let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
        let abort = abort_handle(minor);
        Ok(Mount { device, file, dev_inode: (major, minor, metadata.ino()), abort })
    }
}

/// Answers until the file is open, or cannot be opened.
fn shake_hands(device: &Device, opening: &Opening, readahead: u32) -> Result<(), ImageError> {
    let limit = Instant::now() + HANDSHAKE_LIMIT;
    let mut message = [0u8; fuse::REQUEST_BYTES];
    let mut poller = Poller::default();
    poller.add(std::os::fd::AsFd::as_fd(device).as_raw_fd());
    poller.add(opening.poll_fd());
    loop {
        match device.receive(&mut message).map_err(ImageError::Handshake)? {
            Received::Message(len) => greet(device, &message[..len], readahead)?,
            Received::Nothing => {
                let left = limit.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(ImageError::Handshake(io::ErrorKind::TimedOut.into()));
                }
                poller.wait(Some(left)).map_err(ImageError::Handshake)?;
                if poller.is_ready(1) {
                    return Ok(());
                }
            }
            Received::Ended => {
                return Err(ImageError::Handshake(io::ErrorKind::ConnectionAborted.into()));
            }
        }
    }
}

fn greet(device: &Device, message: &[u8], readahead: u32) -> Result<(), ImageError> {
    let fault = |error: fuse::Malformed| ImageError::Handshake(io::Error::other(error));
    match Request::parse(message).map_err(fault)? {
        Request::Init { unique, major, minor, max_readahead, flags } => {
            if major != 7 || minor < OLDEST_MINOR {
                return Err(ImageError::Protocol { major, minor });
            }
            let limits = InitLimits {
                readahead,
                max_pages: u16::try_from(MAX_MISS_BYTES / 4096).unwrap_or(u16::MAX),
                max_background: MAX_BACKGROUND,
            };
            let body = fuse::init_answer(minor, max_readahead, flags, limits);
            let mut parts = Parts::new();
            parts.push(&body);
            device.answer(unique, &parts)
        }
        request => answer_unread(device, request),
    }
    .map(|_| ())
    .map_err(ImageError::Handshake)
}

/// Answers what is no READ.
pub(super) fn answer_unread(device: &Device, request: Request) -> io::Result<fuse::Taken> {
    match request {
        Request::GetAttr { unique } => {
            let body = fuse::attr_answer();
            let mut parts = Parts::new();
            parts.push(&body);
            device.answer(unique, &parts)
        }
        Request::Open { unique } => {
            let body = fuse::open_answer();
            let mut parts = Parts::new();
            parts.push(&body);
            device.answer(unique, &parts)
        }
        Request::Other { unique } | Request::Init { unique, .. } => {
            device.refuse(unique, libc::ENOSYS)
        }
        Request::Silent | Request::Interrupt { .. } | Request::Read(_) => Ok(fuse::Taken::Yes),
    }
}

/// What a write of "1" to ends the connection, whoever else holds its descriptors. `None` where fusectl
/// cannot be had (in a user namespace): the connection then ends when the last descriptor is closed.
fn abort_handle(minor: u32) -> Option<File> {
    static CONTROL: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let name = format!("{minor}/abort");
    let open = |dir: &str| OpenOptions::new().write(true).open(format!("{dir}/{name}")).ok();
    open("/sys/fs/fuse/connections").or_else(|| {
        let control = CONTROL.get_or_init(|| fuse::mount_control().ok()).as_ref()?;
        open(&format!("/proc/self/fd/{}", control.as_raw_fd()))
    })
}

/// Ends a connection by its abort handle; tells whether it did.
pub(super) fn abort(handle: &File) -> bool {
    let mut handle = handle;
    handle.write_all(b"1").is_ok()
}

impl ImageError {
    fn from_open(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => ImageError::NoDevice(error),
            Some(libc::EACCES | libc::EPERM) => ImageError::DeviceForbidden(error),
            _ => ImageError::Mount { step: "open(/dev/fuse)", error },
        }
    }

    fn from_mount(fault: MountFault) -> Self {
        let MountFault { step, error } = fault;
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => ImageError::MountForbidden { step, error },
            Some(libc::ENODEV) => ImageError::NoDevice(error),
            _ => ImageError::Mount { step, error },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_remedy() {
        let of = |errno| ImageError::from_open(io::Error::from_raw_os_error(errno)).to_string();
        assert!(of(libc::ENOENT).contains("modprobe fuse"));
        assert!(of(libc::ENOENT).contains("--device /dev/fuse"));
        assert!(of(libc::EACCES).contains("as root"));
        let fault = MountFault {
            step: "fsconfig(create)",
            error: io::Error::from_raw_os_error(libc::EPERM),
        };
        assert!(ImageError::from_mount(fault).to_string().contains("CAP_SYS_ADMIN"));
    }

    #[test]
    fn a_pool_hands_out_distinct_files_needs_root_and_fuse() {
        let mounts = Mounts::new(2).unwrap();
        let taken: Vec<Mount> = (0..4).map(|_| mounts.take().unwrap()).collect();
        let mut minors: Vec<u32> = taken.iter().map(|mount| mount.dev_inode.1).collect();
        minors.sort_unstable();
        minors.dedup();
        assert_eq!(minors.len(), 4);
        assert!(taken.iter().all(|mount| mount.abort.is_some()));
    }

    /// It waits for answers of this process, which could not end if a waiting thread held a device.
    #[test]
    fn the_thread_that_opens_has_no_device_needs_root_and_fuse() {
        let _mount = Mount::new().unwrap();
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let opener = tasks
            .map(|task| task.unwrap().path())
            .find(|task| {
                let name = std::fs::read_to_string(task.join("comm")).unwrap_or_default();
                name.trim() == "mitosis-opener"
            })
            .expect("the thread lives on");
        let fds = std::fs::read_dir(opener.join("fd")).unwrap();
        let links = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        let devices = links.filter(|link| link.ends_with("fuse")).count();
        assert_eq!(devices, 0);
        let own = std::fs::read_dir("/proc/self/fd").unwrap();
        let links = own.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        assert!(links.filter(|link| link.ends_with("fuse")).count() > 0);
    }
}
