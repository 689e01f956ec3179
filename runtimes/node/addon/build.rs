//! Keeps the library in the process for good.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Node unloads what only a worker has loaded when the worker ends; signals and forks are still led to it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
