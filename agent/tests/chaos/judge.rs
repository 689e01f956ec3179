//! Whether an end is right, or a failure that people are told how to understand.

use std::path::Path;

use crate::process::Ended;

/// A child that has found each byte as it was.
pub(crate) const RIGHT: i32 = 7;
/// A `resume` that was refused, whose child is lost, and whose child was killed.
const TOLD: [i32; 3] = [1, 125, 137];
/// Parts of a text that do not vary and are shorter say nothing.
const SHORTEST: usize = 16;

/// What may be said.
#[derive(Debug)]
pub(crate) struct Texts(Vec<String>);

impl Texts {
    /// Of docs/troubleshooting.md: what stands in backquotes, in its parts that do not vary.
    pub(crate) fn read() -> Texts {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let page = std::fs::read_to_string(root.join("docs/troubleshooting.md")).unwrap();
        let quoted = page.lines().filter(|line| line.starts_with('|'));
        let quoted = quoted.flat_map(|line| line.split('`').skip(1).step_by(2));
        let parts = quoted.flat_map(|text| text.split("..."));
        let parts = parts.flat_map(|text| text.split(|c: char| c.is_ascii_uppercase()));
        let parts = parts.map(|part| part.trim().to_owned());
        Texts(parts.filter(|part| part.len() >= SHORTEST).collect())
    }

    /// Whether its child was right; or what is wrong with that end.
    pub(crate) fn judge(&self, what: &str, ended: &Ended) -> Result<bool, String> {
        if ended.code == Some(RIGHT) {
            return Ok(true);
        }
        if !ended.code.is_some_and(|code| TOLD.contains(&code)) {
            return Err(format!("{what}: {ended:?}"));
        }
        let unknown = |line: &&str| {
            let killed = line.contains("was killed by signal 9");
            !killed && !self.0.iter().any(|text| line.contains(text.as_str()))
        };
        let is_silent = ended.err.trim().is_empty() && ended.code != Some(137);
        match ended.err.lines().find(unknown) {
            Some(line) => Err(format!("{what}: not in docs/troubleshooting.md: '{line}'")),
            None if is_silent => Err(format!("{what}: it says nothing: {ended:?}")),
            None => Ok(false),
        }
    }
}
