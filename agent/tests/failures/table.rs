//! `docs/failures.md`: what comes of each fault at each step, and which test tells.
//!
//! Behind a heading `### FAULT` stand the fault's steps, `| step | outcome | text | within | test |`. An outcome is a word of
//! [`Outcome`]; a text stands in backquotes, and in `docs/troubleshooting.md`, too; a test is `failures`, which is this runner, or
//! `file.rs name`, of `agent/tests/two_hosts`. In front of them is the picture of them all, a row for each fault.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::scene::seconds;
use crate::steps::Step;

/// The whole document.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) cells: Vec<Cell>,
    /// The picture: fault, then its words in the steps' order.
    picture: BTreeMap<String, Vec<String>>,
}

/// One fault at one step.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) fault: String,
    pub(crate) step: String,
    pub(crate) outcome: Outcome,
    /// A piece of what is said.
    pub(crate) text: Option<String>,
    pub(crate) within: Duration,
    test: String,
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As if nothing had failed, later perhaps.
    Right,
    /// For as long as the fault is there, at least as long as told; then right.
    Waits,
    /// An error before any child runs.
    Refused,
    /// A child ran, and it ended or nothing is known of it: its waiter is told.
    Lost,
}

impl Outcome {
    fn parse(word: &str) -> Option<Outcome> {
        match word {
            "right" => Some(Outcome::Right),
            "waits" => Some(Outcome::Waits),
            "refused" => Some(Outcome::Refused),
            "lost" => Some(Outcome::Lost),
            _ => None,
        }
    }
}

fn repository() -> PathBuf {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR"));
    agent.parent().expect("a folder of the workspace").to_owned()
}

fn read(path: &str) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cells_of(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

impl Table {
    pub(crate) fn read() -> Table {
        let (mut cells, mut picture) = (Vec::new(), BTreeMap::new());
        let (mut fault, mut is_picture) = (None, false);
        for line in read("docs/failures.md").lines() {
            if let Some(name) = line.strip_prefix("### ") {
                fault = Some(name.to_owned());
            }
            is_picture = line.starts_with("| fault |") || is_picture && line.starts_with('|');
            let is_row = line.starts_with('|')
                && !["| fault |", "| step |", "|---"].iter().any(|head| line.starts_with(head));
            if !is_row {
                continue;
            }
            if is_picture {
                let words = cells_of(line);
                let name = words[0].trim_start_matches('[').split(']').next().unwrap_or_default();
                picture.insert(name.to_owned(), words[1..].iter().map(|&w| w.to_owned()).collect());
            } else if let Some(fault) = &fault {
                cells.push(Cell::parse(fault, line));
            }
        }
        Table { cells, picture }
    }

    /// The runner's own.
    pub(crate) fn of_runner(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(|cell| cell.test == "failures")
    }

    /// What the document says that is not so, as far as can be told without running anything.
    pub(crate) fn differences(&self, faults: &[&str], steps: &[&str]) -> Vec<String> {
        let mut amiss = Vec::new();
        let pages =
            read("docs/troubleshooting.md").split_whitespace().collect::<Vec<_>>().join(" ");
        for cell in &self.cells {
            let name = format!("{}, {}", cell.fault, cell.step);
            let is_fine = matches!(cell.outcome, Outcome::Right | Outcome::Waits);
            if cell.text.is_none() != is_fine {
                amiss.push(format!("{name}: what fails says something, and nothing else does"));
            }
            if let Some(text) = cell.text.as_ref().filter(|text| !pages.contains(text.as_str())) {
                amiss.push(format!("{name}: docs/troubleshooting.md has no '{text}'"));
            }
            if cell.test != "failures" && !is_test(&cell.test) {
                amiss.push(format!("{name}: {} is no test", cell.test));
            }
            let is_ours =
                faults.contains(&cell.fault.as_str()) && Step::named(&cell.step).is_some();
            if cell.test == "failures" && !is_ours {
                amiss.push(format!("{name}: this runner has no such fault or step"));
            }
        }
        for fault in faults.iter().filter(|fault| !self.picture.contains_key(**fault)) {
            amiss.push(format!("{fault} is not in the picture"));
        }
        for (fault, words) in &self.picture {
            if words.len() != steps.len() {
                amiss.push(format!("{fault}: {} steps in the picture", words.len()));
            }
            for (step, word) in steps.iter().zip(words) {
                let cell = self.cells.iter().filter(|c| c.fault == *fault && c.step == *step);
                let told: Vec<_> = cell.map(|cell| Some(cell.outcome)).collect();
                let shown = if word == "—" { vec![] } else { vec![Outcome::parse(word)] };
                if told != shown {
                    amiss.push(format!("{fault}, {step}: {word} in the picture, {told:?} below"));
                }
            }
        }
        amiss
    }
}

impl Cell {
    fn parse(fault: &str, line: &str) -> Cell {
        let cells = cells_of(line);
        let [step, outcome, text, within, test] = cells[..] else {
            panic!("not five cells: {line}")
        };
        let quoted = |cell: &str| cell.split('`').nth(1).map(str::to_owned);
        Cell {
            fault: fault.to_owned(),
            step: step.to_owned(),
            outcome: Outcome::parse(outcome).unwrap_or_else(|| panic!("{outcome}: {line}")),
            text: quoted(text),
            within: seconds(within).unwrap_or_else(|| panic!("'{within}' are no seconds: {line}")),
            test: quoted(test).unwrap_or_else(|| panic!("no test: {line}")),
        }
    }
}

/// `file.rs name` of agent/tests/two_hosts.
fn is_test(test: &str) -> bool {
    let Some((file, name)) = test.split_once(' ') else { return false };
    let path = repository().join("agent/tests/two_hosts").join(file);
    std::fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("#[test]\nfn {name}()")))
}

/// Sources that ask CLOCK_REALTIME, which may jump, beside those that tell people or children what it is, or files by when they
/// were made: deadlines and orders of things are CLOCK_MONOTONIC's.
pub(crate) fn asking_the_wall_clock() -> Vec<String> {
    const TELLING: [&str; 8] = [
        "agent/src/doctor/peer.rs",
        "core/src/agent/remote.rs",
        "core/src/agent/shared_files.rs",
        "core/src/agent/starting.rs",
        "core/src/image/recording.rs",
        "core/src/resume/files/make.rs",
        "core/src/sys/clock.rs",
        "core/src/prepare/whole/timers.rs",
    ];
    const ASKING: [&str; 3] = ["SystemTime", "CLOCK_REALTIME", "realtime_ns("];
    let mut folders = vec![repository().join("core/src"), repository().join("agent/src")];
    let (mut amiss, mut looked_at) = (Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            looked_at += 1;
            let name = path.strip_prefix(repository()).unwrap().display().to_string();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            let asks = code.clone().any(|line| ASKING.iter().any(|asking| line.contains(asking)));
            if asks && !TELLING.contains(&name.as_str()) {
                amiss.push(format!("{name} asks the wall clock, which may jump"));
            }
        }
    }
    assert!(looked_at > 200, "{looked_at} sources");
    amiss
}
