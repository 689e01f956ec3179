//! Gives the shared library its name at run time: programs that are linked with one 0.x go on with the
//! next, as error numbers, structs and functions only grow.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmitosis.so.0");
}
