//! Every text of an error stands in docs/troubleshooting.md or docs/rdma.md, where it is found by searching for the parts
//! that do not vary.
//!
//! Errors are texts of `#[error(...)]`, and what is put together for a failure, a C code or an exception: so each string
//! literal of three words and more is taken for one, unless it stands where no error is made ([`NO_ERRORS`],
//! [`FILES_WITHOUT`], [`NOT_TOLD`]).

use std::fs;
use std::path::{Path, PathBuf};

/// Folders of Rust sources, from the root of the repository.
const SOURCES: [&str; 6] = [
    "core/src",
    "agent/src",
    "capi/src",
    "python/src",
    "runtimes/node/addon/src",
    "runtimes/node-preload/src",
];
const PAGES: [&str; 2] = ["docs/troubleshooting.md", "docs/rdma.md"];
/// The parts of a text that are looked for have as many characters: shorter ones are anywhere.
const SHORTEST: usize = 12;
/// Macros, functions and attributes whose literals are for the log, for developers, for the assembler or for `--help`.
const NO_ERRORS: [&str; 27] = [
    "trace!",
    "debug!",
    "info!",
    "warn!",
    "error!",
    "assert!",
    "assert_eq!",
    "debug_assert!",
    "debug_assert_eq!",
    "panic!",
    "unreachable!",
    "compile_error!",
    "expect",
    "global_asm!",
    "naked_asm!",
    "asm!",
    "concat!",
    "println!",
    "print!",
    "arg",
    "command",
    "cfg_attr",
    "allow",
    "deprecated",
    "debug_struct",
    "section",
    "link",
];
/// Files that tell people how things are, and have no errors but by other files.
const FILES_WITHOUT: [&str; 18] = [
    "agent/src/doctor",
    "agent/src/info.rs",
    "agent/src/json_tests.rs",
    "agent/src/progress.rs",
    "agent/src/prometheus.rs",
    "agent/src/rdma.rs",
    "agent/src/settings/nearest.rs",
    "agent/src/settings/show.rs",
    "agent/src/settings/table.rs",
    "agent/src/settings/tests.rs",
    "agent/src/show.rs",
    "agent/src/show_files.rs",
    "agent/src/show_needs.rs",
    "agent/src/trace/picture.rs",
    "core/src/describe/files/losses.rs",
    "core/src/export/stand_in.rs",
    "core/src/fabric/tcp/speed.rs",
    "core/src/resume/program.rs",
];
/// Seen by whoever debugs Mitosis, in `{:?}` or a panic; or no error.
const NOT_TOLD: [&str; 22] = [
    "; {} more are not shown",
    "; the image was here before, with what had come by then",
    "MITOSIS_FABRIC={}; the only ACTIVE port",
    "MITOSIS_FABRIC={}; the nearest of {count} ACTIVE ports (NUMA distance {distance})",
    "MITOSIS_FABRIC={}; the first of {count} ACTIVE ports, NUMA distance unknown",
    "AddressHandle on {}",
    "DcTarget {{ gid: {gid}, lid: {}, dctn: {:#x} }}",
    "Landing({} pending on QP {})",
    "Mr({} bytes at iova {:#x} on {})",
    "Slab {{ iova: {:#x}, len: {:#x} }}",
    "an event channel",
    "the bytes are there",
    "mitosis agent ready on {}",
    "; counters at http://{address}/metrics",
    "mitosis VERB --",
    "mitosis: process {} is prepared; handle in {}",
    "mitosis: process {} is prepared; mitosis resume '{text}'",
    "prepared; resume it by: mitosis resume '{text}'",
    "prepared; its handle stands in {}",
    "text/plain; version=0.0.4; charset=utf-8",
    "Allow: GET, HEAD\\r",
    "HTTP/1.1 {line}\\r Content-Type: {kind}\\r Content-Length: {len}\\r {allow}Connection: close\\r \\r",
];

#[test]
fn every_text_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |path: &Path| {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let pages = one_line(&PAGES.map(|page| read(&root.join(page))).concat());
    let (mut found, mut missing) = (0, Vec::new());
    for path in SOURCES.iter().flat_map(|source| files(&root.join(source))) {
        let path = path.strip_prefix(root).unwrap();
        if FILES_WITHOUT.iter().any(|without| path.starts_with(without)) {
            continue;
        }
        for text in texts(&read(&root.join(path))) {
            found += 1;
            let parts = constant_parts(&text);
            let absent: Vec<_> =
                parts.iter().filter(|part| !pages.contains(part.as_str())).collect();
            if !absent.is_empty() {
                missing.push(format!("{}: '{text}': {absent:?}", path.display()));
            }
        }
    }
    assert!(found > 600, "{found} texts: the sources are read wrongly");
    assert!(
        missing.is_empty(),
        "not in the docs:\n{}\n{} texts",
        missing.join("\n"),
        missing.len()
    );
}

#[test]
fn what_is_left_out_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for path in FILES_WITHOUT {
        assert!(root.join(path).exists(), "{path}");
    }
    let sources: Vec<_> = SOURCES.iter().flat_map(|source| files(&root.join(source))).collect();
    let all: Vec<_> =
        sources.iter().flat_map(|path| literals(&fs::read_to_string(path).unwrap())).collect();
    for text in NOT_TOLD {
        assert!(all.iter().any(|literal| literal.text == text), "no source has '{text}'");
    }
}

#[test]
fn texts_are_told_from_other_literals() {
    let source = r##"
        /// "a comment with some words"
        #[error("cannot open {path} \
                 at all: {0}")]
        #[expect(lint, reason = "a reason that is read here alone")]
        fn f<'a>() { value.expect("a promise of the code itself"); say("two words"); quote('"') }
        fn g() { tracing::warn!(%error, "a line of the log {}", x("in the log")); fail(r#"a "raw" text"#) }
        /* "in a comment of blocks" */ const LONG: &str = "a text \"in quotes\" here";
        #[cfg(test)]
        mod tests { fn h() { assert!(x, "a text of a test") } }
    "##;
    let expected =
        ["cannot open {path} at all: {0}", "a \"raw\" text", "a text \"in quotes\" here"];
    assert_eq!(texts(source), expected);
    let parts = constant_parts("cannot open {path} at all, with {{braces}}, and so on: {0}");
    assert_eq!(parts, ["cannot open", "at all, with {braces}, and so on:"][1..]);
}

/// The Rust files of a folder; those of tests not.
fn files(path: &Path) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let rust = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|e| e == "rs");
    let is_tests = |path: &PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        name == "tests" || name.ends_with("_tests")
    };
    entries.filter(rust).filter(|path| !is_tests(path)).flat_map(|path| files(&path)).collect()
}

/// What may be texts of errors.
fn texts(source: &str) -> Vec<String> {
    let is_error = |literal: &Literal| {
        // `#[error(...)]` is no macro of the log.
        let excused = literal.within.iter().any(|name| NO_ERRORS.contains(&name.as_str()));
        !excused && !literal.is_reason && literal.text.split(' ').count() > 2
    };
    let all = literals(source).into_iter().filter(is_error).map(|literal| literal.text);
    all.filter(|text| !NOT_TOLD.contains(&text.as_str())).collect()
}

/// A string literal, on one line.
struct Literal {
    text: String,
    /// The calls, macros and attributes that it stands in, by their last names, macros with their `!`.
    within: Vec<String>,
    /// Behind `reason =`.
    is_reason: bool,
}

/// Where a source's tests begin, if they stand in it.
fn tests_at(source: &str) -> usize {
    let mut at = 0;
    for line in source.lines() {
        let is_module =
            line.trim_start_matches("pub(crate) ").starts_with("mod ") && line.ends_with('{');
        if is_module && source[..at].ends_with("#[cfg(test)]\n") {
            break;
        }
        at += line.len() + 1;
    }
    at.min(source.len())
}

/// All string literals up to the tests at a source's end; not those in comments.
fn literals(source: &str) -> Vec<Literal> {
    let source = &source[..tests_at(source)];
    let (mut all, mut within, mut rest) = (Vec::new(), Vec::new(), source);
    while let Some(first) = rest.chars().next() {
        let before = &source[..source.len() - rest.len()];
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if first == '\'' {
            character(rest)
        } else if let Some((text, len)) = string(rest, before) {
            let is_reason = before.trim_end().ends_with("reason =");
            all.push(Literal { text: one_line(&text), within: within.clone(), is_reason });
            len
        } else {
            match first {
                '(' | '[' | '{' => within.push(name_before(before)),
                ')' | ']' | '}' => drop(within.pop()),
                _ => {}
            }
            first.len_utf8()
        };
        rest = &rest[skipped..];
    }
    all
}

/// How long a character literal is, or the quote of a lifetime.
fn character(rest: &str) -> usize {
    let inner = rest[1..].chars().next().unwrap_or_default();
    let close = match inner {
        '\\' => rest[3..].find('\'').map(|at| at + 3),
        other => rest[1 + other.len_utf8()..].starts_with('\'').then_some(1 + other.len_utf8()),
    };
    close.map_or(1, |close| close + 1)
}

/// What a string literal says, and how long it is, if one begins here.
fn string(rest: &str, before: &str) -> Option<(String, usize)> {
    let is_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let hashes = rest.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len());
    if let Some(hashes) = hashes.filter(|hashes| !is_word && rest[1 + hashes..].starts_with('"')) {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = &rest[hashes + 2..];
        let len = body.find(&end).unwrap_or(body.len());
        return Some((body[..len].to_owned(), (hashes + 2 + len + end.len()).min(rest.len())));
    }
    let body = rest.strip_prefix('"')?;
    let mut escaped = false;
    let len = body.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    let len = len.unwrap_or(body.len());
    let text = body[..len].replace("\\\n", " ").replace("\\n", " ").replace("\\\"", "\"");
    Some((text, (len + 2).min(rest.len())))
}

/// `warn!` of `tracing::warn!(`, `context` of `.context(`, nothing of `= (`.
fn name_before(before: &str) -> String {
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '!';
    let begin = before.trim_end_matches(is_name).len();
    before[begin..].to_owned()
}

/// Between the places that are filled in.
fn constant_parts(text: &str) -> Vec<String> {
    let (open, close) = ("\u{1}", "\u{2}");
    let text = text.replace("{{", open).replace("}}", close);
    let mut parts = Vec::new();
    for part in text.split('{') {
        let part = part.split_once('}').map_or(part, |(_, behind)| behind);
        // What to do stands behind a colon, and in the docs by itself.
        let part = part.trim().trim_start_matches(": ").replace(open, "{").replace(close, "}");
        if part.len() >= SHORTEST {
            parts.push(part);
        }
    }
    parts
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
