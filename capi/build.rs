//! Gives the shared library its name at run time: programs that are linked with one 0.x go on with the
//! next, as error numbers, structs and functions only grow. It stays where it is loaded, also behind dlclose(3): threads
//! that have called it run its destructors when they end, and children its at-fork handlers.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmitosis.so.0");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
