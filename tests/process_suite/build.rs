//! Compiles what is C: waits of every kind, cancellation, and the program that is nothing but C.

fn main() {
    println!("cargo:rerun-if-changed=c");
    let c = |files: &[&str], to: &str| {
        let mut build = cc::Build::new();
        build.files(files.iter().map(|file| format!("c/{file}")));
        build.std("c11").define("_GNU_SOURCE", None).warnings(true).extra_warnings(true);
        build.warnings_into_errors(true).opt_level(2).cargo_metadata(false).compile(to);
    };
    c(&["waits.c", "cancel.c"], "suite_waits");
    c(&["waits.c", "suite-waits.c"], "suite_waits_program");
    let out = std::env::var("OUT_DIR").unwrap_or_default();
    println!("cargo:rustc-link-search=native={out}");
    for program in ["suite-threads", "suite-pause"] {
        println!("cargo:rustc-link-arg-bin={program}=-lsuite_waits");
    }
    // It has C's own main.
    let whole = "-Wl,--whole-archive,-lsuite_waits_program,--no-whole-archive";
    println!("cargo:rustc-link-arg-bin=suite-waits={whole}");
}
