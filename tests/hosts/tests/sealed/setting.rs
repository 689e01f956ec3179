//! What the tests of sealed hosts share: a pair with a shell, and looks at what is left of it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mitosis_hosts::{FileSpec, Host, Hosts, Pair, PairConfig};

pub(crate) const BIN: &str = env!("CARGO_BIN_EXE_mitosis-hosts");

/// Enough for the kernel to take namespaces down on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(5);

pub(crate) const SIGTERM: i32 = 15;
pub(crate) const SIGKILL: i32 = 9;

/// Two hosts; host-b has a shell and a few tools.
pub(crate) fn pair() -> Pair {
    let mut config = PairConfig { bin: Some(BIN.into()), ..PairConfig::default() };
    for tool in ["/bin/bash", "/bin/ls", "/bin/cat", "/bin/sleep", "/usr/bin/getent"] {
        config = config.file(tool).unwrap();
    }
    config.files.push(FileSpec::new(BIN, "/bin/mitosis-hosts").unwrap());
    Pair::up(config).expect("sealed hosts come up (they need root)")
}

/// What a shell script on `host` prints; it must succeed.
pub(crate) fn shell(host: &Host, script: &str) -> String {
    let output = host.command(["/bin/bash", "-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    text(&output).trim().to_owned()
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn soon(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A namespace that was seen. It is held open, so that its number is not given to a new one.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: &'static str,
    pub(crate) inode: u64,
    _held: File,
}

/// All namespaces of `pid`.
pub(crate) fn namespaces_of(pid: i32) -> Vec<Namespace> {
    let namespace = |name| {
        let held = File::open(format!("/proc/{pid}/ns/{name}")).unwrap();
        Namespace { name, inode: held.metadata().unwrap().ino(), _held: held }
    };
    ["pid", "net", "mnt", "uts", "ipc", "time", "cgroup"].map(namespace).into()
}

/// Whether a live process is in one of `namespaces`. A zombie is not: when the harness was killed,
/// it is for pid 1 outside to reap what is left of the inits, and that may take its time.
pub(crate) fn populated(namespaces: &[Namespace]) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|process| {
        let status = fs::read_to_string(process.path().join("status")).unwrap_or_default();
        !status.contains("\nState:\tZ")
            && namespaces.iter().any(|namespace| {
                let theirs = fs::metadata(process.path().join("ns").join(namespace.name));
                theirs.is_ok_and(|theirs| theirs.ino() == namespace.inode)
            })
    })
}

pub(crate) fn outer_mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

pub(crate) fn outer_links() -> BTreeSet<String> {
    fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|l| l.unwrap().path().display().to_string())
        .collect()
}

pub(crate) fn signal(child: &Child, number: i32) {
    let status = Command::new("kill").args([format!("-{number}"), child.id().to_string()]).status();
    assert!(status.unwrap().success());
}

/// `mitosis-hosts up` with `options`, and the hosts that it printed.
pub(crate) fn held_up(options: &[&str]) -> (Child, Hosts) {
    let mut up = Command::new(BIN)
        .arg("up")
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(up.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (up, serde_json::from_str(&line).expect("a record of hosts (they need root)"))
}

pub(crate) fn namespaces_of_all(hosts: &Hosts) -> Vec<Namespace> {
    hosts.hosts.iter().flat_map(|host| namespaces_of(host.init_pid)).collect()
}

/// A listener on host-a that says hello to each caller; perl, as Debian always has it.
pub(crate) fn greeter(pair: &Pair) -> Child {
    let program = "use IO::Socket::INET; $| = 1;
        my $l = IO::Socket::INET->new(Listen => 5, LocalPort => 7000) or die $!;
        print qq(listening\n); while (my $c = $l->accept) { print $c qq(hello\n); close $c }";
    let mut child =
        pair.a().command(["/usr/bin/perl", "-e", program]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "listening\n");
    child
}

/// A shell script for host-b that prints what the greeter says.
pub(crate) const GREET: &str = "exec 3<>/dev/tcp/host-a/7000; read x <&3; echo $x";
