//! The keeper's child's road into the restorer: its descriptors' numbers, the blob's region, the jump.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::rawcall::{KernelAction, sigaction};
use crate::resume::abi::{PARAMS, REGION_LEN, STUB, TABLE, TEXT_LEN};

/// Number of the command socket in a template; what else it is given follows.
pub const FIRST_FD: RawFd = 3;

/// An anonymous file named `name` with these contents.
///
/// # Errors
/// memfd_create(2)'s and write(2)'s.
pub fn memfd(name: &std::ffi::CStr, parts: &[(u64, &[u8])], len: u64) -> io::Result<OwnedFd> {
    // SAFETY: `name` is a C string; the answer is checked before it is owned.
    let fd = match unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: the kernel has just opened it for us.
        fd => unsafe { OwnedFd::from_raw_fd(fd) },
    };
    let file = File::from(fd);
    file.set_len(len)?;
    for (offset, bytes) in parts {
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, *offset)?;
    }
    Ok(file.into())
}

/// The process dies with its parent.
///
/// # Errors
/// `NotConnected` when the parent, `parent`, is gone already.
fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    let seen = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0);
        libc::getppid()
    };
    if u32::try_from(seen) == Ok(parent) { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
}

/// Gives `fds` the numbers `first`, `first + 1`, ...; /dev/null gets 0, 1 and 2, and every other
/// descriptor of the process is closed. The owners of descriptors in this process are void after it:
/// what follows must not return to them.
///
/// # Errors
/// dup(2)'s.
fn place_descriptors(fds: &[BorrowedFd<'_>], first: RawFd) -> io::Result<()> {
    let check = |fd: RawFd| if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) };
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let end = first + RawFd::try_from(fds.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let floor = fds.iter().map(AsRawFd::as_raw_fd).fold(end, RawFd::max) + 1;
    // SAFETY: descriptors are numbers to these calls; the caller has given up their owners.
    unsafe {
        let mut high = Vec::with_capacity(fds.len());
        for fd in fds {
            high.push(check(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, floor))?);
        }
        for number in 0..3 {
            check(libc::dup2(null.as_raw_fd(), number))?;
        }
        for (fd, number) in high.into_iter().zip(first..) {
            check(libc::dup2(fd, number))?;
        }
        libc::syscall(libc::SYS_close_range, end, u32::MAX, 0);
    }
    std::mem::forget(null);
    Ok(())
}

/// Maps the region in `memfd` at `base`.
///
/// # Errors
/// mmap(2)'s; EEXIST when something lies there.
fn map_region(memfd: BorrowedFd<'_>, base: u64) -> io::Result<()> {
    let fixed = libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE;
    let (at, len) = (base as *mut libc::c_void, size(REGION_LEN));
    // SAFETY: NOREPLACE touches no mapping of ours; mprotect then changes parts of the new one.
    unsafe {
        if libc::mmap(at, len, libc::PROT_READ, fixed, memfd.as_raw_fd(), 0) != at {
            return Err(io::Error::last_os_error());
        }
        let text = libc::mprotect(at, size(TEXT_LEN), libc::PROT_READ | libc::PROT_EXEC);
        let (from, bytes) = (at.byte_add(size(STUB)), size(TABLE - STUB));
        if text != 0 || libc::mprotect(from, bytes, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    const { assert!(TEXT_LEN == PARAMS && STUB < TABLE) };
    Ok(())
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("the region fits into a 64-bit address space")
}

/// Where a keeper's child goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The region's bytes.
    pub region: BorrowedFd<'a>,
    /// Its address.
    pub base: u64,
    /// The blob's entry, from there.
    pub entry: u64,
    /// What becomes descriptor 3, 4, ...
    pub descriptors: &'a [BorrowedFd<'a>],
    /// The keeper's pid.
    pub keeper: u32,
}

/// The steps of the road, as a reply numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupStep {
    /// Asking to die with the keeper.
    DieWithKeeper = 1,
    /// Mapping the region.
    MapRegion = 2,
    /// Giving descriptors their numbers.
    PlaceDescriptors = 3,
}

/// Turns this process, a fresh fork of the keeper, into a template in the making. Returns only if a step
/// fails; the process can then do no more than tell and end.
pub fn into_restorer(destination: &Destination<'_>) -> (SetupStep, io::Error) {
    default_signals();
    if let Err(error) = die_with(destination.keeper) {
        return (SetupStep::DieWithKeeper, error);
    }
    if let Err(error) = map_region(destination.region, destination.base) {
        return (SetupStep::MapRegion, error);
    }
    if let Err(error) = place_descriptors(destination.descriptors, FIRST_FD) {
        return (SetupStep::PlaceDescriptors, error);
    }
    // SAFETY: the region was just mapped there; the blob takes its own stack, expects its base in rdi and
    // never comes back.
    unsafe {
        std::arch::asm!(
            "jmp {entry}",
            entry = in(reg) destination.base + destination.entry,
            in("rdi") destination.base,
            options(noreturn),
        );
    }
}

/// Gives each signal its default action, of which restore programs start: a keeper has what Rust's runtime
/// took (SIGPIPE) and what it was started with (a shell's background jobs ignore SIGINT).
fn default_signals() {
    for signal in 1..=64 {
        // SAFETY: the default action runs no code of ours.
        unsafe { sigaction(signal, Some(&KernelAction::default())) };
    }
}

/// A session of its own: no terminal's signals.
pub fn new_session() {
    // SAFETY: no memory is passed; fails harmlessly where we lead one already.
    unsafe { libc::setsid() };
}

/// Standard input, output and error lead nowhere from now on: whoever reads them need not wait for this process.
pub fn leave_standard_streams() {
    let Ok(null) = File::options().read(true).write(true).open("/dev/null") else { return };
    for number in 0..3 {
        // SAFETY: numbers that no owner in this process has.
        unsafe { libc::dup2(null.as_raw_fd(), number) };
    }
    if null.as_raw_fd() < 3 {
        // It has become one of them.
        std::mem::forget(null);
    }
}

/// Whether libc has registered an rseq(2) area for this thread. A process that inherits one and unmaps
/// it dies at the next preemption.
pub fn has_rseq() -> bool {
    #[repr(align(32))]
    struct Area([u8; 32]);
    const UNREGISTER: i32 = 1;
    const SIGNATURE: u32 = 0x5305_3053;
    let area = Area([0; 32]);
    let address = area.0.as_ptr();
    // SAFETY: the area is registered, if at all, between these two calls alone.
    unsafe {
        if libc::syscall(libc::SYS_rseq, address, 32, 0, SIGNATURE) == 0 {
            libc::syscall(libc::SYS_rseq, address, 32, UNREGISTER, SIGNATURE);
            return false;
        }
    }
    io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
}
