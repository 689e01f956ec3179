//! `mitosis-guests`: see the library for what a guest is, `mitosis-guests --help` for its use.
#![deny(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    mitosis_guests::main(std::env::args_os().skip(1))
}
