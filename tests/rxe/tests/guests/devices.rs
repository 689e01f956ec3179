//! The bed itself: RDMA devices of two kernels, and READs between them that no code of ours makes.

use std::time::Duration;

use crate::world::{HOST_A, HOST_B, PATIENCE, World, machines};

#[test]
fn each_machine_has_a_device() {
    let world = machines();
    for node in [HOST_A, HOST_B] {
        let said = world.run(node, &["ibv_devinfo", "-v", "-d", "rxe0"]).ok().unwrap();
        for words in ["PORT_ACTIVE (4)", "active_mtu:\t\t4096 (5)", "link_layer:\t\tEthernet"] {
            assert!(said.contains(words), "no {words:?} in {said}");
        }
        let address = format!("::ffff:10.77.0.{node}, RoCE v2");
        assert!(said.contains(&address), "no {address:?} in {said}");
    }
}

#[test]
fn perftest_reads_between_them() {
    let world = machines();
    let figures = perftest(&world, &["ib_read_lat", "-s", "4096", "-n", "200"]);
    let typical_us = figures[4];
    println!("ib_read_lat, 4 KiB, typical: {typical_us} us (an emulator's)");
    assert!((10.0..1e6).contains(&typical_us), "{figures:?}");
    let figures = perftest(&world, &["ib_read_bw", "-s", "65536", "-n", "100"]);
    let average_mb_s = figures[3];
    println!("ib_read_bw, 64 KiB, average: {average_mb_s} MB/s (an emulator's)");
    assert!((0.1..1e5).contains(&average_mb_s), "{figures:?}");
}

#[test]
fn what_is_read_is_what_was_written() {
    let world = machines();
    let serve = ["rping", "-s", "-a", "10.77.0.1", "-C", "10"];
    let server = world.guests.node(HOST_A).run(&serve).unwrap();
    wait_on_a(&world, "rdma resource show cm_id | grep -q LISTEN");
    // The kernel says LISTEN a moment before it does.
    std::thread::sleep(Duration::from_millis(200));
    // -V: compares what was read with what was sent.
    let argv = ["rping", "-c", "-a", "10.77.0.1", "-C", "10", "-v", "-V"];
    let said = world.run(HOST_B, &argv).ok().unwrap();
    assert_eq!(said.lines().filter(|line| line.starts_with("ping data: ")).count(), 10, "{said}");
    server.end(PATIENCE).unwrap();
}

/// The row of figures that a program of perftest prints on host-b.
fn perftest(world: &World, argv: &[&str]) -> Vec<f64> {
    let common = ["-d", "rxe0", "-F"];
    let server = world.guests.node(HOST_A).run(&[argv, &common].concat()).unwrap();
    // Over tcp its two sides tell each other of their QPs.
    wait_on_a(world, "netstat -ltn | grep -q :18515");
    let said = world.run(HOST_B, &[argv, &common, &["10.77.0.1"]].concat()).ok().unwrap();
    server.end(PATIENCE).unwrap().ok().unwrap();
    let heading = said.lines().position(|line| line.trim_start().starts_with("#bytes"));
    let row = said.lines().nth(heading.expect("a heading") + 1).expect("a row");
    row.split_whitespace().map(|figure| figure.parse().unwrap()).collect()
}

/// Waits until a command on host-a succeeds.
fn wait_on_a(world: &World, command: &str) {
    let text = format!("until {command}; do usleep 50000; done");
    world.run_script(HOST_A, &text).ok().unwrap();
}
