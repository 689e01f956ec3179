//! The keeper's side: a loop over one socket and one signal descriptor.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::AGENT_GRACE;
use super::message::{FDS_PER_MESSAGE, Kind, MAX_TEMPLATE_FDS, Message, SEED_FDS, VERSION};
use super::store::Store;
use crate::client::leave_nothing;
use crate::descriptor::Clocks;
use crate::resume::abi::{Reply, SETUP_FAILED};
use crate::resume::template::reply_bytes;
use crate::sys::clone3::{Fork, fork_with_default_signals};
use crate::sys::enter::{self, Destination};
use crate::sys::pidfd::PidFd;
use crate::sys::wait::{self, Ended, Interest};
use crate::sys::{scm, timens};

/// Ends kept while the agent's socket is full: every pid of a large host. Beyond it the oldest go.
const MAX_KEPT_ENDS: usize = 1 << 17;
/// Exit status of a template that could not be entered.
const EXIT_BROKEN: i32 = 127;

/// Is the keeper, with the agent at the other end of `socket`; ends with it, and takes away the directory
/// that was the agent's own.
pub fn run(socket: OwnedFd, own_directory: Option<&Path>) -> ! {
    enter::new_session();
    dump_image_memory();
    let status = match Server::start(socket).and_then(Server::serve) {
        Err(error) if agent_has_gone(&error) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "mitosis keeper: {error}; its children end with it");
            1
        }
    };
    if let Some(own) = own_directory {
        leave_nothing(own);
    }
    std::process::exit(status)
}

/// A core dump of a child shall have the memory that is mapped from its image, which the kernel counts as a file's:
/// bit 2 of core(5)'s filter, which templates and children inherit. Where it cannot be set, a core has less.
fn dump_image_memory() {
    const PATH: &str = "/proc/self/coredump_filter";
    const PRIVATE_FILES: u32 = 4;
    let own = std::fs::read_to_string(PATH).ok();
    let own = own.and_then(|text| u32::from_str_radix(text.trim(), 16).ok());
    if let Some(own) = own {
        let _ = std::fs::write(PATH, format!("{:#x}", own | PRIVATE_FILES));
    }
}

/// The agent has closed its end: before the next request, or with something of ours unread.
fn agent_has_gone(error: &io::Error) -> bool {
    let kinds =
        [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    kinds.contains(&error.kind())
}

struct Server {
    socket: OwnedFd,
    ended: OwnedFd,
    pid: u32,
    /// Of the time namespace that the next fork enters.
    clock_offset: Clocks,
    /// Not told yet, oldest first.
    ends: VecDeque<Ended>,
    /// For the next agent.
    store: Store,
}

impl Server {
    fn start(socket: OwnedFd) -> io::Result<Server> {
        let ended = wait::child_signals()?;
        let pid = std::process::id();
        let clock_offset = Clocks::default();
        let (ends, store) = (VecDeque::new(), Store::new());
        let server = Server { socket, ended, pid, clock_offset, ends, store };
        server.answer(Kind::Hello, 0, [VERSION, pid.into(), enter::has_rseq().into(), 0, 0])?;
        Ok(server)
    }

    fn serve(mut self) -> io::Result<Infallible> {
        loop {
            let agent = if self.ends.is_empty() { Interest::Read } else { Interest::Both };
            let fds = [(self.socket.as_fd(), agent), (self.ended.as_fd(), Interest::Read)];
            let [agent, children] = wait::ready(fds, None)?;
            if children.read {
                self.reap()?;
            }
            self.tell();
            if agent.read {
                match self.request() {
                    Err(error) if agent_has_gone(&error) => return self.outlive_agent(),
                    outcome => outcome?,
                }
            }
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        let mut siginfo = [0u8; 128 * 16];
        // Only empties the descriptor: several ends may share one signal.
        let _ = io::Read::read(&mut std::fs::File::from(self.ended.try_clone()?), &mut siginfo);
        while let Some(ended) = wait::reap_any()? {
            if self.ends.len() == MAX_KEPT_ENDS {
                self.ends.pop_front();
            }
            self.ends.push_back(ended);
        }
        Ok(())
    }

    /// Sends what the socket takes; the rest when it is writable again.
    fn tell(&mut self) {
        while let Some(ended) = self.ends.front() {
            let status = u64::from(ended.status.cast_unsigned());
            let message = Message::new(Kind::Exit, 0, [ended.pid.into(), status, 0, 0, 0]);
            if message.send_now(self.socket.as_fd()).is_err() {
                return;
            }
            self.ends.pop_front();
        }
    }

    fn request(&mut self) -> io::Result<()> {
        let mut fds = Vec::new();
        let Some(message) = Message::receive(self.socket.as_fd(), &mut fds)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let [first, second, ..] = message.args;
        match message.kind {
            Kind::Template => {
                let made = self.template(&message);
                self.settle(message.id, made?)
            }
            Kind::Kill => {
                let done = kill(first, second).map(|()| (0, 0));
                self.settle(message.id, done)
            }
            Kind::Keep => {
                let kept = self
                    .descriptors(message.id, SEED_FDS)
                    .map(|fds| self.store.keep(first, fds).map(|()| (0, 0)));
                self.settle(message.id, kept?)
            }
            Kind::Forget => {
                self.store.forget(first);
                self.settle(message.id, Ok((0, 0)))
            }
            Kind::Outlive => {
                let listener = match second {
                    0 => None,
                    _ => self.descriptors(message.id, 1)?.pop(),
                };
                self.store.outlive(listener, Duration::from_millis(first));
                self.settle(message.id, Ok((0, 0)))
            }
            Kind::End => {
                self.store.outlive(None, Duration::ZERO);
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the agent breaks the protocol")),
        }
    }

    /// Collects a template's descriptors and forks it. The outer error is the connection's.
    fn template(&mut self, request: &Message) -> io::Result<io::Result<(u64, u64)>> {
        let [base, entry, monotonic, count, boottime] = request.args;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if !(2..=MAX_TEMPLATE_FDS).contains(&count) {
            return Err(broken());
        }
        self.store.make_room(count);
        let fds = self.descriptors(request.id, count)?;
        let [monotonic_ns, boottime_ns] = [monotonic, boottime].map(u64::cast_signed);
        let offset = Clocks { monotonic_ns, boottime_ns };
        Ok(self.fork_template(base, entry, offset, &fds))
    }

    /// The descriptors that follow a request, so many.
    fn descriptors(&self, id: u32, count: usize) -> io::Result<Vec<OwnedFd>> {
        let mut fds = Vec::with_capacity(count);
        while fds.len() < count {
            let before = fds.len();
            let message = Message::receive(self.socket.as_fd(), &mut fds)?;
            let more = fds.len() - before;
            let follows = message.is_some_and(|m| m.kind == Kind::Fds && m.id == id);
            if !follows || !(1..=FDS_PER_MESSAGE).contains(&more) || fds.len() > count {
                return Err(broken());
            }
        }
        Ok(fds)
    }

    /// The next fork enters a time namespace with this offset; errno if there is none to be had, 0 otherwise.
    fn set_clock(&mut self, offset: Clocks) -> u64 {
        if offset == self.clock_offset {
            return 0;
        }
        let set = timens::set_for_children(offset);
        // Wherever it fails, children are left with the keeper's own clocks, as far as can be.
        self.clock_offset = if set.is_ok() { offset } else { Clocks::default() };
        set.map_or_else(
            |error| error.raw_os_error().unwrap_or(libc::EIO).unsigned_abs().into(),
            |()| 0,
        )
    }

    /// The template's pid, and why it has not the clock that it was to have.
    fn fork_template(
        &mut self,
        base: u64,
        entry: u64,
        offset: Clocks,
        fds: &[OwnedFd],
    ) -> io::Result<(u64, u64)> {
        let refused = self.set_clock(offset);
        match fork_with_default_signals()? {
            Fork::Parent(pid) => Ok((pid.into(), refused)),
            Fork::Child => {
                let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                let (region, descriptors) = (borrowed[0], &borrowed[1..]);
                let destination =
                    Destination { region, base, entry, descriptors, keeper: self.pid };
                let (step, error) = enter::into_restorer(&destination);
                let value = -i64::from(error.raw_os_error().unwrap_or(libc::EIO));
                let reply = Reply { kind: SETUP_FAILED, step: step as u32, value, child: 0 };
                let _ = scm::send_all(descriptors[0], &reply_bytes(reply), &[]);
                std::process::exit(EXIT_BROKEN)
            }
        }
    }

    fn settle(&self, id: u32, result: io::Result<(u64, u64)>) -> io::Result<()> {
        match result {
            Ok((value, more)) => self.answer(Kind::Done, id, [value, more, 0, 0, 0]),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.answer(Kind::Failed, id, [errno.cast_unsigned().into(), 0, 0, 0, 0])
            }
        }
    }

    fn answer(&self, kind: Kind, id: u32, args: [u64; 5]) -> io::Result<()> {
        Message::new(kind, id, args).send(self.socket.as_fd(), &[])
    }

    /// The agent is gone: leaves what it keeps to an heir, goes on reaping for the grace, then ends, and everyone with it.
    fn outlive_agent(mut self) -> io::Result<Infallible> {
        let until = Instant::now() + AGENT_GRACE;
        let store = std::mem::replace(&mut self.store, Store::new());
        // If there can be no heir, seeds end as children do.
        let forked = (!store.is_empty()).then(fork_with_default_signals);
        match forked {
            Some(Ok(Fork::Child)) => {
                drop(self);
                enter::leave_standard_streams();
                store.wait_for_next_agent();
                std::process::exit(0)
            }
            Some(Ok(Fork::Parent(_))) => drop(store),
            Some(Err(_)) | None => store.close(),
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            wait::ready([(self.ended.as_fd(), Interest::Read)], Some(left))?;
            self.reap()?;
        }
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a request's descriptors")
}

/// Signals a child that is not reaped; its pid can then be no one else's.
fn kill(pid: u64, signal: u64) -> io::Result<()> {
    let gone = || io::Error::from_raw_os_error(libc::ESRCH);
    let pid = u32::try_from(pid).ok().filter(|pid| wait::is_child(*pid)).ok_or_else(gone)?;
    let signal = i32::try_from(signal).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    PidFd::open(pid)?.signal(signal)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Ends of children, and the greeting, may lie unread in the agent's socket when it closes it.
    #[test]
    fn an_agent_that_leaves_something_unread_has_gone_in_order() {
        let (agent, ours) = UnixStream::pair().unwrap();
        let server = Server::start(ours.into()).unwrap();
        drop(agent);
        let begun = Instant::now();
        let error = server.serve().unwrap_err();
        assert!(agent_has_gone(&error) && begun.elapsed() >= AGENT_GRACE, "{error}");
        let (agent, ours) = UnixStream::pair().unwrap();
        drop(agent);
        let error = Server::start(ours.into()).err().unwrap();
        assert!(agent_has_gone(&error), "{error}");
        assert!(!agent_has_gone(&io::ErrorKind::InvalidData.into()));
    }
}
