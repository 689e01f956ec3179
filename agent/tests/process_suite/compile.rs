//! The programs, compiled against the header and linked with the library as a user would, where they are older
//! than their sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::SystemTime;
use std::{env, fs};

use crate::table::repository;

/// Compilers at a time: CI's processors.
const COMPILERS: usize = 2;
const WARNINGS: [&str; 3] = ["-Wall", "-Wextra", "-Werror"];
/// A shared library that programs load after they have crossed.
pub(crate) const PLUGIN: &str = "plugin.so";

/// Where programs are, and what they need.
#[derive(Debug)]
pub(crate) struct Built {
    folder: PathBuf,
}

impl Built {
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn plugin(&self) -> PathBuf {
        self.folder.join(PLUGIN)
    }
}

fn sources() -> PathBuf {
    repository().join("tests/process_suite/programs")
}

/// `family/program` of each source.
pub(crate) fn names() -> Vec<String> {
    let folders = fs::read_dir(sources()).unwrap().flatten().filter(|entry| entry.path().is_dir());
    let files = folders.flat_map(|folder| fs::read_dir(folder.path()).unwrap().flatten());
    let mut names: Vec<String> = files
        .map(|file| {
            let path = file.path();
            let known = path.extension().is_some_and(|kind| kind == "c" || kind == "cc");
            assert!(known, "{} is no source of a program", path.display());
            path.strip_prefix(sources()).unwrap().with_extension("").display().to_string()
        })
        .collect();
    names.sort();
    names
}

/// Compiles what has changed.
pub(crate) fn compile(names: &[&str]) -> Built {
    let library = library();
    let folder = library.with_file_name("process-suite");
    fs::create_dir_all(&folder).unwrap();
    // As an installation would have it: the linker's name, and the one for run time.
    for name in ["libmitosis.so", "libmitosis.so.0"] {
        let _ = fs::remove_file(folder.join(name));
        std::os::unix::fs::symlink(&library, folder.join(name)).unwrap();
    }
    let mut wanted: Vec<PathBuf> = names.iter().map(|name| source(name)).collect();
    wanted.push(sources().join("plugin.c"));
    let wanted = Mutex::new(wanted);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..COMPILERS {
            scope.spawn(|| {
                while let Some(source) = next(&wanted) {
                    if let Err(why) = compile_one(&source, &folder) {
                        failed.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    Built { folder }
}

fn next(wanted: &Mutex<Vec<PathBuf>>) -> Option<PathBuf> {
    wanted.lock().unwrap().pop()
}

fn source(name: &str) -> PathBuf {
    let c = sources().join(format!("{name}.c"));
    if c.exists() { c } else { sources().join(format!("{name}.cc")) }
}

fn compile_one(source: &Path, folder: &Path) -> Result<(), String> {
    let name = source.strip_prefix(sources()).unwrap();
    let is_plugin = name == Path::new("plugin.c");
    let output = if is_plugin { folder.join(PLUGIN) } else { folder.join(name.with_extension("")) };
    fs::create_dir_all(output.parent().unwrap()).unwrap();
    let include = repository().join("include");
    let headers = ["suite.h", "siblings.h"].map(|name| sources().join(name));
    let needs = [&headers[..], &[source.to_owned(), include.join("mitosis.h")]].concat();
    let time_of = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    let newest = needs.iter().filter_map(|path| time_of(path).ok()).max();
    if time_of(&output).is_ok_and(|made| Some(made) > newest && made < SystemTime::now()) {
        return Ok(());
    }
    let (compiler, standard) = match source.extension().is_some_and(|kind| kind == "cc") {
        true => ("c++", "-std=gnu++17"),
        false => ("cc", "-std=gnu11"),
    };
    let mut command = Command::new(compiler);
    command.args([standard, "-D_GNU_SOURCE", "-O1", "-g", "-pthread"]).args(WARNINGS);
    command.arg("-I").arg(sources()).arg("-I").arg(include).arg("-o").arg(&output).arg(source);
    if is_plugin {
        command.args(["-shared", "-fPIC"]);
    } else {
        command.arg("-L").arg(folder).arg(format!("-Wl,-rpath,{}", folder.display()));
        command.args(["-lmitosis", "-ldl", "-lm"]);
    }
    let made = command
        .output()
        .map_err(|error| format!("{compiler} (tests/setup.sh installs it): {error}"))?;
    let errors = String::from_utf8_lossy(&made.stderr);
    if made.status.success() { Ok(()) } else { Err(format!("{}: {errors}", source.display())) }
}

/// The library as users get it. Cargo builds no library of C's for tests, so this asks for it.
fn library() -> PathBuf {
    let exe = env::current_exe().unwrap();
    let profile = exe.ancestors().nth(2).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--package", "mitosis-capi", "--target-dir"]);
    cargo.arg(profile.parent().unwrap()).current_dir(repository());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "libmitosis does not build");
    profile.join("libmitosis.so")
}
