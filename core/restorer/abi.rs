//! What the blob and the agent agree on: plain data, no code. Included by both (`restorer/main.rs` is
//! compiled alone, without std), so it names nothing but core types.

/// The blob's region, from its base. The agent fills [0, PROGRAM) in a memfd, the keeper's child maps it
/// at the address that `Placement` chose and jumps to the entry with `rdi` = the region's base.
///
/// ```text
/// 0          TEXT      the blob, r-x; its entry is the ELF entry
/// +PARAMS    Params    r--
/// +STUB      StubTable and its bitmaps, rw-
/// +STACK     the runner's stack, rw-; a child leaves it by rt_sigreturn
/// +MAIL      mailbox: a child's tail program, payload and environment, rw-
/// +THREADS   ThreadsShared, then a small stack for each further thread, rw-; a thread leaves it by rt_sigreturn
/// +TABLE     RawThreads and what each runs first, the same in all children, r--
/// +PROGRAM   the template's program, r--; unmapped before the template is ready
/// ```
pub const TEXT_LEN: u64 = 64 << 10;
/// Offset of [`Params`].
pub const PARAMS: u64 = TEXT_LEN;
/// Bytes for [`Params`].
pub const PARAMS_LEN: u64 = 4 << 10;
/// Offset of the stub's table.
pub const STUB: u64 = PARAMS + PARAMS_LEN;
/// Bytes for it: the range table and one bit per 64 KiB of 128 GiB.
pub const STUB_LEN: u64 = 640 << 10;
/// Offset of the stack.
pub const STACK: u64 = STUB + STUB_LEN;
/// Bytes of stack.
pub const STACK_LEN: u64 = 32 << 10;
/// Offset of the mailbox.
pub const MAIL: u64 = STACK + STACK_LEN;
/// Bytes of mailbox: `MAX_MAIL_BYTES` and a tail program with what lies in the child's files.
pub const MAIL_LEN: u64 = 3 << 20;
/// Offset of [`ThreadsShared`] and of further threads' stacks.
pub const THREADS: u64 = MAIL + MAIL_LEN;
/// Bytes for [`ThreadsShared`].
pub const THREADS_SHARED_LEN: u64 = 4 << 10;
/// Bytes of a further thread's stack: the runner uses a third of it, and no signal comes.
pub const THREAD_STACK_LEN: u64 = 1 << 10;
/// Further threads at most.
pub const MAX_FURTHER_THREADS: u64 = 4095;
/// Bytes for these.
pub const THREADS_LEN: u64 = THREADS_SHARED_LEN + (MAX_FURTHER_THREADS + 1) * THREAD_STACK_LEN;
/// Offset of the table of threads.
pub const TABLE: u64 = THREADS + THREADS_LEN;
/// Bytes of it: some 700 for each thread, and what all of them run.
pub const TABLE_LEN: u64 = 4 << 20;
/// Offset of the template's program.
pub const PROGRAM: u64 = TABLE + TABLE_LEN;
/// Bytes of program: about 20,000 VMAs.
pub const PROGRAM_LEN: u64 = 4 << 20;
/// The whole region.
pub const REGION_LEN: u64 = PROGRAM + PROGRAM_LEN;

/// What the runner is to do.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Params {
    /// [`PARAMS_MAGIC`].
    pub magic: u64,
    /// Ops in the program at `base + PROGRAM`.
    pub program_ops: u64,
    /// The command socket (unix stream), as numbered in the template.
    pub command_fd: u64,
    /// The kernel writes the child's tid here (CLONE_CHILD_SETTID) and clears it at its end.
    pub tid_address: u64,
}

/// "MITORUN1".
pub const PARAMS_MAGIC: u64 = u64::from_le_bytes(*b"MITORUN1");

/// Asks a template for a child. Followed on the socket by `mail_len` bytes, which land at `base + MAIL`:
/// first `ops` RawOps, then whatever they point to. `fd_count` descriptors ride on its first byte; they
/// get the lowest free numbers in the template, in order, and the tail program may count on
/// `command_fd + 1`, `+ 2` ... for them.
///
/// A child that is cloned *ahead* gets one descriptor, its own command socket, and a program that warms it
/// instead of a tail. It says [`WARM`] on its socket and waits there for one command more, the one that it
/// becomes a child by; the descriptors of that one begin at `command_fd + 2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Command {
    /// [`COMMAND_MAGIC`].
    pub magic: u64,
    /// Bytes of mail.
    pub mail_len: u64,
    /// Ops of the tail.
    pub ops: u64,
    /// Flags for clone3 beside CLONE_PARENT, CLONE_CHILD_SETTID and CLONE_CHILD_CLEARTID.
    pub clone_flags: u64,
    /// Descriptors that ride along.
    pub fd_count: u64,
    /// The child's name; comes back in every reply about it.
    pub child: u64,
    /// 1: a child that is cloned ahead. 0: one that runs now.
    pub ahead: u64,
    /// Its process id in a namespace of its own, where its further threads have their own ids, too. 0: it
    /// gets any ids, in the template's namespace. So it does where the kernel refuses.
    pub own_pid: u64,
    /// 1: with a namespace of its own it sees it in /proc, by a mount that nobody else has.
    pub own_proc: u64,
}

/// "MITOCHLD".
pub const COMMAND_MAGIC: u64 = u64::from_le_bytes(*b"MITOCHLD");
/// Descriptors that may ride on one command: standard ones, the nothing, sockets that listen, and what a child
/// enters.
pub const MAX_COMMAND_FDS: u64 = 47;

/// What a template answers; a failing child's tail answers on the same socket before it ends with
/// status 127.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reply {
    /// READY, STARTED, FAILED, TAIL_FAILED, CLONE_FAILED, SETUP_FAILED or WARM.
    pub kind: u32,
    /// FAILED, TAIL_FAILED: which op; of a further thread's, its index from 1 in the high half.
    /// SETUP_FAILED: which of the keeper's steps. STARTED: errno of a namespace that was refused, else 0.
    pub step: u32,
    /// STARTED: the child's pid in the template's pid namespace, and in the high half that of the init of
    /// its own, if it has one. Failures: the system call's result.
    pub value: i64,
    /// STARTED, TAIL_FAILED, CLONE_FAILED: [`Command::child`].
    pub child: u64,
}

/// The program ran; the template waits for commands.
pub const READY: u32 = 1;
/// A child was cloned.
pub const STARTED: u32 = 2;
/// An op of the program did not answer as expected; the template ends.
pub const FAILED: u32 = 3;
/// An op of a child's tail did not answer as expected; the child ends.
pub const TAIL_FAILED: u32 = 4;
/// The child could not be cloned; the template stays.
pub const CLONE_FAILED: u32 = 5;
/// Said by the keeper's child when it could not even enter the blob; it ends.
pub const SETUP_FAILED: u32 = 6;

/// Said by a child that was cloned ahead, once, on its own socket: it waits for its command.
pub const WARM: u32 = 7;

/// One op of a program (64 bytes).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawOp {
    /// See [`op`].
    pub kind: u32,
    /// System call number.
    pub number: u32,
    /// Arguments.
    pub args: [u64; 6],
    /// For `SYSCALL_EXACT`.
    pub expect: u64,
}

/// Numbers of descriptors, both ends included.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NumberRange {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

/// Kinds of op.
pub mod op {
    /// System call, must succeed.
    pub const SYSCALL: u32 = 1;
    /// System call, must answer `expect`.
    pub const SYSCALL_EXACT: u32 = 2;
    /// System call, result ignored.
    pub const SYSCALL_IGNORED: u32 = 3;
    /// args: destination, source, bytes.
    pub const STORE: u32 = 4;
    /// args: frame.
    pub const SIGNAL_RETURN: u32 = 5;
    /// args: descriptor, [`super::NumberRange`]s, their number. Copies of the descriptor take these numbers, up
    /// to the first that it cannot get.
    pub const RESERVE: u32 = 6;
    /// args: [`super::RawThread`]s, index of the first, how many, [`THREADS_WAIT`] or 0. Makes these threads;
    /// with the flag it goes on when each stands at its gate.
    pub const THREADS: u32 = 7;
    /// args: address of a u32. Waits while it is 0.
    pub const GATE: u32 = 8;
    /// args: pid. The parent must be this process, or none in the namespace of this child's own.
    pub const PARENT: u32 = 9;

    /// See [`THREADS`].
    pub const THREADS_WAIT: u64 = 1;
    /// System call of up to five arguments that answers a descriptor, which goes to the number `args[5]`, by dup3(2)
    /// with the flags `expect`. Must succeed.
    pub const OPEN: u32 = 16;
    /// As `OPEN`; where the call fails, the number is left as it is.
    pub const OPEN_IF_THERE: u32 = 17;
    /// pipe2(2) or socketpair(2), the pointer left out. The two descriptors go to the numbers `args[4]` and `args[5]`,
    /// with the flags in the low and the high half of `expect`.
    pub const PAIR: u32 = 18;
    /// args: number. The command socket moves there; failures are told on it from now on.
    pub const COMMAND_AT: u32 = 19;
    /// args: an inotify that does not wait, a path, how many numbers are passed over, another path. Watches the path for
    /// nothing much; where that fails, its number is passed over, too. No event is left.
    pub const WATCH: u32 = 32;
    /// args: [`super::RawOp`]s of other kinds than this one, their number. Runs them; a failure is this op's.
    pub const ALL: u32 = 31;
    /// args: siginfo_t records of 128 bytes, their number, 1 if they are the calling thread's own and 0 if the process's.
    /// Queues them, in their order.
    pub const SIGNALS: u32 = 30;
    /// Makes the kernel keep AMX tiles for this thread: it has permission to use them.
    pub const TILES: u32 = 24;
}

/// A thread beside the first one, and what it runs before its own code.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawThread {
    /// Its id, in a namespace of the child's own.
    pub tid: u64,
    /// As [`Params::tid_address`].
    pub tid_address: u64,
    /// The FS base.
    pub fs_base: u64,
    /// Address of its ops.
    pub ops: u64,
    /// How many they are.
    pub op_count: u64,
    /// Its place in the table.
    pub index: u64,
}

/// What a child's threads share while they are made.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadsShared {
    /// Threads that stand at their gates.
    pub arrived: u32,
    /// Whoever makes this number full wakes who waits.
    pub expected: u32,
    /// [`Command::child`].
    pub child: u64,
    /// 1 once the gate is open: whoever has come to it behind the first one waits here.
    pub leaving: u32,
}

/// What a template shares with the inits of its children's namespaces.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct InitShared {
    /// Where the byte lands that says that the child is there.
    pub byte: u64,
    /// A struct pollfd: the child's pidfd, as numbered in the init.
    pub poll_fd: u32,
    /// Its events, and those that were found.
    pub poll_events: u32,
}

/// Offset of [`InitShared`].
pub const INIT_SHARED: u64 = THREADS + THREADS_SHARED_LEN / 2;

/// One range of memory that behaves as anonymous (or as shared) in the seed and was mapped from the image
/// at restore, ascending by start and by offset. The stub asks the kernel only where a chunk's bit is set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StubRange {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Where it begins in the image's file: a VMA keeps its offset when it moves, so that the offset tells
    /// what it was.
    pub offset: u64,
    /// Of a [`RANGE_FILE`], the address of the file's own bytes; 0: they are nowhere.
    pub beneath: u64,
    /// Index, in the table's bitmap, of the bit of its first chunk.
    pub first_bit: u32,
    /// [`RANGE_ANONYMOUS`], [`RANGE_SHARED`], [`RANGE_FILE`] or [`RANGE_CLEAN`].
    pub kind: u32,
}

/// Private anonymous memory in the seed: a discard shows zeros.
pub const RANGE_ANONYMOUS: u32 = 0;
/// Shared memory in the seed: a discard changes nothing.
pub const RANGE_SHARED: u32 = 1;
/// A private mapping of a file, of which pages were written: a discard shows the file.
pub const RANGE_FILE: u32 = 2;
/// A private mapping of a file, of which none was written: it must not grow, for behind it the image has something else.
pub const RANGE_CLEAN: u32 = 3;

/// Image-backed memory that mremap(2) has moved to where no [`StubRange`] is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StubMoved {
    /// Low 48 bits: one per part that may still be image-backed; high 16: a generation, odd while the entry
    /// is being written.
    pub state: u64,
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

/// Moved ranges that the stub can remember; one more and it asks the kernel about every call.
pub const MAX_MOVED: usize = 64;

/// Head of the stub's table at `base + STUB`; the ranges follow, then the bitmap (u64 words).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct StubTable {
    /// Device of the image's file as PROCMAP_QUERY and maps tell it.
    pub dev_major: u32,
    /// Its minor number.
    pub dev_minor: u32,
    /// Inode of the image's file.
    pub inode: u64,
    /// Ranges.
    pub ranges: u64,
    /// Words of bitmap.
    pub words: u64,
    /// log2 of the bytes that one bit stands for, at least [`MIN_CHUNK_SHIFT`].
    pub chunk_shift: u32,
    /// The kernel has no PROCMAP_QUERY: its maps are read as text. Found out by the stub.
    pub maps_as_text: u32,
    /// Whether a plain move may span VMAs and holes (Linux 6.17): 0 unknown, 1 no, 2 yes. Found out by the
    /// stub.
    pub moves_span: u32,
    /// Set once moved ranges no longer fit their table: the kernel is asked about every range.
    pub always_ask: u32,
    /// Image-backed memory elsewhere.
    pub moved: [StubMoved; MAX_MOVED],
}

/// One bit stands for 64 KiB where they fit the table so.
pub const MIN_CHUNK_SHIFT: u32 = 16;
