//! Every text of the RDMA code that a user can see stands in docs/rdma.md or docs/troubleshooting.md, where it
//! is found by searching for the parts that do not vary.

use std::fs;
use std::path::{Path, PathBuf};

/// Where such texts are made, in `core/src`.
const SOURCES: [&str; 12] = [
    "verbs",
    "fabric/rc",
    "fabric/rc.rs",
    "fabric/landings.rs",
    "fabric/arena.rs",
    "fabric/dc",
    "fabric/dc.rs",
    "export/dc.rs",
    "export/rc.rs",
    "export/card.rs",
    "export/host_memory.rs",
    "agent/rdma.rs",
];
/// The parts of a text that are looked for have as many characters: shorter ones are anywhere.
const SHORTEST: usize = 12;
/// Seen by whoever debugs Mitosis, in `{:?}` or a panic.
const FOR_DEVELOPERS: [&str; 6] = [
    "AddressHandle on {}",
    "Landing({} pending on QP {})",
    "Mr({} bytes at iova {:#x} on {})",
    "a range outside of the region",
    "an event channel",
    "the bytes are there",
];

#[test]
fn every_text_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: PathBuf| {
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let pages = ["rdma.md", "troubleshooting.md"].map(|name| read(root.join("../docs").join(name)));
    let pages = one_line(&pages.concat());
    let (mut found, mut missing) = (0, Vec::new());
    for path in SOURCES.iter().flat_map(|source| files(&root.join("src").join(source))) {
        let source = read(path.clone());
        for text in texts(&source) {
            found += 1;
            let parts = constant_parts(&text);
            for part in parts.iter().filter(|part| !pages.contains(part.as_str())) {
                missing.push(format!("{}: '{part}' of '{text}'", path.display()));
            }
        }
    }
    assert!(found > 60, "{found} texts: the sources are read wrongly");
    assert!(missing.is_empty(), "not in the docs:\n{}", missing.join("\n"));
}

#[test]
fn texts_are_told_from_other_literals() {
    let source = r#"
        /// "a comment with some words"
        #[error("cannot open {path} \
                 at all: {0}")]
        #[expect(lint, reason = "a reason that is read here alone")]
        fn f() { value.expect("a promise of the code itself"); say("two words") }
        #[cfg(test)]
        mod tests { fn g() { assert!(x, "a text of a test") } }
    "#;
    assert_eq!(texts(source), ["cannot open {path} at all: {0}"]);
    assert_eq!(constant_parts("cannot open {path} at all, and so on: {0}"), ["at all, and so on:"]);
}

/// The Rust files of a directory, or the file itself; those of tests not.
fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let rust = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|e| e == "rs");
    let own = |path: &PathBuf| !path.ends_with("tests.rs");
    entries.filter(rust).filter(own).flat_map(|path| files(&path)).collect()
}

/// String literals of three words and more outside of comments, tests, lint reasons and `expect`.
fn texts(source: &str) -> Vec<String> {
    let code: String = source
        .split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut texts = Vec::new();
    let mut rest = code.as_str();
    while let Some(start) = rest.find('"') {
        let before = rest[..start].trim_end();
        let length = closing_quote(&rest[start + 1..]);
        let text = one_line(&rest[start + 1..start + 1 + length].replace("\\\n", " "));
        rest = &rest[(start + length + 2).min(rest.len())..];
        let is_ours = before.ends_with("reason =") || before.ends_with(".expect(");
        if !is_ours && text.split(' ').count() > 2 && !FOR_DEVELOPERS.contains(&text.as_str()) {
            texts.push(text);
        }
    }
    texts
}

/// Where a literal ends that begins before `text`.
fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.unwrap_or(text.len())
}

/// Between the places that are filled in.
fn constant_parts(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for part in text.split('{') {
        let part = part.split_once('}').map_or(part, |(_, behind)| behind);
        // What to do stands behind a colon, and in the docs by itself.
        let part = part.trim().trim_start_matches(": ");
        if part.len() >= SHORTEST {
            parts.push(part.to_owned());
        }
    }
    parts
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
