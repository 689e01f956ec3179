//! What the library does to programs that nobody prepares: nothing.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::world::{World, library, with_mode};

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Programs one after the other, with and without, so that a busy machine is busy for both.
#[test]
fn a_start_costs_less_than_a_millisecond() {
    const ROUNDS: usize = 300;
    let once = |preload: bool| {
        let mut command = Command::new("/bin/true");
        command.env_clear();
        if preload {
            command.env("LD_PRELOAD", library());
        }
        let began = Instant::now();
        assert!(command.status().unwrap().success());
        began.elapsed()
    };
    let (mut without, mut with): (Vec<Duration>, Vec<Duration>) =
        (0..ROUNDS).map(|_| (once(false), once(true))).unzip();
    without.sort();
    with.sort();
    let (without, with) = (without[ROUNDS / 4], with[ROUNDS / 4]);
    println!("lower quartile of {ROUNDS}: {without:?} without, {with:?} with");
    assert!(with < without + Duration::from_millis(1), "{without:?} without, {with:?} with");
}

#[test]
fn programs_that_exec_and_fork_go_on_as_ever() {
    let script = "exit_status() { return 3; }; (exit_status); echo $?; sh -c 'exec printf %s inner'; \
                  echo \"$LD_PRELOAD\" | wc -w; exec sh -c 'echo last; exit 9'";
    let with = output(Command::new("sh").args(["-c", script]).env("LD_PRELOAD", library()));
    assert_eq!(with, (Some(9), "3\ninner1\nlast\n".to_owned(), String::new()));
    let script = "my $p = fork(); if (!$p) { exit 5 } waitpid($p, 0); print $? >> 8, ' ', $$ == getppid() ? 'x' : 'y'";
    let with = output(Command::new("perl").args(["-e", script]).env("LD_PRELOAD", library()));
    assert_eq!(with, (Some(0), "5 y".to_owned(), String::new()));
}

/// CLOSE_RANGE_CLOEXEC.
const CLOEXEC: libc::c_int = 4;

#[test]
fn no_thread_and_no_descriptor_is_there() {
    // By the shell itself: of a pipeline it may or may not have closed its ends yet.
    let script = "set -- /proc/$$/task/*; echo $#; set -- /proc/$$/fd/*; echo $#";
    let mut shell = Command::new("sh");
    // What tests beside this one have open, and another's command inherits, is not counted.
    // SAFETY: the call closes nothing and is safe after fork(2).
    unsafe {
        shell.pre_exec(|| match libc::close_range(3, u32::MAX, CLOEXEC) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let without = output(shell.args(["-c", script]));
    let with = output(shell.env("LD_PRELOAD", library()));
    assert_eq!(with, without);
}

#[test]
fn a_signal_that_asks_nothing_does_what_it_did() {
    let world = World::new();
    let mut sleep = world.preloaded(&mut Command::new(world.c("modes.c", &[])), "out");
    sleep.signal(59);
    assert_eq!(sleep.ends(), 128 + 59);
}

#[test]
fn static_and_privileged_programs_run_without_it_and_it_is_said() {
    let world = World::new();
    let fixed = world.c("asks.c", &["-static"]).display().to_string();
    let ended = world.end_of(&["run", "--", &fixed]);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(0), &b"alone\n"[..]), "{said}");
    assert!(said.contains("is linked statically") && said.lines().count() == 1, "{said}");
    let privileged = world.path("privileged");
    with_mode("/bin/true", &privileged, 0o4755);
    let ended = world.end_of(&["run", "--", &privileged.display().to_string()]);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success() && said.contains("is set-user-ID"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
