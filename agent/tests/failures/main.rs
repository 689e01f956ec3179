//! What fails, at each step of a fork: `docs/failures.md`, held cell by cell.
//!
//! ```text
//!  a lane   hosts - bystander - step begun, halted - fault - step goes on - outcome? - undone - bystander right? - nothing left? - next
//! ```
//!
//! `cargo test -p mitosis-agent --test failures [-- WORD...]` runs the cells whose `fault, step` holds one of the words, or all.
//! An agent is halted in the middle of a step (`core/src/halt.rs`), and something happens to the real parts: a process is killed
//! or stopped, a link cut, a limit reached. What comes of it, its text and its deadline stand in the document and nowhere else.
//!
//! Needs root, /dev/fuse and iproute2, and fails without them.
#![allow(missing_docs)]

mod faults;
#[allow(dead_code, reason = "shared with two_hosts, which uses all of it")]
#[path = "../two_hosts/process.rs"]
mod process;
mod scene;
mod steps;
mod table;
mod way;
#[allow(dead_code, reason = "shared with two_hosts, which uses all of it")]
#[path = "../two_hosts/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use faults::Fault;
use process::Ended;
use scene::Scene;
use steps::{RIGHT, Step};
use table::{Cell, Outcome, Table};

/// Faults at a time: most of their time they wait for deadlines.
const LANES: usize = 4;
/// What a loaded machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(10);
/// The status of a `resume` whose child is lost, of one that is refused, and of a program of the suite that is no seed.
const LOST: i32 = 125;
const REFUSED: i32 = 1;
const NO_SEED: i32 = 3;

fn main() -> ExitCode {
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let table = Table::read();
    let faults = Fault::ALL.map(Fault::name);
    let steps = Step::ALL.map(Step::name);
    let mut failures = table.differences(&faults, &steps);
    failures.extend(table::asking_the_wall_clock());
    let is_asked_for = |cell: &&Cell| {
        let name = format!("{}, {}", cell.fault, cell.step);
        words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
    };
    let cells: Vec<&Cell> = table.of_runner().filter(is_asked_for).collect();
    let queue: Mutex<Vec<Fault>> = Mutex::new(Fault::ALL.into_iter().rev().collect());
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let Some(fault) = queue.lock().unwrap().pop() else { break };
                    let of_fault = |cell: &&&Cell| cell.fault == fault.name();
                    let cells: Vec<&Cell> = cells.iter().filter(of_fault).copied().collect();
                    let wrong = run(fault, &cells);
                    found.lock().unwrap().extend(wrong);
                }
            });
        }
    });
    failures.extend(found.into_inner().unwrap());
    for failure in &failures {
        println!("FAILED {failure}");
    }
    println!("failures: {} cells, {} failures", cells.len(), failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the cells of a fault on hosts that they share; those that follow one that went wrong have new ones.
fn run(fault: Fault, cells: &[&Cell]) -> Vec<String> {
    let mut failures = Vec::new();
    if fault == Fault::ProcessesFull && !faults::can_count_processes() {
        println!(
            "{}: skipped: no control group that counts processes can be made here",
            fault.name()
        );
        return failures;
    }
    let mut standing: Option<Scene> = None;
    for cell in cells {
        let step = Step::named(&cell.step).expect("the table was looked at");
        let begun = Instant::now();
        let mut scene = standing.take().unwrap_or_else(|| Scene::new(fault.needs_ways()));
        let outcome = catch_unwind(AssertUnwindSafe(|| run_cell(&mut scene, fault, step, cell)));
        let outcome = outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Err(text.unwrap_or_default())
        });
        let (word, wrong) = match outcome {
            Ok(took) => {
                if fault.spoils_streams() {
                    failures.extend(finish(fault, scene));
                } else {
                    standing = Some(scene);
                }
                (format!("{:?} in {:.1} s", cell.outcome, took.as_secs_f64()), None)
            }
            Err(why) => ("WRONG".to_owned(), Some(why + &scene.last_words())),
        };
        let total = begun.elapsed().as_secs_f64();
        println!("{:<16} {:<12} {word:<18} {total:.1} s in all", fault.name(), cell.step);
        if let Some(why) = &wrong {
            println!("    {why}");
        }
        failures.extend(wrong.map(|why| format!("{}, {}: {why}", fault.name(), cell.step)));
    }
    failures.extend(standing.and_then(|scene| finish(fault, scene)));
    failures
}

/// Ends the agents, behind whom nothing at all may be left.
fn finish(fault: Fault, scene: Scene) -> Option<String> {
    let finished = catch_unwind(AssertUnwindSafe(|| scene.world.finish()));
    finished.is_err().then(|| format!("{}: the hosts' end", fault.name()))
}

/// How long it took, or what came of it instead. Panics where something is left, or somebody else was harmed.
fn run_cell(scene: &mut Scene, fault: Fault, step: Step, cell: &Cell) -> Result<Duration, String> {
    // Its child would not wait as long.
    let has_bystander = cell.within < Duration::from_secs(30) && !fault.spoils_streams();
    let bystander = has_bystander.then(|| scene.bystander());
    let mut begun = step.begin(scene);
    let undo = fault.happen(scene, step, &begun);
    begun.go_on(scene);
    let waits = cell.outcome == Outcome::Waits;
    let limit = if waits { cell.within } else { cell.within + SLACK };
    let since = Instant::now();
    while !begun.has_ended() && since.elapsed() < limit {
        std::thread::sleep(Duration::from_millis(2));
    }
    let (took, has_ended) = (since.elapsed(), begun.has_ended());
    // Whoever is stopped may have the other ends of its pipes.
    undo.undo(scene);
    let ended = begun.end(scene, SLACK);
    if waits == has_ended {
        return Err(format!(
            "{:?} is expected; after {took:?} it was over: {has_ended}",
            cell.outcome
        ));
    }
    let judged = judge(scene, step, cell, &ended);
    if let Some(bystander) = bystander {
        scene.is_unharmed(bystander, fault.spares_others());
    }
    scene.is_clean();
    judged.map(|()| took)
}

fn judge(scene: &Scene, step: Step, cell: &Cell, ended: &Ended) -> Result<(), String> {
    let is_publish = step == Step::Publish;
    let code = match cell.outcome {
        Outcome::Right | Outcome::Waits => {
            if is_publish {
                0
            } else {
                RIGHT
            }
        }
        Outcome::Refused => {
            if is_publish {
                NO_SEED
            } else {
                REFUSED
            }
        }
        Outcome::Lost => LOST,
    };
    let says = cell.text.as_ref().is_none_or(|text| ended.err.contains(text.as_str()));
    if ended.code != Some(code) || !says || ended.err.contains("panicked") {
        return Err(format!(
            "{:?} '{}' is expected: {ended:?}",
            cell.outcome,
            cell.text.as_deref().unwrap_or_default()
        ));
    }
    if is_publish && ended.code == Some(0) {
        let handle = ended.out.split(' ').next().unwrap_or_default();
        let commands = format!("read 0 all;exit {RIGHT}");
        let world = &scene.world;
        let child = world.mitosis(&world.b, &["resume", handle, "--payload", &commands]).end();
        if child.code != Some(RIGHT) {
            return Err(format!("a child of it: {child:?}"));
        }
    }
    Ok(())
}
