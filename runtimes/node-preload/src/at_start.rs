//! What happens when a program starts with the library: as little as possible.
#![allow(unsafe_code)]

use std::env;
use std::ffi::{CString, c_int};

use mitosis::client::{WHEN_VARIABLE, When};
use mitosis::prepare;
use mitosis::wire::preload::{SIGNAL, SIGNAL_VARIABLE, signal_named};

use crate::{interpose, openssl, outside, raw, seccomp, told, watch};

/// Names the process that the moment is meant for: it may become another program by exec, but what it starts
/// is not meant.
const OWNER_VARIABLE: &str = "MITOSIS_PREPARE_OWNER";

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    prepare::get_ready();
    interpose::get_ready();
    openssl::get_ready();
    outside::listen_to(signal());
    let Ok(text) = env::var(WHEN_VARIABLE) else { return };
    if text.is_empty() || !is_meant() {
        return;
    }
    match text.parse::<When>() {
        Err(error) => told::line(&format!("{WHEN_VARIABLE}: {error}; the program is not prepared")),
        Ok(_) if let Some(why) = seccomp::in_the_way() => told::line(&why),
        Ok(when) => watch::wait_for(when),
    }
}

/// The signal that `mitosis prepare PID` sends.
fn signal() -> c_int {
    let Ok(text) = env::var(SIGNAL_VARIABLE) else { return SIGNAL };
    signal_named(&text).unwrap_or_else(|| {
        if !text.is_empty() {
            told::line(&format!(
                "{SIGNAL_VARIABLE}: '{text}' is no signal from 34 to 64; {SIGNAL} it is"
            ));
        }
        if let Ok(name) = CString::new(SIGNAL_VARIABLE) {
            // What this program starts does not say it again.
            // SAFETY: a string, which libc only reads; no other thread runs before main.
            unsafe { libc::unsetenv(name.as_ptr()) };
        }
        SIGNAL
    })
}

/// Whether the moment is meant for this process: the first that sees it takes it.
fn is_meant() -> bool {
    let own = raw::process_id().to_string();
    match env::var(OWNER_VARIABLE) {
        Ok(owner) => owner == own,
        Err(_) => {
            let (name, value) = (CString::new(OWNER_VARIABLE), CString::new(own));
            if let (Ok(name), Ok(value)) = (name, value) {
                // SAFETY: two strings, which libc copies; no other thread runs before main.
                unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
            }
            true
        }
    }
}
