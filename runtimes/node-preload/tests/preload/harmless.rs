//! What the library does to programs that nobody prepares: nothing.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::world::{Running, World, library, wait_for, with_owner_and_mode};

const NOBODY: u32 = 65534;

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

/// What a process maps of it, most of which all processes share, and what each has for itself.
#[test]
fn it_is_small() {
    const KIB: u64 = 1024;
    let (_, smaps, _) =
        output(Command::new("cat").arg("/proc/self/smaps").env("LD_PRELOAD", library()));
    let (mut is_its, mut mapped, mut own) = (false, 0, 0);
    for line in smaps.lines() {
        let mut fields = line.split_whitespace();
        let (name, value) = (fields.next().unwrap(), fields.next());
        let bytes = || value.unwrap().parse::<u64>().unwrap() * KIB;
        match name {
            "Size:" if is_its => mapped += bytes(),
            "Anonymous:" if is_its => own += bytes(),
            // The first line of a mapping: a range of addresses.
            range if !range.ends_with(':') => is_its = line.ends_with("libmitosis_preload.so"),
            _ => {}
        }
    }
    println!("{} KiB mapped, {} KiB of them a process's own", mapped / KIB, own / KIB);
    // A release build maps 750 KiB and has 28 of its own; one for debugging has more code.
    assert!(own > 0 && own < 128 * KIB, "{own} bytes");
    assert!(mapped > own && mapped < 2048 * KIB, "{mapped} bytes");
}

/// Nothing of the library's wakes a program: no timer, no thread, no signal.
#[test]
fn a_program_that_sleeps_sleeps_on() {
    let mut sleep = Command::new("sleep");
    let sleep = Running(sleep.arg("600").env("LD_PRELOAD", library()).spawn().unwrap());
    let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", sleep.pid())).unwrap();
    let asleep = format!("{} ", libc::SYS_clock_nanosleep);
    wait_for("its sleep", || read("syscall").starts_with(&asleep));
    assert!(read("maps").contains("libmitosis_preload.so"));
    let activity = || {
        let status = read("status");
        let lines = status.lines().filter(|line| line.contains("ctxt_switches"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = activity();
    assert_eq!(before.len(), 2);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(activity(), before);
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
    // Another user's: the kernel gives root nothing by a file of root's.
    with_owner_and_mode("/bin/cat", &privileged, NOBODY, 0o4755);
    let privileged = privileged.display().to_string();
    let ended = world.end_of(&["run", "--", &privileged, "/proc/self/status", "/proc/self/maps"]);
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success() && said.contains("is set-user-ID"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let told = String::from_utf8(ended.stdout).unwrap();
    assert!(told.contains(&format!("Uid:\t0\t{NOBODY}\t")), "{told}");
    assert!(told.contains("/privileged") && !told.contains("libmitosis_preload"), "{told}");
}
