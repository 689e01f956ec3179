//! Each program does without a fork what its children are later compared with.

use std::process::Command;

fn output_of(program: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(program).args(arguments).output().unwrap();
    // Shown where the test fails.
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn told_obeys() {
    let told = env!("CARGO_BIN_EXE_suite-told");
    let (status, said) = output_of(told, &["plain", "read 0 all;write 0 4;exit 7"]);
    assert_eq!((status, said.as_str()), (Some(7), "read 2048 pages\nwrote 4 pages\n"));
    let (status, _) = output_of(told, &["plain", "write 3 1;read 3 1"]);
    assert_eq!(status, Some(3), "a page that differs is noticed");
    let (status, said) = output_of(told, &["plain", "fork;spawn;exec"]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.ends_with("exec'd in place\n"), "{said}");
}

#[test]
fn calls_repeat() {
    let calls = env!("CARGO_BIN_EXE_suite-calls");
    let first = output_of(calls, &["3", "plain"]);
    assert_eq!(first.0, Some(0), "{}", first.1);
    assert!(first.1.lines().count() > 160 && first.1.ends_with("exec is clean\n"), "{}", first.1);
    assert_eq!(first, output_of(calls, &["3", "plain"]), "one seed, one sequence");
    assert_ne!(first.1, output_of(calls, &["4", "plain"]).1);
}

/// All at once: most of their time they wait.
fn threads_cases(way: &str) -> Vec<(String, Option<i32>, String)> {
    let threads = env!("CARGO_BIN_EXE_suite-threads");
    let (_, cases) = output_of(threads, &["list"]);
    let file = std::env::temp_dir().join(format!("suite-threads-{}-{way}", std::process::id()));
    std::fs::write(&file, "").unwrap();
    let path = file.to_str().unwrap();
    let ended = std::thread::scope(|scope| {
        let running: Vec<_> = cases
            .lines()
            .map(|case| (case, scope.spawn(move || output_of(threads, &[case, way, path]))))
            .collect();
        let ends = running.into_iter().map(|(case, end)| {
            let (status, said) = end.join().unwrap();
            (case.to_owned(), status, said)
        });
        ends.collect::<Vec<_>>()
    });
    std::fs::remove_file(&file).unwrap();
    assert!(ended.len() > 40, "{cases}");
    ended
}

#[test]
fn threads_hold_without_a_fork() {
    for (case, status, said) in threads_cases("plain") {
        assert_eq!((status, said), (Some(0), format!("ok {case}\n")), "{case}");
    }
}

#[test]
fn threads_are_missed_where_a_fork_loses_them() {
    for (case, status, said) in threads_cases("forked") {
        assert!(status != Some(0) && !said.contains("ok"), "{case} looks at nothing: {said}");
    }
}

#[test]
fn waits_end() {
    let waits = env!("CARGO_BIN_EXE_suite-waits");
    let (status, said) = output_of(waits, &["/proc/self/exe", "100"]);
    assert_eq!((status, said.as_str()), (Some(0), "standing\n100 of 100 threads went on\n"));
}
