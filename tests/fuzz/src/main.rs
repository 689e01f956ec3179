//! libFuzzer on one target, which `FUZZ_TARGET` names; its flags are libFuzzer's own. Built by `run.sh`.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use mitosis_fuzz::{TARGETS, Target};

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fn choose() -> &'static Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    Target::named(&name)
        .unwrap_or_else(|| panic!("FUZZ_TARGET is one of {TARGETS:?}, not '{name}'"))
}

fuzz_target!(|bytes: &[u8]| {
    (CHOSEN.get_or_init(choose).run)(bytes);
});
