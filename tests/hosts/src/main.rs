//! `mitosis-hosts`: see the library for what a sealed host is, `mitosis-hosts help` for its use.
#![deny(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    mitosis_hosts::main(std::env::args_os().skip(1))
}
