//! What the bed says where a job, a machine or its owner ends badly.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use mitosis_guests::{Config, Guests, target};

use crate::world::{PATIENCE, boot_ahead};

const RUN: &str = env!("CARGO_BIN_EXE_mitosis-guests");

#[test]
fn jobs_end_each_for_itself_and_a_machine_for_all() {
    let mut config = Config::named("ends");
    config.nodes = 1;
    let guests = Guests::up(&config).expect("a guest comes up");
    let guest = guests.node(1);
    let exit = |status: i32| (guest.script(&format!("exit {status}"), "exit").unwrap(), status);
    for (job, status) in (0..32).map(exit).collect::<Vec<_>>() {
        assert_eq!(job.end(PATIENCE).unwrap().status, status);
    }
    let mut job =
        guest.script("echo $$ >/host/sleeper; echo it begins; sleep 1000", "sleeper").unwrap();
    assert_eq!(job.line(PATIENCE).unwrap(), "it begins");
    let error = job.end(Duration::from_secs(1)).unwrap_err().to_string();
    for words in ["sleeper", "still ran after 1s", "it begins"] {
        assert!(error.contains(words), "no {words:?} in {error}");
    }
    let looked = guest.script("kill -0 -$(cat /host/sleeper)", "look").unwrap();
    assert_eq!(looked.end(PATIENCE).unwrap().status, 1, "nothing of its group is left");
    let job = guest.script("echo c >/proc/sysrq-trigger", "crasher").unwrap();
    let begun = Instant::now();
    let error = job.end(PATIENCE).unwrap_err().to_string();
    assert!(begun.elapsed() < PATIENCE / 2, "the end is noticed, not waited for");
    for words in ["the guest of crasher ended", "Kernel panic"] {
        assert!(error.contains(words), "no {words:?} in {error}");
    }
}

#[test]
fn a_job_is_given_words_and_its_status_is_the_caller_s() {
    // The first of these tests; a machine of its own leaves a processor of this one idle.
    boot_ahead();
    let directory = tempfile::tempdir().unwrap();
    let job =
        script(&directory, "echo \"$NODE of $NODES, $WORD: $*\"; cat /host/files/given; exit 7");
    fs::write(directory.path().join("given"), "what was given\n").unwrap();
    let given = format!("{}/given", directory.path().display());
    let ended = Command::new(RUN)
        .args(["--name", "words", "--nodes", "1", "--env", "WORD=it's", "--file", &given])
        .arg(&job)
        .args(["a b", "c"])
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    let out = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(out, "host-a: 1 of 1, it's: a b c\nhost-a: what was given\n");
}

/// However the owner ends, no emulator stays.
#[test]
fn emulators_end_with_their_owner() {
    let directory = tempfile::tempdir().unwrap();
    let job = script(&directory, "sleep 1000");
    let mut owner = Command::new(RUN).args(["--name", "owned"]).arg(&job).spawn().unwrap();
    let run = target().canonicalize().unwrap().join(format!("rxe/run/owned.{}", owner.id()));
    let emulators = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let places = processes.filter_map(|entry| fs::read_link(entry.path().join("cwd")).ok());
        places.filter(|place| *place == run).count()
    };
    let wait_for = |number: usize| {
        let begun = Instant::now();
        while emulators() != number {
            assert!(begun.elapsed() < PATIENCE, "{} emulators, not {number}", emulators());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(2);
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_for(0);
}

fn script(directory: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = directory.path().join("job.sh");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}
