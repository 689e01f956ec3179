//! One of the two processes: does ops as they come and shows its windows. After its set-up it allocates
//! nothing: the break is a part of what is tried.

use std::ffi::c_void;
use std::os::fd::RawFd;

use libc::c_int;

use crate::op::{FIRST_PAGES, HEAP, Op, Place, WINDOW_PAGES};
use crate::stand_in::{self, PAGE, Snapshot, StandIn, errno};

/// Where the first window lies.
const ARENA: u64 = 0x2000_0000_0000;
/// Between the break as it is found and the heap window.
const HEAP_GAP: u64 = 1 << 20;
/// An address outside the windows, which the kernel chose.
pub(crate) const AWAY: i64 = -2;

pub(crate) const PAGES: usize = (WINDOW_PAGES[0] + WINDOW_PAGES[1]) as usize;

/// What driver and player share.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) op: Op,
    /// Whether to show the windows after it.
    pub(crate) show: bool,
    /// An address as an offset in its window.
    pub(crate) result: i64,
    pub(crate) errno: c_int,
    /// Of what became of an address that the kernel chose.
    pub(crate) after: i64,
    /// Remap failed although every page of the range is mapped with the same protection: the kernel has it
    /// in several VMAs.
    pub(crate) in_pieces: bool,
    /// At the end: what the stub's table tells.
    pub(crate) cleared: u64,
    pub(crate) moved: u64,
    /// Which pages are locked.
    pub(crate) locked: [bool; PAGES],
    /// r w x p of each page; zeros where nothing is mapped.
    pub(crate) protections: [[u8; 4]; PAGES],
    pub(crate) bytes: [[u8; PAGE as usize]; PAGES],
}

/// A range of memory that stays the process's own.
pub(crate) struct Player {
    exchange: *mut Exchange,
    socket: RawFd,
    windows: [u64; 2],
    stand_in: Option<StandIn>,
}

impl Player {
    /// Lays out the windows; from an image if `role` says so.
    pub(crate) fn new(exchange: *mut Exchange, socket: RawFd, role: Role, seed: u64) -> Player {
        let heap = (set_break(0) + HEAP_GAP).next_multiple_of(PAGE);
        let windows = [ARENA, heap];
        let spans = [0, 1].map(|window| {
            let (first, count) = FIRST_PAGES[window];
            (windows[window] + first * PAGE, count * PAGE)
        });
        let mut stand_in = None;
        stand_in::map(spans[0].0, spans[0].1, 3, libc::MAP_FIXED_NOREPLACE);
        assert_eq!(set_break(spans[1].0 + spans[1].1), spans[1].0 + spans[1].1);
        for (start, len) in spans {
            for page in 0..len / PAGE {
                let byte = (seed.wrapping_mul(31).wrapping_add(page * 7) % 251) as u8;
                // Some pages were never touched.
                if !byte.is_multiple_of(8) {
                    stand_in::fill(start + page * PAGE, PAGE, byte);
                }
            }
        }
        if !matches!(role, Role::Plain) {
            let [heap, arena] =
                [spans[1], spans[0]].map(|(start, len)| Snapshot::anonymous(start, len));
            let mut snapshots = [heap, arena];
            snapshots.sort_by_key(|snapshot| snapshot.start);
            stand_in = Some(match role {
                Role::Child { maps_as_text } => StandIn::make(&snapshots, maps_as_text),
                _ => StandIn::unpatched(&snapshots, false),
            });
        }
        Player { exchange, socket, windows, stand_in }
    }

    /// Does what it is told until the end.
    pub(crate) fn play(&mut self) -> ! {
        loop {
            let mut byte = 0u8;
            // SAFETY: a byte of this frame.
            let got = unsafe { libc::read(self.socket, (&raw mut byte).cast(), 1) };
            if got != 1 {
                exit(0);
            }
            self.step();
            // SAFETY: as above.
            unsafe { libc::write(self.socket, (&raw const byte).cast(), 1) };
        }
    }

    fn step(&mut self) {
        // SAFETY: the driver waits while this process has the exchange.
        let exchange = unsafe { &mut *self.exchange };
        exchange.after = 0;
        exchange.in_pieces = false;
        set_errno(0);
        exchange.result = self.perform(exchange.op, exchange);
        exchange.errno = if exchange.result == -1 { errno() } else { 0 };
        if matches!(exchange.op, Op::End)
            && let Some(stand_in) = &self.stand_in
        {
            exchange.cleared = stand_in.cleared();
            exchange.moved = stand_in.moved();
        }
        if exchange.show {
            self.show(exchange);
        }
    }

    fn perform(&mut self, op: Op, exchange: &mut Exchange) -> i64 {
        let pointer = |place: Place| self.address(place) as *mut c_void;
        // SAFETY: what is changed is memory of the windows, which no reference points to.
        unsafe {
            match op {
                Op::Advise { at, len, advice, by_number } => {
                    let result = advise(self.address(at), len, advice, by_number);
                    // What MADV_FREE leaves is the kernel's choice until it is discarded.
                    if advice == libc::MADV_FREE {
                        let error = errno();
                        advise(self.address(at), len, libc::MADV_DONTNEED, by_number);
                        set_errno(error);
                    }
                    result
                }
                Op::Remap { .. } => self.remap(op, exchange),
                Op::Protect { at, len, prot } => {
                    libc::mprotect(pointer(at), len as usize, prot).into()
                }
                Op::Unmap { at, len } => libc::munmap(pointer(at), len as usize).into(),
                Op::Map { at, len } => {
                    let at = self.address(at);
                    match stand_in::try_map(at, len, 3, libc::MAP_FIXED_NOREPLACE) {
                        Ok(_) => 0,
                        Err(errno) => (-errno).into(),
                    }
                }
                Op::Lock { at, len, lock: true } => libc::mlock(pointer(at), len as usize).into(),
                Op::Lock { at, len, .. } => libc::munlock(pointer(at), len as usize).into(),
                Op::Write { at, len, byte } => write_if_allowed(self.address(at), len, byte),
                Op::Break { pages } => {
                    let wanted = self.windows[HEAP] + pages * PAGE;
                    set_break(wanted).wrapping_sub(self.windows[HEAP]).cast_signed()
                }
                Op::Deepen { len } => deepen(len).into(),
                Op::Fork => match libc::fork() {
                    0 => 0,
                    child => exit(wait(child)),
                },
                Op::ForkAside { at, len } => match libc::fork() {
                    0 => {
                        libc::madvise(pointer(at), len as usize, libc::MADV_DONTNEED);
                        exit(0)
                    }
                    child => wait(child).into(),
                },
                Op::End => 0,
            }
        }
    }

    fn remap(&self, op: Op, exchange: &mut Exchange) -> i64 {
        let Op::Remap { at, len, new_len, flags, to, by_number } = op else { return 0 };
        let (old, target) = (self.address(at), self.address(to));
        let result = remap(old, len, new_len, flags, target, by_number);
        if result == -1 {
            let error = errno();
            exchange.in_pieces = error == libc::EFAULT && self.is_uniform(old, len, new_len, flags);
            set_errno(error);
            return -1;
        }
        if let Some(offset) = self.offset(result.cast_unsigned()) {
            return offset;
        }
        let moved = result.cast_unsigned();
        let new_len = new_len.next_multiple_of(PAGE);
        let back = target & !(PAGE - 1);
        exchange.after = remap(
            moved,
            new_len,
            new_len,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            back,
            by_number,
        );
        match exchange.after {
            -1 => {
                exchange.after = (-errno()).into();
                // SAFETY: just got.
                unsafe { libc::munmap(moved as *mut c_void, new_len as usize) };
            }
            back => exchange.after = self.offset(back.cast_unsigned()).unwrap_or(AWAY),
        }
        AWAY
    }

    fn address(&self, place: Place) -> u64 {
        self.windows[place.window] + place.offset
    }

    fn offset(&self, address: u64) -> Option<i64> {
        let window = [0, 1].into_iter().find(|window| {
            let start = self.windows[*window];
            (start..start + (WINDOW_PAGES[*window] + 64) * PAGE).contains(&address)
        })?;
        Some((address - self.windows[window]).cast_signed() + ((window as i64) << 40))
    }

    /// Whether what a remap looks at is mapped throughout with one protection.
    fn is_uniform(&self, old: u64, len: u64, new_len: u64, flags: c_int) -> bool {
        let len = if flags & libc::MREMAP_FIXED != 0 { len.min(new_len) } else { len };
        let end = (old + len).next_multiple_of(PAGE);
        let mut first: Option<[u8; 4]> = None;
        let mut at = old;
        let mut uniform = true;
        each_mapping(|start, stop, protection| {
            if start > at || stop <= at || at >= end {
                return;
            }
            uniform &= *first.get_or_insert(protection) == protection;
            at = stop;
        });
        uniform && at >= end
    }

    /// Copies windows and protections, however protected.
    fn show(&self, exchange: &mut Exchange) {
        exchange.protections = [[0; 4]; PAGES];
        let windows = self.windows;
        each_mapping(|start, stop, protection| {
            let mut first = 0;
            for (window, base) in windows.into_iter().enumerate() {
                for page in 0..WINDOW_PAGES[window] {
                    if (start..stop).contains(&(base + page * PAGE)) {
                        exchange.protections[(first + page) as usize] = protection;
                    }
                }
                first += WINDOW_PAGES[window];
            }
        });
        // SAFETY: reads into the exchange, which this process has.
        unsafe {
            let memory = libc::open(c"/proc/self/mem".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            for page in 0..PAGES {
                let into = &raw mut exchange.bytes[page];
                let arena = WINDOW_PAGES[0] as usize;
                let address = match page < arena {
                    true => self.windows[0] + page as u64 * PAGE,
                    false => self.windows[1] + (page - arena) as u64 * PAGE,
                };
                let mapped = exchange.protections[page] != [0; 4];
                // Advice that locked memory refuses, and that changes nothing to see.
                exchange.locked[page] =
                    mapped && advise(address, PAGE, libc::MADV_COLD, false) != 0;
                if !mapped
                    || libc::pread(memory, into.cast(), PAGE as usize, address.cast_signed())
                        != PAGE.cast_signed() as isize
                {
                    // Nothing there, or a guard.
                    (*into).fill(if mapped { 0x99 } else { 0 });
                }
            }
            libc::close(memory);
        }
    }
}

/// Which of the two a player is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    Plain,
    Child {
        maps_as_text: bool,
    },
    /// A child whose call sites were forgotten.
    Unpatched,
}

/// Through libc's own functions, whose text is patched in a child.
pub(crate) fn advise(at: u64, len: u64, advice: c_int, by_number: bool) -> i64 {
    // SAFETY: callers name memory that no reference points to.
    unsafe {
        match by_number {
            true => libc::syscall(libc::SYS_madvise, at, len, advice),
            false => libc::madvise(at as *mut c_void, len as usize, advice).into(),
        }
    }
}

pub(crate) fn remap(
    old: u64,
    len: u64,
    new_len: u64,
    flags: c_int,
    target: u64,
    by_number: bool,
) -> i64 {
    // SAFETY: as above.
    unsafe {
        match by_number {
            true => libc::syscall(libc::SYS_mremap, old, len, new_len, flags, target),
            false => {
                let (old, target) = (old as *mut c_void, target as *mut c_void);
                libc::mremap(old, len as usize, new_len as usize, flags, target) as i64
            }
        }
    }
}

/// As a system call writes: no signal where it must not.
fn write_if_allowed(at: u64, len: u64, byte: u8) -> i64 {
    static LINES: [[u8; 9200]; 2] = [[0x5a; 9200], [0xa5; 9200]];
    let from = &LINES[usize::from(byte & 1)][usize::from(byte) / 2..];
    let from = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: len as usize };
    let into = libc::iovec { iov_base: at as *mut c_void, iov_len: len as usize };
    // SAFETY: memory of the windows, which no reference points to.
    unsafe {
        libc::process_vm_writev(libc::getpid(), &raw const from, 1, &raw const into, 1, 0) as i64
    }
}

/// brk(2), past libc's own record of it.
fn set_break(at: u64) -> u64 {
    // SAFETY: only memory above what malloc has is taken and given back.
    unsafe { libc::syscall(libc::SYS_brk, at) }.cast_unsigned()
}

#[inline(never)]
fn deepen(len: usize) -> u8 {
    let frame = std::hint::black_box([1u8; 4096]);
    match len.checked_sub(4096) {
        None | Some(0) => frame[0],
        Some(rest) => deepen(rest).wrapping_add(frame[4095]),
    }
}

/// Tells start, end and protection of each mapping, without allocating.
fn each_mapping(mut tell: impl FnMut(u64, u64, [u8; 4])) {
    let mut line = [0u8; 128];
    let mut filled = 0;
    let mut block = [0u8; 4096];
    // SAFETY: reads into `block`.
    unsafe {
        let maps = libc::open(c"/proc/self/maps".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        loop {
            let read = libc::read(maps, block.as_mut_ptr().cast(), block.len());
            let Ok(read @ 1..) = usize::try_from(read) else { break };
            for byte in &block[..read] {
                if *byte == b'\n' {
                    let (start, end, protection) = parse(&line[..filled]);
                    tell(start, end, protection);
                    filled = 0;
                } else if filled < line.len() {
                    line[filled] = *byte;
                    filled += 1;
                }
            }
        }
        libc::close(maps);
    }
}

fn parse(line: &[u8]) -> (u64, u64, [u8; 4]) {
    let number = |digits: &[u8]| {
        digits.iter().fold(0, |sum, digit| {
            sum * 16 + u64::from(if *digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 })
        })
    };
    let dash = line.iter().position(|byte| *byte == b'-').unwrap_or(0);
    let space = line.iter().position(|byte| *byte == b' ').unwrap_or(0);
    let protection = line[space + 1..].first_chunk().copied().unwrap_or_default();
    (number(&line[..dash]), number(&line[dash + 1..space]), protection)
}

pub(crate) fn wait(child: libc::pid_t) -> c_int {
    let mut status = 0;
    // SAFETY: a child of this process.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } != child {}
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

pub(crate) fn exit(status: c_int) -> ! {
    // SAFETY: ends this process at once.
    unsafe { libc::_exit(status) }
}

fn set_errno(value: c_int) {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() = value };
}
