//! Processes that go on under another kernel, with another vDSO.

use crate::world::{HOST_A, HOST_B, World, of_two_kernels, python};

/// CPython goes from the one to the other; a program that was forked from there goes back: its libc's calls lead from one
/// vDSO to the next.
pub(crate) fn run_each_others_seeds() {
    let world = of_two_kernels("rc");
    let kernels = [HOST_A, HOST_B].map(|node| world.run(node, &["uname", "-r"]).ok().unwrap());
    assert_ne!(kernels[0], kernels[1]);
    let python = python();
    let argv = [python.to_str().unwrap(), "/host/files/clocks.py", "10.77.0.2"];
    let said = world.run(HOST_A, &argv).ok().unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let [child, parent] = lines[..] else { panic!("two lines, and not {said}") };
    assert_eq!(child, format!("child on {}: 6 clocks, led to [vdso]", kernels[1].trim()));
    assert_eq!(parent, format!("parent on {}: 6 clocks, in [vdso]", kernels[0].trim()));
    and_back(&world);
}

fn and_back(world: &World) {
    let seed = world.seed();
    let commands = "read 0 8;again host-a who,read 0 64,exit 5";
    let argv = ["mitosis", "resume", &seed.handle, "--on", "host-b", "--payload", commands];
    let said = world.run(HOST_A, &argv).ok().unwrap();
    assert!(said.contains("index 0 generation 2 on host-a\nread 64 pages\n"), "{said}");
    assert!(said.contains("after generation 1: [Exited(5)]"), "{said}");
}
