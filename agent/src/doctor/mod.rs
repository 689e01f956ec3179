//! `mitosis doctor`: what this host can do, what it lacks, and what to do about it.
//!
//! Facts are gathered in one place ([`host::Facts`], [`crate::rdma::Facts`]) and judged in another, by
//! functions that only look: each gives [`Check`]s. A new subject is one more pair.

mod host;
mod peer;
mod preload;
pub(crate) mod rdma;

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::rdma::Facts as RdmaFacts;
use crate::settings::Settled;

/// How things stand with one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As it should be.
    Fine,
    /// Not there; Mitosis works without it, and the finding says how.
    Lacking,
    /// Not there, and needed.
    Missing,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Standing::Fine => "fine",
            Standing::Lacking => "lacking",
            Standing::Missing => "MISSING",
        }
    }
}

/// One subject that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What it is.
    pub name: String,
    /// How it stands.
    pub standing: Standing,
    /// What was found.
    pub finding: String,
    /// What to do, where something is to be done.
    pub remedy: Option<String>,
}

impl Check {
    fn fine(name: impl Into<String>, finding: impl Into<String>) -> Self {
        Self { name: name.into(), standing: Standing::Fine, finding: finding.into(), remedy: None }
    }

    fn lacking(
        name: impl Into<String>,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { name: name.into(), standing: Standing::Lacking, finding: finding.into(), remedy }
    }

    fn missing(
        name: impl Into<String>,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { standing: Standing::Missing, ..Self::lacking(name, finding, remedy) }
    }
}

/// Looks at this host, or at a peer of it, tells, and fails if something is missing that is needed.
pub fn run(settled: &Settled, peer: Option<&str>, as_json: bool) -> ExitCode {
    settled.warn();
    let mut checks = vec![settings(settled), read_streams(settled)];
    match peer {
        Some(peer) => checks.extend(peer::judge(&peer::Facts::gather(settled, peer))),
        None => {
            checks.extend(host::judge(&host::Facts::gather()));
            checks.extend(preload::judge(&preload::Facts::gather()));
            checks.extend(rdma::judge(&RdmaFacts::gather(settled)));
        }
    }
    let fine = is_fine(&checks);
    if as_json {
        println!("{}", as_value(&checks));
    } else {
        print!("{}", as_text(&checks));
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether an agent would take all that is set.
fn settings(settled: &Settled) -> Check {
    match settled.check(true) {
        Ok(()) => Check::fine("settings", "an agent takes them; 'mitosis info -c' lists them"),
        Err(error) => Check::missing("settings", error.to_string(), "mend what is named there"),
    }
}

/// Whether pages cross the network encrypted.
fn read_streams(settled: &Settled) -> Check {
    const NAME: &str = "READ streams";
    match (settled.switch("encrypt_reads"), settled.text("secret_file")) {
        (true, _) => Check::fine(NAME, "encrypted, and no others (encrypt_reads)"),
        (false, None) => Check::fine(NAME, "none: without a secret no other host is talked to"),
        (false, Some(_)) => {
            Check::fine(NAME, "in plain, but to and from agents that have encrypt_reads")
        }
    }
}

fn is_fine(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.standing != Standing::Missing)
}

fn as_text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        text.push_str(&format!(
            "{:8} {:24} {}\n",
            check.standing.word(),
            check.name,
            check.finding
        ));
        if let Some(remedy) = &check.remedy {
            text.push_str(&format!("{:33} remedy: {remedy}\n", ""));
        }
    }
    let count = |standing| checks.iter().filter(|check| check.standing == standing).count();
    let (lacking, missing) = (count(Standing::Lacking), count(Standing::Missing));
    text.push_str(&match (missing, lacking) {
        (0, 0) => "nothing is missing\n".to_owned(),
        (0, lacking) => format!("nothing that is needed is missing; {lacking} lacking\n"),
        (missing, lacking) => format!("{missing} missing, {lacking} lacking\n"),
    });
    text
}

fn as_value(checks: &[Check]) -> Value {
    let one = |check: &Check| {
        json!({
            "name": check.name,
            "standing": check.standing.word().to_lowercase(),
            "finding": check.finding,
            "remedy": check.remedy,
        })
    };
    json!({ "fine": is_fine(checks), "checks": checks.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_does_not_fail_and_what_is_missing_does() {
        let lacking = [Check::fine("a", "b"), Check::lacking("c", "d", "e")];
        assert!(is_fine(&lacking));
        assert!(as_text(&lacking).ends_with("nothing that is needed is missing; 1 lacking\n"));
        let missing = [Check::lacking("c", "d", "e"), Check::missing("f", "g", "h")];
        assert!(!is_fine(&missing));
        let text = as_text(&missing);
        assert!(text.contains("MISSING  f") && text.contains("remedy: h"), "{text}");
        assert!(text.ends_with("1 missing, 1 lacking\n"), "{text}");
        let value = as_value(&missing);
        let all = as_value(&[&lacking[..], &missing].concat());
        crate::json_tests::assert_documented("doctor", &[all]);
        assert_eq!(
            (&value["fine"], &value["checks"][1]["standing"]),
            (&json!(false), &json!("missing"))
        );
    }
}
