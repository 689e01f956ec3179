//! The parent does not notice that it became a seed, and a seed is what fork(2) would have made.
//!
//! Each case is a process of its own, without other threads, that prepares against a stand-in agent in
//! this one (`agent.rs`): `cases.rs` is what the process does and asserts, `checks.rs` what its seed's
//! descriptor must say. `traced.rs` looks at seeds from outside, with ptrace(2): it needs root.
#![allow(unsafe_code)]

mod agent;
mod cases;
mod checks;
mod traced;

use std::env;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use agent::{Agent, Manner};

const CASE_DEADLINE: Duration = Duration::from_secs(30);

/// What one case is.
struct Case {
    name: &'static str,
    /// In a process of its own.
    run: fn(),
    /// The stand-in agent it meets.
    manner: Manner,
    /// Afterwards, on what the agent has seen.
    check: fn(&Agent),
    /// Instead of just waiting for the process.
    attend: Option<fn(&Agent, &mut Child)>,
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    let all = checks::all();
    if let [_, flag, name] = args.as_slice()
        && flag == "--case"
    {
        let case = all.iter().find(|case| case.name == name).expect("a known case");
        (case.run)();
        return ExitCode::SUCCESS;
    }
    if args.get(1).is_some_and(|flag| flag == "--list") {
        all.iter().for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = args[1..].iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |case: &&Case| {
        filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter.as_str()))
    };
    let chosen: Vec<&Case> = all.iter().filter(wanted).collect();
    println!("\nrunning {} tests", chosen.len());
    let mut failed = Vec::new();
    for case in &chosen {
        let outcome = run(case);
        println!("test {} ... {}", case.name, if outcome.is_ok() { "ok" } else { "FAILED" });
        if let Err(why) = outcome {
            println!("---- {} ----\n{why}", case.name);
            failed.push(case.name);
        }
    }
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    let passed = chosen.len() - failed.len();
    println!(
        "\ntest result: {word}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out",
        failed.len(),
        all.len() - chosen.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(case: &Case) -> Result<(), String> {
    let agent = Agent::start(case.manner);
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--case", case.name])
        .env("MITOSIS_AGENT", agent.socket())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let attended = match case.attend {
        Some(attend) => guarded(|| attend(&agent, &mut process)),
        None => Ok(()),
    };
    let ended = finish(&mut process);
    attended.and(ended)?;
    guarded(|| (case.check)(&agent))
}

fn guarded(what: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a check panicked".to_owned())
    })
}

fn finish(process: &mut Child) -> Result<(), String> {
    drop(process.stdin.take());
    let deadline = Instant::now() + CASE_DEADLINE;
    let status = loop {
        match process.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                process.kill().unwrap();
                process.wait().unwrap();
                return Err(format!("it did not end within {} s", CASE_DEADLINE.as_secs()));
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut text = format!("it ended with {status}\n");
    let _ = process.stderr.take().unwrap().read_to_string(&mut text);
    Err(text)
}
