//! `docs/what-crosses.md`: which states there are, what becomes of each, and which test tells.
//!
//! A row reads `| state | fork mode | whole-process mode | test |`. A mode is one of
//!
//! ```text
//! carried                 new: TEXT          refused: TEXT with `what the message says`
//! known: TEXT with `the check that fails`   a defect, until it is mended         —   not asked
//! ```
//!
//! A test is one of
//!
//! ```text
//! family/program          of tests/process_suite/programs
//! suite-threads case      of that program
//! file.rs name            a test function of agent/tests/two_hosts
//! folder/file.rs name     a test function of any other file, by its path in the repository
//! folder/file.py name     likewise, of pytest
//! folder/file.js name     a test of node's
//! ```

use std::path::{Path, PathBuf};

use crate::outcome::{Outcome, Way};

/// The whole document.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
}

/// A state.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) state: String,
    fork: Expected,
    whole: Expected,
    tests: Vec<String>,
}

/// What becomes of a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    Carried,
    New,
    /// With a word of the message.
    Refused(String),
    /// With a piece of the check that fails.
    Known(String),
    NotAsked,
}

pub(crate) fn repository() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_root = |folder: &&Path| folder.join("Cargo.lock").is_file();
    crates.ancestors().find(is_root).expect("a workspace").to_owned()
}

impl Table {
    pub(crate) fn read() -> Table {
        let path = repository().join("docs/what-crosses.md");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Tables of states begin with this, and any table ends with a line that is none of its.
        let mut is_of_states = false;
        let rows = text.lines().filter(|line| {
            let is_head = line.starts_with("| state |");
            is_of_states = is_head || is_of_states && line.starts_with('|');
            is_of_states && !is_head && !line.starts_with("|---")
        });
        Table { rows: rows.map(Row::parse).collect() }
    }

    /// Programs that are not in the table, or twice, and names in it that are nothing.
    pub(crate) fn differences(&self, programs: &[String]) -> Vec<String> {
        let named = |name: &str| self.rows.iter().filter(|row| row.program() == Some(name)).count();
        let programs_amiss = programs.iter().filter(|name| named(name) != 1);
        let programs_amiss =
            programs_amiss.map(|name| format!("{name} is in {} rows of the table", named(name)));
        let tests = self.rows.iter().flat_map(|row| &row.tests);
        let unknown = tests.filter(|test| !is_test(test, programs));
        programs_amiss
            .chain(unknown.map(|test| format!("the table names {test}, which is no test")))
            .collect()
    }
}

fn is_test(test: &str, programs: &[String]) -> bool {
    let Some((file, name)) = test.split_once(' ') else {
        return programs.iter().any(|program| program == test);
    };
    let path = match file {
        "suite-threads" => Path::new("tests/process_suite/src/bin/suite-threads/main.rs").into(),
        _ if file.contains('/') => PathBuf::from(file),
        _ => Path::new("agent/tests/two_hosts").join(file),
    };
    let Ok(text) = std::fs::read_to_string(repository().join(&path)) else { return false };
    let mut lines = text.lines().map(str::trim_start);
    match path.extension().and_then(|kind| kind.to_str()) {
        Some("rs") if file == "suite-threads" => text.contains(&format!("(\"{name}\", ")),
        Some("rs") => {
            let begin = format!("fn {name}(");
            let mut before = "";
            lines.any(|line| {
                std::mem::replace(&mut before, line) == "#[test]" && line.starts_with(&begin)
            })
        }
        Some("py") => text.contains(&format!("\ndef {name}(")),
        Some("js") => ['\'', '"'].iter().any(|quote| {
            let begin = format!("test({quote}{name}{quote}, ");
            lines.clone().any(|line| line.starts_with(&begin))
        }),
        _ => false,
    }
}

impl Row {
    fn parse(line: &str) -> Row {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [state, fork, whole, tests] = cells[..] else { panic!("not four cells: {line}") };
        let mode = |cell| {
            Expected::parse(cell).unwrap_or_else(|| panic!("'{cell}' is no outcome: {line}"))
        };
        let tests: Vec<String> = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(!tests.is_empty(), "no test: {line}");
        Row { state: state.replace('`', ""), fork: mode(fork), whole: mode(whole), tests }
    }

    /// The program of the suite that tells.
    pub(crate) fn program(&self) -> Option<&str> {
        self.tests.iter().map(String::as_str).find(|test| !test.contains(' '))
    }

    pub(crate) fn expected(&self, way: Way) -> Expected {
        match way {
            Way::Plain => Expected::Carried,
            Way::Fork => self.fork.clone(),
            Way::Whole => self.whole.clone(),
        }
    }
}

impl Expected {
    fn parse(cell: &str) -> Option<Expected> {
        let (kind, text) = cell.split_once(": ").unwrap_or((cell, ""));
        match (kind, text) {
            ("carried", _) => Some(Expected::Carried),
            ("new", text) if !text.is_empty() => Some(Expected::New),
            ("refused", text) => Some(Expected::Refused(text.split('`').nth(1)?.to_owned())),
            ("known", text) => Some(Expected::Known(text.split('`').nth(1)?.to_owned())),
            ("—", "") => Some(Expected::NotAsked),
            _ => None,
        }
    }

    /// Whether an outcome is this; else what is wrong.
    pub(crate) fn judge(&self, state: &str, outcome: &Outcome) -> Result<(), String> {
        let said = |word: &str| outcome.success && outcome.line == format!("{word}: {state}");
        // It has said so before any fork: printed in the table of results, and no failure.
        if outcome.word() == "absent" {
            return Ok(());
        }
        let holds = match self {
            Expected::Carried => said("carried"),
            Expected::New => said("new"),
            Expected::Refused(text) => {
                outcome.word() == "refused" && outcome.line.contains(text.as_str())
            }
            Expected::Known(_) if said("carried") || said("new") => {
                return Err("is mended: write so in docs/what-crosses.md".to_owned());
            }
            // A program that fails before the fork, or at another check, has not shown the defect.
            Expected::Known(text) => {
                outcome.line.starts_with("differs: ") && outcome.line.contains(text.as_str())
            }
            Expected::NotAsked => return Ok(()),
        };
        if holds {
            Ok(())
        } else {
            Err(format!("{self:?} of '{state}' is expected, and it is {outcome}"))
        }
    }
}
