//! What children of unmodified programs are.

use std::collections::BTreeSet;
use std::process::Command;

use crate::world::{Stray, World, free_port, get, library, wait_for};

#[test]
fn a_program_that_is_inside_malloc_all_the_time_is_prepared_again_and_again() {
    let world = World::new();
    let mut program = world.preloaded(Command::new(world.c("modes.c", &[])).arg("malloc"), "out");
    let handles: Vec<String> = (0..12).map(|_| world.prepare(program.pid())).collect();
    assert!(program.lives());
    let seen = world.text("out").lines().count();
    wait_for("the program's progress", || world.text("out").lines().count() > seen + 1);
    for (index, handle) in handles.iter().enumerate().step_by(4) {
        let name = format!("child-{index}");
        let _child = world.resume(handle, &[], &name);
        wait_for("a child's progress", || world.text(&name).matches("still").count() > 1);
    }
}

#[test]
fn a_program_asks_for_itself() {
    let world = World::new();
    let program = world.c("asks.c", &[]);
    let alone = Command::new(&program).output().unwrap();
    assert_eq!((alone.status.code(), &alone.stdout[..]), (Some(0), &b"alone\n"[..]));
    let mut asks = Command::new(&program);
    asks.env("LD_PRELOAD", library()).env("MITOSIS_AGENT", world.path("agent.sock"));
    let asked = asks.output().unwrap();
    assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    let handle = String::from_utf8(asked.stdout).unwrap();
    let child = world.end_of(&["resume", handle.trim(), "--payload", "mail"]);
    let said = String::from_utf8(child.stdout).unwrap();
    assert_eq!((child.status.code(), &said[..]), (Some(21), "child 0 of generation 1 with mail\n"));
    let mut asks = Command::new(&program);
    asks.env("LD_PRELOAD", library()).env("MITOSIS_AGENT", "/nonexistent/agent.sock");
    let asked = asks.output().unwrap();
    assert_eq!(asked.status.code(), Some(14));
    assert!(String::from_utf8(asked.stderr).unwrap().contains("no mitosis agent answers"));
}

/// Says its pid, and random bytes of OpenSSL's, whenever it is asked.
const NODE: &str = "const { randomBytes } = require('crypto'); randomBytes(8);\n\
    require('http').createServer((_, answer) => {\n\
    \x20 answer.end(`${process.pid} ${randomBytes(16).toString('hex')}`);\n\
    }).listen(+process.argv[1], '127.0.0.1', () => console.log('listens'));";
const PYTHON: &str = "import http.server, os, ssl, sys\n\
    ssl.RAND_bytes(8)\n\
    class H(http.server.BaseHTTPRequestHandler):\n\
    \x20   def do_GET(self):\n\
    \x20       self.send_response(200); self.end_headers()\n\
    \x20       self.wfile.write(f'{os.getpid()} {ssl.RAND_bytes(16).hex()}'.encode())\n\
    \x20   def log_message(self, *_): pass\n\
    server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), H)\n\
    print('listens', flush=True)\n\
    server.serve_forever()\n";

fn random_bytes_differ(program: &str, option: &str, source: &str) {
    let (world, port) = (World::new(), free_port());
    let mut command = Command::new(program);
    let program = world.preloaded(command.args([option, source, &port.to_string()]), "out");
    let handle = world.prepare(program.pid());
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let children: Vec<_> = ports
        .iter()
        .map(|other| {
            let listen = format!("{port}={other}");
            world.resume(&handle, &["--listen", &listen], &format!("child-{other}"))
        })
        .collect();
    let mut answers = vec![get(port)];
    for port in ports {
        wait_for("a child's answer", || {
            let answer = get(port);
            let there = !answer.is_empty();
            answers.extend(there.then_some(answer));
            there
        });
    }
    drop(children);
    let field = |index: usize| {
        answers.iter().map(|answer| answer.split(' ').nth(index).unwrap()).collect::<BTreeSet<_>>()
    };
    assert_eq!(field(1).len(), answers.len(), "{answers:?}");
    // That is what makes it hard: to themselves they all are one process.
    assert_eq!(field(0).len(), 1, "{answers:?}");
}

#[test]
fn children_of_one_pid_have_random_bytes_of_their_own_in_node() {
    random_bytes_differ("node", "-e", NODE);
}

#[test]
fn children_of_one_pid_have_random_bytes_of_their_own_in_python() {
    random_bytes_differ("python3", "-c", PYTHON);
}

#[test]
fn a_child_is_prepared_as_its_program_was() {
    let (world, port) = (World::new(), free_port());
    let mut command = Command::new("node");
    let program = world.preloaded(command.args(["-e", NODE, &port.to_string()]), "out");
    let handle = world.prepare(program.pid());
    let ports = [free_port(), free_port()];
    let listen = |from: u16, to: u16| format!("{from}={to}");
    let _child = world.resume(&handle, &["--listen", &listen(port, ports[0])], "child");
    wait_for("the child's answer", || !get(ports[0]).is_empty());
    let listing = world.end_of(&["--json", "ls"]).stdout;
    let listing: serde_json::Value = serde_json::from_slice(&listing).unwrap();
    let pids = listing["children"].as_array().unwrap().iter();
    let pids: Vec<u64> = pids.map(|child| child["pid"].as_u64().unwrap()).collect();
    assert_eq!(pids.len(), 1, "{listing}");
    let pid = u32::try_from(pids[0]).unwrap();
    let handle = world.prepare(pid);
    let _grandchild =
        world.resume(&handle, &["--listen", &listen(ports[0], ports[1])], "grandchild");
    wait_for("the grandchild's answer", || !get(ports[1]).is_empty());
    let answers = [get(port), get(ports[0]), get(ports[1])];
    let random = |answer: &String| answer.split(' ').nth(1).unwrap().to_owned();
    assert_eq!(answers.iter().map(random).collect::<BTreeSet<_>>().len(), 3, "{answers:?}");
}

/// A daemon, say: the library came with the fork(2), not by an exec.
#[test]
fn a_process_that_a_program_has_forked_is_prepared() {
    const PERL: &str = "$| = 1; my $from = $$; exit if fork(); select undef, undef, undef, 0.01 while getppid() == $from;\n\
        for (my $n = 0; ; $n++) { print \"$$ $n\\n\"; select undef, undef, undef, 0.02 }";
    let world = World::new();
    let mut program = world.preloaded(Command::new("perl").args(["-e", PERL]), "out");
    assert_eq!(program.ends(), 0);
    // It is not ours to wait for: its first line may come later than its parent's end.
    wait_for("the daemon's first line", || world.text("out").contains('\n'));
    let pid = world.text("out").split(' ').next().unwrap().parse::<u32>().unwrap();
    let _daemon = Stray::of(pid);
    assert_ne!(pid, program.pid());
    let handle = world.prepare(pid);
    let _child = world.resume(&handle, &[], "child");
    wait_for("the child's progress", || world.text("child").lines().count() > 3);
    let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap();
    let said = world.text("child");
    let numbers: Vec<u32> = said.lines().take(3).map(number).collect();
    assert_eq!(numbers, [numbers[0], numbers[0] + 1, numbers[0] + 2]);
}
