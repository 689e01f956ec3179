//! What is no command is answered with those that are. As cargo builds programs for the tests beside them, `make
//! test-bench` finds this one where `make test-rust` has been.
#![allow(missing_docs)]

use std::process::Command;

#[test]
fn what_is_no_command_is_told_what_is() {
    for words in [&[][..], &["read", "udp", "x"], &["own", "nowhere", "1"]] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_mitosis-reads")).args(words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        assert!(said.starts_with("mitosis-reads: "), "{words:?}: {said}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}
