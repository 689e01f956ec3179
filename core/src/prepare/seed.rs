//! The seed, from its freeze to its end: it describes itself, hands itself over and sleeps.
//!
//! Everything here runs on scratch memory (see `scratch`) with raw system calls: no allocation, no errno,
//! no write to memory that children get. The frame that the kernel put on the caller's stack is where
//! each child goes on.

use std::arch::global_asm;

use super::REHEARSED;
use super::carried;
use super::credentials;
use super::header;
use super::kept;
use super::proc_files::{close, each_entry, open, own_entry, read_file, remedy};
use super::proc_text::{Path, StatLayout, decimal, fdinfo, stat_layout};
use super::report::{ReportWriter, tag};
use super::scratch::{Areas, Freeze};
use crate::descriptor::ThreadState;
use crate::descriptor::process::{RESOURCE_LIMITS, SIGNALS};
use crate::id::PrepareToken;
use crate::sys::rawcall::{KernelAction, rawcall, sigaction};

/// The signal whose frame is the seed's context: a real-time signal far from both ends that libcs use.
/// Its disposition is the caller's again in each child.
pub(super) const FREEZE_SIGNAL: i32 = 60;
/// How long the agent may take to read the report before the seed gives up is set on the socket by the
/// parent; the statuses below are for people with strace.
const STATUS_NOT_SENT: i32 = 90;
const PR_GET_TID_ADDRESS: i32 = 40;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;
const RSEQ_SIGNATURE: u64 = 0x5305_3053;
/// Threads that a refusal names.
const NAMED_THREADS: usize = 4;
/// The longest of [`Refusal`]'s texts has about 250.
const REFUSAL_BYTES: usize = 512;
const SEED_NAME: &std::ffi::CStr = c"mitosis-seed";

global_asm!(
    ".pushsection .text.mitosis_freeze, \"ax\", @progbits",
    ".hidden mitosis_freeze_entry",
    ".globl mitosis_freeze_entry",
    ".type mitosis_freeze_entry, @function",
    "mitosis_freeze_entry:",
    // rsi: siginfo, whose si_value (offset 24) is the Freeze; rdx: ucontext. Nothing may be pushed
    // before the stack is the scratch's, and nothing ever returns from here: children leave by
    // rt_sigreturn on the frame.
    "mov 24(%rsi), %rdi",
    "mov %rdx, %rsi",
    "mov %rdi, %rsp",
    "xor %ebp, %ebp",
    "call *{seed}@GOTPCREL(%rip)",
    "ud2",
    ".size mitosis_freeze_entry, . - mitosis_freeze_entry",
    ".popsection",
    seed = sym frozen,
    options(att_syntax)
);

unsafe extern "C" {
    fn mitosis_freeze_entry();
}

/// The handler of [`FREEZE_SIGNAL`]. It must be raised with the address of a `Freeze` as its value.
pub(super) fn entry() -> u64 {
    mitosis_freeze_entry as *const () as usize as u64
}

/// On the scratch stack, behind the frame.
extern "C" fn frozen(freeze: *mut Freeze, context: *const libc::ucontext_t) -> ! {
    // SAFETY: at_child raised the signal with the live scratch memory of this process, which has no other
    // user: this thread is the only one.
    let (freeze, areas) = unsafe { (&*freeze, (*freeze).areas()) };
    let Areas { header, report, work } = areas;
    let mut writer = match freeze.looked {
        Some((_, written)) => ReportWriter::after(report, written),
        None => ReportWriter::new(report),
    };
    let described =
        Description { freeze, writer: &mut writer, work }.write(context as usize as u64);
    let mut written = writer.finish();
    let files = own_files();
    if let Err(reason) = files.and(described) {
        written = refuse(report, reason);
    } else if written.is_none() {
        written = refuse(
            report,
            Refusal::Plain(
                "its description is longer than 1 MiB: it has too many open files for a seed",
            ),
        );
    }
    let bytes = u32::try_from(written.unwrap_or(0)).unwrap_or(0);
    let start = header::write(header, &PrepareToken(freeze.token), bytes);
    let len = header.len() - start + bytes as usize;
    // SAFETY: the report lies right behind its header, both in scratch memory.
    unsafe {
        // A refusal has nothing to hand over; the connection itself stands in for the files.
        let files = files.unwrap_or([freeze.socket; 3]);
        if !hand_over(freeze.socket, header.as_ptr().add(start), len, files) {
            end(STATUS_NOT_SENT);
        }
        sleep(freeze.socket)
    }
}

/// In the parent, which nobody else runs in, at last before it is copied: what lies in its open files changes as soon as it goes on.
///
/// # Safety
/// As of [`Freeze::areas`].
pub(super) unsafe fn look_at_files(freeze: &mut Freeze) {
    if freeze.carry_files {
        // SAFETY: the caller's.
        let Areas { report, work, .. } = unsafe { freeze.areas() };
        let mut writer = ReportWriter::new(report);
        let looked = carried::look(&mut writer, work, freeze.socket);
        freeze.looked = Some((looked, writer.written()));
    }
}

/// Why this process cannot be a seed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    Plain(&'static str),
    /// A file of /proc could not be read: the kernel's answer.
    Unreadable {
        path: &'static str,
        answer: i32,
    },
    /// A thread is another user, or may do other things, than the caller.
    OtherCredentials {
        tid: u64,
    },
    /// What the kernel tells of a file has no room.
    TooLong {
        fd: u64,
    },
}

impl Refusal {
    fn put_into(self, text: &mut Text<'_>) {
        match self {
            Refusal::Plain(reason) => text.push(reason.as_bytes()),
            Refusal::Unreadable { path, answer } => {
                text.push(path.as_bytes());
                text.push(
                    Path::new(b" cannot be read (errno ", answer.unsigned_abs().into(), b"): ")
                        .text(),
                );
                text.push(remedy(answer).as_bytes());
            }
            Refusal::OtherCredentials { tid } => {
                text.push(Path::new(b"thread ", tid, b" has other credentials").text());
                text.push(
                    b" (user, groups, capabilities) than the one that called prepare, and in a child all threads \
                      have the same: change them for all threads (setuid(3), libcap's psx), or call prepare before",
                );
            }
            Refusal::TooLong { fd } => {
                text.push(
                    Path::new(b"what /proc/self/fdinfo tells of descriptor ", fd, b"").text(),
                );
                text.push(b" is longer than 1 MiB: an epoll of fewer watches can be carried");
            }
        }
    }
}

fn refuse(report: &mut [u8], reason: Refusal) -> Option<usize> {
    let mut bytes = [0u8; REFUSAL_BYTES];
    let mut text = Text { bytes: &mut bytes, len: 0 };
    reason.put_into(&mut text);
    let len = text.len;
    let mut writer = ReportWriter::new(report);
    writer.record(tag::REFUSED, &[], &bytes[..len]);
    writer.finish()
}

/// `/proc/self/{mem,pagemap,smaps}`, open.
fn own_files() -> Result<[i32; 3], Refusal> {
    let paths = [c"/proc/self/mem", c"/proc/self/pagemap", c"/proc/self/smaps"];
    let files = paths.map(|path| open(path.as_ptr().cast(), 0));
    match files.iter().find(|fd| **fd < 0) {
        None => Ok(files),
        Some(answer) if [-libc::EACCES, -libc::EPERM].contains(answer) => Err(Refusal::Plain(
            "it may not open its own /proc/self/mem: a process that is not dumpable (setuid, file \
             capabilities or PR_SET_DUMPABLE 0) can be a seed only as root",
        )),
        Some(answer) => Err(Refusal::Unreadable { path: "/proc/self/mem", answer: *answer }),
    }
}

/// Sends the frame; `fds` ride on its first byte.
///
/// # Safety
/// `frame` is `len` live bytes.
unsafe fn hand_over(socket: i32, frame: *const u8, len: usize, fds: [i32; 3]) -> bool {
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        fds: [i32; 3],
    }
    let header = libc::cmsghdr {
        cmsg_len: size_of::<libc::cmsghdr>() + size_of_val(&fds),
        cmsg_level: libc::SOL_SOCKET,
        cmsg_type: libc::SCM_RIGHTS,
    };
    let mut control = Control { header, fds };
    let mut sent = 0usize;
    while sent < len {
        // SAFETY: msghdr is plain data; all zero is its empty value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        let mut part = libc::iovec {
            // SAFETY: inside the frame.
            iov_base: unsafe { frame.add(sent) }.cast_mut().cast(),
            iov_len: len - sent,
        };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        if sent == 0 {
            message.msg_control = (&raw mut control).cast();
            message.msg_controllen = size_of::<Control>();
        }
        // SAFETY: everything that `message` names lives until the call returns.
        let answer =
            unsafe { rawcall!(libc::SYS_sendmsg, socket, &raw const message, libc::MSG_NOSIGNAL) };
        match usize::try_from(answer) {
            Ok(bytes) if bytes > 0 => sent += bytes,
            _ if answer == -(libc::EINTR as isize) => {}
            _ => return false,
        }
    }
    true
}

/// Holds nothing but its memory and the connection until the agent closes that.
///
/// # Safety
/// Nothing of this process uses a descriptor any more.
unsafe fn sleep(socket: i32) -> ! {
    let mut byte = 0u8;
    // SAFETY: the caller's; `byte` lives.
    unsafe {
        if socket > 0 {
            rawcall!(libc::SYS_close_range, 0, socket - 1, 0);
        }
        rawcall!(libc::SYS_close_range, socket + 1, u32::MAX, 0);
        loop {
            let got = rawcall!(libc::SYS_read, socket, &raw mut byte, 1usize);
            if got <= 0 && got != -(libc::EINTR as isize) && got != -(libc::EAGAIN as isize) {
                end(0);
            }
        }
    }
}

/// Lets the parent run first, where it waits for this CPU.
pub(super) fn give_way() {
    // SAFETY: takes nothing.
    unsafe { rawcall!(libc::SYS_sched_yield) };
}

/// Ends the process without a handler.
pub(super) fn end(status: i32) -> ! {
    loop {
        // SAFETY: it does not return.
        unsafe { rawcall!(libc::SYS_exit_group, status) };
    }
}

/// Tells the agent, whose socket a rehearsal's standard input is, that it stands where prepare() returns,
/// and ends when the agent has looked at it.
pub(super) fn rehearsed() -> ! {
    let flags = libc::MSG_NOSIGNAL;
    let (said, len) = (REHEARSED.as_ptr(), REHEARSED.len());
    // SAFETY: the kernel reads as many bytes as there are.
    let sent = unsafe { rawcall!(libc::SYS_sendto, 0, said, len, flags, 0, 0) };
    if sent <= 0 {
        end(0);
    }
    loop {
        // SAFETY: takes nothing. It is killed here.
        unsafe { rawcall!(libc::SYS_pause) };
    }
}

/// Writes the records.
struct Description<'a, 'b> {
    freeze: &'a Freeze,
    writer: &'a mut ReportWriter<'b>,
    work: &'a mut [u8],
}

impl Description<'_, '_> {
    fn write(&mut self, frame: u64) -> Result<(), Refusal> {
        let freeze = self.freeze;
        if let Some((looked, _)) = freeze.looked {
            let looked = looked?;
            carried::compare(self.writer, self.work, &looked);
            // Still of epolls that the parent has, too, and may change as soon as it runs.
            carried::watched_by_others(self.writer, self.work, &looked);
        } else {
            self.open_files()?;
        }
        self.writer.record(tag::LOSSES, &[freeze.losses_area, freeze.refuse], &[]);
        self.foreign_threads();
        self.threads(frame)?;
        // Now that its own is known: where holders of a file are named, seeds are told by this.
        // SAFETY: the name ends with a zero byte.
        unsafe { rawcall!(libc::SYS_prctl, libc::PR_SET_NAME, SEED_NAME.as_ptr()) };
        self.layout()?;
        let len = self.file("/proc/self/auxv\0")?;
        self.writer.record(tag::AUXV, &[], &self.work[..len]);
        self.signal_actions();
        self.paths();
        self.scalars();
        kept::report(self.writer, freeze.frozen_at);
        kept::report_treatment(self.writer);
        credentials::report(self.writer);
        self.limits();
        let mut timers = [0u64; 12];
        for (place, value) in timers.iter_mut().zip(freeze.timers.iter().flatten()) {
            *place = *value;
        }
        self.writer.record(tag::TIMERS, &timers, &[]);
        self.writer.record(tag::RESUME_AREA, &[freeze.resume_area], &[]);
        let scratch = freeze.scratch;
        self.writer.record(tag::NOT_CARRIED, &[scratch.start.0, scratch.end.0], &[]);
        for copy in freeze.copies.iter().take(freeze.copy_count) {
            let (shared, mapping) = (copy.shared, copy.mapping);
            self.writer.record(tag::SHARED_COPY, &[shared.start.0, shared.end.0, copy.copy.0], &[]);
            self.writer.record(tag::NOT_CARRIED, &[mapping.start.0, mapping.end.0], &[]);
        }
        let own = freeze.not_carried;
        if !own.is_empty() {
            self.writer.record(tag::NOT_CARRIED, &[own.start.0, own.end.0], &[]);
        }
        Ok(())
    }

    /// The caller's, and in whole-process mode the others'.
    fn threads(&mut self, frame: u64) -> Result<(), Refusal> {
        let Some(whole) = self.freeze.whole else {
            self.thread(frame);
            return Ok(());
        };
        // SAFETY: the parent has filled both in, and stays with them; nobody writes to this copy.
        let (table, map) = unsafe { (whole.table.as_ref(), whole.map.as_ref()) };
        // SAFETY: all of them had arrived when this copy was made.
        unsafe {
            table.caller().report(self.writer, Some(frame));
            table.parked().for_each(|thread| thread.report(self.writer, None));
            if let Some(other) = table.parked().find(|thread| !thread.is_as(table.caller())) {
                return Err(Refusal::OtherCredentials { tid: other.tid() });
            }
        }
        // SAFETY: nobody writes to this copy.
        unsafe { table.report_waiting(self.writer) };
        self.writer.record(tag::GATE, &[whole.gate], &[]);
        for range in map.marked() {
            self.writer.record(tag::DONT_FORK, &[range.start.0, range.end.0], &[]);
        }
        for range in map.locked() {
            self.writer.record(tag::LOCKED, &[range.start.0, range.end.0], &[]);
        }
        if map.locks_future() != 0 {
            self.writer.record(
                tag::LOCKS_FUTURE,
                &[u64::from(map.locks_future().cast_unsigned())],
                &[],
            );
        }
        Ok(())
    }

    fn thread(&mut self, frame: u64) {
        let freeze = self.freeze;
        let (mut fs, mut gs, mut tid_address) = (0u64, 0u64, 0u64);
        let (mut robust, mut robust_len) = (0u64, 0u64);
        let mut name = [0u8; 16];
        // SAFETY: each call writes to a live local of the size that it expects.
        let alt = unsafe {
            let mut alt: libc::stack_t = std::mem::zeroed();
            rawcall!(libc::SYS_arch_prctl, ARCH_GET_FS, &raw mut fs);
            rawcall!(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut gs);
            rawcall!(libc::SYS_prctl, PR_GET_TID_ADDRESS, &raw mut tid_address);
            rawcall!(libc::SYS_get_robust_list, 0, &raw mut robust, &raw mut robust_len);
            rawcall!(libc::SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr());
            rawcall!(libc::SYS_sigaltstack, 0, &raw mut alt);
            alt
        };
        let rseq = match freeze.rseq_registered {
            0 => [0; 3],
            len => [fs.wrapping_add_signed(freeze.rseq_offset), u64::from(len), RSEQ_SIGNATURE],
        };
        let numbers = [
            freeze.parent_tid,
            tid_address,
            frame,
            fs,
            gs,
            robust,
            robust_len,
            rseq[0],
            rseq[1],
            rseq[2],
            alt.ss_sp as usize as u64,
            u64::from(alt.ss_flags.cast_unsigned()),
            alt.ss_size as u64,
            0,
        ];
        let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        self.writer.record(tag::THREAD, &numbers, &name[..len]);
        let has_tiles = kept::may_use_tiles();
        kept::report_thread(self.writer, ThreadState { has_tiles, ..kept::of_this_thread() });
        kept::report_sched(self.writer, kept::sched_of_this_thread());
    }

    fn layout(&mut self) -> Result<(), Refusal> {
        let len = self.file("/proc/self/stat\0")?;
        let stat = stat_layout(&self.work[..len])
            .ok_or(Refusal::Plain("its /proc/self/stat does not parse"))?;
        // SAFETY: brk(0) only asks.
        let brk = unsafe { rawcall!(libc::SYS_brk, 0usize) }.cast_unsigned() as u64;
        let StatLayout { code, data, start_brk, stack, args, env } = stat;
        let numbers =
            [code.0, code.1, data.0, data.1, start_brk, brk, stack, args.0, args.1, env.0, env.1];
        self.writer.record(tag::LAYOUT, &numbers, &[]);
        Ok(())
    }

    fn signal_actions(&mut self) {
        let mut numbers = [0u64; 4 * SIGNALS];
        for (signal, place) in (1i32..).zip(numbers.chunks_exact_mut(4)) {
            let action = match signal {
                libc::SIGKILL | libc::SIGSTOP => KernelAction::default(),
                FREEZE_SIGNAL => self.freeze.old_action,
                // SAFETY: only asks.
                _ => unsafe { sigaction(signal, None) },
            };
            place.copy_from_slice(&[action.handler, action.flags, action.restorer, action.mask]);
        }
        self.writer.record(tag::SIGNAL_ACTIONS, &numbers, &[]);
    }

    fn paths(&mut self) {
        let room = self.work.len();
        // SAFETY: both calls write at most `room` bytes to the work area.
        let exe = unsafe {
            let cwd = rawcall!(libc::SYS_getcwd, self.work.as_mut_ptr(), room);
            // The length counts the zero byte.
            let cwd = usize::try_from(cwd).unwrap_or(0).saturating_sub(1);
            self.writer.record(tag::CWD, &[], &self.work[..cwd]);
            let path = c"/proc/self/exe".as_ptr();
            let exe = rawcall!(libc::SYS_readlink, path, self.work.as_mut_ptr(), room);
            usize::try_from(exe).unwrap_or(0)
        };
        self.writer.record(tag::EXE, &[], &self.work[..exe]);
    }

    fn scalars(&mut self) {
        // SAFETY: umask and personality take plain numbers; the mask is put back.
        let (umask, personality) = unsafe {
            let umask = rawcall!(libc::SYS_umask, 0);
            rawcall!(libc::SYS_umask, umask);
            (umask, rawcall!(libc::SYS_personality, u32::MAX))
        };
        let freeze = self.freeze;
        let number = |answer: isize| u64::try_from(answer).unwrap_or(0);
        self.writer.record(
            tag::SCALARS,
            &[freeze.parent_pid, number(umask), number(personality), freeze.generation],
            &[],
        );
    }

    fn limits(&mut self) {
        let mut numbers = [0u64; 2 * RESOURCE_LIMITS];
        for (resource, pair) in numbers.chunks_exact_mut(2).enumerate() {
            // SAFETY: the kernel writes two u64 to the pair.
            unsafe { rawcall!(libc::SYS_prlimit64, 0, resource, 0, pair.as_mut_ptr()) };
        }
        self.writer.record(tag::LIMITS, &numbers, &[]);
    }

    /// Number, flags, position and link of each descriptor but ours.
    fn open_files(&mut self) -> Result<(), Refusal> {
        let directory = open(c"/proc/self/fd".as_ptr().cast(), libc::O_DIRECTORY);
        if directory < 0 {
            return Err(Refusal::Unreadable { path: "/proc/self/fd", answer: directory });
        }
        let (freeze, writer) = (self.freeze, &mut *self.writer);
        let (entries, text) = self.work.split_at_mut(32 << 10);
        let listed = each_entry(directory, entries, &mut |name| {
            let Some(fd) = decimal(name) else { return };
            if i64::try_from(fd)
                .is_ok_and(|fd| fd == i64::from(directory) || fd == i64::from(freeze.socket))
            {
                return;
            }
            let info = read_file(Path::new(b"/proc/self/fdinfo/", fd, b"").as_ptr(), text);
            let (position, flags) = fdinfo(&text[..info.unwrap_or(0)]);
            let path = Path::new(b"/proc/self/fd/", fd, b"");
            // SAFETY: the kernel writes at most `text.len()` bytes there.
            let link = unsafe {
                rawcall!(libc::SYS_readlink, path.as_ptr(), text.as_mut_ptr(), text.len())
            };
            let link = usize::try_from(link).unwrap_or(0);
            writer.record(tag::OPEN_FILE, &[fd, flags, position], &text[..link]);
        });
        close(directory);
        listed.map_err(|answer| Refusal::Unreadable { path: "/proc/self/fd", answer })
    }

    /// Threads beside this one, by name: there are none unless a fork handler started them.
    fn foreign_threads(&mut self) {
        let directory = open(c"/proc/self/task".as_ptr().cast(), libc::O_DIRECTORY);
        // As /proc counts, which may be mounted for another pid namespace.
        let own = own_entry(self.work);
        let (entries, rest) = self.work.split_at_mut(32 << 10);
        let (text, names) = rest.split_at_mut(16 << 10);
        let mut names = Text { bytes: names, len: 0 };
        names.push(b"a fork handler (pthread_atfork) of a library started a thread in the seed:");
        let mut count = 0usize;
        // What is not listed has been told by unshare(2), too.
        let _ = each_entry(directory, entries, &mut |name| {
            let Some(tid) = decimal(name) else { return };
            if Some(tid) == own {
                return;
            }
            count += 1;
            if count <= NAMED_THREADS {
                let path = Path::new(b"/proc/self/task/", tid, b"/comm");
                let len = read_file(path.as_ptr(), text).unwrap_or(0);
                names.push(b" '");
                names.push(text[..len].trim_ascii_end());
                names.push(b"'");
            }
        });
        close(directory);
        if count > 0 || self.freeze.foreign_threads {
            names.push(b"; load mitosis before that library (import it first, or LD_PRELOAD)");
            let Text { bytes, len } = names;
            self.writer.record(tag::FOREIGN_THREADS, &[count.max(1) as u64], &bytes[..len]);
        }
    }

    /// Reads a file of /proc to the work area; its path ends with a zero byte.
    fn file(&mut self, path: &'static str) -> Result<usize, Refusal> {
        assert!(path.ends_with('\0'));
        let path_text = path.trim_end_matches('\0');
        read_file(path.as_ptr(), self.work)
            .map_err(|answer| Refusal::Unreadable { path: path_text, answer })
    }
}

struct Text<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl Text<'_> {
    fn push(&mut self, part: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + part.len()) {
            place.copy_from_slice(part);
            self.len += part.len();
        }
    }
}
