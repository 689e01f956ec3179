//! The system calls that the blob makes of its own accord, with names. Numbers and structures are those
//! of the kernel's ABI, which never change.

use core::ptr;

use crate::abi::MAX_COMMAND_FDS;
use crate::arch::syscall;

const CLOSE: u64 = 3;
const MUNMAP: u64 = 11;
const SENDTO: u64 = 44;
const RECVMSG: u64 = 47;
const EXIT_GROUP: u64 = 231;
const DUP3: u64 = 292;
const CLONE3: u64 = 435;
const CLOSE_RANGE: u64 = 436;

const MSG_NOSIGNAL: u64 = 0x4000;
const MSG_CTRUNC: i32 = 8;
const EINTR: i64 = 4;
const O_CLOEXEC: u64 = 0x8_0000;

const CLONE_PARENT: u64 = 0x8000;
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
const CLONE_CHILD_SETTID: u64 = 0x100_0000;

/// Descriptors that one message can bring: `abi::MAX_COMMAND_FDS`, padded as the kernel does.
const CONTROL_WORDS: usize = 2 + MAX_COMMAND_FDS as usize / 2;
const CONTROL_HEADER_LEN: u64 = 16;

/// struct iovec.
#[repr(C)]
struct Buffer {
    base: *mut u8,
    len: usize,
}

/// struct msghdr.
#[repr(C)]
struct Message {
    name: *mut u8,
    name_len: u32,
    buffers: *mut Buffer,
    buffer_count: usize,
    control: *mut u64,
    control_len: usize,
    flags: i32,
}

/// struct clone_args, up to its first version's end.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// exit_group(2).
pub fn exit(status: u64) -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { syscall(EXIT_GROUP, [status, 0, 0, 0, 0, 0]) };
    }
}

/// munmap(2) of memory that nothing refers to.
pub fn munmap(addr: u64, len: u64) {
    // SAFETY: the caller passes a part of the region that is no longer used.
    unsafe { syscall(MUNMAP, [addr, len, 0, 0, 0, 0]) };
}

/// close_range(2) from `first` up.
pub fn close_from(first: u64) {
    // SAFETY: descriptors are plain numbers here.
    unsafe { syscall(CLOSE_RANGE, [first, u32::MAX.into(), 0, 0, 0, 0]) };
}

/// dup3(2), closed at exec; answers `number` or `-errno`.
pub fn copy_to(fd: u64, number: u64) -> i64 {
    dup3(fd, number, O_CLOEXEC)
}

/// dup3(2); answers `number` or `-errno`.
pub fn dup3(fd: u64, number: u64, flags: u64) -> i64 {
    // SAFETY: descriptors are plain numbers here.
    unsafe { syscall(DUP3, [fd, number, flags, 0, 0, 0]) }
}

/// close(2).
pub fn close(fd: u64) {
    // SAFETY: descriptors are plain numbers here.
    unsafe { syscall(CLOSE, [fd, 0, 0, 0, 0, 0]) };
}

/// Sends `bytes` whole; a peer that is gone is no concern here: its end is noticed on receiving.
pub fn send<T: Copy>(socket: u64, value: &T) {
    let address = ptr::from_ref(value).addr() as u64;
    let len = size_of::<T>() as u64;
    // SAFETY: the kernel reads `len` bytes at a reference.
    while unsafe { syscall(SENDTO, [socket, address, len, MSG_NOSIGNAL, 0, 0]) } == -EINTR {}
}

/// What a message brought.
pub struct Received {
    /// Bytes; none at the end of the stream or on an error.
    pub bytes: usize,
    /// Descriptors, now open under the lowest free numbers; `None` if some were cut off.
    pub fds: Option<u64>,
}

/// recvmsg(2): up to `len` bytes at `into`, and the descriptors that came with them.
///
/// # Safety
/// `len` bytes at `into` are writable and no one else's.
pub unsafe fn receive(socket: u64, into: *mut u8, len: usize) -> Received {
    let mut control = [0u64; CONTROL_WORDS];
    let mut buffer = Buffer { base: into, len };
    let mut message = Message {
        name: ptr::null_mut(),
        name_len: 0,
        buffers: &raw mut buffer,
        buffer_count: 1,
        control: control.as_mut_ptr(),
        control_len: size_of_val(&control),
        flags: 0,
    };
    let address = (&raw mut message).addr() as u64;
    let bytes = loop {
        // SAFETY: the caller's promise for the bytes; the rest are locals that outlive the call.
        match unsafe { syscall(RECVMSG, [socket, address, 0, 0, 0, 0]) } {
            error if error == -EINTR => {}
            result => break usize::try_from(result).unwrap_or(0),
        }
    };
    let [control_len, ..] = control;
    let fds = match message.control_len {
        0 => 0,
        _ => control_len.saturating_sub(CONTROL_HEADER_LEN) / size_of::<i32>() as u64,
    };
    Received { bytes, fds: (message.flags & MSG_CTRUNC == 0).then_some(fds) }
}

/// clone3(2) of this process as a sibling; its tid is written to `tid_address` in the new process.
/// Answers 0 there, and here its pid or `-errno`.
pub fn clone_sibling(flags: u64, tid_address: u64) -> i64 {
    let args = CloneArgs {
        flags: CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | flags,
        child_tid: tid_address,
        ..CloneArgs::default()
    };
    let address = (&raw const args).addr() as u64;
    let len = size_of::<CloneArgs>() as u64;
    // SAFETY: memory is copied, not shared, so that both go on from here on stacks of their own.
    unsafe { syscall(CLONE3, [address, len, 0, 0, 0, 0]) }
}
