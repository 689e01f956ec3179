//! The program as a shell runs it, without booting anything. As cargo builds programs for the tests beside them, `make
//! test-bench` finds this one where `make test-rust` has been.
#![allow(missing_docs)]

use std::process::{Command, Output};

fn guests(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mitosis-guests")).args(words).output().unwrap()
}

#[test]
fn it_tells_how_it_is_used_and_what_is_no_option() {
    let help = guests(&["--help"]);
    assert!(help.status.success(), "{help:?}");
    assert!(String::from_utf8(help.stdout).unwrap().starts_with("usage: tests/rxe/run "));
    for words in [&[][..], &["--kind", "metal", "job"], &["--no-such-option"]] {
        let refused = guests(words);
        assert!(!refused.status.success() && !refused.stderr.is_empty(), "{words:?}: {refused:?}");
    }
}
