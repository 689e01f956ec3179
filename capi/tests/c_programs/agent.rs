//! An agent that only talks: no seed is read and no child runs.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use mitosis_core::id::{ChildId, ForkKey, Handle, SeedId};
use mitosis_core::wire::frame;
use mitosis_core::wire::local::{
    ChildEnd, Failure, FailureKind, LocalReply, LocalRequest, ResumeRequest, StartReport,
    StartedChild,
};
use tempfile::TempDir;

const SIGKILL: i32 = 9;
/// What happens soon happens within it.
const SOON: Duration = Duration::from_secs(10);

/// Answers until the test ends.
pub(crate) struct Agent {
    dir: TempDir,
    state: Arc<State>,
}

struct State {
    handle: Handle,
    seeds: AtomicU32,
    /// Frozen seeds and started children, each on its connection.
    seed: Mutex<Vec<UnixStream>>,
    resumed: Mutex<Option<UnixStream>>,
}

impl Agent {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("agent.sock")).unwrap();
        let handle = Handle {
            agent: Some("host-a:7370".to_owned()),
            seed: SeedId::random(),
            key: ForkKey::random(),
        };
        let state = Arc::new(State {
            handle,
            seeds: AtomicU32::new(0),
            seed: Mutex::default(),
            resumed: Mutex::default(),
        });
        let answering = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = answering.clone();
                thread::spawn(move || state.answer(stream.unwrap()));
            }
        });
        Agent { dir, state }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        Path::join(self.dir.path(), "agent.sock")
    }

    pub(crate) fn handle(&self) -> String {
        self.state.handle.reveal()
    }

    /// Waits for `count` seeds: a process that ends right behind its prepare may be faster than its seed's report.
    pub(crate) fn sees_seeds(&self, count: u32) {
        let until = Instant::now() + SOON;
        while self.state.seeds.load(Ordering::SeqCst) < count && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.state.seeds.load(Ordering::SeqCst), count);
    }
}

impl State {
    fn answer(&self, mut stream: UnixStream) {
        // A connection that asks nothing was a look whether somebody is there.
        let Ok(request) = frame::read::<LocalRequest>(&mut stream) else { return };
        let reply = match request {
            LocalRequest::Report { .. } => {
                self.seeds.fetch_add(1, Ordering::SeqCst);
                return self.seed.lock().unwrap().push(stream);
            }
            LocalRequest::Await { .. } => LocalReply::Published { handle: self.handle.clone() },
            LocalRequest::DropPrepared { .. } => {
                // The seed ends when its connection does.
                self.seed.lock().unwrap().clear();
                LocalReply::Done
            }
            LocalRequest::Kill { child, host, signal } => {
                assert_eq!((host.as_deref(), signal), (Some("host-b:7370"), SIGKILL));
                let end = ChildEnd::Signalled(signal);
                let mut resumed = self.resumed.lock().unwrap();
                let resumed = resumed.as_mut().expect("children run");
                frame::write(resumed, &LocalReply::Exited { child, end }).unwrap();
                LocalReply::Done
            }
            LocalRequest::Resume(request) => return self.resume(stream, &request),
            other => panic!("nobody asks {other:?} here"),
        };
        frame::write(&mut stream, &reply).unwrap();
    }

    /// Starts the first three, refuses the rest.
    fn resume(&self, mut stream: UnixStream, request: &ResumeRequest) {
        if request.count != 3 {
            let failure =
                Failure { kind: FailureKind::KeyRefused, message: "the agent's words".to_owned() };
            return frame::write(&mut stream, &LocalReply::Failed(failure)).unwrap();
        }
        assert_eq!(request.handle, self.handle);
        assert_eq!(request.payload, b"mail");
        assert_eq!(request.clock, mitosis_core::wire::local::Clock::Frozen);
        assert_eq!(request.cwd.as_deref(), Some("/work"));
        assert_eq!(request.hostname.as_deref(), Some("other"));
        assert_eq!(request.cgroup.as_deref(), Some("/sys/fs/cgroup/x"));
        assert_eq!(request.namespaces, ["net=/run/netns/x".parse().unwrap()]);
        assert_eq!(request.argv, ["worker", ""]);
        assert_eq!(request.id_map, ["0:7:1".parse().unwrap()]);
        let changes = [("A".to_owned(), Some("1".to_owned())), ("B".to_owned(), None)];
        assert_eq!(request.environment, changes);
        let children = (0..3u32).map(|i| StartedChild { child: ChildId(i.into()), pid: 100 + i });
        let report = StartReport { host: "far".to_owned(), ..StartReport::default() };
        let started = LocalReply::Started { children: children.collect(), report };
        frame::write(&mut stream, &started).unwrap();
        let ends = [ChildEnd::Exited(7), ChildEnd::PageLost("page 0x1000".to_owned())];
        for (child, end) in (0..).map(ChildId).zip(ends) {
            frame::write(&mut stream, &LocalReply::Exited { child, end }).unwrap();
        }
        *self.resumed.lock().unwrap() = Some(stream);
    }
}
