//! The system calls that the blob makes of its own accord, with names. Numbers and structures are those
//! of the kernel's ABI, which never change.

use core::mem::MaybeUninit;
use core::ptr;

use crate::abi::{InitShared, MAX_COMMAND_FDS, RawThread};
use crate::arch::{self, syscall};

const READ: u64 = 0;
const WRITE: u64 = 1;
const CLOSE: u64 = 3;
const MUNMAP: u64 = 11;
const GETPID: u64 = 39;
const SENDTO: u64 = 44;
const RECVMSG: u64 = 47;
const GETPPID: u64 = 110;
const RT_SIGQUEUEINFO: u64 = 129;
const MOUNT: u64 = 165;
const GETTID: u64 = 186;
const FUTEX: u64 = 202;
const EXIT_GROUP: u64 = 231;
const INOTIFY_ADD_WATCH: u64 = 254;
const INOTIFY_RM_WATCH: u64 = 255;
const UNSHARE: u64 = 272;
const DUP3: u64 = 292;
const PIPE2: u64 = 293;
const SETNS: u64 = 308;
const PIDFD_OPEN: u64 = 434;
const CLONE3: u64 = 435;
const CLOSE_RANGE: u64 = 436;
const RT_TGSIGQUEUEINFO: u64 = 297;

const MSG_NOSIGNAL: u64 = 0x4000;
const MSG_CTRUNC: i32 = 8;
const EINTR: i64 = 4;
const O_CLOEXEC: u64 = 0x8_0000;

const MS_NOSUID: u64 = 2;
const MS_NODEV: u64 = 4;
const MS_NOEXEC: u64 = 8;
const MS_REC: u64 = 1 << 14;
const MS_SLAVE: u64 = 1 << 19;

const FUTEX_WAIT_PRIVATE: u64 = 128;
const FUTEX_WAKE_PRIVATE: u64 = 129;

const CLONE_VM: u64 = 0x100;
const CLONE_FS: u64 = 0x200;
const CLONE_FILES: u64 = 0x400;
const CLONE_SIGHAND: u64 = 0x800;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_NEWNS: u64 = 0x2_0000;
const CLONE_SYSVSEM: u64 = 0x4_0000;
const CLONE_SETTLS: u64 = 0x8_0000;
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;
const CLONE_CHILD_SETTID: u64 = 0x100_0000;
const CLONE_NEWPID: u64 = 0x2000_0000;

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

/// struct clone_args, up to its second version's end.
#[repr(C)]
#[derive(Default)]
pub struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
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

/// clone3(2) of this process as a sibling; its tid is written to `tid_address` in the new process. `own_pid`
/// is its id in its namespace, 0 any. Answers 0 there, and here its pid or `-errno`.
pub fn clone_sibling(flags: u64, tid_address: u64, own_pid: u32) -> i64 {
    let args = CloneArgs {
        flags: CLONE_PARENT | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | flags,
        child_tid: tid_address,
        set_tid: if own_pid == 0 { 0 } else { (&raw const own_pid).addr() as u64 },
        set_tid_size: u64::from(own_pid != 0),
        ..CloneArgs::default()
    };
    // SAFETY: memory is copied, not shared, so that both go on from here on stacks of their own.
    unsafe { clone3(&args) }
}

/// clone3(2) of a thread that runs `thread` with `record` and `base` on the stack of `stack_len` bytes from
/// `stack` on. Answers its tid or `-errno`.
///
/// # Safety
/// The stack is no one else's for as long as the thread uses it; `record` is one, and `base` the region's.
pub unsafe fn clone_thread(
    record: &RawThread,
    base: u64,
    own_ids: bool,
    (stack, stack_size): (u64, u64),
) -> i64 {
    let shared = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    let told = match record.tid_address {
        0 => 0,
        _ => CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID,
    };
    let tid = record.tid as u32;
    let args = CloneArgs {
        flags: shared | CLONE_SETTLS | told,
        child_tid: record.tid_address,
        stack,
        stack_size,
        tls: record.fs_base,
        set_tid: if own_ids { (&raw const tid).addr() as u64 } else { 0 },
        set_tid_size: u64::from(own_ids),
        ..CloneArgs::default()
    };
    // SAFETY: the caller's promise.
    unsafe { arch::clone_thread(&args, ptr::from_ref(record), base) }
}

/// clone3(2) of the init of a new pid namespace, which shares this process's memory and runs
/// `arch::clone_init`'s code. Answers its pid or `-errno`, and a pidfd of it.
///
/// # Safety
/// `shared` outlives the init.
pub unsafe fn clone_init(go: i32, child: u32, shared: *mut InitShared) -> (i64, i32) {
    let mut pidfd = -1i32;
    let args = CloneArgs {
        flags: CLONE_NEWPID | CLONE_PARENT | CLONE_VM | CLONE_PIDFD,
        pidfd: (&raw mut pidfd).addr() as u64,
        ..CloneArgs::default()
    };
    // SAFETY: the caller's promise.
    let answer = unsafe { arch::clone_init(&args, go, child, shared) };
    // SAFETY: the kernel may have written it behind the compiler's back.
    (answer, unsafe { (&raw const pidfd).read_volatile() })
}

/// # Safety
/// As clone3(2).
unsafe fn clone3(args: &CloneArgs) -> i64 {
    let address = ptr::from_ref(args).addr() as u64;
    // SAFETY: the caller's promise.
    unsafe { syscall(CLONE3, [address, size_of::<CloneArgs>() as u64, 0, 0, 0, 0]) }
}

/// setns(2): the pid namespace of processes that this one clones from now on.
pub fn clone_into_namespace_of(pidfd: i32) -> i64 {
    // SAFETY: no memory is passed.
    unsafe { syscall(SETNS, [pidfd as u64, CLONE_NEWPID, 0, 0, 0, 0]) }
}

/// A mount namespace of this process's own, in which /proc shows its pid namespace; `-errno` of the step that
/// failed, behind which nothing is done. All mounts become slaves first: what is mounted here nobody else sees.
pub fn mount_own_proc() -> Result<(), i64> {
    let proc = c"proc".as_ptr().addr() as u64;
    let (root, at) = (c"/".as_ptr().addr() as u64, c"/proc".as_ptr().addr() as u64);
    let flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    // SAFETY: the kernel reads constant strings.
    unsafe {
        error_or(syscall(UNSHARE, [CLONE_NEWNS, 0, 0, 0, 0, 0]))?;
        error_or(syscall(MOUNT, [0, root, 0, MS_REC | MS_SLAVE, 0, 0]))?;
        error_or(syscall(MOUNT, [proc, at, proc, flags, 0, 0]))?;
    }
    Ok(())
}

/// What a system call has answered, or `-errno`.
pub fn error_or(answer: i64) -> Result<i64, i64> {
    if answer < 0 { Err(answer) } else { Ok(answer) }
}

/// pidfd_open(2) of this process, or `-errno`.
pub fn own_pidfd() -> i64 {
    // SAFETY: no memory is passed.
    unsafe {
        let pid = syscall(GETPID, [0; 6]);
        syscall(PIDFD_OPEN, [pid as u64, 0, 0, 0, 0, 0])
    }
}

/// pipe2(2), closed at exec: reading and writing end.
pub fn pipe() -> Result<[i32; 2], i64> {
    let mut ends = [-1i32; 2];
    let address = ends.as_mut_ptr().addr() as u64;
    // SAFETY: the kernel writes two numbers.
    match unsafe { syscall(PIPE2, [address, O_CLOEXEC, 0, 0, 0, 0]) } {
        // SAFETY: as above.
        0 => Ok(unsafe { (&raw const ends).read_volatile() }),
        error => Err(error),
    }
}

/// Writes one byte to a pipe that has room.
pub fn write_byte(fd: i32) {
    let byte = 1u8;
    let address = (&raw const byte).addr() as u64;
    // SAFETY: the kernel reads one byte at a local.
    unsafe { syscall(WRITE, [fd as u64, address, 1, 0, 0, 0]) };
}

/// inotify_add_watch(2) of a path at an address; answers its number or `-errno`.
pub fn watch(inotify: u64, path: u64, mask: u64) -> i64 {
    // SAFETY: the kernel reads a path, or says that there is none.
    unsafe { syscall(INOTIFY_ADD_WATCH, [inotify, path, mask, 0, 0, 0]) }
}

/// inotify_rm_watch(2).
pub fn let_go_of_watch(inotify: u64, number: u64) {
    // SAFETY: no memory is passed.
    unsafe { syscall(INOTIFY_RM_WATCH, [inotify, number, 0, 0, 0, 0]) };
}

/// read(2); answers bytes or `-errno`.
pub fn read<const N: usize>(fd: u64, into: &mut MaybeUninit<[u8; N]>) -> i64 {
    // SAFETY: the kernel writes at most as many bytes as there are.
    unsafe { syscall(READ, [fd, into.as_mut_ptr() as u64, N as u64, 0, 0, 0]) }
}

/// getpid(2).
pub fn process_id() -> u64 {
    // SAFETY: no memory is passed.
    unsafe { syscall(GETPID, [0; 6]) as u64 }
}

/// rt_sigqueueinfo(2) to this process, or rt_tgsigqueueinfo(2) to the calling thread; answers 0 or `-errno`. `info` is the
/// address of a siginfo_t.
pub fn queue_signal(signal: u32, info: u64, to_thread: bool) -> i64 {
    let (process, signal) = (process_id(), signal.into());
    // SAFETY: the kernel reads the siginfo_t, or says that there is none.
    unsafe {
        match to_thread {
            true => {
                let thread = syscall(GETTID, [0; 6]) as u64;
                syscall(RT_TGSIGQUEUEINFO, [process, thread, signal, info, 0, 0])
            }
            false => syscall(RT_SIGQUEUEINFO, [process, signal, info, 0, 0, 0]),
        }
    }
}

/// getppid(2).
pub fn parent() -> u64 {
    // SAFETY: no memory is passed.
    unsafe { syscall(GETPPID, [0; 6]) as u64 }
}

/// futex(2): sleeps while the word at `address` is `value`; wakes for nothing, too.
pub fn futex_wait(address: u64, value: u32) {
    // SAFETY: the kernel reads the word.
    unsafe { syscall(FUTEX, [address, FUTEX_WAIT_PRIVATE, value.into(), 0, 0, 0]) };
}

/// futex(2): wakes one who sleeps at `address`.
pub fn futex_wake_one(address: u64) {
    // SAFETY: no memory is passed but an address that names a futex.
    unsafe { syscall(FUTEX, [address, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0]) };
}
