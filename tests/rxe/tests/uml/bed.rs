//! The bed itself: guests in user mode.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use mitosis_guests::{Config, Guests, Kind, target};

use crate::hosts::PATIENCE;

const RUN: &str = env!("CARGO_BIN_EXE_mitosis-guests");

/// Guests whose kernels are processes, each with programs that are processes, too.
#[test]
fn nothing_is_left_of_guests_whose_owner_ends() {
    let directory = tempfile::tempdir().unwrap();
    let job = directory.path().join("job.sh");
    fs::write(&job, "#!/bin/sh\nsleep 1000\n").unwrap();
    let options = ["--kind", "user-mode", "--nodes", "3", "--name", "owned-in-user-mode"];
    let mut owner = Command::new(RUN).args(options).arg(&job).spawn().unwrap();
    let name = format!("rxe/run/owned-in-user-mode.{}", owner.id());
    let run = target().canonicalize().unwrap().join(name);
    let processes = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let places = processes.filter_map(|entry| fs::read_link(entry.path().join("cwd")).ok());
        places.filter(|place| *place == run).count()
    };
    let wait_for = |wanted: &dyn Fn(usize) -> bool| {
        let begun = Instant::now();
        while !wanted(processes()) {
            assert!(begun.elapsed() < PATIENCE, "{} processes", processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    // What starts each kernel, the kernel, and its shells and `sleep`.
    wait_for(&|count| count > 3 * 4);
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_for(&|count| count == 0);
}

#[test]
fn a_guest_has_its_own_kernel_and_its_end_is_told() {
    let mut config = Config::named("user-mode-ends");
    (config.kind, config.nodes, config.memory_mib) = (Kind::UserMode, 2, 96);
    let guests = Guests::up(&config).expect("guests come up");
    let say = |node: u32, text: &str| {
        guests.node(node).script(text, text).and_then(|job| job.end(PATIENCE)).unwrap()
    };
    let version = say(1, "uname -r").ok().unwrap();
    assert!(version.starts_with("6.12"), "{version}");
    assert_eq!(say(2, "hostname; ping -c 1 -q host-a >ping; exit 7").status, 7);
    let link = say(1, "ip -o link show eth0; rdma link show rxe0/1").ok().unwrap();
    for words in ["mtu 9000", "52:54:00:00:00:01", "state ACTIVE"] {
        assert!(link.contains(words), "no {words:?} in {link}");
    }
    let job = guests.node(2).script("sleep 1000", "sleeper").unwrap();
    let begun = Instant::now();
    guests.node(2).kill();
    let error = job.end(PATIENCE).unwrap_err().to_string();
    assert!(error.contains("the guest of sleeper ended"), "{error}");
    assert!(begun.elapsed() < PATIENCE / 2, "the end is noticed, not waited for");
    assert_eq!(say(1, "exit 3").status, 3, "the other goes on");
}

#[test]
fn what_a_kind_cannot_have_is_refused() {
    let mut config = Config::named("refused");
    config.nodes = 3;
    let error = Guests::up(&config).unwrap_err().to_string();
    assert_eq!(error, "3 guests asked for; 1 to 2 of this kind can be had");
    (config.nodes, config.kind) = (9, Kind::UserMode);
    assert!(Guests::up(&config).unwrap_err().to_string().contains("1 to 8"));
    (config.nodes, config.kind) = (2, Kind::Emulated);
    config.device = mitosis_guests::Device::SoftIwarp;
    let error = Guests::up(&config).unwrap_err().to_string();
    assert!(error.contains("no kernel of Debian has Soft-iWARP"), "{error}");
}
