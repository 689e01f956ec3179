//! A process of many threads does not notice that it became a seed, and its seed is all of it.
//!
//! Each case is a process of its own that prepares against a stand-in agent in this one
//! (`parent_unaffected/agent.rs`): `cases.rs`, and `latecomers.rs`, `memory.rs` and `stacks.rs`, are what the
//! process does and asserts, `threads.rs` the threads that it has, `checks.rs` what its seed's descriptor must say.
#![allow(unsafe_code)]

#[path = "../parent_unaffected/agent.rs"]
#[allow(dead_code, reason = "shared with a test that needs all of it")]
mod agent;
mod cases;
mod checks;
mod latecomers;
mod memory;
mod pending;
mod stacks;
mod threads;
#[path = "../../../tests/process_suite/src/bin/suite-state/tiles.rs"]
mod tiles;
#[path = "../parent_unaffected/traced.rs"]
#[allow(dead_code, reason = "shared with a test that needs all of it")]
mod traced;

use std::env;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use agent::{Agent, Manner};

const CASE_DEADLINE: Duration = Duration::from_secs(60);

/// What one case is.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// In a process of its own.
    run: fn(),
    /// Afterwards, on what the agent has seen.
    check: fn(&Agent),
    /// Instead of just waiting for the process.
    attend: Option<fn(&Agent, &mut Child)>,
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().collect();
    let all = cases::all();
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
    let mut failed = 0;
    for case in &chosen {
        let outcome = run(case);
        println!("test {} ... {}", case.name, if outcome.is_ok() { "ok" } else { "FAILED" });
        match outcome {
            Ok(said) => print!("{said}"),
            Err(why) => {
                println!("---- {} ----\n{why}", case.name);
                failed += 1;
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out",
        chosen.len() - failed,
        all.len() - chosen.len()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the process said on its standard error, for people.
fn run(case: &Case) -> Result<String, String> {
    let agent = Agent::start(Manner::Works);
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
    attended?;
    let said = ended?;
    guarded(|| (case.check)(&agent))?;
    Ok(said)
}

fn guarded(what: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a check panicked".to_owned())
    })
}

fn finish(process: &mut Child) -> Result<String, String> {
    drop(process.stdin.take());
    let deadline = Instant::now() + CASE_DEADLINE;
    let status = loop {
        match process.try_wait().unwrap() {
            Some(status) => break Ok(status),
            None if Instant::now() > deadline => {
                process.kill().unwrap();
                process.wait().unwrap();
                break Err(format!("it did not end within {} s\n", CASE_DEADLINE.as_secs()));
            }
            None => thread::sleep(Duration::from_millis(2)),
        }
    };
    let mut text = String::new();
    let _ = process.stderr.take().unwrap().read_to_string(&mut text);
    match status {
        Ok(status) if status.success() => Ok(text),
        Ok(status) => Err(format!("it ended with {status}\n{text}")),
        Err(late) => Err(late + &text),
    }
}
