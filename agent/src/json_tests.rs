//! docs/json.md has a section for each verb, and in it exactly the keys that are printed, with their types. Where values are
//! made, tests give them to [`assert_documented`]: enough of them that each key is there, and each of its types.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory;
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/json.md");

/// Types by key: `a.b` of objects, `a[]` of lists. Of objects and lists that are there, only what is in them.
type Keys = BTreeMap<String, BTreeSet<String>>;

/// Compares with the table of a section.
#[track_caller]
pub fn assert_documented(section: &str, values: &[Value]) {
    let mut printed = Keys::new();
    values.iter().for_each(|value| walk(value, "", &mut printed));
    assert_eq!(printed, documented(section), "docs/json.md, section '{section}', is at the right");
}

fn walk(value: &Value, key: &str, keys: &mut Keys) {
    let kind = match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let dot = if key.is_empty() { "" } else { "." };
                walk(value, &format!("{key}{dot}{name}"), keys);
            }
            return;
        }
        Value::Array(values) => {
            return values.iter().for_each(|value| walk(value, &format!("{key}[]"), keys));
        }
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
    };
    keys.entry(key.to_owned()).or_default().insert(kind.to_owned());
}

fn documented(section: &str) -> Keys {
    let heading = format!("\n## {section}\n");
    let (_, rest) = PAGE.split_once(&heading).unwrap_or_else(|| panic!("no section '{section}'"));
    let own = rest.split("\n## ").next().unwrap_or_default();
    let rows = own.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split(" | ").map(str::trim).collect::<Vec<_>>());
    let mut keys = Keys::new();
    for cells in cells {
        let key = cells[0].trim_start_matches("| ").trim_matches('`').to_owned();
        let kinds = cells[1].split(" or ").map(str::to_owned).collect();
        assert!(keys.insert(key, kinds).is_none(), "{cells:?} stands twice");
    }
    keys
}

#[test]
fn each_verb_has_its_section() {
    let command = crate::Cli::command();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    for verb in verbs.map(clap::Command::get_name).filter(|verb| *verb != "help") {
        assert!(PAGE.contains(&format!("\n## {verb}\n")), "{verb}");
    }
}

#[test]
fn keys_are_told_from_rows() {
    let value = serde_json::json!({ "a": [{ "b": 1 }, { "b": null }], "c": { "d": "" }, "e": [] });
    let mut keys = Keys::new();
    walk(&value, "", &mut keys);
    let set = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let expected = [("a[].b", set(&["number", "null"])), ("c.d", set(&["text"]))];
    assert_eq!(keys, expected.map(|(key, kinds)| (key.to_owned(), kinds)).into());
}
