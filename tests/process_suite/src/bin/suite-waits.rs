//! `c/suite-waits.c`: a program that knows nothing of Mitosis, nor of Rust.
#![no_main]
