//! Links what the library needs of libgcc into it: a program of C alone then loads one file less, which is
//! half of what the library costs it.

use std::path::PathBuf;
use std::{env, fs};

/// A linker script in the place of libgcc_s.so, which rustc always names.
const STATIC_LIBGCC: &str = "GROUP ( -lgcc_eh -lgcc )\n";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(folder.join("libgcc_s.so"), STATIC_LIBGCC).expect("OUT_DIR can be written to");
    println!("cargo:rustc-cdylib-link-arg=-L{}", folder.display());
    // Its handler may run at any moment: it must never be unloaded, nor be bound call by call.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete,-z,now");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmitosis_preload.so");
}
