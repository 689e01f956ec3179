//! `mitosis run`: a program with the preload library, prepared when its moment comes.
//!
//! ```text
//! start > wait for the moment (listen, file, port, signal) > warm > prepare > the handle is told
//! └-----> standard streams, signals and exit status are the program's, prepared or not
//! ```
//!
//! What keeps a program from being prepared is said once, and it runs without.

mod library;
mod moment;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use anyhow::{Context as _, bail};
use clap::Args;
use mitosis::client::{self, AGENT_VARIABLE, WHEN_VARIABLE, When};
use mitosis::sys::pidfd::PidFd;
use mitosis::sys::signal;
use mitosis::wire::preload::SECCOMP_CALLS;

use crate::prepare::{self, How, Made};
use crate::verbs::Context;
pub use library::find as find_library;
use moment::Moment;

/// Exit status of a command that is not there, and of one that cannot be run: as shells have it.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
/// Sent to this program and meant for the other.
const PASSED_ON: [i32; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];
/// What a failed warm command said is repeated up to here.
const LAST_BYTES: usize = 2000;

/// What to run, and when to prepare it.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The moment at which the program is prepared: `listen` (it, or a process that it has started, listens),
    /// `port:NUMBER` (that port answers), `file:PATH` (that file is there) or `signal:NAME` (this program gets
    /// that signal). `mitosis prepare PID` works at any time.
    #[arg(long, value_name = "MOMENT", default_value = "listen")]
    when: When,
    /// A shell command that warms the program up once the moment has come; the program is prepared when it has
    /// succeeded.
    #[arg(long, value_name = "COMMAND")]
    warm: Option<String>,
    /// Write the handle to this file, readable by this user alone, instead of standard error.
    #[arg(long, value_name = "FILE")]
    handle_file: Option<PathBuf>,
    /// libmitosis_preload.so, where it is not beside this program.
    #[arg(long, value_name = "FILE", env = library::VARIABLE)]
    preload: Option<PathBuf>,
    #[command(flatten)]
    how: How,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// `mitosis run`.
pub fn run(context: &Context, args: RunArgs) -> anyhow::Result<ExitCode> {
    let path = std::env::var("PATH").unwrap_or_default();
    let Some(program) = client::find_program(Path::new(&args.command[0]), &path) else {
        eprintln!("mitosis: there is no program '{}' (looked in PATH)", args.command[0]);
        return Ok(ExitCode::from(NOT_FOUND));
    };
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]);
    let serves = serves(context, &args, &program, &path, &mut command)?;
    // Before the program starts, and before any other thread does.
    let own_signal = match args.when {
        When::Signal(signal) => Some(signal),
        _ => None,
    };
    let signals: Vec<i32> =
        PASSED_ON.into_iter().chain(own_signal.filter(|own| !PASSED_ON.contains(own))).collect();
    let signals = signal::block(&signals)?;
    signals.not_in(&mut command);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("mitosis: {} cannot be run: {error}", program.display());
            return Ok(ExitCode::from(NOT_RUNNABLE));
        }
    };
    let (pidfd, signalled) = (PidFd::open(child.id())?, Arc::new(AtomicBool::new(false)));
    let own_came = signalled.clone();
    signals.each_sent(move |signal| {
        if own_signal == Some(signal) {
            own_came.store(true, SeqCst);
        } else {
            // It may have ended.
            let _ = pidfd.signal(signal);
        }
    })?;
    let told = Arc::new(AtomicBool::new(!serves));
    if serves {
        let moment = Moment::new(args.when.clone(), child.id(), signalled);
        let (context, told) = (context.clone(), told.clone());
        std::thread::spawn(move || {
            let outcome = prepare_at(&context, &args, &moment);
            told.store(true, SeqCst);
            if let Err(error) = outcome {
                eprintln!("mitosis: the program goes on unprepared: {error:#}");
            }
        });
    }
    let status = child.wait()?;
    if !told.load(SeqCst) {
        eprintln!("mitosis: the program ended before it was prepared");
    }
    Ok(status_of(status))
}

/// Sets the library up for the program; whether that will do. If not, that is said.
fn serves(
    context: &Context,
    args: &RunArgs,
    program: &Path,
    path: &str,
    command: &mut Command,
) -> anyhow::Result<bool> {
    let agent = context.agent();
    if !agent.answers() {
        bail!(
            "no mitosis agent answers at {agent}: start one with 'mitosis agent', or name its socket"
        );
    }
    let library = find_library(args.preload.as_deref())?;
    command.env_remove(WHEN_VARIABLE);
    if let Err(cause) = client::loads_library(program, path) {
        eprintln!("mitosis: {} {cause}; it runs, and cannot be prepared", program.display());
        return Ok(false);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let filtered = status.lines().any(|line| line.starts_with("Seccomp:") && !line.ends_with('0'));
    if filtered && !args.how.allow_seccomp {
        eprintln!(
            "mitosis: a seccomp filter is in force here (a container's?), which may kill a program that is \
             prepared: it runs, and is not; --allow-seccomp if the filter allows {SECCOMP_CALLS} \
             (docs/preload.md)"
        );
        return Ok(false);
    }
    let others = std::env::var_os("LD_PRELOAD").filter(|others| !others.is_empty());
    let mut preload = library.into_os_string();
    if let Some(others) = others {
        preload.push(":");
        preload.push(others);
    }
    command.env("LD_PRELOAD", preload);
    command.env(AGENT_VARIABLE, std::path::absolute(&agent.0)?);
    Ok(true)
}

fn prepare_at(context: &Context, args: &RunArgs, moment: &Moment) -> anyhow::Result<()> {
    let pid = moment.wait();
    match &args.warm {
        Some(warm) => warm_up(warm)?,
        None => moment.settle(),
    }
    let made = prepare::prepare(context, pid, &args.how)?;
    tell(context, &made, args.handle_file.as_deref())
}

fn warm_up(warm: &str) -> anyhow::Result<()> {
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", warm]).stdin(Stdio::null()).output().context("--warm: sh")?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(LAST_BYTES)..]).into_owned();
    bail!("--warm '{warm}' failed ({}) and said: {}", output.status, said.trim_end());
}

fn tell(context: &Context, made: &Made, file: Option<&Path>) -> anyhow::Result<()> {
    let text = made.handle.reveal();
    match file {
        Some(file) => {
            write(file, &text).with_context(|| file.display().to_string())?;
            if !context.json {
                eprintln!(
                    "mitosis: process {} is prepared; handle in {}",
                    made.pid,
                    file.display()
                );
            }
        }
        None if context.json => {}
        None => eprintln!("mitosis: process {} is prepared; mitosis resume '{text}'", made.pid),
    }
    if context.json {
        eprintln!("{}", made.as_value());
    }
    Ok(())
}

/// Nobody but its user reads it, and nobody reads half of it.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(new);
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let written = options.and_then(|mut new| writeln!(new, "{text}"));
    let written = written.and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        // It may not have come to be.
        let _ = fs::remove_file(&new);
    }
    written
}

/// As a shell tells it.
fn status_of(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}
