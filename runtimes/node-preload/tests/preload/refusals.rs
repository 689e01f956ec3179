//! Processes that cannot be asked: they go on, and it is said why and what to do.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::world::{World, library, wait_for};

/// Why a program of this mode is not prepared; it must be alive after that.
fn why(mode: &str) -> String {
    let world = World::new();
    let mut program = world.preloaded(Command::new(world.c("modes.c", &[])).arg(mode), "out");
    let began = Instant::now();
    let said = world.refusal(&["prepare", "--patience-ms", "700", &program.pid().to_string()]);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(program.lives(), "{said}");
    said
}

#[test]
fn the_program_has_a_handler_of_its_own() {
    let said = why("handler");
    assert!(said.contains("has a handler of its own") && said.contains("MITOSIS_SIGNAL"), "{said}");
}

#[test]
fn the_program_has_put_the_default_back_or_ignores_it() {
    assert!(why("default").contains("has put back the default action of signal 59"));
    assert!(why("ignore").contains("ignores signal 59"));
}

#[test]
fn all_threads_block_the_signal() {
    let said = why("block");
    assert!(said.contains("all threads") && said.contains("block signal 59"), "{said}");
}

#[test]
fn a_filter_is_in_force() {
    let said = why("seccomp");
    assert!(said.contains("seccomp") && said.contains("--allow-seccomp"), "{said}");
}

#[test]
fn a_program_that_starts_under_a_filter_is_left_alone_and_that_is_said_once() {
    let world = World::new();
    let ready = world.path("ready");
    let mut command = Command::new(world.c("modes.c", &[]));
    command.args(["exec-under-seccomp", "sh", "-c", "ls /proc/$$/task | wc -l; sh -c :; sleep 30"]);
    command.env("MITOSIS_PREPARE_WHEN", format!("file:{}", ready.display()));
    let _program = world.preloaded(&mut command, "out");
    std::fs::write(ready, "").unwrap();
    wait_for("the count of threads", || world.text("out").contains("1\n"));
    let said = world.text("out");
    // modes.c itself starts without the filter, and has its thread then; the shell has none.
    assert_eq!(said.matches("seccomp filter").count(), 1, "{said}");
}

#[test]
fn another_signal_is_the_remedy() {
    let world = World::new();
    let mut command = Command::new(world.c("modes.c", &[]));
    let mut program = world.preloaded(command.arg("handler").env("MITOSIS_SIGNAL", "52"), "out");
    assert!(world.prepare(program.pid()).starts_with("mitosis://"));
    assert!(program.lives() && !world.text("out").contains("own handler"));
}

#[test]
fn a_stopped_program_is_not_asked() {
    let world = World::new();
    let program = world.preloaded(&mut Command::new(world.c("modes.c", &[])), "out");
    program.signal(libc::SIGSTOP);
    let said = world.refusal(&["prepare", &program.pid().to_string()]);
    assert!(said.contains("is stopped") && said.contains("kill -CONT"), "{said}");
    program.signal(libc::SIGCONT);
    assert!(world.prepare(program.pid()).starts_with("mitosis://"));
}

#[test]
fn programs_without_the_library_and_wrong_arguments() {
    let world = World::new();
    let mut sleep = world.start(Command::new("sleep").arg("30"), "out");
    let said = world.refusal(&["prepare", &sleep.pid().to_string()]);
    assert!(said.contains("was not started with the preload library"), "{said}");
    assert!(sleep.lives());
    let fixed = world.c("modes.c", &["-static"]);
    let fixed = world.preloaded(&mut Command::new(fixed), "fixed");
    let said = world.refusal(&["prepare", &fixed.pid().to_string()]);
    assert!(said.contains("is linked statically"), "{said}");
    for (arguments, status, says) in [
        (&["run", "--", "no-such-program"][..], 127, "there is no program 'no-such-program'"),
        (&["run"][..], 2, "required"),
        (&["run", "--when", "soon", "--", "true"][..], 2, "'soon' names no moment"),
        (&["run", "--preload", "/nonexistent.so", "--", "true"][..], 1, "no preload library"),
        (&["prepare", "0"][..], 2, "0 is not in"),
        (&["prepare", "4194305"][..], 1, "no process 4194305"),
    ] {
        let ended = world.end_of(arguments);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn a_signal_that_programs_use_for_others_is_not_taken_and_that_is_said_once() {
    for named in ["33", "65", "USR1"] {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "/bin/echo runs; /bin/echo on"]);
        command.env("LD_PRELOAD", library()).env("MITOSIS_SIGNAL", named);
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"runs\non\n"[..]));
        let said = String::from_utf8(output.stderr).unwrap();
        let wanted =
            format!("mitosis: MITOSIS_SIGNAL: '{named}' is no signal from 34 to 64; 59 it is\n");
        assert_eq!(said, wanted);
    }
}

#[test]
fn a_moment_that_is_none_is_said_and_the_program_runs() {
    let mut command = Command::new("echo");
    command.arg("runs").env("LD_PRELOAD", library()).env("MITOSIS_PREPARE_WHEN", "soon");
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"runs\n"[..]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("MITOSIS_PREPARE_WHEN: 'soon' names no moment"), "{said}");
}
