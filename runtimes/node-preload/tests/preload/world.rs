//! An agent on a socket of its own, programs with the library, and what they say.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{env, thread};

use mitosis::sys::pidfd::PidFd;
use tempfile::TempDir;

/// Nothing here takes as long; what does hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// Where cargo puts the library and the command line. It builds neither for these tests, so this asks for it.
pub(crate) fn built(name: &str) -> PathBuf {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let exe = env::current_exe().unwrap();
        let profile = exe.ancestors().nth(2).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "-p",
            "mitosis-preload",
            "-p",
            "mitosis-agent",
            "--target-dir",
        ]);
        cargo.arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
        profile.to_owned()
    });
    BUILT.join(name)
}

pub(crate) fn library() -> PathBuf {
    built("libmitosis_preload.so")
}

/// A process that ends with the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Its exit status, or 128 and its signal.
    pub(crate) fn ends(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let mut status = None;
        wait_for("a program's end", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap()
    }

    pub(crate) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.pid()).unwrap();
        // SAFETY: a child of ours that nobody has reaped.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process of another parent, which ends with the test all the same.
pub(crate) struct Stray(PidFd);

impl Stray {
    /// The process, which is there: it has just said something.
    pub(crate) fn of(pid: u32) -> Stray {
        Stray(PidFd::open(pid).unwrap())
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.0.signal(libc::SIGKILL);
    }
}

pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited for {what}");
        thread::sleep(PAUSE);
    }
}

/// A folder, and an agent in it.
pub(crate) struct World {
    pub(crate) folder: TempDir,
    _agent: Running,
}

impl World {
    pub(crate) fn new() -> World {
        let folder = tempfile::Builder::new().prefix("mitosis-preload-").tempdir().unwrap();
        let mut agent = Command::new(built("mitosis"));
        agent.arg("agent").env("MITOSIS_AGENT", folder.path().join("agent.sock"));
        let log = fs::File::create(folder.path().join("agent.log")).unwrap();
        agent.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let agent = Running(agent.spawn().unwrap());
        let world = World { folder, _agent: agent };
        wait_for("the agent (it needs root and FUSE)", || {
            world.text("agent.log").contains("ready")
        });
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What stands in a file of the folder; nothing if it is not there.
    pub(crate) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// `mitosis ARGUMENTS`.
    pub(crate) fn mitosis(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(built("mitosis"));
        command.args(arguments).current_dir(self.folder.path());
        command.env("MITOSIS_AGENT", self.path("agent.sock"));
        command
    }

    /// Its output at its end, which comes in time.
    pub(crate) fn end_of(&self, arguments: &[&str]) -> Output {
        let mut mitosis = Command::new("timeout");
        mitosis.arg("40").arg(built("mitosis")).args(arguments).current_dir(self.folder.path());
        mitosis.env("MITOSIS_AGENT", self.path("agent.sock")).stdin(Stdio::null()).output().unwrap()
    }

    /// What it says as it fails.
    pub(crate) fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.end_of(arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A seed of the process, by its handle.
    pub(crate) fn prepare(&self, pid: u32) -> String {
        let output = self.end_of(&["prepare", &pid.to_string()]);
        assert!(output.status.success(), "{output:?}\n{}", self.text("agent.log"));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A child of a seed, and its standard output in the file `name`.
    pub(crate) fn resume(&self, handle: &str, more: &[&str], name: &str) -> Running {
        let mut command = self.mitosis(&["resume", handle]);
        self.start(command.args(more), name)
    }

    /// Starts a program whose output, both kinds of it, goes to the file `name`.
    pub(crate) fn start(&self, command: &mut Command, name: &str) -> Running {
        let file = fs::File::create(self.path(name)).unwrap();
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Running(command.spawn().unwrap())
    }

    /// Starts a program with the library; it is ready when it has said something.
    pub(crate) fn preloaded(&self, command: &mut Command, name: &str) -> Running {
        command.env("LD_PRELOAD", library()).env("MITOSIS_AGENT", self.path("agent.sock"));
        let running = self.start(command, name);
        wait_for("a program's first line", || self.text(name).contains('\n'));
        running
    }

    /// A program of this folder's C.
    pub(crate) fn c(&self, name: &str, flags: &[&str]) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preload").join(name);
        let program = self.path(&format!("{name}{}.bin", flags.concat()));
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-pthread"]);
        cc.arg("-I").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../include"));
        assert!(cc.arg("-o").arg(&program).arg(source).args(flags).status().unwrap().success());
        program
    }
}

/// A copy of a program with another owner and other rights.
pub(crate) fn with_owner_and_mode(program: &str, to: &Path, owner: u32, mode: u32) {
    fs::copy(program, to).unwrap();
    // In this order: a change of owner takes the set-user-ID bit away.
    std::os::unix::fs::chown(to, Some(owner), None).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).unwrap();
}

/// The body of an answer; nothing if nobody answers.
pub(crate) fn get(port: u16) -> String {
    use std::io::Write;
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else {
        return String::new();
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())
}

/// A port that nobody has: below those that the kernel gives to connections, as a connection to a port of
/// those that nobody has may be given that port itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 18_000;
    const COUNT: u16 = 12_000;
    let own = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
    loop {
        let port = FIRST + own.wrapping_add(NEXT.fetch_add(1, Relaxed)) % COUNT;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
