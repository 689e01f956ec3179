//! The FUSE kernel protocol, as far as one read-only file needs it (fuse(4), linux/fuse.h): requests are
//! parsed once, answers are written by one writev(2).
//!
//! The file system is a single regular file, its root (`rootmode=100444`): there is nothing to look up.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// The only inode.
pub const ROOT: u64 = 1;
/// The smallest buffer that the kernel accepts in a read of the device (FUSE_MIN_READ_BUFFER).
pub const REQUEST_BYTES: usize = 8192;
/// The inode's size: offsets of an image lie below.
pub const FILE_BYTES: u64 = 1 << 46;
/// Parts of an answer, its header included; more than the 32 pages of the largest READ.
pub const MAX_PARTS: usize = 40;

const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
/// Set in the unique number of a FUSE_INTERRUPT.
const INTERRUPT_BIT: u64 = 1;
const NOTIFY_STORE: i32 = 4;
/// Attributes never change: valid for about 34 years.
const ATTR_VALID_S: u64 = 1 << 30;

mod opcode {
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const DESTROY: u32 = 38;
    pub(super) const BATCH_FORGET: u32 = 42;
}

/// Flags of FUSE_INIT that are taken when the kernel offers them.
mod init {
    pub(super) const ASYNC_READ: u64 = 1 << 0;
    pub(super) const BIG_WRITES: u64 = 1 << 5;
    pub(super) const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub(super) const PARALLEL_DIROPS: u64 = 1 << 18;
    pub(super) const ABORT_ERROR: u64 = 1 << 21;
    pub(super) const MAX_PAGES: u64 = 1 << 22;
    pub(super) const INIT_EXT: u64 = 1 << 30;
    /// Requests may be asked for again by FUSE_NOTIFY_RESEND: what the keeper needs.
    pub(super) const HAS_RESEND: u64 = 1 << 39;
    pub(super) const WANTED: u64 = ASYNC_READ
        | BIG_WRITES
        | NO_OPEN_SUPPORT
        | PARALLEL_DIROPS
        | ABORT_ERROR
        | MAX_PAGES
        | INIT_EXT
        | HAS_RESEND;
}

/// What the kernel asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The handshake.
    Init {
        /// To be answered with.
        unique: u64,
        /// The kernel's protocol version.
        major: u32,
        /// Its minor number.
        minor: u32,
        /// The largest read-ahead it offers, bytes.
        max_readahead: u32,
        /// What it offers.
        flags: u64,
    },
    /// The inode's attributes.
    GetAttr {
        /// To be answered with.
        unique: u64,
    },
    /// An open file.
    Open {
        /// To be answered with.
        unique: u64,
    },
    /// Pages.
    Read(ReadRequest),
    /// The reader of the READ `target` has got a signal.
    Interrupt {
        /// The interrupt's own number.
        unique: u64,
        /// The READ's number.
        target: u64,
    },
    /// Nothing, not even an answer, is wanted.
    Silent,
    /// What this file system does not have: to be answered ENOSYS.
    Other {
        /// To be answered with.
        unique: u64,
    },
}

/// FUSE_READ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadRequest {
    /// To be answered with.
    pub unique: u64,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub size: u32,
    /// The thread that reads, in the pid namespace of whoever mounted; 0: not to be seen from there.
    pub pid: u32,
}

/// Bytes that are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel sent {len} bytes that are no FUSE request")]
pub struct Malformed {
    /// How many bytes.
    pub len: usize,
}

impl Request {
    /// Parses one message from the kernel.
    ///
    /// # Errors
    /// The message is shorter than its kind needs.
    pub fn parse(bytes: &[u8]) -> Result<Request, Malformed> {
        let fault = Malformed { len: bytes.len() };
        let (head, body) = bytes.split_at_checked(IN_HEADER).ok_or(fault)?;
        let unique = u64_at(head, 8).ok_or(fault)?;
        let read_body = || {
            Some(ReadRequest {
                unique,
                offset: u64_at(body, 8)?,
                size: u32_at(body, 16)?,
                pid: u32_at(head, 32)?,
            })
        };
        let init_body = || {
            let (low, high) = (u32_at(body, 12)?, u32_at(body, 16).unwrap_or(0));
            Some(Request::Init {
                unique,
                major: u32_at(body, 0)?,
                minor: u32_at(body, 4)?,
                max_readahead: u32_at(body, 8)?,
                flags: u64::from(low) | u64::from(high) << 32,
            })
        };
        match u32_at(head, 4).ok_or(fault)? {
            opcode::READ => read_body().map(Request::Read).ok_or(fault),
            opcode::OPEN => Ok(Request::Open { unique }),
            opcode::GETATTR => Ok(Request::GetAttr { unique }),
            opcode::INTERRUPT => {
                Ok(Request::Interrupt { unique, target: u64_at(body, 0).ok_or(fault)? })
            }
            opcode::FORGET | opcode::BATCH_FORGET | opcode::DESTROY => Ok(Request::Silent),
            opcode::INIT => init_body().ok_or(fault),
            _ => Ok(Request::Other { unique }),
        }
    }
}

/// What an image's connection is set to in FUSE_INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitLimits {
    /// Bytes that the kernel reads around a miss.
    pub readahead: u32,
    /// Pages in the largest READ.
    pub max_pages: u16,
    /// READs that the kernel may have on its way without anyone waiting for them.
    pub max_background: u16,
}

/// The body of the answer to FUSE_INIT (struct fuse_init_out, 64 bytes).
pub fn init_answer(
    minor: u32,
    offered_readahead: u32,
    offered: u64,
    limits: InitLimits,
) -> [u8; 64] {
    let flags = offered & init::WANTED;
    let mut out = [0u8; 64];
    put(&mut out, 0, &7u32.to_ne_bytes());
    put(&mut out, 4, &minor.min(45).to_ne_bytes());
    put(&mut out, 8, &limits.readahead.min(offered_readahead).to_ne_bytes());
    put(&mut out, 12, &low_half(flags).to_ne_bytes());
    put(&mut out, 16, &limits.max_background.to_ne_bytes());
    put(&mut out, 18, &(limits.max_background / 4 * 3).to_ne_bytes());
    // max_write also bounds the buffer that a read of the device must bring; nothing is ever written.
    put(&mut out, 20, &4096u32.to_ne_bytes());
    put(&mut out, 24, &1u32.to_ne_bytes());
    put(&mut out, 28, &limits.max_pages.to_ne_bytes());
    put(&mut out, 32, &low_half(flags >> 32).to_ne_bytes());
    out
}

/// The body of the answer to FUSE_OPEN (struct fuse_open_out, 16 bytes): what is cached stays, and a close
/// does not wait for a FLUSH (Linux 5.17). A process that holds both this file and the device could else not
/// be killed: its end would wait for an answer of its own.
pub fn open_answer() -> [u8; 16] {
    const KEEP_CACHE: u32 = 1 << 1;
    const NO_FLUSH: u32 = 1 << 5;
    let mut out = [0u8; 16];
    put(&mut out, 8, &(KEEP_CACHE | NO_FLUSH).to_ne_bytes());
    out
}

/// The body of the answer to FUSE_GETATTR (struct fuse_attr_out, 104 bytes).
pub fn attr_answer() -> [u8; 104] {
    let mut out = [0u8; 104];
    put(&mut out, 0, &ATTR_VALID_S.to_ne_bytes());
    put(&mut out, 16, &ROOT.to_ne_bytes());
    put(&mut out, 24, &FILE_BYTES.to_ne_bytes());
    put(&mut out, 76, &(libc::S_IFREG | 0o444).to_ne_bytes());
    put(&mut out, 80, &1u32.to_ne_bytes());
    put(&mut out, 96, &4096u32.to_ne_bytes());
    out
}

/// The pages of one answer, gathered where they lie.
#[derive(Debug)]
pub struct Parts<'a> {
    parts: [IoSlice<'a>; MAX_PARTS],
    count: usize,
    bytes: usize,
}

impl<'a> Parts<'a> {
    /// No bytes yet.
    pub fn new() -> Self {
        Parts { parts: [IoSlice::new(&[]); MAX_PARTS], count: 1, bytes: 0 }
    }

    /// Appends bytes. At most [`MAX_PARTS`] - 1 times: more is a defect of the caller and cuts the
    /// answer, which the kernel then fills with zeros, so it is asserted where tests run.
    pub fn push(&mut self, part: &'a [u8]) {
        debug_assert!(self.count < MAX_PARTS);
        if self.count < MAX_PARTS {
            self.parts[self.count] = IoSlice::new(part);
            self.count += 1;
            self.bytes += part.len();
        }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// How a message was taken by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was.
    Yes,
    /// Nobody waits for it any more: interrupted, or answered before.
    Gone,
}

/// What a read of the device brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A message of so many bytes.
    Message(usize),
    /// Nothing is there now.
    Nothing,
    /// The connection has ended.
    Ended,
}

/// One open /dev/fuse, non-blocking. Several threads may use it.
#[derive(Debug)]
pub struct Device(File);

impl Device {
    /// Opens /dev/fuse.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn open() -> io::Result<Device> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        options.open("/dev/fuse").map(Device)
    }

    /// Takes one message into `buffer` (at least [`REQUEST_BYTES`]).
    ///
    /// # Errors
    /// read(2)'s, but for those that only mean "nothing" or "the end".
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        match (&self.0).read(buffer) {
            Ok(0) => Ok(Received::Ended),
            Ok(len) => Ok(Received::Message(len)),
            Err(error) => match error.raw_os_error() {
                // ENOENT: the request was taken back while it was being copied.
                Some(libc::EAGAIN | libc::EINTR | libc::ENOENT) => Ok(Received::Nothing),
                Some(libc::ENODEV | libc::ECONNABORTED | libc::EBADF) => Ok(Received::Ended),
                _ => Err(error),
            },
        }
    }

    /// Answers `unique` with bytes.
    ///
    /// # Errors
    /// writev(2)'s.
    pub fn answer(&self, unique: u64, body: &Parts<'_>) -> io::Result<Taken> {
        let header = out_header(body.bytes, 0, unique);
        let mut parts = body.parts;
        parts[0] = IoSlice::new(&header);
        taken((&self.0).write_vectored(&parts[..body.count]))
    }

    /// Answers `unique` with an error number (positive, as in errno).
    ///
    /// # Errors
    /// write(2)'s.
    pub fn refuse(&self, unique: u64, errno: i32) -> io::Result<Taken> {
        taken((&self.0).write(&out_header(0, -errno, unique)))
    }

    /// Puts `bytes` into the page cache at `offset` (FUSE_NOTIFY_STORE). Sleeps, and cannot be killed,
    /// while a page among them is locked by a READ that has not been answered: never to be called by a
    /// thread that such an answer waits for.
    ///
    /// # Errors
    /// writev(2)'s.
    pub fn store(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let size = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut note = [0u8; OUT_HEADER + 24];
        put(&mut note, 0, &out_header(24 + bytes.len(), NOTIFY_STORE, 0));
        put(&mut note, OUT_HEADER, &ROOT.to_ne_bytes());
        put(&mut note, OUT_HEADER + 8, &offset.to_ne_bytes());
        put(&mut note, OUT_HEADER + 16, &size.to_ne_bytes());
        loop {
            match (&self.0).write_vectored(&[IoSlice::new(&note), IoSlice::new(bytes)]) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A step of mounting that failed.
#[derive(Debug)]
pub struct MountFault {
    /// Which system call.
    pub step: &'static str,
    /// Why.
    pub error: io::Error,
}

/// A detached mount of the one-file system that `device` serves; no path leads to it. FUSE_INIT is then
/// waiting in `device`.
///
/// # Errors
/// Which step failed, and why.
pub fn mount(device: &Device, max_read: u32) -> Result<OwnedFd, MountFault> {
    let context = fs_context(c"fuse")?;
    let number = std::ffi::CString::new(device.0.as_raw_fd().to_string()).unwrap_or_default();
    // SAFETY: these only read the caller's ids.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let text = |number: u32| std::ffi::CString::new(number.to_string()).unwrap_or_default();
    set(&context, c"source", Some(c"mitosis"))?;
    set(&context, c"fd", Some(&number))?;
    set(&context, c"rootmode", Some(c"100444"))?;
    set(&context, c"user_id", Some(&text(uid)))?;
    set(&context, c"group_id", Some(&text(gid)))?;
    set(&context, c"max_read", Some(&text(max_read)))?;
    set(&context, c"allow_other", None)?;
    create_mount(&context)
}

/// Where connections can be aborted: a detached mount of the fusectl file system.
///
/// # Errors
/// Which step failed, and why; EPERM outside the first user namespace.
pub fn mount_control() -> Result<OwnedFd, MountFault> {
    create_mount(&fs_context(c"fusectl")?)
}

/// A detached mount of an empty file system in memory, with room for some thousand small files.
///
/// # Errors
/// Which step failed, and why.
pub fn mount_memory() -> Result<OwnedFd, MountFault> {
    let context = fs_context(c"tmpfs")?;
    set(&context, c"mode", Some(c"755"))?;
    set(&context, c"size", Some(c"16m"))?;
    set(&context, c"nr_inodes", Some(c"4096"))?;
    create_mount(&context)
}

const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FD_CLOEXEC: libc::c_uint = 1;
const NULL: *const libc::c_char = std::ptr::null();

fn fs_context(kind: &std::ffi::CStr) -> Result<OwnedFd, MountFault> {
    // SAFETY: `kind` is a string that lives through the call.
    let fd = unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FD_CLOEXEC) };
    owned(fd).map_err(|error| MountFault { step: "fsopen", error })
}

fn set(
    context: &OwnedFd,
    key: &std::ffi::CStr,
    value: Option<&std::ffi::CStr>,
) -> Result<(), MountFault> {
    let (command, value) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, NULL),
    };
    // SAFETY: key and value are strings that live through the call.
    let result = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key.as_ptr(), value, 0)
    };
    if result == 0 {
        return Ok(());
    }
    Err(MountFault { step: "fsconfig", error: io::Error::last_os_error() })
}

fn create_mount(context: &OwnedFd) -> Result<OwnedFd, MountFault> {
    let fd = context.as_raw_fd();
    // SAFETY: no memory is passed.
    if unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, NULL, NULL, 0) } != 0 {
        return Err(MountFault { step: "fsconfig(create)", error: io::Error::last_os_error() });
    }
    let flags = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    // SAFETY: no memory is passed.
    let mount = unsafe { libc::syscall(libc::SYS_fsmount, fd, FD_CLOEXEC, flags) };
    owned(mount).map_err(|error| MountFault { step: "fsmount", error })
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(result) {
        // SAFETY: the system call has just made this descriptor, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn taken(result: io::Result<usize>) -> io::Result<Taken> {
    match result {
        Ok(_) => Ok(Taken::Yes),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Taken::Gone),
        Err(error) => Err(error),
    }
}

fn out_header(body: usize, error: i32, unique: u64) -> [u8; OUT_HEADER] {
    let len = u32::try_from(OUT_HEADER + body).unwrap_or(u32::MAX);
    let mut out = [0u8; OUT_HEADER];
    put(&mut out, 0, &len.to_ne_bytes());
    put(&mut out, 4, &error.to_ne_bytes());
    put(&mut out, 8, &unique.to_ne_bytes());
    out
}

/// The number of the READ that an interrupt with this number is about.
pub fn interrupted(unique: u64) -> u64 {
    unique & !INTERRUPT_BIT
}

fn low_half(bits: u64) -> u32 {
    u32::try_from(bits & 0xffff_ffff).unwrap_or(0)
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
#[path = "fuse_tests.rs"]
mod tests;
