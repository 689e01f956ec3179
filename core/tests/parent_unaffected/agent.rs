//! A stand-in for the agent: takes reports, describes seeds, answers Await and drops.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mitosis::describe::{SeedFiles, SeedIdentity, SiteScanner, TextSource, describe};
use mitosis::descriptor::{CallSite, Descriptor, MappedFile, Owner, SeedAddr};
use mitosis::id::{ForkKey, Handle, PrepareToken, SeedId};
use mitosis::prepare::report::{self, Report};
use mitosis::sys::scm;
use mitosis::wire::frame;
use mitosis::wire::local::{Failure, FailureKind, LocalReply, LocalRequest};

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Works,
    /// Hangs up on everybody.
    ClosesAtOnce,
    /// Nobody listens.
    Absent,
}

/// A seed as it was handed over.
pub(crate) struct Taken {
    pub(crate) token: PrepareToken,
    pub(crate) report: Report,
    pub(crate) mem: File,
    /// The first word at the resume area.
    pub(crate) magic: [u8; 8],
    /// The signal mask in the frame.
    pub(crate) frame_mask: u64,
    pub(crate) described: Result<Descriptor, String>,
    connection: Option<UnixStream>,
}

#[derive(Default)]
struct Seeds {
    taken: Mutex<Vec<Taken>>,
    change: Condvar,
}

pub(crate) struct Agent {
    directory: tempfile::TempDir,
    seeds: Arc<Seeds>,
}

/// Offset of `uc_sigmask` in x86-64's `struct ucontext`.
const MASK_IN_FRAME: u64 = 296;
const PATIENCE: Duration = Duration::from_secs(10);

impl Agent {
    pub(crate) fn start(manner: Manner) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let agent = Agent { directory, seeds: Arc::default() };
        if manner != Manner::Absent {
            let listener = UnixListener::bind(agent.socket()).unwrap();
            let seeds = agent.seeds.clone();
            thread::spawn(move || {
                for connection in listener.incoming() {
                    let connection = connection.unwrap();
                    if manner == Manner::Works {
                        let seeds = seeds.clone();
                        thread::spawn(move || serve(connection, &seeds));
                    }
                }
            });
        }
        agent
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    pub(crate) fn seed_count(&self) -> usize {
        self.seeds.taken.lock().unwrap().len()
    }

    /// Looks at seed number `index`, in the order of reports.
    pub(crate) fn with_seed<T>(&self, index: usize, look: impl FnOnce(&Taken) -> T) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut taken = self.seeds.taken.lock().unwrap();
        while taken.len() <= index {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "seed {index} was never reported");
            taken = self.seeds.change.wait_timeout(taken, left).unwrap().0;
        }
        look(&taken[index])
    }

    /// The descriptor of seed number `index`.
    pub(crate) fn with_descriptor(&self, index: usize, look: impl FnOnce(&Descriptor, &Taken)) {
        self.with_seed(index, |taken| match &taken.described {
            Ok(descriptor) => look(descriptor, taken),
            Err(error) => panic!("seed {index} was not described: {error}"),
        });
    }
}

fn serve(connection: UnixStream, seeds: &Seeds) {
    let mut fds = Vec::new();
    let mut first = [0u8; 4];
    if scm::receive(connection.as_fd(), &mut first, &mut fds).unwrap_or(0) != 4 {
        return;
    }
    let body = frame::read_body(&mut &connection, first).unwrap();
    let failed = |kind, message: String| LocalReply::Failed(Failure { kind, message });
    let reply = match frame::decode(&body).unwrap() {
        LocalRequest::Report { token, report } => {
            return take(token, &report, fds, connection, seeds);
        }
        LocalRequest::Await { token } => match await_seed(&token, seeds) {
            Ok(seed) => {
                let handle = Handle { agent: None, seed, key: ForkKey::random() };
                LocalReply::Published { handle }
            }
            Err(message) => failed(FailureKind::NotForkable, message),
        },
        LocalRequest::DropPrepared { token } => {
            let mut taken = seeds.taken.lock().unwrap();
            taken.iter_mut().filter(|seed| seed.token == token).for_each(|seed| {
                seed.connection = None;
            });
            LocalReply::Done
        }
        other => failed(FailureKind::Internal, format!("a stand-in cannot {other:?}")),
    };
    let _ = (&connection).write_all(&frame::encode(&reply).unwrap());
}

fn take(
    token: PrepareToken,
    report: &[u8],
    fds: Vec<OwnedFd>,
    connection: UnixStream,
    seeds: &Seeds,
) {
    let [mem, pagemap, smaps] = <[OwnedFd; 3]>::try_from(fds).unwrap().map(File::from);
    let report = report::parse(report).unwrap();
    let files = SeedFiles { mem, pagemap, smaps };
    let seed = SeedId(1);
    let owner = Owner { seed, epoch: 1, exports: Vec::new(), arena: None };
    let (stub, not_carried, inherited) = (None, None, None);
    let identity = SeedIdentity { seed, pid: 0, owner, stub, not_carried, inherited };
    let described = describe(identity, report.clone(), &files, &mut NoSites);
    let described = described.map(|found| found.descriptor).map_err(|error| error.to_string());
    let connection = Some(connection);
    let (mem, mut magic, mut mask) = (files.mem, [0; 8], [0; 8]);
    if described.is_ok() {
        mem.read_exact_at(&mut magic, report.resume_area.addr.0).unwrap();
        mem.read_exact_at(&mut mask, report.threads[0].frame.0 + MASK_IN_FRAME).unwrap();
    }
    let frame_mask = u64::from_le_bytes(mask);
    let taken = Taken { token, report, mem, magic, frame_mask, described, connection };
    seeds.taken.lock().unwrap().push(taken);
    seeds.change.notify_all();
}

fn await_seed(token: &PrepareToken, seeds: &Seeds) -> Result<SeedId, String> {
    let deadline = Instant::now() + PATIENCE;
    let mut taken = seeds.taken.lock().unwrap();
    loop {
        if let Some(seed) = taken.iter().find(|seed| seed.token == *token) {
            return seed.described.as_ref().map(|found| found.seed).map_err(Clone::clone);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("no seed with this token has reported".to_owned());
        }
        taken = seeds.change.wait_timeout(taken, left).unwrap().0;
    }
}

struct NoSites;

impl SiteScanner for NoSites {
    fn scan(
        &mut self,
        _: &MappedFile,
        _: u64,
        _: SeedAddr,
        _: &dyn TextSource,
    ) -> std::io::Result<Vec<CallSite>> {
        Ok(Vec::new())
    }
}
