//! The driver: two processes, the same ops, everything compared.

use std::fmt::Write as _;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::op::{Draw, Op, WINDOW_PAGES};
use crate::player::{Exchange, PAGES, Player, Role, exit, wait};

/// How long one op may take before the process counts as hung.
const DEADLINE_MS: i32 = 10_000;
/// Of the ops before a difference, how many are told where many seeds are played.
const TOLD: usize = 12;

/// Fills the windows of scripts.
const SCRIPT_SEED: u64 = 1;

/// What came of a duel.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) ops: u64,
    /// Remaps that the plain process's kernel refused because it holds uniform memory in several VMAs.
    pub(crate) in_pieces: u64,
    pub(crate) cleared: u64,
    pub(crate) moved: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Tally) {
        self.ops += other.ops;
        self.in_pieces += other.in_pieces;
        self.cleared += other.cleared;
        self.moved += other.moved;
    }
}

/// Plays `count` random ops of `seed`; the error tells the first difference.
pub(crate) fn random(
    seed: u64,
    count: u64,
    maps_as_text: bool,
    show_all: bool,
) -> Result<Tally, String> {
    let mut draw = Draw::new(seed);
    // Looking at memory touches it: often, but not after every op.
    let pace = 1 + draw.below(4);
    let ops = (0..count).map(|step| (draw.op(), step % pace == 0 || step + 1 == count));
    let ops: Vec<(Op, bool)> = ops.map(|(op, show)| (op, show || show_all)).collect();
    duel(seed, &ops, Role::Child { maps_as_text })
}

/// Plays a script, looking after each op.
pub(crate) fn script(ops: &[Op]) -> Result<Tally, String> {
    let ops: Vec<(Op, bool)> = ops.iter().map(|op| (*op, true)).collect();
    let tally = duel(SCRIPT_SEED, &ops, Role::Child { maps_as_text: false })?;
    duel(SCRIPT_SEED, &ops, Role::Child { maps_as_text: true })?;
    Ok(tally)
}

/// Plays against a child without its stub.
pub(crate) fn unpatched(ops: &[(Op, bool)]) -> Result<Tally, String> {
    duel(SCRIPT_SEED, ops, Role::Unpatched)
}

fn duel(seed: u64, ops: &[(Op, bool)], role: Role) -> Result<Tally, String> {
    let mut plain = Opponent::start(Role::Plain, seed);
    let mut child = Opponent::start(role, seed);
    let mut tally = Tally::default();
    let looks_closely = ops.iter().all(|(_, show)| *show);
    let told_ops = if looks_closely { ops.len() } else { TOLD };
    for (step, (op, show)) in ops.iter().chain([&(Op::End, true)]).enumerate() {
        let told = |what: String| {
            let mut log = format!("step {step}: {what}\n");
            for (step, (op, _)) in
                ops.iter().enumerate().take(step + 1).skip(step.saturating_sub(told_ops))
            {
                _ = writeln!(log, "  {step}: {op:x?}");
            }
            log
        };
        let expected =
            plain.step(*op, *show).map_err(|why| told(format!("plain process: {why}")))?;
        if expected.in_pieces {
            tally.in_pieces += 1;
            continue;
        }
        let found = child.step(*op, *show).map_err(|why| told(format!("child: {why}")))?;
        if let Some(difference) = difference(expected, found, *show) {
            return Err(told(difference));
        }
        tally.ops += 1;
    }
    // SAFETY: the child has ended its last step.
    let last = unsafe { &*child.exchange };
    tally.cleared = last.cleared;
    tally.moved = last.moved;
    Ok(tally)
}

fn difference(expected: &Exchange, found: &Exchange, shown: bool) -> Option<String> {
    let answer = |exchange: &Exchange| (exchange.result, exchange.errno, exchange.after);
    if answer(expected) != answer(found) {
        return Some(format!(
            "plain answers {:x?}, child {:x?} (result, errno, after)",
            answer(expected),
            answer(found)
        ));
    }
    if !shown {
        return None;
    }
    let page = (0..PAGES).find(|page| {
        expected.protections[*page] != found.protections[*page]
            || expected.locked[*page] != found.locked[*page]
            || expected.bytes[*page] != found.bytes[*page]
    })?;
    let (window, offset) = match page as u64 {
        arena if arena < WINDOW_PAGES[0] => (0, arena),
        heap => (1, heap - WINDOW_PAGES[0]),
    };
    let [plain, child] = [expected, found].map(|exchange| {
        let protection = String::from_utf8_lossy(&exchange.protections[page]).into_owned();
        let bytes = &exchange.bytes[page];
        (protection, exchange.locked[page], bytes[0], bytes[4095])
    });
    Some(format!("window {window} page {offset:#x}: plain {plain:x?}, child {child:x?}"))
}

struct Opponent {
    exchange: *mut Exchange,
    socket: OwnedFd,
    pid: libc::pid_t,
}

impl Opponent {
    fn start(role: Role, seed: u64) -> Opponent {
        let len = size_of::<Exchange>();
        let mut sockets = [0; 2];
        // SAFETY: new memory, new descriptors; this process has one thread, so that its fork may go on.
        unsafe {
            let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
            let exchange = libc::mmap(std::ptr::null_mut(), len, 3, flags, -1, 0);
            assert_ne!(exchange, libc::MAP_FAILED, "no memory for the exchange");
            let exchange = exchange.cast::<Exchange>();
            let made = libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, sockets.as_mut_ptr());
            assert_eq!(made, 0, "no socket pair");
            let pid = libc::fork();
            assert!(pid >= 0, "fork failed");
            if pid == 0 {
                let played = catch_unwind(AssertUnwindSafe(|| {
                    libc::close(sockets[0]);
                    Player::new(exchange, sockets[1], role, seed).play()
                }));
                exit(i32::from(played.is_err()) * 101);
            }
            libc::close(sockets[1]);
            Opponent { exchange, socket: OwnedFd::from_raw_fd(sockets[0]), pid }
        }
    }

    fn step(&mut self, op: Op, show: bool) -> Result<&Exchange, String> {
        let fd = self.socket.as_raw_fd();
        // SAFETY: the player waits for the byte while this process has the exchange, and the other way
        // round.
        unsafe {
            (*self.exchange).op = op;
            (*self.exchange).show = show;
            let mut byte = 0u8;
            libc::send(fd, (&raw const byte).cast(), 1, libc::MSG_NOSIGNAL);
            let mut ready = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            if libc::poll(&raw mut ready, 1, DEADLINE_MS) != 1 {
                return Err("hangs".into());
            }
            if libc::read(fd, (&raw mut byte).cast(), 1) != 1 {
                return Err(format!("ended with {}", wait(std::mem::take(&mut self.pid))));
            }
            Ok(&*self.exchange)
        }
    }
}

impl Drop for Opponent {
    fn drop(&mut self) {
        // SAFETY: this process's own descriptor, child and memory. A player ends at the end of the stream; a
        // hung one by the signal.
        unsafe {
            libc::shutdown(self.socket.as_raw_fd(), libc::SHUT_RDWR);
            if self.pid != 0 {
                let mut fd = libc::pollfd { fd: pidfd(self.pid), events: libc::POLLIN, revents: 0 };
                if libc::poll(&raw mut fd, 1, 1000) != 1 {
                    libc::kill(self.pid, libc::SIGKILL);
                }
                libc::close(fd.fd);
                wait(self.pid);
            }
            libc::munmap(self.exchange.cast(), size_of::<Exchange>());
        }
    }
}

fn pidfd(pid: libc::pid_t) -> i32 {
    // SAFETY: a child of this process that was not waited for.
    unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32 }
}
