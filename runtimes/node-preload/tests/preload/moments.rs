//! When a program is prepared: by the library itself, and by `mitosis run`.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use crate::world::{Stray, World, free_port, get, wait_for};

const SERVER: &str = "import http.server, os, sys, threading, time\n\
    class H(http.server.BaseHTTPRequestHandler):\n\
    \x20   n = 0\n\
    \x20   def do_GET(self):\n\
    \x20       H.n += 1\n\
    \x20       self.send_response(200); self.end_headers()\n\
    \x20       self.wfile.write(f'{os.getpid()} {H.n}'.encode())\n\
    \x20   def log_message(self, *_): pass\n\
    time.sleep(float(sys.argv[2]))\n\
    print('listens', flush=True)\n\
    http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n";

fn server(port: u16, after: &str) -> Command {
    let mut python = Command::new("python3");
    python.args(["-c", SERVER, &port.to_string(), after]);
    python
}

/// A child of the handle in `handle` serves on a port of its own what the program would.
fn child_serves(world: &World, port: u16, count: u32) {
    let handle = format!("@{}", world.path("handle").display());
    let other = free_port();
    let listen = format!("{port}={other}");
    let mut child = world.resume(&handle, &["--listen", &listen], "child");
    let mut answer = String::new();
    wait_for("a child's answer", || {
        answer = get(other);
        assert!(child.lives(), "{}", world.text("child"));
        !answer.is_empty()
    });
    assert!(answer.ends_with(&format!(" {count}")), "{answer}: {}", world.text("child"));
    // The program has not noticed.
    let own = get(port);
    assert!(own.ends_with(&format!(" {count}")), "{own}");
}

/// Nothing has asked for it yet. One that is prepared when it listens is so within 100 ms.
fn stays_unprepared(world: &World) {
    thread::sleep(Duration::from_millis(500));
    assert!(!world.path("handle").exists());
}

/// Opens a port that the program does not.
fn open(port: u16) -> TcpListener {
    TcpListener::bind(("127.0.0.1", port)).unwrap()
}

/// The library prepares a server that has answered `count` requests when `then` returns.
fn by_library<T>(
    when: &str,
    port: u16,
    count: u32,
    then: impl FnOnce(&World, &crate::world::Running) -> T,
) {
    let world = World::new();
    let mut command = server(port, "0.2");
    command.env("MITOSIS_HANDLE_FILE", world.path("handle"));
    command.env(
        "MITOSIS_PREPARE_WHEN",
        when.replace("HERE", &world.folder.path().display().to_string()),
    );
    let program = world.preloaded(&mut command, "out");
    let _kept = then(&world, &program);
    wait_for("the handle", || world.path("handle").exists());
    assert!(world.text("out").contains("mitosis: prepared; its handle stands in"));
    child_serves(&world, port, count + 1);
    // The thread that waited has ended.
    let threads = || fs::read_dir(format!("/proc/{}/task", program.pid())).unwrap().count();
    wait_for("the thread's end", || threads() == 1);
}

#[test]
fn the_library_prepares_when_the_program_listens() {
    by_library("listen", free_port(), 0, |_, _| {});
}

#[test]
fn the_library_prepares_when_a_port_answers() {
    let (port, other) = (free_port(), free_port());
    by_library(&format!("port:{other}"), port, 1, |world, _| {
        wait_for("the server", || !get(port).is_empty());
        stays_unprepared(world);
        open(other)
    });
}

#[test]
fn the_library_prepares_when_a_file_is_there() {
    let port = free_port();
    by_library("file:HERE/ready", port, 1, |world, _| {
        wait_for("the server", || !get(port).is_empty());
        stays_unprepared(world);
        fs::write(world.path("ready"), "").unwrap();
    });
}

#[test]
fn the_library_prepares_on_a_signal() {
    let port = free_port();
    by_library("signal:USR2", port, 1, |world, program| {
        wait_for("the server", || !get(port).is_empty());
        stays_unprepared(world);
        program.signal(libc::SIGUSR2);
    });
}

#[test]
fn run_warms_a_server_and_prepares_it() {
    let (world, port) = (World::new(), free_port());
    let request = format!("u.urlopen('http://127.0.0.1:{port}').read()");
    let warm = format!("python3 -c \"import urllib.request as u; {request}; {request}\"");
    let arguments = ["run", "--handle-file", "handle", "--warm", &warm, "--"];
    let mut command = world.mitosis(&arguments);
    let program = server(port, "0.3");
    command.arg(program.get_program()).args(program.get_args());
    let mut run = world.start(&mut command, "out");
    wait_for("the handle", || world.path("handle").exists());
    child_serves(&world, port, 3);
    run.signal(libc::SIGTERM);
    assert_eq!(run.ends(), 128 + libc::SIGTERM);
    wait_for("the program's end", || get(port).is_empty());
}

#[test]
fn run_finds_the_process_that_listens_behind_a_shell() {
    let (world, port) = (World::new(), free_port());
    fs::write(world.path("server.py"), SERVER).unwrap();
    let line = format!("python3 server.py {port} 0; true");
    let mut command = world.mitosis(&["--json", "run", "--", "sh", "-c", &line]);
    let _run = world.start(&mut command, "out");
    wait_for("the handle", || world.text("out").contains("\"handle\""));
    let said = world.text("out");
    let line = said.lines().find(|line| line.starts_with('{')).unwrap();
    let told: serde_json::Value = serde_json::from_str(line).unwrap();
    let pid = get(port).split(' ').next().unwrap().parse().unwrap();
    let _server = Stray::of(pid);
    assert_eq!(told["pid"].as_u64(), Some(pid.into()));
}

#[test]
fn run_prepares_on_its_own_signal_and_passes_others_on() {
    let world = World::new();
    let script = "trap 'echo hup' HUP; echo up; while :; do sleep 0.05; done";
    let arguments =
        ["run", "--when", "signal:USR2", "--handle-file", "handle", "--", "sh", "-c", script];
    let mut run = world.start(&mut world.mitosis(&arguments), "out");
    wait_for("the program", || world.text("out").contains("up"));
    run.signal(libc::SIGHUP);
    wait_for("its signal", || world.text("out").contains("hup"));
    stays_unprepared(&world);
    run.signal(libc::SIGUSR2);
    wait_for("the handle", || world.path("handle").exists());
    assert!(run.lives());
    run.signal(libc::SIGTERM);
    assert_eq!(run.ends(), 128 + libc::SIGTERM);
}

#[test]
fn run_prepares_when_a_port_answers_and_when_a_file_is_there() {
    for by_file in [false, true] {
        let (world, port, other) = (World::new(), free_port(), free_port());
        let ready = world.path("ready");
        let when = match by_file {
            false => format!("port:{other}"),
            true => format!("file:{}", ready.display()),
        };
        let mut command = world.mitosis(&["run", "--when", &when, "--handle-file", "handle", "--"]);
        let program = server(port, "0.2");
        command.arg(program.get_program()).args(program.get_args());
        let mut run = world.start(&mut command, "out");
        wait_for("the server", || !get(port).is_empty());
        stays_unprepared(&world);
        let _other = (!by_file).then(|| open(other));
        if by_file {
            fs::write(&ready, "").unwrap();
        }
        wait_for("the handle", || world.path("handle").exists());
        child_serves(&world, port, 2);
        run.signal(libc::SIGTERM);
        assert_eq!(run.ends(), 128 + libc::SIGTERM);
    }
}

#[test]
fn run_goes_on_where_warming_fails_and_ends_as_the_program_does() {
    let (world, port) = (World::new(), free_port());
    let mut command = world.mitosis(&["run", "--warm", "echo why; exit 4", "--"]);
    let program = server(port, "0");
    command.arg(program.get_program()).args(program.get_args());
    let mut run = world.start(&mut command, "out");
    wait_for("the failure", || world.text("out").contains("goes on unprepared"));
    let said = world.text("out");
    assert!(said.contains("exit status: 4") && said.contains("said: why"), "{said}");
    assert!(run.lives() && !get(port).is_empty());
    run.signal(libc::SIGTERM);
    run.ends();
    let ended = world.end_of(&["run", "--", "sh", "-c", "exit 7"]);
    assert_eq!(ended.status.code(), Some(7));
    assert!(String::from_utf8(ended.stderr).unwrap().contains("ended before it was prepared"));
}
