//! The agent's side.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use super::message::{FDS_PER_MESSAGE, Kind, MAX_TEMPLATE_FDS, Message, SEED_FDS, VERSION};
use crate::descriptor::Clocks;
use crate::sys::pidfd::PidFd;
use crate::sys::socket;
use crate::sys::wait::{self, Interest};

/// How long the keeper may take to answer: it does nothing that blocks, so this is a host in trouble.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a keeper that is asked to end may take before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The end of a template or child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its pid.
    pub pid: u32,
    /// Its status as wait(2) tells it.
    pub status: i32,
}

/// Why the keeper did not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeeperError {
    /// The program did not start.
    #[error("cannot start the keeper ({program} keeper): {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended, or the socket broke.
    #[error("the keeper is gone, and all children of this host with it: restart the agent")]
    Gone,
    /// It did not answer in time.
    #[error("the keeper did not answer within {ANSWER_TIMEOUT:?}: is the host out of memory?")]
    Silent,
    /// It is of another installation.
    #[error("the keeper speaks version {0}, this agent {VERSION}: install one version of both")]
    Version(u64),
    /// Its libc registered rseq in spite of being asked not to.
    #[error(
        "the keeper's libc has registered rseq: start it with GLIBC_TUNABLES=glibc.pthread.rseq=0"
    )]
    Rseq,
    /// The seed maps too many files.
    #[error(
        "a template was given {0} descriptors, {MAX_TEMPLATE_FDS} are the limit: map fewer files"
    )]
    TooManyFds(usize),
    /// A system call of its failed.
    #[error("the keeper cannot {what}: {source}")]
    Failed {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// What the keeper needs to fork a template.
#[derive(Clone, Copy, Debug)]
pub struct TemplateRequest<'a> {
    /// The region's memfd.
    pub region: BorrowedFd<'a>,
    /// Its address.
    pub base: u64,
    /// The blob's entry, from there.
    pub entry: u64,
    /// How far the template's clocks are to be ahead of this host's.
    pub clock_offset: Clocks,
    /// Its descriptors 3, 4, ...; the first is its command socket.
    pub descriptors: &'a [BorrowedFd<'a>],
}

/// A template that was forked.
#[derive(Debug)]
pub struct NewTemplate {
    /// Its pid.
    pub pid: u32,
    /// Why it has this host's clocks and not those that were asked for.
    pub clock_refused: Option<io::Error>,
}

/// The running keeper. Dropping its last clone ends the keeper and all that it keeps.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: Arc<OwnedFd>,
    /// The last request's id; held while one is under way.
    call: Mutex<u32>,
    answers: Receiver<Message>,
    exits: Receiver<Exit>,
    process: Mutex<Child>,
    pid: u32,
}

impl Client {
    /// Starts `program keeper --fd 0`; `own_directory` is the agent's, and goes with it.
    ///
    /// # Errors
    /// The program does not start, or is another version.
    pub fn spawn(program: &Path, own_directory: Option<&Path>) -> Result<Client, KeeperError> {
        let failed = |source| KeeperError::Spawn { program: program.display().to_string(), source };
        let (ours, theirs) = socket::seqpacket_pair().map_err(failed)?;
        let process = Command::new(program)
            .args(["keeper", "--fd", "0"])
            .args(
                own_directory.into_iter().flat_map(|own| [OsStr::new("--clear"), own.as_os_str()]),
            )
            .env_clear()
            // Templates unmap their libc: an rseq area in it would kill them.
            .env("GLIBC_TUNABLES", "glibc.pthread.rseq=0")
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let (pid, socket) = (process.id(), Arc::new(ours));
        let (answers_in, answers) = unbounded();
        let (exits_in, exits) = unbounded();
        let reader = Arc::clone(&socket);
        thread::Builder::new()
            .name("keeper-exits".into())
            .spawn(move || read_all(&reader, &answers_in, &exits_in))
            .map_err(failed)?;
        let process = Mutex::new(process);
        let inner = Inner { socket, call: Mutex::new(0), answers, exits, process, pid };
        let client = Client { inner: Arc::new(inner) };
        let [version, _, rseq, ..] = client.inner.answer(0)?.args;
        match (version, rseq) {
            (VERSION, 0) => Ok(client),
            (VERSION, _) => Err(KeeperError::Rseq),
            (other, _) => Err(KeeperError::Version(other)),
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// Ends of templates and children, in the order in which they were reaped. Closed when the keeper is
    /// gone.
    pub fn exits(&self) -> Receiver<Exit> {
        self.inner.exits.clone()
    }

    /// Forks a template. How it fares is said on its command socket.
    ///
    /// # Errors
    /// The keeper is gone, or could not fork.
    pub fn template(&self, request: &TemplateRequest<'_>) -> Result<NewTemplate, KeeperError> {
        let fds: Vec<BorrowedFd<'_>> =
            std::iter::once(request.region).chain(request.descriptors.iter().copied()).collect();
        if fds.len() > MAX_TEMPLATE_FDS {
            return Err(KeeperError::TooManyFds(fds.len()));
        }
        let Clocks { monotonic_ns, boottime_ns } = request.clock_offset;
        let [monotonic, boottime] = [monotonic_ns, boottime_ns].map(i64::cast_unsigned);
        let args = [request.base, request.entry, monotonic, fds.len() as u64, boottime];
        let [pid, refused, ..] =
            self.inner.request(Kind::Template, args, &fds, "fork a template")?;
        let refused = i32::try_from(refused).ok().filter(|errno| *errno != 0);
        Ok(NewTemplate {
            pid: u32::try_from(pid).map_err(|_| KeeperError::Gone)?,
            clock_refused: refused.map(io::Error::from_raw_os_error),
        })
    }

    /// What is kept from now on outlives this agent for `grace`: the next one asks for it at `listener`.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn outlive(&self, listener: BorrowedFd<'_>, grace: Duration) -> Result<(), KeeperError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let args = [grace_ms, 1, 0, 0, 0];
        self.inner.request(Kind::Outlive, args, &[listener], "outlive its agent").map(drop)
    }

    /// Nothing outlives this agent from now on.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn end_with_agent(&self) -> Result<(), KeeperError> {
        self.inner.request(Kind::Outlive, [0; 5], &[], "end with its agent").map(drop)
    }

    /// Keeps a seed for the next agent: its connection, its memory, its record.
    ///
    /// # Errors
    /// The keeper is gone, or keeps too many.
    pub fn keep(&self, seed: u64, fds: [BorrowedFd<'_>; SEED_FDS]) -> Result<(), KeeperError> {
        self.inner.request(Kind::Keep, [seed, 0, 0, 0, 0], &fds, "keep one more seed").map(drop)
    }

    /// Keeps a seed no longer.
    ///
    /// # Errors
    /// The keeper is gone.
    pub fn forget(&self, seed: u64) -> Result<(), KeeperError> {
        self.inner.request(Kind::Forget, [seed, 0, 0, 0, 0], &[], "forget a seed").map(drop)
    }

    /// Sends a signal to a template or child.
    ///
    /// # Errors
    /// ESRCH when it has ended.
    pub fn kill(&self, pid: u32, signal: i32) -> Result<(), KeeperError> {
        let args = [pid.into(), signal.unsigned_abs().into(), 0, 0, 0];
        self.inner.request(Kind::Kill, args, &[], "signal the child").map(drop)
    }
}

impl Inner {
    fn request(
        &self,
        kind: Kind,
        args: [u64; 5],
        fds: &[BorrowedFd<'_>],
        what: &'static str,
    ) -> Result<[u64; 5], KeeperError> {
        let mut id = self.call.lock();
        *id = id.wrapping_add(1).max(1);
        let send = |message: Message, fds: &[BorrowedFd<'_>]| {
            let room = wait::ready([(self.socket.as_fd(), Interest::Write)], Some(ANSWER_TIMEOUT));
            match room {
                Ok([socket]) if !socket.write => Err(KeeperError::Silent),
                _ => message.send(self.socket.as_fd(), fds).map_err(|_| KeeperError::Gone),
            }
        };
        send(Message::new(kind, *id, args), &[])?;
        for some in fds.chunks(FDS_PER_MESSAGE) {
            send(Message::new(Kind::Fds, *id, [0; 5]), some)?;
        }
        let answer = self.answer(*id)?;
        match answer.kind {
            Kind::Failed => {
                let errno = i32::try_from(answer.args[0]).unwrap_or(libc::EIO);
                let source = io::Error::from_raw_os_error(errno);
                Err(KeeperError::Failed { what, source })
            }
            _ => Ok(answer.args),
        }
    }

    /// The answer to request `id`; those to requests that were given up are passed over.
    fn answer(&self, id: u32) -> Result<Message, KeeperError> {
        loop {
            match self.answers.recv_timeout(ANSWER_TIMEOUT) {
                Ok(answer) if answer.id == id => return Ok(answer),
                Ok(_) => {}
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                    return Err(KeeperError::Silent);
                }
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                    return Err(KeeperError::Gone);
                }
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let end = Message::new(Kind::End, 0, [0; 5]);
        let mut process = self.process.lock();
        let asked = end.send_now(self.socket.as_fd()).is_ok();
        let ended = asked
            && PidFd::open(self.pid)
                .and_then(|pidfd| wait::ready([(pidfd.as_fd(), Interest::Read)], Some(END_TIMEOUT)))
                .is_ok_and(|[keeper]| keeper.read);
        if !ended {
            // Its children follow it.
            let _ = process.kill();
        }
        let _ = process.wait();
    }
}

fn read_all(socket: &OwnedFd, answers: &Sender<Message>, exits: &Sender<Exit>) {
    let mut fds = Vec::new();
    while let Ok(Some(message)) = Message::receive(socket.as_fd(), &mut fds) {
        if message.kind != Kind::Exit {
            let _ = answers.send(message);
            continue;
        }
        let [pid, status, ..] = message.args;
        let exit = Exit {
            pid: u32::try_from(pid).unwrap_or(0),
            status: u32::try_from(status).unwrap_or(0).cast_signed(),
        };
        let _ = exits.send(exit);
    }
}
