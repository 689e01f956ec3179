//! C programs that check themselves, compiled against the header and linked with the library as a user
//! would, some of them with an agent that only talks.

mod agent;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs};

use agent::Agent;
use tempfile::TempDir;

const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];
/// What the static library needs of the system, as `rustc --print native-static-libs` tells.
const SYSTEM: [&str; 4] = ["-lpthread", "-ldl", "-lm", "-lgcc_s"];

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A library as users get it: alone, with nothing of the agent's in the core. Cargo builds no library of C's
/// for tests, so this asks for it.
fn library(name: &str) -> PathBuf {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
        let exe = env::current_exe().unwrap();
        let profile = exe.ancestors().nth(2).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "mitosis-capi", "--target-dir"]);
        cargo.arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        run(&mut cargo);
        profile.to_owned()
    });
    BUILT.join(name)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Shared,
    Static,
}

/// A compiled program and what it needs beside it.
struct Program(TempDir);

impl Program {
    fn compile(name: &str, link: Link) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-D_GNU_SOURCE", "-g"]).args(STRICT);
        cc.arg("-I").arg(source("../include")).arg("-o").arg(dir.path().join("program"));
        cc.arg(source("tests/c_programs").join(name));
        match link {
            Link::Shared => {
                // As an installation would have it: the linker's name, and the one for run time.
                for name in ["libmitosis.so", "libmitosis.so.0"] {
                    std::os::unix::fs::symlink(library("libmitosis.so"), dir.path().join(name))
                        .unwrap();
                }
                cc.arg("-L").arg(dir.path()).arg("-lmitosis");
            }
            Link::Static => {
                cc.arg(library("libmitosis.a")).args(SYSTEM);
            }
        }
        run(cc.arg("-lpthread"));
        Program(dir)
    }

    fn with_agent(&self, socket: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.arg("60").arg(self.0.path().join("program"));
        command.env("LD_LIBRARY_PATH", self.0.path()).env("MITOSIS_AGENT", socket);
        command
    }
}

#[test]
fn the_header_is_clean_c_and_cpp() {
    let dir = tempfile::tempdir().unwrap();
    for (compiler, standard, name) in [("cc", "c11", "a.c"), ("c++", "c++17", "a.cc")] {
        let file = dir.path().join(name);
        fs::write(
            &file,
            "#include <mitosis.h>\nint main(void) { return mitosis_child_index() < 0; }\n",
        )
        .unwrap();
        let mut check = Command::new(compiler);
        check.arg(format!("-std={standard}")).args(STRICT).arg("-fsyntax-only");
        run(check.arg("-I").arg(source("../include")).arg(file));
    }
}

#[test]
fn arguments_that_cannot_be_right() {
    for link in [Link::Shared, Link::Static] {
        let program = Program::compile("arguments.c", link);
        run(&mut program.with_agent(Path::new("/nonexistent/agent.sock")));
    }
}

#[test]
fn children_are_waited_for_and_killed() {
    let agent = Agent::start();
    let program = Program::compile("children.c", Link::Shared);
    run(program.with_agent(&agent.socket()).arg(agent.handle()));
}

#[test]
fn a_resume_is_waited_for_by_a_descriptor() {
    let agent = Agent::start();
    let program = Program::compile("resuming.c", Link::Shared);
    let silent = agent.socket().with_file_name("silent.sock");
    run(program.with_agent(&agent.socket()).arg(agent.handle()).arg(silent));
}

#[test]
fn a_seed_is_prepared_and_dropped() {
    let agent = Agent::start();
    for link in [Link::Shared, Link::Static] {
        run(&mut Program::compile("seed.c", link).with_agent(&agent.socket()));
    }
    agent.sees_seeds(2);
}

#[test]
fn a_seed_of_all_threads() {
    let agent = Agent::start();
    for link in [Link::Shared, Link::Static] {
        run(&mut Program::compile("threads.c", link).with_agent(&agent.socket()));
    }
    agent.sees_seeds(8);
}

#[test]
fn hooks_run_around_a_prepare() {
    let agent = Agent::start();
    for link in [Link::Shared, Link::Static] {
        run(&mut Program::compile("hooks.c", link).with_agent(&agent.socket()));
    }
    agent.sees_seeds(6);
}

#[test]
fn the_library_is_what_a_runtime_may_load() {
    let library = library("libmitosis.so");
    let dynamic = run(Command::new("readelf").arg("-d").arg(&library));
    assert!(dynamic.contains("[libmitosis.so.0]"), "{dynamic}");
    let exported = run(Command::new("nm").args(["-D", "--defined-only"]).arg(&library));
    for line in exported.lines() {
        let name = line.rsplit(' ').next().unwrap();
        assert!(name.starts_with("mitosis_"), "exports {name}");
    }
    let header = fs::read_to_string(source("../include/mitosis.h")).unwrap();
    let declared = header.lines().filter(|line| !line.starts_with([' ', '#', '/', 't']));
    let declared = declared.filter(|line| line.contains('(')).count();
    assert_eq!(exported.lines().count(), declared, "{exported}");
    let all = run(Command::new("nm").arg("-C").arg(&library));
    for foreign in [
        "fabric::",
        "image::",
        "export::",
        "keeper::",
        "mitosis::agent",
        "sys::fuse",
        "snow::",
        "ibv_",
    ] {
        let found = all.lines().find(|line| line.contains(foreign));
        assert!(found.is_none(), "the client has a part of the agent: {found:?}");
    }
}
