//! What hosts share (a link, and the time of day) and what they do not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mitosis_hosts::Host;

use crate::setting::*;

#[test]
fn every_namespace_is_its_own() {
    let pair = pair();
    let outer = namespaces_of(std::process::id().cast_signed());
    let a = namespaces_of(pair.a().record().init_pid);
    let b = namespaces_of(pair.b().record().init_pid);
    for ((outer, a), b) in outer.iter().zip(&a).zip(&b) {
        let inodes = BTreeSet::from([outer.inode, a.inode, b.inode]);
        assert_eq!(inodes.len(), 3, "shared: {outer:?} {a:?} {b:?}");
    }
    // A command is where its host's init is.
    let script = "for n in pid net mnt uts ipc time cgroup; do ls -Ldi /proc/self/ns/$n; done";
    for (host, expected) in [(pair.a(), a), (pair.b(), b)] {
        let listing = shell(host, script);
        let seen: Vec<u64> = listing
            .lines()
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(seen, expected.iter().map(|namespace| namespace.inode).collect::<Vec<_>>());
    }
}

#[test]
fn hosts_see_no_files_of_each_other() {
    let pair = pair();
    for (here, there) in [(pair.a(), pair.b()), (pair.b(), pair.a())] {
        for directory in ["/run", "/dev/shm"] {
            shell(here, &format!("echo x > {directory}/only-here"));
            let listing = shell(there, &format!("ls {directory}"));
            assert!(!listing.contains("only-here"), "{directory}: {listing}");
            assert!(!Path::new(directory).join("only-here").exists(), "{directory} leaks outside");
            shell(here, &format!("[ -e {directory}/only-here ] && > {directory}/only-here"));
            fs::remove_file(here.outside(format!("{directory}/only-here"))).unwrap();
        }
    }
    let top = "bin dev etc lib proc root run sbin sys tmp usr";
    let seen = shell(pair.b(), "cd /; echo *").replace("lib32 ", "").replace("lib64 ", "");
    assert_eq!(seen, top);
    // What is not of the tree itself is the kernel's: no mount leads to a disk or to host-a.
    let mounts = shell(pair.b(), "cat /proc/self/mountinfo");
    for mount in mounts.lines() {
        let kind = mount.split(" - ").nth(1).unwrap().split(' ').next().unwrap();
        assert!(["tmpfs", "proc", "sysfs", "devpts"].contains(&kind), "{mount}");
    }
    for file in ["/etc/passwd", "/etc/os-release", BIN] {
        assert!(shell(pair.a(), &format!("ls {file}")).contains(file));
        assert_eq!(shell(pair.b(), &format!("ls {file} 2>/dev/null || echo none")), "none");
    }
}

#[test]
fn hosts_see_no_processes_of_each_other() {
    let pair = pair();
    let sleeps = ["123.25", "124.25"];
    let start = |host: &Host, seconds| {
        host.command(["/bin/sleep", seconds]).stdout(Stdio::null()).spawn().unwrap()
    };
    let mut children = [start(pair.a(), sleeps[0]), start(pair.b(), sleeps[1])];
    let listing =
        "for p in /proc/[0-9]*; do { tr '\\0' ' ' < $p/cmdline; echo; } 2>/dev/null; done";
    let listing_b = "for p in /proc/[0-9]*; do cat $p/cmdline; echo; done 2>/dev/null | cat -v";
    soon("a process is seen on its own host", || {
        shell(pair.a(), listing).contains(sleeps[0])
            && shell(pair.b(), listing_b).contains(sleeps[1])
    });
    assert!(!shell(pair.a(), listing).contains(sleeps[1]));
    assert!(!shell(pair.b(), listing_b).contains(sleeps[0]));
    // An init, the sleep and the shell with their monitors: nobody else is there.
    let script = "for p in /proc/[0-9]*; do read n < $p/comm; echo $n; done 2>/dev/null";
    soon("none but these run on host-b", || {
        let names = shell(pair.b(), script);
        let mut names: Vec<_> = names.lines().collect();
        names.sort_unstable();
        names == ["bash", "hosts-exec", "hosts-exec", "hosts-init", "sleep"]
    });
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn host_b_has_no_python_and_what_was_asked_for() {
    let pair = pair();
    let found = shell(pair.b(), "ls /bin /usr/bin /usr/local/bin /usr/lib 2>/dev/null; :");
    assert!(!found.contains("python"), "{found}");
    assert!(found.contains("bash"), "{found}");
    shell(
        pair.b(),
        "echo x > /dev/null; for d in zero full random urandom tty fuse; do [ -c /dev/$d ]; done",
    );
    shell(pair.b(), "exec 3<>/dev/fuse");
    shell(pair.b(), "! echo 0 2>/dev/null > /sys/kernel/mm/transparent_hugepage/enabled");
}

#[test]
fn clocks_of_host_b_are_ahead() {
    let pair = pair();
    let clocks = |host: &Host, bin: &str| -> serde_json::Value {
        serde_json::from_slice(&host.command([bin, "clocks"]).output().unwrap().stdout).unwrap()
    };
    let (a, b) = (clocks(pair.a(), BIN), clocks(pair.b(), "/bin/mitosis-hosts"));
    let ahead = |clock: &str| b[clock].as_f64().unwrap() - a[clock].as_f64().unwrap();
    let week_s = 7.0 * 24.0 * 3600.0;
    for clock in ["monotonic_s", "boottime_s"] {
        assert!((ahead(clock) - week_s).abs() < 5.0, "{clock}: {}", ahead(clock));
    }
    assert!(ahead("realtime_s").abs() < 5.0);
}

#[test]
fn names_resolve_on_both() {
    let pair = pair();
    for (host, name) in [(pair.a(), "host-a"), (pair.b(), "host-b")] {
        assert_eq!(
            shell(host, "cat /proc/sys/kernel/hostname /etc/hostname"),
            format!("{name}\n{name}")
        );
        for (peer, address) in [("host-a", "10.77.0.1"), ("host-b", "10.77.0.2")] {
            let resolved = shell(host, &format!("getent ahostsv4 {peer}"));
            assert!(resolved.starts_with(address), "{resolved}");
        }
    }
    assert!(!fs::read_to_string("/etc/hosts").unwrap().contains("10.77.0."), "leaks outside");
}

#[test]
fn tcp_crosses_the_link_and_a_cut_is_silent() {
    let pair = pair();
    let mut server = greeter(&pair);
    assert_eq!(shell(pair.b(), GREET), "hello");

    pair.cut_link().unwrap();
    let mut caller =
        pair.b().command(["/bin/bash", "-c", GREET]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(caller.try_wait().unwrap().is_none(), "a cut link must neither answer nor refuse");

    pair.restore_link().unwrap();
    let output = caller.wait_with_output().unwrap();
    assert_eq!(text(&output), "hello\n", "a call begun over the cut link goes on after it");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn a_delayed_link_is_slow_or_says_what_the_kernel_lacks() {
    let pair = pair();
    let mut server = greeter(&pair);
    match pair.delay_link(100) {
        Err(error) => assert!(format!("{error:#}").contains("sch_netem"), "{error:#}"),
        Ok(()) => {
            let start = Instant::now();
            assert_eq!(shell(pair.b(), GREET), "hello");
            assert!(start.elapsed() >= Duration::from_millis(400), "{:?}", start.elapsed());
        }
    }
    pair.restore_link().unwrap();
    assert_eq!(shell(pair.b(), GREET), "hello");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn nothing_shows_outside_and_pairs_do_not_meet() {
    let (mounts, links) = (outer_mounts(), outer_links());
    std::thread::scope(|scope| {
        for i in 0..3 {
            scope.spawn(move || {
                let pair = pair();
                shell(pair.b(), &format!("echo {i} > /run/number"));
                let mut server = greeter(&pair);
                assert_eq!(shell(pair.b(), GREET), "hello");
                assert_eq!(shell(pair.b(), "cat /run/number"), i.to_string());
                server.kill().unwrap();
                server.wait().unwrap();
                pair.down().unwrap();
            });
        }
        let watched = pair();
        assert_eq!(outer_mounts(), mounts);
        assert_eq!(outer_links(), links);
        drop(watched);
    });
    assert_eq!((outer_mounts(), outer_links()), (mounts, links));
}
