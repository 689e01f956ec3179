//! The point between set-up and looks: a fork, or nothing.

use std::fmt::Debug;
use std::process::exit;
use std::time::Duration;

use mitosis::client::{self, ResumeOptions, Seed};
use mitosis::prepare::{PrepareOptions, Prepared, Resumed, Threads, prepare};
use mitosis::wire::local::{ChildEnd, DropMode};
use mitosis_process_suite::{fail, hold, say};

/// Which process this is after the crossing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Side {
    /// The one that set the state up; also where nothing is forked.
    Parent,
    Child,
}

/// What stands between set-up and looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    /// Nothing.
    Plain,
    /// fork(2), which loses all threads but one: no case may hold after it.
    Forked,
    /// Prepare with all threads.
    Whole,
}

/// One a process.
#[derive(Debug)]
pub(crate) struct Crossing {
    way: Way,
    file: Option<String>,
    seed: Option<Seed>,
    resumed: Option<Resumed>,
}

impl Crossing {
    pub(crate) fn new(way: Way, file: Option<&str>) -> Crossing {
        Crossing { way, file: file.map(str::to_owned), seed: None, resumed: None }
    }

    /// The file that the caller named.
    pub(crate) fn file(&self) -> &str {
        self.file.as_deref().unwrap_or_else(|| fail(&"this case wants a FILE"))
    }

    /// Is prepared with all threads. A child whose payload is `again HOST` is prepared itself, and waits for
    /// its own child on HOST (`-`: where it is) before it goes on.
    pub(crate) fn cross(&mut self) -> Side {
        match self.way {
            Way::Plain => {
                std::thread::sleep(Duration::from_millis(20));
                return Side::Parent;
            }
            Way::Forked => return fork_plainly(),
            Way::Whole => {}
        }
        if let Some(seed) = self.prepare() {
            self.seed = Some(seed);
            return Side::Parent;
        }
        let payload = self.payload();
        if let Some(host) = payload.strip_prefix("again ")
            && let Some(seed) = self.prepare()
        {
            end_child_of(seed, (host != "-").then_some(host));
        }
        Side::Child
    }

    /// The seed; `None` in a child.
    fn prepare(&mut self) -> Option<Seed> {
        match prepare(&options()) {
            Ok(Prepared::Parent(seed)) => Some(seed),
            Ok(Prepared::Child(resumed)) => {
                self.resumed = Some(resumed);
                None
            }
            Err(error) => fail(&error),
        }
    }

    /// Is to be refused: why it was.
    pub(crate) fn refused(&self) -> String {
        let options = PrepareOptions { stop_threads: Duration::from_millis(300), ..options() };
        match prepare(&options) {
            Ok(_) => fail(&"was prepared, though a thread of it cannot be parked"),
            Err(error) => error.to_string(),
        }
    }

    fn payload(&self) -> String {
        let payload = self.resumed.as_ref().map(|resumed| resumed.payload.clone());
        String::from_utf8_lossy(&payload.unwrap_or_default()).into_owned()
    }

    /// All looks were good.
    pub(crate) fn end(&self, name: &str) -> ! {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        match (&self.resumed, &self.seed) {
            (Some(resumed), _) => {
                let generation = resumed.generation;
                say(&format!("ok {name} generation {generation} on {}", host.trim()));
                obey(&self.payload());
            }
            (None, Some(seed)) => {
                say(&format!("ok {name}"));
                hold(seed);
            }
            (None, None) => say(&format!("ok {name}")),
        }
        exit(0)
    }
}

fn options() -> PrepareOptions {
    PrepareOptions { threads: Threads::All, ..PrepareOptions::default() }
}

/// What a child does in the end: `stay`, `exit STATUS`, `signal NUMBER`.
fn obey(payload: &str) {
    let number = |text: &str| text.parse().unwrap_or_else(|_| fail(&format!("'{text}'?")));
    match payload.split_whitespace().collect::<Vec<_>>()[..] {
        ["stay"] => std::thread::sleep(Duration::from_secs(3600)),
        ["exit", status] => exit(number(status)),
        ["signal", signal] => {
            // SAFETY: takes numbers.
            unsafe { libc::kill(libc::getpid(), number(signal)) };
        }
        _ => {}
    }
}

/// The parent waits a while for its child, and ends as the child has.
fn fork_plainly() -> Side {
    const WHILE: Duration = Duration::from_millis(1500);
    // SAFETY: what the child does, it does to be seen failing.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        return Side::Child;
    }
    std::thread::sleep(WHILE);
    let mut status = 0;
    // SAFETY: our own child.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, &raw mut status, 0);
    }
    exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 9 })
}

/// Resumes one child, which must end well.
fn end_child_of(seed: Seed, host: Option<&str>) {
    let handle = seed.handle().unwrap_or_else(|error| fail(&error));
    let options = ResumeOptions { host: host.map(str::to_owned), ..ResumeOptions::new(handle) };
    let children = client::resume(seed.agent(), options).unwrap_or_else(|error| fail(&error));
    for child in &children {
        equal("the end of the child's child", child.wait(), ChildEnd::Exited(0));
    }
    drop(children);
    if let Err(error) = seed.drop_seed(DropMode::AfterChildren) {
        fail(&error);
    }
}

/// Ends this process if it does not hold.
pub(crate) fn must(holds: bool, what: &str) {
    if !holds {
        fail(&what);
    }
}

/// Ends this process if they differ.
pub(crate) fn equal<T: PartialEq + Debug>(what: &str, got: T, wanted: T) {
    if got != wanted {
        fail(&format!("{what}: {got:x?}, and should be {wanted:x?}"));
    }
}
